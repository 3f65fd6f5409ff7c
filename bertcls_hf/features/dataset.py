"""A torch data set of cached features, from which a head is trained."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bertcls_hf.features.number_formats import decode_features
from bertcls_hf.models.modeling import TextClassifierConfig, merge_parts, pool_windows


# Features up to this size, as float32, are loaded into memory; larger ones stay memory-mapped, which is hardly slower.
IN_MEMORY_BYTES = 2**28
# The texts in windows that `in_chunks` reads at once.
CHUNK_TEXTS = 2**11
# With more numbers at once, torch starts all its threads, which wait for each other where cores are busy.
NUMBERS_OF_ONE_THREAD = 2**15


class FeatureDataset(torch.utils.data.Dataset):
    """Cached features and labels, read a batch at a time.

    Args:
        parts: for each component, the arrays of its shards, each of shape (rows of the shard, hidden), or as
            `encode_features` returns them.
        positions: (rows,) the position of each row's features in the cache; repeated texts share a position. If texts
            are split into windows, the positions are those of all windows, text by text.
        labels: (rows,) or (rows, labels), or None if the split has no labels.
        config: the classifier's configuration, which says how components are merged into the head's input.
        lexical_logits: (rows, labels) logits of the lexical features, or None for a classifier without them.
        teacher_logits: (rows, labels) logits of the teachers, or None without any.
        windows: (rows,) the number of windows of each text, or None if texts are not split.
    """

    def __init__(
        self,
        parts: list[list[np.ndarray]],
        positions: np.ndarray,
        labels: torch.Tensor | None,
        config: TextClassifierConfig,
        lexical_logits: torch.Tensor | None = None,
        windows: np.ndarray | None = None,
        teacher_logits: torch.Tensor | None = None,
    ):
        self.lexical_logits, self.teacher_logits = lexical_logits, teacher_logits
        # The windows of text i are positions[bounds[i] : bounds[i + 1]].
        self._bounds = None if windows is None else np.concatenate([[0], np.cumsum(windows)])
        self.parts, self.positions, self.labels, self.config = parts, positions, labels, config
        self._ends = np.cumsum([len(shard) for shard in parts[0]])
        self._hidden = decode_features(parts[0][0][:1]).shape[1]
        self._is_int8 = parts[0][0].dtype == np.int8
        size = 4 * int(self._ends[-1]) * len(parts) * self._hidden
        # Batches are read with numpy, because torch would start all its threads for each batch.
        self._all = self._merge(self._read_all()).numpy() if size <= IN_MEMORY_BYTES else None

    def __len__(self) -> int:
        return len(self.positions) if self._bounds is None else len(self._bounds) - 1

    @property
    def text_numbers(self) -> np.ndarray:
        """(rows,) numbers that rows with the same text share; for split texts, those with the same first window."""
        return self.positions if self._bounds is None else self.positions[self._bounds[:-1]]

    def select(self, rows: np.ndarray) -> "FeatureDataset":
        """Returns a dataset of some rows, which shares the features with this one."""
        chosen = copy.copy(self)
        if self._bounds is None:
            chosen.positions = self.positions[rows]
        else:
            spans = [self.positions[self._bounds[row] : self._bounds[row + 1]] for row in rows]
            chosen.positions = np.concatenate(spans)
            chosen._bounds = np.concatenate([[0], np.cumsum(list(map(len, spans)))])
        for name in ("labels", "lexical_logits", "teacher_logits"):
            values = getattr(self, name)
            setattr(chosen, name, None if values is None else values[rows])
        return chosen

    def with_lexical_logits(self, logits: np.ndarray) -> "FeatureDataset":
        """Returns the dataset with other (rows, labels) logits of the lexical features."""
        changed = copy.copy(self)
        changed.lexical_logits = torch.from_numpy(logits)
        return changed

    def in_chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Reads the features of every row once, in the order in which they lie in the cache, which a disk likes best.

        Yields:
            The numbers of some rows, (chunk,) int64, and their features, (chunk, `config.feature_size`) float32.
        """
        if self._bounds is not None:
            for start in range(0, len(self), CHUNK_TEXTS):
                texts = np.arange(start, min(start + CHUNK_TEXTS, len(self)))
                yield texts, self.__getitems__(texts)["features"].numpy()
            return
        order = np.argsort(self.positions, kind="stable")
        # The rows of shard i are order[bounds[i] : bounds[i + 1]].
        bounds = np.concatenate([[0], np.searchsorted(self.positions, self._ends, sorter=order)])
        for shard in np.flatnonzero(np.diff(bounds)):
            rows = order[bounds[shard] : bounds[shard + 1]]
            start = self._ends[shard - 1] if shard else 0
            yield rows, self._merge(self._read_shard(int(shard), self.positions[rows] - start)).numpy()

    def _read_shard(self, shard: int, places: np.ndarray) -> np.ndarray:
        """Reads the features at some places of a shard: (places, components, hidden) float32."""
        values = np.empty((len(places), len(self.parts), self._hidden), dtype=np.float32)
        for component, shards in enumerate(self.parts):
            stored = shards[shard][places]
            if stored.dtype == np.float16:
                _convert(stored, values[:, component])
            else:
                values[:, component] = decode_features(stored)
        return values

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: values[0] for name, values in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Reads a batch: `features` of shape (batch, `config.feature_size`), float32, and what else is known.

        These are `labels`, and the `lexical_logits` of a classifier that has them. If the head learns how to pool the
        windows of a text, `features` are (batch, windows, `config.feature_size`), and there is a `window_mask`.
        """
        rows = np.asarray(rows)
        if self._bounds is None:
            inputs = {"features": self._features(self.positions.take(rows))}
        else:
            inputs = self._features_of_windows(rows, self._bounds)
        known = {
            "labels": self.labels, "lexical_logits": self.lexical_logits, "teacher_logits": self.teacher_logits,
        }  # fmt: skip
        taken = {name: torch.from_numpy(values.numpy().take(rows, axis=0)) for name, values in known.items()
                 if values is not None}  # fmt: skip
        return inputs | taken

    def _features(self, positions: np.ndarray) -> torch.Tensor:
        """Reads the merged features at some positions: (positions, `config.feature_size`) float32."""
        if self._all is None:
            return self._merge(self._gather(positions))
        return torch.from_numpy(self._all.take(positions, axis=0))

    def _features_of_windows(self, rows: np.ndarray, bounds: np.ndarray) -> dict[str, torch.Tensor]:
        """Reads the windows of texts, and pools them unless the head learns how to."""
        counts = bounds[rows + 1] - bounds[rows]
        window_mask = np.arange(counts.max()) < counts[:, None]
        positions = self.positions[(bounds[rows, None] + np.arange(counts.max()))[window_mask]]
        features = torch.zeros(*window_mask.shape, self.config.feature_size)
        mask = torch.from_numpy(window_mask)
        features[mask] = self._features(positions)
        pooling = self.config.window_pooling
        assert pooling is not None
        if pooling == "attention":
            return {"features": features, "window_mask": mask}
        return {"features": pool_windows(features, mask, pooling)}

    def _read_all(self) -> np.ndarray:
        """Reads all features: (distinct rows, components, hidden) float32."""
        values = np.empty((self._ends[-1], len(self.parts), self._hidden), dtype=np.float32)
        for component, shards in enumerate(self.parts):
            for stop, shard in zip(self._ends, shards, strict=True):
                values[stop - len(shard) : stop, component] = decode_features(shard)
        return values

    def _gather(self, positions: np.ndarray) -> np.ndarray:
        """Reads the features at some positions: (positions, components, hidden) float32."""
        order = np.argsort(positions)
        ordered = positions[order]
        # The chosen rows of shard i are ordered[bounds[i] : bounds[i + 1]].
        bounds = np.concatenate([[0], np.searchsorted(ordered, self._ends)])
        values = np.empty((len(positions), len(self.parts), self._hidden), dtype=np.float32)
        for shard in np.flatnonzero(np.diff(bounds)):
            chosen = slice(bounds[shard], bounds[shard + 1])
            rows, places = ordered[chosen] - (self._ends[shard - 1] if shard else 0), order[chosen]
            for component, shards in enumerate(self.parts):
                stored = shards[shard][rows]
                # numpy converts floats while it copies them, without a call for each shard.
                values[places, component] = decode_features(stored) if self._is_int8 else stored
        return values

    def _merge(self, values: np.ndarray) -> torch.Tensor:
        """Merges (rows, components, hidden) into (rows, `config.feature_size`), a view unless layers are averaged."""
        parts = torch.from_numpy(values)
        is_mean = self.config.pooling_layers_merge == "mean"
        return merge_parts(parts.unbind(1), self.config) if is_mean else parts.flatten(1)


def _convert(half: np.ndarray, values: np.ndarray) -> None:
    """Converts (rows, hidden) float16 numbers to float32 in `values`, which takes numpy ten times as long."""
    rows = max(NUMBERS_OF_ONE_THREAD // half.shape[1], 1)
    for start in range(0, len(half), rows):
        piece = slice(start, start + rows)
        torch.from_numpy(values[piece]).copy_(torch.from_numpy(half[piece]))
