"""Proposes texts of a pool by the cached features of a frozen encoder, for a person to label."""

from functools import cached_property
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from bertcls_hf.data.labels import LabelSet
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.scaling import Scaling
from bertcls_hf.labelling.heads import LinearHead, fit_head, fitted_scaling
from bertcls_hf.labelling.strategies import highest, k_center, uncertainty


# `spread`: of the most uncertain texts, k-center takes some that differ. The others are its halves, and chance.
Strategy = Literal["spread", "uncertainty", "coverage", "random"]
# `spread` chooses among so many times the number of texts (the prefilter of Zhdanov 2019, arXiv 1901.05954).
CANDIDATES_PER_TEXT = 10
# Of larger pools, k-center looks at a random sample; so it does with labelled rows.
MOST_COVERED, MOST_CENTERS = 10_000, 2_000


class Proposer:
    """Chooses rows of a pool.

    Args:
        pool: the features of the pool.
        is_open: (rows,) bool, true for the rows that may be proposed. The caller may change it between two proposals.
        labels: the labels of the task.
        seed: of random choices and samples.
        descriptions: (labels, width) features of a text for each label, or None.
    """

    def __init__(
        self,
        pool: FeatureDataset,
        is_open: np.ndarray,
        labels: LabelSet,
        seed: int,
        descriptions: np.ndarray | None = None,
    ):
        self.pool, self.is_open, self.labels, self._descriptions = pool, is_open, labels, descriptions
        self._generator = np.random.default_rng(seed)

    @cached_property
    def scaling(self) -> Scaling:
        """Scales features by the pool, or by a random sample of it."""
        return fitted_scaling(self.pool, self._generator, self._descriptions)

    def head(self, features: np.ndarray, gold: np.ndarray) -> LinearHead | None:
        """Fits a head to labelled rows; see [`fit_head`].

        Until the rows have two labels, the nearest description is the label; without descriptions, there is no head.
        """
        if len(np.unique(gold, axis=0)) > 1:
            return fit_head(features, gold, self.labels, self.scaling)
        return None if self._descriptions is None else LinearHead.of(self.scaling.nearest(), self.labels)

    def propose(self, strategy: Strategy, number: int, features: np.ndarray, head: LinearHead | None) -> np.ndarray:
        """Chooses open rows of the pool, the most useful first.

        Args:
            strategy: how to choose.
            number: how many; where fewer are open, all of them.
            features: (labelled, features) float32 of the labelled rows; of none for a cold start.
            head: fitted to the labelled rows; needed by `spread` and `uncertainty`.

        Returns:
            Rows of the pool, (`number`,) int.
        """
        if strategy == "random":
            return self._sample(np.flatnonzero(self.is_open), number)
        if strategy == "coverage":
            return self._covering(self._sample(np.flatnonzero(self.is_open), MOST_COVERED), features, number)
        assert head is not None
        unsure = self._uncertainty(head)
        if strategy == "uncertainty":
            return self._open(highest(unsure, number))
        return self._covering(self._open(highest(unsure, CANDIDATES_PER_TEXT * number)), features, number)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Reads the features of some rows of the pool: (rows, features) float32."""
        return self.pool.__getitems__(rows)["features"].numpy()

    def _uncertainty(self, head: LinearHead) -> np.ndarray:
        """Returns (rows,) float32, -inf for rows that are not open."""
        values = np.empty(len(self.pool), dtype=np.float32)
        # The product of a chunk is small: more threads would wait for each other where cores are busy.
        with threadpool_limits(limits=1, user_api="blas"):
            for rows, features in self.pool.in_chunks():
                values[rows] = uncertainty(head.probabilities(features), self.labels.problem_type)
        values[~self.is_open] = -np.inf
        return values

    def _open(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.is_open[rows]]

    def _covering(self, candidates: np.ndarray, labelled: np.ndarray, number: int) -> np.ndarray:
        centers = labelled[self._sample(np.arange(len(labelled)), MOST_CENTERS)]
        if len(centers):
            centers = self.scaling.scaler.transform(centers)
        if not len(candidates):
            return candidates
        scaled = self.scaling.scaler.transform(self.features(candidates))
        return candidates[k_center(scaled, centers, number)]

    def _sample(self, rows: np.ndarray, number: int) -> np.ndarray:
        return rows if len(rows) <= number else self._generator.choice(rows, number, replace=False)
