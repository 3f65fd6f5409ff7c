"""Lets the encoder of a run read a text that tells what each label means."""

from typing import cast

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.label_descriptions import described_labels
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.training.resolve import ResolvedRun


SPLIT = "label descriptions"


def description_tokens(resolved: ResolvedRun, tokenizer: PreTrainedTokenizerBase) -> Dataset | None:
    """Returns the tokens of the label descriptions, one row for each label; None without descriptions."""
    texts = described_labels(resolved.args, resolved.labels)
    if texts is None:
        return None
    data = ClassificationData(resolved.labels, {SPLIT: Dataset.from_dict({"text": list(texts)})})
    return cast(Dataset, tokenize(data, tokenizer, resolved.args.data, resolved.truncation)[SPLIT])


def description_vectors(
    resolved: ResolvedRun, model: TextClassifier, tokenizer: PreTrainedTokenizerBase
) -> np.ndarray | None:
    """Returns the (labels, width) float32 features of the label descriptions; None without descriptions."""
    tokens = description_tokens(resolved, tokenizer)
    if tokens is None:
        return None
    features = FeatureExtractor(model, tokenizer, resolved.args).features(SPLIT, tokens)
    return features.__getitems__(range(len(features)))["features"].numpy()
