"""Selects the used columns of a dataset or stream, checks their types and gives them their standard names."""

from itertools import islice
from typing import Any

from datasets import ClassLabel, Dataset, Features, IterableDataset, LargeList, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import SOFT_LABEL, Columns, resolve_columns
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import DataError


# The rows from which a message about a missing column takes its examples.
SAMPLE_ROWS = 100
TEXT_TYPES = {"string", "large_string", "string_view"}
LABEL_TYPES = {*TEXT_TYPES, "int", "uint", "float", "bool", "null"}


def standardise(dataset: Dataset, args: DataArguments, name: str, needs_label: bool) -> tuple[Dataset, Columns]:
    """Returns the used columns of a dataset under their standard names, and the dataset's own columns.

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
    rows = dataset.select(range(min(len(dataset), SAMPLE_ROWS))).to_list() if _is_plain(dataset) else []
    columns = resolve_columns(dataset.column_names, args, name, needs_label, rows)
    if columns.is_combined:
        dataset, read = _combined(dataset, columns, name), columns.combined()
    else:
        read = columns
    names = read.standard_names()
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
    return dataset, columns


def _is_plain(dataset: Dataset) -> bool:
    """Says whether all columns hold values, classes or lists, so that reading a row decodes no picture or sound."""
    return all(isinstance(feature, Value | ClassLabel | List | LargeList) for feature in dataset.features.values())


def _combined(dataset: Any, columns: Columns, name: str) -> Any:
    """Joins the text columns, and makes one list of labels of the label columns, in a dataset or a stream."""
    for column in columns.texts:
        _require_text(dataset.features[column], column, name)
    types = {"text": Value("string"), "text_pair": Value("string"), "id": Value("string"),
             SOFT_LABEL: List(Value("float32"))}  # fmt: skip
    label = List(Value("string")) if len(columns.labels) > 1 else dataset.features.get(columns.label, Value("string"))
    features = Features({standard: types.get(standard, label) for standard in columns.standard_columns})
    return dataset.map(
        _combine_row,
        fn_kwargs={"columns": columns, "place": name},
        remove_columns=dataset.column_names,
        features=features,
    )


def _combine_row(record: dict[str, Any], columns: Columns, place: str) -> dict[str, Any]:
    row = columns.standard_row(record, place)
    if row.get("id") is not None:
        row["id"] = str(row["id"])
    return row


def standardise_stream(dataset: IterableDataset, args: DataArguments, name: str) -> tuple[RawStream, Columns]:
    """Returns the used columns of a stream, which get their standard names when rows are read, and its own columns.

    Args:
        dataset: a stream with any columns.
        args: the data options, which can name the used columns.
        name: the source's name in messages.

    Raises:
        DataError: a column is missing or has a wrong type.
    """
    dataset = dataset if dataset.features is not None else dataset._resolve_features()
    own_columns = resolve_columns(dataset.column_names, args, name, True, list(islice(dataset, 1)))
    columns = own_columns.combined() if own_columns.is_combined else own_columns
    if own_columns.is_combined:
        dataset = _combined(dataset, own_columns, name)
    for column, standard_name in columns.standard_names().items():
        if standard_name.startswith("text"):
            _require_text(dataset.features[column], column, name)
    _require_label(dataset.features[columns.label], name)
    selected = dataset.select_columns(list(columns.standard_names()))
    return RawStream(name, selected, columns, dataset.features[columns.label]), own_columns


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
