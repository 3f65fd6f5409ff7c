"""Every saved format is read where transformers and torch are installed, and nothing else, and by old transformers."""

import csv
import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bertcls_hf.hub.card.sections.introduction import MINIMUM_TRANSFORMERS
from bertcls_hf.run import main
from tests.helpers.reviews import review


# Options of the run that saves a format; the first is a stock class, the others bring their code.
FORMATS: dict[str, dict[str, object]] = {
    "stock": {},
    "mean": {"pooling": "mean"},
    "multi_label": {"pooling": "mean", "label_delimiter": "|"},
    "regression": {"pooling": "mean"},
    "weighted": {"pooling": "mean", "pooling_layers": 3, "pooling_layers_merge": "weighted"},
    "mlp": {"pooling": "cls", "head": "mlp"},
}
CLASSES = {
    name: "BertForSequenceClassification" if name == "stock" else "TextClassifierForSequenceClassification"
    for name in FORMATS
}
# What a run needs and a model must not.
ABSENT = (
    "bertcls_hf",
    "datasets",
    "accelerate",
    "evaluate",
    "sklearn",
    "scipy",
    "pyarrow",
    "pandas",
    "optuna",
    "peft",
)
READ = """
import importlib.util, json, sys
asked = json.load(sys.stdin)
present = [name for name in asked["absent"] if importlib.util.find_spec(name)]
import transformers
from transformers import pipeline
answers = {}
for name, (folder, trust, texts) in asked["formats"].items():
    classify = pipeline("text-classification", folder, top_k=None, trust_remote_code=trust)
    rows = [{row["label"]: row["score"] for row in rows} for rows in classify(texts)]
    answers[name] = [type(classify.model).__name__, rows]
json.dump({"present": present, "answers": answers, "version": transformers.__version__}, sys.stdout)
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new virtual environment that holds torch, transformers and what they require."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", purelib], capture_output=True, text=True, check=True).stdout.strip())
    for name in required_distributions("torch", "transformers"):
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
        for top in tops:
            (packages / top).symlink_to(Path(distribution.locate_file(top)))
    return python


def required_distributions(*names: str) -> set[str]:
    """The names of distributions and of all that they require, as they are installed here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            requirements = map(Requirement, importlib.metadata.requires(name) or [])
            waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def write_rows(path: Path, name: str, rows: int, start: int) -> Path:
    """Reviews with the labels of a format."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(start, start + rows):
            text, label = review(index)
            words = text.split()
            labels = {"multi_label": "|".join([label, "long"] if len(words) > 8 else [label]),
                      "regression": str(len(words) / 10 + 0.05)}  # fmt: skip
            writer.writerow([text, labels.get(name, label)])
    return path


def saved(name: str, command: Callable[..., list[str]], folder: Path) -> tuple[Path, list[dict]]:
    """The output_dir of a run, and the lines that it predicted."""
    folder.mkdir()
    files = {
        f"{split}_file": write_rows(folder / f"{split}.csv", name, rows, start)
        for split, rows, start in (("train", 48, 0), ("validation", 16, 100), ("test", 17, 200))
    }
    out = folder / "out"
    assert main(command(**files, **FORMATS[name], output_dir=out, do_train=True, do_predict=True)) == 0
    return out, [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def oldest_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the oldest transformers that cards promise, and with what it requires."""
    folder = tmp_path_factory.mktemp("oldest")
    wanted = f"transformers=={MINIMUM_TRANSFORMERS}.*"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), wanted]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip cannot install {wanted}: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def read(python: Path, runs: dict[str, tuple[Path, list[dict]]], folder: Path, *packages: Path) -> dict:
    """What a new process reads of the runs; it finds the packages of some folders before its own."""
    asked = {
        "absent": ABSENT,
        "formats": {
            name: (str(out), name != "stock", [line["text"] for line in lines]) for name, (out, lines) in runs.items()
        },
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages)), "HF_HOME": str(folder / "home")}
    done = subprocess.run(
        [str(python), "-c", READ], input=json.dumps(asked), capture_output=True, text=True, cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def assert_equal_answers(answers: dict, runs: dict[str, tuple[Path, list[dict]]]) -> None:
    assert {name: kind for name, (kind, _) in answers.items()} == CLASSES
    for name, (out, lines) in runs.items():
        assert (out / "modeling.py").exists() == (name != "stock")
        rows = answers[name][1]
        assert len(rows) == len(lines) == 17
        for row, line in zip(rows, lines, strict=True):
            if name == "regression":
                assert list(row.values()) == pytest.approx([line["label"]], abs=1e-5)
            else:
                assert row == pytest.approx(line["probabilities"], abs=2e-6), name  # rounded to six digits


@pytest.mark.slow
def test_every_saved_format_is_read_with_transformers_and_torch_alone(
    command: Callable[..., list[str]], bare_python: Path, oldest_transformers: Path, tmp_path: Path
) -> None:
    runs = {name: saved(name, command, tmp_path / name) for name in FORMATS}
    new = read(bare_python, runs, tmp_path)
    old = read(bare_python, runs, tmp_path, oldest_transformers)
    assert new["present"] == old["present"] == []
    assert old["version"].startswith(MINIMUM_TRANSFORMERS)
    for found in (new, old):
        assert_equal_answers(found["answers"], runs)
