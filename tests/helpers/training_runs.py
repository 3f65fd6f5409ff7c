"""What two runs left behind, compared; and a model that two runs can agree on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bertcls_hf.run import main
from tests.helpers.reviews import write_reviews


TIMINGS = ("runtime", "per_second", "preparation_time", "total_flos")
SAVES = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 50,
         "num_train_epochs": 3}  # fmt: skip


def run_on_reviews(encoder: Path, folder: Path, **options: object) -> Path:
    """Trains on 48 reviews and validates on 16, those of the fixture `reviews`; returns its output_dir."""
    words = {
        "model_name_or_path": encoder, "train_file": write_reviews(folder / "train.csv", 48),
        "validation_file": write_reviews(folder / "validation.csv", 16, start=100), "output_dir": folder / "out",
        "learning_rate": 1e-3, "per_device_train_batch_size": 8, "use_cpu": True, **options,
    }  # fmt: skip
    assert main([word for name, value in words.items() for word in (f"--{name}", str(value))]) == 0
    return folder / "out"


def losses(folder: Path) -> list[float]:
    """The loss of every step."""
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [line["loss"] for line in lines if "loss" in line]


def assert_same_run(first: Path, second: Path) -> None:
    """Equal up to the rounding of floats."""
    assert losses(second) == pytest.approx(losses(first), rel=1e-4, abs=1e-5)
    weights, others = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        if name.endswith("key.bias"):
            continue  # Softmax does not feel it: its gradient is rounding noise, which Adam turns into steps.
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-5)
    for split in ("eval", "test"):
        results = [json.loads((folder / f"{split}_results.json").read_text()) for folder in (first, second)]
        assert results[0][f"{split}_samples"] == results[1][f"{split}_samples"]
        for name in ("loss", "accuracy", "macro_f1"):
            assert results[1][f"{split}_{name}"] == pytest.approx(results[0][f"{split}_{name}"], rel=1e-4)
    predictions = [(folder / "predictions.jsonl").read_text().splitlines() for folder in (first, second)]
    texts = [[json.loads(line)["text"] for line in lines] for lines in predictions]
    assert texts[0] == texts[1]


def without_dropout(command: Callable[..., list[str]], folder: Path) -> Path:
    """A copy of the tiny BERT that computes the same whatever the random numbers are."""
    words = command()
    source, copied = Path(words[words.index("--model_name_or_path") + 1]), folder / "without_dropout"
    copied.mkdir()
    for path in source.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    settings = json.loads((copied / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copied / "config.json").write_text(json.dumps(settings))
    return copied


def history(folder: Path) -> list[dict]:
    """The log without its timings."""
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{k: v for k, v in line.items() if not any(part in k for part in TIMINGS)} for line in lines]


def assert_identical_run(first: Path, second: Path) -> None:
    """Equal bit for bit, but for timings."""
    weights, others = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    logs, other_logs = history(first), history(second)
    assert logs[-1].pop("train_loss") == pytest.approx(other_logs[-1].pop("train_loss"))
    assert logs == other_logs
    for split in ("eval", "test"):
        results = [json.loads((folder / f"{split}_results.json").read_text()) for folder in (first, second)]
        assert results[0][f"{split}_loss"] == results[1][f"{split}_loss"]
