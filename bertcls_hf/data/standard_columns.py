"""Selects the used columns of a dataset or stream, checks their types and gives them their standard names."""

from typing import Any

from datasets import ClassLabel, Dataset, IterableDataset, LargeList, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import resolve_columns
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import DataError


TEXT_TYPES = {"string", "large_string", "string_view"}
LABEL_TYPES = {*TEXT_TYPES, "int", "uint", "float", "bool", "null"}


def standardise(dataset: Dataset, args: DataArguments, name: str, needs_label: bool) -> Dataset:
    """Returns the used columns of a dataset under their standard names.

    Args:
        dataset: a dataset with any columns.
        args: the data options, which can name the used columns.
        name: the source's name in messages.
        needs_label: whether a dataset without a label column is refused.

    Raises:
        DataError: the dataset has no rows, or a column is missing or has a wrong type.
    """
    if len(dataset) == 0:
        raise DataError(f"{name}: no rows")
    columns = resolve_columns(dataset.column_names, args.text_column_names, args.label_column_name, name, needs_label)
    names = columns.standard_names()
    dataset = dataset.select_columns(list(names)).rename_columns(
        {own: standard for own, standard in names.items() if own != standard}
    )
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
    """Returns the used columns of a stream; they get their standard names when their rows are read.

    Args:
        dataset: a stream with any columns.
        args: the data options, which can name the used columns.
        name: the source's name in messages.

    Raises:
        DataError: a column is missing or has a wrong type.
    """
    dataset = dataset if dataset.features is not None else dataset._resolve_features()
    columns = resolve_columns(dataset.column_names, args.text_column_names, args.label_column_name, name, True)
    for column, standard_name in columns.standard_names().items():
        if standard_name.startswith("text"):
            _require_text(dataset.features[column], column, name)
    _require_label(dataset.features[columns.label], name)
    selected = dataset.select_columns(list(columns.standard_names()))
    return RawStream(name, selected, columns, dataset.features[columns.label])


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
