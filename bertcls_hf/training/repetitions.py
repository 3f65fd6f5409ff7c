"""What repeats a run's training: with other seeds, or on parts of the rows."""

import logging
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from bertcls_hf.atomic_files import read_json, write_json_atomically
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.features.lexical_baseline import LexicalBaseline
from bertcls_hf.metrics.metrics import METRIC_NAMES
from bertcls_hf.training import phases
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.results import Evaluation


logger = logging.getLogger(__name__)

# In the folder of a repetition, when its training and its evaluations are done.
FINISHED_FILE = "metrics.json"
Metrics = dict[str, dict[str, float]]


def repeat(
    resolved: ResolvedRun,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    features: Mapping[str, Any] | None,
    data: ClassificationData,
    baseline: LexicalBaseline | None = None,
) -> Metrics:
    """Trains and evaluates in a folder of its own; no model and no checkpoint stays there.

    Args:
        resolved: the run, whose seed may be another one.
        folder: the folder of the repetition.
        tokenizer: the run's tokenizer.
        splits: the tokenized splits.
        features: their cached features; None without `--boost`.
        data: the splits with their texts.
        baseline: the lexical baseline of the same rows; None where it is not compared.

    Returns:
        The metrics of each evaluated split, by its name.
    """
    options = {"output_dir": str(folder), "resume_from_checkpoint": None, "do_predict": False}
    run = resolved.with_options(resolved.args.model, **options, calibrate=False, push_to_hub=False)
    model = run.load_model()
    inputs = phases.prepare_inputs(run, model, tokenizer, splits, features)
    trainer = phases.build_trainer(run.main_phase, model, tokenizer, inputs, data.labels)
    phases.train(trainer)
    evaluations = phases.evaluate_splits(trainer, inputs, data, baseline)
    if trainer.is_world_process_zero():
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    return metrics_of(evaluations, data.labels.problem_type)


def metrics_of(evaluations: Sequence[Evaluation | None], problem_type: str) -> Metrics:
    """Returns the metrics of each evaluated split, by its name."""
    names = METRIC_NAMES[problem_type]
    return {e.split: {name: e.metrics[name] for name in names} for e in evaluations if e is not None}


def once(folder: Path, resolved: ResolvedRun, compute: Callable[[], Metrics], part: str = "") -> Metrics:
    """Returns the metrics of a repetition, which is not run again if it finished before and the run resumes.

    Args:
        folder: the folder of the repetition.
        resolved: the run. A repetition of a run with other data or options is run again.
        compute: trains and evaluates.
        part: what the metrics depend on beside the run and the name of the folder.
    """
    finished, training = folder / FINISHED_FILE, resolved.args.training
    assert resolved.identity is not None
    key = f"{resolved.identity.key} {part}".strip()
    if training.resume_from_checkpoint is not None:
        known = read_summary(finished)
        if known is not None and known.get("training") == key:
            return known["metrics"]
    found = compute()
    if training.process_index == 0:
        write_json_atomically(finished, {"training": key, "metrics": found})
    return found


def summary(metrics: Sequence[Metrics]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the mean, the sample standard deviation and the values of each metric of each split."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for split, names in metrics[0].items():
        for name in names:
            values = [repetition[split][name] for repetition in metrics]
            found.setdefault(split, {})[name] = {
                "mean": statistics.fmean(values),
                "standard_deviation": statistics.stdev(values),
                "values": values,
            }
    return found


def read_summary(path: Path) -> dict[str, Any] | None:
    """Reads a file of a summary; returns None if there is none, or it is damaged."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
