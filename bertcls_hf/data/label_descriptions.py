"""The texts that tell what labels mean."""

from collections.abc import Sequence

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.errors import ArgumentsError


def described_labels(args: Arguments, labels: LabelSet) -> Sequence[str] | None:
    """Returns a text for each label of the task, in its order; without training rows, its name if there is no other.

    Args:
        args: the options, whose descriptions are in the order of `label_names`, if these are given.
        labels: the labels of the task. Those of a trained classifier may be in another order.
    """
    given, names = args.few_shot.label_descriptions, args.data.label_names
    if given is None:
        return labels.names if args.learns_without_labels else None
    if names is None or set(names) != set(labels.names) or len(names) != len(given):
        return given
    text_of = dict(zip(names, given, strict=True))
    return [text_of[name] for name in labels.names]


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
        names = ", ".join(args.data.label_names or labels.names)
        raise ArgumentsError(
            f"--label_descriptions are {len(texts)}, and the labels {len(labels.names)}: give one for each of "
            f"{names}, in this order"
        )
