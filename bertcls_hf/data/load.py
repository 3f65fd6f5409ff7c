"""Prepares the data of a run: loads the splits, finds the labels, checks rows, holds out splits and draws samples."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from datasets import Dataset, Features, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.class_weights import label_counts
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.labels import LabelSet, encoded_feature
from bertcls_hf.data.row_checks import checked_split, warn_of_leaks
from bertcls_hf.data.sources import Source, Table, load_sources
from bertcls_hf.data.splits import SPLIT_NAMES, hold_out, percentages_to_hold_out, sample_splits
from bertcls_hf.data.task_labels import labels_of_names, labels_of_split, labels_of_stream
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.errors import ArgumentsError, DataError


logger = logging.getLogger(__name__)

# The first rows of a stream are checked before the model is loaded, so that wrong data fails early.
FIRST_ROWS = 100
# More labels than this are not listed in the log.
MOST_LOGGED = 20
# The column with the number of each row in its source.
ROW_COLUMN = "row"


@dataclass(frozen=True)
class ClassificationData:
    """The splits of a run and their labels.

    Args:
        labels: the names and the order of the labels.
        splits: any of `train`, `validation` and `test`. Each has the column `text`, and may have `text_pair`, `label`
            (encoded as int64, float32 or lists of float32) and `id`; see also `numbers_rows` of [`load_data`]. With
            `--streaming`, `train` is a stream.
        held_out: the splits that were taken from train, each with its percentage of train.
        columns: the used and unused columns of each source, by split.
    """

    labels: LabelSet
    splits: dict[str, Dataset | TextStream]
    held_out: dict[str, float] = field(default_factory=dict)
    columns: dict[str, Columns] = field(default_factory=dict)

    @property
    def is_pair(self) -> bool:
        """Whether each row holds two texts."""
        return any("text_pair" in split.column_names for split in self.splits.values())

    def without(self, split: str) -> "ClassificationData":
        """Returns the other splits."""
        return replace(self, splits={name: rows for name, rows in self.splits.items() if name != split})

    def has_labels(self, split: str) -> bool:
        """Says whether the run has this split, and the split has labels."""
        return split in self.splits and "label" in self.splits[split].column_names


def load_data(
    args: DataArguments,
    known_labels: LabelSet | None,
    trains: bool,
    predicts: bool,
    in_memory: Mapping[str, Table] | None = None,
    numbers_rows: bool = False,
) -> ClassificationData:
    """Loads the splits of a run, checks them, holds out missing ones and draws samples.

    Args:
        args: the data options.
        known_labels: the labels of a trained classifier, or None. The data must have the same label names, which are
            then put into the classifier's order.
        trains: whether the run trains. If not, the training data is only used to hold out missing splits. Without
            training data, `train` has no rows, and the options name the labels.
        predicts: whether the run writes predictions. If so, the test split keeps rows without a text and needs no
            labels.
        in_memory: rows by split (`train`, `validation`, `test`), used instead of the sources in the options.
        numbers_rows: whether the splits get the column [`ROW_COLUMN`]: the number of each row in its source, counted
            from 1 without a header. Not for streams.

    Raises:
        DataError: a file, column, row or label is wrong; the message names it.
        ArgumentsError: the options need data that is not given.
    """
    if not trains and known_labels is None:
        raise ArgumentsError(
            "evaluation without training needs a model that was trained as a classifier: --model_name_or_path names "
            "an encoder, whose labels are unknown"
        )
    needs_labels = frozenset({"train", "validation"} if trains else {"validation"})
    sources = load_sources(args, needs_labels, in_memory or {})
    for split, source in sources.items():
        logger.info("%s: columns of %s: %s", split, source.name, source.columns.description())
    if numbers_rows:
        sources = {split: _with_row_numbers(source) for split, source in sources.items()}
    columns = {split: source.columns for split, source in sources.items()}
    held_out = percentages_to_hold_out(sources, args)
    if predicts and "test" not in {*sources, *held_out}:
        raise ArgumentsError("--do_predict: no test data: give --test_file, or a --test_split_percentage above 0")
    _refuse_mixed_pairs(sources)
    stream = sources.pop("train") if args.streaming else None
    labels = _find_labels(args, sources, stream, known_labels, trains)
    if not trains and not held_out:
        sources.pop("train", None)
    checked = {split: checked_split(source, args, labels, predicts) for split, source in sources.items()}
    sampled = sample_splits(hold_out(checked, held_out, args, labels), args, labels)
    _log_splits(sampled, labels)
    warn_of_leaks(sampled, args)
    splits: dict[str, Dataset | TextStream] = dict(sampled)
    if trains and stream is None and "train" not in splits:
        splits["train"] = _no_rows(labels)
    if not trains:
        splits.pop("train", None)
    if stream is not None:
        splits["train"] = _checked_stream(stream, args, labels)
    return ClassificationData(labels, splits, held_out, columns)


def _find_labels(
    args: DataArguments,
    sources: Mapping[str, Source],
    stream: Source | None,
    known_labels: LabelSet | None,
    trains: bool,
) -> LabelSet:
    """Returns the labels of the training data or, without any, those of the options or of the classifier."""
    if stream is not None:
        return labels_of_stream(args, stream, sources.get("validation"), known_labels)
    if trains and "train" in sources:
        return labels_of_split(args, sources["train"], known_labels)
    if trains and args.unlabelled_file is None:
        raise ArgumentsError("no training data: give --train_file or --dataset_name")
    if trains:
        return labels_of_names(args, known_labels)
    assert known_labels is not None
    return known_labels


def _no_rows(labels: LabelSet) -> Dataset:
    columns = Features({"text": Value("string"), "label": encoded_feature(labels)})
    return Dataset.from_dict({name: [] for name in columns}, features=columns)


def _with_row_numbers(source: Source) -> Source:
    numbers = list(range(1, len(source.dataset) + 1))
    return replace(source, dataset=source.dataset.add_column(ROW_COLUMN, numbers))


def _refuse_mixed_pairs(sources: dict[str, Source]) -> None:
    """Refuses data in which some splits have text pairs and others single texts."""
    has_pairs = {split: "text_pair" in source.dataset.column_names for split, source in sources.items()}
    if len(set(has_pairs.values())) > 1:
        single = next(split for split, is_pair in has_pairs.items() if not is_pair)
        raise DataError(
            f"{sources[single].name}: one text column where the other splits have two; see --text_column_names"
        )


def _checked_stream(source: Source, args: DataArguments, labels: LabelSet) -> TextStream:
    """Creates the training stream and checks its first rows; the other rows are checked when they are read."""
    stream = TextStream(source.dataset, labels, args)
    first_rows = list(islice(source.dataset.dataset, FIRST_ROWS))
    if not first_rows:
        raise DataError(f"{source.name}: no rows")
    stream.checked(first_rows)
    logger.info(
        "train: streamed from %d parts of %s; labels %s, not compared with the other splits",
        source.dataset.dataset.num_shards,
        source.name,
        _abbreviated(labels.names),
    )
    return stream


def _log_splits(splits: Mapping[str, Dataset], labels: LabelSet) -> None:
    """Logs the number of rows of each split and label, and warns of labels without a row."""
    for split, dataset in splits.items():
        counts = label_counts(dataset, labels)
        listed = _abbreviated([f"{labels.names[label]} {count:,}" for label, count in sorted((counts or {}).items())])
        logger.info("%s: %s rows%s", split, f"{len(dataset):,}", f" ({listed})" if listed else "")
        absent = [name for label, name in enumerate(labels.names) if counts is not None and label not in counts]
        if absent and split != "test":
            logger.warning("the %s split has no row of %s", SPLIT_NAMES[split], _abbreviated(absent))


def _abbreviated(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LOGGED:,} more" if len(names) > MOST_LOGGED else ""
    return ", ".join(names[:MOST_LOGGED]) + more
