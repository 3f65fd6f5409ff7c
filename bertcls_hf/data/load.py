"""From options to the data of a run: splits loaded, labels found, rows checked, parts held out, samples drawn."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from datasets import Dataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.class_weights import label_counts
from bertcls_hf.data.labels import LabelSet
from bertcls_hf.data.row_checks import checked_split, warn_of_leaks
from bertcls_hf.data.sources import Source, Table, load_sources
from bertcls_hf.data.splits import SPLIT_NAMES, hold_out, percentages_to_hold_out, sample_splits
from bertcls_hf.data.task_labels import labels_of_split, labels_of_stream
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.errors import ArgumentsError, DataError


logger = logging.getLogger(__name__)

# Rows of a stream that are checked before anything else is done.
FIRST_ROWS = 100


@dataclass(frozen=True)
class ClassificationData:
    """The splits of a run.

    Args:
        labels: names and order of the labels.
        splits: `train`, `validation` and `test`, those that there are; columns `text` and, where known, `text_pair`,
            `label` (encoded: int64, float32 or lists of float32) and `id`. With `--streaming`, `train` is a stream.
        held_out: percentages of train that became the splits that were not given.
    """

    labels: LabelSet
    splits: dict[str, Dataset | TextStream]
    held_out: dict[str, float] = field(default_factory=dict)

    @property
    def is_pair(self) -> bool:
        """Whether each row holds two texts."""
        return any("text_pair" in split.column_names for split in self.splits.values())

    def has_labels(self, split: str) -> bool:
        """Whether a split is there and labelled."""
        return split in self.splits and "label" in self.splits[split].column_names


def load_data(
    args: DataArguments,
    known_labels: LabelSet | None,
    trains: bool,
    predicts: bool,
    in_memory: Mapping[str, Table] | None = None,
) -> ClassificationData:
    """Loads, checks, splits and samples.

    Args:
        args: the data options.
        known_labels: those of a trained classifier. Its names must be the data's, and give the order.
        trains: whether the run trains; if not, training data only serves to hold out the splits that are missing.
        predicts: whether predictions are written; then the test split keeps its bad rows and needs no labels.
        in_memory: by split (`train`, `validation`, `test`), data that is used in place of what the options name.

    Raises:
        DataError: anything wrong with the data; its file, row or label is in the message.
        ArgumentsError: the options ask for what no data is given for.
    """
    if not trains and known_labels is None:
        raise ArgumentsError(
            "evaluation without training needs a model that was trained as a classifier: --model_name_or_path names "
            "an encoder, whose labels are unknown"
        )
    needs_labels = frozenset({"train", "validation"} if trains else {"validation"})
    sources = load_sources(args, needs_labels, in_memory or {})
    held_out = percentages_to_hold_out(sources, args)
    if predicts and "test" not in {*sources, *held_out}:
        raise ArgumentsError("--do_predict: no test data: give --test_file, or a --test_split_percentage above 0")
    _refuse_mixed_pairs(sources)
    stream = sources.pop("train") if args.streaming else None
    labels = _labels(args, sources, stream, known_labels, trains)
    if not trains and not held_out:
        sources.pop("train", None)
    checked = {split: checked_split(source, args, labels, predicts) for split, source in sources.items()}
    sampled = sample_splits(hold_out(checked, held_out, args, labels), args, labels)
    _report(sampled, labels)
    warn_of_leaks(sampled, args)
    splits: dict[str, Dataset | TextStream] = dict(sampled)
    if not trains:
        splits.pop("train", None)
    if stream is not None:
        splits["train"] = _opened(stream, args, labels)
    return ClassificationData(labels, splits, held_out)


def _labels(
    args: DataArguments,
    sources: Mapping[str, Source],
    stream: Source | None,
    known_labels: LabelSet | None,
    trains: bool,
) -> LabelSet:
    if stream is not None:
        return labels_of_stream(args, stream, sources.get("validation"), known_labels)
    if trains:
        if "train" not in sources:
            raise ArgumentsError("no training data: give --train_file or --dataset_name")
        return labels_of_split(args, sources["train"], known_labels)
    assert known_labels is not None
    return known_labels


def _refuse_mixed_pairs(sources: dict[str, Source]) -> None:
    pairs = {split: "text_pair" in source.dataset.column_names for split, source in sources.items()}
    if len(set(pairs.values())) > 1:
        single = next(split for split, is_pair in pairs.items() if not is_pair)
        raise DataError(
            f"{sources[single].name}: one text column where the other splits have two; see --text_column_names"
        )


def _opened(source: Source, args: DataArguments, labels: LabelSet) -> TextStream:
    """A stream's rows are checked when they are read; its first ones now, before any model is loaded."""
    stream = TextStream(source.dataset, labels, args)
    first = list(islice(source.dataset.dataset, FIRST_ROWS))
    if not first:
        raise DataError(f"{source.name}: no rows")
    stream.checked(first)
    logger.info(
        "train: streamed from %d parts of %s; labels %s, not compared with the other splits",
        source.dataset.dataset.num_shards,
        source.name,
        ", ".join(labels.names),
    )
    return stream


def _report(splits: Mapping[str, Dataset], labels: LabelSet) -> None:
    for split, dataset in splits.items():
        counts = label_counts(dataset, labels)
        listed = ", ".join(f"{labels.names[label]} {count:,}" for label, count in sorted((counts or {}).items()))
        logger.info("%s: %s rows%s", split, f"{len(dataset):,}", f" ({listed})" if listed else "")
        absent = [name for label, name in enumerate(labels.names) if counts is not None and label not in counts]
        if absent and split != "test":
            logger.warning("the %s split has no row of %s", SPLIT_NAMES[split], ", ".join(absent))
