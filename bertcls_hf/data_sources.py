"""From the options to raw splits: Hub datasets, files, folders and packaged corpora, with standard column names.

Every split has `text` (string), and where the source has them `text_pair`, `label` and `id`.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError

from bertcls_hf.arguments import DataArguments
from bertcls_hf.columns import Columns, resolve_columns
from bertcls_hf.errors import DataError
from bertcls_hf.packaged import is_packaged, packaged_corpus
from bertcls_hf.text_files import (
    DELIMITED_SUFFIXES,
    JSON_SUFFIXES,
    TextFormat,
    delimited_columns,
    read_delimited,
    read_json,
    read_text_tree,
    resolve_delimited_format,
    text_tree_files,
)


logger = logging.getLogger(__name__)

# Part of the cache key: raise it when the readers' output changes.
READER_VERSION = 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """One split's origin, for loading and for messages."""

    split: str
    name: str
    dataset: Dataset


def load_sources(args: DataArguments, needs_labels: frozenset[str]) -> dict[str, Source]:
    """Loads the splits that the options name.

    Args:
        args: the data options.
        needs_labels: splits without whose labels the run makes no sense.

    Raises:
        DataError: see the readers; or a split that does not exist, or a column of a type that is no text.
    """
    if args.dataset_name and is_packaged(args.dataset_name):
        corpus = load_path(str(packaged_corpus(args.dataset_name)), args, needs_label=True)
        return {"train": Source("train", args.dataset_name, corpus)}
    if args.dataset_name:
        loaded = _load_named(args)
        names = {split: f"{args.dataset_name} ({split})" for split in loaded}
        datasets_by_split = {
            split: _standardise(dataset, args, names[split], split in needs_labels)
            for split, dataset in loaded.items()
        }
    else:
        files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
        names = {split: path for split, path in files.items() if path}
        datasets_by_split = {split: load_path(path, args, split in needs_labels) for split, path in names.items()}
    return {split: Source(split, names[split], dataset) for split, dataset in datasets_by_split.items()}


def _load_named(args: DataArguments) -> dict[str, Dataset]:
    try:
        loaded = load_dataset(args.dataset_name, args.dataset_config_name, revision=args.dataset_revision,
                              download_mode=_download_mode(args))  # fmt: skip
    except Exception as error:  # the Hub, the file system and each file format raise their own kinds
        raise DataError(
            f"--dataset_name {args.dataset_name}: {type(error).__name__}: {error}; check the name, "
            "--dataset_config_name and the connection to the Hub, or use --train_file"
        ) from error
    return _select_splits(loaded, args, f"--dataset_name {args.dataset_name}")


def _select_splits(loaded: DatasetDict, args: DataArguments, source: str) -> dict[str, Dataset]:
    chosen = {
        "train": args.train_split_name,
        "validation": args.validation_split_name or ("validation" if "validation" in loaded else None),
        "test": args.test_split_name or ("test" if "test" in loaded else None),
    }
    for split, name in chosen.items():
        if name is not None and name not in loaded:
            raise DataError(f"{source} has no split {name!r} but {sorted(loaded)}: set --{split}_split_name")
    return {split: loaded[name] for split, name in chosen.items() if name is not None}


def _download_mode(args: DataArguments) -> str | None:
    return "force_redownload" if args.overwrite_cache else None


def load_path(path_name: str, args: DataArguments, needs_label: bool) -> Dataset:
    """A file or folder as a dataset with the standard column names.

    Raises:
        DataError: no such file, an unknown format, or what its reader finds.
    """
    path = Path(path_name).expanduser()
    if not path.exists():
        hint = "; a URL must be downloaded first" if "://" in path_name else ""
        raise DataError(f"{path_name}: no such file or folder{hint}")
    if path.is_dir():
        return _load_folder(path, args, needs_label)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _load_parquet(path, args, needs_label)
    if suffix in DELIMITED_SUFFIXES or suffix in JSON_SUFFIXES:
        return _load_text_file(path, args, needs_label)
    known = [*DELIMITED_SUFFIXES, *sorted(JSON_SUFFIXES), ".parquet"]
    raise DataError(f"{path}: unknown format {suffix!r}; known: {', '.join(known)}, or a folder")


def _load_folder(path: Path, args: DataArguments, needs_label: bool) -> Dataset:
    if (path / "dataset_dict.json").exists():
        splits = sorted(json.loads((path / "dataset_dict.json").read_text())["splits"])
        raise DataError(f"{path}: holds the splits {splits}; pass one of them, such as {path / splits[0]}")
    if (path / "state.json").exists():
        return _standardise(load_from_disk(str(path)), args, str(path), needs_label)
    digest = hashlib.sha256()
    for file, label in text_tree_files(path):
        digest.update(f"{label}/{file.name}\0".encode() + file.read_bytes())
    return _generate(
        read_text_tree, path, _text_format(args), digest.hexdigest(), _string_features("id", "text", "label"), args
    )


def _load_parquet(path: Path, args: DataArguments, needs_label: bool) -> Dataset:
    try:
        dataset = load_dataset("parquet", data_files=str(path), split="train", download_mode=_download_mode(args))
    except DatasetGenerationError as error:
        raise DataError(f"{path}: not a readable parquet file: {error.__cause__ or error}") from error
    return _standardise(dataset, args, str(path), needs_label)


def _load_text_file(path: Path, args: DataArguments, needs_label: bool) -> Dataset:
    text_format = _text_format(args)
    if path.suffix.lower() in DELIMITED_SUFFIXES:
        required = (*(args.text_column_names or ()), *filter(None, [args.label_column_name]))
        text_format = resolve_delimited_format(path, text_format, required)
        columns = resolve_columns(
            delimited_columns(path, text_format), *_wanted_columns(args, text_format), str(path), needs_label
        )
        features = _string_features(*columns.standard_names().values())
        reader, label_kind = "delimited", None
    else:
        columns = resolve_columns(_json_columns(path, text_format), args.text_column_names, args.label_column_name,
                                  str(path), needs_label)  # fmt: skip
        label_kind = None if columns.label is None else _json_label_kind(path, text_format, columns.label)
        features = _string_features(*columns.standard_names().values())
        if label_kind is not None:
            features["label"] = _JSON_LABEL_FEATURES[label_kind]
        reader = "json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _generate(_standard_rows, path, text_format, digest, features, args,
                     reader=reader, columns=columns, label_kind=label_kind)  # fmt: skip


def _wanted_columns(args: DataArguments, text_format: TextFormat) -> tuple[list[str] | None, str | None]:
    """Without a header the columns have standard names, whatever the options call them."""
    if text_format.csv_header == "false":
        return None, None
    return args.text_column_names, args.label_column_name


def _text_format(args: DataArguments) -> TextFormat:
    return TextFormat(args.encoding, args.encoding_errors, args.csv_header, args.csv_delimiter, args.csv_quoting)


def _string_features(*names: str) -> Features:
    return Features({name: Value("string") for name in names})


def _generate(
    rows: Any,
    path: Path,
    text_format: TextFormat,
    digest: str,
    features: Features,
    args: DataArguments,
    **options: Any,
) -> Dataset:
    """Runs a reader into the datasets cache; the key is the content, so a moved or touched file is not read again."""
    salt = uuid.uuid4().hex if args.overwrite_cache else ""
    key = repr((READER_VERSION, rows.__name__, digest, asdict(text_format), str(features), options, salt))
    try:
        dataset = Dataset.from_generator(
            rows,
            features=features,
            gen_kwargs={"path": path, "text_format": text_format, **options},
            fingerprint=hashlib.sha256(key.encode()).hexdigest()[:16],
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise
    except ValueError as error:  # what datasets raises where a generator yields nothing
        raise DataError(f"{path}: no rows") from error
    if len(dataset) == 0:
        raise DataError(f"{path}: no rows{' below the header' if text_format.csv_header == 'true' else ''}")
    return dataset


_READERS = {"delimited": read_delimited, "json": read_json}


def _standard_rows(
    path: Path, text_format: TextFormat, reader: str, columns: Columns, label_kind: str | None
) -> Iterator[dict[str, Any]]:
    names = columns.standard_names()
    for number, row in enumerate(_READERS[reader](path, text_format), start=1):
        standard = {standard_name: row.get(name) for name, standard_name in names.items()}
        if label_kind is not None:
            _check_json_row(standard, label_kind, f"{path}, row {number}")
        yield standard


def _json_columns(path: Path, text_format: TextFormat) -> list[str]:
    first = next(read_json(path, text_format), None)
    if first is None:
        raise DataError(f"{path}: no rows")
    return list(first)


_JSON_LABEL_FEATURES = {
    "text": Value("string"),
    "whole number": Value("int64"),
    "number": Value("float64"),
    "list of texts": List(Value("string")),
    "list of whole numbers": List(Value("int64")),
}


def _json_kind(value: Any) -> str:
    if isinstance(value, list):
        kinds = {_json_kind(item) for item in value}
        return f"list of {kinds.pop()}s" if len(kinds) == 1 else "list of texts" if not kinds else "mixed list"
    if isinstance(value, bool):
        return "truth value"
    return {str: "text", int: "whole number", float: "number"}.get(type(value), type(value).__name__)


def _json_label_kind(path: Path, text_format: TextFormat, label: str) -> str | None:
    """The one kind of the label column, after a look at every row; None where all labels are missing."""
    seen: dict[str, int] = {}
    for number, row in enumerate(read_json(path, text_format), start=1):
        value = row.get(label)
        if value is not None and value != []:
            seen.setdefault(_json_kind(value), number)
    if set(seen) == {"whole number", "number"}:
        return "number"
    if len(seen) > 1:
        (first, first_row), (second, second_row) = list(seen.items())[:2]
        raise DataError(
            f"{path}, row {second_row}: the label is a {second}, but that of row {first_row} is a {first}: "
            f"write every {label!r} as one kind"
        )
    kind = next(iter(seen), None)
    if kind is not None and kind not in _JSON_LABEL_FEATURES:
        raise DataError(
            f"{path}, row {seen[kind]}: the label is a {kind}; expected a text, a number or a list of them"
        )
    return kind


def _check_json_row(row: dict[str, Any], label_kind: str, place: str) -> None:
    for name in ("text", "text_pair"):
        if row.get(name) is not None and not isinstance(row[name], str):
            raise DataError(f"{place}: the text is a {_json_kind(row[name])}: write it as a string")
    if row.get("id") is not None:
        row["id"] = str(row["id"])
    if label_kind == "number" and row["label"] is not None:
        row["label"] = float(row["label"])


def _standardise(dataset: Dataset, args: DataArguments, name: str, needs_label: bool) -> Dataset:
    """Only the columns that are used, under their standard names."""
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
    if "id" in dataset.column_names:
        dataset = dataset.cast_column("id", Value("string"))
    return dataset


def _require_text(feature: Any, column: str, name: str) -> None:
    if not (isinstance(feature, Value) and feature.dtype in {"string", "large_string"}):
        raise DataError(f"{name}: column {column!r} holds {feature}, not texts; see --text_column_names")


def _require_label(feature: Any, name: str) -> None:
    inner = feature.feature if isinstance(feature, List) else feature
    known = isinstance(inner, ClassLabel) or (
        isinstance(inner, Value)
        and inner.dtype.rstrip("0123456789") in {"string", "large_string", "int", "uint", "float", "bool"}
    )
    if not known:
        raise DataError(f"{name}: the label column holds {feature}; expected names, numbers or lists of them")
