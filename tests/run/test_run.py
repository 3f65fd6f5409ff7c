"""The command line from data to saved model."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bertcls_hf.run import main
from tests.helpers.reviews import review


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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"freeze_backbone": True, "learning_rate": None},
        {"pooling": "cls", "head": "mlp"},
        {"pooling": "mean", "pooling_layers": 2, "pooling_layers_merge": "weighted", "head": "mlp"},
        {"boost": True, "learning_rate": None, "pooling_layers_merge": "mean"},
    ],
    ids=["stock", "frozen", "mlp", "weighted", "boost"],
)
def test_a_saved_model_is_evaluated_and_trained_on_as_it_is(
    command: Callable[..., list[str]], tmp_path: Path, options: dict
) -> None:
    """Without a word on pooling or head: they are the model's own."""
    assert main(command(num_train_epochs=3, **options)) == 0
    out, again, on = tmp_path / "out", tmp_path / "again", tmp_path / "on"
    assert main(command(model_name_or_path=out, do_eval=True, output_dir=again)) == 0
    assert results(again, "test")["test_loss"] == pytest.approx(results(out, "test")["test_loss"], rel=1e-5)
    assert not (again / "model.safetensors").exists()
    assert main(command(model_name_or_path=out, learning_rate=1e-9, num_train_epochs=1, output_dir=on)) == 0
    assert results(on, "test")["test_loss"] == pytest.approx(results(out, "test")["test_loss"], rel=1e-3)


def test_a_trained_head_is_not_silently_replaced(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(command(num_train_epochs=1, pooling="mean")) == 0
    model = {"model_name_or_path": tmp_path / "out", "output_dir": tmp_path / "again", "num_train_epochs": 1}
    assert main(command(**model, pooling="cls")) == 2
    assert "the model was trained with --pooling mean" in capsys.readouterr().err
    assert main(command(**model, pooling="cls", ignore_mismatched_sizes=True)) == 0


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_a_new_head_on_ones_own_model(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture, pooling: str | None
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(command(pooling="mean", num_train_epochs=1, output_dir=first)) == 0
    other = tmp_path / "other.csv"
    other.write_text("text,label\n" + "".join(f"good film {n},{'abc'[n % 3]}\n" for n in range(24)))
    options = {
        "model_name_or_path": first, "train_file": other, "validation_file": None, "test_file": None,
        "ignore_mismatched_sizes": True, "num_train_epochs": 1, "output_dir": second,
    }  # fmt: skip
    assert main(command(**options, pooling=pooling)) == 0
    assert json.loads((second / "config.json").read_text())["id2label"] == {"0": "a", "1": "b", "2": "c"}
    frozen = {**options, "pooling": "pooler", "freeze_backbone": True, "learning_rate": None}
    assert main(command(**frozen)) == 2
    assert "the model's pooler was never trained: use cls or mean" in capsys.readouterr().err


def test_predictions_as_csv(command: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main(command(num_train_epochs=1, do_train=True, do_predict=True, prediction_format="csv")) == 0
    with (tmp_path / "out/predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["text", "gold", "label", "probability_neg", "probability_pos"]
    assert len(rows) == 17
    for row in rows:
        assert float(row["probability_neg"]) + float(row["probability_pos"]) == pytest.approx(1, abs=1e-5)
        assert row["label"] == ("pos" if float(row["probability_pos"]) > 0.5 else "neg")


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks_from_data_to_predictions(command: Callable[..., list[str]], tmp_path: Path, task: str) -> None:
    files = {}
    for split, rows in (("train", 40), ("validation", 12), ("test", 9)):
        files[f"{split}_file"] = path = tmp_path / f"{split}.jsonl"
        labels = [["pos", "long"][: 1 + i % 2] if i % 3 else [] for i in range(rows)]
        values = labels if task == "multi_label" else [i % 5 + 0.5 for i in range(rows)]
        lines = [json.dumps({"text": review(i)[0], "label": value}) for i, value in enumerate(values)]
        path.write_text("\n".join(lines) + "\n")
    assert main(command(**files, do_train=True, do_predict=True)) == 0
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    if task == "multi_label":
        assert lines[1]["gold"] == ["long", "pos"]
        assert set(lines[0]["probabilities"]) == {"long", "pos"}
        assert {"test_micro_f1", "test_subset_accuracy"} <= set(results(tmp_path / "out", "test"))
    else:
        assert lines[1]["gold"] == 1.5
        assert isinstance(lines[0]["label"], float)
        assert {"test_rmse", "test_spearman"} <= set(results(tmp_path / "out", "test"))
