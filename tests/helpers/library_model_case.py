"""transformers' common model tests on the custom class.

`tests/models/test_common_model_tests.py` copies this file beside the tests of transformers' source distribution, and
runs it there, where `tests` is transformers' own package.
"""

import unittest
from typing import Any

import torch
from transformers import BertConfig

from bertcls_hf.models.modeling import TextClassifierConfig, TextClassifierForSequenceClassification
from tests.test_modeling_common import (  # type: ignore[import-not-found]
    ModelTesterMixin,
    ids_tensor,
    random_attention_mask,
)


class ModelTester:
    """Makes configurations and inputs; the names are those that the common tests read."""

    __test__ = False
    batch_size, seq_length, vocab_size, is_training = 4, 7, 99, True
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def get_config(self) -> TextClassifierConfig:
        encoder = BertConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37,
            max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        return TextClassifierConfig(encoder_config=encoder, pooling="mean", num_labels=3, dropout=0.0)

    def prepare_config_and_inputs_for_common(self) -> tuple[TextClassifierConfig, dict[str, torch.Tensor]]:
        inputs = {
            "input_ids": ids_tensor([4, 7], 99), "token_type_ids": ids_tensor([4, 7], 2),
            "attention_mask": random_attention_mask([4, 7]),
        }  # fmt: skip
        return self.get_config(), inputs


class CommonModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (TextClassifierForSequenceClassification,)

    def setUp(self) -> None:
        self.model_tester = ModelTester()

    def _prepare_for_class(self, inputs: dict[str, Any], model_class: type, return_labels: bool = False) -> Any:
        """The common tests know the labels of transformers' own classes alone."""
        prepared = super()._prepare_for_class(inputs, model_class, return_labels)
        return {**prepared, "labels": torch.zeros(4, dtype=torch.long)} if return_labels else prepared
