"""Computes the features of a frozen encoder, and caches them under a key of everything that they depend on."""

import copy
import functools
import hashlib
import json
import logging
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from bertcls_hf.config.arguments import Arguments, ClassifierTrainingArguments
from bertcls_hf.data.tokenization import pad_flat_texts
from bertcls_hf.errors import DivergedError
from bertcls_hf.features.cache import (
    CacheMeta,
    FeatureCache,
    cache_root,
    require_space,
    writing_problem,
)
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.logits_columns import LEXICAL_COLUMN, TEACHER_COLUMN
from bertcls_hf.features.number_formats import stored_width
from bertcls_hf.features.plan import ExtractionPlan, TokenColumn, plan_extraction, token_columns
from bertcls_hf.features.windows import split_texts
from bertcls_hf.models.fingerprints import tokenizer_fingerprint, weights_fingerprint
from bertcls_hf.models.modeling import PooledPart, TextClassifier, pooled_parts
from bertcls_hf.models.token_batches import bound_kernel_cache, run_batches, token_budget, token_budget_batches


logger = logging.getLogger(__name__)

# Part of the cache key. Raise it whenever the features change, for example when batches are composed differently.
EXTRACTION_VERSION = 3
# Settings that do not affect what an encoder computes in evaluation mode; the key leaves them out.
HARMLESS_SETTINGS = frozenset({
    "_name_or_path", "architectures", "dtype", "id2label", "initializer_range", "label2id", "output_attentions",
    "output_hidden_states", "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache",
})  # fmt: skip
# The key also leaves out every setting whose name contains one of these: attention kernel, stock head and dropouts.
HARMLESS_PARTS = ("attn_implementation", "classifier", "dropout")


def encoder_fingerprint(model: TextClassifier) -> str:
    """Hashes the encoder's weights and settings, without its pooler, its path and its attention implementation."""
    weights = {name: tensor for name, tensor in model.encoder.state_dict().items() if not name.startswith("pooler.")}
    settings = {
        name: value
        for name, value in model.config.encoder_config.to_dict().items()
        if name not in HARMLESS_SETTINGS and not any(part in name for part in HARMLESS_PARTS)
    }
    content = [weights_fingerprint(weights), json.dumps(settings, sort_keys=True, default=str)]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def component_names(model: TextClassifier) -> dict[PooledPart, str]:
    """Maps each part that the model pools to its name in the cache, such as `mean-2`.

    The name of the pooler's part contains a hash of the pooler's weights, because the cache key leaves them out.
    """
    return {
        part: f"pooler-{weights_fingerprint(model.encoder.pooler.state_dict())[:12]}"
        if part.kind == "pooler"
        else f"{part.kind}{part.layer}"
        for part in pooled_parts(model.config)
    }


def extraction_devices(args: ClassifierTrainingArguments) -> tuple[torch.device, ...]:
    """Returns the devices of this process: all GPUs that it sees if there are several, else its one device."""
    return tuple(torch.device("cuda", index) for index in range(args.n_gpu)) if args.n_gpu > 1 else (args.device,)


@dataclass(frozen=True)
class _Job:
    """The extraction of one split.

    Args:
        split: the tokenized rows.
        plan: the rows to compute, and their order.
        cache: the cache to write to.
        names: the name of each part in the cache.
        progress: the progress bar, which counts tokens.
    """

    split: Dataset
    plan: ExtractionPlan
    cache: FeatureCache
    names: dict[PooledPart, str]
    progress: Any

    def tokens(self, shard: int) -> int:
        """Counts the tokens of a shard's rows, without padding."""
        return int(self.plan.lengths[self.cache.shard_rows(shard)].sum())


@dataclass(frozen=True)
class CachedRows:
    """Rows whose features are complete in a cache.

    Args:
        cache: the cache.
        positions: (rows,) the position of each row in it; those of all windows, where texts are split into windows.
        windows: (texts,) the number of windows of each text, or None if texts are not split.
    """

    cache: FeatureCache
    positions: np.ndarray
    windows: np.ndarray | None


class FeatureExtractor:
    """Turns tokenized splits into cached features.

    All processes of a run, and other runs that need the same features, share the work: each takes the next shard that
    no other process computes. If nodes have separate disks, each node computes all shards for itself.

    Args:
        model: a classifier with a frozen encoder.
        tokenizer: the tokenizer of the splits. Its content and `model_max_length` are part of the key, and it pads
            the batches.
        args: the options, which set the cache folder, the number format and the devices.
    """

    def __init__(self, model: TextClassifier, tokenizer: PreTrainedTokenizerBase, args: Arguments):
        self.model, self.tokenizer = model, tokenizer
        self.devices = extraction_devices(args.training)
        self.model_name, self.processes = args.model.model_name_or_path, args.training.world_size
        self.hides_progress = args.training.disable_tqdm or args.training.process_index > 0
        dtype = args.boost.boost_dtype
        self.compute_dtype = _compute_dtype(dtype, self.devices[0])
        self.storage_dtype = args.boost.boost_storage or ("float32" if dtype == "float32" else "float16")
        bound_kernel_cache(self.devices[0])
        settings = (
            EXTRACTION_VERSION,
            tokenizer.model_max_length,
            self.storage_dtype,
            self.compute_dtype,
            bool(args.training.tf32),
        )
        self.key_start = [encoder_fingerprint(model), tokenizer_fingerprint(tokenizer), str(settings)]
        self.root = cache_root(args.boost.boost_cache_dir)

    def key(self, plan: ExtractionPlan) -> str:
        """Returns the name of a split's cache folder, a hash of everything that affects the features."""
        return hashlib.sha256("\n".join([*self.key_start, plan.digest]).encode()).hexdigest()[:32]

    def features(self, name: str, split: Dataset) -> FeatureDataset:
        """Reads the features of a loaded split from the cache, after computing those that are missing.

        Args:
            name: the name of the split, for the progress bar and the description of the cache.
            split: rows with `input_ids` and, if known, `token_type_ids` and `labels`.

        Raises:
            ArgumentsError: if the features are too large for float16.
            StorageError: if the disk cannot hold the features.
        """
        cached = self.cached(name, split)
        labels, lexical, teacher = (tensor_of(split, name) for name in ("labels", LEXICAL_COLUMN, TEACHER_COLUMN))
        shards = cached.cache.read_all(self.components)
        return FeatureDataset(shards, cached.positions, labels, self.model.config, lexical, cached.windows, teacher)

    @property
    def components(self) -> list[str]:
        """The names of the parts that the model pools, in the cache."""
        return list(component_names(self.model).values())

    def cached(self, name: str, split: Dataset, is_packed: bool = False) -> CachedRows:
        """Computes the features of loaded rows that are missing in the cache.

        Args:
            name: the name of the rows, for the progress bar and the description of the cache.
            split: rows with `input_ids` and, if known, `token_type_ids`.
            is_packed: whether all features go into one file, however few they are.
        """
        windows = None
        if self.model.truncation is not None and self.model.config.window_pooling is not None:
            split, windows = split_texts(split, self.model.truncation, self.tokenizer)
        plan = plan_extraction(split)
        names, components = component_names(self.model), self.components
        cache = self._cache(self.root, plan)
        missing = cache.missing_shards(components)
        if missing and (problem := writing_problem(cache.folder)) is not None:
            root = self.temporary_root
            logger.warning("%s cannot be written (%s): the features of this run go to %s", cache.folder, problem, root)
            cache = self._cache(root, plan)
            cache.folder.mkdir(exist_ok=True)
            missing = cache.missing_shards(components)
        if missing:
            self._extract(name, split, plan, cache, names, missing)
            if is_packed or cache.has_many_shards:
                cache.pack(components)
        tokens = int(plan.lengths.sum())
        cache.finish(CacheMeta(self.model_name, name, cache.rows, cache.width, cache.dtype, tokens))
        return CachedRows(cache, plan.positions, windows)

    def _cache(self, root: Path, plan: ExtractionPlan) -> FeatureCache:
        return self.cache_in(root / self.key(plan), len(plan.rows))

    def cache_in(self, folder: Path, rows: int) -> FeatureCache:
        """Returns the cache in a folder, of so many distinct rows, as this extractor writes and reads it."""
        return FeatureCache(folder, rows, self.model.config.hidden_size, self.storage_dtype)

    @property
    def temporary_root(self) -> Path:
        """A folder for features that cannot be cached, which is deleted with the extractor."""
        return Path(self._temporary_folder.name)

    @functools.cached_property
    def _temporary_folder(self) -> tempfile.TemporaryDirectory[str]:
        """A folder that is deleted with the extractor; shards that are memory-mapped stay readable after that."""
        return tempfile.TemporaryDirectory(prefix="bertcls_hf_features_")

    def _extract(
        self,
        name: str,
        split: Dataset,
        plan: ExtractionPlan,
        cache: FeatureCache,
        names: dict[PooledPart, str],
        missing: list[int],
    ) -> None:
        rows = sum(cache.shard_rows(shard).stop - cache.shard_rows(shard).start for shard in missing)
        row_bytes = stored_width(cache.width, cache.dtype) * np.dtype(cache.dtype).itemsize
        require_space(cache.folder, rows * row_bytes * len(names))
        with tqdm(unit="tok", unit_scale=True, desc=f"Features of {name}", disable=self.hides_progress) as progress:
            job = _Job(split, plan, cache, names, progress)
            progress.reset(total=sum(job.tokens(shard) for shard in missing))
            # Each entry is the number of a shard, and whether to wait for another process that holds its lock.
            queue = deque((shard, False) for shard in missing)
            models = _replicas(self.model, self.devices)
            if len(models) == 1:
                self._work(job, queue, models[0])
                return
            with ThreadPoolExecutor(max_workers=len(models)) as pool:
                list(pool.map(lambda model: self._work(job, queue, model), models))

    def _work(self, job: _Job, queue: deque[tuple[int, bool]], model: TextClassifier) -> None:
        """Computes shards until the queue is empty; a shard that another process computes is tried again last."""
        while True:
            try:
                shard, wait = queue.popleft()
            except IndexError:
                return
            try:
                with job.cache.claim(shard, wait) as is_ours:
                    if is_ours:
                        self._extract_missing(job, shard, model)
                    else:
                        queue.append((shard, True))
            except BaseException:
                queue.clear()  # The threads of the other devices then stop too.
                raise

    def _extract_missing(self, job: _Job, shard: int, model: TextClassifier) -> None:
        missing = set(job.cache.missing_components(shard, list(job.names.values())))
        if missing:
            self._extract_shard(job, shard, [part for part, name in job.names.items() if name in missing], model)
        else:
            job.progress.update(job.tokens(shard))

    def _extract_shard(self, job: _Job, shard: int, parts: list[PooledPart], model: TextClassifier) -> None:
        rows = job.cache.shard_rows(shard)
        features = {part: np.empty((rows.stop - rows.start, job.cache.width), dtype=np.float32) for part in parts}
        table = job.split.with_format("arrow")[job.plan.rows[rows]]
        columns = {column: TokenColumn(table.column(column)) for column in token_columns(job.split)}
        lengths = job.plan.lengths[rows]

        @torch.inference_mode()
        def encode(batch: slice) -> None:
            tokens = {name: column.values_of(batch) for name, column in columns.items()}
            padded = pad_flat_texts(tokens, lengths[batch], self.tokenizer)
            inputs = {name: values.to(model.device, non_blocking=True) for name, values in padded.items()}
            with torch.autocast(
                model.device.type, dtype=self.compute_dtype, enabled=self.compute_dtype != torch.float32
            ):
                encoded = model.encode_parts(parts, **inputs)
            for part, tensor in zip(parts, encoded, strict=True):
                features[part][batch] = tensor.float().cpu().numpy()
            job.progress.update(int(lengths[batch].sum()))

        run_batches(encode, token_budget_batches(lengths, token_budget(model.device)), model.device)
        for part in parts:
            if not np.isfinite(features[part]).all():
                raise DivergedError(
                    f"{self.model_name}: the encoder's features are not finite: its weights are damaged"
                    + ("" if self.compute_dtype == torch.float32 else ", or too large for --boost_dtype")
                )
            job.cache.write(job.names[part], shard, features[part])


def _compute_dtype(asked: str, device: torch.device) -> torch.dtype:
    """Chooses the number format of the encoder: float16 falls back to float32 on a CPU, bfloat16 does not."""
    if asked == "bfloat16":
        return torch.bfloat16
    if asked == "float16" and device.type != "cpu":
        return torch.float16
    return torch.float32


def _replicas(model: TextClassifier, devices: tuple[torch.device, ...]) -> list[TextClassifier]:
    """Returns a copy of the model on each device, in evaluation mode; the first one is the model itself."""
    models = [model, *(copy.deepcopy(model) for _ in devices[1:])]
    return [replica.to(device).eval() for replica, device in zip(models, devices, strict=True)]


def tensor_of(split: Dataset, name: str) -> torch.Tensor | None:
    """Reads a column as (rows,), or as (rows, values) if it holds lists, in its own number format; None without it."""
    if name not in split.column_names:
        return None
    column = split.select_columns(name).with_format("arrow")[:].column(name).combine_chunks()
    is_list = column.type.num_fields > 0
    values = column.flatten().to_numpy().reshape(len(split), -1) if is_list else column.to_numpy()
    return torch.from_numpy(values.copy())
