"""How long a training step takes without padding, against the same texts padded.

    python benchmarks/padding_free.py
    python benchmarks/padding_free.py --train_file nsmc.tsv --max_seq_length 128 --output padding_free.json

The baseline, padded: each batch of 16 texts, drawn at random, is padded to its longest text. `padding-free` computes
the same batches in one row each, where SDPA alone pads; `one mask` lets SDPA see the whole row, as eager attention
does (`--padding_free` warns of that). `by length` is the default order of a run: padded batches of texts of like
length.

A step is a forward and a backward pass of MiniLM in training mode; loading, tokenizing, collating and the optimizer
are not timed.
"""

import argparse
import random
import statistics
from pathlib import Path
from typing import Any

import datasets
import torch
from _common import environment, interleaved, print_table, ratios_to, report, spread
from _stopwatch import now
from finetuning import CORPUS, MODEL
from transformers.utils.logging import disable_progress_bar

from bertcls_hf.config.parsing import build_arguments
from bertcls_hf.data.load import load_data
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.models.loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
from bertcls_hf.models.padding_free import compute_without_padding
from bertcls_hf.training.collators import ClassificationCollator


BATCH_SIZE = 16
PADDED, BY_LENGTH, SDPA, MASKED = "padded", "padded, by length", "padding-free", "padding-free, one mask"


class Workbench:
    """A model, and the same texts in the batches of each way."""

    def __init__(self, options: argparse.Namespace):
        source = {"train_file": options.train_file} if options.train_file else {"dataset_name": CORPUS}
        self.args = build_arguments(
            {
                **source,
                "model_name_or_path": MODEL,
                "encoding_errors": "replace",  # one of the corpus's files is Latin-1
                "empty_text": "drop",
                "max_train_samples": options.batches * BATCH_SIZE,
                "validation_split_percentage": 0.0,
                "max_seq_length": options.max_seq_length,
                "eval_strategy": "no",
            }
        )
        self.checkpoint = open_checkpoint(self.args.model)
        tokenizer = load_tokenizer(self.args.model, self.checkpoint, options.max_seq_length)
        self.max_seq_length = tokenizer.model_max_length
        data = load_data(self.args.data, None, trains=True, predicts=False)
        self.config = resolve_config(self.args.model, self.checkpoint, data.labels)
        rows = list(tokenize(data, tokenizer, self.args.data)["train"])
        random.Random(0).shuffle(rows)
        self.lengths = [row["length"] for row in rows]
        by_length = sorted(rows, key=lambda row: row["length"])
        pad = ClassificationCollator(tokenizer)
        self.batches: dict[str, list[dict[str, Any]]] = {
            PADDED: [pad(batch) for batch in _batches(rows)],
            BY_LENGTH: [pad(batch) for batch in _batches(by_length)],
            SDPA: [pad(batch) for batch in _batches(rows)],
            MASKED: [pad(batch) for batch in _batches(rows)],
        }
        device = self.args.training.device
        for batches in self.batches.values():
            for batch in batches:
                batch |= {name: value.to(device) for name, value in batch.items()}
        self.models = {way: load_classifier(self.args.model, self.checkpoint, self.config) for way in self.batches}
        compute_without_padding(self.models[SDPA])
        # SDPA sees the whole row where it is asked for after the hooks are there.
        compute_without_padding(self.models[MASKED])
        self.models[MASKED].encoder.set_attn_implementation("sdpa")
        for model in self.models.values():
            model.to(device).train()

    def seconds(self, way: str) -> float:
        """One step on each batch."""
        device, model = self.args.training.device, self.models[way]
        begin = now(device)
        for batch in self.batches[way]:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type != "cpu"):
                loss = model(**batch).loss
            loss.backward()
            model.zero_grad()
        return now(device) - begin

    def tokens(self, way: str) -> int:
        """Tokens that are computed of all batches, with their padding where it is not left out."""
        if way in (SDPA, MASKED):
            return sum(self.lengths)
        return sum(batch["input_ids"].numel() for batch in self.batches[way])


def _batches(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", help="csv or parquet file with text and label (default: the BBC corpus)")
    parser.add_argument("--batches", type=int, default=6, help="batches of 16 texts (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=512, help="longest text in tokens (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    disable_progress_bar()

    machine = {**environment(), "threads": torch.get_num_threads()}
    bench = Workbench(options)
    ways = {way: lambda way=way: bench.seconds(way) for way in bench.batches}
    for measure in ways.values():
        measure()  # warms up
    seconds = interleaved(ways, options.rounds)
    speedups = {way: [1 / ratio for ratio in ratios] for way, ratios in ratios_to(PADDED, seconds).items()}
    print(
        f"{options.batches} batches of {BATCH_SIZE} texts of {statistics.mean(bench.lengths):.0f} tokens on average, "
        f"cut at {bench.max_seq_length}, on {bench.args.training.device.type}; median of {options.rounds} rounds"
    )
    print_table(
        ("way", "tokens, padded", "s per step", "speed against padded"),
        [
            (way, str(bench.tokens(way)), f"{statistics.median(values) / options.batches:.2f}", spread(speedups[way]))
            for way, values in seconds.items()
        ],
    )
    results = {"options": vars(options), "environment": machine, "seconds": seconds, "speedups": speedups,
               "tokens": {way: bench.tokens(way) for way in seconds}}  # fmt: skip
    report(results, options.output)


if __name__ == "__main__":
    main()
