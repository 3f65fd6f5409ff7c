"""The export to ONNX: what the graph computes, what it carries, and what is refused."""

import ast
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    LongformerConfig,
    LongformerForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import run_classification
from bertcls_hf.export import onnx_export, onnx_graph
from bertcls_hf.export.__main__ import main
from bertcls_hf.models.modeling import LexicalSettings, TruncationSettings, ngram_keys, to_stock
from bertcls_hf.predict.predictor import Predictor
from tests.helpers.families import FAMILIES, default_model, make_model
from tests.helpers.reviews import ROOT


TEXTS = [
    "a good film",
    "bad bad plot and a really boring story",
    "lovely",
    "the acting is superb but the plot is so dreadful " * 20,  # longer than the model takes
    "one two three four five six of it",
]
SCORE = {"problem_type": "regression", "loss": "mse", "id2label": {0: "score"}, "label2id": {"score": 0}}


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


def spread_out(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose logits differ much between texts, so that a wrong graph shows."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and name.startswith(("head", "classifier", "pre_classifier", "pooler")):
            torch.nn.init.normal_(parameter)
    return model.eval()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    spread_out(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(tiny_bert: Path, **options: Any) -> PreTrainedModel:
    return make_model(BertConfig.from_pretrained(tiny_bert), **options)


@pytest.fixture(scope="module")
def stock(tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a stock BERT classifier."""
    model = to_stock(bert(tiny_bert, pooling="pooler"))
    assert model is not None
    return save(model, tokenizer, tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def exported(stock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export, with int8 weights and a calibration."""
    calibration = {"temperature": 1.5, "thresholds": None}
    (stock / "calibration.json").write_text(json.dumps(calibration))
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    argv = [str(stock), "--output_dir", str(folder), "--quantize", "int8"]
    assert main(argv) == 0
    return folder


def logits_of_graph(folder: Path, texts: list[str], file: str = "onnx/model.onnx") -> np.ndarray:
    """As somebody would who has the exported folder alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(folder / file)
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    return session.run(["logits"], dict(inputs))[0]


def logits_of_model(folder: Path, texts: list[str]) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits.numpy()


def assert_same_logits(model_folder: Path, graph_folder: Path) -> None:
    expected = logits_of_model(model_folder, TEXTS)
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(logits_of_graph(graph_folder, TEXTS), expected, rtol=0, atol=1e-4)
    # Other numbers of rows and tokens than the export has seen, and no padding.
    for text in TEXTS:
        alone = logits_of_graph(graph_folder, [text])
        np.testing.assert_allclose(alone, logits_of_model(model_folder, [text]), rtol=0, atol=1e-4)


def test_a_very_unlikely_label_has_the_logit_of_pytorch(
    tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """The probability of a label whose n-grams speak against it is 0 in single precision, its logarithm is not."""
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    settings = LexicalSettings(1, 1, tokenizer.all_special_ids, None)
    keys, present = ngram_keys(tokens["input_ids"], tokens["attention_mask"], settings)
    known = keys[present].unique().to(torch.int32)
    truncation = TruncationSettings("head", 16, 32, 15)
    model = bert(
        tiny_bert, pooling="mean", truncation=truncation._asdict(),
        lexical_features=settings._replace(table_size=len(known))._asdict(),
    )  # fmt: skip
    model.lexical.fill(known, torch.tensor([-300.0, 0.5, -8.0]).expand(len(known), -1), torch.zeros(3))
    folder = save(model, tokenizer, tmp_path / "model")
    assert main([str(folder), "--output_dir", str(tmp_path / "graph")]) == 0
    expected = Predictor.from_pretrained(str(folder), device="cpu").logits(TEXTS)
    assert np.isfinite(expected).all()
    assert expected.min() < -300
    np.testing.assert_allclose(Predictor.from_pretrained(str(tmp_path / "graph")).logits(TEXTS), expected, rtol=1e-5)


def test_a_stock_classifier_gives_the_logits_of_pytorch(stock: Path, exported: Path) -> None:
    assert_same_logits(stock, exported)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "mean", "pooling_layers": 3},
        {"pooling": "mean", "pooling_layers": 3, "pooling_layers_merge": "weighted"},
        {"pooling": "max", "head": "mlp"},
        {"pooling": "cls_mean", "pooling_layers": 2, "problem_type": "multi_label_classification", "loss": "bce"},
        {"pooling": "mean", **SCORE},
    ],
    ids=["mean of layers", "weighted layers", "max and mlp", "multi-label", "regression"],
)
def test_our_own_classifiers_give_the_logits_of_pytorch(
    tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, options: dict[str, Any]
) -> None:
    model = save(bert(tiny_bert, **options), tokenizer, tmp_path / "model")
    assert (model / "modeling.py").exists()
    assert main([str(model), "--output_dir", str(tmp_path / "onnx")]) == 0
    assert_same_logits(model, tmp_path / "onnx")
    assert not (tmp_path / "onnx" / "modeling.py").exists()
    assert "auto_map" not in json.loads((tmp_path / "onnx" / "config.json").read_text())


@pytest.mark.slow
def test_thresholds_are_in_the_order_of_the_labels(
    tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    options = {"pooling": "cls", "problem_type": "multi_label_classification", "loss": "bce"}
    model = save(bert(tiny_bert, **options), tokenizer, tmp_path / "model")
    calibration = {"temperature": 0.5, "thresholds": {"bad": 0.25, "fair": 0.5, "good": 0.75}}
    (model / "calibration.json").write_text(json.dumps(calibration))
    assert main([str(model), "--output_dir", str(tmp_path / "onnx")]) == 0
    metadata = onnxruntime.InferenceSession(tmp_path / "onnx" / "onnx/model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["thresholds"]) == [0.25, 0.5, 0.75]
    assert json.loads(metadata["temperature"]) == 0.5
    assert json.loads((tmp_path / "onnx" / "calibration.json").read_text()) == calibration


@pytest.mark.slow
# CamemBERT and XLM-RoBERTa are RoBERTa under other names.
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=pytest.mark.night)
        if family in ("albert", "deberta", "deberta-v2", "distilbert", "electra", "mpnet")
        else family
        for family in sorted(FAMILIES.keys() - {"camembert", "xlm-roberta"})
    ],
)
def test_every_family_gives_the_logits_of_pytorch(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copy.deepcopy(FAMILIES[family])
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 66
    monkeypatch.setitem(FAMILIES, family, config)
    model = to_stock(default_model(family))
    assert model is not None
    save(model, tokenizer, tmp_path / "model")
    assert main([str(tmp_path / "model"), "--output_dir", str(tmp_path / "onnx")]) == 0
    assert_same_logits(tmp_path / "model", tmp_path / "onnx")


def test_the_graph_carries_what_its_readers_need(exported: Path) -> None:
    for file in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        session = onnxruntime.InferenceSession(exported / file)
        assert session.get_modelmeta().custom_metadata_map == {
            "id2label": '{"0": "bad", "1": "fair", "2": "good"}',
            "problem_type": "single_label_classification",
            "max_seq_length": "64",
            "truncation": "null",
            "lexical_features": "false",
            "temperature": "1.5",
            "thresholds": "null",
        }
        inputs = {put.name: (put.shape, put.type) for put in session.get_inputs()}
        names = ("input_ids", "attention_mask", "token_type_ids")
        assert inputs == {name: (["batch", "length"], "tensor(int64)") for name in names}
        assert [(put.name, put.shape) for put in session.get_outputs()] == [("logits", ["batch", 3])]


def test_the_graph_tells_nothing_of_the_machine(exported: Path) -> None:
    """Not the files of the code that made it, which the exporter notes at each node."""
    for file in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        content = (exported / file).read_bytes()
        for path in (ROOT, Path.home(), Path(sys.prefix), exported.parent, Path(torch.__file__).parent):
            assert f"{path}/".encode() not in content
        assert b"stack_trace" not in content
        assert b".py" not in content


def test_the_folder_needs_nothing_else(exported: Path) -> None:
    """The graphs lie where transformers.js and optimum look for them."""
    assert sorted(path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()) == [
        "calibration.json",
        "config.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "onnx_report.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((exported / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
    assert not list(exported.parent.glob("*.tmp-*"))


def test_the_tokenizer_cuts_at_the_longest_text_and_never_pads(exported: Path) -> None:
    saved = json.loads((exported / "tokenizer.json").read_text())
    assert saved["truncation"]["max_length"] == 64
    assert saved["padding"] is None
    assert AutoTokenizer.from_pretrained(exported).model_max_length == 64


def test_embeddings_and_products_are_int8(exported: Path) -> None:
    floats = [
        (tensor.name, tuple(tensor.dims))
        for tensor in onnx.load(exported / "onnx/model_quantized.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2 and min(tensor.dims) > 1
    ]
    assert not floats
    assert (exported / "onnx/model_quantized.onnx").stat().st_size < (exported / "onnx/model.onnx").stat().st_size


def test_the_report_compares_the_variants(exported: Path) -> None:
    report = json.loads((exported / "onnx_report.json").read_text())
    assert list(report["variants"]) == ["PyTorch", "ONNX", "ONNX int8"]
    assert report["latency"] == {"threads": 1, "tokens_per_text": 64, "rounds": 10}
    assert report["largest_difference"] <= 1e-4
    assert report["evaluation"] is None
    for variant in report["variants"].values():
        assert variant["latency_ms"]["1"] < variant["latency_ms"]["32"]
        assert variant["metrics"] == {}
    assert report["variants"]["ONNX"]["bytes"] == (exported / "onnx/model.onnx").stat().st_size


@pytest.mark.slow
def test_a_runs_own_test_data_is_found_and_int8_predicts_as_pytorch(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = command(test_file=None, test_split_percentage=25, num_train_epochs=12, learning_rate=5e-3)
    assert run_classification.main(run) == 0
    capsys.readouterr()
    argv = [str(tmp_path / "out"), "--output_dir", str(tmp_path / "onnx"), "--quantize", "int8", "--evaluate"]
    assert main(argv) == 0
    report = json.loads((tmp_path / "onnx" / "onnx_report.json").read_text())
    results = json.loads((tmp_path / "out" / "test_results.json").read_text())
    assert report["evaluation"] == {"split": "test", "rows": results["test_samples"]}
    in_torch, graph, int8 = (report["variants"][name]["metrics"] for name in ("PyTorch", "ONNX", "ONNX int8"))
    assert in_torch["accuracy"] == results["test_accuracy"] > 0.8
    assert in_torch["log_loss"] == pytest.approx(results["test_log_loss"], abs=1e-4)
    assert graph["same_prediction"] == 1
    assert int8["same_prediction"] >= 0.9
    assert int8["accuracy"] >= in_torch["accuracy"] - 0.1
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[-1] == "accuracy"
    assert table[1].split()[-1] == f"{in_torch['accuracy']:.4f}"


@pytest.mark.slow
def test_named_data_replaces_the_runs(command: Callable[..., list[str]], reviews: dict, tmp_path: Path) -> None:
    assert run_classification.main(command(num_train_epochs=1)) == 0
    rows = len(reviews["validation"].read_text().splitlines()) - 1
    for path in (reviews["train"], reviews["test"]):
        path.unlink()
    argv = [str(tmp_path / "out"), "--output_dir", str(tmp_path / "onnx"), "--evaluate", "--test_file",
            str(reviews["validation"])]  # fmt: skip
    assert main(argv) == 0
    report = json.loads((tmp_path / "onnx" / "onnx_report.json").read_text())
    assert report["evaluation"] == {"split": "test", "rows": rows}


@pytest.mark.slow
def test_weights_that_fit_into_no_file_lie_beside_the_graph(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if a file held no byte of weights, instead of 2 GB.
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 0)
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 0)
    target = tmp_path / "onnx"
    assert main([str(stock), "--output_dir", str(target), "--quantize", "int8"]) == 0
    moved = target.rename(tmp_path / "moved")
    assert_same_logits(stock, moved)
    assert logits_of_graph(moved, TEXTS, "onnx/model_quantized.onnx").shape == (len(TEXTS), 3)
    report = json.loads((moved / "onnx_report.json").read_text())
    for name, file in (("ONNX", "onnx/model.onnx"), ("ONNX int8", "onnx/model_quantized.onnx")):
        sizes = [(moved / part).stat().st_size for part in (file, f"{file}.data")]
        assert report["variants"][name]["bytes"] == sum(sizes)


def refused(argv: list[Any], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line that a command which fails leaves."""
    capsys.readouterr()
    assert main([str(token) for token in argv]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_missing_package_is_named(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = refused([stock, "--output_dir", tmp_path / "onnx"], capsys)
    assert "exporting needs onnxruntime: pip install" in line
    assert "requirements-deploy.txt" in line


class TestBrokenModels:
    def test_no_model(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused([tmp_path, "--output_dir", tmp_path / "onnx"], capsys)
        assert "no config.json" in line

    def test_an_encoder(self, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused([tiny_bert, "--output_dir", tmp_path / "onnx"], capsys)
        assert "without a trained classification head" in line

    @pytest.mark.parametrize("damage", ["cut", "absent", "other weights"])
    def test_damaged_weights(
        self, stock: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
    ) -> None:
        model = tmp_path / "model"
        model.mkdir()
        for path in stock.iterdir():
            (model / path.name).write_bytes(path.read_bytes())
        weights = model / "model.safetensors"
        if damage == "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        elif damage == "absent":
            weights.unlink()
        else:
            weights.write_bytes((tiny_bert / "model.safetensors").read_bytes())
        line = refused([model, "--output_dir", tmp_path / "onnx"], capsys)
        assert str(model) in line
        assert not (tmp_path / "onnx").exists()

    def test_a_calibration_that_is_none(self, stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model = tmp_path / "model"
        model.mkdir()
        for path in stock.iterdir():
            (model / path.name).write_bytes(path.read_bytes())
        (model / "calibration.json").write_text("{}")
        line = refused([model, "--output_dir", tmp_path / "onnx"], capsys)
        assert "calibration.json" in line


@pytest.mark.slow
def test_a_family_that_cannot_be_exported_leaves_nothing(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = LongformerConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, attention_window=4, pad_token_id=0,
    )  # fmt: skip
    save(LongformerForSequenceClassification(config), tokenizer, tmp_path / "model")
    line = refused([tmp_path / "model", "--output_dir", tmp_path / "onnx"], capfd)
    assert "longformer cannot be exported to ONNX: GuardOnDataDependentSymNode: Could not" in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_refused(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shifted(model: PreTrainedModel) -> Callable:
        run = original(model)
        return lambda batch: run(batch) + np.float32(1e-3)

    original = onnx_export.model_runner
    monkeypatch.setattr(onnx_export, "model_runner", shifted)
    line = refused([stock, "--output_dir", tmp_path / "onnx"], capsys)
    assert "bert cannot be exported to ONNX: the graph's logits differ from PyTorch's by 1.0e-03" in line
    assert not list(tmp_path.iterdir())


class TestOutputFolder:
    def test_foreign_files_are_never_replaced(
        self, stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        for more in ([], ["--overwrite"]):
            line = refused([stock, "--output_dir", tmp_path, *more], capsys)
            assert "holds notes.txt, which is of no export" in line
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_foreign_files_beside_the_graphs_are_never_replaced(
        self, stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for foreign in ("onnx/notes.txt", "onnx/vocab.txt", "onnx/sub/model.onnx"):
            (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / foreign).write_text("mine")
            line = refused([stock, "--output_dir", tmp_path, "--overwrite"], capsys)
            assert "onnx/" in line
            assert "which is of no export" in line
            assert (tmp_path / foreign).read_text() == "mine"

    def test_a_model_is_never_replaced(self, stock: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused([stock, "--output_dir", stock, "--overwrite"], capsys)
        assert "holds model.safetensors" in line

    @pytest.mark.slow
    def test_an_earlier_export_is_replaced_when_asked(
        self, stock: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = tmp_path / "onnx"
        target.mkdir()
        for path in exported.iterdir():
            if path.is_file():
                (target / path.name).write_bytes(path.read_bytes())
        shutil.copytree(exported / "onnx", target / "onnx")
        # As earlier versions wrote them.
        (target / "model.onnx").write_text("")
        (target / "model_int8.onnx").write_text("")
        line = refused([stock, "--output_dir", target], capsys)
        assert "holds an earlier export: name another folder, or pass --overwrite" in line
        assert main([str(stock), "--output_dir", str(target), "--overwrite"]) == 0
        assert [path.name for path in target.rglob("*.onnx")] == ["model.onnx"]

    def test_a_file_is_refused(self, stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "onnx").write_text("")
        assert "is a file" in refused([stock, "--output_dir", tmp_path / "onnx"], capsys)

    def test_a_folder_that_cannot_be_made(
        self, stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("")
        line = refused([stock, "--output_dir", tmp_path / "file" / "onnx"], capsys, code=74)
        assert "cannot be written" in line


class TestDataOptions:
    def test_data_needs_evaluate(
        self, stock: Path, reviews: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        line = refused([stock, "--output_dir", tmp_path / "onnx", "--test_file", reviews["test"]], capsys)
        assert "add --evaluate" in line

    def test_evaluate_needs_data(self, stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused([stock, "--output_dir", tmp_path / "onnx", "--evaluate"], capsys)
        assert "has no recipe.yaml that names data: give --test_file" in line

    def test_other_labels_are_refused_before_the_export(
        self, stock: Path, reviews: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        argv = [stock, "--output_dir", tmp_path / "onnx", "--evaluate", "--test_file", reviews["test"]]
        line = refused(argv, capsys, code=65)
        assert "'neg' (9 ×), 'pos' (8 ×)" in line

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--threads", "2"], "unknown option --threads"),
            (["--quantize", "int4"], "invalid choice: 'int4'"),
            (["--max_seq_length", "65"], "max_seq_length 65: must lie between 3 and the model's 64 positions"),
            (["--learning_rate", "1"], "unknown option --learning_rate"),
        ],
    )
    def test_wrong_options(
        self, stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
    ) -> None:
        assert message in refused([stock, "--output_dir", tmp_path / "onnx", *options], capsys)


@pytest.mark.slow
def test_the_documented_code_runs_without_torch(exported: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "quickstart_onnx").symlink_to(exported)
    # torch is there but cannot be imported, as where it is not installed.
    blocked = f"import sys\nsys.modules['torch'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", blocked], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (label,) = ast.literal_eval(done.stdout.splitlines()[-1])
    assert label in {"bad", "fair", "good"}
