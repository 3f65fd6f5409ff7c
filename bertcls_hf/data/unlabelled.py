"""Loads texts without labels, from which an encoder or a student of a teacher learns beside the training rows."""

import logging
from typing import cast

import numpy as np
from datasets import Dataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.sources import load_path
from bertcls_hf.data.texts import rows_of_texts, text_columns, text_keys
from bertcls_hf.errors import DataError


logger = logging.getLogger(__name__)


def load_unlabelled(args: DataArguments, data: ClassificationData) -> Dataset | None:
    """Loads the texts of `unlabelled_file`; returns None without the option.

    Left out are empty texts, and those that are also in validation or test: their figures are those of new texts.

    Args:
        args: the data options.
        data: the splits of the run.

    Raises:
        DataError: the file cannot be read, it has pairs where the run has none or the other way round, or no text is
            left.
    """
    name = args.unlabelled_file
    if name is None:
        return None
    loaded, _ = load_path(name, args, needs_label=False)
    texts = loaded.select_columns(text_columns(loaded))
    if ("text_pair" in texts.column_names) != data.is_pair:
        raise DataError(f"{name}: its rows and the training rows are not both single texts, or both pairs of texts")
    evaluated = {key for split in ("validation", "test") if split in data.splits
                 for key in text_keys(cast(Dataset, data.splits[split]))}  # fmt: skip
    is_whole = np.array([all(text and text.strip() for text in row) for row in rows_of_texts(texts)])
    is_new = np.array([key not in evaluated for key in text_keys(texts)])
    kept = np.flatnonzero(is_whole & is_new)
    if not len(kept):
        raise DataError(f"{name}: no text is left that is not empty, and not in validation or test")
    if len(kept) < len(texts):
        logger.warning(
            "%s: %d of %d texts are left out: empty, or also in validation or test", name, len(texts) - len(kept),
            len(texts),
        )  # fmt: skip
    return texts if len(kept) == len(texts) else texts.select(kept)
