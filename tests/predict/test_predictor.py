"""A trained classifier at work: the probabilities of transformers' pipeline, in the order of the texts."""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import load_file, save_file
from scipy.special import logit
from transformers import pipeline

from bertcls_hf.errors import ArgumentsError
from bertcls_hf.predict import predictor as inference
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from tests.helpers.classifiers import KINDS, NAMES, save_classifier, texts


class TestAgainstThePipeline:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_of_model(self, tiny_bert: Path, tmp_path: Path, kind: str) -> None:
        folder = save_classifier(tmp_path / kind, tiny_bert, kind)
        predictor = Predictor.from_pretrained(str(folder), device="cpu")
        classify = pipeline("text-classification", str(folder), top_k=None, device="cpu")
        inputs = texts(20)
        found, expected = predictor.predict(inputs), classify(inputs, truncation=True)
        assert len(found) == len(expected) == 20
        for prediction, scores in zip(found, expected, strict=True):
            by_name = {score["label"]: score["score"] for score in scores}
            if kind == "regression":
                assert prediction.probabilities is None
                assert prediction.label == pytest.approx(by_name["score"], abs=1e-5)
                continue
            assert prediction.probabilities == pytest.approx(by_name, abs=1e-5)
            if kind == "multi_label":
                assert prediction.label == [name for name in NAMES[kind] if by_name[name] > 0.5]
            else:
                assert prediction.label == max(by_name, key=lambda name: by_name[name])
        outputs = predictor.logits(inputs)
        assert (outputs.std(axis=0) > 0.01).all()

    def test_pairs(self, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path / "model", tiny_bert, "stock")
        # The pipeline takes an empty second text for none; a training does not, and nor does a predictor.
        first, second = texts(12), [text or "not" for text in texts(12)[::-1]]
        predictor = Predictor.from_pretrained(str(folder), device="cpu")
        classify = pipeline("text-classification", str(folder), top_k=None, device="cpu")
        found = predictor.predict(first, second)
        alone = predictor.predict(first)
        for prediction, other, text, pair in zip(found, alone, first, second, strict=True):
            scores = classify({"text": text, "text_pair": pair}, truncation=True)
            assert prediction.probabilities == pytest.approx({s["label"]: s["score"] for s in scores}, abs=1e-5)
            assert prediction.probabilities != other.probabilities
        assert predictor.predict(["good"], [""]) != predictor.predict(["good"])

    def test_texts_are_cut_where_the_training_cut_them(self, command: Callable, tmp_path: Path) -> None:
        assert main(command(max_seq_length=8, num_train_epochs=1)) == 0
        folder = str(tmp_path / "out")
        predictor = Predictor.from_pretrained(folder, device="cpu")
        assert predictor.max_seq_length == 8
        short, long = "good film so very boring and", "good film so very boring and bad awful poor"
        assert np.array_equal(*predictor.logits([short, long]))
        classify = pipeline("text-classification", folder, top_k=None, device="cpu")
        assert classify(long, truncation=True) == classify(short)
        longer = Predictor.from_pretrained(folder, device="cpu", max_seq_length=64)
        assert not np.allclose(*longer.logits([short, long]))


class TestBatches:
    @pytest.fixture
    def predictor(self, tiny_bert: Path, tmp_path: Path) -> Predictor:
        return Predictor.from_pretrained(str(save_classifier(tmp_path / "model", tiny_bert, "custom")), device="cpu")

    def test_each_row_is_that_of_its_text_alone(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference, "TOKENIZED_ROWS", 7)
        monkeypatch.setattr(inference, "TOKENIZED_CHARACTERS", 300)
        inputs = texts(40)
        alone = np.concatenate([predictor.logits([text]) for text in inputs])
        assert alone.dtype == np.float32
        for predictor.tokens_per_batch in (1, 64, 300, 100_000):
            assert np.allclose(predictor.logits(inputs), alone, atol=1e-5)

    def test_batches_hold_texts_of_like_length(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        shapes: list[torch.Size] = []
        forward = predictor.model.forward

        def watched(**inputs: torch.Tensor) -> Any:
            shapes.append(inputs["input_ids"].shape)
            return forward(**inputs)

        monkeypatch.setattr(predictor.model, "forward", watched)
        predictor.tokens_per_batch = 128
        counted: list[tuple[int, int]] = []
        predictor.logits(texts(60), progress=lambda rows, tokens: counted.append((rows, tokens)))
        assert sum(rows for rows, _ in counted) == sum(rows for rows, _ in shapes) == 60
        assert [width for _, width in shapes] == sorted((width for _, width in shapes), reverse=True)
        assert all(rows * width <= 128 for rows, width in shapes)
        real = sum(tokens for _, tokens in counted)
        assert real <= sum(rows * width for rows, width in shapes) < 1.2 * real

    def test_threads_change_nothing(self, predictor: Predictor) -> None:
        inputs, before = texts(60), torch.get_num_threads()
        predictor.tokens_per_batch = 128
        expected = predictor.logits(inputs)
        try:
            torch.set_num_threads(3)
            assert np.array_equal(predictor.logits(inputs), expected)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    def test_callers_in_threads_take_turns(self, predictor: Predictor) -> None:
        inputs = [texts(20 + number)[number:] for number in range(6)]
        expected = [predictor.logits(part) for part in inputs]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(predictor.logits, inputs))
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))

    def test_no_texts(self, predictor: Predictor) -> None:
        assert predictor.logits([]).shape == (0, 3)
        assert predictor.predict([]) == []

    def test_bfloat16_is_near(self, predictor: Predictor) -> None:
        half = Predictor.from_pretrained(predictor.model.name_or_path, device="cpu", dtype="bfloat16")
        found, expected = half.logits(texts(20)), predictor.logits(texts(20))
        assert found.dtype == np.float32
        assert not np.array_equal(found, expected)
        assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


class TestFingerprint:
    def test_it_tells_models_apart_and_not_folders(self, tiny_bert: Path, tmp_path: Path) -> None:
        def fingerprint(folder: Path, **options: object) -> str:
            return Predictor.from_pretrained(str(folder), device="cpu", **options).fingerprint()

        one = save_classifier(tmp_path / "one", tiny_bert, "custom")
        other = save_classifier(tmp_path / "other", tiny_bert, "custom", seed=1)
        copy = Path(shutil.copytree(one, tmp_path / "copy"))
        assert fingerprint(one) == fingerprint(copy)
        assert len({fingerprint(one), fingerprint(other), fingerprint(one, max_seq_length=8)}) == 3
        config = (copy / "config.json").read_text()
        (copy / "config.json").write_text(config.replace('"pooling": "mean"', '"pooling": "max"'))
        assert fingerprint(one) != fingerprint(copy)


class TestLoading:
    def test_a_calibration_is_applied(self, tiny_bert: Path, tmp_path: Path) -> None:
        thresholds = {"action": 0.9, "drama": 0.1, "funny": 0.5}
        folder = save_classifier(tmp_path / "m", tiny_bert, "multi_label", temperature=2.0, thresholds=thresholds)
        calibrated = Predictor.from_pretrained(str(folder), device="cpu")
        plain = Predictor.from_pretrained(str(folder), device="cpu", calibrated=False)
        changed = 0
        for one, other in zip(calibrated.predict(texts(20)), plain.predict(texts(20)), strict=True):
            for name, threshold in thresholds.items():
                logits = [logit(prediction.probabilities[name]) for prediction in (one, other)]
                assert logits[0] == pytest.approx(logits[1] / 2, rel=1e-6)
                assert (name in one.label) == (one.probabilities[name] > threshold)
            changed += one.label != other.label
        assert changed

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "JSONDecodeError"),
            ("[]", "TypeError"),
            ("[" * 3000, "nested too deeply"),
            ('{"temperature": 1.0}', "thresholds"),
            ('{"temperature": 0, "thresholds": null}', "temperature is 0"),
            ('{"temperature": 1, "thresholds": {"a": 0.5}}', "for a, but the model has action, drama, funny"),
        ],
    )
    def test_a_calibration_that_does_not_fit(
        self, tiny_bert: Path, tmp_path: Path, content: str, message: str
    ) -> None:
        folder = save_classifier(tmp_path / "m", tiny_bert, "multi_label")
        (folder / "calibration.json").write_text(content)
        with pytest.raises(ArgumentsError, match=rf"calibration\.json: not the calibration.*{message}"):
            Predictor.from_pretrained(str(folder), device="cpu")
        assert Predictor.from_pretrained(str(folder), device="cpu", calibrated=False).predict(["good"])

    def test_from_the_hub_s_cache(self, tiny_bert: Path, tmp_path: Path) -> None:
        """What a download leaves; nothing here reaches the Hub itself."""
        for name, calibration in (("plain", {}), ("calibrated", {"temperature": 2.0})):
            repo = Path(HF_HUB_CACHE, f"models--someone--{name}")
            save_classifier(repo / "snapshots" / ("0" * 40), tiny_bert, "stock", **calibration)
            (repo / "refs").mkdir()
            (repo / "refs" / "main").write_text("0" * 40)
            predictor = Predictor.from_pretrained(f"someone/{name}", device="cpu")
            assert predictor.calibration.temperature == calibration.get("temperature", 1.0)
            assert predictor.labels.names == NAMES["stock"]

    def test_an_encoder_is_refused(self, tiny_bert: Path) -> None:
        with pytest.raises(ArgumentsError, match="without a trained classification head"):
            Predictor.from_pretrained(str(tiny_bert), device="cpu")

    @pytest.mark.parametrize("name", ["dropout", "hidden_dropout_prob"])
    def test_a_configuration_with_nan_is_refused(self, tiny_bert: Path, tmp_path: Path, name: str) -> None:
        folder = save_classifier(tmp_path / "m", tiny_bert, "custom")
        config = (folder / "config.json").read_text()
        changed = re.sub(rf'"{name}": [0-9.]+', f'"{name}": NaN', config)
        assert changed != config
        (folder / "config.json").write_text(changed)
        with pytest.raises(ArgumentsError, match=f"{name} is not a number"):
            Predictor.from_pretrained(str(folder), device="cpu")

    def test_missing_weights_are_refused(self, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path / "m", tiny_bert, "stock")
        weights = load_file(folder / "model.safetensors")
        del weights["classifier.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ArgumentsError, match=r"lacks weights: classifier\.weight"):
            Predictor.from_pretrained(str(folder), device="cpu")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_seq_length": 65}, "max_seq_length 65: must lie between 3 and the model's 64 positions"),
            ({"max_seq_length": 2}, "max_seq_length 2"),
            ({"device": "quantum"}, "device quantum"),
            ({"dtype": "float16"}, "float16 is for accelerators"),
        ],
    )
    def test_options_that_do_not_fit(self, tiny_bert: Path, tmp_path: Path, options: dict, message: str) -> None:
        folder = save_classifier(tmp_path / "m", tiny_bert, "stock")
        with pytest.raises(ArgumentsError, match=message):
            Predictor.from_pretrained(str(folder), **{"device": "cpu", **options})

    def test_no_such_model(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentsError, match="nowhere"):
            Predictor.from_pretrained(str(tmp_path / "nowhere"))
        with pytest.raises(ArgumentsError, match="pip install"):
            Predictor.from_pretrained("pypi:no_such_package_of_models")
