"""The figures of a comparison: each run, and each lexical baseline, by itself and against the reference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bertcls_hf.data.labels import REGRESSION, LabelSet
from bertcls_hf.metrics.intervals import Interval, metric_intervals
from bertcls_hf.metrics.metrics import DEFAULT_METRIC, compute_metrics
from bertcls_hf.metrics.paired import PairedComparison, compare
from bertcls_hf.metrics.probabilities import probabilities
from bertcls_hf.run.compared_runs import ComparedRun
from bertcls_hf.run.run_costs import Cost, baseline_cost, run_cost
from bertcls_hf.training.seed_runs import read_seeds


BASELINE = "lexical baseline"
# Of the resamples; the same as in model cards.
SEED = 0
# Baselines whose logits differ by less were fitted to the same data: another machine adds in another order.
ROUNDING = 1e-3


@dataclass(frozen=True)
class System:
    """A run or a lexical baseline, with its figures.

    Args:
        name: of the run, or `lexical baseline`.
        is_baseline: whether it is a lexical baseline.
        metrics: the value of each metric of the task.
        intervals: the 95 % intervals of those metrics that have one.
        against_reference: its metrics minus those of the reference; None for the reference itself.
        cost: its cost.
        over_seeds: the main metric over several seeds; None for one seed.
    """

    name: str
    is_baseline: bool
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    against_reference: PairedComparison | None
    cost: Cost
    over_seeds: "OverSeeds | None" = None


@dataclass(frozen=True)
class OverSeeds:
    """The main metric of a run that was repeated with other seeds.

    Args:
        seeds: the number of seeds.
        mean: its mean.
        standard_deviation: its sample standard deviation.
    """

    seeds: int
    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Comparison:
    """The figures of all systems on the same rows.

    Args:
        split: the name of the split.
        labels: the labels of the task.
        rows: the number of rows.
        reference: the name of the run that the others are compared with.
        systems: the runs in the given order, and then the baselines.
        timed_texts: the number of texts that the speed was measured on; None without a measurement.
    """

    split: str
    labels: LabelSet
    rows: int
    reference: str
    systems: Sequence[System]
    timed_texts: int | None = None

    @property
    def main_metric(self) -> str:
        """The metric whose differences are shown."""
        return DEFAULT_METRIC[self.labels.problem_type]


def compare_runs(runs: Sequence[ComparedRun], reference: ComparedRun, split: str) -> Comparison:
    """Computes all figures but the speed of prediction.

    Args:
        runs: the runs, whose rows are in one order.
        reference: the one of them that the others are compared with.
        split: the name of the split.
    """
    labels, gold = reference.outputs.labels, _gold(reference)
    reference_outputs = probabilities(reference.outputs.logits, labels.problem_type)

    def system(name: str, logits: np.ndarray, cost: Cost, is_reference: bool, is_baseline: bool) -> System:
        outputs = probabilities(logits, labels.problem_type)
        return System(
            name=name,
            is_baseline=is_baseline,
            metrics=compute_metrics(logits, gold, labels.problem_type),
            intervals=metric_intervals(outputs, gold, labels, SEED),
            against_reference=None if is_reference else compare(outputs, reference_outputs, gold, labels, SEED),
            cost=cost,
        )

    systems = [
        _with_seeds(system(run.name, run.outputs.logits, run_cost(run.folder), run is reference, False), run, split)
        for run in runs
    ]
    baselines = [system(name, logits, cost, False, True) for name, logits, cost in _baselines(runs)]
    return Comparison(split, labels, len(gold), reference.name, [*systems, *baselines])


def _with_seeds(system: System, run: ComparedRun, split: str) -> System:
    """Adds the main metric over several seeds, if the run has them, and they are those of its present outputs."""
    found, name = read_seeds(run.folder), DEFAULT_METRIC[run.outputs.labels.problem_type]
    figures = (found or {}).get("splits", {}).get(split, {}).get(name)
    if figures is None or not np.isclose(figures["values"][0], system.metrics[name], rtol=1e-4):
        return system
    over_seeds = OverSeeds(len(figures["values"]), figures["mean"], figures["standard_deviation"])
    return replace(system, over_seeds=over_seeds)


def with_speeds(comparison: Comparison, speeds: Mapping[str, float], texts: int) -> Comparison:
    """Adds the measured speeds.

    Args:
        comparison: the figures.
        speeds: texts a second, by the name of the run.
        texts: the number of texts that were measured.
    """
    systems = [
        replace(system, cost=replace(system.cost, texts_per_second=speeds.get(system.name)))
        for system in comparison.systems
    ]
    return replace(comparison, systems=systems, timed_texts=texts)


def _gold(run: ComparedRun) -> np.ndarray:
    is_regression = run.outputs.labels.problem_type == REGRESSION
    return run.outputs.gold.astype(np.float64 if is_regression else np.int64)


def _baselines(runs: Sequence[ComparedRun]) -> Iterator[tuple[str, np.ndarray, Cost]]:
    """Yields name, logits and cost of each different baseline; runs on the same training data have the same one."""
    different: list[ComparedRun] = []
    for run in runs:
        if run.outputs.baseline_logits is not None and not any(_has_same_baseline(run, other) for other in different):
            different.append(run)
    for run in different:
        name = BASELINE if len(different) == 1 else f"{BASELINE} of {run.name}"
        assert run.outputs.baseline_logits is not None
        yield name, run.outputs.baseline_logits, baseline_cost(run.folder)


def _has_same_baseline(run: ComparedRun, other: ComparedRun) -> bool:
    logits, others = run.outputs.baseline_logits, other.outputs.baseline_logits
    return logits is not None and others is not None and np.allclose(logits, others, rtol=ROUNDING, atol=ROUNDING)
