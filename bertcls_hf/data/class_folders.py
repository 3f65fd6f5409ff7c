"""The reader of a folder that has one sub-folder of text files per class."""

import hashlib
import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Features

from bertcls_hf.data.columns import Columns
from bertcls_hf.data.table_reader import TextTableReader, string_features
from bertcls_hf.errors import DataError


logger = logging.getLogger(__name__)

# The aclImdb corpus keeps unlabelled reviews in a folder of this name beside the class folders.
UNLABELLED_FOLDER = "unsup"
# A class folder with such a file was not meant as one.
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".xlsx"})
SPLIT_FOLDERS = ("train", "validation", "valid", "dev", "test")


class ClassFolderReader(TextTableReader):
    """Reads one row per text file: its content as `text`, its folder as `label`, and `folder/file` as `id`.

    If a class folder has .txt files, they are the texts; otherwise all of its files are, as in 20 newsgroups, whose
    files have a number as their name. Hidden files are left out.
    """

    cache_name = "read_text_tree"

    @cached_property
    def columns(self) -> Columns:
        return Columns(("text",), ("label",), "id")

    @cached_property
    def text_paths(self) -> list[tuple[Path, str]]:
        """The path and the class of each text file, sorted by class and file name.

        Raises:
            DataError: there is no class folder, a class folder has no file or holds tables, or the folders are splits.
        """
        if (self.path / UNLABELLED_FOLDER).is_dir():
            logger.warning(
                "%s: the folder %r is left out: in aclImdb it holds unlabelled texts", self.path, UNLABELLED_FOLDER
            )
        labelled_paths: list[tuple[Path, str]] = []
        for folder in self._class_folders():
            paths = _text_paths(folder)
            labelled_paths += [(path, folder.name) for path in paths]
        return labelled_paths

    def _class_folders(self) -> list[Path]:
        """Returns the class folders, sorted by name. Folders whose name starts with `.` or `_` are left out."""
        folders = {f.name: f for f in self.path.iterdir() if f.is_dir() and not f.name.startswith((".", "_"))}
        splits = [self.path / name for name in SPLIT_FOLDERS if name in folders]
        if len(splits) > 1:
            raise DataError(
                f"{self.path}: holds splits, not classes: pass --train_file {splits[0]}, and the others as "
                "--validation_file or --test_file"
            )
        classes = [folder for name, folder in sorted(folders.items()) if name != UNLABELLED_FOLDER]
        if not classes:
            raise DataError(f"{self.path}: no sub-folder; expected one folder of .txt files per class")
        return classes

    def features(self) -> Features:
        return string_features("id", "text", "label")

    def digest(self) -> str:
        """Returns the SHA-256 of the names, classes and contents of all files, as hexadecimal digits."""
        digest = hashlib.sha256()
        for path, label in self.text_paths:
            with self._text_file(path) as file:
                digest.update(f"{label}/{path.name}\0{file.digest()}".encode())
        return digest.hexdigest()

    def cache_options(self) -> dict[str, Any]:
        return {}

    def rows(self) -> Iterator[dict[str, Any]]:
        for path, label in self.text_paths:
            with self._text_file(path) as file:
                yield {"id": f"{label}/{path.name}", "text": "".join(file.lines()), "label": label}


def _text_paths(folder: Path) -> list[Path]:
    """Returns the text files of a class folder: the .txt files if there are any, and else all files."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    texts = [path for path in paths if path.suffix.lower() == ".txt"] or paths
    if not texts:
        raise DataError(f"{folder}: no file in this class folder; remove it, or put the class's texts there")
    tables = [path for path in texts if path.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        raise DataError(
            f"{folder}: {tables[0].name} is a table and no text; pass the file itself, or put one text file per text "
            "there"
        )
    return texts
