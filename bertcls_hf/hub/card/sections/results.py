"""The results of a model card: all metrics with intervals, beside the baseline's, and the figures of each label."""

from collections.abc import Mapping, Sequence

import numpy as np

from bertcls_hf.data.labels import REGRESSION
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.public_text import quote
from bertcls_hf.hub.card.sections.tables import difference_words, interval_words, p_words, table
from bertcls_hf.metrics.intervals import CONFIDENCE, SHARES
from bertcls_hf.metrics.metrics import METRIC_NAMES, classification_report, metric_words
from bertcls_hf.metrics.paired import Difference
from bertcls_hf.training.baseline_results import BaselineEvaluation


MOST_LABELS = 20


def results_section(run: FinishedRun) -> dict[str, str]:
    """The table of metrics and, for a classification, the table of labels; empty without an evaluation."""
    names = ("metrics_table", "interval_note", "seeds_table", "folds_table", "per_class_table", "per_class_note")
    section = dict.fromkeys(names, "")
    if run.headline is None:
        return section
    section |= {"metrics_table": _metrics_table(run), "interval_note": _interval_note(run)}
    section |= {"seeds_table": _seeds_table(run), "folds_table": _folds_table(run)}
    return section if run.labels.problem_type == REGRESSION else section | _per_class(run)


def _metrics_table(run: FinishedRun) -> str:
    headline, intervals = run.headline, run.intervals
    assert headline is not None
    others = [evaluation for evaluation in run.evaluations if evaluation is not headline]
    names = [*METRIC_NAMES[run.labels.problem_type], "loss"]
    rows = [
        [
            metric_words(name),
            f"{headline.metrics[name]:.4f}",
            interval_words(intervals[name]) if name in intervals else "",
            *(_baseline_cells(headline.baseline, name) if headline.baseline else ()),
            *(f"{other.metrics[name]:.4f}" for other in others),
        ]
        for name in (*names, *_extra_metrics(run, names))
    ]
    compared = ["lexical baseline", "difference"] if headline.baseline else []
    header = ["metric", headline.split, f"{CONFIDENCE:.0%} interval", *compared, *(other.split for other in others)]
    return table(header, rows)


def _baseline_cells(baseline: BaselineEvaluation, name: str) -> list[str]:
    """The baseline's value of a metric, and the paired difference with its interval."""
    differences = baseline.comparison.differences if baseline.comparison else {}
    value = f"{baseline.metrics[name]:.4f}" if name in baseline.metrics else ""
    if name not in differences:
        return [value, ""]
    return [value, difference_words(differences[name])]


def _seeds_table(run: FinishedRun) -> str:
    """The mean and the standard deviation of each metric over the seeds; empty with one seed."""
    if run.seeds is None:
        return ""
    seeds, splits = run.seeds["seeds"], run.seeds["splits"]
    rows = [
        [metric_words(name), *(_mean_words(metrics[name]) for metrics in splits.values())]
        for name in METRIC_NAMES[run.labels.problem_type]
    ]
    return table([f"mean ± standard deviation of seeds {seeds[0]} to {seeds[-1]}", *splits], rows)


def _folds_table(run: FinishedRun) -> str:
    """The metrics over the folds of a cross-validation, beside the baseline's; empty without one."""
    found = run.cross_validation
    if found is None:
        return ""
    baseline = found.get("lexical_baseline")
    differences = (baseline["comparison"] or {}).get("differences", {}) if baseline else {}
    rows = []
    for name in METRIC_NAMES[run.labels.problem_type]:
        cells = [metric_words(name), _mean_words(found["metrics"][name])]
        cells += [f"{found['all_rows'][name]:.4f}"] if "all_rows" in found else []
        if baseline:
            cells += [f"{baseline['metrics'][name]:.4f}"]
            cells += [difference_words(Difference(**differences[name])) if name in differences else ""]
        rows.append(cells)
    header = ["metric", f"mean ± standard deviation of {found['folds']} folds"]
    header += [f"all {found['rows']:,} rows"] if "all_rows" in found else []
    header += ["lexical baseline", "difference"] if baseline else []
    return table(header, rows)


def _mean_words(figures: Mapping[str, float]) -> str:
    return f"{figures['mean']:.4f} ± {figures['standard_deviation']:.4f}"


def _extra_metrics(run: FinishedRun, names: Sequence[str]) -> list[str]:
    """The names of the numbers that `--extra_metrics` added; the Trainer's measurements of its speed are left out."""
    assert run.headline is not None
    speed = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    return [
        name
        for name, value in run.headline.metrics.items()
        if name not in (*names, *speed) and isinstance(value, int | float)
    ]


def _interval_note(run: FinishedRun) -> str:
    headline = run.headline
    assert headline is not None
    share = SHARES.get(run.labels.problem_type)
    wilson = f"Wilson's (1927) for {metric_words(share)}, and " if share else ""
    note = (
        f"Of {len(headline.gold):,} {headline.split} texts. The intervals are {wilson}the percentile bootstrap's "
        "(Efron 1979) over texts, with a fixed seed. They tell of the choice of these texts, not of another training."
    )
    if headline.baseline is not None:
        note += f" {_baseline_note(run, headline.baseline)}"
    if run.has_trained and headline.split == "validation" and run.args.training.load_best_model_at_end:
        note += " The validation data also chose the checkpoint, so that its figures are somewhat too good."
    return note


def _baseline_note(run: FinishedRun, evaluated: BaselineEvaluation) -> str:
    baseline = run.baseline
    assert baseline is not None
    kind = "ridge regression" if run.labels.problem_type == REGRESSION else "logistic regression (Wang & Manning 2012)"
    note = (
        f"The lexical baseline is a {kind} on {baseline.ngrams} of {baseline.train_rows:,} training texts, fitted in "
        f"{baseline.seconds:,.0f} s. The difference is the model's figure minus the baseline's, with the interval of "
        "the paired bootstrap."
    )
    comparison = evaluated.comparison
    if comparison is None or comparison.mcnemar_p is None:
        return note
    return (
        f"{note} The model alone is right on {comparison.only_right:,} texts, the baseline alone on "
        f"{comparison.other_only_right:,}: McNemar's exact test gives {p_words(comparison.mcnemar_p)}."
    )


def _per_class(run: FinishedRun) -> dict[str, str]:
    """The scores of all labels; of many labels, those of the labels with the lowest F1."""
    evaluation = run.headline
    assert evaluation is not None
    rows = classification_report(evaluation.logits, np.asarray(evaluation.gold), run.labels)["per_class"]
    names, note = list(run.labels.names), ""
    if len(names) > MOST_LABELS:
        names = sorted(names, key=lambda name: rows[name]["f1-score"])[:MOST_LABELS]
        file = f"{evaluation.prefix}_report.json"
        note = f"The {MOST_LABELS} labels with the lowest F1 of {len(rows)}; all are in `{file}`."
    keys = ("precision", "recall", "f1-score")
    lines = [
        [quote(name, 60), *(f"{rows[name][key]:.3f}" for key in keys), f"{rows[name]['support']:,.0f}"]
        for name in names
    ]
    return {"per_class_table": table(["label", "precision", "recall", "F1", "texts"], lines), "per_class_note": note}
