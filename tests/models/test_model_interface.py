"""The classifier takes and gives what a `…ForSequenceClassification` of transformers does."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

import bertcls_hf
from bertcls_hf.config.arguments import ModelArguments
from bertcls_hf.features.extractor import encoder_fingerprint
from bertcls_hf.models.loading import labels_of, load_classifier, open_checkpoint, resolve_config
from bertcls_hf.models.modeling import (
    TextClassifier,
    TextClassifierConfig,
    TextClassifierForSequenceClassification,
    TextClassifierModel,
    to_stock,
)
from tests.helpers.families import FAMILIES, INPUTS, LABELS, make_config, make_model


FAMILY_NAMES = sorted(FAMILIES)
# As a user of transformers makes one, who names no task and no loss.
TASKLESS = {"problem_type": None, "id2label": None, "label2id": None}


def logits(model: Any, **inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**(inputs or INPUTS)).logits


class TestForward:
    @pytest.mark.parametrize("family", FAMILY_NAMES)
    def test_hidden_states_and_attentions_are_those_of_the_encoder(self, family: str) -> None:
        model = make_model(FAMILIES[family], pooling="mean", attn_implementation="eager")
        asked = {"output_hidden_states": True, "output_attentions": True}
        with torch.no_grad():
            output, expected = model(**INPUTS, **asked), model.encoder(**INPUTS, **asked)
        for name in ("hidden_states", "attentions"):
            assert len(output[name]) == len(expected[name]) > 0
            assert all(map(torch.equal, output[name], expected[name]))

    @pytest.mark.parametrize("layers", [1, 2])
    def test_only_what_is_asked_for_is_returned(self, layers: int) -> None:
        model = make_model(pooling="mean", pooling_layers=layers)
        assert list(model(**INPUTS).keys()) == ["logits"]
        assert list(model(**INPUTS, output_hidden_states=True).keys()) == ["logits", "hidden_states"]

    @pytest.mark.parametrize("layers", [1, 2])
    @pytest.mark.parametrize(("asked", "given"), [([0], [0]), (2, [2]), ([-1, 1], [1, 3]), ([7], [])])
    def test_hidden_states_can_be_chosen(self, layers: int, asked: int | list[int], given: list[int]) -> None:
        model = make_model(pooling="mean", pooling_layers=layers)
        output, every = model(**INPUTS, output_hidden_states=asked), model(**INPUTS, output_hidden_states=True)
        assert [number for number, state in enumerate(output.hidden_states) if state is not None] == given
        assert all(torch.equal(output.hidden_states[number], every.hidden_states[number]) for number in given)
        assert torch.equal(output.logits, every.logits)

    def test_the_configuration_asks_too(self) -> None:
        model = make_model(pooling="mean", output_hidden_states=True, return_dict=False)
        output = model(**INPUTS, labels=torch.tensor([0, 1]))
        assert isinstance(output, tuple)
        assert [type(part) for part in output] == [torch.Tensor, torch.Tensor, tuple]
        assert model(**INPUTS, output_hidden_states=False, return_dict=True).hidden_states is None

    def test_a_tuple_starts_with_the_loss_if_there_is_one(self) -> None:
        model, gold = make_model(), torch.tensor([0, 1])
        expected = model(**INPUTS, labels=gold)
        assert torch.equal(model(**INPUTS, return_dict=False)[0], expected.logits)
        assert torch.equal(model(**INPUTS, labels=gold, return_dict=False)[0], expected.loss)
        features = model.pooled_features(**INPUTS)
        assert torch.equal(model(features=features, return_dict=False)[0], expected.logits)

    @pytest.mark.parametrize("family", FAMILY_NAMES)
    @pytest.mark.parametrize("options", [{"pooling": "mean"}, {"pooling": "cls_mean", "pooling_layers": 2}])
    def test_embeddings_stand_for_ids(self, family: str, options: dict[str, Any]) -> None:
        model = make_model(FAMILIES[family], **options)
        embeddings = model.get_input_embeddings()(INPUTS["input_ids"])
        mask = INPUTS["attention_mask"]
        # Families that count positions from the padding id cannot see padding in embeddings.
        given = logits(model, inputs_embeds=embeddings[:1], attention_mask=mask[:1])
        torch.testing.assert_close(given, logits(model)[:1])
        torch.testing.assert_close(logits(model, inputs_embeds=embeddings[:1]), given)

    def test_position_ids_and_further_arguments_reach_the_encoder(self) -> None:
        model, reached = make_model(), {}
        model.encoder.register_forward_pre_hook(lambda _, args, inputs: reached.update(inputs), with_kwargs=True)
        counted = torch.arange(6)[None]
        torch.testing.assert_close(logits(model, **INPUTS, position_ids=counted), logits(model))
        assert not torch.equal(logits(model, **INPUTS, position_ids=counted + 3), logits(model))
        logits(model, **INPUTS, use_cache=False)
        assert reached["use_cache"] is False

    def test_the_arguments_are_in_the_order_of_transformers(self) -> None:
        types = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
        given = (
            INPUTS["input_ids"],
            INPUTS["attention_mask"],
            types,
            torch.arange(6)[None],
            None,
            torch.tensor([0, 1]),
        )
        ours = make_model(pooling="pooler")
        stock = to_stock(ours)
        assert stock is not None
        torch.testing.assert_close(ours(*given).loss, stock(*given).loss)

    @pytest.mark.parametrize("inputs", [{}, {**INPUTS, "inputs_embeds": torch.zeros(2, 6, 16)}])
    def test_no_input_or_two_are_refused(self, inputs: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="give input_ids, or inputs_embeds or features"):
            make_model()(**inputs)


class TestLabels:
    @pytest.mark.parametrize(
        ("columns", "gold", "task"),
        [
            (1, torch.tensor([0.5, 2.0]), "regression"),
            (3, torch.tensor([0, 2]), "single_label_classification"),
            (3, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), "multi_label_classification"),
        ],
    )
    def test_the_task_is_inferred_as_in_the_stock_class(self, columns: int, gold: torch.Tensor, task: str) -> None:
        model = make_model(pooling="pooler", num_labels=columns, **TASKLESS)
        stock = to_stock(model)
        assert stock is not None
        torch.testing.assert_close(model(**INPUTS, labels=gold).loss, stock(**INPUTS, labels=gold).loss)
        assert model.config.problem_type == stock.config.problem_type == task

    def test_the_task_alone_decides_the_loss(self) -> None:
        gold, predicted = (
            torch.tensor([0.5, 2.0]),
            make_model(num_labels=1, **{**TASKLESS, "problem_type": "regression"}),
        )
        output = predicted(**INPUTS, labels=gold)
        torch.testing.assert_close(output.loss, F.mse_loss(output.logits.squeeze(-1), gold))
        several = make_model(problem_type="regression")
        gold = torch.rand(2, 3)
        output = several(**INPUTS, labels=gold)
        torch.testing.assert_close(output.loss, F.mse_loss(output.logits, gold))

    @pytest.mark.parametrize(
        ("task", "gold", "said"),
        [
            ("single_label_classification", torch.tensor([0, 1, 2]), r"shape \(3,\), .* takes \(2,\)"),
            ("single_label_classification", torch.tensor([0.0, 1.0]), "torch.float32, .* takes integers"),
            ("multi_label_classification", torch.tensor([0, 1]), r"shape \(2,\), .* takes \(2, 3\)"),
            ("multi_label_classification", torch.zeros(3, 2), r"shape \(3, 2\), .* takes \(2, 3\)"),
            ("regression", torch.zeros(2), r"shape \(2,\), .* takes \(2, 3\)"),
        ],
    )
    def test_labels_of_another_shape_are_refused(self, task: str, gold: torch.Tensor, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            make_model(problem_type=task)(**INPUTS, labels=gold)

    def test_a_column_of_labels_is_read(self) -> None:
        model = make_model()
        loss = model(**INPUTS, labels=torch.tensor([0, 1])).loss
        assert torch.equal(model(**INPUTS, labels=torch.tensor([[0], [1]], dtype=torch.int32)).loss, loss)


class TestConfiguration:
    @pytest.mark.parametrize("option", [{"pooling": "min"}, {"head": "big"}, {"loss": "hinge"}])
    def test_unknown_values_are_refused(self, option: dict[str, str]) -> None:
        ((name, value),) = option.items()
        with pytest.raises(ValueError, match=f"{name}='{value}': use one of"):
            TextClassifierConfig(**option)

    def test_sizes_of_the_encoder_can_be_read_and_set(self) -> None:
        config = make_config(copy.deepcopy(FAMILIES["bert"]))
        assert (config.vocab_size, config.num_hidden_layers, config.hidden_size) == (50, 3, 16)
        config.vocab_size = 60
        assert config.encoder_config.vocab_size == 60
        assert "vocab_size" not in config.to_dict()

    def test_it_equals_its_copy_and_its_saved_self(self, tmp_path: Path) -> None:
        config = make_config(pooling="mean")
        assert config == copy.deepcopy(config)
        assert config != make_config(pooling="max")
        config.save_pretrained(tmp_path)
        loaded = AutoConfig.from_pretrained(tmp_path)
        assert type(loaded) is TextClassifierConfig
        ignored = {"auto_map", "transformers_version", "_name_or_path"}
        expected = {name: value for name, value in config.to_dict().items() if name not in ignored}
        assert {name: value for name, value in loaded.to_dict().items() if name not in ignored} == expected

    def test_class_weights_of_other_labels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="class_weights has 2 numbers for 3 labels"):
            make_model(class_weights=[1.0, 2.0])(**INPUTS, labels=torch.tensor([0, 1]))


class TestLoading:
    def test_a_saved_folder_names_every_auto_class(self, tmp_path: Path) -> None:
        model = make_model(pooling="mean")
        model.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["architectures"] == ["TextClassifierForSequenceClassification"]
        assert saved["auto_map"] == {
            "AutoConfig": "modeling.TextClassifierConfig",
            "AutoModel": "modeling.TextClassifierModel",
            "AutoModelForSequenceClassification": "modeling.TextClassifierForSequenceClassification",
        }
        assert TextClassifier is TextClassifierForSequenceClassification is bertcls_hf.TextClassifier

    @pytest.mark.parametrize("pooling", ["mean", "pooler"])
    def test_automodel_gives_the_encoder(self, tmp_path: Path, pooling: str) -> None:
        model = make_model(pooling=pooling, head="mlp")
        model.save_pretrained(tmp_path)
        encoder, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert type(encoder) is TextClassifierModel
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        with torch.no_grad():
            given, expected = encoder.eval()(**INPUTS, output_hidden_states=True), model.encoder(**INPUTS)
            assert torch.equal(encoder(**INPUTS, return_dict=False)[0], expected.last_hidden_state)
        assert torch.equal(given[0], expected.last_hidden_state)
        assert len(given.hidden_states) == 4
        assert (given.pooler_output is not None) == (pooling == "pooler")

    def test_the_encoder_alone_is_no_trained_classifier(self, tmp_path: Path) -> None:
        model = make_model(pooling="pooler")
        model.save_pretrained(tmp_path / "classifier")
        AutoModel.from_pretrained(tmp_path / "classifier").save_pretrained(tmp_path / "encoder")
        args = ModelArguments(model_name_or_path=str(tmp_path / "encoder"))
        checkpoint = open_checkpoint(args)
        assert labels_of(checkpoint.config) is None
        loaded = load_classifier(args, checkpoint, resolve_config(args, checkpoint, LABELS))
        assert encoder_fingerprint(loaded) == encoder_fingerprint(model)

    @pytest.mark.parametrize("stored", [BertModel, BertForPreTraining, BertForSequenceClassification])
    @pytest.mark.parametrize("options", [{}, {"pooling": "mean", "pooling_layers_merge": "weighted"}])
    def test_the_folder_of_an_encoder_gets_a_new_head(
        self, tmp_path: Path, stored: Any, options: dict[str, Any]
    ) -> None:
        torch.manual_seed(0)
        encoder = stored(copy.deepcopy(FAMILIES["bert"]))
        encoder.save_pretrained(tmp_path)
        model, info = TextClassifier.from_pretrained(tmp_path, num_labels=4, output_loading_info=True, **options)
        assert info["missing_keys"]
        assert all(name.startswith("head.") for name in info["missing_keys"])
        kept = model.encoder.state_dict()
        assert all(
            torch.equal(kept[name], value) for name, value in encoder.base_model.state_dict().items() if name in kept
        )
        assert len(kept) >= 53
        assert model.config.name_or_path == str(tmp_path)
        assert not model.training
        assert logits(model).shape == (2, 4)
        if options:
            assert model.head.layer_weights.tolist() == [0.0]

    def test_the_folder_of_a_stock_classifier_lends_its_labels_and_number_format(self, tmp_path: Path) -> None:
        config = copy.deepcopy(FAMILIES["bert"])
        config.id2label, config.label2id = LABELS.id2label, LABELS.label2id
        BertForSequenceClassification(config).save_pretrained(tmp_path)
        model = TextClassifier.from_pretrained(tmp_path, dtype=torch.float16)
        assert model.config.id2label == LABELS.id2label
        assert {value.dtype for value in model.parameters()} == {torch.float16}
        own = TextClassifier.from_pretrained(tmp_path, config=make_config(pooling="max", head="mlp"))
        assert own.config.pooling == "max"

    @pytest.mark.parametrize("loader", [TextClassifier, AutoModelForSequenceClassification])
    def test_other_labels_get_a_new_projection(self, tmp_path: Path, loader: Any) -> None:
        model = make_model(pooling="mean", head="mlp")
        model.save_pretrained(tmp_path)
        other = loader.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
        assert logits(other).shape == (2, 5)
        assert torch.equal(other.head.dense.weight, model.head.dense.weight)

    def test_a_folder_of_an_earlier_version_is_read(self, tmp_path: Path) -> None:
        model = make_model(pooling="mean", head="mlp")
        model.save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        saved = json.loads(path.read_text())
        saved["architectures"] = ["TextClassifier"]
        saved["auto_map"] = {
            "AutoConfig": "modeling.TextClassifierConfig",
            "AutoModelForSequenceClassification": "modeling.TextClassifier",
        }
        path.write_text(json.dumps({**saved, "loss": "cross_entropy"}))
        for trusts in (False, True):
            loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=trusts).eval()
            assert type(loaded) is TextClassifier
            assert torch.equal(logits(loaded), logits(model))
        assert labels_of(AutoConfig.from_pretrained(tmp_path)) == LABELS


class TestOtherUses:
    @pytest.mark.parametrize("family", FAMILY_NAMES)
    def test_more_tokens_are_saved_and_read(self, tmp_path: Path, family: str) -> None:
        model = make_model(copy.deepcopy(FAMILIES[family]), pooling="mean")
        before = logits(model)
        model.resize_token_embeddings(60)
        assert model.config.vocab_size == model.encoder.config.vocab_size == 60
        torch.testing.assert_close(logits(model), before)
        model.save_pretrained(tmp_path)
        loaded = TextClassifier.from_pretrained(tmp_path).eval()
        assert loaded.get_input_embeddings().num_embeddings == loaded.config.vocab_size == 60
        assert torch.equal(logits(loaded), logits(model))

    def test_more_tokens_can_be_saved_as_the_stock_class(self) -> None:
        model = make_model(copy.deepcopy(FAMILIES["bert"]), pooling="pooler")
        model.resize_token_embeddings(60)
        stock = to_stock(model)
        assert stock is not None
        torch.testing.assert_close(logits(stock), logits(model))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("options", [{"pooling": "mean"}, {"pooling": "pooler", "head": "mlp"}])
    def test_dynamic_quantisation_of_torch(self, options: dict[str, Any]) -> None:
        model = make_model(**options)
        quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        torch.testing.assert_close(logits(quantised), logits(model), rtol=0, atol=0.05)
        assert not torch.equal(logits(quantised), logits(model))

    def test_a_cross_encoder_reads_a_saved_folder(self, tiny_bert: Path, tmp_path: Path) -> None:
        sentence_transformers = pytest.importorskip("sentence_transformers")
        from transformers import AutoTokenizer

        model = make_model(BertConfig.from_pretrained(tiny_bert), pooling="mean")
        model.save_pretrained(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
        tokenizer.save_pretrained(tmp_path)
        reader = sentence_transformers.CrossEncoder(str(tmp_path), trust_remote_code=True, device="cpu")
        given = reader.predict([("a good film", "a bad story")], apply_softmax=False)
        expected = logits(model, **tokenizer("a good film", "a bad story", return_tensors="pt"))
        torch.testing.assert_close(torch.as_tensor(given), expected, rtol=0, atol=1e-5)

    def test_lora_of_peft(self, tmp_path: Path) -> None:
        peft = pytest.importorskip("peft")
        options = peft.LoraConfig(
            task_type=peft.TaskType.SEQ_CLS, r=2, target_modules=["query", "value"], modules_to_save=["head"]
        )
        model = make_model(pooling="mean")
        expected = logits(model)
        adapted = peft.get_peft_model(model, options)
        torch.testing.assert_close(adapted(**INPUTS).logits, expected)
        adapted(**INPUTS, labels=torch.tensor([0, 1])).loss.backward()
        learns = {name for name, value in adapted.named_parameters() if value.grad is not None}
        assert any("lora_B" in name for name in learns)
        assert any("head.modules_to_save" in name for name in learns)


FROM_A_FOLDER = """
import json, sys
sys.modules["bertcls_hf"] = None  # as where the package is not installed
import torch
from transformers import AutoModel, AutoModelForSequenceClassification
folder, batch = sys.argv[1], {name: torch.tensor(value) for name, value in json.loads(sys.argv[2]).items()}
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
encoder = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
with torch.no_grad():
    result = {"logits": model(**batch).logits.tolist(), "states": encoder(**batch)[0].tolist()}
print(json.dumps({**result, "classes": [type(model).__name__, type(encoder).__name__]}))
"""


@pytest.mark.slow
def test_the_code_in_the_folder_serves_every_auto_class(tmp_path: Path) -> None:
    model = make_model(pooling="mean", pooling_layers=2)
    model.save_pretrained(tmp_path)
    batch = json.dumps({name: value.tolist() for name, value in INPUTS.items()})
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", FROM_A_FOLDER, str(tmp_path), batch]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert read["classes"] == ["TextClassifierForSequenceClassification", "TextClassifierModel"]
    torch.testing.assert_close(torch.tensor(read["logits"]), logits(model), rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = model.encoder(**INPUTS).last_hidden_state
    torch.testing.assert_close(torch.tensor(read["states"]), expected, rtol=0, atol=1e-5)
