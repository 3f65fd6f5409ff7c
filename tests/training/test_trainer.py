"""The Trainer subclass: accumulation, learning rates, orders, and what it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.run import main
from bertcls_hf.training import samplers
from bertcls_hf.training.callbacks import training_callbacks
from bertcls_hf.training.collators import ClassificationCollator
from bertcls_hf.training.optimizer import parameter_depth
from bertcls_hf.training.samplers import EpochSampler
from bertcls_hf.training.trainer import ClassificationTrainer
from tests.helpers.families import FAMILIES
from tests.helpers.trainers import our_model, tokenized


def stock_model(tiny_bert: Path) -> BertForSequenceClassification:
    torch.manual_seed(0)
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 2}
    return BertForSequenceClassification(BertConfig.from_pretrained(tiny_bert, **options))


def make_trainer(tiny_bert: Path, folder: Path, model: Any, **options: Any) -> ClassificationTrainer:
    settings = {
        "output_dir": str(folder), "num_train_epochs": 2, "logging_steps": 1, "eval_strategy": "no",
        "save_strategy": "no", "learning_rate": 1e-3, "disable_tqdm": True, "use_cpu": True, "warmup_steps": 0,
    }  # fmt: skip
    args = ClassifierTrainingArguments(**{**settings, **options})
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    return ClassificationTrainer(
        model=model, args=args, train_dataset=tokenized(tiny_bert), data_collator=ClassificationCollator(tokenizer),
        processing_class=tokenizer, callbacks=training_callbacks(args),
    )  # fmt: skip


def losses(trainer: ClassificationTrainer) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    "options",
    [{}, {"class_weights": [0.5, 3.0]}, {"label_smoothing": 0.1}, {"loss": "focal"}, {"freeze_backbone": True}],
    ids=["plain", "class_weights", "label_smoothing", "focal", "frozen"],
)
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_accumulation_does_not_change_the_loss(tiny_bert: Path, tmp_path: Path, options: dict, strategy: str) -> None:
    runs = [
        losses(make_trainer(tiny_bert, tmp_path, our_model(tiny_bert, **options), train_sampling_strategy=strategy,
                            per_device_train_batch_size=size, gradient_accumulation_steps=16 // size))
        for size in (16, 4, 1)
    ]  # fmt: skip
    assert len(runs[0]) == 4
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-5)


def test_accumulation_does_not_change_a_stock_models_loss(tiny_bert: Path, tmp_path: Path) -> None:
    runs = [
        losses(make_trainer(tiny_bert, tmp_path, stock_model(tiny_bert), per_device_train_batch_size=size,
                            gradient_accumulation_steps=16 // size))
        for size in (16, 4, 1)
    ]  # fmt: skip
    assert runs[0][0] < 2
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-5)


class TestCollator:
    def test_labels_of_every_task(self, tiny_bert: Path) -> None:
        collate = ClassificationCollator(AutoTokenizer.from_pretrained(tiny_bert))
        classes = collate([{"input_ids": [1], "labels": 1}, {"input_ids": [1, 2], "labels": 0}])
        assert (classes["labels"].tolist(), classes["labels"].dtype) == ([1, 0], torch.int64)
        numbers = collate([{"input_ids": [1], "labels": 0.5}, {"input_ids": [1, 2], "labels": 2.0}])
        assert (numbers["labels"].tolist(), numbers["labels"].dtype) == ([0.5, 2.0], torch.float32)
        several = collate([{"input_ids": [1], "labels": [1.0, 0.0]}])
        assert (several["labels"].tolist(), several["labels"].dtype) == ([[1.0, 0.0]], torch.float32)
        assert "labels" not in collate([{"input_ids": [1]}])


class TestLearningRates:
    def groups(self, tiny_bert: Path, tmp_path: Path, model: Any, **options: Any) -> dict[str, set[str]]:
        """From `name rate decay` of a parameter group to its parameters."""
        trainer = make_trainer(tiny_bert, tmp_path, model, **options)
        names = {id(p): name for name, p in model.named_parameters()}
        return {
            f"{group['name']} {group['lr']:.6g} {group['weight_decay']}": {names[id(p)] for p in group["params"]}
            for group in trainer.create_optimizer().param_groups
        }

    def test_head_and_encoder(self, tiny_bert: Path, tmp_path: Path) -> None:
        model = our_model(tiny_bert, pooling="cls", head="mlp")
        groups = self.groups(tiny_bert, tmp_path, model, learning_rate=1e-5, head_learning_rate=1e-3, weight_decay=0.1)
        assert set(groups) == {"encoder 1e-05 0.1", "encoder 1e-05 0.0", "head 0.001 0.1", "head 0.001 0.0"}
        assert groups["head 0.001 0.1"] == {"head.dense.weight", "head.out_proj.weight"}
        assert all("bias" in name or "LayerNorm" in name for name in groups["encoder 1e-05 0.0"])
        assert sum(map(len, groups.values())) == len(list(model.parameters()))

    @pytest.mark.parametrize("make", [our_model, stock_model])
    def test_layerwise_decay(self, tiny_bert: Path, tmp_path: Path, make: Callable) -> None:
        groups = self.groups(tiny_bert, tmp_path, make(tiny_bert), learning_rate=1e-3, head_learning_rate=5e-3,
                             layerwise_lr_decay=0.5)  # fmt: skip
        by_depth: dict[str, set[str]] = {}
        for key, names in groups.items():
            by_depth.setdefault(key.rpartition(" ")[0], set()).update(names)
        assert list(by_depth) == [
            "depth_3 0.001",
            "depth_2 0.0005",
            "depth_1 0.00025",
            "depth_0 0.000125",
            "head 0.005",
        ]
        assert all(".layer.2." in name or "pooler" in name for name in by_depth["depth_3 0.001"])
        assert all("embeddings" in name for name in by_depth["depth_0 0.000125"])

    def test_what_all_layers_read_learns_as_slowly_as_the_embeddings(self) -> None:
        encoder = AutoModel.from_config(FAMILIES["mpnet"])
        depths = {name: parameter_depth(name, 3) for name, _ in encoder.named_parameters()}
        assert depths["encoder.relative_attention_bias.weight"] == depths["embeddings.LayerNorm.bias"] == 0
        assert depths["encoder.layer.2.attention.attn.q.weight"] == depths["pooler.dense.weight"] == 3

    def test_frozen_parameters_are_in_no_group(self, tiny_bert: Path, tmp_path: Path) -> None:
        groups = self.groups(tiny_bert, tmp_path, our_model(tiny_bert, freeze_backbone=True), head_learning_rate=1e-2)
        assert set().union(*groups.values()) == {"head.out_proj.weight", "head.out_proj.bias"}

    def test_each_groups_rate_is_logged(self, tiny_bert: Path, tmp_path: Path) -> None:
        trainer = make_trainer(
            tiny_bert, tmp_path, our_model(tiny_bert), head_learning_rate=1e-2, lr_scheduler_type="linear"
        )
        trainer.train()
        lines = [line for line in trainer.state.log_history if "learning_rate" in line]
        assert lines[0]["learning_rate_encoder"] == lines[0]["learning_rate"] == pytest.approx(1e-3)
        assert lines[0]["learning_rate_head"] == pytest.approx(1e-2)
        for line in lines:
            assert line["learning_rate_head"] == pytest.approx(10 * line["learning_rate"])


class TestOrder:
    def test_epoch_order_depends_on_seed_and_epoch_alone(self) -> None:
        lengths = [index % 7 + 1 for index in range(40)]
        torch.manual_seed(1)
        first = list(EpochSampler(40, 3, lengths, 8).order(2))
        torch.manual_seed(2)
        assert list(EpochSampler(40, 3, lengths, 8).order(2)) == first
        assert sorted(first) == list(range(40))
        assert list(EpochSampler(40, 3, lengths, 8).order(1)) != first
        assert list(EpochSampler(40, 4, lengths, 8).order(2)) != first

    def test_very_many_rows_are_shuffled_in_stretches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(samplers, "SHUFFLED_ROWS", 64)
        monkeypatch.setattr(samplers, "BLOCKS_AT_ONCE", 4)
        sampler = EpochSampler(1_003, 3)
        orders = [list(sampler.order(epoch)) for epoch in (0, 0, 1)]
        assert orders[0] == orders[1]
        assert orders[0] != orders[2]
        assert sorted(orders[0]) == sorted(orders[2]) == list(range(1_003))
        # Each stretch of 64 rows is of a few blocks of 16 rows, from anywhere, in random order.
        for start in range(0, 960, 64):
            rows = orders[0][start : start + 64]
            assert len({row // 16 for row in rows}) <= 8
            assert rows != sorted(rows)
        assert {row // 16 for row in orders[0][:64]} != {row // 16 for row in orders[2][:64]}

    def test_predictions_keep_the_rows_order(self, tiny_bert: Path, tmp_path: Path) -> None:
        model = our_model(tiny_bert, pooling="mean")
        trainer = make_trainer(tiny_bert, tmp_path, model, per_device_eval_batch_size=4)
        rows = tokenized(tiny_bert, 21)
        output = trainer.predict(rows)
        with torch.no_grad():
            one_by_one = [model.eval()(torch.tensor([ids])).logits[0].numpy() for ids in rows["input_ids"]]
        np.testing.assert_allclose(output.predictions, one_by_one, atol=1e-5)
        assert output.label_ids.tolist() == rows["labels"][:]

    def test_batches_are_grouped_by_length(self, tiny_bert: Path, tmp_path: Path) -> None:
        trainer = make_trainer(tiny_bert, tmp_path, our_model(tiny_bert), per_device_train_batch_size=4)
        trainer.train_dataset = tokenized(tiny_bert, 400)
        padding = [1 - batch["attention_mask"].float().mean().item() for batch in trainer.get_train_dataloader()]
        assert np.mean(padding) < 0.1


def test_each_trainable_parameter_moves_and_no_frozen_one(tiny_bert: Path, tmp_path: Path) -> None:
    model = our_model(tiny_bert, trainable_layers=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    make_trainer(tiny_bert, tmp_path, model).train()
    for name, parameter in model.named_parameters():
        moved = not torch.equal(before[name], parameter)
        # A key bias shifts all scores of a query alike, which softmax cancels.
        assert moved == parameter.requires_grad or name.endswith("key.bias"), name


class TestFiles:
    @pytest.mark.whole_output
    def test_exact_set_of_files(self, command: Callable[..., list[str]], tmp_path: Path) -> None:
        assert main(command(save_total_limit=1)) == 0
        out = tmp_path / "out"
        checkpoints = list(out.glob("checkpoint-*"))
        assert len(checkpoints) == 1
        model_files = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        results = {f"{split}_results.json" for split in ("train", "eval", "test", "all")}
        reports = {f"{split}_{kind}" for split in ("eval", "test") for kind in ("report.json", "outputs.npz")}
        reports |= {
            "manifest.json",
            "bom.cdx.json",
            "lexical_baseline.json",
            "trainer_state.json",
            "recipe.yaml",
            "README.md",
            "figures",
        }
        assert {p.name for p in out.iterdir()} == model_files | results | reports | {checkpoints[0].name}
        pictures = {"training_curves.png", "confusion_matrix.png", "reliability.png", "by_length.png"}
        assert {p.name for p in (out / "figures").iterdir()} == pictures
        saved_state = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
        # A checkpoint keeps the training model's own class, whose code is saved with it.
        names = model_files | saved_state | {"modeling.py", "manifest.json"}
        assert {p.name for p in checkpoints[0].iterdir()} == names

    def test_recipe_repeats_the_run(self, command: Callable[..., list[str]], tmp_path: Path) -> None:
        assert main(command()) == 0
        first = json.loads((tmp_path / "out/test_results.json").read_text())
        assert main([str(tmp_path / "out/recipe.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
        again = json.loads((tmp_path / "again/test_results.json").read_text())
        assert again["test_loss"] == first["test_loss"]
        original = (tmp_path / "out/recipe.yaml").read_text().replace(str(tmp_path / "out"), str(tmp_path / "again"))
        assert (tmp_path / "again/recipe.yaml").read_text() == original


@pytest.mark.slow
@pytest.mark.whole_output
def test_thousands_of_labels_leave_small_files(command: Callable[..., list[str]], tmp_path: Path) -> None:
    labels = 3_000
    for split, rows in (("train", 2 * labels), ("validation", 500), ("test", 500)):
        lines = [f"good film {index},intent {index % labels}" for index in range(rows)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    options: dict[str, Any] = {
        "boost": True, "learning_rate": None, "per_device_train_batch_size": 64, "max_steps": 20,
        "lexical_baseline": False,
    }  # fmt: skip
    assert main(command(**options, num_train_epochs=None)) == 0
    out = tmp_path / "out"
    report = json.loads((out / "test_report.json").read_text())
    assert "confusion_matrix" not in report
    assert {"gold", "predicted", "rows"} == set(report["confusions"][0])
    assert sum(row["rows"] for row in report["confusions"]) <= 500
    files = [path for path in out.rglob("*") if path.is_file() and "checkpoint-" not in str(path)]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert "The 20 most frequent of 3000 labels" in (out / "README.md").read_text()
