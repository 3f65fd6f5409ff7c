"""The custom class behaves as transformers' own classifiers do, in the hands of other libraries too."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    RobertaConfig,
    RobertaModel,
    pipeline,
)

from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run import main
from tests.helpers.families import FAMILIES, INPUTS, make_model


IDS = INPUTS["input_ids"]


def model(**options: Any) -> TextClassifier:
    return make_model(pooling="mean", **options)


class TestForward:
    def test_inputs_and_outputs_of_stock_classes(self) -> None:
        classifier = model()
        output = classifier(**INPUTS, output_hidden_states=True)
        assert [tuple(states.shape) for states in output.hidden_states] == [(2, 6, 16)] * 4
        loss, logits, states = classifier(
            **INPUTS, labels=torch.tensor([0, 1]), output_hidden_states=True, return_dict=False
        )
        assert loss.ndim == 0
        assert torch.equal(logits, output.logits)
        assert len(states) == 4
        assert classifier(**INPUTS).hidden_states is None

    def test_attention_weights(self) -> None:
        torch.manual_seed(0)
        config = TextClassifierConfig(encoder_config=FAMILIES["bert"], pooling="mean", num_labels=3)
        classifier = TextClassifier._from_config(config, attn_implementation="eager").eval()
        assert [tuple(a.shape) for a in classifier(**INPUTS, output_attentions=True).attentions] == [(2, 2, 6, 6)] * 3

    def test_embeddings_and_positions_in_place_of_tokens(self) -> None:
        classifier = model()
        expected = classifier(**INPUTS).logits
        embeddings = classifier.get_input_embeddings()(IDS)
        mask = INPUTS["attention_mask"]
        torch.testing.assert_close(classifier(inputs_embeds=embeddings, attention_mask=mask).logits, expected)
        torch.testing.assert_close(classifier(**INPUTS, position_ids=torch.arange(6)[None]).logits, expected)
        assert not torch.allclose(classifier(**INPUTS, position_ids=torch.arange(6)[None] + 3).logits, expected)

    @pytest.mark.parametrize("inputs", [{}, {"input_ids": IDS, "inputs_embeds": torch.zeros(2, 6, 16)}])
    def test_exactly_one_kind_of_input(self, inputs: dict[str, torch.Tensor]) -> None:
        with pytest.raises(ValueError, match="give exactly one of input_ids, inputs_embeds and features"):
            model()(**inputs)

    def test_the_configuration_says_what_is_returned(self) -> None:
        assert isinstance(model(return_dict=False)(**INPUTS), tuple)
        assert model(output_hidden_states=True)(**INPUTS).hidden_states is not None


class TestLoss:
    @pytest.mark.parametrize(
        ("num_labels", "problem_type", "labels"),
        [
            (1, None, torch.tensor([0.5, 2.0])),
            (1, "regression", torch.tensor([0.5, 2.0])),
            (3, None, torch.tensor([[1.0, 0, 0], [0, 1, 1]])),
            (3, None, torch.tensor([2, 0])),
        ],
    )
    def test_is_the_stock_classs(self, num_labels: int, problem_type: str | None, labels: torch.Tensor) -> None:
        config = TextClassifierConfig(
            encoder_config=FAMILIES["bert"], pooling="pooler", num_labels=num_labels, problem_type=problem_type
        )
        torch.manual_seed(0)
        classifier = TextClassifier(config).eval()
        logits = classifier(**INPUTS).logits
        if num_labels == 1:
            expected = torch.nn.functional.mse_loss(logits.squeeze(-1), labels)
        elif labels.is_floating_point():
            expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        else:
            expected = torch.nn.functional.cross_entropy(logits, labels)
        torch.testing.assert_close(classifier(**INPUTS, labels=labels).loss, expected)

    def test_class_weights_of_other_labels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="class_weights has 2 numbers for 3 labels"):
            model(class_weights=[1.0, 2.0])(**INPUTS, labels=torch.tensor([0, 1]))

    def test_labels_of_another_shape_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"labels have the shape \(3,\), but single_label.* needs \(2,\)"):
            model()(**INPUTS, labels=torch.tensor([0, 1, 2]))


class TestFolders:
    def test_more_tokens_survive_a_save(self, tmp_path: Path) -> None:
        classifier = model()
        classifier.resize_token_embeddings(60)
        classifier.save_pretrained(tmp_path)
        loaded = TextClassifier.from_pretrained(tmp_path).eval()
        assert loaded.config.vocab_size == loaded.config.encoder_config.vocab_size == 60
        assert loaded.get_input_embeddings().weight.shape == (60, 16)
        torch.testing.assert_close(loaded(**INPUTS).logits, classifier(**INPUTS).logits)

    def test_auto_model_is_the_encoder(self, tmp_path: Path) -> None:
        classifier = model()
        classifier.save_pretrained(tmp_path)
        auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
        assert auto_map == {
            "AutoConfig": "modeling.TextClassifierConfig", "AutoModel": "modeling.TextEncoder",
            "AutoModelForSequenceClassification": "modeling.TextClassifierForSequenceClassification",
        }  # fmt: skip
        encoder = AutoModel.from_pretrained(tmp_path).eval()
        expected = classifier.encoder(**INPUTS).last_hidden_state
        torch.testing.assert_close(encoder(**INPUTS).last_hidden_state, expected)

    def test_a_folder_of_an_encoder_gets_a_new_head(self, tmp_path: Path) -> None:
        encoder = BertModel(FAMILIES["bert"]).eval()
        encoder.save_pretrained(tmp_path)
        loaded = TextClassifier.from_pretrained(tmp_path, num_labels=4).eval()
        assert loaded(**INPUTS).logits.shape == (2, 4)
        torch.testing.assert_close(loaded.encoder(**INPUTS).last_hidden_state, encoder(**INPUTS).last_hidden_state)

    @pytest.mark.parametrize("stock", [BertForPreTraining, BertForSequenceClassification])
    def test_a_folder_of_an_encoder_with_a_head_is_refused(self, tmp_path: Path, stock: type) -> None:
        """Its weights have other names, and the encoder would be random."""
        stock(FAMILIES["bert"]).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="not a bare encoder: save its encoder alone first"):
            TextClassifier.from_pretrained(tmp_path)

    def test_new_layer_weights_begin_equal(self, tmp_path: Path) -> None:
        BertModel(FAMILIES["bert"]).save_pretrained(tmp_path)
        options = {"pooling": "mean", "pooling_layers": 3, "pooling_layers_merge": "weighted"}
        loaded = TextClassifier.from_pretrained(tmp_path, **options)
        assert torch.equal(loaded.head.layer_weights, torch.zeros(3))

    def test_another_number_of_labels(self, tmp_path: Path) -> None:
        model().save_pretrained(tmp_path)
        options = {"num_labels": 5, "ignore_mismatched_sizes": True}
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, **options)
        assert loaded(**INPUTS).logits.shape == (2, 5)

    def test_a_folder_with_the_old_name_of_the_class_is_read(self, tmp_path: Path) -> None:
        classifier = model()
        classifier.save_pretrained(tmp_path)
        settings = json.loads((tmp_path / "config.json").read_text())
        settings["architectures"] = ["TextClassifier"]
        settings["auto_map"] = {
            "AutoConfig": "modeling.TextClassifierConfig",
            "AutoModelForSequenceClassification": "modeling.TextClassifier",
        }
        (tmp_path / "config.json").write_text(json.dumps(settings))
        for trust in (False, True):
            loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=trust).eval()
            torch.testing.assert_close(loaded(**INPUTS).logits, classifier(**INPUTS).logits)


def test_torch_quantises_it() -> None:
    classifier = model()
    quantised = torch.ao.quantization.quantize_dynamic(classifier, {torch.nn.Linear}, dtype=torch.qint8)
    torch.testing.assert_close(quantised(**INPUTS).logits, classifier(**INPUTS).logits, rtol=0.2, atol=0.2)


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


class TestOneTokenType:
    """A RoBERTa with the tokenizer of BERT, as klue/roberta is: it has no embedding for the second text's type."""

    @pytest.fixture
    def encoder(self, tiny_bert: Path, tmp_path: Path) -> Path:
        folder = shutil.copytree(tiny_bert, tmp_path / "encoder")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=66, type_vocab_size=1, pad_token_id=0,
        )  # fmt: skip
        RobertaModel(config).save_pretrained(folder)
        return folder

    @pytest.mark.parametrize("options", [{}, {"pooling": "mean"}, {"boost": True, "learning_rate": None}])
    def test_reads_pairs(
        self, command: Callable[..., list[str]], encoder: Path, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        pairs = tmp_path / "pairs.csv"
        rows = "".join(f"good film {n},bad plot,{'yes' if n % 2 else 'no'}\n" for n in range(24))
        pairs.write_text("premise,hypothesis,label\n" + rows)
        files = {"train_file": pairs, "validation_file": None, "test_file": None}
        assert main(command(**files, model_name_or_path=encoder, num_train_epochs=1, **options)) == 0
        out = tmp_path / "out"
        classify = pipeline("text-classification", str(out), top_k=None, trust_remote_code=True)
        (scores,) = classify([{"text": "good film", "text_pair": "bad plot"}])
        (prediction,) = Predictor.from_pretrained(str(out), device="cpu").predict(["good film"], pairs=["bad plot"])
        found = {score["label"]: score["score"] for score in scores}
        assert found == pytest.approx(prediction.probabilities, abs=1e-5)
