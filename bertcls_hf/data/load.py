"""From raw splits to checked ones: labels encoded, bad rows refused or dropped, splits and samples drawn."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List
from datasets.fingerprint import Hasher

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    LabelSet,
    RawLabel,
    encode_labels,
    encoded_feature,
    infer_problem_type,
    make_label_set,
    raw_labels,
    refuse_unseen_labels,
)
from bertcls_hf.data.sources import Source, load_sources
from bertcls_hf.data.streaming import TextStream
from bertcls_hf.errors import ArgumentsError, DataError


logger = logging.getLogger(__name__)

SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}
MOST_ROWS_LISTED = 5
# Rows of a stream that are checked before anything else is done.
FIRST_ROWS = 100
READ_ROWS = 1000


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


def load_data(args: DataArguments, known_labels: LabelSet | None, trains: bool, predicts: bool) -> ClassificationData:
    """Loads, checks, splits and samples.

    Args:
        args: the data options.
        known_labels: those of a trained classifier. Its names must be the data's, and give the order.
        trains: whether the run trains; if not, training data only serves to hold out the splits that are missing.
        predicts: whether predictions are written; then the test split keeps its bad rows and needs no labels.

    Raises:
        DataError: anything wrong with the data; its file, row or label is in the message.
        ArgumentsError: the options ask for what no data is given for.
    """
    if not trains and known_labels is None:
        raise ArgumentsError(
            "evaluation without training needs a model that was trained as a classifier: --model_name_or_path names "
            "an encoder, whose labels are unknown"
        )
    sources = load_sources(args, frozenset({"train", "validation"} if trains else {"validation"}))
    held_out = _splits_to_hold_out(sources, args)
    if predicts and "test" not in {*sources, *held_out}:
        raise ArgumentsError("--do_predict: no test data: give --test_file, or a --test_split_percentage above 0")
    _refuse_mixed_pairs(sources)
    stream = sources.pop("train") if args.streaming else None
    labels = known_labels
    if stream is not None:
        labels = _stream_labels(args, stream, sources.get("validation"), known_labels)
    elif trains:
        labels = _train_labels(args, sources["train"], known_labels)
    assert labels is not None
    if not trains and not held_out:
        sources.pop("train", None)
    splits = {split: _checked(source, args, labels, predicts) for split, source in sources.items()}
    for split, percentage in held_out.items():
        splits |= _hold_out(splits["train"], split, percentage / 100, args, labels)
    splits = _sampled(splits, args, labels)
    _report(splits, labels, args)
    if not trains:
        splits.pop("train", None)
    if stream is not None:
        splits["train"] = _opened(stream, args, labels)
    return ClassificationData(labels, splits, held_out)


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


def _stream_labels(
    args: DataArguments, train: Source, validation: Source | None, known_labels: LabelSet | None
) -> LabelSet:
    """A stream's labels: those of its class names, else of the validation data, else of the model."""
    feature = train.dataset.label_feature
    is_list = isinstance(feature, (List, LargeList))
    inner = feature.feature if is_list else feature
    if isinstance(inner, ClassLabel):
        labels = LabelSet(MULTI_LABEL if is_list else SINGLE_LABEL, tuple(inner.names))
        if args.problem_type not in (None, labels.problem_type):
            raise DataError(f"{train.name}: --problem_type {args.problem_type}, but the labels are class names")
    elif validation is not None and "label" in validation.dataset.column_names:
        labels = _train_labels(args, validation, None)
    elif known_labels is not None:
        return known_labels
    else:
        raise ArgumentsError(
            "--streaming: the labels are those of the validation data, and there is none: give --validation_file"
        )
    return labels if known_labels is None else _aligned(labels, known_labels, train.name)


def _refuse_mixed_pairs(sources: dict[str, Source]) -> None:
    pairs = {split: "text_pair" in source.dataset.column_names for split, source in sources.items()}
    if len(set(pairs.values())) > 1:
        single = next(split for split, is_pair in pairs.items() if not is_pair)
        raise DataError(
            f"{sources[single].name}: one text column where the other splits have two; see --text_column_names"
        )


def _train_labels(args: DataArguments, train: Source, known_labels: LabelSet | None) -> LabelSet:
    values = raw_labels(train.dataset, args.label_delimiter)
    if all(value is None for value in values):
        raise DataError(f"{train.name}: no row has a label")
    problem_type = infer_problem_type(train.dataset, values, args.problem_type, train.name)
    labels = make_label_set(train.dataset, values, problem_type, train.name)
    return labels if known_labels is None else _aligned(labels, known_labels, train.name)


def _aligned(labels: LabelSet, known: LabelSet, source: str) -> LabelSet:
    """The data's labels in the model's order."""
    same_task = labels.problem_type == known.problem_type and len(labels.names) == len(known.names)
    if same_task and set(labels.names) == set(known.names):
        return known
    if same_task and all(name == f"LABEL_{position}" for position, name in enumerate(known.names)):
        if labels.problem_type != REGRESSION:
            logger.warning(
                "the model's labels have no names; %s are taken for them in this order", ", ".join(labels.names)
            )
        return labels
    raise DataError(
        f"{source}: the labels are {list(labels.names)} ({labels.problem_type}), the model's are {list(known.names)} "
        f"({known.problem_type}); rename them, or give the model a new head with --ignore_mismatched_sizes true"
    )


def _checked(source: Source, args: DataArguments, labels: LabelSet, predicts: bool) -> Dataset:
    """A split with encoded labels, and without the rows that the options drop."""
    dataset = source.dataset
    keeps_rows = predicts and source.split == "test"
    _warn_of_repeated_ids(dataset, source.name)
    keep = np.ones(len(dataset), dtype=bool)
    if not keeps_rows:
        empty = _rows_with_empty_text(dataset)
        if args.empty_text != "keep":
            keep &= _handle_rows(empty, args.empty_text, "an empty text", "empty_text", source)
    if "label" in dataset.column_names:
        values = raw_labels(dataset, args.label_delimiter)
        refuse_unseen_labels(values, labels, SPLIT_NAMES[source.split], source.name)
        missing = np.array([value is None for value in values])
        if source.split == "test" and missing.all():
            dataset = dataset.remove_columns("label")
        else:
            if not keeps_rows:
                keep &= _handle_rows(missing, args.missing_label, "no label", "missing_label", source)
            elif missing.any():
                raise DataError(f"{source.name}: {_in_rows('no label', missing)} of the test split: label all or none")
            dataset = _with_encoded_labels(dataset, values, labels)
    if not keep.any():
        raise DataError(f"{source.name}: no row is left after empty texts and missing labels are dropped")
    return dataset if keep.all() else dataset.select(np.flatnonzero(keep))


def _warn_of_repeated_ids(dataset: Dataset, name: str) -> None:
    if "id" not in dataset.column_names:
        return
    counts = Counter(dataset["id"][:])
    repeated = [value for value, count in counts.items() if value is not None and count > 1]
    if repeated:
        logger.warning("%s: %d ids stand in more than one row, such as %r", name, len(repeated), repeated[0])


def _rows_with_empty_text(dataset: Dataset) -> np.ndarray:
    return np.fromiter(
        (any(text is None or not text.strip() for text in row) for row in _rows_of_texts(dataset)), bool, len(dataset)
    )


def _rows_of_texts(dataset: Dataset) -> Iterator[tuple[str | None, ...]]:
    """The text, or both of a pair, of each row; read in batches, since the texts may not fit into memory."""
    columns = [column for column in ("text", "text_pair") if column in dataset.column_names]
    for batch in dataset.select_columns(columns).iter(READ_ROWS):
        yield from zip(*(batch[column] for column in columns), strict=True)


def _handle_rows(bad: np.ndarray, policy: str, what: str, option: str, source: Source) -> np.ndarray:
    """Refuses the bad rows, or drops them with a counted warning; returns the rows to keep."""
    if bad.any() and policy == "error":
        raise DataError(f"{source.name}: {_in_rows(what, bad)}: mend them, or pass --{option} drop")
    if bad.any():
        logger.warning("%s: %s, which are dropped", source.name, _in_rows(what, bad))
    return ~bad


def _in_rows(what: str, bad: np.ndarray) -> str:
    rows = ", ".join(str(row + 1) for row in np.flatnonzero(bad)[:MOST_ROWS_LISTED])
    more = " …" if bad.sum() > MOST_ROWS_LISTED else ""
    return f"{what} in {bad.sum()} of {len(bad)} rows (row {rows}{more})"


def _with_encoded_labels(dataset: Dataset, values: Sequence[RawLabel], labels: LabelSet) -> Dataset:
    """The labels are few bytes and stay in memory; the texts stay where they are on disk."""
    return dataset.remove_columns("label").add_column(
        "label",
        encode_labels(values, labels),
        feature=encoded_feature(labels),
        # The automatic hash of the encoded column takes seconds where there are many labels.
        new_fingerprint=Hasher.hash(repr((dataset._fingerprint, labels, values))),
    )


def _splits_to_hold_out(sources: dict[str, Source], args: DataArguments) -> dict[str, float]:
    """The splits to take from train, with their percentages; validation never comes from test, nor from a stream."""
    if args.streaming:
        return {}
    asked = {"test": args.test_split_percentage, "validation": args.validation_split_percentage}
    return {split: share for split, share in asked.items() if "train" in sources and split not in sources and share}


def _hold_out(train: Dataset, split: str, share: float, args: DataArguments, labels: LabelSet) -> dict[str, Dataset]:
    """A stratified split of the distinct texts; every repetition of a text goes where its first row goes."""
    _, first_rows, text_of = np.unique(_text_keys(train), return_index=True, return_inverse=True)
    if len(first_rows) < 2:
        raise DataError(
            f"no {SPLIT_NAMES[split]} split can be held out from a single text: give --{split}_file, or "
            f"--{split}_split_percentage 0"
        )
    # In the order of the rows: that of the keys differs between processes.
    distinct = np.sort(first_rows)
    rows = min(max(round(share * len(distinct)), 1), len(distinct) - 1)
    chosen = _stratified_draw(train.select(distinct), rows, labels, args.split_seed, keep_one=True)
    held_out = np.isin(first_rows[text_of], distinct[chosen])
    return {split: train.select(np.flatnonzero(held_out)), "train": train.select(np.flatnonzero(~held_out))}


def _sampled(splits: dict[str, Dataset], args: DataArguments, labels: LabelSet) -> dict[str, Dataset]:
    limits = {"train": args.max_train_samples, "validation": args.max_eval_samples, "test": args.max_predict_samples}
    return {split: _sample(dataset, limits[split], labels, args.split_seed) for split, dataset in splits.items()}


def _sample(dataset: Dataset, rows: int | None, labels: LabelSet, seed: int) -> Dataset:
    if rows is None or rows >= len(dataset):
        return dataset
    return dataset.select(_stratified_draw(dataset, rows, labels, seed, keep_one=False))


def _stratified_draw(dataset: Dataset, rows: int, labels: LabelSet, seed: int, keep_one: bool) -> np.ndarray:
    """Ascending indices of a random part, in which each class of a single-label task keeps its share within a row.

    Args:
        dataset: a split.
        rows: size of the part.
        labels: names the task.
        seed: of the draw.
        keep_one: whether each class leaves a row to the rest, as far as the rest has room for that.
    """
    is_stratified = labels.problem_type == SINGLE_LABEL and "label" in dataset.column_names
    strata = np.asarray(dataset["label"][:]) if is_stratified else np.zeros(len(dataset), dtype=int)
    counts = np.bincount(strata)
    most = counts - 1 if keep_one else counts
    most = np.maximum(most, 0) if np.maximum(most, 0).sum() >= rows else counts
    shares = counts * rows / len(dataset)
    drawn = np.minimum(shares.astype(int), most)
    while drawn.sum() < rows:
        drawn[np.argmax(np.where(drawn < most, shares - drawn, -np.inf))] += 1
    generator = np.random.default_rng(seed)
    members = [generator.permutation(np.flatnonzero(strata == stratum)) for stratum in range(len(counts))]
    return np.sort(np.concatenate([of_one[:size] for of_one, size in zip(members, drawn, strict=True)]))


def _report(splits: dict[str, Dataset], labels: LabelSet, args: DataArguments) -> None:
    for split, dataset in splits.items():
        counts = _label_counts(dataset, labels)
        listed = ", ".join(f"{labels.names[label]} {count:,}" for label, count in sorted((counts or {}).items()))
        logger.info("%s: %s rows%s", split, f"{len(dataset):,}", f" ({listed})" if listed else "")
        absent = [name for label, name in enumerate(labels.names) if counts is not None and label not in counts]
        if absent and split != "test":
            logger.warning("the %s split has no row of %s", SPLIT_NAMES[split], ", ".join(absent))
    _warn_of_leaks(splits, args)


def _label_counts(dataset: Dataset, labels: LabelSet) -> Counter[int] | None:
    """Rows of each label of a labelled single-label split; None for others."""
    if labels.problem_type != SINGLE_LABEL or "label" not in dataset.column_names:
        return None
    # Without the texts beside it, the column is read in one piece.
    return Counter(dataset.select_columns("label")["label"][:])


def _warn_of_leaks(splits: dict[str, Dataset], args: DataArguments) -> None:
    """Texts of validation or test that are also trained on make a score too good."""
    if "train" not in splits:
        return
    trained = set(_text_keys(splits["train"]))
    for split in ("validation", "test"):
        if split not in splits:
            continue
        repeated = sum(key in trained for key in _text_keys(splits[split]))
        message = f"{repeated} of {len(splits[split])} texts of the {SPLIT_NAMES[split]} split are also in train"
        if repeated and args.duplicated_text == "error":
            raise DataError(f"{message}: remove them, or pass --duplicated_text warn")
        if repeated:
            logger.warning(message)


def _text_keys(dataset: Dataset) -> list[int]:
    """Equal for equal texts; good for one process, since Python salts its hashes."""
    return [hash(texts) for texts in _rows_of_texts(dataset)]


def class_weights(dataset: Dataset, labels: LabelSet, asked: Sequence[str] | None) -> list[float] | None:
    """The loss's weights per label, from `--class_weights`.

    Raises:
        ArgumentsError: not `balanced`, and not one number per label; or regression.
    """
    if asked is None:
        return None
    if labels.problem_type == REGRESSION:
        raise ArgumentsError("--class_weights: regression has no classes")
    if list(asked) == ["balanced"]:
        return _balanced_weights(dataset, labels)
    try:
        weights = [float(weight) for weight in asked]
    except ValueError as error:
        raise ArgumentsError(f"--class_weights {' '.join(asked)}: expected balanced or numbers") from error
    if len(weights) != len(labels.names) or not all(0 <= weight < np.inf for weight in weights):
        raise ArgumentsError(
            f"--class_weights {' '.join(asked)}: expected {len(labels.names)} numbers of 0 or more, for "
            f"{', '.join(labels.names)}"
        )
    return weights


def _balanced_weights(dataset: Dataset, labels: LabelSet) -> list[float]:
    encoded = np.asarray(dataset["label"][:])
    if labels.problem_type == MULTI_LABEL:
        positives = encoded.sum(axis=0)
        return [float((len(encoded) - count) / max(count, 1)) for count in positives]
    counts = np.bincount(encoded, minlength=len(labels.names))
    return [float(len(encoded) / (len(labels.names) * max(count, 1))) for count in counts]
