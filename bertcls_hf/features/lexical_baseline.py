"""A logistic regression on n-grams, which every trained encoder has to beat: the lexical baseline of a run.

Each n-gram is weighted by its naive Bayes log-count ratio, and a regularised regression is fitted to the weighted
n-grams (Wang & Manning 2012, ACL P12-2018; the simplest thing that could work, as in Joulin et al. 2016,
arXiv 1607.01759). A regression task gets a ridge regression on TF-IDF weights instead. The baseline reads whole texts,
learns from the training rows of the run, and chooses its penalty on the validation rows.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from bertcls_hf.data.content_digests import READ_ROWS
from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.streaming import sample_rows
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.data.texts import text_columns
from bertcls_hf.features.lexical_cache import content_digests, read_cached, write_cached
from bertcls_hf.features.linear_models import (
    DEFAULT_INVERSE_PENALTY,
    DEFAULT_RIDGE_PENALTY,
    INVERSE_PENALTIES,
    MOST_MARKS,
    MOST_SEARCHED,
    RIDGE_PENALTIES,
    LinearModel,
    best_model,
    logistic_fitter,
    questions,
    ridge_fitter,
)
from bertcls_hf.features.ngrams import NgramCounter, NgramKind, ngram_kind_of
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, compute_metrics


logger = logging.getLogger(__name__)

# Part of the cache key. Increase it when the outputs change.
VERSION = 2
# A baseline that took less is not worth a file.
CACHED_SECONDS = 1.0
# The characters of training text, by the unit of the n-grams, that are learned from. Beyond them, a random sample of
# the rows is used, so that the baseline takes about a minute at most.
MOST_CHARACTERS = {"word": 60_000_000, "char": 15_000_000}
FEWEST_ROWS = 100
# The rows that a stream is asked for.
STREAM_ROWS = 50_000


@dataclass(frozen=True)
class LexicalBaseline:
    """The outputs of the baseline for the evaluated splits, and how they came about.

    Args:
        ngrams: the kind of its n-grams, in words.
        penalty: C of the logistic regression, or alpha of the ridge regression.
        train_rows: the training rows that it was fitted to.
        seconds: the time that it took.
        logits: (rows, labels) float32 by split, in the order of the split's rows, of the same meaning as a model's.
    """

    ngrams: str
    penalty: float
    train_rows: int
    seconds: float
    logits: dict[str, np.ndarray]

    def description(self) -> dict[str, Any]:
        """All but the outputs, for the files of results."""
        return {name: value for name, value in asdict(replace(self, logits={})).items() if name != "logits"}


def lexical_baseline(
    data: ClassificationData, class_weights: Sequence[float] | None, seed: int
) -> LexicalBaseline | None:
    """Fits the baseline, or reads its outputs from the cache.

    Args:
        data: the splits; it learns from `train`, and is evaluated on the others that have labels.
        class_weights: one weight per label, which weigh the rows as in the loss of the encoder's training.
        seed: of the sample, where there are too many rows.

    Returns:
        None if the training rows that are read hold one label alone, as the start of a sorted stream may, or if no two
        of their texts have an n-gram in common.
    """
    start = time.perf_counter()
    kind, train = _training_rows(data, seed)
    evaluated = {
        name: cast(Dataset, split) for name, split in data.splits.items() if name != "train" and data.has_labels(name)
    }
    key = _key(kind, train, evaluated, data.labels, class_weights)
    cached = read_cached(key)
    if cached is not None:
        found = LexicalBaseline(**cached[0], logits=cached[1])
    else:
        if len(np.unique(np.asarray(train["label"][:]), axis=0)) < 2:
            logger.warning("no lexical baseline: all %d rows that it would learn from have one label", len(train))
            return None
        fitted = _fit(kind, train, evaluated, data.labels, class_weights, seed)
        if fitted is None:
            logger.warning("no lexical baseline: no two training texts share a word")
            return None
        found = replace(fitted, seconds=time.perf_counter() - start)
        if found.seconds > CACHED_SECONDS:
            write_cached(key, found.description(), found.logits)
    _log(found, evaluated, data.labels)
    return found


def _training_rows(data: ClassificationData, seed: int) -> tuple[NgramKind, Dataset]:
    """Returns the kind of n-grams that fits the texts, and the rows to learn from."""
    split = data.splits["train"]
    train = Dataset.from_dict(sample_rows(split, STREAM_ROWS)) if isinstance(split, TextStream) else split
    kind = ngram_kind_of(train)
    most = MOST_CHARACTERS[kind.unit]
    if train.data.nbytes <= most:
        return kind, train
    table = train.select_columns(text_columns(train)).with_format("arrow")
    characters = np.concatenate([
        sum(map(_characters, batch.columns), start=np.zeros(len(batch), dtype=np.int64))
        for batch in table.iter(READ_ROWS)
    ])  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(train))
    fits = np.cumsum(characters[order]) <= most
    # At least a few rows of very long texts are read.
    rows = order[: max(int(fits.sum()), FEWEST_ROWS)]
    return kind, train if len(rows) == len(train) else train.select(np.sort(rows))


def _characters(texts: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(pc.utf8_length(texts), 0).to_numpy()


def _key(
    kind: NgramKind,
    train: Dataset,
    evaluated: dict[str, Dataset],
    labels: LabelSet,
    class_weights: Sequence[float] | None,
) -> str:
    """A hash of everything that affects the outputs."""
    settings = [VERSION, asdict(kind), labels.problem_type, labels.names, class_weights]
    digests = [[name, *content_digests(split)] for name, split in {"train": train, **evaluated}.items()]
    return hashlib.sha256(json.dumps([settings, digests]).encode()).hexdigest()[:32]


def _log(baseline: LexicalBaseline, evaluated: dict[str, Dataset], labels: LabelSet) -> None:
    task = labels.problem_type
    metric = DEFAULT_METRIC[task]
    figures = [
        f"{metric} {compute_metrics(logits, _gold(evaluated[name], labels), task)[metric]:.4f} on {name}"
        for name, logits in baseline.logits.items()
    ]
    logger.info(
        "lexical baseline (%s, penalty %g, %d training rows): %s",
        baseline.ngrams,
        baseline.penalty,
        baseline.train_rows,
        ", ".join(figures) or "there is no data to evaluate it on",
    )


def _gold(split: Dataset, labels: LabelSet) -> np.ndarray:
    return np.asarray(split["label"][:], dtype=np.float64 if labels.problem_type == REGRESSION else np.int64)


def _fit(
    kind: NgramKind,
    train: Dataset,
    evaluated: dict[str, Dataset],
    labels: LabelSet,
    class_weights: Sequence[float] | None,
    seed: int,
) -> LexicalBaseline | None:
    counter = NgramCounter(kind)
    marks, gold = counter.fit_transform(train), _gold(train, labels)
    if marks.shape[1] == 0:
        return None
    most_rows = int(MOST_MARKS / max(marks.nnz * questions(labels), 1) * len(gold))
    if most_rows < len(gold):
        rows = np.sort(np.random.default_rng(seed).permutation(len(gold))[: max(most_rows, FEWEST_ROWS)])
        marks, gold = marks[rows], gold[rows]
    fit: Callable[[float], LinearModel]
    if labels.problem_type == REGRESSION:
        penalties, default, fit = RIDGE_PENALTIES, DEFAULT_RIDGE_PENALTY, ridge_fitter(marks, gold)
    else:
        penalties, default = INVERSE_PENALTIES, DEFAULT_INVERSE_PENALTY
        fit = logistic_fitter(marks, gold, labels, class_weights)
    if "validation" in evaluated and questions(labels) <= MOST_SEARCHED:
        # The same few rows are read for each penalty.
        validation = list(counter.transform(evaluated["validation"]))
        validation_gold, metric = _gold(evaluated["validation"], labels), DEFAULT_METRIC[labels.problem_type]
        penalty, model = best_model(fit, penalties, validation, validation_gold, labels, metric)
    else:
        penalty, model = default, fit(default)
    logits = {name: model.logits(counter.transform(split), labels) for name, split in evaluated.items()}
    return LexicalBaseline(kind.words, penalty, len(gold), 0.0, logits)
