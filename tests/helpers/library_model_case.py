"""transformers' common model tests on the custom classes.

`tests/models/test_common_model_tests.py` copies this file beside the tests of transformers' source distribution, and
runs it there, where `tests` is transformers' own package.
"""

import unittest
from typing import Any

import torch
from transformers import BertConfig

from bertcls_hf.models.modeling import (
    TextClassifierConfig,
    TextClassifierForSequenceClassification,
    TextClassifierModel,
)
from tests import test_modeling_common  # type: ignore[attr-defined]
from tests.test_modeling_common import (  # type: ignore[import-not-found]
    ModelTesterMixin,
    ids_tensor,
    random_attention_mask,
)


# The common tests read in these tables which class is an encoder, and which takes labels.
MODEL_TYPE = TextClassifierConfig.model_type
test_modeling_common.MODEL_MAPPING_NAMES[MODEL_TYPE] = TextClassifierModel.__name__
test_modeling_common.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[MODEL_TYPE] = (
    TextClassifierForSequenceClassification.__name__
)


class ModelTester:
    """Makes configurations and inputs; the names are those that the common tests read."""

    __test__ = False
    batch_size, seq_length, vocab_size, is_training = 4, 7, 99, True
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def __init__(self, **options: Any):
        self.options = options

    def get_config(self) -> TextClassifierConfig:
        encoder = BertConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37,
            max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        return TextClassifierConfig(encoder_config=encoder, num_labels=3, dropout=0.0, **self.options)

    def prepare_config_and_inputs_for_common(self) -> tuple[TextClassifierConfig, dict[str, torch.Tensor]]:
        inputs = {
            "input_ids": ids_tensor([4, 7], 99), "token_type_ids": ids_tensor([4, 7], 2),
            "attention_mask": random_attention_mask([4, 7]),
        }  # fmt: skip
        return self.get_config(), inputs


class CommonModelTests(ModelTesterMixin):
    all_model_classes = (TextClassifierModel, TextClassifierForSequenceClassification)
    # A test that runs for families of a known year; this one names none.
    test_can_init_all_missing_weights_before_2023 = True
    options: dict[str, Any]

    def setUp(self) -> None:
        self.model_tester = ModelTester(**self.options)


class MeanTest(CommonModelTests, unittest.TestCase):
    options = {"pooling": "mean"}


class PoolerTest(CommonModelTests, unittest.TestCase):
    options = {"pooling": "pooler", "head": "mlp"}


class WeightedTest(CommonModelTests, unittest.TestCase):
    options = {"pooling": "cls_mean", "pooling_layers": 2, "pooling_layers_merge": "weighted"}
