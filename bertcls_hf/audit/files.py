"""Writes the findings of an audit: all rows as a table, all findings as JSON, and a page."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bertcls_hf.atomic_files import write_atomically, write_json_atomically, write_text_atomically
from bertcls_hf.audit.findings import Findings
from bertcls_hf.audit.near_duplicates import SimilarRows
from bertcls_hf.audit.page import audit_page
from bertcls_hf.audit.sections import Section
from bertcls_hf.data.load import ROW_COLUMN
from bertcls_hf.data.texts import READ_ROWS
from bertcls_hf.predict.lines import DIGITS, format_rows


ROWS_FILE, FINDINGS_FILE, PAGE_FILE = "audit.csv", "audit.json", "audit.html"
TEXTS = ("text", "text_pair")


def write_audit(folder: Path, findings: Findings, sections: list[Section]) -> None:
    """Writes `audit.csv`, `audit.json` and `audit.html`.

    Raises:
        StorageError: the disk is full or cannot be written.
    """

    def write_rows(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            # The texts are other people's, and a spreadsheet would run some of them.
            file.writelines(format_rows(_ordered_rows(findings), "csv", is_safe=True))

    write_atomically(folder / ROWS_FILE, write_rows)
    write_json_atomically(folder / FINDINGS_FILE, _as_json(findings, sections))
    write_text_atomically(folder / PAGE_FILE, audit_page("Audit of the labelled data", sections))


def _ordered_rows(findings: Findings) -> Iterator[dict[str, Any]]:
    """Yields the training rows, from the likeliest wrong label on."""
    errors, labels = findings.errors, findings.rows.labels
    order = errors.order
    ordered = findings.rows.splits["train"].select(order)
    rows = (dict(zip(batch, values, strict=True)) for batch in ordered.iter(READ_ROWS)
            for values in zip(*batch.values(), strict=True))  # fmt: skip
    for number, row in zip(order.tolist(), rows, strict=True):
        known = {name: row[name] for name in (ROW_COLUMN, "id", *TEXTS) if name in row}
        yield known | {"label": labels.readable(row["label"])} | _judgement(findings, number)


def _judgement(findings: Findings, number: int) -> dict[str, Any]:
    errors = findings.errors
    return {
        "suggested_label": findings.rows.labels.readable(errors.suggested[number]),
        "score": round(float(errors.margins[number]), DIGITS),
        "label_probability": round(float(errors.given_probability[number]), DIGITS),
        "suggested_probability": round(float(errors.suggested_probability[number]), DIGITS),
        "likely_wrong": bool(errors.is_likely_wrong[number]),
    }


def _as_json(findings: Findings, sections: list[Section]) -> dict[str, Any]:
    """Everything that was found; of labels that are likely wrong, the texts stand in the table."""
    rows, errors = findings.rows, findings.errors
    likely = errors.order[errors.is_likely_wrong[errors.order]].tolist()
    return {
        "summary": {section.title: section.summary for section in sections},
        "rows": {name: len(split) for name, split in rows.splits.items()},
        "likely_wrong_labels": [_without_text(rows.description(number)) | _judgement(findings, number)
                                for number in likely],
        "estimated_wrong_labels": round(errors.estimated, 1),
        "texts_with_different_labels": [_group(findings, group) for group in findings.contradictions],
        "similar_texts_with_different_labels": [_pair(findings, pair) for pair in findings.similar_contradictions],
        "training_texts_in_other_splits": [_pair(findings, pair) for pair in findings.repeated],
        "telling_ngrams": [asdict(found) | {"example": rows.description(found.example)[ROW_COLUMN]}
                           for found in findings.telling],
        "labels": [asdict(label) for label in findings.balance],
        "texts_cut": findings.cut_texts,
        "longest_text": findings.longest_text,
    }  # fmt: skip


def _group(findings: Findings, group: np.ndarray) -> dict[str, Any]:
    """Returns the text of the first of some rows, and what distinguishes them."""
    rows = [findings.rows.description(number) for number in group.tolist()]
    texts = {name: rows[0][name] for name in TEXTS if name in rows[0]}
    return texts | {"rows": [_without_text(row) for row in rows]}


def _pair(findings: Findings, pair: SimilarRows) -> dict[str, Any]:
    both = [findings.rows.description(number) for number in (pair.row, pair.other)]
    return {"similarity": round(pair.similarity, DIGITS), "rows": both}


def _without_text(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TEXTS}
