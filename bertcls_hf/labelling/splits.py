"""Reads the splits of a task of which little is labelled yet: no row, or rows of a single label."""

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet, infer_problem_type, raw_labels
from bertcls_hf.data.load import ClassificationData, load_data
from bertcls_hf.data.row_checks import checked_split
from bertcls_hf.data.sources import Source, load_sources
from bertcls_hf.data.splits import hold_out, percentages_to_hold_out, sample_splits
from bertcls_hf.data.task_labels import labels_of_split
from bertcls_hf.data.unlabelled import load_unlabelled


def read_splits(args: DataArguments, known: LabelSet | None) -> ClassificationData:
    """Reads the splits as a training does, and also where a training would refuse them for want of labels.

    With `--label_names`, the labels are known, and the rows need not have all of them. Without training data, the
    texts of the pool, which have no labels, stand in the place of the training split.

    Args:
        args: the data options.
        known: the labels of a trained classifier, or None.

    Raises:
        DataError: see [`load_data`].
    """
    has_train = bool(args.train_file or args.dataset_name)
    if has_train and not args.label_names:
        return load_data(args, known, trains=True, predicts=False)
    sources = load_sources(args, frozenset({"train", "validation"}) if has_train else frozenset({"validation"}), {})
    labels = _labels(args, sources, known)
    checked = {split: checked_split(source, args, labels, predicts=False) for split, source in sources.items()}
    held_out = percentages_to_hold_out(sources, args)
    data = ClassificationData(labels, dict(sample_splits(hold_out(checked, held_out, args, labels), args, labels)))
    if has_train:
        return data
    pool = load_unlabelled(args, data)
    assert pool is not None
    return ClassificationData(labels, {**data.splits, "train": pool})


def _labels(args: DataArguments, sources: dict[str, Source], known: LabelSet | None) -> LabelSet:
    if "train" not in sources and "validation" in sources:
        return labels_of_split(args, sources["validation"], known)
    if known is not None:
        return known
    problem_type = args.problem_type or SINGLE_LABEL
    if "train" in sources:
        train = sources["train"]
        values = raw_labels(train.dataset, args, train.name)
        problem_type = infer_problem_type(train.dataset, values, args.problem_type, train.name)
    return LabelSet(problem_type, tuple(args.label_names or ("0", "1")))
