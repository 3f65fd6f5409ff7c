"""Fits the lexical features of `--lexical_features`: a table of weights for n-grams of tokens or of characters.

The script of the texts chooses between the two, as for the lexical baseline. The table is a naive Bayes logistic
regression on counts of n-grams, whose penalty the validation rows choose. It is fixed while the encoder or the head
learns from what it leaves open. So that the training rows show what it leaves open on new texts, their logits are
cross-fitted: those of a row come from a table of the other rows (Wolpert 1992; van der Laan, Polley & Hubbard 2007).
The saved model computes the logits of new texts from their token ids.
"""

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from scipy import sparse
from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.texts import first_rows, text_columns
from bertcls_hf.data.tokenization import encode_texts, pad_texts
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.lexical_cache import content_digests, read_cached, write_cached
from bertcls_hf.features.linear_models import (
    DEFAULT_INVERSE_PENALTY,
    INVERSE_PENALTIES,
    MOST_MARKS,
    MOST_SEARCHED,
    LinearModel,
    best_model,
    logistic_fitter,
    questions,
)
from bertcls_hf.features.logits_columns import LEXICAL_COLUMN, add_logits
from bertcls_hf.features.ngrams import CHARACTERS, ngram_kind_of
from bertcls_hf.features.token_characters import token_characters
from bertcls_hf.models.fingerprints import tokenizer_fingerprint
from bertcls_hf.models.modeling import LexicalSettings, LexicalTable, ngram_keys


logger = logging.getLogger(__name__)

# Part of the cache key. Increase it when the table or its logits change.
VERSION = 4
# The splits that the table is fitted to, or its penalty chosen on.
FITTED_SPLITS = ("train", "validation")
LONGEST_NGRAM = 3
FOLDS = 5
ROWS_AT_ONCE = 250
# The size of a table: 4 bytes for each n-gram, and 2 for each of its weights. Those with the smallest weights are
# dropped.
MOST_NGRAMS, MOST_BYTES = 2**19, 2**25


@dataclass(frozen=True)
class LexicalFeatures:
    """A fitted table, and its logits for every row of the run.

    Args:
        settings: what the table reads.
        keys: (n-grams,) int32 hashes, ascending.
        weights: (n-grams, functions) float16.
        bias: (functions,) float32.
        characters: (tokens, characters) int16 codes of the characters of each token, for n-grams of characters.
        penalty: C of the logistic regressions.
        train_rows: the training rows that it was fitted to.
        seconds: the time that it took.
        logits: (rows, labels) float32 by split, in the order of the split's rows; those of `train` are cross-fitted.
    """

    settings: LexicalSettings
    keys: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    characters: np.ndarray | None
    penalty: float
    train_rows: int
    seconds: float
    logits: dict[str, np.ndarray]

    def fill(self, table: LexicalTable) -> None:
        """Copies the weights into the module of a model."""
        keys, weights, bias = map(torch.from_numpy, (self.keys, self.weights, self.bias))
        table.fill(keys, weights, bias, None if self.characters is None else torch.from_numpy(self.characters))

    def with_logits(self, splits: dict[str, Any]) -> dict[str, Any]:
        """Returns the tokenized splits with the column of logits."""
        return {name: add_logits(split, LEXICAL_COLUMN, self.logits[name]) for name, split in splits.items()}


def fit_lexical_features(
    data: ClassificationData,
    tokenizer: PreTrainedTokenizerBase,
    max_text_length: int,
    class_weights: Sequence[float] | None,
    seed: int,
) -> LexicalFeatures:
    """Fits the table, or reads it from the cache.

    Args:
        data: the splits, all of them loaded; every row of each gets logits.
        tokenizer: the encoder's tokenizer.
        max_text_length: the longest text in tokens that the table reads.
        class_weights: one weight per label, which weigh the rows.
        seed: of the folds, and of the sample where there are too many rows.

    Raises:
        ArgumentsError: if the task is a regression.
    """
    start = time.perf_counter()
    characters = _characters(data, tokenizer)
    settings = _settings(data, tokenizer, characters)
    reader = _KeyReader(tokenizer, settings, characters, max_text_length)
    key = _cache_key(data, reader.tokenizer, settings, class_weights, seed)
    cached = read_cached(key)
    if cached is not None:
        found = _from_cache(*cached, characters)
    else:
        found = _fit(data, reader, class_weights, seed)
        found = replace(found, seconds=time.perf_counter() - start)
        write_cached(key, *_for_cache(found))
    others = {
        name: _logits_of_other_split(found, cast(Dataset, split), reader, data.labels, key)
        for name, split in data.splits.items()
        if name not in FITTED_SPLITS
    }
    found = replace(found, logits=found.logits | others)
    logger.info(
        "lexical features: %d %s, of up to %d tokens of a text, from %d training rows in %.0f s (penalty %g)",
        len(found.keys), settings.ngrams, max_text_length, found.train_rows, found.seconds, found.penalty,
    )  # fmt: skip
    return found


def _characters(data: ClassificationData, tokenizer: PreTrainedTokenizerBase) -> np.ndarray | None:
    """Returns the characters of each token if the script asks for n-grams of characters; None for those of tokens."""
    if ngram_kind_of(cast(Dataset, data.splits["train"])) != CHARACTERS:
        return None
    characters = token_characters(tokenizer)
    if characters is None:
        logger.warning(
            "lexical features: the tokens of %s are bytes, so that n-grams are of tokens instead of characters",
            type(tokenizer).__name__,
        )
    return characters


def _settings(
    data: ClassificationData, tokenizer: PreTrainedTokenizerBase, characters: np.ndarray | None
) -> LexicalSettings:
    if data.labels.problem_type == REGRESSION:
        raise ArgumentsError(f"--lexical_features is for classification, and the task is a {REGRESSION}: leave it out")
    # An unknown token is a word like others.
    special = sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})
    longest = LONGEST_NGRAM if characters is None else CHARACTERS.longest
    shape = None if characters is None else list(characters.shape)
    return LexicalSettings(0, longest, special, tokenizer.sep_token_id, shape)


def _cache_key(
    data: ClassificationData,
    tokenizer: PreTrainedTokenizerBase,
    settings: LexicalSettings,
    class_weights: Sequence[float] | None,
    seed: int,
) -> str:
    digests = [content_digests(cast(Dataset, data.splits[name])) for name in FITTED_SPLITS if name in data.splits]
    reading = [tokenizer.model_max_length, tokenizer.truncation_side]
    content = [VERSION, settings, reading, data.labels.problem_type, data.labels.names, class_weights, seed, digests]
    return hashlib.sha256(json.dumps([content, tokenizer_fingerprint(tokenizer)]).encode()).hexdigest()[:32]


def _for_cache(found: LexicalFeatures) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    description = {**asdict(replace(found, logits={})), "settings": found.settings._asdict()}
    arrays = {name: description.pop(name) for name in ("keys", "weights", "bias")}
    # The tokenizer tells the characters.
    for name in ("logits", "characters"):
        description.pop(name)
    return description, arrays | {f"logits of {name}": logits for name, logits in found.logits.items()}


def _from_cache(
    description: dict[str, Any], arrays: dict[str, np.ndarray], characters: np.ndarray | None
) -> LexicalFeatures:
    settings = LexicalSettings(**description.pop("settings"))
    table: dict[str, Any] = {name: arrays.pop(name) for name in ("keys", "weights", "bias")}
    logits = {name.removeprefix("logits of "): values for name, values in arrays.items()}
    return LexicalFeatures(settings=settings, **table, characters=characters, **description, logits=logits)


def _logits_of_other_split(
    found: LexicalFeatures, split: Dataset, reader: "_KeyReader", labels: LabelSet, key: str
) -> np.ndarray:
    """Returns the (rows, labels) logits of a split that the table does not depend on, maybe from the cache."""
    key = f"{key}-{hashlib.sha256(json.dumps(content_digests(split)).encode()).hexdigest()[:32]}"
    cached = read_cached(key)
    if cached is not None:
        return cached[1]["logits"]
    model = LinearModel(found.weights.astype(np.float32), found.bias)
    logits = _logits(model, found.keys, split, reader, labels)
    write_cached(key, {}, {"logits": logits})
    return logits


def _logits(
    model: LinearModel, keys: np.ndarray, split: Dataset, reader: "_KeyReader", labels: LabelSet
) -> np.ndarray:
    """Computes the (rows, labels) logits of a split, by a model of the n-grams with these hashes."""
    return model.logits((_counts(*chunk, keys) for chunk in reader.chunks(split)), labels)


class _KeyReader:
    """Turns texts into hashes of their n-grams, with the model's own function.

    Args:
        tokenizer: the encoder's tokenizer, which is copied.
        settings: the longest n-gram and the special tokens.
        characters: (tokens, characters) int16 codes, for n-grams of characters.
        max_text_length: the longest text in tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: LexicalSettings,
        characters: np.ndarray | None,
        max_text_length: int,
    ):
        self.settings, self.characters = settings, characters
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.model_max_length = max_text_length

    def chunks(self, split: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the (n-grams,) int64 hashes of a few hundred rows, and the (rows,) number of n-grams of each."""
        codes = None if self.characters is None else torch.from_numpy(self.characters)
        for batch in split.select_columns(text_columns(split)).iter(ROWS_AT_ONCE):
            columns = pad_texts(encode_texts(self.tokenizer, batch["text"], batch.get("text_pair")), self.tokenizer)
            keys, present = ngram_keys(columns["input_ids"], columns["attention_mask"], self.settings, codes)
            yield keys[present].numpy(), present.sum(dim=1).numpy()


def _counts(keys: np.ndarray, per_row: np.ndarray, known: np.ndarray) -> sparse.csr_array:
    """Returns (rows, known n-grams) float32 counts.

    Args:
        keys: (n-grams,) hashes, row by row.
        per_row: (rows,) the number of n-grams of each row.
        known: (known n-grams,) ascending hashes; others are left out.
    """
    column = np.searchsorted(known, keys).clip(max=len(known) - 1)
    is_known = known[column] == keys
    row = np.repeat(np.arange(len(per_row)), per_row)[is_known]
    return _count_matrix(row, column[is_known], (len(per_row), len(known)))


def _count_matrix(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """Counts pairs of an ascending row and a column."""
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))]).astype(np.int32)
    counts = sparse.csr_array((np.ones(len(row), dtype=np.float32), column.astype(np.int32), ends), shape)
    counts.sum_duplicates()
    return counts


def _fit(
    data: ClassificationData, reader: _KeyReader, class_weights: Sequence[float] | None, seed: int
) -> LexicalFeatures:
    train, labels = cast(Dataset, data.splits["train"]), data.labels
    counts, known, rows = _training_counts(train, reader, labels, seed)
    if not len(known):
        raise ArgumentsError("--lexical_features: no two training texts share a token: leave it out")
    gold = np.asarray(train["label"][:])[rows]

    def fitter(chosen: np.ndarray) -> Callable[[float], LinearModel]:
        return logistic_fitter(counts[chosen], gold[chosen], labels, class_weights)

    penalty = DEFAULT_INVERSE_PENALTY
    fit = fitter(np.arange(len(rows)))
    if data.has_labels("validation") and questions(labels) <= MOST_SEARCHED:
        validation = cast(Dataset, data.splits["validation"])
        chunks = [_counts(*chunk, known) for chunk in reader.chunks(validation)]
        validation_gold = np.asarray(validation["label"][:])
        # The logits are added to others, so that their size matters, and not their sign alone.
        penalty, model = best_model(fit, INVERSE_PENALTIES, chunks, validation_gold, labels, "log_loss")
    else:
        model = fit(penalty)
    table, kept = _pruned(model)
    # Each text is in one fold, however often it occurs.
    _, text = np.unique(first_rows(train)[rows], return_inverse=True)
    fold_of_text = np.random.default_rng(seed).permutation(text.max() + 1) % FOLDS
    fold = fold_of_text[text]
    crossed = np.empty((len(rows), len(labels.names)), dtype=np.float32)
    for number in range(FOLDS):
        is_held_out = fold == number
        if is_held_out.any():
            other, other_kept = _pruned(fitter(np.flatnonzero(~is_held_out))(penalty))
            crossed[is_held_out] = other.logits([counts[is_held_out][:, other_kept]], labels)
    logits = {
        name: _logits(table, known[kept], cast(Dataset, data.splits[name]), reader, labels)
        for name in FITTED_SPLITS
        if name in data.splits and (name != "train" or len(rows) < len(train))
    }
    logits.setdefault("train", np.empty((len(train), len(labels.names)), dtype=np.float32))[rows] = crossed
    return LexicalFeatures(
        reader.settings._replace(table_size=len(kept)), known[kept].astype(np.int32), table.weights.astype(np.float16),
        table.biases.astype(np.float32), reader.characters, penalty, len(rows), 0.0, logits,
    )  # fmt: skip


def _training_counts(
    train: Dataset, reader: _KeyReader, labels: LabelSet, seed: int
) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Returns the counts of n-grams that at least two rows hold, their hashes, and the rows that were read."""
    order = np.random.default_rng(seed).permutation(len(train))
    chunks, read, marks = [], 0, 0
    for keys, per_row in reader.chunks(train.select(order)):
        chunks.append((keys, per_row))
        read, marks = read + len(per_row), marks + len(keys)
        if marks * questions(labels) > MOST_MARKS:
            break
    all_keys, per_row = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    known, column = np.unique(all_keys, return_inverse=True)
    row = np.repeat(np.arange(read), per_row)
    # The last row with each n-gram differs from the first where two rows hold it.
    first, last = np.full(len(known), read), np.full(len(known), -1)
    np.minimum.at(first, column, row)
    np.maximum.at(last, column, row)
    is_shared = last > first
    kept = is_shared[column]
    counts = _count_matrix(row[kept], (np.cumsum(is_shared) - 1)[column[kept]], (read, int(is_shared.sum())))
    rows = order[:read]
    ascending = np.argsort(rows)
    return counts[ascending], known[is_shared], rows[ascending]


def _pruned(model: LinearModel) -> tuple[LinearModel, np.ndarray]:
    """Drops the n-grams with the smallest weights, and rounds the others as the table stores them.

    Returns:
        The model, and the places of its n-grams, ascending.
    """
    ngrams, functions = model.weights.shape
    size = min(ngrams, MOST_NGRAMS, MOST_BYTES // (4 + 2 * functions))
    greatest = np.abs(model.weights).max(axis=1)
    kept = np.sort(np.argpartition(-greatest, size - 1)[:size]) if size < ngrams else np.arange(ngrams)
    weights = model.weights[kept].astype(np.float16).astype(np.float32)
    return LinearModel(weights, model.biases), kept
