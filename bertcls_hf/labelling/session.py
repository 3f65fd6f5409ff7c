"""One person's work on the page: the text to label now, the answers so far, and how good the head is by now."""

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from datasets import Dataset

from bertcls_hf.data.texts import text_columns
from bertcls_hf.labelling.heads import out_of_fold_probabilities
from bertcls_hf.labelling.labelled_file import LabelledFile, LabelledRow
from bertcls_hf.labelling.proposer import Proposer, Strategy
from bertcls_hf.metrics.intervals import wilson_interval


# The learning curve gets a point when there are so many times the labelled rows of the last one.
GROWTH = 1.1


@dataclass(frozen=True)
class LabelledRows:
    """Labelled rows as a head reads them.

    Args:
        features: (rows, features) float32.
        gold: (rows,) int positions.
        texts: (rows,) int, equal where the texts are equal.
    """

    features: np.ndarray
    gold: np.ndarray
    texts: np.ndarray

    def __len__(self) -> int:
        return len(self.gold)


@dataclass(frozen=True)
class Point:
    """The accuracy with so many labelled rows.

    Args:
        labelled: the number of labelled rows.
        accuracy: the share of right labels.
        low: the lower end of its 95 % interval (Wilson 1927).
        high: the upper end.
    """

    labelled: int
    accuracy: float
    low: float
    high: float


class LabellingSession:
    """Proposes one text after the other, and writes every answer to the file of labelled texts before the next one.

    Its methods can be called from any thread, one at a time. An answer names the text that it is for: one that comes
    late, for a text that is no longer shown, changes nothing.

    Args:
        proposer: proposes rows of the pool.
        texts: the texts of the pool, in the order of its features.
        labelled: the rows that are labelled already.
        file: the file that gets the answers.
        validation: rows for the learning curve, which no head learns; without any, the labelled rows are
            cross-validated.
        seed: of the folds.
    """

    def __init__(
        self,
        proposer: Proposer,
        texts: Dataset,
        labelled: LabelledRows,
        file: LabelledFile,
        validation: LabelledRows,
        seed: int,
    ):
        self.proposer, self.file, self.labels = proposer, file, proposer.labels
        self.curve: list[Point] = []
        self._texts, self._start, self._validation, self._seed = texts, labelled, validation, seed
        # The rows of the pool that were answered or skipped (None), in this order.
        self._answers: list[tuple[int, int | None]] = []
        self._lock = threading.Lock()
        self.row = self._next()
        self._measure()

    @property
    def text(self) -> tuple[str, ...] | None:
        """The text to label now, or the two texts of a pair; None when all are done."""
        return None if self.row is None else self._texts_of(self.row)

    @property
    def is_validated(self) -> bool:
        """Whether the learning curve is that of validation data."""
        return len(self._validation) > 0

    @property
    def labelled_count(self) -> int:
        """The number of labelled rows, with those of the start."""
        return len(self._labelled)

    @property
    def open_count(self) -> int:
        """The number of texts that are neither labelled nor skipped."""
        return int(self.proposer.is_open.sum())

    def answer(self, row: int, position: int) -> None:
        """Gives the text of a row of the pool the label at a position.

        Raises:
            RunError: the file cannot be written; the text stays the one to label.
        """
        with self._lock:
            if row == self.row:
                self.file.append([LabelledRow(self._texts_of(row), self.labels.names[position])])
                self._done(row, position)
                self._measure()

    def skip(self, row: int) -> None:
        """Leaves the text of a row of the pool without a label."""
        with self._lock:
            if row == self.row:
                self._done(row, None)

    def undo(self) -> None:
        """Takes the last answer back, or shows the last skipped text again; does nothing at the start.

        Raises:
            RunError: the file cannot be written; the answer stays.
        """
        with self._lock:
            if not self._answers:
                return
            row, position = self._answers[-1]
            if position is not None:
                self.file.undo()
            self._answers.pop()
            self.proposer.is_open[row] = True
            self.row = row
            self.__dict__.pop("_labelled", None)
            self.curve = [point for point in self.curve if point.labelled <= self.labelled_count]

    def _done(self, row: int, position: int | None) -> None:
        self._answers.append((row, position))
        self.proposer.is_open[row] = False
        self.__dict__.pop("_labelled", None)
        self.row = self._next()

    def _texts_of(self, row: int) -> tuple[str, ...]:
        found = self._texts[row]
        return tuple(found[name] for name in text_columns(self._texts))

    @cached_property
    def _labelled(self) -> LabelledRows:
        """All labelled rows, of the start and of this session, until there is another answer."""
        answered = [(row, position) for row, position in self._answers if position is not None]
        if not answered:
            return self._start
        rows, positions = np.array(answered).T
        texts = len(self._start) + rows
        parts = LabelledRows(self.proposer.features(rows), positions, texts)
        if not len(self._start):
            return parts
        return LabelledRows(
            *(np.concatenate([getattr(self._start, name), getattr(parts, name)])
              for name in ("features", "gold", "texts"))
        )  # fmt: skip

    def _next(self) -> int | None:
        labelled = self._labelled
        head = self.proposer.head(labelled.features, labelled.gold)
        strategy: Strategy = "coverage" if head is None else "spread"
        found = self.proposer.propose(strategy, 1, labelled.features, head)
        return int(found[0]) if len(found) else None

    def _measure(self) -> None:
        """Adds a point to the learning curve, where there are enough new rows since the last one."""
        labelled = self._labelled
        is_early = bool(self.curve) and len(labelled) < GROWTH * self.curve[-1].labelled
        if is_early or len(np.unique(labelled.gold)) < 2:
            return
        if not self.is_validated:
            outputs = out_of_fold_probabilities(
                labelled.features, labelled.gold, labelled.texts, self.labels, self.proposer.scaling, self._seed
            )
            gold = labelled.gold
        else:
            head = self.proposer.head(labelled.features, labelled.gold)
            assert head is not None
            outputs, gold = head.probabilities(self._validation.features), self._validation.gold
        if outputs is not None:
            hits = int((outputs.argmax(axis=1) == gold).sum())
            self.curve.append(Point(len(labelled), hits / len(gold), *wilson_interval(hits, len(gold))))
