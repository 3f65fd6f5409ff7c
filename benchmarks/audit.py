"""Which share of planted label errors an audit puts at the top of its list: by an encoder, by n-grams, and by both.

    python benchmarks/audit.py
    python benchmarks/audit.py --train_file imdb.parquet --output audit.json -- --pooling_layers 6 --max_seq_length 256

Some labels are replaced by another one at random, and all rows are ordered by how likely their label is wrong. Labels
that were wrong before count as right, so that no way can find all. Features are computed once, and cached. Words after
`--` are options of the audit.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from _common import environment, print_table, report, words_and_rest
from datasets import Dataset
from finetuning import CORPUS, MODEL

from bertcls_hf.audit.findings import FOLDS
from bertcls_hf.audit.held_out_logits import encoder_logits, ngram_logits, weighed_sum
from bertcls_hf.audit.label_errors import find_label_errors
from bertcls_hf.config.command import set_up_logging
from bertcls_hf.config.parsing import explicit_options
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.features.ngrams import NgramCounter, ngram_kind_of
from bertcls_hf.run.audit import audit_arguments
from bertcls_hf.run.frozen_features import frozen_features
from bertcls_hf.training.cross_validation import held_out_rows


def with_errors(data: ClassificationData, share: float, seed: int) -> tuple[ClassificationData, np.ndarray]:
    """Gives a share of the training rows another label, drawn at random; returns these rows too."""
    train = cast(Dataset, data.splits["train"])
    gold, generator = np.asarray(train["label"][:]), np.random.default_rng(seed)
    flipped = generator.choice(len(gold), round(share * len(gold)), replace=False)
    gold[flipped] = (gold[flipped] + generator.integers(1, len(data.labels.names), len(flipped))) % len(
        data.labels.names
    )
    changed = train.remove_columns("label").add_column("label", gold)
    return replace(data, splits={**data.splits, "train": changed}), flipped


def measure(frozen: Any, marks: Any, seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The share of planted errors in the first rows of each way, and its seconds without features and counts."""
    data, flipped = with_errors(frozen.data, options.flipped, seed)
    labels, gold = data.labels, np.asarray(data.splits["train"]["label"][:])
    folds = held_out_rows(data, FOLDS, seed)
    starts = [time.perf_counter()]
    ngrams = ngram_logits(marks, gold, labels, folds)
    starts.append(time.perf_counter())
    encoder = encoder_logits(frozen.features["train"], gold, labels, folds)
    starts.append(time.perf_counter())
    seconds = np.diff(starts)
    ways = {
        "n-grams": (ngrams, seconds[0]),
        "encoder": (encoder, seconds[1]),
        "both, mean": ((ngrams + encoder) / 2, seconds.sum()),
        "both, weighed": (weighed_sum(encoder, ngrams, gold, labels), seconds.sum()),
    }
    found = {}
    for name, (logits, taken) in ways.items():
        order = find_label_errors(logits, gold, labels).order
        top = order[: round(options.top * len(gold))]
        found[name] = {
            "found": float(np.isin(flipped, top).mean()),
            "accuracy": float((logits.argmax(axis=1) == np.asarray(frozen.data.splits["train"]["label"][:])).mean()),
            "seconds": float(taken),
        }
        print(f"seed {seed}, {name}: {found[name]}", flush=True)
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", help="file with text and one label per row (default: the BBC corpus)")
    parser.add_argument("--model", default=MODEL, help="encoder (%(default)s)")
    parser.add_argument("--flipped", type=float, default=0.02, help="share of labels that are replaced (%(default)s)")
    parser.add_argument("--top", type=float, default=0.03, help="share of the rows that are looked at (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the errors (%(default)s)")
    parser.add_argument("--output", type=Path, help="also write the results to this JSON file")
    words, rest = words_and_rest()
    options = parser.parse_args(words)
    options.words = rest
    return options


def main() -> None:
    options = parse()
    set_up_logging()
    source = {"dataset_name": CORPUS, "encoding_errors": "replace", "empty_text": "drop"}
    asked = {
        **({"train_file": options.train_file} if options.train_file else source),
        "model_name_or_path": options.model,
        **explicit_options(options.words),
    }
    frozen = frozen_features(audit_arguments(asked), only=("train",))
    train = cast(Dataset, frozen.data.splits["train"])
    marks = NgramCounter(ngram_kind_of(train)).fit_transform(train)
    results = {seed: measure(frozen, marks, seed, options) for seed in range(options.seeds)}
    rows = []
    for name in results[0]:
        shares, accuracy, seconds = ([found[name][figure] for found in results.values()]
                                     for figure in ("found", "accuracy", "seconds"))  # fmt: skip
        rows.append((
            name, f"{100 * statistics.mean(shares):.1f} ({100 * min(shares):.1f}-{100 * max(shares):.1f})",
            f"{100 * statistics.mean(accuracy):.2f}", f"{statistics.mean(seconds):.0f}",
        ))  # fmt: skip
    print(f"{len(train):,} rows, {options.flipped:.1%} of the labels replaced, {options.seeds} draws")
    print_table(
        ("way", f"found in the first {options.top:.1%}, %", "accuracy out of fold, %", "seconds"), rows,
    )  # fmt: skip
    report({"environment": environment(), "options": vars(options), "results": results}, options.output)


if __name__ == "__main__":
    main()
