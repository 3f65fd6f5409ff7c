"""Boost: the features of a frozen backbone, computed once, kept in Arrow, and read back as a training set.

python -m bertcls_hf.features list      # what is cached, for which model and data
python -m bertcls_hf.features verify    # reads every shard and checks it
python -m bertcls_hf.features prune --older_than_days 30
"""

import contextlib
import hashlib
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from bertcls_hf.arguments import Arguments, ClassifierTrainingArguments
from bertcls_hf.feature_cache import CacheMeta, FeatureCache, require_space
from bertcls_hf.modeling import TextClassifier, TextClassifierConfig, feature_components, merge_components


logger = logging.getLogger(__name__)

# Part of the key: raise it when the numbers change, as they do with the make-up of batches.
EXTRACTION_VERSION = 2
# Small batches keep a layer's activations in the processor's cache; larger ones fill an accelerator.
TOKENS_PER_BATCH = {"cpu": 2048}
TOKENS_PER_ACCELERATOR_BATCH = 32_768
IN_MEMORY_BYTES = 2**30
WAIT_SECONDS = 0.2


class FeatureDataset(torch.utils.data.Dataset):
    """Cached features and labels, read a batch at a time.

    Args:
        parts: per component, the shards' arrays of shape (rows, hidden).
        positions: (rows,) where each row's features lie in the cache.
        labels: (rows,) or (rows, labels), or None.
        config: how components become the head's input.
    """

    def __init__(
        self,
        parts: list[list[np.ndarray]],
        positions: np.ndarray,
        labels: torch.Tensor | None,
        config: TextClassifierConfig,
    ):
        self.parts, self.positions, self.labels, self.config = parts, positions, labels, config
        self._ends = np.cumsum([len(shard) for shard in parts[0]])
        size = sum(shard.nbytes for shards in parts for shard in shards)
        # Small caches are gathered once; larger ones stay memory-mapped.
        self._all = self._gather(np.arange(self._ends[-1])) if size <= IN_MEMORY_BYTES else None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: values[0] for name, values in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """A whole batch: `features` (batch, width) float32 and, where known, `labels`."""
        positions = self.positions[rows]
        features = self._gather(positions) if self._all is None else self._all[torch.from_numpy(positions)]
        batch = {"features": features}
        return batch if self.labels is None else batch | {"labels": self.labels[rows]}

    def _gather(self, positions: np.ndarray) -> torch.Tensor:
        shard_of = np.searchsorted(self._ends, positions, side="right")
        parts = []
        for shards in self.parts:
            values = np.empty((len(positions), shards[0].shape[1]), dtype=np.float32)
            for shard in np.unique(shard_of):
                chosen = shard_of == shard
                start = self._ends[shard] - len(shards[shard])
                values[chosen] = shards[shard][positions[chosen] - start]
            parts.append(torch.from_numpy(values))
        return merge_components(parts, self.config)


@dataclass(frozen=True)
class ExtractionPlan:
    """Which rows are computed, and in what order.

    Args:
        rows: (distinct,) dataset rows in the order of extraction: long texts first.
        positions: (all rows,) the place in that order that each row's features have; repeated texts share one.
        lengths: (distinct,) tokens, in the order of extraction.
        digest: of all token ids in the order of extraction.
    """

    rows: np.ndarray
    positions: np.ndarray
    lengths: np.ndarray
    digest: str


def plan_extraction(split: Dataset) -> ExtractionPlan:
    """Finds the distinct token sequences of a split and sorts them by length."""
    digests = list(_row_digests(split))
    distinct: dict[bytes, int] = {}
    number_of = np.fromiter((distinct.setdefault(digest, len(distinct)) for digest in digests), np.int64, len(digests))
    _, first_rows = np.unique(number_of, return_index=True)
    lengths = np.asarray(split["length"][:])[first_rows]
    order = np.argsort(-lengths, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    keys = list(distinct)
    content = hashlib.sha256(b"".join(keys[number] for number in order)).hexdigest()
    return ExtractionPlan(first_rows[order], place[number_of], lengths[order], content)


def _row_digests(split: Dataset) -> Iterator[bytes]:
    for batch in split.with_format("arrow").iter(batch_size=4096):
        columns = [_TokenColumn(batch.column(name)) for name in _token_columns(split)]
        for row in range(len(batch)):
            digest = xxhash.xxh3_128()
            for column in columns:
                digest.update(column.row(row).tobytes())
                digest.update(b"|")
            yield digest.digest()


def _token_columns(split: Dataset) -> list[str]:
    return [name for name in ("input_ids", "token_type_ids") if name in split.column_names]


class _TokenColumn:
    """The lists of an Arrow column as one flat array and its offsets."""

    def __init__(self, column: Any):
        combined = column.combine_chunks()
        self.offsets = combined.offsets.to_numpy()
        self.values = combined.values.to_numpy()

    def row(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def padded(self, rows: slice, mask: np.ndarray, fill: int) -> np.ndarray:
        """(rows, width) int64; `mask` says where tokens are."""
        padded = np.full(mask.shape, fill, dtype=np.int64)
        padded[mask] = self.values[self.offsets[rows.start] : self.offsets[rows.stop]]
        return padded


def encoder_fingerprint(model: TextClassifier) -> str:
    """A hash of the encoder's weights and settings, without its pooler, its path, and how attention is computed."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.encoder.state_dict().items()):
        if not name.startswith("pooler."):
            _update_with_tensor(digest, name, tensor)
    settings = model.config.encoder_config.to_dict()
    ignored = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"}
    kept = {
        name: value for name, value in settings.items() if name not in ignored and "attn_implementation" not in name
    }
    digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _update_with_tensor(digest: Any, name: str, tensor: torch.Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the tokenizer's content; calls leave traces in its truncation and padding, which are left out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    content = {name: value for name, value in content.items() if name not in {"truncation", "padding"}}
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps([content, special], sort_keys=True).encode()).hexdigest()


def component_names(model: TextClassifier) -> dict[str, str]:
    """From each component of the model's pooling to its name in the cache; a pooler's names its weights."""
    names = {component: component for component in feature_components(model.config)}
    if "pooler" in names:
        digest = hashlib.sha256()
        for name, tensor in sorted(model.encoder.pooler.state_dict().items()):
            _update_with_tensor(digest, name, tensor)
        names["pooler"] = f"pooler-{digest.hexdigest()[:12]}"
    return names


@dataclass(frozen=True)
class Placement:
    """Where extraction runs.

    Args:
        devices: of this process; shards are shared out among them.
        rank: of this process.
        world_size: number of processes, each of which computes every `world_size`-th shard.
    """

    devices: tuple[torch.device, ...]
    rank: int = 0
    world_size: int = 1


def placement_of(args: ClassifierTrainingArguments) -> Placement:
    """One device per process, or all visible GPUs of a single process."""
    devices = tuple(torch.device("cuda", index) for index in range(args.n_gpu)) if args.n_gpu > 1 else (args.device,)
    return Placement(devices, args.process_index, args.world_size)


class FeatureExtractor:
    """Turns tokenized splits into cached features.

    Args:
        model: its encoder is frozen.
        tokenizer: for its content, which is part of the key, and its padding token.
        args: cache folder, number format, devices and ranks.
        max_seq_length: part of the key.
    """

    def __init__(
        self,
        model: TextClassifier,
        tokenizer: PreTrainedTokenizerBase,
        args: Arguments,
        max_seq_length: int,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.placement = placement_of(args.training)
        self.model_name = args.model.model_name_or_path
        dtype = args.boost.boost_dtype
        self.compute_dtype = _compute_dtype(dtype, self.placement.devices[0])
        self.storage_dtype = "float32" if dtype == "float32" else "float16"
        settings = (EXTRACTION_VERSION, max_seq_length, self.storage_dtype, str(self.compute_dtype))
        self.key_start = [encoder_fingerprint(model), tokenizer_fingerprint(tokenizer), repr(settings)]
        self.root = cache_root(args.boost.boost_cache_dir)

    def key(self, plan: ExtractionPlan) -> str:
        """The name of a split's cache: all that changes the numbers, and nothing else."""
        return hashlib.sha256("\n".join([*self.key_start, plan.digest]).encode()).hexdigest()[:32]

    def features(self, name: str, split: Dataset) -> FeatureDataset:
        """The features of one split, from the cache or computed.

        Args:
            name: of the split, for progress and listing.
            split: columns `input_ids`, `length` and, where known, `token_type_ids` and `labels`.

        Raises:
            StorageError: the disk cannot hold the features.
        """
        plan = plan_extraction(split)
        width = self.model.config.hidden_size
        cache = FeatureCache(self.root / self.key(plan), len(plan.rows), width, self.storage_dtype)
        names = component_names(self.model)
        stored = tuple(names.values())
        with cache.building() if self.placement.rank == 0 else contextlib.nullcontext():
            self._discard_damaged(cache, stored)
            if self._missing_shards(cache, stored):
                self._extract(name, split, plan, cache, names)
                self._wait_for_other_ranks(cache, stored)
            if self.placement.rank == 0:
                tokens = int(plan.lengths.sum())
                cache.write_meta(
                    CacheMeta(self.model_name, name, len(plan.rows), width, self.storage_dtype, tokens, stored)
                )
        labels = _label_tensor(split)
        return FeatureDataset(
            [cache.read(component) for component in stored], plan.positions, labels, self.model.config
        )

    def _discard_damaged(self, cache: FeatureCache, stored: tuple[str, ...]) -> None:
        if self.placement.rank == 0:
            cache.drop_damaged(stored)
        if self.placement.world_size > 1:
            torch.distributed.barrier()

    def _missing_shards(self, cache: FeatureCache, stored: tuple[str, ...]) -> list[int]:
        return [shard for shard in range(cache.shards) if cache.missing_components(shard, stored)]

    def _wait_for_other_ranks(self, cache: FeatureCache, stored: tuple[str, ...]) -> None:
        """Looks at the disk: a collective would run into the process group's time-out."""
        while self._missing_shards(cache, stored):
            time.sleep(WAIT_SECONDS)

    def _extract(
        self, name: str, split: Dataset, plan: ExtractionPlan, cache: FeatureCache, names: dict[str, str]
    ) -> None:
        missing = self._missing_shards(cache, tuple(names.values()))
        own = [shard for shard in missing if shard % self.placement.world_size == self.placement.rank]
        if self.placement.rank == 0:
            rows = sum(cache.shard_rows(shard).stop - cache.shard_rows(shard).start for shard in missing)
            require_space(cache.folder, rows * cache.width * np.dtype(cache.dtype).itemsize * len(names))
        cache.folder.mkdir(parents=True, exist_ok=True)
        tokens = sum(int(plan.lengths[cache.shard_rows(shard)].sum()) for shard in own)
        progress = tqdm(total=tokens, unit="tok", unit_scale=True, desc=f"Features of {name}",
                        disable=self.placement.rank != 0)  # fmt: skip
        replicas = _replicas(self.model, self.placement.devices)
        turn = threading.Lock()

        def extract_shard(shard: int) -> None:
            with turn:
                model = replicas.pop()
            try:
                self._extract_shard(shard, split, plan, cache, names, model, progress)
            finally:
                replicas.append(model)

        with progress, ThreadPoolExecutor(max_workers=len(replicas)) as pool:
            for _ in pool.map(extract_shard, own):
                pass

    @torch.inference_mode()
    def _extract_shard(
        self,
        shard: int,
        split: Dataset,
        plan: ExtractionPlan,
        cache: FeatureCache,
        names: dict[str, str],
        model: TextClassifier,
        progress: Any,
    ) -> None:
        rows = cache.shard_rows(shard)
        components = [component for component, stored in names.items() if cache.missing_components(shard, (stored,))]
        values = {c: np.empty((rows.stop - rows.start, cache.width), dtype=np.float32) for c in components}
        table = split.with_format("arrow")[plan.rows[rows]]
        columns = {column: _TokenColumn(table.column(column)) for column in _token_columns(split)}
        lengths = plan.lengths[rows]
        for batch in token_budget_batches(lengths, _token_budget(model.device)):
            inputs = self._inputs(columns, lengths[batch], batch, model.device)
            with torch.autocast(
                model.device.type, dtype=self.compute_dtype, enabled=self.compute_dtype != torch.float32
            ):
                encoded = model.encode_components(components, **inputs)
            for component, tensor in zip(components, encoded, strict=True):
                values[component][batch] = tensor.float().cpu().numpy()
            progress.update(int(lengths[batch].sum()))
        for component in components:
            cache.write(names[component], shard, values[component])

    def _inputs(
        self, columns: dict[str, _TokenColumn], lengths: np.ndarray, batch: slice, device: torch.device
    ) -> dict[str, torch.Tensor]:
        mask = np.arange(lengths.max()) < lengths[:, None]
        fill = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        arrays = {name: column.padded(batch, mask, fill[name]) for name, column in columns.items()}
        arrays["attention_mask"] = mask.astype(np.int64)
        return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}


def token_budget_batches(lengths: np.ndarray, budget: int) -> Iterator[slice]:
    """Consecutive rows, longest first, whose padded size stays within the budget; a longer row comes alone."""
    start = 0
    while start < len(lengths):
        stop = min(start + max(budget // int(lengths[start]), 1), len(lengths))
        yield slice(start, stop)
        start = stop


def _token_budget(device: torch.device) -> int:
    return TOKENS_PER_BATCH.get(device.type, TOKENS_PER_ACCELERATOR_BATCH)


def _compute_dtype(asked: str, device: torch.device) -> torch.dtype:
    """float32 where nothing else is asked for; half precision is an accelerator's or asked for."""
    if asked == "bfloat16":
        return torch.bfloat16
    if asked == "float16" and device.type != "cpu":
        return torch.float16
    return torch.float32


def _replicas(model: TextClassifier, devices: tuple[torch.device, ...]) -> list[TextClassifier]:
    """The model on each device, in evaluation mode."""
    import copy

    models = [model, *(copy.deepcopy(model) for _ in devices[1:])]
    return [replica.to(device).eval() for replica, device in zip(models, devices, strict=True)]


def _label_tensor(split: Dataset) -> torch.Tensor | None:
    return torch.as_tensor(np.asarray(split["labels"][:])) if "labels" in split.column_names else None


def cache_root(asked: str | None) -> Path:
    """The folder of all caches; a temporary one, with a warning, where that cannot be written."""
    root = Path(asked or Path(HF_HOME, "bertcls_hf", "features")).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as error:
        temporary = Path(tempfile.mkdtemp(prefix="bertcls_hf_features_"))
        logger.warning("%s cannot be written (%s): the features of this run go to %s", root, error.strerror, temporary)
        return temporary


if __name__ == "__main__":
    from bertcls_hf.cache_command import main

    sys.exit(main())
