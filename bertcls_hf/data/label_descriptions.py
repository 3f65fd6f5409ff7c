"""The texts that tell what labels mean."""

from collections.abc import Sequence

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.errors import ArgumentsError


def described_labels(args: Arguments, labels: LabelSet) -> Sequence[str] | None:
    """Returns a text for each label; without training rows, its name if there is no other.

    Args:
        args: the options.
        labels: the labels of the task.
    """
    given = args.few_shot.label_descriptions
    return labels.names if given is None and args.learns_without_labels else given


def check_descriptions(args: Arguments, labels: LabelSet, is_pair: bool) -> None:
    """Checks that there is a description for each label, where there are descriptions.

    Raises:
        ArgumentsError: if there are more or fewer, or the task is not one of texts and classes.
    """
    texts = described_labels(args, labels)
    if texts is None:
        return
    if labels.problem_type == REGRESSION or is_pair:
        kind = "pairs of texts" if is_pair else f"a {REGRESSION}"
        raise ArgumentsError(f"--label_descriptions are for single texts and classes, and the task is of {kind}")
    if len(texts) != len(labels.names):
        raise ArgumentsError(
            f"--label_descriptions are {len(texts)}, and the labels {len(labels.names)}: give one for each of "
            f"{', '.join(labels.names)}, in this order"
        )
