"""Which pictures a run's model card shows, and the data of each."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix
from transformers import TrainerState

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertcls_hf.hub.card.figures import (
    Curves,
    Picture,
    draw_by_length,
    draw_confusion,
    draw_curves,
    draw_label_scores,
    draw_predicted_vs_gold,
    draw_reliability,
    length_bins,
)
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.metrics.metrics import classification_report, metric_words
from bertcls_hf.metrics.probabilities import predicted_labels


FIGURES_FOLDER = "figures"
CURVES, HEAD_CURVES = "training_curves.png", "head_training_curves.png"
CONFUSION, LABEL_SCORES, VALUES = "confusion_matrix.png", "label_scores.png", "predicted_vs_gold.png"
RELIABILITY, BY_LENGTH = "reliability.png", "by_length.png"
FILES = (CURVES, HEAD_CURVES, CONFUSION, LABEL_SCORES, VALUES, RELIABILITY, BY_LENGTH)
CURVE_METRICS = {
    SINGLE_LABEL: ("accuracy", "macro_f1"),
    MULTI_LABEL: ("micro_f1", "macro_f1"),
    REGRESSION: ("pearson", "r2"),
}


def draw_pictures(run: FinishedRun) -> dict[str, Picture]:
    """Draws what the run has data for, by file name; pictures of an earlier run in the folder are removed."""
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
    if run.outputs is not None:
        yield from _evaluation_pictures(run, run.outputs, folder)


def _curves(run: FinishedRun, state: TrainerState) -> Curves | None:
    """The course of a training; None where nothing was logged."""
    x_name = "step" if run.is_streamed else "epoch"
    asked = str(run.args.training.metric_for_best_model)
    names = dict.fromkeys((*CURVE_METRICS[run.labels.problem_type], asked))
    for same_as_loss in ("loss", "mse"):
        names.pop(same_as_loss, None)

    def points(name: str) -> list[tuple[float, float]]:
        lines = [line for line in state.log_history if math.isfinite(line.get(name, math.nan))]
        return [(line[x_name], line[name]) for line in lines]

    metrics = {metric_words(name): points(f"eval_{name}") for name in names}
    curves = Curves(x_name, points("loss"), points("eval_loss"), {k: v for k, v in metrics.items() if v}, None)
    if not curves.train_loss and not curves.eval_loss:
        return None
    if run.args.training.load_best_model_at_end:
        best = next((line[x_name] for line in state.log_history if line["step"] == state.best_global_step), None)
        curves = Curves(curves.x_name, curves.train_loss, curves.eval_loss, curves.metrics, best)
    return curves


def _evaluation_pictures(run: FinishedRun, scores: np.ndarray, folder: Path) -> Iterator[Picture]:
    evaluation, labels = run.headline, run.labels
    assert evaluation is not None
    gold = np.asarray(evaluation.gold)
    predicted = predicted_labels(scores, labels.problem_type)
    if labels.problem_type == REGRESSION:
        yield draw_predicted_vs_gold(folder / VALUES, predicted, gold.reshape(-1))
        yield from _by_length(run, folder, np.abs(predicted - gold.reshape(-1)), "absolute error")
        return
    if labels.problem_type == MULTI_LABEL:
        rows = classification_report(evaluation.logits, gold, labels)["per_class"]
        f1, texts = np.array([[rows[name]["f1-score"], rows[name]["support"]] for name in labels.names]).T
        yield draw_label_scores(folder / LABEL_SCORES, labels.names, f1, texts)
        # Each label of each text is a yes or no of its own.
        confidence, is_right = np.maximum(scores, 1 - scores).ravel(), (predicted == gold).ravel()
        yield draw_reliability(folder / RELIABILITY, confidence, is_right, None)
        yield from _by_length(run, folder, (predicted == gold).all(axis=1), "subset accuracy")
        return
    matrix = confusion_matrix(gold, predicted, labels=np.arange(len(labels.names)))
    yield draw_confusion(folder / CONFUSION, matrix, labels.names)
    ece = evaluation.metrics.get("expected_calibration_error")
    yield draw_reliability(folder / RELIABILITY, scores.max(axis=1), predicted == gold, ece)
    yield from _by_length(run, folder, predicted == gold, "accuracy")


def _by_length(run: FinishedRun, folder: Path, values: np.ndarray, score: str) -> Iterator[Picture]:
    """A single bin would repeat the overall score."""
    assert run.headline is not None
    lengths = run.lengths(run.headline.split)
    is_share = values.dtype == bool
    if lengths is None:
        return
    bins = length_bins(lengths, values.astype(float), run.max_seq_length, is_share)
    if len(bins) > 1:
        yield draw_by_length(folder / BY_LENGTH, bins, float(values.mean()), score, is_share)
