"""A trained classifier at work: texts of any length in, logits or labels out, in the order of the texts."""

import hashlib
import inspect
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.data.python_packages import is_packaged, packaged_model
from bertcls_hf.data.tokenization import NO_LIMIT, TOKEN_COLUMNS, encode_texts, pad_flat_texts
from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.metrics.calibration import CALIBRATION_FILE, Calibration, read_calibration
from bertcls_hf.models.fingerprints import tokenizer_fingerprint, weights_fingerprint
from bertcls_hf.models.loading import Checkpoint, labels_of
from bertcls_hf.models.token_batches import bound_kernel_cache, run_batches, token_budget, token_budget_batches


logger = logging.getLogger(__name__)

InferenceDtype = Literal["float32", "float16", "bfloat16"]
# Token ids go into arrays after so many texts or characters: what a tokenizer returns takes many times the memory.
TOKENIZED_ROWS, TOKENIZED_CHARACTERS = 1024, 2**22
# Where a model lies, and who saved it, are in its settings too.
_NOT_OF_THE_NUMBERS = re.compile(r'"(?:_name_or_path|transformers_version)": (?:"[^"]*"|null)')


@dataclass(frozen=True)
class Prediction:
    """What a model says of one text.

    Args:
        label: a name, the names of a multi-label task, or the number of a regression.
        probabilities: by label name, in the order of the model's labels; None for regression.
    """

    label: str | list[str] | float
    probabilities: dict[str, float] | None


@dataclass(frozen=True)
class ReadPart:
    """What a model reads of a text that may be too long for it.

    Args:
        text: the part itself.
        tokens: how many the model reads, special ones included.
        all_tokens: how many the whole text has.
    """

    text: str
    tokens: int
    all_tokens: int


class Predictor:
    """A trained classifier for inference; calls from several threads take turns.

    Args:
        model: any `…ForSequenceClassification`; it is put into evaluation mode.
        tokenizer: the one that it was trained with; it cuts texts at its `model_max_length`.
        labels: name the model's outputs.
        calibration: stands between logits and labels.
        tokens_per_batch: tokens of a batch, padding included; by default what suits the device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: LabelSet,
        calibration: Calibration = Calibration(),  # noqa: B008 - frozen
        tokens_per_batch: int | None = None,
    ):
        self.model, self.tokenizer, self.labels, self.calibration = model.eval(), tokenizer, labels, calibration
        self.tokens_per_batch = tokens_per_batch or token_budget(model.device)
        self._inputs = frozenset(inspect.signature(model.forward).parameters)
        self._lock = threading.Lock()

    @property
    def max_seq_length(self) -> int:
        """Longer texts are cut to so many tokens."""
        return self.tokenizer.model_max_length

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        revision: str = "main",
        trust_remote_code: bool = False,
        device: str | None = None,
        dtype: InferenceDtype = "float32",
        max_seq_length: int | None = None,
        calibrated: bool = True,
    ) -> "Predictor":
        """Loads a trained classifier.

        Args:
            model: an output_dir, a Hub id or pypi:PACKAGE.
            revision: branch, tag or commit on the Hub.
            trust_remote_code: whether to run code that the model brings along; models of this package need none here.
            device: such as `cpu` or `cuda:1`; by default an accelerator where there is one.
            dtype: of weights and arithmetic; logits are float32 in any case.
            max_seq_length: by default the length that the model was trained at, which its tokenizer knows.
            calibrated: whether to apply the calibration that the model brings along, if it does.

        Raises:
            ArgumentsError: no such model, one that is no trained classifier, or one that this device or length does
                not fit.
        """
        place = _resolve_device(device)
        if dtype == "float16" and place.type == "cpu":
            raise ArgumentsError("float16 is for accelerators: on a processor use float32 or bfloat16")
        bound_kernel_cache(place)
        path = str(packaged_model(model)) if is_packaged(model) else model
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        try:
            checkpoint = _open(path, options)
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
            tokenizer.model_max_length = _resolve_length(max_seq_length, tokenizer, checkpoint.position_limit)
            classifier = _load_model(path, options, getattr(torch, dtype)).to(place)
            labels = checkpoint.labels
            assert labels is not None
            calibration = _find_calibration(path, revision, labels) if calibrated else Calibration()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ArgumentsError(f"{model}: {one_line(error)}") from error
        return cls(classifier, tokenizer, labels, calibration)

    def fingerprint(self) -> str:
        """A hash of all that the logits depend on besides the texts: weights, settings, tokenizer and length."""
        settings = json.dumps(self.model.config.to_dict(), sort_keys=True, default=str)
        content = [
            weights_fingerprint(self.model.state_dict()),
            _NOT_OF_THE_NUMBERS.sub("", settings),
            tokenizer_fingerprint(self.tokenizer),
            self.tokenizer.truncation_side,
            str(self.max_seq_length),
        ]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()[:32]

    def logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """(rows, labels) float32, in the order of the texts.

        Args:
            texts: one per row; empty ones are classified too.
            pairs: the second text of each row, for a model of sentence pairs.
            progress: called with the numbers of texts and tokens after each batch, from whatever thread ran it.
        """
        with self._lock, torch.inference_mode():
            columns = self._tokenize(texts, pairs)
            lengths = np.array([len(ids) for ids in columns["input_ids"]], dtype=np.int64)
            order = np.argsort(-lengths, kind="stable")
            logits = np.empty((len(texts), len(self.labels.names)), dtype=np.float32)

            def classify(batch: slice) -> None:
                rows = order[batch]
                # Threads of their own are in no mode of the thread that started them.
                with torch.inference_mode():
                    outputs = self.model(**self._batch(columns, rows, lengths[rows]))
                    logits[rows] = outputs.logits.float().cpu().numpy()
                if progress is not None:
                    progress(len(rows), int(lengths[rows].sum()))

            batches = token_budget_batches(lengths[order], self.tokens_per_batch)
            run_batches(classify, batches, self.model.device)
        return logits

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """A label and probabilities for each text, calibrated; see [`logits`]."""
        scores = self.calibration.probabilities(self.logits(texts, pairs), self.labels)
        predicted = self.calibration.predicted(scores, self.labels)
        rows = zip(scores, predicted, strict=True)
        return [Prediction(self.labels.readable(label), self._named(score)) for score, label in rows]

    def read_part(self, text: str) -> ReadPart:
        """The part of a text that is left when it is cut to `max_seq_length` tokens.

        It is the whole text where the tokenizer, one without offsets, does not say.
        """
        has_offsets = self.tokenizer.is_fast
        with self._lock:
            all_tokens = len(self.tokenizer(text, verbose=False)["input_ids"])
            cut = self.tokenizer(text, truncation=True, return_offsets_mapping=has_offsets)
        tokens = len(cut["input_ids"])
        read = [(start, end) for start, end in cut.get("offset_mapping", []) if end > start]
        is_whole = tokens == all_tokens or not read
        return ReadPart(text if is_whole else text[read[0][0] : read[-1][1]], tokens, all_tokens)

    def _named(self, score: Any) -> dict[str, float] | None:
        if self.labels.problem_type == REGRESSION:
            return None
        return {name: float(value) for name, value in zip(self.labels.names, score, strict=True)}

    def _tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, list[np.ndarray]]:
        """Token ids and, where the model reads them, token types: an int32 array per text."""
        columns: dict[str, list[np.ndarray]] = {"input_ids": []}
        for part in _parts(texts, pairs):
            encoded = encode_texts(self.tokenizer, texts[part], None if pairs is None else pairs[part])
            for name in self._inputs.intersection(TOKEN_COLUMNS).intersection(encoded):
                columns.setdefault(name, []).extend(np.asarray(ids, dtype=np.int32) for ids in encoded[name])
        return columns

    def _batch(
        self, columns: dict[str, list[np.ndarray]], rows: np.ndarray, lengths: np.ndarray
    ) -> dict[str, torch.Tensor]:
        tokens = {name: np.concatenate([column[row] for row in rows]) for name, column in columns.items()}
        batch = pad_flat_texts(tokens, lengths, self.tokenizer)
        return {name: values.to(self.model.device) for name, values in batch.items()}


def _parts(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[slice]:
    """Consecutive rows, up to so many, and up to so many characters; a longer one comes alone."""
    start = characters = 0
    for row, text in enumerate(texts):
        size = len(text) + (0 if pairs is None else len(pairs[row]))
        if row > start and (row - start == TOKENIZED_ROWS or characters + size > TOKENIZED_CHARACTERS):
            yield slice(start, row)
            start, characters = row, 0
        characters += size
    if start < len(texts):
        yield slice(start, len(texts))


def _resolve_device(name: str | None) -> torch.device:
    try:
        device = torch.device(name) if name else torch.accelerator.current_accelerator(check_available=True)
        device = device or torch.device("cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentsError(f"device {name}: {one_line(error)}") from error
    return device


def _open(path: str, options: dict[str, Any]) -> Checkpoint:
    config = AutoConfig.from_pretrained(path, **options)
    checkpoint = Checkpoint(path, config, labels_of(config))
    if checkpoint.labels is None:
        raise ValueError("an encoder without a trained classification head: train one with run_classification.py")
    if not hasattr(checkpoint.encoder_config, "max_position_embeddings"):
        raise ValueError(f"{config.model_type} is not of the BERT family")
    return checkpoint


def _resolve_length(asked: int | None, tokenizer: PreTrainedTokenizerBase, position_limit: int) -> int:
    if asked is not None and not 2 < asked <= position_limit:
        raise ValueError(f"max_seq_length {asked}: must lie between 3 and the model's {position_limit} positions")
    if asked is not None:
        return asked
    return min(tokenizer.model_max_length, position_limit) if tokenizer.model_max_length < NO_LIMIT else position_limit


def _load_model(path: str, options: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        path, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
    )
    if loading["missing_keys"]:
        raise ValueError(f"the checkpoint lacks weights: {', '.join(sorted(loading['missing_keys'])[:3])} …")
    return model


def _find_calibration(path: str, revision: str, labels: LabelSet) -> Calibration:
    file = Path(path, CALIBRATION_FILE)
    if not Path(path).is_dir():
        try:
            file = Path(hf_hub_download(path, CALIBRATION_FILE, revision=revision))
        except LocalEntryNotFoundError:
            logger.warning("%s: the Hub cannot be asked for a %s: none is applied", path, CALIBRATION_FILE)
            return Calibration()
        except EntryNotFoundError:
            return Calibration()
    return read_calibration(file, labels) if file.exists() else Calibration()
