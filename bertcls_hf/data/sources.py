"""Loads the splits from memory, the Hub, files, folders or corpora in Python packages, before any row is checked.

Every split has the column `text` (string), and `text_pair`, `label` and `id` if the source has them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError

from bertcls_hf.atomic_files import read_json
from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.class_folders import ClassFolderReader
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.file_formats import READERS, open_reader
from bertcls_hf.data.input_paths import existing_path, format_suffix, matching_files
from bertcls_hf.data.parquet_files import download_mode, parquet_stream, resharded
from bertcls_hf.data.python_packages import is_packaged, packaged_corpus
from bertcls_hf.data.splits import SPLIT_NAMES
from bertcls_hf.data.standard_columns import standardise, standardise_stream
from bertcls_hf.data.text_stream import RawStream
from bertcls_hf.errors import ArgumentsError, DataError, one_line


if TYPE_CHECKING:
    from pandas import DataFrame

# Rows in memory. pandas is imported for type checking only, because its import is slow and most runs do not need it.
Table: TypeAlias = "Dataset | DataFrame"


# Formats of files that are read whole, or whose rows depend on all others.
NOT_STREAMED = frozenset({".xlsx", ".fasttext", ".trec"})


@dataclass(frozen=True)
class Source:
    """A split as it was loaded, before its rows are checked.

    Args:
        split: `train`, `validation` or `test`.
        name: the source's name in messages.
        dataset: a `Dataset`, or a [`RawStream`] for training data with `--streaming`.
        columns: the used and unused columns, as the source spells them.
    """

    split: str
    name: str
    dataset: Any
    columns: Columns


def load_sources(
    args: DataArguments, needs_labels: frozenset[str], in_memory: Mapping[str, Table]
) -> dict[str, Source]:
    """Loads the splits that the options name, and those that are in memory.

    Args:
        args: the data options.
        needs_labels: the splits that must have a label column.
        in_memory: rows by split, used instead of the source that the options name.

    Raises:
        DataError: a source cannot be read, a split does not exist, or a column is missing or has a wrong type.
        ArgumentsError: rows in memory belong to an unknown split, or are training rows with `--streaming`.
    """
    if unknown := sorted(in_memory.keys() - SPLIT_NAMES.keys()):
        raise ArgumentsError(f"data in memory for {unknown[0]!r}; the splits are {', '.join(SPLIT_NAMES)}")
    if args.streaming and "train" in in_memory:
        raise ArgumentsError("--streaming: the train data is in memory: leave the option out")
    sources = _sources_of_options(args, needs_labels - in_memory.keys(), skipped=frozenset(in_memory))
    for split, data in in_memory.items():
        sources[split] = _source_in_memory(split, data, args, split in needs_labels)
    return {split: sources[split] for split in SPLIT_NAMES if split in sources}


def _source_in_memory(split: str, data: Table, args: DataArguments, needs_label: bool) -> Source:
    name = f"the {split} data"
    try:
        dataset = data if isinstance(data, Dataset) else Dataset.from_pandas(data, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{name}: a column cannot be read: {one_line(error)}") from error
    return Source(split, name, *standardise(dataset, args, name, needs_label))


def _sources_of_options(
    args: DataArguments, needs_labels: frozenset[str], skipped: frozenset[str]
) -> dict[str, Source]:
    if args.dataset_name and is_packaged(args.dataset_name):
        return {} if "train" in skipped else {"train": _packaged_source(args.dataset_name, args)}
    if args.dataset_name:
        loaded = _select_splits(_load_hub_dataset(args), args, needs_labels)
        return {
            split: _hub_source(split, dataset, args, split in needs_labels)
            for split, dataset in loaded.items()
            if split not in skipped
        }
    names = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
    return {
        split: Source(split, name, *_load_or_stream(split, name, args, split in needs_labels))
        for split, name in names.items()
        if name and split not in skipped
    }


def _packaged_source(name: str, args: DataArguments) -> Source:
    return Source("train", name, *load_path(str(packaged_corpus(name)), args, needs_label=True))


def _load_hub_dataset(args: DataArguments) -> DatasetDict:
    try:
        return load_dataset(args.dataset_name, args.dataset_config_name, revision=args.dataset_revision,
                            download_mode=download_mode(args), streaming=args.streaming)  # fmt: skip
    except Exception as error:  # The Hub, each file system and each file format raise exceptions of their own.
        raise DataError(
            f"--dataset_name {args.dataset_name}: {type(error).__name__}: {one_line(error)}; check the name, "
            "--dataset_config_name and the connection to the Hub, or use --train_file"
        ) from error


def _select_splits(loaded: DatasetDict, args: DataArguments, needs_labels: frozenset[str]) -> dict[str, Dataset]:
    has_train = args.train_split_name in loaded or "train" in needs_labels
    hub_names = {
        "train": args.train_split_name if has_train else None,
        "validation": args.validation_split_name or ("validation" if "validation" in loaded else None),
        "test": args.test_split_name or ("test" if "test" in loaded else None),
    }
    for split, name in hub_names.items():
        if name is not None and name not in loaded:
            available = ", ".join(sorted(map(str, loaded)))
            raise DataError(
                f"--dataset_name {args.dataset_name}: no split {name!r}, but {available}: set --{split}_split_name"
            )
    return {split: loaded[name] for split, name in hub_names.items() if name is not None}


def _hub_source(split: str, dataset: Any, args: DataArguments, needs_label: bool) -> Source:
    name = f"{args.dataset_name} ({split})"
    if args.streaming and split == "train":
        return Source(split, name, *standardise_stream(resharded(dataset), args, name))
    loaded = _store_on_disk(dataset, name) if args.streaming else dataset
    return Source(split, name, *standardise(loaded, args, name, needs_label))


def _store_on_disk(stream: IterableDataset, name: str) -> Dataset:
    """Stores a streamed split in the datasets cache, because an evaluation needs all its rows."""
    try:
        return Dataset.from_generator(_rows_of, features=stream.features, gen_kwargs={"stream": stream})
    except (DatasetGenerationError, ValueError) as error:
        raise DataError(f"{name}: {one_line(error.__cause__ or error)}") from error


def _rows_of(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    yield from stream


def _load_or_stream(
    split: str, name: str, args: DataArguments, needs_label: bool
) -> tuple[Dataset | RawStream, Columns]:
    if args.streaming and split == "train":
        return stream_files(name, args)
    return load_path(name, args, needs_label)


def stream_files(name: str, args: DataArguments) -> tuple[RawStream, Columns]:
    """Opens files of one format as a stream, and returns their own columns, too.

    Args:
        name: a file, a folder of files, a pattern, or a URL of parquet files.
        args: the data options.

    Raises:
        DataError: no file matches, the files have several formats or an unknown one, or the first file is broken.
    """
    if "://" in name:
        return standardise_stream(parquet_stream(name, name), args, name)
    paths = matching_files(name, args)
    suffix = format_suffix(paths[0], args)
    if suffix not in READERS or suffix in NOT_STREAMED:
        # Parquet is listed first, because it is the only format that can also be streamed from a URL.
        known = sorted(READERS.keys() - NOT_STREAMED, key=lambda name: (name != ".parquet", name))
        raise DataError(f"{name}: {suffix!r} files cannot be streamed; known: {', '.join(known)}")
    with open_reader(paths[0], args, needs_label=True, alternative="") as reader:
        return reader.stream(paths, name), reader.columns


def load_path(name: str, args: DataArguments, needs_label: bool) -> tuple[Dataset, Columns]:
    """Loads a file or folder as a dataset with the standard column names, and returns its own columns, too.

    Raises:
        DataError: the file or folder does not exist, has an unknown format, or cannot be read.
    """
    path = existing_path(name)
    try:
        if path.is_dir():
            return _load_folder(path, args, needs_label)
        with open_reader(path, args, needs_label, alternative="or a folder") as reader:
            return reader.load(), reader.columns
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}: {error.filename}") from error


def _load_folder(path: Path, args: DataArguments, needs_label: bool) -> tuple[Dataset, Columns]:
    if (path / "dataset_dict.json").exists():
        splits = [str(path / split) for split in read_json(path / "dataset_dict.json")["splits"]]
        raise DataError(f"{path}: holds several splits; pass each on its own: {', '.join(splits)}")
    if (path / "state.json").exists():
        return standardise(_load_saved_dataset(path), args, str(path), needs_label)
    with ClassFolderReader(path, args, needs_label) as reader:
        return reader.load(), reader.columns


def _load_saved_dataset(path: Path) -> Dataset:
    try:
        return load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a whole folder of save_to_disk: {one_line(error)}") from error
