"""The classifier: pooling, heads, losses, freezing, and its saved forms."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
)

from bertcls_hf.models.modeling import (
    PooledPart,
    TextClassifier,
    classification_loss,
    fold_layer_weights,
    from_stock,
    pool_hidden_states,
    pooled_parts,
    to_stock,
)
from tests.helpers.families import FAMILIES, INPUTS, LABELS, default_model, make_config, make_model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**INPUTS).logits


class TestPooling:
    states = torch.tensor([[[1.0, 2.0], [3.0, -4.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])

    @pytest.mark.parametrize(
        ("pooling", "expected"),
        [("cls", [1.0, 2.0]), ("mean", [2.0, -1.0]), ("max", [3.0, 2.0]), ("cls_mean", [1.0, 2.0, 2.0, -1.0])],
    )
    def test_padding_is_left_out(self, pooling: str, expected: list[float]) -> None:
        assert pool_hidden_states(self.states, self.mask, pooling).tolist() == [expected]

    def test_mean_over_no_token_is_zero_not_nan(self) -> None:
        assert pool_hidden_states(self.states, torch.zeros(1, 3), "mean").tolist() == [[0.0, 0.0]]

    @pytest.mark.parametrize("family", sorted(FAMILIES))
    @pytest.mark.parametrize("merge", ["mean", "concat"])
    def test_last_layers_end_with_the_last_hidden_state(self, family: str, merge: str) -> None:
        model = make_model(FAMILIES[family], pooling="mean", pooling_layers=2, pooling_layers_merge=merge)
        outputs = model.encoder(**INPUTS, output_hidden_states=True)
        before = pool_hidden_states(outputs.hidden_states[-2], INPUTS["attention_mask"], "mean")
        last = pool_hidden_states(outputs.last_hidden_state, INPUTS["attention_mask"], "mean")
        expected = torch.cat([before, last], dim=-1) if merge == "concat" else (before + last) / 2
        torch.testing.assert_close(model.pooled_features(**INPUTS), expected)
        assert model.config.feature_size == expected.shape[1]

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            ({"pooling": "pooler"}, [("pooler", -1)]),
            ({"pooling": "mean", "pooling_layers": 2}, [("mean", -2), ("mean", -1)]),
            ({"pooling": "cls_mean", "pooling_layers": 2}, [("cls", -2), ("mean", -2), ("cls", -1), ("mean", -1)]),
        ],
    )
    def test_parts_go_from_the_lowest_layer_to_the_last(self, options: dict, parts: list[tuple[str, int]]) -> None:
        assert list(pooled_parts(make_config(**options))) == [PooledPart(*part) for part in parts]

    def test_padding_does_not_change_a_row(self) -> None:
        model = make_model(pooling="cls_mean", pooling_layers=3)
        alone = model.pooled_features(INPUTS["input_ids"][1:, :4])
        torch.testing.assert_close(model.pooled_features(**INPUTS)[1:], alone)


class TestLosses:
    values = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3]])
    gold = torch.tensor([0, 2])

    def test_cross_entropy_is_torchs(self) -> None:
        config = make_config(label_smoothing=0.1)
        expected = F.cross_entropy(self.values, self.gold, label_smoothing=0.1)
        torch.testing.assert_close(classification_loss(self.values, self.gold, config), expected)

    def test_class_weights_multiply_rows(self) -> None:
        rows = F.cross_entropy(self.values, self.gold, reduction="none")
        loss = classification_loss(self.values, self.gold, make_config(class_weights=[3.0, 1.0, 0.5]))
        torch.testing.assert_close(loss, (3 * rows[0] + 0.5 * rows[1]) / 2)

    def test_focal_by_hand_and_without_focus(self) -> None:
        rows = F.cross_entropy(self.values, self.gold, reduction="none")
        gold = self.values.softmax(-1)[[0, 1], self.gold]
        focal = classification_loss(self.values, self.gold, make_config(loss="focal", focal_gamma=2.0))
        torch.testing.assert_close(focal, ((1 - gold) ** 2 * rows).mean())
        plain = classification_loss(self.values, self.gold, make_config(loss="focal", focal_gamma=0.0))
        torch.testing.assert_close(plain, rows.mean())

    def test_multi_label_is_bce_over_labels(self) -> None:
        gold = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
        config = make_config(problem_type="multi_label_classification", loss="bce")
        torch.testing.assert_close(
            classification_loss(self.values, gold, config), F.binary_cross_entropy_with_logits(self.values, gold)
        )

    def test_regression_is_mse(self) -> None:
        config = make_config(problem_type="regression", loss="mse", id2label={0: "score"}, label2id={"score": 0})
        loss = classification_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 3.0]), config)
        assert loss.item() == 0.5


class TestFreezing:
    def test_frozen_backbone_gets_no_gradient_and_no_dropout(self) -> None:
        model = make_model(freeze_backbone=True, pooling="mean", dropout=0.0)
        model.train()
        first, second = model(**INPUTS, labels=torch.tensor([0, 1])), model(**INPUTS)
        torch.testing.assert_close(first.logits, second.logits, rtol=0, atol=0)
        first.loss.backward()
        assert all(p.grad is None for p in model.encoder.parameters())
        assert all(p.grad is not None for p in model.head.parameters())
        assert model.head.training
        assert not model.encoder.training

    def test_top_layers_learn_and_drop_out(self) -> None:
        model = make_model(trainable_layers=1, pooling="pooler")
        model.train()
        learning = {name for name, p in model.encoder.named_parameters() if p.requires_grad}
        assert learning
        assert all(".2." in name or "pooler" in name for name in learning)
        assert model.encoder.encoder.layer[2].training
        assert not model.encoder.encoder.layer[1].training
        assert not model.encoder.embeddings.dropout.training

    def test_what_all_layers_read_stays_as_it_is(self) -> None:
        model = make_model(FAMILIES["mpnet"], trainable_layers=3, pooling="mean")
        frozen = {name for name, p in model.encoder.named_parameters() if not p.requires_grad}
        assert "encoder.relative_attention_bias.weight" in frozen
        assert all("embeddings" in name or "relative_attention_bias" in name for name in frozen)

    def test_too_many_trainable_layers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="trainable_layers=4, but the encoder has 3 layers"):
            make_model(trainable_layers=4)

    def test_shared_layers_cannot_be_split(self) -> None:
        with pytest.raises(ValueError, match="trainable_layers cannot be used"):
            make_model(FAMILIES["albert"], trainable_layers=1)

    def test_unread_pooler_is_left_out(self) -> None:
        assert make_model(pooling="mean").encoder.pooler is None

    def test_features_replace_the_encoder(self) -> None:
        model = make_model(pooling="cls_mean", head="mlp")
        features = model.pooled_features(**INPUTS)
        torch.testing.assert_close(model(features=features).logits, logits(model))


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("pooling", ["mean", "cls_mean"])
def test_learned_layer_weights_fold_into_the_head(head: str, pooling: str, tmp_path: Path) -> None:
    model = make_model(pooling=pooling, pooling_layers=3, pooling_layers_merge="weighted", head=head)
    with torch.no_grad():
        model.head.layer_weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
    folded, _ = fold_layer_weights(model)
    assert folded.head.layer_weights is None
    torch.testing.assert_close(logits(folded), logits(model))
    folded.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(TextClassifier.from_pretrained(tmp_path).eval()), logits(model))
    model.train()
    model(**INPUTS, labels=torch.tensor([0, 2])).loss.backward()
    assert model.head.layer_weights.grad.abs().min() > 0


class TestStockExport:
    @pytest.mark.parametrize("family", sorted(FAMILIES))
    def test_fine_tuning_default_saves_as_the_stock_class(self, family: str, tmp_path: Path) -> None:
        model = default_model(family)
        stock = to_stock(model)
        assert stock is not None
        stock.save_pretrained(tmp_path)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        assert not type(loaded).__module__.startswith("bertcls_hf")
        torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)
        assert loaded.config.id2label == LABELS.id2label
        assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
        torch.testing.assert_close(logits(from_stock(loaded, model.config).eval()), logits(model))

    @pytest.mark.parametrize("family", ["roberta", "mpnet"])
    def test_a_pooler_that_is_the_stock_heads_dense(self, family: str) -> None:
        model = make_model(FAMILIES[family], pooling="pooler", head="linear")
        torch.testing.assert_close(logits(to_stock(model)), logits(model))

    @pytest.mark.parametrize(
        ("family", "options"),
        [
            ("bert", {"pooling": "mean"}),
            ("bert", {"pooling": "cls"}),
            ("bert", {"pooling": "pooler", "head": "mlp"}),
            ("roberta", {"pooling": "cls", "head": "mlp", "head_activation": "gelu"}),
            ("electra", {"pooling": "cls", "head": "linear"}),
            ("modernbert", {"pooling": "cls", "head": "mlp"}),
            ("bert", {"pooling": "cls", "pooling_layers": 2}),
        ],
    )
    def test_anything_else_has_no_stock_class(self, family: str, options: dict) -> None:
        assert to_stock(make_model(FAMILIES[family], **options)) is None


FRESH_PROCESS = """
import json, sys
sys.modules["bertcls_hf"] = None  # as where the package is not installed
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, texts = sys.argv[1], json.loads(sys.argv[2])
code = "modeling.py" in __import__("os").listdir(folder)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=code)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=code).eval()
with torch.no_grad():
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
classify = pipeline("text-classification", folder, top_k=None, trust_remote_code=code)
scores = [{row["label"]: row["score"] for row in rows} for rows in classify(texts)]
print(json.dumps({"logits": logits.tolist(), "scores": scores, "code": code}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "needs_code"),
    [({"pooling": "pooler"}, False), ({"pooling": "mean", "pooling_layers": 2, "head": "mlp"}, True)],
    ids=["stock", "custom"],
)
def test_a_saved_model_gives_the_same_logits_without_the_package(
    tiny_bert: Path, tmp_path: Path, options: dict, needs_code: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    encoder = BertConfig.from_pretrained(tiny_bert)
    model = make_model(encoder, **options)
    (to_stock(model) or model).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["a good film", "bad bad plot and a really boring story"]
    with torch.no_grad():
        expected = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits

    command = [sys.executable, "-c", FRESH_PROCESS, str(tmp_path), json.dumps(texts)]
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    fresh = json.loads(done.stdout.splitlines()[-1])

    assert fresh["code"] is needs_code
    torch.testing.assert_close(torch.tensor(fresh["logits"]), expected, rtol=0, atol=1e-5)
    for scores, row in zip(fresh["scores"], expected.softmax(-1), strict=True):
        assert [scores[name] for name in LABELS.names] == pytest.approx(row.tolist(), abs=1e-5)
    assert "not supported for text-classification" not in done.stderr


def test_the_same_process_loads_its_own_class(tmp_path: Path) -> None:
    model = make_model(pooling="mean", pooling_layers=3, head="mlp")
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(TextClassifier.from_pretrained(tmp_path).eval()), logits(model))
    assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()), logits(model))
