"""The reader of text files whose lines start with the label: fastText's and TREC's layout."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from datasets import Features, List, Value

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import Columns
from bertcls_hf.data.table_reader import TextTableReader, string_features
from bertcls_hf.errors import DataError


Layout = Literal["fasttext", "trec"]
FASTTEXT_PREFIX = "__label__"
_TREC_LINE = re.compile(r"[A-Z]{2,}:[A-Za-z]+ +\S")


def label_first_layout(lines: Iterable[str]) -> Layout | None:
    """Returns the layout that all lines have, or None.

    `fasttext` is `__label__x text`, with any number of labels. `trec` is `LABEL:sub text`.
    """
    filled = [line for line in lines if line.strip()]
    if filled and all(line.startswith(FASTTEXT_PREFIX) for line in filled):
        return "fasttext"
    if filled and all(_TREC_LINE.match(line) for line in filled):
        return "trec"
    return None


class LabelFirstReader(TextTableReader):
    """Reads lines that start with one label, or in fastText's layout with several.

    If any line has several labels, the labels of every row are a list.
    """

    cache_name = "label_first_lines"

    def __init__(
        self, path: Path, args: DataArguments, needs_label: bool, sample_rows: int | None = None,
        layout: Layout | None = None,
    ):  # fmt: skip
        super().__init__(path, args, needs_label, sample_rows)
        self.layout: Layout = layout or ("trec" if args.file_format == "trec" else "fasttext")

    @cached_property
    def columns(self) -> Columns:
        return Columns(("text",), ("label",))

    @cached_property
    def has_several_labels(self) -> bool:
        """Whether a line has more than one label.

        Raises:
            DataError: a line has no label.
        """
        return any(len(labels) > 1 for _, labels, _ in self._lines())

    def features(self) -> Features:
        features = string_features("text", "label")
        if self.has_several_labels:
            features["label"] = List(Value("string"))
        return features

    def cache_options(self) -> dict[str, Any]:
        return {"layout": self.layout}

    def rows(self) -> Iterator[dict[str, Any]]:
        several = self.has_several_labels
        for _, labels, text in self._lines():
            yield {"text": text, "label": labels if several else labels[0]}

    def _lines(self) -> Iterator[tuple[int, list[str], str]]:
        """Yields the number, the labels and the text of each line that is not blank."""
        for number, line in enumerate(self.file.lines(), start=1):
            if not line.strip():
                continue
            labels, text = self._split(line.strip())
            if not labels:
                raise DataError(f"{self.path}, line {number}: no label at the start of the line ({self.layout})")
            yield number, labels, text

    def _split(self, line: str) -> tuple[list[str], str]:
        if self.layout == "trec":
            label, _, text = line.partition(" ")
            return ([label] if ":" in label else []), text.strip()
        labels = []
        while line.startswith(FASTTEXT_PREFIX):
            label, _, line = line.partition(" ")
            labels.append(label.removeprefix(FASTTEXT_PREFIX))
            line = line.lstrip()
        return labels, line
