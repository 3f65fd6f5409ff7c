"""Writes a classifier as one ONNX graph, from token ids to logits, with float32 or int8 weights.

Importing this module needs the packages of requirements-deploy.txt.
"""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.predict.engines import LOGITS


# (rows, length) int64 arrays by input name.
Batch = Mapping[str, np.ndarray]
# Computes (rows, labels) float32 logits of a batch.
Runner = Callable[[Batch], np.ndarray]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Matrix products, and look-ups in embedding tables, which hold half of the weights of a small encoder.
QUANTIZED_OPERATORS = ["MatMul", "Gemm", "Gather"]
# The size limit of a protocol buffer in bytes. A larger model has its weights in a second file.
LARGEST_FILE = 2**31 - 1


class LogitsOf(nn.Module):
    """A classifier with the graph's inputs and its only output, the logits."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits


class LexicalLogitsOf(nn.Module):
    """The lexical features of a classifier, with their logits for output."""

    def __init__(self, model: TextClassifier):
        super().__init__()
        self.lexical = model.lexical

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        assert self.lexical is not None
        return self.lexical(input_ids, attention_mask)


def graph_inputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Returns the names of the inputs that the tokenizer makes and the encoder reads, in the order of [`INPUTS`]."""
    encoder_inputs = inspect.signature(model.base_model.forward).parameters
    return tuple(name for name in INPUTS if name in encoder_inputs and name in tokenizer.model_input_names)


def export_graph(module: nn.Module, example: Batch, metadata: Mapping[str, str], path: Path) -> None:
    """Writes a module as a float32 graph that takes any number of rows and tokens.

    Args:
        module: [`LogitsOf`] or [`LexicalLogitsOf`] a model in evaluation mode.
        example: inputs of at least two rows, since the exporter could treat a dimension of 1 as constant.
        metadata: the metadata of the file; a session reads them from `get_modelmeta().custom_metadata_map`.
        path: the file to write; weights of more than 2 GB are written to a second file beside it.

    Raises:
        RuntimeError: if a step of the model's code depends on the values of a text, or has no operator in ONNX.
    """
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with _quiet():
        program = torch.onnx.export(
            module,
            kwargs={name: torch.from_numpy(values) for name, values in example.items()},
            dynamic_shapes=dict.fromkeys(example, axes),
            input_names=list(example),
            output_names=[LOGITS],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    _forget_machine(program.model)
    program.model.metadata_props.update(metadata)
    program.save(path)


def _forget_machine(model: Any) -> None:
    """Clears what the exporter notes of each node: the stack of its call, with the paths of this machine's files."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences libraries that log whole graphs and advice on their own code. Failures are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def quantize_graph(source: Path, metadata: Mapping[str, str], path: Path) -> None:
    """Writes the graph with int8 weights. It needs no data, since activations are quantised when the graph runs.

    Weights have a scale per column. They use 7 of the 8 bits, since sums can overflow on processors without VNNI.
    """
    is_large = sum(file.stat().st_size for file in source.parent.glob(f"{source.name}*")) > LARGEST_FILE
    with _quiet():
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=QUANTIZED_OPERATORS,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large,
        )
    # The quantiser drops the metadata.
    graph = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(graph, dict(metadata))
    path.write_bytes(graph.SerializeToString())


def model_runner(model: PreTrainedModel) -> Runner:
    """Returns a function that computes the logits of a PyTorch model."""

    def run(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.numpy()

    return run


def random_batch(
    tokenizer: PreTrainedTokenizerBase, names: tuple[str, ...], rows: int, length: int, generator: np.random.Generator
) -> Batch:
    """Makes random tokens between special tokens; the first row has the full length, and other rows may be padded.

    Args:
        tokenizer: the tokenizer, which has the vocabulary and the special tokens.
        names: the names of the inputs.
        rows: the number of texts.
        length: the number of tokens of the longest text.
        generator: draws the tokens and the lengths.
    """
    lengths = generator.integers(min(3, length), length, size=(rows, 1), endpoint=True)
    lengths[0] = length
    ids = generator.integers(len(tokenizer), size=(rows, length))
    if tokenizer.cls_token_id is not None:
        ids[:, 0] = tokenizer.cls_token_id
    if tokenizer.sep_token_id is not None:
        np.put_along_axis(ids, lengths - 1, tokenizer.sep_token_id, axis=1)
    positions = np.arange(length)
    mask = positions < lengths
    batch = {
        "input_ids": np.where(mask, ids, tokenizer.pad_token_id),
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": (mask & (positions >= length // 2)).astype(np.int64),
    }
    return {name: batch[name] for name in names}


def largest_difference(expected: np.ndarray, actual: np.ndarray) -> float:
    """Returns the largest difference between two arrays of logits.

    A difference is relative if the expected logit exceeds 1, and infinite if a logit is not finite.
    """
    differences = np.abs(expected - actual) / np.maximum(np.abs(expected), 1)
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max())
