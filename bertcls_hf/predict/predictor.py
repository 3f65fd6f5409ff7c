"""Classifies texts of any length with a trained classifier, and returns logits or labels in the order of the texts."""

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
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
from bertcls_hf.errors import ArgumentsError, RunError, one_line
from bertcls_hf.metrics.calibration import CALIBRATION_FILE, Calibration, read_calibration
from bertcls_hf.metrics.cascade import CASCADE_FILE, Cascade, label_margins, read_cascade
from bertcls_hf.models.fingerprints import tokenizer_fingerprint
from bertcls_hf.models.loading import (
    Checkpoint,
    fit_token_types,
    interrupted_save,
    labels_of,
    refuse_not_a_number,
    remote_kernel,
)
from bertcls_hf.models.modeling import TruncationSettings
from bertcls_hf.models.token_batches import bound_kernel_cache, run_batches, token_budget, token_budget_batches
from bertcls_hf.predict.arguments import Backend, InferenceDtype
from bertcls_hf.predict.engines import (
    GRAPH_DTYPES,
    INT8_FILE,
    LEXICAL_FILE,
    Engine,
    GraphEngine,
    TorchEngine,
    check_graph_options,
    has_graphs_alone,
)


logger = logging.getLogger(__name__)

# Texts are tokenized in parts of at most so many rows and characters, and the token ids of each part are converted to
# arrays. The lists that a tokenizer returns take many times the memory.
TOKENIZED_ROWS, TOKENIZED_CHARACTERS = 1024, 2**22
# The tokens of a batch for the lexical features alone, padding included.
LEXICAL_TOKENS = 2**14
# What answers a text in a cascade.
LEXICAL, ENCODER = "lexical_features", "encoder"


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for one text.

    Args:
        label: the name of the label, the names of a multi-label task, or the number of a regression.
        probabilities: the probability of each label by its name, in the model's order; None for regression.
        answered_by: [`LEXICAL`], or [`ENCODER`] for the whole model; None without a cascade.
        abstained: whether a person should read the text; None if the model does not say so.
    """

    label: str | list[str] | float
    probabilities: dict[str, float] | None
    answered_by: str | None = None
    abstained: bool | None = None


class Answers(NamedTuple):
    """What a model, or its cascade, answers to each text.

    Args:
        logits: (rows, labels) float32.
        by_lexical: (rows,) booleans: whether the lexical features alone have answered; None without a cascade.
        abstained: (rows,) booleans: whether a person should read the text; None if the model does not say so.
    """

    logits: np.ndarray
    by_lexical: np.ndarray | None
    abstained: np.ndarray | None

    def remarks(self, number: int) -> dict[str, Any]:
        """Returns what there is to say of one text besides its label."""
        said: dict[str, Any] = {}
        if self.by_lexical is not None:
            said["answered_by"] = LEXICAL if self.by_lexical[number] else ENCODER
        if self.abstained is not None:
            said["abstained"] = bool(self.abstained[number])
        return said


class Tokens(NamedTuple):
    """Tokenized texts.

    Args:
        columns: one int32 array per text: its token ids and, if the model reads them, its token types.
        lengths: (rows,) int64 tokens of each text.
        encoder_lengths: (rows,) int64 tokens that the encoder reads of each text, which may be less or more.
    """

    columns: dict[str, list[np.ndarray]]
    lengths: np.ndarray
    encoder_lengths: np.ndarray


@dataclass(frozen=True)
class ReadPart:
    """The part of a text that a model reads, which is shorter than the text if the text is too long.

    Args:
        text: the part itself.
        tokens: the number of tokens that the model reads, special tokens included.
        all_tokens: the number of tokens of the whole text, special tokens included.
    """

    text: str
    tokens: int
    all_tokens: int


class Predictor:
    """A trained classifier for inference. Several threads may use it; their calls run one after the other.

    Args:
        engine: computes the logits.
        tokenizer: the tokenizer of the training; it truncates texts at its `model_max_length`.
        labels: the labels, which name the model's outputs.
        calibration: the temperature and the thresholds that turn logits into probabilities and labels.
        cascade: which texts the lexical features answer, and which a person should read; None for neither.
        tokens_per_batch: the number of tokens of a batch, padding included; by default a number that suits the device.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        labels: LabelSet,
        calibration: Calibration = Calibration(),  # noqa: B008 - frozen
        cascade: Cascade | None = None,
        tokens_per_batch: int | None = None,
    ):
        self.engine, self.tokenizer, self.labels = engine, tokenizer, labels
        self.calibration, self.cascade = calibration, cascade
        self.tokens_per_batch = tokens_per_batch or token_budget(engine.device)
        self._lock = threading.Lock()

    @property
    def model(self) -> PreTrainedModel:
        """The PyTorch model; a predictor that runs a graph has none."""
        return cast(TorchEngine, self.engine).model

    @property
    def max_seq_length(self) -> int:
        """The number of tokens to which longer texts are truncated."""
        return self.tokenizer.model_max_length

    @property
    def truncation(self) -> TruncationSettings | None:
        """How the model reads longer texts than its encoder; None if the tokenizer cuts them."""
        return self.engine.truncation

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        revision: str = "main",
        trust_remote_code: bool = False,
        device: str | None = None,
        backend: Backend | None = None,
        dtype: InferenceDtype = "float32",
        max_seq_length: int | None = None,
        calibrated: bool = True,
        cascade: bool = True,
    ) -> "Predictor":
        """Loads a trained classifier.

        Args:
            model: an output_dir, the folder of an export, a Hub id or pypi:PACKAGE.
            revision: the branch, tag or commit on the Hub.
            trust_remote_code: whether to run code that is stored with the model; models of this package load without.
            device: a device such as `cpu` or `cuda:1`; by default an accelerator if there is one.
            backend: what computes; by default PyTorch, or ONNX Runtime for the folder of an export.
            dtype: the number format of weights and arithmetic; logits are float32 in any case. `int8` is for exported
                graphs.
            max_seq_length: the longest text in tokens; by default that of the training, which the tokenizer stores.
            calibrated: whether to apply the calibration that is stored with the model, if there is one.
            cascade: whether to apply the cascade that is stored with the model, if there is one.

        Raises:
            ArgumentsError: if there is no such model, if it is not a trained classifier, or if the backend, the
                device, the dtype or the length does not suit it or its cascade.
        """
        path = str(packaged_model(model)) if is_packaged(model) else model
        backend = backend or ("onnx" if has_graphs_alone(Path(path)) else "torch")
        if backend != "torch":
            check_graph_options(backend, dtype, device)
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        try:
            checkpoint = _open_checkpoint(path, options)
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
            if backend == "torch":
                engine, length = _load_torch(checkpoint, tokenizer, options, device, dtype, max_seq_length)
            else:
                graph = _graph_file(path, revision, GRAPH_DTYPES[backend][dtype])
                engine, length = _load_graph(graph, checkpoint, tokenizer, backend, dtype, max_seq_length)
            tokenizer.model_max_length = length
            fit_token_types(tokenizer, checkpoint)
            labels = checkpoint.labels
            assert labels is not None
            calibration = _find_calibration(path, revision, labels) if calibrated else Calibration()
            found = _find_cascade(path, revision) if cascade else None
        except RunError:
            raise
        except Exception as error:  # configurations, tokenizers and weights each raise kinds of their own
            raise ArgumentsError(f"{model}: {one_line(error)}") from error
        predictor = cls(engine, tokenizer, labels, calibration, found)
        if found is not None:
            _check_cascade(predictor, found, model, calibrated)
        return predictor

    @property
    def encoder_length(self) -> int:
        """The number of tokens that the encoder reads of a text at most, or of one of its windows."""
        return self.max_seq_length if self.truncation is None else self.truncation.max_length

    def fingerprint(self) -> str:
        """Returns a hash of all that the logits depend on besides the texts.

        These are the weights, the configuration, the tokenizer and the longest text.
        """
        content = [
            *self.engine.fingerprint(),
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
        """Computes the (rows, labels) float32 logits of the whole model, in the order of the texts.

        Args:
            texts: one text per row; empty texts are classified too.
            pairs: the second text of each row, for a model of sentence pairs.
            progress: a function that is called after each batch with the batch's numbers of texts and tokens, in the
                thread that ran the batch.
        """
        with self._lock:
            return self._whole_logits(self._tokenize(texts, pairs), np.arange(len(texts)), progress)

    def lexical_logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Computes the (rows, labels) float32 logits of the lexical features alone, in the order of the texts."""
        with self._lock:
            return self._lexical_logits(self._tokenize(texts, pairs))

    def answers(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Answers:
        """Answers texts by the model's cascade, if it has one; else these are its logits. See [`logits`]."""
        cascade = self.cascade
        if cascade is None:
            return Answers(self.logits(texts, pairs, progress), None, None)
        with self._lock:
            tokens = self._tokenize(texts, pairs)
            logits = np.empty((len(texts), len(self.labels.names)), dtype=np.float32)
            by_lexical = np.zeros(len(texts), dtype=bool)
            if cascade.lexical is not None:
                logits = self._lexical_logits(tokens) * np.float32(cascade.factor)
                by_lexical = cascade.answers(label_margins(logits, self.labels, self.calibration))
                if progress is not None:
                    progress(int(by_lexical.sum()), int(tokens.lengths[by_lexical].sum()))
            others = np.flatnonzero(~by_lexical)
            logits[others] = self._whole_logits(tokens, others, progress)
        abstained = None
        if cascade.abstention is not None:
            abstained = label_margins(logits, self.labels, self.calibration) < cascade.abstention.value
        return Answers(logits, None if cascade.lexical is None else by_lexical, abstained)

    def _whole_logits(
        self, tokens: Tokens, rows: np.ndarray, progress: Callable[[int, int], None] | None
    ) -> np.ndarray:
        """Computes the logits of some rows, in their order."""
        return self._compute(
            self.engine.logits, tokens, rows, tokens.encoder_lengths[rows], self.tokens_per_batch, progress
        )

    def _lexical_logits(self, tokens: Tokens) -> np.ndarray:
        rows = np.arange(len(tokens.lengths))
        return self._compute(self.engine.lexical_logits, tokens, rows, tokens.lengths, LEXICAL_TOKENS, None)

    def _compute(
        self,
        compute: Callable[[dict[str, torch.Tensor]], np.ndarray],
        tokens: Tokens,
        rows: np.ndarray,
        lengths: np.ndarray,
        budget: int,
        progress: Callable[[int, int], None] | None,
    ) -> np.ndarray:
        """Computes (rows, labels) float32 logits, in batches of texts of like length."""
        order = np.argsort(-lengths, kind="stable")
        logits = np.empty((len(rows), len(self.labels.names)), dtype=np.float32)

        def work(batch: slice) -> None:
            places = order[batch]
            logits[places] = compute(self._batch(tokens, rows[places]))
            if progress is not None:
                progress(len(places), int(tokens.lengths[rows[places]].sum()))

        run_batches(work, token_budget_batches(lengths[order], budget), self.engine.device)
        return logits

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Predicts a label and calibrated probabilities for each text; see [`answers`]."""
        answers = self.answers(texts, pairs)
        scores = self.calibration.probabilities(answers.logits, self.labels)
        predicted = self.calibration.predicted(scores, self.labels)
        return [
            Prediction(self.labels.readable(label), self._probabilities_by_name(score), **answers.remarks(number))
            for number, (score, label) in enumerate(zip(scores, predicted, strict=True))
        ]

    def read_part(self, text: str) -> ReadPart:
        """Returns the part of a text that the model reads.

        This may be the head and the tail, with a space between them. If the tokenizer has no offsets, the part is
        unknown, and the whole text is returned in its place.
        """
        has_offsets = self.tokenizer.is_fast
        with self._lock:
            all_tokens = len(self.tokenizer(text, verbose=False)["input_ids"])
            truncated = self.tokenizer(text, truncation=True, return_offsets_mapping=has_offsets)
        offsets = truncated.get("offset_mapping", [])
        tokens, parts = len(truncated["input_ids"]), [offsets]
        if (settings := self.cut) is not None and tokens > settings.max_length:
            tokens, kept = settings.max_length, settings.kept_at_start
            parts = [offsets[:kept], offsets[kept - settings.max_length :]]
        spans = [[(start, end) for start, end in part if end > start] for part in parts]
        spans = [span for span in spans if span]
        is_whole = tokens == all_tokens or not spans
        read = text if is_whole else " ".join(text[span[0][0] : span[-1][1]] for span in spans)
        return ReadPart(read, tokens, all_tokens)

    @property
    def cut(self) -> TruncationSettings | None:
        """How the model cuts texts, if nothing but its encoder reads them."""
        if self.truncation is None or self.truncation.strategy == "windows" or self.engine.has_lexical_features:
            return None
        return self.truncation

    def _probabilities_by_name(self, score: Any) -> dict[str, float] | None:
        if self.labels.problem_type == REGRESSION:
            return None
        return {name: float(value) for name, value in zip(self.labels.names, score, strict=True)}

    def _tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Tokens:
        columns: dict[str, list[np.ndarray]] = {"input_ids": []}
        for part in _parts(texts, pairs):
            encoded = encode_texts(self.tokenizer, texts[part], None if pairs is None else pairs[part])
            for name in self.engine.inputs.intersection(TOKEN_COLUMNS).intersection(encoded):
                columns.setdefault(name, []).extend(np.asarray(ids, dtype=np.int32) for ids in encoded[name])
        lengths = np.array([len(ids) for ids in columns["input_ids"]], dtype=np.int64)
        encoder_lengths = lengths if self.truncation is None else self.truncation.encoder_lengths(lengths)
        return Tokens(columns, lengths, encoder_lengths)

    def _batch(self, tokens: Tokens, rows: np.ndarray) -> dict[str, torch.Tensor]:
        flat = {name: np.concatenate([column[row] for row in rows]) for name, column in tokens.columns.items()}
        return pad_flat_texts(flat, tokens.lengths[rows], self.tokenizer)


def _parts(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[slice]:
    """Yields slices of at most [`TOKENIZED_ROWS`] rows and [`TOKENIZED_CHARACTERS`]; a longer row comes alone."""
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


def _open_checkpoint(path: str, options: dict[str, Any]) -> Checkpoint:
    if (problem := interrupted_save(path)) is not None:
        raise ValueError(problem)
    config = AutoConfig.from_pretrained(path, **options)
    refuse_not_a_number(config.to_dict())
    if not options["trust_remote_code"] and (kernel := remote_kernel(config)):
        raise ValueError(f"its configuration names the kernel {kernel}, code of the Hub: it needs trust_remote_code")
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


def _load_torch(
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    options: dict[str, Any],
    device: str | None,
    dtype: InferenceDtype,
    max_seq_length: int | None,
) -> tuple[Engine, int]:
    """Loads the weights, and returns the engine and the longest text in tokens."""
    torch_device = _resolve_device(device)
    if dtype == "int8":
        raise ArgumentsError("dtype int8 is for exported graphs: export the model, and use the backend onnx")
    if dtype == "float16" and torch_device.type == "cpu":
        raise ArgumentsError("float16 is for accelerators: on a processor use float32 or bfloat16")
    bound_kernel_cache(torch_device)
    length = _resolve_length(max_seq_length, tokenizer, checkpoint.position_limit)
    truncation = checkpoint.truncation
    if truncation is not None:
        truncation = truncation.with_max_length(max_seq_length)
        length = truncation.max_text_length
    classifier = _load_model(checkpoint.path, options, getattr(torch, dtype)).to(torch_device)
    if truncation is not None:
        classifier.config.truncation, classifier.truncation = truncation._asdict(), truncation
    return TorchEngine(classifier), length


def _load_graph(
    graph: Path,
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    backend: Backend,
    dtype: InferenceDtype,
    max_seq_length: int | None,
) -> tuple[Engine, int]:
    """Opens a graph, and returns the engine and the longest text in tokens."""
    engine = GraphEngine(graph, backend, dtype, torch.get_num_threads())
    if engine.truncation is None:
        return engine, _resolve_length(max_seq_length, tokenizer, checkpoint.position_limit)
    if max_seq_length is not None:
        raise ArgumentsError(
            f"max_seq_length {max_seq_length}: how this graph reads long texts was fixed when it was exported; export "
            "the model again with --max_seq_length"
        )
    return engine, engine.truncation.max_text_length


def _graph_file(path: str, revision: str, name: str) -> Path:
    """Returns the local file of a graph, which is fetched for a model on the Hub.

    Raises:
        ArgumentsError: if the model has no such graph.
    """
    advice = "bertcls export makes one" + (", with --quantize int8" if name == INT8_FILE else "")
    if Path(path).is_dir():
        if not Path(path, name).is_file():
            raise ArgumentsError(f"{path} holds no {name}: {advice}")
        return Path(path, name)
    try:
        file = Path(hf_hub_download(path, name, revision=revision))
    except EntryNotFoundError as error:
        raise ArgumentsError(f"{path} has no {name}: {advice}") from error
    # Large graphs have their weights in a second file, and a cascade has a graph of its own.
    for companion in (f"{name}.data", LEXICAL_FILE):
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(path, companion, revision=revision)
    return file


def _load_model(path: str, options: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    model, loading_info = AutoModelForSequenceClassification.from_pretrained(
        path, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
    )
    if loading_info["missing_keys"]:
        raise ValueError(f"the checkpoint lacks weights: {', '.join(sorted(loading_info['missing_keys'])[:3])} …")
    return model


def _find_calibration(path: str, revision: str, labels: LabelSet) -> Calibration:
    file = _file_beside(path, revision, CALIBRATION_FILE)
    return Calibration() if file is None else read_calibration(file, labels)


def _find_cascade(path: str, revision: str) -> Cascade | None:
    file = _file_beside(path, revision, CASCADE_FILE)
    return None if file is None else read_cascade(file)


def _file_beside(path: str, revision: str, name: str) -> Path | None:
    """Returns the local file that is stored with a model, which may lie on the Hub; None if there is none."""
    if Path(path).is_dir():
        return Path(path, name) if Path(path, name).exists() else None
    try:
        return Path(hf_hub_download(path, name, revision=revision))
    except LocalEntryNotFoundError:
        logger.warning("%s: the Hub cannot be asked for a %s: none is applied", path, name)
    except EntryNotFoundError:
        pass
    return None


def _check_cascade(predictor: Predictor, cascade: Cascade, model: str, calibrated: bool) -> None:
    """Refuses a cascade where its limits would not hold."""
    advice = "make it anew with bertcls cascade, or leave it aside with --no_cascade"
    if not calibrated:
        raise ArgumentsError(f"{model} has a {CASCADE_FILE} for its calibrated probabilities: {advice}")
    if cascade.max_seq_length != predictor.encoder_length:
        raise ArgumentsError(
            f"{model} has a {CASCADE_FILE} for an encoder that reads up to {cascade.max_seq_length} tokens, not "
            f"{predictor.encoder_length}: {advice}"
        )
    if cascade.lexical is not None and not predictor.engine.has_lexical_logits:
        raise ArgumentsError(
            f"{model} has a {CASCADE_FILE}, but no {LEXICAL_FILE}: export the model again after bertcls cascade, or "
            "leave it aside with --no_cascade"
        )
