"""The file of proposed texts, which a person fills in: csv or jsonl, with an empty column `label`.

A spreadsheet takes a cell that starts with =, +, -, @, a tab or a carriage return for a formula. In a csv, such a cell
gets an apostrophe before it, and one that already has apostrophes there gets one more; reading takes one away, so that
every text comes back as it was.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertcls_hf.atomic_files import write_text_atomically
from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.delimited_files import DelimitedReader
from bertcls_hf.data.file_formats import open_reader
from bertcls_hf.data.json_files import JsonReader
from bertcls_hf.data.labels import RawLabel, is_missing, label_name
from bertcls_hf.errors import DataError
from bertcls_hf.labelling.labelled_file import LabelledRow
from bertcls_hf.predict.lines import FORMULA_STARTS, format_rows


# Between several labels of a text in a cell.
LABEL_SEPARATOR = "|"
PROPOSED = "proposed_label"
_FORMULA = re.compile(f"'*[{re.escape(''.join(FORMULA_STARTS))}]")


@dataclass(frozen=True)
class Proposal:
    """A text that a person should label.

    Args:
        row: its row in the file that it comes from; 1 is the first.
        texts: the text, or the two texts of a pair.
        id: the id of the row, if it has one.
        label: the label that it has, of a row that is doubted; None for a text without a label.
        proposed: the label that the head finds most probable, or those above their threshold; None without a head.
        probability: that of `proposed`; of several labels, that of the least sure one.
    """

    row: int
    texts: tuple[str, ...]
    id: str | None = None
    label: RawLabel = None
    proposed: RawLabel = None
    probability: float | None = None


def write_proposals(path: Path, proposals: Sequence[Proposal]) -> None:
    """Writes proposals, each with an empty label for a person to fill in.

    Args:
        path: the file; one that exists is replaced.
        proposals: the proposals, the most useful first.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    is_csv = path.suffix.lower() == ".csv"
    rows = [_as_row(proposal, proposals) for proposal in proposals]
    if is_csv:
        rows = [{name: _defused(value) for name, value in row.items()} for row in rows]
    write_text_atomically(path, "".join(format_rows(rows, "csv" if is_csv else "jsonl")))


def _as_row(proposal: Proposal, all_proposals: Sequence[Proposal]) -> dict[str, Any]:
    row: dict[str, Any] = {"row": proposal.row}
    if any(other.id is not None for other in all_proposals):
        row["id"] = proposal.id
    row |= dict(zip(("text", "text_pair"), proposal.texts, strict=False))
    if any(other.label is not None for other in all_proposals):
        row["current_label"] = proposal.label
    probability = None if proposal.probability is None else round(proposal.probability, 4)
    return row | {PROPOSED: proposal.proposed, "probability": probability, "label": None}


def _defused(value: Any) -> Any:
    if isinstance(value, list):
        value = LABEL_SEPARATOR.join(value)
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _fused(value: str) -> str:
    return value[1:] if value.startswith("'") and _FORMULA.match(value) else value


def read_filled(path: Path, has_several_labels: bool) -> tuple[list[LabelledRow], int]:
    """Reads a file of proposals that a person has filled in.

    Args:
        path: the file, maybe written by a spreadsheet, with another delimiter.
        has_several_labels: whether each text can have several labels; in a csv they stand as `a|b`.

    Returns:
        The rows with a label, and the number of rows without one.

    Raises:
        DataError: the file cannot be read, or was not written by this command.
    """
    is_csv = path.suffix.lower() == ".csv"
    rows = []
    for record in _records(path, is_csv):
        cells = {name: _fused(value) if is_csv and isinstance(value, str) else value for name, value in record.items()}
        texts = tuple(cells[name] for name in ("text", "text_pair") if name in cells)
        identifier = cells.get("id")
        label = _filled_label(cells.get("label"), has_several_labels)
        rows.append(LabelledRow(texts, label, None if is_missing(identifier) else str(identifier)))
    filled = [row for row in rows if row.label is not None]
    return filled, len(rows) - len(filled)


def _records(path: Path, is_csv: bool) -> Iterator[dict[str, Any]]:
    args = DataArguments(text_column_names=["text"], label_column_name=["label"])
    if is_csv:
        args = replace(args, csv_delimiter=_delimiter(path), csv_quoting="minimal", csv_header="true")
    with open_reader(path, args, needs_label=True, alternative="") as reader:
        assert isinstance(reader, DelimitedReader | JsonReader)
        for number, record in enumerate(reader.records(), start=1):
            if number == 1 and PROPOSED not in record:
                raise DataError(f"{path}: no column {PROPOSED!r}: name a file that `bertcls label` wrote")
            yield record


def _delimiter(path: Path) -> str:
    """Returns what stands behind `row`, the name of the first column; spreadsheets write other delimiters."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().lstrip('"')
    found = first.removeprefix("row").lstrip('"')[:1]
    return found if found in (";", "\t", "|") else ","


def _filled_label(value: Any, has_several_labels: bool) -> RawLabel:
    if not isinstance(value, list) and is_missing(value):
        return None
    if not has_several_labels:
        return label_name(value)
    parts = value if isinstance(value, list) else str(value).split(LABEL_SEPARATOR)
    return [label_name(part) for part in parts if not is_missing(part)]
