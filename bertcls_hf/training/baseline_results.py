"""What the lexical baseline reaches on an evaluated split, beside the model, and whether the model beats it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertcls_hf.atomic_files import write_json_atomically
from bertcls_hf.data.labels import LabelSet
from bertcls_hf.features.lexical_baseline import LexicalBaseline
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, compute_metrics, greater_is_better, metric_words
from bertcls_hf.metrics.paired import Difference, PairedComparison, compare
from bertcls_hf.metrics.probabilities import probabilities


logger = logging.getLogger(__name__)

BASELINE_FILE = "lexical_baseline.json"
# The start of the names of the baseline's metrics in the files of results.
PREFIX = "lexical_"


@dataclass(frozen=True)
class BaselineEvaluation:
    """The lexical baseline on the rows of an evaluation.

    Args:
        metrics: the value of each metric of the task.
        logits: (rows, labels) float32, in the order of the split's rows.
        comparison: the model's metrics minus the baseline's; None where a logit of the model is not finite.
    """

    metrics: dict[str, float]
    logits: np.ndarray
    comparison: PairedComparison | None


def evaluate_baseline(
    baseline_logits: np.ndarray, logits: np.ndarray, gold: np.ndarray, labels: LabelSet
) -> BaselineEvaluation:
    """Computes the baseline's metrics, and compares the model with it on the same rows.

    Args:
        baseline_logits: (rows, labels) floats.
        logits: the same of the model.
        gold: (rows,) positions or numbers, or (rows, labels) of 0 and 1.
        labels: names the task.
    """
    task = labels.problem_type
    metrics = compute_metrics(baseline_logits, gold, task)
    if not np.isfinite(logits).all():
        return BaselineEvaluation(metrics, baseline_logits, None)
    comparison = compare(probabilities(logits, task), probabilities(baseline_logits, task), gold, labels)
    return BaselineEvaluation(metrics, baseline_logits, comparison)


def flat_results(evaluation: BaselineEvaluation) -> dict[str, float]:
    """The baseline's metrics under the names of the files of results, such as `lexical_accuracy`."""
    return {f"{PREFIX}{name}": value for name, value in evaluation.metrics.items()}


def shortfall(evaluation: BaselineEvaluation, labels: LabelSet) -> str | None:
    """A sentence that says that the model does not beat the baseline in the task's main metric; None where it does.

    A model beats the baseline if the whole 95 % interval of the paired difference is on its side.
    """
    name, difference = _main_difference(evaluation, labels)
    if difference is None:
        return None
    ends = difference.interval if greater_is_better(name) else tuple(-end for end in difference.interval[::-1])
    if ends[0] > 0:
        return None
    verdict = "is worse than" if ends[1] < 0 else "is not clearly better than"
    return f"the model {verdict} a logistic regression on n-grams: {_figures(evaluation, name, difference)}"


def _main_difference(evaluation: BaselineEvaluation, labels: LabelSet) -> tuple[str, Difference | None]:
    name = DEFAULT_METRIC[labels.problem_type]
    return name, evaluation.comparison.differences.get(name) if evaluation.comparison else None


def _figures(evaluation: BaselineEvaluation, name: str, difference: Difference) -> str:
    baseline, (low, high) = evaluation.metrics[name], difference.interval
    return (
        f"{metric_words(name)} {baseline + difference.value:.4f} against {baseline:.4f}, difference "
        f"{difference.value:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    )


def log_baseline(split: str, evaluation: BaselineEvaluation, labels: LabelSet) -> None:
    """Logs the main metric of the model and the baseline, as a warning if the model does not beat the baseline."""
    warning = shortfall(evaluation, labels)
    name, difference = _main_difference(evaluation, labels)
    if warning is not None:
        logger.warning("%s: %s", split, warning)
    elif difference is not None:
        logger.info("%s: the model beats the lexical baseline: %s", split, _figures(evaluation, name, difference))


def write_baseline(
    folder: Path, baseline: LexicalBaseline, evaluations: Sequence[tuple[str, BaselineEvaluation]]
) -> None:
    """Writes `lexical_baseline.json`: what the baseline is, its metrics, and the paired differences.

    Args:
        folder: output_dir.
        baseline: the fitted baseline.
        evaluations: the name of each evaluated split, and the evaluation on it.
    """
    splits: dict[str, Any] = {
        split: {"metrics": evaluation.metrics, "comparison": plain_comparison(evaluation.comparison)}
        for split, evaluation in evaluations
    }
    write_json_atomically(folder / BASELINE_FILE, {**baseline.description(), "splits": splits})


def plain_comparison(comparison: PairedComparison | None) -> dict[str, Any] | None:
    """Returns a comparison as it stands in files."""
    return None if comparison is None else asdict(comparison)
