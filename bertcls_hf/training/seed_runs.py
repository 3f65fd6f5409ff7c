"""Repeats a training with other seeds, on the same data and features, and summarises the metrics over all seeds."""

import json
import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from bertcls_hf.data.load import ClassificationData
from bertcls_hf.metrics.metrics import METRIC_NAMES, metric_words
from bertcls_hf.training import phases
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.results import Evaluation


logger = logging.getLogger(__name__)

SEEDS_FILE = "seeds.json"
# In the folder of a seed, when its training and its evaluations are done.
FINISHED_FILE = "metrics.json"
Metrics = dict[str, dict[str, float]]


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
    names = METRIC_NAMES[data.labels.problem_type]
    metrics = {training.seed: _metrics_of(first, names)}
    for seed in range(training.seed + 1, training.seed + training.seeds):
        folder = Path(training.output_dir, f"seed-{seed}")
        finished = folder / FINISHED_FILE
        if training.resume_from_checkpoint is None or not finished.is_file():
            found = _metrics_of(_run(resolved, seed, folder, tokenizer, splits, features, data), names)
            if training.process_index == 0:
                finished.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        else:
            found = json.loads(finished.read_text(encoding="utf-8"))
        metrics[seed] = found
    if training.process_index == 0:
        summary = {"seeds": list(metrics), "splits": _summary(list(metrics.values()))}
        Path(training.output_dir, SEEDS_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        _log(summary)


def read_seeds(folder: Path) -> dict[str, Any] | None:
    """Reads `seeds.json`; returns None if the run had one seed, or the file is damaged."""
    try:
        return json.loads((folder / SEEDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _run(
    resolved: ResolvedRun,
    seed: int,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    features: Mapping[str, Any] | None,
    data: ClassificationData,
) -> list[Evaluation | None]:
    options = {"seed": seed, "output_dir": str(folder), "resume_from_checkpoint": None, "do_predict": False}
    run = resolved.with_options(resolved.args.model, **options, calibrate=False, push_to_hub=False)
    logger.info("training with seed %d", seed)
    model = run.load_model()
    inputs = phases.prepare_inputs(run, model, tokenizer, splits, features)
    trainer = phases.build_trainer(run.main_phase, model, tokenizer, inputs, data.labels)
    phases.train(trainer)
    evaluations = phases.evaluate_splits(trainer, inputs, data)
    if trainer.is_world_process_zero():
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    return evaluations


def _metrics_of(evaluations: Sequence[Evaluation | None], names: Sequence[str]) -> Metrics:
    """The metrics of each evaluated split, by its name."""
    return {e.split: {name: e.metrics[name] for name in names} for e in evaluations if e is not None}


def _summary(metrics: Sequence[Metrics]) -> dict[str, dict[str, dict[str, Any]]]:
    """The mean, the sample standard deviation and the values of each metric of each split."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for split, names in metrics[0].items():
        for name in names:
            values = [of_seed[split][name] for of_seed in metrics]
            summary.setdefault(split, {})[name] = {
                "mean": statistics.fmean(values),
                "standard_deviation": statistics.stdev(values),
                "values": values,
            }
    return summary


def _log(summary: dict[str, Any]) -> None:
    for split, metrics in summary["splits"].items():
        name, figures = next(iter(metrics.items()))
        logger.info(
            "%s: %s %.4f ± %.4f over %d seeds", split, metric_words(name), figures["mean"],
            figures["standard_deviation"], len(summary["seeds"]),
        )  # fmt: skip
