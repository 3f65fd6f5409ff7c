"""Batches without padding give the losses, weights and predictions of padded ones."""

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers.integrations import flash_attention

from bertcls_hf.models.modeling import TextClassifier, encoder_has_pooler
from bertcls_hf.models.padding_free import PADDING_FREE_FAMILIES, PADDING_FREE_SDPA, compute_without_padding
from bertcls_hf.run import main
from tests.helpers.families import FAMILIES, make_model
from tests.helpers.reviews import write_reviews
from tests.helpers.training_runs import assert_same_run, losses, without_dropout


# More tokens in a row than any family here has positions; ModernBERT's window is narrower than the longest text.
TEXTS = [[1, 5, 6, 7, 8, 2], [1, 9, 10, 2], [1, 3, 2], [1, *range(4, 39), 2], [1, 11, 12, 13, 14, 15, 2]]
LABELS = [0, 2, 1, 1, 0]
POOLINGS: dict[str, dict[str, Any]] = {
    "pooler": {"pooling": "pooler"},
    "cls": {"pooling": "cls", "head": "mlp"},
    "mean": {"pooling": "mean"},
    "max": {"pooling": "max"},
    "cls_mean": {"pooling": "cls_mean"},
    "layers": {"pooling": "mean", "pooling_layers": 3},
    "averaged": {"pooling": "cls_mean", "pooling_layers": 2, "pooling_layers_merge": "mean"},
    "weighted": {"pooling": "max", "pooling_layers": 2, "pooling_layers_merge": "weighted"},
}
CASES = [
    (family, pooling)
    for family in sorted(PADDING_FREE_FAMILIES)
    for pooling in POOLINGS
    if pooling != "pooler" or encoder_has_pooler(FAMILIES[family])
]


def padded(texts: list[list[int]] = TEXTS) -> dict[str, torch.Tensor]:
    longest = max(map(len, texts))
    return {
        "input_ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids in texts]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts]),
        "labels": torch.tensor(LABELS[: len(texts)]),
    }


def gradients(model: TextClassifier, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of a batch, and each parameter's gradient."""
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    return output.logits, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def padding_free(model: TextClassifier, attention: str | None = None) -> TextClassifier:
    """The same model, whose attention may be set first."""
    if attention is not None:
        model.encoder.config._attn_implementation_internal = attention
    compute_without_padding(model)
    return model


class TestEncoder:
    def test_texts_stand_in_one_row(self) -> None:
        model = padding_free(make_model(pooling="mean", pooling_layers=2))
        reached: dict[str, Any] = {}
        model.encoder.register_forward_pre_hook(lambda _, args, inputs: reached.update(inputs), with_kwargs=True)
        model(
            input_ids=torch.tensor([[1, 5, 2], [1, 2, 0]]),
            token_type_ids=torch.tensor([[0, 0, 1], [0, 1, 0]]),
            attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]),
        )
        assert reached["input_ids"].tolist() == [[1, 5, 2, 1, 2]]
        assert reached["token_type_ids"].tolist() == [[0, 0, 1, 0, 1]]
        assert reached["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
        for name in ("cu_seq_lens_q", "cu_seq_lens_k"):
            assert (reached[name].tolist(), reached[name].dtype) == ([0, 3, 5], torch.int32)
        assert reached["max_length_q"] == reached["max_length_k"] == 3

    @pytest.mark.parametrize("family", sorted(PADDING_FREE_FAMILIES))
    def test_its_outputs_are_those_of_a_batch(self, family: str) -> None:
        kind = "pooler" if encoder_has_pooler(FAMILIES[family]) else "mean"
        model = make_model(FAMILIES[family], pooling=kind)
        batch = {name: values for name, values in padded().items() if name != "labels"}
        rows = batch["attention_mask"].unsqueeze(-1)
        with torch.no_grad():
            expected = model.encoder(**batch, output_hidden_states=True)
            found = padding_free(model).encoder(**batch, output_hidden_states=True)
        assert found.keys() == expected.keys()
        states = [(found.last_hidden_state, expected.last_hidden_state)]
        for state, other in [*states, *zip(found.hidden_states, expected.hidden_states, strict=True)]:
            torch.testing.assert_close(state, other * rows, rtol=0, atol=1e-5)
        if kind == "pooler":
            torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=0, atol=1e-5)

    def test_padding_is_never_computed(self) -> None:
        model = padding_free(make_model(pooling="pooler"))
        tokens: list[int] = []
        model.encoder.embeddings.register_forward_hook(lambda _, args, states: tokens.append(states[..., 0].numel()))
        model(**padded())
        assert tokens == [sum(map(len, TEXTS))]


class TestModel:
    @pytest.mark.parametrize("attention", [PADDING_FREE_SDPA, "sdpa", "eager"])
    @pytest.mark.parametrize(("family", "pooling"), CASES)
    def test_it_computes_what_padding_does(self, family: str, pooling: str, attention: str) -> None:
        asked = "eager" if attention == "eager" else "sdpa"
        model = make_model(FAMILIES[family], **POOLINGS[pooling], attn_implementation=asked)
        logits, by_padding = gradients(model, padded())
        padding_free(model)
        if attention == "sdpa":
            model.encoder.set_attn_implementation("sdpa")  # Sees the whole row, as eager attention does.
        assert model.encoder.config._attn_implementation == attention
        row_logits, by_row = gradients(model, padded())
        torch.testing.assert_close(row_logits, logits, rtol=0, atol=1e-5)
        assert by_row.keys() == by_padding.keys()
        for name, gradient in by_padding.items():
            torch.testing.assert_close(by_row[name], gradient, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_texts_do_not_see_each_other(self, attention: str) -> None:
        model = padding_free(make_model(pooling="mean"), attention)
        others = [*TEXTS[:3], [1, *range(39, 50), 2], TEXTS[4]]
        with torch.no_grad():
            before, after = model(**padded()).logits, model(**padded(others)).logits
        kept = [0, 1, 2, 4]
        torch.testing.assert_close(after[kept], before[kept])
        assert (after[3] - before[3]).abs().max() > 1e-3

    def test_sentence_pairs(self) -> None:
        model = make_model(pooling="pooler")
        segments = [[0] * 2 + [1] * (len(ids) - 2) for ids in TEXTS]
        longest = max(map(len, TEXTS))
        types = torch.tensor([row + [0] * (longest - len(row)) for row in segments])
        with torch.no_grad():
            expected = model(**padded(), token_type_ids=types).logits
            padding_free(model)
            torch.testing.assert_close(model(**padded(), token_type_ids=types).logits, expected, rtol=0, atol=1e-5)
            assert (model(**padded()).logits - expected).abs().max() > 1e-4

    def test_one_text_alone(self) -> None:
        model = make_model(pooling="cls_mean")
        with torch.no_grad():
            expected = model(**padded(TEXTS[:1])).logits
            padding_free(model)
            torch.testing.assert_close(model(**padded(TEXTS[:1])).logits, expected, rtol=0, atol=1e-5)
            # Without a mask there is no padding.
            ids = padded(TEXTS[:1])["input_ids"]
            torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-5)

    def test_it_is_saved_as_any_other(self, tmp_path: Path) -> None:
        model = make_model(pooling="mean", pooling_layers=2)
        model.save_pretrained(tmp_path / "padded")
        padding_free(model).save_pretrained(tmp_path / "flat")
        names = sorted(path.name for path in (tmp_path / "padded").iterdir())
        assert names == sorted(path.name for path in (tmp_path / "flat").iterdir())
        for name in names:
            assert (tmp_path / "flat" / name).read_bytes() == (tmp_path / "padded" / name).read_bytes()
        assert "cu_seq_lens" not in (tmp_path / "flat/modeling.py").read_text()

    def test_a_copy_computes_alike(self) -> None:
        model = padding_free(make_model(pooling="cls"))
        with torch.no_grad():
            assert torch.equal(copy.deepcopy(model)(**padded()).logits, model(**padded()).logits)

    @pytest.mark.parametrize("family", sorted(PADDING_FREE_FAMILIES))
    def test_flash_attention_is_told_where_texts_start(self, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The kernel needs a GPU; here, text by text, is what it computes from the arguments that reach it."""
        calls = []

        def kernel(
            query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None, *, softmax_scale: float,
            is_causal: bool, cu_seq_lens_q: torch.Tensor, cu_seq_lens_k: torch.Tensor, max_length_q: int,
            max_length_k: int, sliding_window: int | None, **options: Any,
        ) -> torch.Tensor:  # fmt: skip
            calls.append(sliding_window)
            assert attention_mask is None
            assert not is_causal
            lengths = cu_seq_lens_q.diff().tolist()
            assert torch.equal(cu_seq_lens_q, cu_seq_lens_k)
            assert max_length_q == max_length_k == max(lengths)
            texts = []
            for parts in zip(*(states[0].split(lengths) for states in (query, key, value)), strict=True):
                places = torch.arange(len(parts[0]))
                distance = (places.unsqueeze(0) - places.unsqueeze(1)).abs()
                # The kernel's window reaches one token less far than the number that the library takes.
                near = None if sliding_window is None else distance < sliding_window
                q, k, v = (part.transpose(0, 1) for part in parts)
                texts.append(F.scaled_dot_product_attention(q, k, v, near, scale=softmax_scale).transpose(0, 1))
            return torch.cat(texts).unsqueeze(0)

        monkeypatch.setattr(flash_attention, "_flash_attention_forward", kernel)
        model = make_model(FAMILIES[family], pooling="mean")
        with torch.no_grad():
            expected = model(**padded()).logits
            padding_free(model, "flash_attention_2")
            torch.testing.assert_close(model(**padded()).logits, expected, rtol=0, atol=1e-5)
        assert len(calls) == 3
        assert any(window is not None for window in calls) == (family == "modernbert")


class TestRun:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"train_sampling_strategy": "random", "pooling": "mean", "pooling_layers": 2},
            {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 5, "class_weights": "balanced"},
            {"freeze_backbone": True, "head_learning_rate": 0.01},
        ],
        ids=["bucketed", "shuffled", "accumulated", "frozen"],
    )
    def test_it_trains_and_evaluates_as_a_padded_one(
        self, command: Callable[..., list[str]], tmp_path: Path, options: dict[str, Any]
    ) -> None:
        options = {**options, "model_name_or_path": without_dropout(command, tmp_path), "dropout": 0.0,
                   "do_train": True, "do_eval": True, "do_predict": True}  # fmt: skip
        assert main(command(**options, output_dir=tmp_path / "padded")) == 0
        assert main(command(**options, output_dir=tmp_path / "flat", padding_free=True)) == 0
        assert len(losses(tmp_path / "flat")) in {8, 12}
        assert_same_run(tmp_path / "padded", tmp_path / "flat")

    @pytest.mark.parametrize("pooling", ["pooler", "mean"])
    def test_its_model_reads_padded_batches(
        self, command: Callable[..., list[str]], tmp_path: Path, pooling: str
    ) -> None:
        options = {"pooling": pooling, "do_train": True, "do_eval": True, "padding_free": True}
        assert main(command(**options)) == 0
        assert main(command(model_name_or_path=tmp_path / "out", output_dir=tmp_path / "again", do_eval=True)) == 0
        first, again = (json.loads((tmp_path / name / "eval_results.json").read_text()) for name in ("out", "again"))
        assert again["eval_loss"] == pytest.approx(first["eval_loss"], abs=1e-6)
        assert again["eval_accuracy"] == first["eval_accuracy"]
        saved = [tmp_path / "out/config.json", *tmp_path.glob("out/checkpoint-*/config.json")]
        assert len(saved) == 3
        assert not any("padding_free" in path.read_text() for path in saved)

    def test_resume_is_exact(self, command: Callable[..., list[str]], tmp_path: Path) -> None:
        options = {"padding_free": True, "do_predict": True, "do_train": True, "do_eval": True}
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        assert main(command(**options, output_dir=whole)) == 0
        (cut / "checkpoint-6").parent.mkdir()
        (whole / "checkpoint-6").rename(cut / "checkpoint-6")
        assert main(command(**options, output_dir=cut, resume_from_checkpoint="true")) == 0
        assert_same_run(whole, cut)

    def test_a_stream_resumes_exactly(self, command: Callable[..., list[str]], tmp_path: Path) -> None:
        for number in range(3):
            write_reviews(tmp_path / f"part-{number}.csv", 20 + number, start=number * 30)
        options = {"train_file": tmp_path / "part-*.csv", "streaming": True, "num_train_epochs": None, "max_steps": 8,
                   "shuffle_buffer_size": 16, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 4,
                   "do_train": True, "do_eval": True, "do_predict": True, "dropout": 0.0,
                   "model_name_or_path": without_dropout(command, tmp_path)}  # fmt: skip
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        assert main(command(**options, padding_free=True, output_dir=whole)) == 0
        cut.mkdir()
        (whole / "checkpoint-4").rename(cut / "checkpoint-4")
        assert main(command(**options, padding_free=True, output_dir=cut, resume_from_checkpoint="true")) == 0
        assert_same_run(whole, cut)
        assert main(command(**options, output_dir=tmp_path / "padded")) == 0
        assert_same_run(whole, tmp_path / "padded")

    @pytest.mark.parametrize(("attention", "warnings"), [(None, 0), ("sdpa", 0), ("eager", 1)])
    def test_it_warns_of_attention_that_is_slower(
        self, command: Callable[..., list[str]], caplog: pytest.LogCaptureFixture, attention: str | None, warnings: int
    ) -> None:
        with caplog.at_level(logging.WARNING):
            assert main(command(padding_free=True, max_steps=1, attn_implementation=attention)) == 0
        assert caplog.text.count("--padding_free with --attn_implementation eager compares each token") == warnings


class TestRefused:
    def test_boost(self, command: Callable[..., list[str]], capsys: pytest.CaptureFixture) -> None:
        assert main(command(boost=True, padding_free=True)) == 2
        assert "--padding_free: --boost extracts texts of like length" in capsys.readouterr().err

    @pytest.mark.parametrize("family", ["deberta-v2", "mpnet"])
    def test_a_family_that_cannot(
        self, command: Callable[..., list[str]], tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
        family: str,
    ) -> None:  # fmt: skip
        FAMILIES[family].save_pretrained(tmp_path / family)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / family / name).write_bytes((tiny_bert / name).read_bytes())
        # Neither weights nor data are looked at first.
        broken = tmp_path / "broken.csv"
        broken.write_text("text,label\n")
        options = {"model_name_or_path": tmp_path / family, "train_file": broken, "padding_free": True}
        assert main(command(**options)) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            f"error: --padding_free: {family} cannot keep the texts of one row apart; albert, bert,"
        )
        assert len(error.splitlines()) == 1
