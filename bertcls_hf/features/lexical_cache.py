"""The cache of lexical models: one file per content, in a folder under HF_HOME."""

import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset
from huggingface_hub.constants import HF_HOME

from bertcls_hf.atomic_files import write_atomically
from bertcls_hf.data.content_digests import column_digests
from bertcls_hf.data.texts import text_columns
from bertcls_hf.errors import StorageError


logger = logging.getLogger(__name__)

CACHE_FOLDER = Path(HF_HOME, "bertcls_hf", "lexical")
DESCRIPTION = "description"


def content_digests(split: Dataset) -> list[str]:
    """Returns a hash of each column of texts and, where there is one, of the labels."""
    names = [*text_columns(split), *(name for name in ("label",) if name in split.column_names)]
    return list(column_digests(split, names).values())


def read_cached(key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Reads the description and the arrays of a file; returns None if it is missing or damaged."""
    try:
        with np.load(CACHE_FOLDER / f"{key}.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
        return json.loads(str(arrays.pop(DESCRIPTION))), arrays
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def write_cached(key: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file; one that cannot be written is no error."""

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **cast(Any, {**arrays, DESCRIPTION: json.dumps(description)}))

    try:
        CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
        write_atomically(CACHE_FOLDER / f"{key}.npz", fill)
    except (OSError, StorageError) as error:
        logger.warning("what was learned from n-grams is not cached: %s", error)
