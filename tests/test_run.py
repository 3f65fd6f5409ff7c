"""The command line from data to saved model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from run_classification import main


def results(folder: Path, split: str) -> dict[str, float]:
    return json.loads((folder / f"{split}_results.json").read_text())


@pytest.mark.parametrize(
    "mode", [{}, {"freeze_backbone": True}, {"boost": True}], ids=["fine-tuned", "frozen", "boost"]
)
def test_a_run_learns_and_leaves_its_files(command: Callable[..., list[str]], tmp_path: Path, mode: dict) -> None:
    assert (
        main(
            command(num_train_epochs=6, head_learning_rate=0.02, do_train=True, do_eval=True, do_predict=True, **mode)
        )
        == 0
    )
    out = tmp_path / "out"
    assert results(out, "test")["test_accuracy"] > 0.8
    assert {"test_macro_f1", "test_mcc", "test_roc_auc", "test_log_loss"} <= set(results(out, "test"))
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 17
    assert lines[0]["text"].endswith("200")
    assert lines[16]["text"].endswith("216")
    assert sum(line["gold"] == line["label"] for line in lines) / 17 == pytest.approx(
        results(out, "test")["test_accuracy"]
    )
