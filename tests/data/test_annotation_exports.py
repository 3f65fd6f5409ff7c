"""Exports of annotation tools are read as they are, and what their users rejected is left out."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.load import ClassificationData, load_data
from bertcls_hf.errors import DataError
from tests.helpers.tables import PHRASES


ROWS = PHRASES[:6]


def load(folder: Path, records: list[dict[str, Any]], name: str = "export.json", **options: Any) -> ClassificationData:
    path = folder / name
    lines = json.dumps(records) if name.endswith(".json") else "\n".join(map(json.dumps, records)) + "\n"
    path.write_text(lines)
    return load_data(DataArguments(train_file=str(path), validation_split_percentage=0, **options), None, True, False)


def rows(data: ClassificationData) -> list[tuple[str, Any]]:
    train = data.splits["train"]
    return [(row["text"], data.labels.readable(row["label"])) for row in train]


def label_studio(text: str, *choices: str, cancelled: bool = False) -> dict[str, Any]:
    result = [{"value": {"choices": list(choices)}, "from_name": "mood", "to_name": "text", "type": "choices"}]
    return {"id": len(text), "data": {"text": text}, "annotations": [{"result": result, "was_cancelled": cancelled}]}


def test_label_studio(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [*(label_studio(*row) for row in ROWS), label_studio("skipped", "good", cancelled=True)]
    with caplog.at_level(logging.INFO):
        data = load(tmp_path, records)
    assert rows(data) == ROWS
    assert "an export of Label Studio; left out: 1 skipped" in caplog.text


def test_label_studio_with_several_choices(tmp_path: Path) -> None:
    data = load(tmp_path, [label_studio("a film", "good", "long"), label_studio("a play", "good")])
    assert rows(data) == [("a film", ["good", "long"]), ("a play", ["good"])]


def test_label_studio_tasks_without_annotation_have_no_label(tmp_path: Path) -> None:
    records = [*(label_studio(*row) for row in ROWS), {"id": 9, "data": {"text": "open"}, "annotations": []}]
    with pytest.raises(DataError, match="no label in 1 of 7 rows"):
        load(tmp_path, records)
    assert rows(load(tmp_path, records, missing_label="drop")) == ROWS


def test_label_studio_json_min(tmp_path: Path) -> None:
    records = [{"id": n, "text": text, "mood": label, "annotator": 1} for n, (text, label) in enumerate(ROWS)]
    assert rows(load(tmp_path, records, label_column_name="mood")) == ROWS


@pytest.mark.parametrize("accept", [False, True])
def test_prodigy_leaves_out_what_was_rejected(tmp_path: Path, caplog: pytest.LogCaptureFixture, accept: bool) -> None:
    records: list[dict[str, Any]] = [
        {"text": text, "_input_hash": 1, "answer": "accept", **({"accept": [label]} if accept else {"label": label})}
        for text, label in ROWS
    ]
    records += [{**records[0], "text": "no", "answer": "reject"}, {**records[0], "text": "?", "answer": "ignore"}]
    with caplog.at_level(logging.INFO):
        data = load(tmp_path, records, "export.jsonl")
    assert rows(data) == ROWS
    assert "an export of Prodigy; left out: 1 ignored, 1 rejected" in caplog.text


@pytest.mark.parametrize("version", ["fields", "flat", "first"])
def test_argilla(tmp_path: Path, version: str) -> None:
    def record(text: str, label: str) -> dict[str, Any]:
        if version == "fields":
            answers = [{"value": label, "user_id": "u", "status": "submitted"}]
            return {"id": text, "status": "completed", "fields": {"text": text}, "responses": {"label": answers}}
        if version == "flat":
            return {
                "text": text,
                "label.responses": ["draft", label],
                "label.responses.status": ["draft", "submitted"],
            }
        return {"text": text, "inputs": {"text": text}, "annotation": label, "status": "Validated"}

    assert rows(load(tmp_path, [record(*row) for row in ROWS])) == ROWS


def test_nested_values_have_dotted_names(tmp_path: Path) -> None:
    records = [{"doc": {"body": text}, "marks": [{"mood": label}]} for text, label in ROWS]
    options = {"text_column_names": ["doc.body"], "label_column_name": "marks.0.mood"}
    assert rows(load(tmp_path, records, **options)) == ROWS
