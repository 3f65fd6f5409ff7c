"""Chooses the pictures of a run's model card, and collects the data of each."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import TrainerState

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertcls_hf.hub.card.figures.by_length import draw_by_length, length_bins
from bertcls_hf.hub.card.figures.canvas import Picture
from bertcls_hf.hub.card.figures.confusion import draw_confusion
from bertcls_hf.hub.card.figures.curves import Curves, draw_curves
from bertcls_hf.hub.card.figures.label_scores import draw_label_scores
from bertcls_hf.hub.card.figures.predicted_vs_gold import draw_predicted_vs_gold
from bertcls_hf.hub.card.figures.reliability import draw_reliability
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.metrics.metrics import classification_report, confusion_counts, metric_words
from bertcls_hf.metrics.probabilities import predicted_labels
from bertcls_hf.training.results import Evaluation


FIGURES_FOLDER = "figures"
CURVES, HEAD_CURVES = "training_curves.png", "head_training_curves.png"
CONFUSION, LABEL_SCORES, VALUES = "confusion_matrix.png", "label_scores.png", "predicted_vs_gold.png"
RELIABILITY, BY_LENGTH = "reliability.png", "by_length.png"
# `bertcls cascade` draws this one, after the run.
CASCADE = "cascade.png"
FILES = (CURVES, HEAD_CURVES, CONFUSION, LABEL_SCORES, VALUES, RELIABILITY, BY_LENGTH, CASCADE)
CURVE_METRICS = {
    SINGLE_LABEL: ("accuracy", "macro_f1"),
    MULTI_LABEL: ("micro_f1", "macro_f1"),
    REGRESSION: ("pearson", "r2"),
}


def draw_pictures(run: FinishedRun) -> dict[str, Picture]:
    """Draws the pictures that the run has data for, and removes those that an earlier run left in the folder.

    Returns:
        The pictures by file name.
    """
    folder = run.folder / FIGURES_FOLDER
    pictures = {picture.path.name: picture for picture in _pictures(run, folder)}
    for name in set(FILES) - set(pictures):
        (folder / name).unlink(missing_ok=True)
    return pictures


def _pictures(run: FinishedRun, folder: Path) -> Iterator[Picture]:
    for name, state in ((HEAD_CURVES, run.head_state), (CURVES, run.state if run.has_trained else None)):
        curves = None if state is None else _curves(run, state)
        if curves is not None:
            yield draw_curves(folder / name, curves)
    if run.headline is not None and run.outputs is not None:
        draw = _PICTURES_OF_TASK[run.labels.problem_type]
        yield from draw(run, run.headline, run.outputs, folder)


def _curves(run: FinishedRun, state: TrainerState) -> Curves | None:
    """The course of a training; None where nothing was logged."""
    x_name = "step" if run.is_streamed else "epoch"

    def points(name: str) -> list[tuple[float, float]]:
        lines = [line for line in state.log_history if math.isfinite(line.get(name, math.nan))]
        return [(line[x_name], line[name]) for line in lines]

    train_loss, eval_loss = points("loss"), points("eval_loss")
    if not train_loss and not eval_loss:
        return None
    metrics = {metric_words(name): points(f"eval_{name}") for name in _curve_metrics(run)}
    best = None
    if run.args.training.load_best_model_at_end:
        best = next((line[x_name] for line in state.log_history if line["step"] == state.best_global_step), None)
    return Curves(x_name, train_loss, eval_loss, {words: drawn for words, drawn in metrics.items() if drawn}, best)


def _curve_metrics(run: FinishedRun) -> list[str]:
    """The names of the task's curves, and of the metric that chooses the checkpoint; the loss has its own curve."""
    names = (*CURVE_METRICS[run.labels.problem_type], str(run.args.training.metric_for_best_model))
    return [name for name in dict.fromkeys(names) if name not in ("loss", "mse")]


def _single_label_pictures(
    run: FinishedRun, evaluation: Evaluation, outputs: np.ndarray, folder: Path
) -> Iterator[Picture]:
    gold, predicted = np.asarray(evaluation.gold), predicted_labels(outputs, SINGLE_LABEL)
    matrix = confusion_counts(gold, predicted, len(run.labels.names))
    yield draw_confusion(folder / CONFUSION, matrix, run.labels.names)
    ece = evaluation.metrics.get("expected_calibration_error")
    yield draw_reliability(folder / RELIABILITY, outputs.max(axis=1), predicted == gold, ece)
    yield from _by_length(run, evaluation, folder, predicted == gold, "accuracy")


def _multi_label_pictures(
    run: FinishedRun, evaluation: Evaluation, outputs: np.ndarray, folder: Path
) -> Iterator[Picture]:
    names, gold = run.labels.names, np.asarray(evaluation.gold)
    is_right = predicted_labels(outputs, MULTI_LABEL) == gold
    per_class = classification_report(evaluation.logits, gold, run.labels)["per_class"]
    f1, texts = np.array([[per_class[name]["f1-score"], per_class[name]["support"]] for name in names]).T
    yield draw_label_scores(folder / LABEL_SCORES, names, f1, texts)
    # Each label of each text is a yes or no of its own.
    yield draw_reliability(folder / RELIABILITY, np.maximum(outputs, 1 - outputs).ravel(), is_right.ravel(), None)
    yield from _by_length(run, evaluation, folder, is_right.all(axis=1), "subset accuracy")


def _regression_pictures(
    run: FinishedRun, evaluation: Evaluation, outputs: np.ndarray, folder: Path
) -> Iterator[Picture]:
    gold = np.asarray(evaluation.gold).reshape(-1)
    yield draw_predicted_vs_gold(folder / VALUES, outputs, gold)
    yield from _by_length(run, evaluation, folder, np.abs(outputs - gold), "absolute error")


_PICTURES_OF_TASK = {
    SINGLE_LABEL: _single_label_pictures,
    MULTI_LABEL: _multi_label_pictures,
    REGRESSION: _regression_pictures,
}


def _by_length(
    run: FinishedRun, evaluation: Evaluation, folder: Path, values: np.ndarray, score: str
) -> Iterator[Picture]:
    """A score by length of text, unless there is one bin only, which would repeat the overall score."""
    lengths = run.lengths(evaluation.split)
    is_share = values.dtype == bool
    if lengths is None:
        return
    bins = length_bins(lengths, values.astype(float), run.max_seq_length, is_share)
    if len(bins) > 1:
        yield draw_by_length(folder / BY_LENGTH, bins, float(values.mean()), score, is_share)
