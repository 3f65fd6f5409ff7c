"""The texts of a dataset, read in batches."""

from collections.abc import Iterator

import numpy as np
from datasets import Dataset


READ_ROWS = 1000


def text_columns(dataset: Dataset) -> list[str]:
    """Lists the columns `text` and, for pairs, `text_pair`."""
    return [column for column in ("text", "text_pair") if column in dataset.column_names]


def rows_of_texts(dataset: Dataset) -> Iterator[tuple[str | None, ...]]:
    """Yields the text or text pair of each row, read in batches because all texts together may not fit into memory."""
    columns = text_columns(dataset)
    for batch in dataset.select_columns(columns).iter(READ_ROWS):
        yield from zip(*(batch[column] for column in columns), strict=True)


def text_keys(dataset: Dataset) -> list[int]:
    """Returns a hash of the text or text pair of each row.

    The hashes of one text differ between processes, because Python salts them.
    """
    return [hash(texts) for texts in rows_of_texts(dataset)]


def first_rows(dataset: Dataset) -> np.ndarray:
    """Returns for each row the number of the first row with its text or text pair, the same in every process."""
    _, first, text_of_row = np.unique(text_keys(dataset), return_index=True, return_inverse=True)
    return first[text_of_row]
