"""Prediction with exported graphs: the labels of PyTorch, in every way to run a graph, and the quickest of them."""

import io
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertcls_hf.demo.__main__ import main as demo
from bertcls_hf.errors import ArgumentsError, ExitCode
from bertcls_hf.export.__main__ import main as export
from bertcls_hf.predict import quickest as quickest_module
from bertcls_hf.predict import run as prediction_run
from bertcls_hf.predict.__main__ import main
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.predict.quickest import Way, quickest, ways_of
from bertcls_hf.run import main as train
from tests.helpers.classifiers import save_classifier, texts
from tests.helpers.long_texts import texts_of, write_splits


TEXTS = texts(40)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
WAYS = [
    ("onnx", "float32", 1e-4),
    ("onnx", "int8", 0.2),
    pytest.param("openvino", "float32", 1e-4, marks=needs_openvino),
    pytest.param("openvino", "bfloat16", 0.1, marks=needs_openvino),
]


@pytest.fixture(scope="module")
def model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("model"), tiny_bert, "custom", temperature=1.5)


@pytest.fixture(scope="module")
def graph(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "graph"
    assert export([str(model), "--output_dir", str(folder), "--quantize", "int8"]) == 0
    return folder


@pytest.mark.parametrize(("backend", "dtype", "tolerance"), WAYS)
def test_a_graph_gives_the_logits_of_pytorch(
    model: Path, graph: Path, backend: Any, dtype: Any, tolerance: float
) -> None:
    expected = Predictor.from_pretrained(str(model), device="cpu")
    predictor = Predictor.from_pretrained(str(graph), backend=backend, dtype=dtype)
    assert predictor.engine.backend == backend
    assert (predictor.calibration, predictor.labels) == (expected.calibration, expected.labels)
    assert predictor.max_seq_length == expected.max_seq_length
    np.testing.assert_allclose(predictor.logits(TEXTS), expected.logits(TEXTS), atol=tolerance, rtol=0)
    # Threads with a batch each give the same.
    predictor.tokens_per_batch = 64
    np.testing.assert_allclose(predictor.logits(TEXTS), expected.logits(TEXTS), atol=tolerance, rtol=0)
    assert len(predictor.logits([])) == 0


def test_the_folder_of_an_export_is_a_model(model: Path, graph: Path) -> None:
    predictor = Predictor.from_pretrained(str(graph))
    assert predictor.engine.backend == "onnx"
    assert Predictor.from_pretrained(str(model), device="cpu").engine.backend == "torch"
    assert predictor.fingerprint() != Predictor.from_pretrained(str(graph), dtype="int8").fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"truncation_strategy": "head_tail", "pooling": "mean"}, marks=pytest.mark.night),
        {"truncation_strategy": "windows", "pooling": "mean"},
        pytest.param({"lexical_features": True, "lexical_baseline": False}, marks=pytest.mark.night),
    ],
    ids=["head and tail", "windows", "lexical features"],
)
def test_a_graph_reads_long_texts_as_the_model_does(
    command: Callable[..., list[str]], tmp_path: Path, options: dict[str, Any]
) -> None:
    files, out, folder = write_splits(tmp_path), tmp_path / "out", tmp_path / "graph"
    assert train(command(**files, **options, num_train_epochs=1, max_seq_length=16)) == 0
    assert export([str(out), "--output_dir", str(folder)]) == 0
    long_texts = [row["text"] for row in texts_of(files["test_file"])]
    expected = Predictor.from_pretrained(str(out), device="cpu")
    predictor = Predictor.from_pretrained(str(folder))
    assert (predictor.truncation, predictor.cut) == (expected.truncation, expected.cut)
    np.testing.assert_allclose(predictor.logits(long_texts), expected.logits(long_texts), atol=1e-4, rtol=0)
    with pytest.raises(ArgumentsError, match="was fixed when it was exported"):
        Predictor.from_pretrained(str(folder), max_seq_length=12)
    if "lexical_features" in options and find_spec("openvino") is not None:
        with pytest.raises(ArgumentsError, match="hashes n-grams in 64 bits"):
            Predictor.from_pretrained(str(folder), backend="openvino")


def test_the_command_classifies_with_a_graph(model: Path, graph: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "in.jsonl")
    expected = run(model, rows, tmp_path / "torch.jsonl", device="cpu")
    found = run(graph, rows, tmp_path / "graph.jsonl")
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
    assert [row["label"] for row in run(graph, rows, tmp_path / "int8.jsonl", dtype="int8")]


class TestTheQuickest:
    def test_all_ways_are_tried(self, model: Path, graph: Path, tmp_path: Path) -> None:
        both = tmp_path / "both"
        shutil.copytree(model, both)
        shutil.copytree(graph / "onnx", both / "onnx")
        ways = ways_of(str(both), None)
        assert ways[:4] == [
            Way("torch", "float32"),
            Way("torch", "bfloat16"),
            Way("onnx", "float32"),
            Way("onnx", "int8"),
        ]
        assert ways_of(str(graph), None)[:2] == [Way("onnx", "float32"), Way("onnx", "int8")]
        assert ways_of(str(both), "cuda") == ways[:2]
        assert ways_of(str(model), None) == ways[:2]

    def test_another_label_disqualifies(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quickest_module, "HOPELESS", float("inf"))

        def load(way: Way) -> Predictor:
            predictor = Predictor.from_pretrained(str(model), device="cpu")
            if way.dtype == "bfloat16":  # Quick, and wrong.
                monkeypatch.setattr(
                    predictor, "logits", lambda rows, pairs=None: np.tile([[0.0, 0, 9]], (len(rows), 1))
                )
            return predictor

        chosen = quickest(load, [Way("torch", "float32"), Way("torch", "bfloat16")], TEXTS)
        assert chosen.way == Way("torch", "float32")

    def test_the_quicker_one_is_taken(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(way: Way) -> Predictor:
            predictor = Predictor.from_pretrained(str(model), device="cpu")
            if way.dtype == "bfloat16":
                answers = dict(zip(TEXTS, predictor.logits(TEXTS), strict=True))
                monkeypatch.setattr(
                    predictor, "logits", lambda rows, pairs=None: np.array([answers[row] for row in rows])
                )
            return predictor

        chosen = quickest(load, [Way("torch", "float32"), Way("torch", "bfloat16")], TEXTS)
        assert (chosen.way, chosen.agreement) == (Way("torch", "bfloat16"), 1)

    def test_the_command_takes_one_and_keeps_it(
        self, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = write(tmp_path / "in.jsonl")
        expected = run(graph, rows, tmp_path / "one.jsonl")
        found = run(graph, rows, tmp_path / "other.jsonl", backend="auto")
        assert [row["label"] for row in found] == [row["label"] for row in expected]
        assert "onnx int8: " in caplog.text
        assert "(chosen)" in caplog.text
        # A command that goes on computes as it began, and tries nothing.
        output = tmp_path / "cut.jsonl"
        with monkeypatch.context() as patch:
            patch.setattr(prediction_run, "predicted_lines", killed_after(2))
            assert main(words_of(graph, rows, output, dtype="int8", chunk_rows=10)) == ExitCode.INTERRUPTED
        assert not output.exists()
        caplog.clear()
        assert main(words_of(graph, rows, output, backend="auto", chunk_rows=10)) == 0
        assert "going on after 20 texts" in caplog.text
        assert "(chosen)" not in caplog.text

    def test_no_texts(self, graph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        assert main([str(graph), "--backend", "auto"]) == 0
        assert capsys.readouterr().out == ""

    def test_no_way(self, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bertcls_hf.predict.engines.find_spec", lambda name: None)
        ways = ways_of(str(graph), None)
        with pytest.raises(ArgumentsError, match="pip install onnxruntime"):
            quickest(lambda way: Predictor.from_pretrained(str(graph), backend=way.backend), ways, TEXTS)


def write(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def words_of(model: Path, rows: Path, output: Path, **options: Any) -> list[str]:
    words = [str(model), str(rows), "--output_file", str(output), "--disable_tqdm", "true"]
    return words + [word for name, value in options.items() for word in (f"--{name}", str(value))]


def run(model: Path, rows: Path, output: Path, **options: Any) -> list[dict[str, Any]]:
    assert main(words_of(model, rows, output, **options)) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def killed_after(chunks: int) -> Callable[..., bytes]:
    left = [chunks]
    original = prediction_run.predicted_lines

    def lines(*args: Any, **options: Any) -> bytes:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(*args, **options)

    return lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype bfloat16: the backend onnx computes in float32 or int8"),
        ({"backend": "openvino", "dtype": "int8"}, "the backend openvino computes in float32 or bfloat16"),
        ({"device": "cuda"}, "device cuda: the backend onnx computes on the processor"),
        ({"device": "toaster"}, "device toaster: the backend onnx computes on the processor"),
        ({"backend": "torch"}, "no file named model.safetensors"),
    ],
)
def test_what_a_graph_cannot_do(graph: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentsError, match=message):
        Predictor.from_pretrained(str(graph), **options)


def test_what_needs_a_graph(model: Path, graph: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match=r"holds no onnx/model\.onnx: bertcls export makes one"):
        Predictor.from_pretrained(str(model), backend="onnx")
    with pytest.raises(ArgumentsError, match="dtype int8 is for exported graphs"):
        Predictor.from_pretrained(str(model), device="cpu", dtype="int8")
    shutil.copytree(graph, tmp_path / "float")
    (tmp_path / "float/onnx/model_quantized.onnx").unlink()
    with pytest.raises(ArgumentsError, match=r"model_quantized\.onnx: bertcls export makes one, with --quantize int8"):
        Predictor.from_pretrained(str(tmp_path / "float"), dtype="int8")
    (tmp_path / "float/onnx/model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArgumentsError, match=r"model\.onnx cannot be opened"):
        Predictor.from_pretrained(str(tmp_path / "float"))


def test_a_space_carries_the_graph_alone(graph: Path, model: Path, tmp_path: Path) -> None:
    both, space = tmp_path / "both", tmp_path / "space"
    shutil.copytree(model, both)
    shutil.copytree(graph / "onnx", both / "onnx")
    options = ["--backend", "onnx", "--dtype", "int8", "--title", "mine", "--export_space", str(space)]
    assert demo([str(both), *options]) == 0
    weights = {path.relative_to(space / "model").as_posix() for path in (space / "model").rglob("*") if path.is_file()}
    assert "onnx/model_quantized.onnx" in weights
    assert not weights & {"onnx/model.onnx", "model.safetensors"}
    assert "onnxruntime==" in (space / "requirements.txt").read_text()
    assert "'--backend', 'onnx', '--dtype', 'int8'" in (space / "app.py").read_text()
    found = Predictor.from_pretrained(str(space / "model"), dtype="int8").logits(TEXTS)
    np.testing.assert_array_equal(found, Predictor.from_pretrained(str(graph), dtype="int8").logits(TEXTS))


def test_auto_chooses_the_dtype(graph: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(graph), "--backend", "auto", "--dtype", "int8"]) == 2
    assert "--dtype int8: --backend auto chooses it" in capsys.readouterr().err


def test_a_missing_package_is_named(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertcls_hf.predict.engines.find_spec", lambda name: None)
    with pytest.raises(ArgumentsError, match="pip install onnxruntime"):
        Predictor.from_pretrained(str(graph))
