"""Reads the rows of annotation tools' exports: Label Studio, Prodigy and Argilla."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bertcls_hf.errors import DataError, one_line


logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
# The characters of a record that a message quotes.
LONGEST_SHOWN = 120


@dataclass
class ExportRows:
    """Converts the records of an export to flat rows with a column `label`; other records pass unchanged.

    Args:
        name: the source's name in messages.
        keeps_lists: whether a label stays a list of choices; if not, a list of one choice becomes that choice.
    """

    name: str
    keeps_lists: bool
    counts: Counter[str] = field(default_factory=Counter)
    tools: set[str] = field(default_factory=set)

    def convert(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yields the rows of annotated records, and logs at the end how many were left out and why."""
        for record in records:
            tool = tool_of(record)
            if tool is None:
                yield record
                continue
            self.tools.add(tool)
            row = _row(tool, record, self.name)
            if isinstance(row, str):
                self.counts[row] += 1
                continue
            yield row if self.keeps_lists else _with_single_label(row)

    def report(self) -> None:
        """Logs the tool, and the number of records that were left out by reason."""
        if self.tools:
            left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.counts.items()))
            logger.info("%s: an export of %s%s", self.name, " and ".join(sorted(self.tools)),
                        f"; left out: {left_out}" if left_out else "")  # fmt: skip


def tool_of(record: Record) -> str | None:
    """Names the tool whose export a record is from, or returns None."""
    if isinstance(record.get("data"), dict) and isinstance(record.get("annotations", record.get("completions")), list):
        return "Label Studio"
    if any(_is_choices(value) for value in record.values()):
        return "Label Studio"
    if record.get("answer") in ("accept", "reject", "ignore") and ("text" in record or "label" in record):
        return "Prodigy"
    if isinstance(record.get("fields"), dict) and isinstance(record.get("responses"), dict | list):
        return "Argilla"
    if any(name.endswith(".responses") for name in record):
        return "Argilla"
    if "annotation" in record and record.get("status") in ("Validated", "Default", "Discarded"):
        return "Argilla"
    return None


def _row(tool: str, record: Record, name: str) -> dict[str, Any] | str:
    try:
        return _CONVERTERS[tool](record)
    except (AttributeError, TypeError, KeyError, IndexError) as error:
        shown = json.dumps(record, ensure_ascii=False)[:LONGEST_SHOWN]
        raise DataError(f"{name}: a record is not as {tool} exports them ({one_line(error)}): {shown}") from error


def has_several_labels(records: Iterable[Record], name: str) -> bool:
    """Says whether a record of an export has more than one label, so that all labels must stay lists.

    Args:
        records: the records.
        name: the source's name in messages.

    Raises:
        DataError: a record is damaged.
    """
    for record in records:
        tool = tool_of(record)
        row = None if tool is None else _row(tool, record, name)
        if isinstance(row, dict) and isinstance(row.get("label"), list) and len(row["label"]) != 1:
            return True
    return False


def _with_single_label(row: dict[str, Any]) -> dict[str, Any]:
    label = row.get("label")
    return {**row, "label": label[0]} if isinstance(label, list) and len(label) == 1 else row


def _is_choices(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"choices"} and isinstance(value["choices"], list)


def _label_studio_row(record: Record) -> dict[str, Any] | str:
    """Reads a task of the JSON or the JSON-MIN export; returns the reason if it is left out."""
    if not isinstance(record.get("data"), dict):
        return {name: value["choices"] if _is_choices(value) else value for name, value in record.items()}
    annotations = record.get("annotations", record.get("completions")) or []
    submitted = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    row = {**record["data"], "id": record.get("id")}
    if not submitted:
        return "skipped" if annotations else {**row, "label": None}
    choices: list[Any] = []
    for result in submitted[0].get("result") or []:
        value = result.get("value") or {}
        choices += value.get("choices") or ([value["rating"]] if "rating" in value else [])
    return {**row, "label": choices}


def _prodigy_row(record: Record) -> dict[str, Any] | str:
    if record["answer"] != "accept":
        return "rejected" if record["answer"] == "reject" else "ignored"
    if "label" in record or "accept" not in record:
        return dict(record)
    return {**record, "label": record["accept"]}


def _argilla_row(record: Record) -> dict[str, Any] | str:
    if "annotation" in record and "status" in record:
        if record["status"] == "Discarded":
            return "discarded"
        inputs = record.get("inputs")
        texts = inputs if isinstance(inputs, dict) else {}
        return {**record, **texts, "label": record["annotation"]}
    if isinstance(record.get("fields"), dict):
        responses = _first_responses(record["responses"])
        return {**record["fields"], "id": record.get("id"), **(responses or {"label": None})}
    row = {name: value for name, value in record.items() if "." not in name}
    for name, values in record.items():
        if name.endswith(".responses"):
            question = name.removesuffix(".responses")
            row[question if question not in row else f"{question}_response"] = _submitted(record, name, values)
    return row


def _first_responses(responses: Any) -> dict[str, Any]:
    """Returns the first answer to each question of a record, by the question's name."""
    if isinstance(responses, list):
        values = responses[0].get("values", {}) if responses else {}
        return {question: answer.get("value") for question, answer in values.items()}
    return {question: answers[0].get("value") for question, answers in responses.items() if answers}


def _submitted(record: Record, name: str, values: Any) -> Any:
    """Returns the first submitted response of a flat record."""
    statuses = record.get(f"{name}.status") or ["submitted"] * len(values or [])
    return next((value for value, status in zip(values or [], statuses, strict=False) if status == "submitted"), None)


_CONVERTERS = {"Label Studio": _label_studio_row, "Prodigy": _prodigy_row, "Argilla": _argilla_row}


def value_at(record: Record, name: str) -> Any:
    """Returns the value at a dotted name such as `data.text` or `annotations.0.result.0.value.choices`, or None.

    Args:
        record: a row, whose own columns may have a dot in their name.
        name: the column's name, or names of nested objects and numbers of list items joined by dots.
    """
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
