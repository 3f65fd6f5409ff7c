"""The texts of a dataset, read in batches."""

from collections.abc import Iterator

from datasets import Dataset


READ_ROWS = 1000


def rows_of_texts(dataset: Dataset) -> Iterator[tuple[str | None, ...]]:
    """The text, or both of a pair, of each row; read in batches, since the texts may not fit into memory."""
    columns = [column for column in ("text", "text_pair") if column in dataset.column_names]
    for batch in dataset.select_columns(columns).iter(READ_ROWS):
        yield from zip(*(batch[column] for column in columns), strict=True)


def text_keys(dataset: Dataset) -> list[int]:
    """Equal for equal texts; good for one process, since Python salts its hashes."""
    return [hash(texts) for texts in rows_of_texts(dataset)]
