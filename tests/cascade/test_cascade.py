"""`bertcls cascade`: lexical features answer where they are sure, and a person reads what is unsure."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bertcls_hf.cascade.__main__ import main
from bertcls_hf.data.labels import MULTI_LABEL, SINGLE_LABEL, LabelSet
from bertcls_hf.demo.__main__ import main as demo
from bertcls_hf.demo.page import answers
from bertcls_hf.errors import ArgumentsError, ExitCode
from bertcls_hf.export.__main__ import main as export
from bertcls_hf.metrics.calibration import Calibration
from bertcls_hf.metrics.cascade import CASCADE_FILE, fitted_factor, label_margins, read_cascade
from bertcls_hf.predict.__main__ import main as predict
from bertcls_hf.predict.predictor import ENCODER, LEXICAL, Predictor
from bertcls_hf.run import main as train
from tests.helpers.broken_content import turn_last_bit
from tests.helpers.classifiers import save_classifier, texts
from tests.helpers.long_texts import texts_of, write_texts
from tests.helpers.reviews import NEGATIVE, POSITIVE


LIMITS = ("--max_difference", "0.03", "--abstain_at_risk", "0.1")
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module", params=[False, True], ids=["texts", "pairs"])
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A calibrated model with lexical features and a cascade, and `test.csv` beside it."""
    folder = tmp_path_factory.mktemp("cascade")
    rows = {"train": 120, "validation": 200, "test": 80}
    files = {
        f"{name}_file": write_texts(folder / f"{name}.csv", number, seed, pairs=request.param)
        for seed, (name, number) in enumerate(rows.items())
    }
    options = {
        "model_name_or_path": tiny_bert, **files, "output_dir": folder / "out", "lexical_features": True,
        "max_seq_length": 24, "num_train_epochs": 1, "save_strategy": "no", "load_best_model_at_end": False,
        "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    assert train([f"--{name}={value}" for name, value in options.items()]) == 0
    _let_encoder_speak(folder / "out" / "model.safetensors")
    own = {"model_name_or_path": folder / "out", "do_train": False, "calibrate": True, "lexical_features": False}
    assert train([f"--{name}={value}" for name, value in {**options, **own}.items()]) == 0
    for name in ("validation", "test"):
        _make_unsure(folder / f"{name}.csv")
    assert main([str(folder / "out"), *LIMITS]) == 0
    return folder


def _let_encoder_speak(weights: Path) -> None:
    """Gives the encoder a head, since the n-grams of these texts leave nothing for it to say."""
    found = load_file(weights)
    torch.manual_seed(0)
    head = 0.2 * torch.randn_like(found["head.out_proj.weight"])
    save_file({**found, "head.out_proj.weight": head}, weights, {"format": "pt"})


def _make_unsure(path: Path) -> None:
    """Takes the words that tell the label out of a fifth of the texts."""
    rows = texts_of(path)
    for row in rows[::5]:
        name = "sentence2" if "sentence2" in row else "text"
        row[name] = " ".join(word for word in row[name].split() if word not in (*POSITIVE, *NEGATIVE))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def copy_of(trained: Path, folder: Path) -> Path:
    return shutil.copytree(trained / "out", folder / "out")


def predicted(model: Path, source: Path, output: Path, *options: str) -> Lines:
    assert predict([str(model), str(source), "--output_file", str(output), "--disable_tqdm", *options]) == 0
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_the_lines_of_the_validation_data_are_those_that_were_counted(trained: Path, tmp_path: Path) -> None:
    out, source = trained / "out", trained / "validation.csv"
    content = json.loads((out / CASCADE_FILE).read_text())
    cascade = content["cascade"]
    lines = predicted(out, source, tmp_path / "lines.jsonl")
    whole = predicted(out, source, tmp_path / "whole.jsonl", "--no_cascade")
    by_lexical = [line["answered_by"] == LEXICAL for line in lines]
    assert 0 < sum(by_lexical) < len(lines)
    assert sum(by_lexical) == round(cascade["lexical"]["coverage"] * len(lines))
    differences = [line["label"] != other["label"] for line, other in zip(lines, whole, strict=True)]
    assert sum(differences) == cascade["lexical"]["errors"]
    assert all(lexical for lexical, differs in zip(by_lexical, differences, strict=True) if differs)
    for line, other in zip(lines, whole, strict=True):
        assert "answered_by" not in other
        assert "abstained" not in other
        if line["answered_by"] == ENCODER:
            assert line["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    kept = [line for line in lines if not line["abstained"]]
    assert len(kept) == round(cascade["abstention"]["coverage"] * len(lines)) < len(lines)
    gold = [row["label"] for row in texts_of(source)]
    wrong = sum(line["label"] != label and not line["abstained"] for line, label in zip(lines, gold, strict=True))
    assert wrong == cascade["abstention"]["errors"]
    right = np.mean([line["label"] == label for line, label in zip(lines, gold, strict=True)])
    assert content["accuracy"]["cascade"] == pytest.approx(right)


def test_the_card_tells_of_it_once(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = copy_of(trained, tmp_path)
    assert main([str(out), *LIMITS, "--confidence", "0.8"]) == 0
    said = capsys.readouterr().out.splitlines()
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.count("## Cascade\n") == 1
    assert card.index("## Cascade") < card.index("## Training")
    assert len(said) == 3
    assert all(sentence in card for sentence in said)
    assert "with 80% confidence" in said[0]
    assert "![" in card
    assert (out / "figures" / "cascade.png").stat().st_size


def test_csv_has_columns_for_it(trained: Path, tmp_path: Path) -> None:
    command = [str(trained / "out"), str(trained / "test.csv"), "--output_file", str(tmp_path / "lines.csv")]
    assert predict(command) == 0
    rows = texts_of(tmp_path / "lines.csv")
    assert {row["answered_by"] for row in rows} == {LEXICAL, ENCODER}
    assert {row["abstained"] for row in rows} <= {"True", "False"}


@pytest.mark.parametrize("trained", [False], ids=["texts"], indirect=True)
def test_a_graph_answers_alike(trained: Path, tmp_path: Path) -> None:
    graph = tmp_path / "graph"
    assert export([str(trained / "out"), "--output_dir", str(graph)]) == 0
    assert (graph / CASCADE_FILE).is_file()
    assert (graph / "onnx" / "lexical.onnx").is_file()
    of_graph = predicted(graph, trained / "test.csv", tmp_path / "graph.jsonl")
    of_torch = predicted(trained / "out", trained / "test.csv", tmp_path / "torch.jsonl")
    for mine, other in zip(of_graph, of_torch, strict=True):
        assert mine["answered_by"] == other["answered_by"]
        assert mine["abstained"] == other["abstained"]
        assert mine["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
    (graph / "onnx" / "lexical.onnx").unlink()
    with pytest.raises(ArgumentsError, match=r"no onnx/lexical.onnx: export the model again"):
        Predictor.from_pretrained(str(graph))
    assert Predictor.from_pretrained(str(graph), cascade=False).cascade is None


def test_a_predictor_says_who_has_answered(trained: Path) -> None:
    predictor = Predictor.from_pretrained(str(trained / "out"), device="cpu")
    columns = list(zip(*(tuple(row.values())[:-1] for row in texts_of(trained / "test.csv")), strict=True))
    found = predictor.predict(*columns)
    assert {prediction.answered_by for prediction in found} == {LEXICAL, ENCODER}
    whole = Predictor.from_pretrained(str(trained / "out"), device="cpu", cascade=False)
    np.testing.assert_array_equal(predictor.logits(*columns), whole.logits(*columns))
    assert {(one.answered_by, one.abstained) for one in whole.predict(*columns)} == {(None, None)}


def test_the_page_says_so(trained: Path) -> None:
    predictor = Predictor.from_pretrained(str(trained / "out"), device="cpu")
    assert predictor.cascade is not None
    assert predictor.cascade.lexical is not None
    sure = replace(predictor.cascade.lexical, value=0.0)
    unsure = replace(predictor.cascade.lexical, value=1e9)
    predictor.cascade = replace(predictor.cascade, lexical=sure, abstention=unsure)
    answer = next(answers(predictor, "a good film"))[0]
    assert "a person should read this text" in answer
    assert "the encoder did not read it" in answer
    predictor.cascade = replace(predictor.cascade, lexical=unsure, abstention=sure)
    answer = next(answers(predictor, "a good film"))[0]
    assert "person" not in answer
    assert "encoder" not in answer


def test_a_space_takes_it_along(trained: Path, tmp_path: Path) -> None:
    assert demo([str(trained / "out"), "--export_space", str(tmp_path / "space")]) == 0
    assert (tmp_path / "space" / "model" / CASCADE_FILE).is_file()
    assert "--no_cascade" not in (tmp_path / "space" / "app.py").read_text()
    assert demo([str(trained / "out"), "--export_space", str(tmp_path / "other"), "--no_cascade"]) == 0
    assert "--no_cascade" in (tmp_path / "other" / "app.py").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0.9"], "--threshold: the limits of the model's cascade hold for its own calibration"),
        (["--temperature", "2"], "--temperature: the limits of the model's cascade hold"),
        (["--no_calibration"], "has a cascade.json for its calibrated probabilities"),
        (["--max_seq_length", "16"], "for an encoder that reads up to 24 tokens, not 16"),
    ],
)
def test_what_would_break_its_limits_is_refused(
    trained: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    command = [str(trained / "out"), str(trained / "test.csv"), *options]
    assert predict(command) == ExitCode.BAD_ARGUMENTS
    error = capsys.readouterr().err
    assert message in error
    assert "--no_cascade" in error
    assert predict([*command, "--no_cascade"]) == 0


def test_an_output_of_another_cascade_is_not_gone_on_with(trained: Path, tmp_path: Path) -> None:
    out, output = copy_of(trained, tmp_path), tmp_path / "lines.jsonl"
    first = Predictor.from_pretrained(str(out), device="cpu").cascade
    assert main([str(out), *LIMITS, "--confidence", "0.5"]) == 0
    assert Predictor.from_pretrained(str(out), device="cpu").cascade != first
    (tmp_path / "lines.jsonl.partial").write_text("x\n")
    record = {
        "settings": {"cascade": None},
        "progress": {"rows": 1, "size": 2, "texts": "", "is_whole": True},
        "content": "",
    }
    (tmp_path / "lines.jsonl.partial.json").write_text(json.dumps(record))
    command = [str(out), str(trained / "test.csv"), "--output_file", str(output)]
    assert predict(command) == ExitCode.BAD_ARGUMENTS


def test_a_damaged_file_is_named(trained: Path, tmp_path: Path) -> None:
    out = copy_of(trained, tmp_path)
    (out / CASCADE_FILE).write_text('{"cascade": {"lexical": 1}}')
    with pytest.raises(ArgumentsError, match=r"cascade.json: holds no cascade"):
        Predictor.from_pretrained(str(out), device="cpu")


def test_that_of_other_weights_is_refused(trained: Path, tmp_path: Path) -> None:
    out = copy_of(trained, tmp_path)
    turn_last_bit(out / "model.safetensors")
    with pytest.raises(ArgumentsError, match=r"holds no cascade \(ValueError: it was made for other weights"):
        read_cascade(out / CASCADE_FILE)


def refused(command: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(command) == ExitCode.BAD_ARGUMENTS
    return capsys.readouterr().err


def test_too_few_rows_are_refused(trained: Path, capsys: pytest.CaptureFixture) -> None:
    error = refused([str(trained / "out"), "--max_difference", "0.001"], capsys)
    assert "200 validation rows cannot show that a share is below 0.10% with 95% confidence: at least 2995" in error


def test_a_limit_that_cannot_be_kept_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = (trained / "out" / CASCADE_FILE).read_bytes()
    rows = texts_of(trained / "validation.csv")
    with (tmp_path / "wrong.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"label": "neg" if row["label"] == "pos" else "pos"} for row in rows)
    command = [str(trained / "out"), "--validation_file", str(tmp_path / "wrong.csv"), "--max_difference", "0"]
    assert "not sure enough of any part" in refused([*command, "--abstain_at_risk", "0.2"], capsys)
    assert (trained / "out" / CASCADE_FILE).read_bytes() == before


@pytest.mark.parametrize("kind", ["stock", "multi_label"])
def test_a_model_without_lexical_features_can_abstain(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture, kind: str
) -> None:
    model = save_classifier(tmp_path / "model", tiny_bert, kind)
    whole = Predictor.from_pretrained(str(model), device="cpu")
    rows = [text for text in texts(120) if text.strip()]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number, (text, prediction) in enumerate(zip(rows, whole.predict(rows), strict=True)):
            label = prediction.label if number % 10 else whole.labels.names[number % 3]
            writer.writerow([text, "|".join(label) if isinstance(label, list) else label])
    data = ["--validation_file", str(tmp_path / "rows.csv")]
    data += ["--label_delimiter", "|"] if kind == "multi_label" else []
    assert "has no lexical features that could answer" in refused([str(model), *data], capsys)
    assert "train it with --lexical_features true" in refused([str(model), *data, "--max_difference", "0.1"], capsys)
    assert main([str(model), *data, "--abstain_at_risk", "0.3"]) == 0
    found = Predictor.from_pretrained(str(model), device="cpu").predict(rows)
    assert {one.answered_by for one in found} == {None}
    assert sum(not one.abstained for one in found) == round(
        len(rows) * json.loads((model / CASCADE_FILE).read_text())["cascade"]["abstention"]["coverage"]
    )


def test_a_regression_is_refused(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = save_classifier(tmp_path / "model", tiny_bert, "regression")
    data = ["--validation_file", str(write_texts(tmp_path / "rows.csv", 5, 0))]
    assert "a regression has no labels" in refused([str(model), *data, "--abstain_at_risk", "0.1"], capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max_difference", "1.5"], "--max_difference 1.5: a share below 1"),
        (["--abstain_at_risk", "0"], "--abstain_at_risk 0"),
        (["--confidence", "95"], "--confidence 95.0: must lie in"),
        (["--confidense", "0.9"], "unknown option --confidense; did you mean --confidence?"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    assert message in refused([str(tmp_path), *options], capsys)
    assert "holds no whole model" in refused([str(tmp_path)], capsys)


def test_margins_are_distances_from_another_label() -> None:
    single = LabelSet(SINGLE_LABEL, ("a", "b", "c"))
    np.testing.assert_allclose(
        label_margins(np.array([[1, 5, 2], [0, 0, 0]]), single, Calibration(temperature=2)), [1.5, 0]
    )
    multi = LabelSet(MULTI_LABEL, ("a", "b"))
    np.testing.assert_allclose(label_margins(np.array([[3, -1], [0.5, 4]]), multi, Calibration()), [1, 0.5])
    thresholds = Calibration(thresholds=(0.5, 0.9))
    np.testing.assert_allclose(label_margins(np.array([[3, np.log(9)]]), multi, thresholds), [0], atol=1e-12)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_the_factor_makes_the_probabilities_alike(task: Any) -> None:
    lexical = np.random.default_rng(0).normal(size=(200, 3))
    assert fitted_factor(lexical, 2.5 * lexical, LabelSet(task, ("a", "b", "c"))) == pytest.approx(2.5, rel=1e-3)


def test_the_file_is_read_as_it_was_written(trained: Path, tmp_path: Path) -> None:
    cascade = read_cascade(trained / "out" / CASCADE_FILE)
    (tmp_path / CASCADE_FILE).write_text(json.dumps({"cascade": cascade.as_json()}))
    assert read_cascade(tmp_path / CASCADE_FILE) == cascade
