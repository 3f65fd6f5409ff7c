"""The texts on which the model is most sure and wrong, or furthest off."""

import numpy as np

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.public_text import quote
from bertcls_hf.hub.card.sections.tables import table
from bertcls_hf.metrics.probabilities import predicted_labels


MOST_ERRORS = 20


def errors_section(run: FinishedRun) -> dict[str, str]:
    """The texts with the worst errors; empty without an evaluation, or where a logit is not finite."""
    if run.headline is None or run.outputs is None:
        return {"errors_title": "", "errors_table": ""}
    gold = np.asarray(run.headline.gold)
    if run.labels.problem_type == REGRESSION:
        return _largest_errors(run, run.outputs, gold.reshape(-1))
    predicted = predicted_labels(run.outputs, run.labels.problem_type)
    if run.labels.problem_type == MULTI_LABEL:
        return _confident_decisions(run, run.outputs, predicted, gold)
    return _confident_errors(run, run.outputs, predicted, gold)


def _confident_errors(
    run: FinishedRun, outputs: np.ndarray, predicted: np.ndarray, gold: np.ndarray
) -> dict[str, str]:
    """The texts whose wrong label has the highest probability."""
    names = run.labels.names
    confidence = outputs.max(axis=1)
    rows = _largest_first(np.where(predicted != gold, confidence, -1.0))
    lines = [
        [
            text,
            quote(names[gold[row]], 60),
            quote(names[predicted[row]], 60),
            f"{confidence[row]:.3f}",
        ]
        for row, text in zip(rows, _texts(run, rows), strict=True)
    ]
    return _error_table(run, "most confident errors", ["text", "gold", "predicted", "probability"], lines)


def _confident_decisions(
    run: FinishedRun, outputs: np.ndarray, predicted: np.ndarray, gold: np.ndarray
) -> dict[str, str]:
    """The texts with the surest wrong yes or no; each text shows only its surest one."""
    names = run.labels.names
    confidence = np.where(predicted != gold, np.abs(outputs - 0.5), -1.0)
    label_of = confidence.argmax(axis=1)
    rows = _largest_first(confidence.max(axis=1))
    lines = [
        [
            text,
            ", ".join(quote(names[label], 60) for label in np.flatnonzero(gold[row])) or "none",
            ("" if predicted[row, label_of[row]] else "not ") + quote(names[label_of[row]], 60),
            f"{outputs[row, label_of[row]]:.3f}",
        ]
        for row, text in zip(rows, _texts(run, rows), strict=True)
    ]
    header = ["text", "gold", "said of it", "probability of that label"]
    return _error_table(run, "most confident errors", header, lines)


def _largest_errors(run: FinishedRun, predicted: np.ndarray, gold: np.ndarray) -> dict[str, str]:
    """The texts whose predicted number is furthest from the gold one."""
    rows = _largest_first(np.abs(predicted - gold))
    lines = [
        [text, f"{gold[row]:.4g}", f"{predicted[row]:.4g}", f"{predicted[row] - gold[row]:+.4g}"]
        for row, text in zip(rows, _texts(run, rows), strict=True)
    ]
    return _error_table(run, "largest errors", ["text", "gold", "predicted", "error"], lines)


def _error_table(run: FinishedRun, what: str, header: list[str], lines: list[list[str]]) -> dict[str, str]:
    words = len(header) if run.labels.problem_type == REGRESSION else 3
    if not lines:
        return {"errors_table": "", "errors_title": ""}
    return {
        "errors_title": f"The {len(lines)} {what}" if len(lines) > 1 else f"The one of the {what}",
        "errors_table": table(header, lines, left=1 if words == len(header) else words),
    }


def _largest_first(size: np.ndarray) -> np.ndarray:
    """The rows with the largest sizes, the largest first. A size below 0 marks a row without an error."""
    order = np.argsort(-size, kind="stable")[:MOST_ERRORS]
    return order[size[order] >= 0]


def _texts(run: FinishedRun, rows: np.ndarray) -> list[str]:
    """The quoted texts of these rows of the headline's split; a pair shows both."""
    assert run.headline is not None
    split = run.texts(run.headline.split)
    chosen = split.select(rows.tolist())
    if "text_pair" not in chosen.column_names:
        return [quote(text) for text in chosen["text"]]
    return [f"{quote(a, 100)}<br>{quote(b, 100)}" for a, b in zip(chosen["text"], chosen["text_pair"], strict=True)]
