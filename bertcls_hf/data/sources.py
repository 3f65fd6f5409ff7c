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

import pyarrow as pa
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    LargeList,
    List,
    Value,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError
from pyarrow.parquet import read_metadata

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns, resolve_columns
from bertcls_hf.data.input_paths import existing_path, matching_files
from bertcls_hf.data.json_files import (
    JSON_SUFFIXES,
    column_kinds,
    label_feature,
    read_json_columns,
    refuse_other_than_text,
)
from bertcls_hf.data.python_packages import is_packaged, packaged_corpus
from bertcls_hf.data.streaming import RawStream
from bertcls_hf.data.text_files import (
    DELIMITED_SUFFIXES,
    UNLABELLED_FOLDER,
    TextFormat,
    delimited_columns,
    read_delimited,
    read_text_tree,
    resolve_delimited_format,
    text_tree_files,
)
from bertcls_hf.errors import DataError, RunError, StorageError, one_line


logger = logging.getLogger(__name__)

# Part of the cache key: raise it when the readers' output changes.
READER_VERSION = 1
TEXT_TYPES = {"string", "large_string", "string_view"}
# Footers of more files than this take longer to read than they are worth.
FEW_SHARDS = 64
LABEL_TYPES = {*TEXT_TYPES, "int", "uint", "float", "bool", "null"}


@dataclass(frozen=True)
class Source:
    """One split's origin, for loading and for messages; `dataset` is a `Dataset` or a [`RawStream`]."""

    split: str
    name: str
    dataset: Any


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
        loaded = _load_named(args, needs_labels)
        names = {split: f"{args.dataset_name} ({split})" for split in loaded}
        datasets_by_split = {
            split: _named_split(dataset, args, names[split], split, split in needs_labels)
            for split, dataset in loaded.items()
        }
    else:
        files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
        names = {split: path for split, path in files.items() if path}
        datasets_by_split = {
            split: _open_files(path, args)
            if args.streaming and split == "train"
            else load_path(path, args, split in needs_labels)
            for split, path in names.items()
        }
    return {split: Source(split, names[split], dataset) for split, dataset in datasets_by_split.items()}


def _load_named(args: DataArguments, needs_labels: frozenset[str]) -> dict[str, Dataset]:
    try:
        loaded = load_dataset(args.dataset_name, args.dataset_config_name, revision=args.dataset_revision,
                              download_mode=_download_mode(args), streaming=args.streaming)  # fmt: skip
    except Exception as error:  # the Hub, the file system and each file format raise their own kinds
        raise DataError(
            f"--dataset_name {args.dataset_name}: {type(error).__name__}: {one_line(error)}; check the name, "
            "--dataset_config_name and the connection to the Hub, or use --train_file"
        ) from error
    return _select_splits(loaded, args, needs_labels)


def _select_splits(loaded: DatasetDict, args: DataArguments, needs_labels: frozenset[str]) -> dict[str, Dataset]:
    has_train = args.train_split_name in loaded or "train" in needs_labels
    chosen = {
        "train": args.train_split_name if has_train else None,
        "validation": args.validation_split_name or ("validation" if "validation" in loaded else None),
        "test": args.test_split_name or ("test" if "test" in loaded else None),
    }
    for split, name in chosen.items():
        if name is not None and name not in loaded:
            there = ", ".join(sorted(map(str, loaded)))
            raise DataError(
                f"--dataset_name {args.dataset_name}: no split {name!r}, but {there}: set --{split}_split_name"
            )
    return {split: loaded[name] for split, name in chosen.items() if name is not None}


def _named_split(dataset: Any, args: DataArguments, name: str, split: str, needs_label: bool) -> Dataset | RawStream:
    if args.streaming and split == "train":
        return _raw_stream(_resharded(dataset), args, name)
    return _standardise(_on_disk(dataset, name) if args.streaming else dataset, args, name, needs_label)


def _on_disk(stream: IterableDataset, name: str) -> Dataset:
    """A streamed split in the datasets cache: evaluations need all of it."""
    try:
        return Dataset.from_generator(_rows_of, features=stream.features, gen_kwargs={"stream": stream})
    except (DatasetGenerationError, ValueError) as error:
        raise DataError(f"{name}: {one_line(error.__cause__ or error)}") from error


def _rows_of(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    yield from stream


def _open_files(path_name: str, args: DataArguments) -> RawStream:
    """Files of one format as a stream.

    Raises:
        DataError: there are none, or the first of them is of no known format or broken.
    """
    if "://" in path_name:
        return _raw_stream(_parquet_stream(path_name, path_name), args, path_name)
    files = matching_files(path_name)
    suffix = files[0].suffix.lower()
    if suffix == ".parquet":
        return _raw_stream(_parquet_stream([str(file) for file in files], path_name), args, path_name)
    if suffix in DELIMITED_SUFFIXES:
        text_format = resolved_format(files[0], args, needs_label=True)
        columns = delimited_file_columns(files[0], args, text_format, needs_label=True)
        return _text_stream(_delimited_rows, files, text_format, columns, path_name)
    if suffix in JSON_SUFFIXES:
        text_format = text_format_of(args)
        kinds = column_kinds(files[0], text_format)
        columns = resolve_columns(list(kinds), args.text_column_names, args.label_column_name, path_name, True)
        return _text_stream(read_json_columns, files, text_format, columns, path_name)
    known = [".parquet", *DELIMITED_SUFFIXES, *sorted(JSON_SUFFIXES)]
    raise DataError(f"{path_name}: {suffix!r} files cannot be streamed; known: {', '.join(known)}")


def _parquet_stream(files: str | list[str], name: str) -> IterableDataset:
    try:
        return _resharded(load_dataset("parquet", data_files=files, split="train", streaming=True))
    except Exception as error:  # each file system raises its own kinds, and Arrow's errors of content are ValueErrors
        broken = next((file for file in files if not _has_footer(file)), name) if isinstance(files, list) else name
        raise DataError(f"{broken}: cannot be streamed: {one_line(error.__cause__ or error)}") from error


def _has_footer(file: str) -> bool:
    try:
        read_metadata(file)
    except (pa.ArrowException, OSError):
        return False
    return True


def _resharded(dataset: IterableDataset) -> IterableDataset:
    """Few parquet files are read by their row groups, so that rows of many places mix."""
    return dataset.reshard() if dataset.num_shards <= FEW_SHARDS else dataset


def _raw_stream(dataset: IterableDataset, args: DataArguments, name: str) -> RawStream:
    dataset = dataset if dataset.features is not None else dataset._resolve_features()
    columns = resolve_columns(dataset.column_names, args.text_column_names, args.label_column_name, name, True)
    for column, standard_name in columns.standard_names().items():
        if standard_name.startswith("text"):
            _require_text(dataset.features[column], column, name)
    _require_label(dataset.features[columns.label], name)
    used = dataset.select_columns(list(columns.standard_names()))
    return RawStream(name, used, columns, dataset.features[columns.label])


def _text_stream(rows: Any, files: list[Path], text_format: TextFormat, columns: Columns, name: str) -> RawStream:
    # datasets splits lists among processes, and nothing else.
    options = {"files": [str(file) for file in files], "rows": rows, "text_format": text_format, "columns": columns}
    standard = Columns(
        tuple(name for name in columns.standard_names().values() if name.startswith("text")), "label", columns.id
    )
    return RawStream(name, IterableDataset.from_generator(_rows_of_files, gen_kwargs=options), standard)


def _rows_of_files(files: list[str], rows: Any, text_format: TextFormat, columns: Columns) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from rows(path=Path(file), text_format=text_format, columns=columns)


def _download_mode(args: DataArguments) -> str | None:
    return "force_redownload" if args.overwrite_cache else None


def load_path(path_name: str, args: DataArguments, needs_label: bool) -> Dataset:
    """A file or folder as a dataset with the standard column names.

    Raises:
        DataError: no such file, an unknown format, or what its reader finds.
    """
    path = existing_path(path_name)
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return _load_folder(path, args, needs_label)
        if suffix == ".parquet":
            return _load_parquet(path, args, needs_label)
        if suffix in DELIMITED_SUFFIXES:
            return _load_delimited(path, args, needs_label)
        if suffix in JSON_SUFFIXES:
            return _load_json(path, args, needs_label)
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}: {error.filename}") from error
    known = [*DELIMITED_SUFFIXES, *sorted(JSON_SUFFIXES), ".parquet"]
    raise DataError(f"{path}: unknown format {suffix!r}; known: {', '.join(known)}, or a folder")


def _load_folder(path: Path, args: DataArguments, needs_label: bool) -> Dataset:
    if (path / "dataset_dict.json").exists():
        splits = [str(path / split) for split in json.loads((path / "dataset_dict.json").read_text())["splits"]]
        raise DataError(f"{path}: holds several splits; pass each on its own: {', '.join(splits)}")
    if (path / "state.json").exists():
        return _standardise(_load_saved(path), args, str(path), needs_label)
    if (path / UNLABELLED_FOLDER).is_dir():
        logger.warning("%s: the folder %r is left out: in aclImdb it holds unlabelled texts", path, UNLABELLED_FOLDER)
    digest = hashlib.sha256()
    for file, label in text_tree_files(path):
        digest.update(f"{label}/{file.name}\0{_content_digest(file)}".encode())
    return _generate(
        read_text_tree, path, text_format_of(args), digest.hexdigest(), _string_features("id", "text", "label"), args
    )


def _content_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_saved(path: Path) -> Dataset:
    try:
        return load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a whole folder of save_to_disk: {one_line(error)}") from error


def _load_parquet(path: Path, args: DataArguments, needs_label: bool) -> Dataset:
    try:
        dataset = load_dataset("parquet", data_files=str(path), split="train", download_mode=_download_mode(args))
    except (DatasetGenerationError, ValueError) as error:  # Arrow's errors of content are ValueErrors
        reason = one_line(error.__cause__ or error)
        raise DataError(f"{path}: a broken parquet file, or one without rows: {reason}") from error
    return _standardise(dataset, args, str(path), needs_label)


def _load_delimited(path: Path, args: DataArguments, needs_label: bool) -> Dataset:
    text_format = resolved_format(path, args, needs_label)
    columns = delimited_file_columns(path, args, text_format, needs_label)
    features = _string_features(*columns.standard_names().values())
    return _generate(_delimited_rows, path, text_format, _content_digest(path), features, args, columns=columns)


def resolved_format(path: Path, args: DataArguments, needs_label: bool) -> TextFormat:
    """The format of a csv, tsv or txt file, by the options and by what its start shows.

    Raises:
        DataError: see [`resolve_delimited_format`].
    """
    required = (*(args.text_column_names or ()), *filter(None, [args.label_column_name]))
    return resolve_delimited_format(path, text_format_of(args), required, needs_label)


def _load_json(path: Path, args: DataArguments, needs_label: bool) -> Dataset:
    text_format = text_format_of(args)
    kinds = column_kinds(path, text_format)
    columns = resolve_columns(list(kinds), args.text_column_names, args.label_column_name, str(path), needs_label)
    for name in columns.texts:
        refuse_other_than_text(path, name, kinds[name])
    features = _string_features(*columns.standard_names().values())
    if columns.label is not None:
        features["label"] = label_feature(path, columns.label, kinds[columns.label])
    return _generate(read_json_columns, path, text_format, _content_digest(path), features, args, columns=columns)


def delimited_file_columns(path: Path, args: DataArguments, text_format: TextFormat, needs_label: bool) -> Columns:
    """The columns of a text file whose format is resolved.

    Raises:
        DataError: see [`delimited_columns`] and [`resolve_columns`].
    """
    names = delimited_columns(path, text_format)
    try:
        return resolve_columns(names, *_wanted_columns(args, text_format), str(path), needs_label)
    except DataError as error:
        hint = "; if line 1 is a row and no header, pass --csv_header false" if args.csv_header == "auto" else ""
        raise DataError(f"{error}{hint}") from error


def _wanted_columns(args: DataArguments, text_format: TextFormat) -> tuple[list[str] | None, str | None]:
    """Without a header the columns have standard names, whatever the options call them."""
    if text_format.csv_header == "false":
        return None, None
    return args.text_column_names, args.label_column_name


def text_format_of(args: DataArguments) -> TextFormat:
    """How the options say that text files are to be decoded."""
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
        if isinstance(error.__cause__, RunError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, OSError):
            raise StorageError(f"the datasets cache cannot be written: {error.__cause__}") from error
        raise DataError(f"{path}: {one_line(error.__cause__ or error)}") from error
    except ValueError as error:
        # What datasets raises where a generator yields nothing.
        if "corresponds to no data" not in str(error):
            raise
        below = " below the header" if text_format.csv_header == "true" else ""
        raise DataError(f"{path}: no rows{below}") from error
    return dataset


def _delimited_rows(path: Path, text_format: TextFormat, columns: Columns) -> Iterator[dict[str, Any]]:
    names = columns.standard_names()
    for row in read_delimited(path, text_format):
        yield {standard_name: row[name] for name, standard_name in names.items()}


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
    if "id" in dataset.column_names and not isinstance(dataset.features["id"], Value):
        dataset = dataset.remove_columns("id")
    for column in ("id", "text", "text_pair"):
        if column in dataset.column_names and dataset.features[column] != Value("string"):
            dataset = dataset.cast_column(column, Value("string"))
    return dataset


def _require_text(feature: Any, column: str, name: str) -> None:
    if not (isinstance(feature, Value) and feature.dtype in TEXT_TYPES):
        held = feature.dtype if isinstance(feature, Value) else feature
        raise DataError(f"{name}: the column of {column!r} holds {held}, not strings; see --text_column_names")


def _require_label(feature: Any, name: str) -> None:
    inner = feature.feature if isinstance(feature, (List, LargeList)) else feature
    is_plain = isinstance(inner, Value) and inner.dtype.rstrip("0123456789") in LABEL_TYPES
    if not (is_plain or isinstance(inner, ClassLabel)):
        held = feature.dtype if isinstance(feature, Value) else feature
        raise DataError(f"{name}: the label column holds {held}; expected names, numbers or lists of them")
