"""Repeats a training with other seeds, on the same data and features, and summarises the metrics over all seeds."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from bertcls_hf.atomic_files import write_json_atomically
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.metrics.metrics import metric_words
from bertcls_hf.training.repetitions import metrics_of, once, read_summary, repeat, summary
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.results import Evaluation


logger = logging.getLogger(__name__)

SEEDS_FILE = "seeds.json"


def repeat_with_other_seeds(
    resolved: ResolvedRun,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    features: Mapping[str, Any] | None,
    data: ClassificationData,
    first: Sequence[Evaluation | None],
) -> None:
    """Trains and evaluates with the seeds after the first, each in output_dir/seed-<seed>, and writes `seeds.json`.

    A seed that finished before is not repeated if the run resumes. The models of the seeds are not saved.

    Args:
        resolved: the run with the first seed.
        tokenizer: its tokenizer.
        splits: the tokenized splits.
        features: their cached features; None without `--boost`.
        data: the splits with their texts.
        first: the evaluations of the first seed.
    """
    training = resolved.args.training
    metrics = {training.seed: metrics_of(first, data.labels.problem_type)}
    for seed in range(training.seed + 1, training.seed + training.seeds):
        folder = Path(training.output_dir, f"seed-{seed}")
        run = resolved.with_options(resolved.args.model, seed=seed)

        def trained(run: ResolvedRun = run, folder: Path = folder, seed: int = seed) -> dict[str, dict[str, float]]:
            logger.info("training with seed %d", seed)
            return repeat(run, folder, tokenizer, splits, features, data)

        metrics[seed] = once(folder, resolved, trained)
    if training.process_index == 0:
        found = {"seeds": list(metrics), "splits": summary(list(metrics.values()))}
        write_json_atomically(Path(training.output_dir, SEEDS_FILE), found)
        _log(found)


def read_seeds(folder: Path) -> dict[str, Any] | None:
    """Reads `seeds.json`; returns None if the run had one seed, or the file is damaged."""
    return read_summary(folder / SEEDS_FILE)


def _log(found: dict[str, Any]) -> None:
    for split, metrics in found["splits"].items():
        name, figures = next(iter(metrics.items()))
        logger.info(
            "%s: %s %.4f ± %.4f over %d seeds", split, metric_words(name), figures["mean"],
            figures["standard_deviation"], len(found["seeds"]),
        )  # fmt: skip
