"""Datasets and streams of any columns, narrowed to those that are used, whose types are checked."""

from typing import Any

from datasets import ClassLabel, Dataset, IterableDataset, LargeList, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import resolve_columns
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import DataError


TEXT_TYPES = {"string", "large_string", "string_view"}
LABEL_TYPES = {*TEXT_TYPES, "int", "uint", "float", "bool", "null"}


def standardise(dataset: Dataset, args: DataArguments, name: str, needs_label: bool) -> Dataset:
    """Only the columns that are used, under their standard names.

    Args:
        dataset: any columns.
        args: which of them are used.
        name: of the source, for messages.
        needs_label: whether a dataset without labels is refused.

    Raises:
        DataError: no rows, a column that is missing, or one of another type than it needs.
    """
    if len(dataset) == 0:
        raise DataError(f"{name}: no rows")
    columns = resolve_columns(dataset.column_names, args.text_column_names, args.label_column_name, name, needs_label)
    names = columns.standard_names()
    dataset = dataset.select_columns(list(names)).rename_columns({k: v for k, v in names.items() if k != v})
    for column in ("text", "text_pair"):
        if column in dataset.column_names:
            _require_text(dataset.features[column], column, name)
    if "label" in dataset.column_names:
        _require_label(dataset.features["label"], name)
    if "id" in dataset.column_names and not isinstance(dataset.features["id"], Value):
        dataset = dataset.remove_columns("id")
    for column in ("id", "text", "text_pair"):
        if column in dataset.column_names and dataset.features[column] != Value("string"):
            dataset = dataset.cast_column(column, Value("string"))
    return dataset


def standardise_stream(dataset: IterableDataset, args: DataArguments, name: str) -> RawStream:
    """Only the columns that are used; they are renamed when their rows are read.

    Raises:
        DataError: see [`standardise`].
    """
    dataset = dataset if dataset.features is not None else dataset._resolve_features()
    columns = resolve_columns(dataset.column_names, args.text_column_names, args.label_column_name, name, True)
    for column, standard_name in columns.standard_names().items():
        if standard_name.startswith("text"):
            _require_text(dataset.features[column], column, name)
    _require_label(dataset.features[columns.label], name)
    used = dataset.select_columns(list(columns.standard_names()))
    return RawStream(name, used, columns, dataset.features[columns.label])


def _require_text(feature: Any, column: str, name: str) -> None:
    if not (isinstance(feature, Value) and feature.dtype in TEXT_TYPES):
        raise DataError(
            f"{name}: the column of {column!r} holds {_type_name(feature)}, not strings; see --text_column_names"
        )


def _require_label(feature: Any, name: str) -> None:
    inner = feature.feature if isinstance(feature, (List, LargeList)) else feature
    is_plain = isinstance(inner, Value) and inner.dtype.rstrip("0123456789") in LABEL_TYPES
    if not (is_plain or isinstance(inner, ClassLabel)):
        raise DataError(
            f"{name}: the label column holds {_type_name(feature)}; expected names, numbers or lists of them"
        )


def _type_name(feature: Any) -> Any:
    return feature.dtype if isinstance(feature, Value) else feature
