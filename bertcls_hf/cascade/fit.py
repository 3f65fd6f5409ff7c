"""Chooses both thresholds of a model's cascade on its validation data, and writes them beside the model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset
from transformers.utils.logging import disable_progress_bar

from bertcls_hf.atomic_files import write_text_atomically
from bertcls_hf.cascade.arguments import CascadeArguments
from bertcls_hf.cascade.card_section import write_card_section
from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import REGRESSION
from bertcls_hf.data.load import load_data
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.hub.card.pictures import CASCADE, FIGURES_FOLDER
from bertcls_hf.manifests import WEIGHTS_KEY, describe_again, weights_digest
from bertcls_hf.metrics.cascade import CASCADE_FILE, Cascade, fitted_factor, label_margins
from bertcls_hf.metrics.risk_control import fewest_rows, risk_curve, threshold_by_rate, threshold_by_share
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.training.output_folder import CARD_FILE


DEFAULT_DIFFERENCE = 0.005


@dataclass(frozen=True)
class ValidationRows:
    """The rows that the thresholds are chosen on.

    Args:
        texts: one text per row.
        pairs: the second text of each row, for a model of pairs.
        gold: (rows,) label numbers, or (rows, labels) 0 and 1; None without labels.
    """

    texts: list[str]
    pairs: list[str] | None
    gold: np.ndarray | None


def write_cascade(folder: Path, args: CascadeArguments, data_args: DataArguments) -> str:
    """Chooses the thresholds, and writes `cascade.json` and a section of the model card.

    Args:
        folder: output_dir of the trained classifier.
        args: the limits.
        data_args: name the validation data.

    Returns:
        Sentences about what was chosen.

    Raises:
        ArgumentsError: if the model cannot have such a cascade, or if the rows do not suffice for a limit.
        DataError: if the data is bad.
        StorageError: if the folder cannot be written.
    """
    disable_progress_bar()
    predictor = Predictor.from_pretrained(
        str(folder),
        device=args.device,
        dtype=args.dtype,
        trust_remote_code=args.trust_remote_code,
        max_seq_length=data_args.max_seq_length,
        cascade=False,
    )
    max_difference = _max_difference(predictor, args, folder)
    rows = _validation_rows(predictor, args, data_args)
    for limit in filter(None, (max_difference, args.abstain_at_risk)):
        _check_number(len(rows.texts), limit, args.confidence)
    content = {**fitted(predictor, rows, max_difference, args), WEIGHTS_KEY: weights_digest(folder)}
    text = json.dumps(content, indent=2) + "\n"
    write_text_atomically(folder / CASCADE_FILE, text)
    sentences = list(_sentences(content))
    write_card_section(folder, content, sentences)
    describe_again(folder, [folder / name for name in (CASCADE_FILE, CARD_FILE, f"{FIGURES_FOLDER}/{CASCADE}")])
    return "\n".join(sentences)


def _max_difference(predictor: Predictor, args: CascadeArguments, folder: Path) -> float:
    """Returns the limit for the lexical features, which is 0 if they never answer."""
    if predictor.labels.problem_type == REGRESSION:
        raise ArgumentsError(f"{folder}: a regression has no labels to be sure of")
    if predictor.engine.has_lexical_logits:
        return DEFAULT_DIFFERENCE if args.max_difference is None else args.max_difference
    if args.max_difference:
        raise ArgumentsError(
            f"--max_difference {args.max_difference}: {folder} has no lexical features; train it with "
            "--lexical_features true"
        )
    if args.abstain_at_risk is None:
        raise ArgumentsError(
            f"{folder} has no lexical features that could answer: train it with --lexical_features true, or name a "
            "limit for --abstain_at_risk"
        )
    return 0.0


def _validation_rows(predictor: Predictor, args: CascadeArguments, data_args: DataArguments) -> ValidationRows:
    data = load_data(data_args, predictor.labels, trains=False, predicts=False)
    if "validation" not in data.splits:
        raise ArgumentsError("there is no validation data: name some with --validation_file")
    split = cast(Dataset, data.splits["validation"])
    gold = np.asarray(split["label"][:]) if data.has_labels("validation") else None
    if gold is None and args.abstain_at_risk is not None:
        raise ArgumentsError("--abstain_at_risk needs validation data with labels")
    pairs = [text or "" for text in split["text_pair"]] if "text_pair" in split.column_names else None
    return ValidationRows([text or "" for text in split["text"]], pairs, gold)


def _check_number(rows: int, limit: float, confidence: float) -> None:
    fewest = fewest_rows(limit, confidence)
    if rows < fewest:
        raise ArgumentsError(
            f"{rows} validation rows cannot show that a share is below {limit:.2%} with {confidence:.0%} confidence: "
            f"at least {fewest} could, without an error among them"
        )


def fitted(
    predictor: Predictor, rows: ValidationRows, max_difference: float, args: CascadeArguments
) -> dict[str, Any]:
    """Returns the content of `cascade.json`: the cascade, its curves, and accuracies on the validation rows.

    Raises:
        ArgumentsError: if no threshold keeps a limit.
    """
    labels, calibration = predictor.labels, predictor.calibration
    whole = predictor.logits(rows.texts, rows.pairs)
    whole_labels = calibration.predicted_of(whole, labels)
    cascade = Cascade(
        lexical=None, factor=1.0, max_difference=max_difference, abstention=None, risk=args.abstain_at_risk,
        confidence=args.confidence, rows=len(rows.texts), max_seq_length=predictor.encoder_length,
    )  # fmt: skip
    answers, curves = whole, {}
    if max_difference:
        lexical = predictor.lexical_logits(rows.texts, rows.pairs)
        factor = fitted_factor(lexical, whole, labels)
        lexical = factor * lexical
        margins = label_margins(lexical, labels, calibration)
        differs = _differs(calibration.predicted_of(lexical, labels), whole_labels)
        threshold = threshold_by_share(margins, differs, max_difference, args.confidence)
        if threshold is None:
            raise ArgumentsError(
                f"--max_difference {max_difference}: the lexical features are not sure enough of any text; allow more"
            )
        cascade = replace(cascade, lexical=threshold, factor=factor)
        curves["lexical"] = risk_curve(margins, differs)
        answers = np.where(cascade.answers(margins)[:, None], lexical, whole)
    accuracies: dict[str, float] = {}
    if rows.gold is not None:
        is_wrong = _differs(calibration.predicted_of(answers, labels), rows.gold)
        accuracies = {
            "whole_model": 1 - float(_differs(whole_labels, rows.gold).mean()),
            "cascade": 1 - float(is_wrong.mean()),
        }
        margins = label_margins(answers, labels, calibration)
        curves["abstention"] = risk_curve(margins, is_wrong)
        if args.abstain_at_risk is not None:
            threshold = threshold_by_rate(margins, is_wrong, args.abstain_at_risk, args.confidence)
            if threshold is None:
                raise ArgumentsError(
                    f"--abstain_at_risk {args.abstain_at_risk}: the model is not sure enough of any part of the "
                    "validation data, or there is too little of it; allow a higher risk"
                )
            cascade = replace(cascade, abstention=threshold)
    return {"cascade": cascade.as_json(), "accuracy": accuracies, "curves": curves}


def _differs(predicted: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(rows,) booleans: whether the label, or any label of a multi-label task, is another one."""
    return (predicted != others).reshape(len(predicted), -1).any(axis=1)


def _sentences(content: dict[str, Any]) -> Iterator[str]:
    cascade, accuracy = content["cascade"], content["accuracy"]
    rows, confidence = cascade["rows"], cascade["confidence"]
    if (lexical := cascade["lexical"]) is not None:
        yield (
            f"The lexical features answer {lexical['coverage']:.1%} of the {rows:,} validation texts, and the encoder "
            f"reads the others. {lexical['errors']} labels are not the whole model's; of new texts, fewer than "
            f"{lexical['upper_bound']:.2%} with {confidence:.0%} confidence."
        )
        if accuracy:
            yield (
                f"Right answers there: {accuracy['cascade']:.2%}, and {accuracy['whole_model']:.2%} of the whole "
                "model's."
            )
    if (abstention := cascade["abstention"]) is not None:
        passed = round(abstention["coverage"] * rows)
        yield (
            f"A person should read {1 - abstention['coverage']:.1%} of the texts. Of the other {passed:,}, "
            f"{abstention['errors']} are wrong ({abstention['errors'] / passed:.2%}); of new texts like these, fewer "
            f"than {abstention['upper_bound']:.2%} with {confidence:.0%} confidence."
        )
