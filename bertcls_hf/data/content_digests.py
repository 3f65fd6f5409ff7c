"""Digests of the content of data, by which a run knows the rows that it was trained on."""

from collections.abc import Sequence
from pathlib import Path

import xxhash
from datasets import Dataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.input_paths import matching_files


READ_ROWS = 10_000
# The bytes at the start and at the end of a streamed file that are read for its digest.
EDGE_BYTES = 65_536


def column_digests(split: Dataset, names: Sequence[str]) -> dict[str, str]:
    """Returns a hash of each of the columns, by its name."""
    digests = {name: xxhash.xxh3_128() for name in names}
    for table in split.select_columns(list(names)).with_format("arrow").iter(READ_ROWS):
        for name, digest in digests.items():
            # What is written to a stream is the column's values alone, wherever they lie in the memory of the table.
            for batch in table.select([name]).combine_chunks().to_batches():
                digest.update(batch.serialize())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def stream_digest(args: DataArguments) -> str:
    """Returns a hash of what a stream of training rows is read from, without reading all of it.

    Of local files, these are the names, the sizes, and the bytes at both ends; of others, the names and the revision.
    """
    digest = xxhash.xxh3_128()
    if args.train_file is None or "://" in args.train_file:
        named = (args.train_file, args.dataset_name, args.dataset_config_name, args.dataset_revision)
        digest.update(repr((*named, args.train_split_name)).encode())
        return digest.hexdigest()
    for path in matching_files(args.train_file, args):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        digest.update(_edges(path))
    return digest.hexdigest()


def _edges(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(EDGE_BYTES)
        file.seek(max(path.stat().st_size - EDGE_BYTES, 0))
        return start + file.read(EDGE_BYTES)
