"""Logistic regressions of which none has seen the rows that it classifies, for training data that spares no row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from bertcls_hf.features.regressions import PENALTIES, fit_regressions, losses_of_rows
from bertcls_hf.features.scaling import Scaling, Vectors


FOLDS = 5


@dataclass(frozen=True)
class CrossFit:
    """The regressions with the best penalty.

    Args:
        penalty: C.
        logits: (rows, labels) float64, each from a regression that was not fitted to the row, nor to one of the same
            text.
        loss: their mean log-loss, weighted like the rows.
    """

    penalty: float
    logits: np.ndarray
    loss: float


def divided_rows(
    gold: np.ndarray, texts: np.ndarray, folds: int, seed: int, *, is_single_label: bool
) -> list[np.ndarray]:
    """Divides rows into parts with each text in one part, and single labels with about equal shares in all.

    Args:
        gold: (rows,) label numbers or floats, or (rows, labels) of 0 and 1.
        texts: (rows,) numbers that rows of one text share.
        folds: the number of parts, at most the number of texts.
        seed: of the order of the texts.
        is_single_label: whether `gold` has the number of each row's only label.

    Returns:
        The row numbers of each part, ascending.
    """
    splitter = (StratifiedGroupKFold if is_single_label else GroupKFold)(folds, shuffle=True, random_state=seed)
    return [held for _, held in splitter.split(gold, gold if is_single_label else None, texts)]


def held_out_parts(gold: np.ndarray, texts: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Divides rows by [`divided_rows`], where every part's labels are to be known from the others.

    Args:
        gold: (rows,) label numbers, or (rows, labels) of 0 and 1.
        texts: (rows,) numbers that rows of one text share.
        folds: the number of parts; there are fewer if a label, or all rows, have fewer texts.
        seed: of the order of the texts.

    Returns:
        The row numbers of each part; none if all of a label, or of all rows, would be one text, which no other part
        would know.
    """
    is_single = gold.ndim == 1
    groups = [texts[gold == label] for label in np.unique(gold)] if is_single else [texts]
    fewest = min(len(np.unique(group)) for group in groups)
    if fewest < 2:
        return []
    return divided_rows(gold, texts, min(folds, fewest), seed, is_single_label=is_single)


def cross_fit(
    vectors: Vectors | Sequence[Vectors],
    gold: np.ndarray,
    parts: Sequence[np.ndarray],
    labels: int,
    class_weights: np.ndarray | None = None,
) -> CrossFit:
    """Fits the regressions with each penalty, and returns those with the least loss on the rows that they did not see.

    Args:
        vectors: the features of all rows; or of all rows for each part, by an encoder that has not seen it either.
        gold: (rows,) label numbers, or (rows, labels) of 0 and 1.
        parts: the rows of each part, which hold every row once; see [`held_out_parts`].
        labels: the number of labels, of which some may have no row.
        class_weights: (labels,) floats; equal ones by default.
    """
    of_part = [vectors] * len(parts) if isinstance(vectors, Vectors) else vectors
    logits = np.empty((len(PENALTIES), len(gold), labels))
    for values, held in zip(of_part, parts, strict=True):
        kept = np.setdiff1d(np.arange(len(gold)), held)
        scaling = Scaling.fit(Vectors(values.rows[kept], values.descriptions))
        scaled = scaling.transform(values.rows[kept])
        fitted = fit_regressions(scaled, gold[kept], labels, PENALTIES, class_weights)
        logits[:, held] = [regression.logits(scaling.transform(values.rows[held])) for regression in fitted]
    losses = [float(losses_of_rows(found, gold, class_weights).mean()) for found in logits]
    best = int(np.argmin(losses))
    return CrossFit(PENALTIES[best], logits[best], losses[best])
