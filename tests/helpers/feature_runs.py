"""Extractions for the tests of features, in this process and in those of `warm_processes`."""

import contextlib
import hashlib
import io
import resource
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bertcls_hf.config.parsing import parse_arguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.features import cache as feature_cache
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.models.loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
from bertcls_hf.models.modeling import TextClassifier


LABELS = LabelSet(SINGLE_LABEL, ("neg", "pos"))


def make_extractor(model: Path, root: Path, max_seq_length: int = 64, **options: Any) -> FeatureExtractor:
    """An extractor as the entry script makes it; `options` are those of the command line."""
    defaults = {
        "model_name_or_path": model, "train_file": "not-read.csv", "output_dir": root.parent / "out", "boost": True,
        "boost_cache_dir": root, "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    merged = {**defaults, **options}
    args, _ = parse_arguments([token for name, value in merged.items() for token in (f"--{name}", str(value))])
    checkpoint = open_checkpoint(args.model)
    tokenizer = load_tokenizer(args.model, checkpoint, max_seq_length)
    config = resolve_config(args.model, checkpoint, LABELS)
    return FeatureExtractor(load_classifier(args.model, checkpoint, config), tokenizer, args)


def texts_of(rows: int) -> list[str]:
    """Distinct texts of different lengths; the letters of the numbers are in the tiny vocabulary."""
    words = "good bad film story plot acting the was very not".split()
    return [" ".join(words[(i * 7 + j * j) % 10] for j in range(2 + i * 5 % 23)) + f" {i}" for i in range(rows)]


def tokenized(tokenizer: PreTrainedTokenizerBase | Path, texts: list[str], max_seq_length: int = 64) -> Dataset:
    """What `tokenize` makes of texts, with labels."""
    if isinstance(tokenizer, Path):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    encoded = tokenizer(texts, truncation=True, max_length=max_seq_length)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return Dataset.from_dict({**encoded, "length": lengths, "labels": [i % 2 for i in range(len(texts))]})


def random_tokens(rows: int, vocabulary: int = 60) -> Dataset:
    """Rows of 5 to 14 random tokens, made without a Python object per row."""
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(5, 15, rows))]).astype(np.int32)
    ids = pa.array(generator.integers(5, vocabulary, offsets[-1]).astype(np.int32))
    return Dataset(pa.table({"input_ids": pa.ListArray.from_arrays(offsets, ids)}))


def all_features(dataset: FeatureDataset) -> torch.Tensor:
    """(rows, width)."""
    return dataset.__getitems__(np.arange(len(dataset)))["features"]


def features_of_texts(model: TextClassifier, split: Dataset) -> torch.Tensor:
    """Computed text by text, without padding or a cache."""
    rows = []
    with torch.inference_mode():
        for row in split.with_format("torch"):
            inputs = {name: row[name][None] for name in ("input_ids", "token_type_ids") if name in row}
            rows.append(model.pooled_features(**inputs))
    return torch.cat(rows)


def cache_bytes(root: Path) -> dict[str, bytes]:
    """The content of every shard, by cache folder and name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.glob("*/*.arrow"))}


def cache_times(root: Path) -> dict[str, int]:
    """When every shard was written."""
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in sorted(root.glob("*/*.arrow"))}


def other_files(root: Path) -> list[str]:
    """Names of the files beside shards: the description, and what should not be there."""
    return sorted(path.name for path in root.glob("*/*") if path.suffix != ".arrow")


@contextlib.contextmanager
def counted_shards() -> Iterator[list[int]]:
    """The numbers of the shards that this process computes meanwhile."""
    computed: list[int] = []
    original = FeatureExtractor._extract_shard

    def count(self: FeatureExtractor, job: Any, shard: int, *rest: Any) -> None:
        computed.append(shard)
        original(self, job, shard, *rest)

    FeatureExtractor._extract_shard = count  # type: ignore[method-assign]
    try:
        yield computed
    finally:
        FeatureExtractor._extract_shard = original  # type: ignore[method-assign]


class NoLock:
    """A lock of a file system whose locks do not lock."""

    def __init__(self, path: Path, thread_local: bool):
        self.lock_file = path

    def acquire(self, blocking: bool) -> None:
        return

    def release(self) -> None:
        return


class FailingLock(NoLock):
    """A lock of a file system without locks."""

    def acquire(self, blocking: bool) -> None:
        raise OSError(38, "Function not implemented")


# What a `Worker` does. The first argument is the end of a pipe.


def extract(
    connection: Connection,
    model: Path,
    root: Path,
    split: Dataset,
    shard_rows: int,
    lock: Any = None,
    packed_shards: int | None = None,
) -> None:
    """Says that it is ready, waits, extracts, and sends (seconds, computed shards, digest of all features)."""
    feature_cache.SHARD_ROWS = shard_rows
    feature_cache.PACKED_SHARDS = packed_shards or feature_cache.PACKED_SHARDS
    if lock is not None:
        feature_cache.FileLock = lock
    extractor = make_extractor(model, root)
    connection.send("ready")
    connection.recv()
    started = time.perf_counter()
    with counted_shards() as computed:
        dataset = extractor.features("train", split)
    seconds = time.perf_counter() - started
    connection.send((seconds, computed, hashlib.sha256(all_features(dataset).numpy().tobytes()).hexdigest()))


def hold_claim(connection: Connection, folder: Path, shard: int) -> None:
    """Takes a shard's lock and keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    with feature_cache.FeatureCache(folder, 8, 16, "float32").claim(shard, wait=False) as is_ours:
        connection.send(is_ours)
        signal.pause()


def rewrite(connection: Connection, folder: Path, values: np.ndarray, shards: int) -> None:
    """Replaces shards by the same content until it is killed."""
    feature_cache.SHARD_ROWS = len(values) // shards
    cache = feature_cache.FeatureCache(folder, len(values), values.shape[1], "float32")
    connection.send("ready")
    while True:
        for shard in range(shards):
            cache.write("mean-1", shard, values[cache.shard_rows(shard)])


def peak_memory(connection: Connection, model: Path, root: Path, rows: int) -> None:
    """Extracts random rows and sends the peak resident size in MiB."""
    split = random_tokens(rows)
    make_extractor(model, root).features("train", split)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def run_main(connection: Connection, argv: list[str], largest_file: int) -> None:
    """Runs the entry script, with a limit on the size of files from the extraction on; sends code and messages."""
    from bertcls_hf.run import main

    original = FeatureExtractor.features

    def features(self: FeatureExtractor, *args: Any) -> FeatureDataset:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
        return original(self, *args)

    FeatureExtractor.features = features  # type: ignore[method-assign]
    with contextlib.redirect_stderr(io.StringIO()) as messages:
        code = main(argv)
    connection.send((int(code), messages.getvalue()))
