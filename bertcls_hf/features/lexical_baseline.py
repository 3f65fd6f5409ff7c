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
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from scipy import sparse
from scipy.special import log_expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge

from bertcls_hf.atomic_files import write_atomically
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.text_stream import TextStream
from bertcls_hf.data.texts import rows_of_texts, text_columns
from bertcls_hf.errors import StorageError
from bertcls_hf.features.ngrams import NgramCounter, NgramKind, ngram_kind
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, compute_metrics, greater_is_better


logger = logging.getLogger(__name__)

# Part of the cache key. Increase it when the outputs change.
VERSION = 1
CACHE_FOLDER = Path(HF_HOME, "bertcls_hf", "lexical")
# A baseline that took less is not worth a file.
CACHED_SECONDS = 1.0
# The characters of training text, by the unit of the n-grams, and the n-grams times labels that are learned from.
# Beyond them, a random sample of the rows is used, so that the baseline takes about a minute at most.
MOST_CHARACTERS = {"word": 60_000_000, "char": 15_000_000}
MOST_MARKS = 150_000_000
FEWEST_ROWS = 100
READ_ROWS = 10_000
# The rows that a stream is asked for.
STREAM_ROWS = 50_000
# The penalties, from the strongest on: C of the logistic regressions, and alpha of the ridge regression.
INVERSE_PENALTIES, RIDGE_PENALTIES = (0.03, 0.1, 0.3, 1.0), (10.0, 3.0, 1.0, 0.3)
MOST_PASSES = 25
# The penalties where there is no validation data.
DEFAULT_INVERSE_PENALTY, DEFAULT_RIDGE_PENALTY = 0.1, 1.0


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
        None if the training rows that are read hold one label alone, as the start of a sorted stream does.
    """
    start = time.perf_counter()
    kind, train = _training_rows(data, seed)
    evaluated = {
        name: cast(Dataset, split) for name, split in data.splits.items() if name != "train" and data.has_labels(name)
    }
    path = CACHE_FOLDER / f"{_key(kind, train, evaluated, data.labels, class_weights)}.npz"
    found = _read(path)
    if found is None:
        if len(np.unique(np.asarray(train["label"][:]), axis=0)) < 2:
            logger.warning("no lexical baseline: all %d rows that it would learn from have one label", len(train))
            return None
        found = _fit(kind, train, evaluated, data.labels, class_weights, seed)
        found = replace(found, seconds=time.perf_counter() - start)
        if found.seconds > CACHED_SECONDS:
            _write(path, found)
    _log(found, evaluated, data.labels)
    return found


def _training_rows(data: ClassificationData, seed: int) -> tuple[NgramKind, Dataset]:
    """Returns the kind of n-grams that fits the texts, and the rows to learn from."""
    split = data.splits["train"]
    train = Dataset.from_dict(split.sample(STREAM_ROWS)) if isinstance(split, TextStream) else split
    kind = ngram_kind(text or "" for texts in rows_of_texts(train) for text in texts)
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
    digests = [[name, *_digests(split)] for name, split in {"train": train, **evaluated}.items()]
    return hashlib.sha256(json.dumps([settings, digests]).encode()).hexdigest()[:32]


def _digests(split: Dataset) -> list[str]:
    """Returns a hash of each column of texts, and of the labels."""
    digests = {name: xxhash.xxh3_128() for name in (*text_columns(split), "label")}
    for batch in split.select_columns(list(digests)).with_format("arrow").iter(READ_ROWS):
        for name, digest in digests.items():
            digest.update(json.dumps(batch.column(name).to_pylist()).encode())
    return [digest.hexdigest() for digest in digests.values()]


def _read(path: Path) -> LexicalBaseline | None:
    try:
        with np.load(path) as stored:
            logits = {name: stored[name] for name in stored.files if name != "description"}
            return LexicalBaseline(**json.loads(str(stored["description"])), logits=logits)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _write(path: Path, baseline: LexicalBaseline) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, description=json.dumps(baseline.description()), **cast(Any, baseline.logits))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, fill)
    except (OSError, StorageError) as error:
        logger.warning("the lexical baseline is not cached: %s", error)


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
) -> LexicalBaseline:
    counter = NgramCounter(kind)
    marks, gold = counter.fit_transform(train), _gold(train, labels)
    most_rows = int(MOST_MARKS / max(marks.nnz * _problems(labels), 1) * len(gold))
    if most_rows < len(gold):
        rows = np.sort(np.random.default_rng(seed).permutation(len(gold))[: max(most_rows, FEWEST_ROWS)])
        marks, gold = marks[rows], gold[rows]
    fit: Callable[[float], LinearModel]
    if labels.problem_type == REGRESSION:
        penalties, default, fit = RIDGE_PENALTIES, DEFAULT_RIDGE_PENALTY, _ridge_fitter(marks, gold)
    else:
        penalties, default = INVERSE_PENALTIES, DEFAULT_INVERSE_PENALTY
        fit = _logistic_fitter(marks, gold, labels, class_weights)
    if "validation" in evaluated:
        # The same few rows are read for each penalty.
        validation = list(counter.transform(evaluated["validation"]))
        penalty, model = _best_model(fit, penalties, validation, _gold(evaluated["validation"], labels), labels)
    else:
        penalty, model = default, fit(default)
    logits = {name: model.logits(counter.transform(split), labels) for name, split in evaluated.items()}
    return LexicalBaseline(kind.words, penalty, len(gold), 0.0, logits)


def _problems(labels: LabelSet) -> int:
    """The number of yes-or-no questions: one for two labels that exclude each other, else one per label."""
    return 1 if labels.problem_type != MULTI_LABEL and len(labels.names) <= 2 else len(labels.names)


@dataclass(frozen=True)
class LinearModel:
    """One linear function of n-grams per question.

    Args:
        weights: (n-grams, questions) float32.
        biases: (questions,) float32.
        idf: (n-grams,) float32 inverse document frequencies, if the function reads TF-IDF weights of unit length
            instead of marks.
    """

    weights: np.ndarray
    biases: np.ndarray
    idf: np.ndarray | None = None

    def logits(self, chunks: Iterable[sparse.csr_array], labels: LabelSet) -> np.ndarray:
        """Returns (rows, labels) float32 logits.

        Of several labels that exclude each other, each has its own yes-or-no model; their probabilities are scaled to
        a sum of one.
        """
        decisions = np.concatenate([self._decisions(marks) for marks in chunks])
        if labels.problem_type in (MULTI_LABEL, REGRESSION):
            return decisions
        if len(labels.names) == 2:
            return np.column_stack([np.zeros(len(decisions), dtype=np.float32), decisions])
        return log_expit(decisions)

    def _decisions(self, marks: sparse.csr_array) -> np.ndarray:
        if self.idf is None:
            return marks @ self.weights + self.biases
        scaled = _unit_rows(_scaled(marks, self.idf))
        return scaled @ self.weights + self.biases


def _best_model(
    fit: Callable[[float], LinearModel],
    penalties: Sequence[float],
    validation: Sequence[sparse.csr_array],
    gold: np.ndarray,
    labels: LabelSet,
) -> tuple[float, LinearModel]:
    """Weakens the penalty until the task's main metric on the validation rows no longer improves."""
    metric = DEFAULT_METRIC[labels.problem_type]
    sign = 1 if greater_is_better(metric) else -1
    best: tuple[float, float, LinearModel] | None = None
    for penalty in penalties:
        model = fit(penalty)
        score = sign * compute_metrics(model.logits(validation, labels), gold, labels.problem_type)[metric]
        if best is not None and not score > best[0]:
            break
        best = score, penalty, model
    assert best is not None
    return best[1:]


def _logistic_fitter(
    marks: sparse.csr_array, gold: np.ndarray, labels: LabelSet, class_weights: Sequence[float] | None
) -> Callable[[float], LinearModel]:
    """Returns a function that fits the logistic regressions with an inverse penalty C."""
    is_multi_label = labels.problem_type == MULTI_LABEL
    positions = [1] if _problems(labels) == 1 and not is_multi_label else range(len(labels.names))
    weights = None if class_weights is None else np.asarray(class_weights)

    def fit(inverse_penalty: float) -> LinearModel:
        fitted = []
        for position in positions:
            is_positive = gold[:, position] > 0 if is_multi_label else gold == position
            row_weights = None
            if weights is not None:
                row_weights = np.where(is_positive, weights[position], 1) if is_multi_label else weights[gold]
            fitted.append(_naive_bayes_logistic(marks, is_positive, inverse_penalty, row_weights))
        return LinearModel(np.column_stack([w for w, _ in fitted]), np.array([b for _, b in fitted], np.float32))

    return fit


def _naive_bayes_logistic(
    marks: sparse.csr_array, is_positive: np.ndarray, inverse_penalty: float, row_weights: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Fits one yes-or-no question; returns the weights of unweighted marks, (n-grams,) float32, and the bias."""
    positives = int(is_positive.sum())
    if positives in (0, len(is_positive)):
        # With the usual half a row added to both sides, a question with one answer gets that answer.
        odds = (positives + 0.5) / (len(is_positive) - positives + 0.5)
        return np.zeros(marks.shape[1], dtype=np.float32), float(np.log(odds))
    with_positive, with_negative = (marks.T @ chosen.astype(np.float32) + 1 for chosen in (is_positive, ~is_positive))
    ratios = np.log(with_positive / with_positive.sum()) - np.log(with_negative / with_negative.sum())
    ratios = ratios.astype(np.float32)
    # The dual solver is several times as fast as L-BFGS on sparse rows of these lengths, and near enough to its end
    # after these passes.
    model = LogisticRegression(
        C=inverse_penalty, solver="liblinear", dual=True, tol=0.1, max_iter=MOST_PASSES, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(_scaled(marks, ratios), is_positive, sample_weight=row_weights)
    return (model.coef_[0] * ratios).astype(np.float32), float(model.intercept_[0])


def _ridge_fitter(marks: sparse.csr_array, gold: np.ndarray) -> Callable[[float], LinearModel]:
    """Returns a function that fits a ridge regression with a penalty alpha."""
    idf = TfidfTransformer().fit(marks).idf_.astype(np.float32)
    scaled = _unit_rows(_scaled(marks, idf))

    def fit(penalty: float) -> LinearModel:
        model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-3).fit(scaled, gold)
        weights = model.coef_.reshape(-1, 1).astype(np.float32)
        return LinearModel(weights, np.array([model.intercept_], dtype=np.float32), idf)

    return fit


def _scaled(marks: sparse.csr_array, factors: np.ndarray) -> sparse.csr_array:
    """Multiplies each column by its factor."""
    return sparse.csr_array((marks.data * factors[marks.indices], marks.indices, marks.indptr), marks.shape)


def _unit_rows(values: sparse.csr_array) -> sparse.csr_array:
    lengths = np.sqrt(np.asarray(values.multiply(values).sum(axis=1)).reshape(-1))
    factors = (1 / np.maximum(lengths, 1e-9)).astype(np.float32)
    return sparse.csr_array((values.data * np.repeat(factors, np.diff(values.indptr)), values.indices, values.indptr),
                            values.shape)  # fmt: skip
