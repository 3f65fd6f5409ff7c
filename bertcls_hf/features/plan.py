"""Plans an extraction: which rows of a split are computed, and in which order."""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash
from datasets import Dataset

from bertcls_hf.data.tokenization import TOKEN_COLUMNS


READ_ROWS = 4096


@dataclass(frozen=True)
class ExtractionPlan:
    """The rows of a split to compute, in the order of extraction.

    The order depends only on the set of distinct texts, and not on the order or the repetition of texts in the split.

    Args:
        rows: (distinct rows,) row numbers in the split, in the order of extraction: longest text first.
        positions: (all rows,) the position of each row in the order of extraction; repeated texts share a position.
        lengths: (distinct rows,) the number of tokens of each row, in the order of extraction.
        digest: a hash of the token ids of all distinct rows, in the order of extraction.
    """

    rows: np.ndarray
    positions: np.ndarray
    lengths: np.ndarray
    digest: str


def plan_extraction(split: Dataset) -> ExtractionPlan:
    """Finds the distinct token sequences of a split and sorts them by length, and by digest among equal lengths."""
    digests, lengths = _row_digests(split)
    order = np.lexsort((digests[:, 0], digests[:, 1], -lengths))
    ordered = digests[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    positions = np.empty_like(order)
    positions[order] = np.cumsum(is_first) - 1
    rows = order[is_first]
    return ExtractionPlan(rows, positions, lengths[rows], hashlib.sha256(ordered[is_first].tobytes()).hexdigest())


def _row_digests(split: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns a 128-bit hash of each row's token ids, (rows, 2) uint64, and the number of tokens, (rows,) int64."""
    digests, lengths = [], []
    for batch in split.with_format("arrow").iter(batch_size=READ_ROWS):
        columns = [TokenColumn(batch.column(name)) for name in token_columns(split)]
        digests.append(np.bitwise_xor.reduce([column.digests(seed) for seed, column in enumerate(columns)]))
        lengths.append(np.diff(columns[0].offsets).astype(np.int64))
    return np.concatenate(digests), np.concatenate(lengths)


def token_columns(split: Dataset) -> list[str]:
    """Lists the columns of a split that the encoder reads."""
    return [name for name in TOKEN_COLUMNS if name in split.column_names]


class TokenColumn:
    """The lists of an Arrow column as one flat array and its offsets.

    Args:
        column: a chunked array of lists of integers.
    """

    def __init__(self, column: pa.ChunkedArray):
        lists = column.combine_chunks()
        offsets = lists.offsets.to_numpy()
        self.offsets = offsets - offsets[0]
        self.values = lists.values.to_numpy()[offsets[0] : offsets[-1]].astype(np.int32, copy=False)

    def digests(self, seed: int) -> np.ndarray:
        """Returns a 128-bit hash of each list, as (lists, 2) uint64."""
        content = memoryview(self.values.view(np.uint8))
        bounds = itertools.pairwise((self.offsets * self.values.itemsize).tolist())
        digests = b"".join(xxhash.xxh3_128_digest(content[start:stop], seed) for start, stop in bounds)
        return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)

    def values_of(self, rows: slice) -> np.ndarray:
        """Returns the values of consecutive rows as one array, (tokens,) int32."""
        return self.values[self.offsets[rows.start] : self.offsets[rows.stop]]
