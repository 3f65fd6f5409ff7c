"""Lets a classifier label texts without labels for itself, and learn from its answers.

Two views of a text teach each other (Blum & Mitchell 1998): the features of the frozen encoder, and n-grams, which
alone know the words of texts that nobody labelled. In each round, both learn from the labelled rows and from the texts
that both together were surest of, a growing share of those of every label, until all have one (Xie et al. 2020, arXiv
1911.04252, and McLachlan 1975 before them). Shares of the labels follow those of the labelled rows (Berthelot et al.
2020, arXiv 1911.09785). Without a labelled row, the first labels are those of the nearest label descriptions, and
labels are taken to be equally frequent.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset, concatenate_datasets
from scipy import sparse
from scipy.special import log_softmax, softmax
from transformers import PreTrainedTokenizerBase

from bertcls_hf.atomic_files import read_json, write_json_atomically
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet, encoded_feature
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.texts import text_columns, text_keys
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.data.unlabelled import load_unlabelled
from bertcls_hf.errors import ArgumentsError, DataError
from bertcls_hf.features.cross_fitting import FOLDS, held_out_parts
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.features.lexical_fusion import fitted_factors
from bertcls_hf.features.linear_models import DEFAULT_INVERSE_PENALTY, logistic_fitter
from bertcls_hf.features.ngrams import NgramCounter, ngram_kind_of
from bertcls_hf.features.regressions import Regression, fit_regressions
from bertcls_hf.features.scaling import Scaling, Vectors
from bertcls_hf.training.label_descriptions import description_vectors
from bertcls_hf.training.resolve import ResolvedRun


logger = logging.getLogger(__name__)

DESCRIPTION_FILE = "self_training.json"
# C of the regressions on features, where labels are partly the classifier's own.
INVERSE_PENALTY = 0.001
# A regression on features learns a random sample of more rows.
MOST_FITTED = 50_000
# What the logits of a view are divided by at least; those of a single text are equal.
LEAST_SPREAD = 1e-6
# Steps in which the shares of the labels become those of the labelled rows.
ALIGNMENT_STEPS = 20


@dataclass(frozen=True)
class SelfTraining:
    """What became of the texts without labels.

    Args:
        labelled: the number of labelled rows.
        texts: the number of texts that got a label.
        rounds: the number of rounds.
        agreement: the share of the texts to which both views alone give the same label, after each round.
        shares: the share of the texts that got each label, by its name.
    """

    labelled: int
    texts: int
    rounds: int
    agreement: list[float]
    shares: dict[str, float]

    def __post_init__(self) -> None:
        counts, figures = (self.labelled, self.texts, self.rounds), [*self.agreement, *self.shares.values()]
        are_numbers = all(isinstance(figure, int | float) for figure in figures)
        are_counts = all(type(count) is int for count in counts)
        if not are_numbers or not are_counts or len(self.agreement) != self.rounds:
            raise ValueError(f"not what became of texts: {self}")


def self_train(
    resolved: ResolvedRun, data: ClassificationData, splits: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[ClassificationData, dict[str, Any]]:
    """Labels the texts of `unlabelled_file`, and writes `self_training.json`.

    Args:
        resolved: the run, with cached features.
        data: the splits with their texts.
        splits: the tokenized splits.
        tokenizer: the run's tokenizer.

    Returns:
        The splits, whose training rows are the labelled ones and then the other texts with the labels that they got;
        and the same splits, tokenized.

    Raises:
        ArgumentsError: if the task has no single labels.
        DataError: if no text is left that is not labelled already.
    """
    if data.labels.problem_type != SINGLE_LABEL:
        raise ArgumentsError(
            f"--self_training_rounds is for {SINGLE_LABEL}, and the task is {data.labels.problem_type}"
        )
    args = resolved.args
    train = cast(Dataset, data.splits["train"])
    columns = [*text_columns(train), "label"]
    gold = np.asarray(train["label"][:], dtype=np.int64)
    texts = _new_texts(resolved, data, train)
    together = replace(data, splits={"train": concatenate_datasets([
        train.select_columns(text_columns(train)), texts.select_columns(text_columns(train))])})  # fmt: skip
    tokens = cast(dict[str, Dataset], tokenize(together, tokenizer, args.data, resolved.truncation))["train"]
    model = resolved.load_model()
    features = FeatureExtractor(model, tokenizer, args).features("train", tokens)
    descriptions = description_vectors(resolved, model, tokenizer)
    views = _Views(features, cast(Dataset, together.splits["train"]), gold, data.labels, descriptions)
    rounds = args.few_shot.self_training_rounds
    if not len(gold):
        logger.info("no row has a label: the first one of each text is that of the nearest label description")
    logits, agreement = views.first_logits(), []
    for number in range(1, rounds + 1):
        logits, agreed = views.next_logits(logits, share=number / rounds)
        agreement.append(agreed)
        logger.info("self-training, round %d of %d: the views agree on %.1f %%", number, rounds, 100 * agreed)
    answers = logits.argmax(axis=1)
    answered = texts.select_columns(text_columns(train)).add_column(
        "label", answers.tolist(), feature=encoded_feature(data.labels)
    )
    grown_train = concatenate_datasets([train.select_columns(columns), answered])
    grown = replace(data, splits={**data.splits, "train": grown_train})
    counts = np.bincount(answers, minlength=len(data.labels.names)) / len(answers)
    shares = dict(zip(data.labels.names, counts.round(4).tolist(), strict=True))
    if args.training.process_index == 0:
        found = SelfTraining(len(train), len(texts), rounds, agreement, shares)
        write_json_atomically(Path(args.training.output_dir, DESCRIPTION_FILE), asdict(found))
    labelled = tokens.add_column("labels", [*gold.tolist(), *answers.tolist()], feature=encoded_feature(data.labels))
    return grown, {**splits, "train": labelled}


def read_self_training(folder: Path) -> SelfTraining | None:
    """Reads what became of the texts; returns None if there is no description, or it is not whole."""
    try:
        return SelfTraining(**read_json(folder / DESCRIPTION_FILE))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _new_texts(resolved: ResolvedRun, data: ClassificationData, train: Dataset) -> Dataset:
    """Returns the texts without labels that are in no other split."""
    name, texts = resolved.args.data.unlabelled_file, load_unlabelled(resolved.args.data, data)
    assert texts is not None
    known = set(text_keys(train))
    kept = [row for row, key in enumerate(text_keys(texts)) if key not in known]
    if not kept:
        raise DataError(f"{name}: all of its texts are labelled already: name texts that are not")
    return texts.select(kept)


class _Views:
    """The two views of all texts, of which the first ones are labelled.

    Args:
        features: the features of all texts.
        texts: all texts.
        gold: (labelled,) label numbers of the first texts.
        labels: the labels of the task.
        descriptions: (labels, width) features of label descriptions, or None.
    """

    def __init__(
        self,
        features: FeatureDataset,
        texts: Dataset,
        gold: np.ndarray,
        labels: LabelSet,
        descriptions: np.ndarray | None,
    ):
        self.gold, self.labels, self.features = gold, labels, features
        self.marks: sparse.csr_array = NgramCounter(ngram_kind_of(texts)).fit_transform(texts)
        self.open_rows = np.arange(len(gold), len(features))
        self._uses_features = True
        sample = np.sort(np.random.default_rng(0).permutation(len(features))[:MOST_FITTED])
        self.scaling = Scaling.fit(Vectors(features.__getitems__(sample)["features"].numpy(), descriptions))
        self.shares = (np.bincount(gold, minlength=len(labels.names)) + 0.5) / (len(gold) + 0.5 * len(labels.names))

    def first_logits(self) -> np.ndarray:
        """Returns (texts, labels) logits of the texts without labels, by what the labelled rows alone tell.

        Cross-validation on these rows weighs the views. Features for which it finds no use stay out of all rounds.
        Without labelled rows, the nearest description is a text's label.
        """
        if not len(self.gold):
            return self._logits(self.scaling.nearest(), self.open_rows)
        rows = np.arange(len(self.gold))
        by_features, by_ngrams = self._views(rows, self.gold, self.open_rows)
        factors = self._factors()
        self._uses_features = factors[0] > 0
        return _aligned(factors[0] * by_features + factors[1] * by_ngrams, self.shares)

    def _factors(self) -> tuple[float, float]:
        """Weighs the views by the labelled rows, each classified by what was not fitted to it."""
        rows, task = np.arange(len(self.gold)), self.labels.problem_type
        parts = held_out_parts(self.gold, self.features.text_numbers[rows], FOLDS, seed=0)
        if not parts:
            # N-grams of few rows know few of the words of the others.
            return 1.0, 0.0
        views = np.empty((2, len(rows), len(self.labels.names)))
        for held in parts:
            kept = np.setdiff1d(rows, held)
            views[:, held] = self._views(kept, self.gold[kept], held)
        return fitted_factors(views[0], views[1], self.gold, task, None)

    def next_logits(self, logits: np.ndarray, share: float) -> tuple[np.ndarray, float]:
        """Fits both views to the labelled rows and the surest texts; returns their logits, and how far they agree.

        Args:
            logits: (texts, labels) of the round before.
            share: the share of the texts of every label that is learned from.
        """
        answers, sure = logits.argmax(axis=1), log_softmax(logits, axis=1).max(axis=1)
        rows = [np.arange(len(self.gold))]
        for label in np.unique(answers):
            of_label = np.flatnonzero(answers == label)
            surest = of_label[np.argsort(-sure[of_label], kind="stable")[: int(np.ceil(share * len(of_label)))]]
            rows.append(len(self.gold) + surest)
        learned, given = np.concatenate(rows), np.concatenate([self.gold, answers])
        others = [_aligned(view, self.shares) for view in self._views(learned, given[learned], self.open_rows)]
        agreement = float((others[0].argmax(axis=1) == others[1].argmax(axis=1)).mean())
        # Each view counts as much as the other, however sure it is of itself.
        used = others if self._uses_features else others[1:]
        return _aligned(
            np.sum([view / max(view.std(), LEAST_SPREAD) for view in used], axis=0), self.shares
        ), agreement

    def _views(self, rows: np.ndarray, given: np.ndarray, asked: np.ndarray) -> list[np.ndarray]:
        """Fits both views to some rows, and returns the (rows, labels) logits that each gives the rows asked about.

        Args:
            rows: the rows that are learned from.
            given: (rows,) their label numbers.
            asked: the rows that are classified.
        """
        views = [self._by_features(rows, given, asked), self._by_ngrams(rows, given, asked)]
        return [logits - logits.mean(axis=1, keepdims=True) for logits in views]

    def _by_features(self, rows: np.ndarray, given: np.ndarray, asked: np.ndarray) -> np.ndarray:
        if len(rows) > MOST_FITTED:
            chosen = np.random.default_rng(0).permutation(len(rows))[:MOST_FITTED]
            rows, given = rows[chosen], given[chosen]
        scaled = self.scaling.transform(self.features.__getitems__(rows)["features"].numpy())
        [fitted] = fit_regressions(scaled, given, len(self.labels.names), [INVERSE_PENALTY])
        return self._logits(self.scaling.of_features(fitted), asked)

    def _logits(self, regression: Regression, asked: np.ndarray) -> np.ndarray:
        logits = np.empty((len(asked), len(self.labels.names)))
        for places, features in self.features.select(asked).in_chunks():
            logits[places] = regression.logits(features)
        return logits

    def _by_ngrams(self, rows: np.ndarray, given: np.ndarray, asked: np.ndarray) -> np.ndarray:
        model = logistic_fitter(self.marks[rows], given, self.labels, None)(DEFAULT_INVERSE_PENALTY)
        return model.logits([self.marks[asked]], self.labels)


def _aligned(logits: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Shifts (texts, labels) logits, so that the mean probability of each label is its share."""
    shifted = logits
    for _ in range(ALIGNMENT_STEPS):
        shifted = shifted + np.log(shares) - np.log(softmax(shifted, axis=1).mean(axis=0))
    return shifted
