"""Teaches a classifier by the logits of trained ones, its teachers (Hinton, Vinyals & Dean 2015, arXiv 1503.02531).

The teachers' logits of all training texts are computed once and cached by content. Texts without labels take the
teachers' answer for their label.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, concatenate_datasets
from scipy.special import expit

from bertcls_hf.config.arguments import Arguments, ClassifierTrainingArguments
from bertcls_hf.data.columns import SOFT_LABEL
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSet, encoded_feature
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.texts import text_columns
from bertcls_hf.data.unlabelled import load_unlabelled
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.lexical_cache import content_digests, read_cached, write_cached
from bertcls_hf.features.logits_columns import TEACHER_COLUMN, add_logits
from bertcls_hf.predict.predictor import Predictor


logger = logging.getLogger(__name__)

# Stands for a probability of 0, whose logarithm would not be a number.
SMALLEST_SHARE = 1e-6
# Part of the cache key. Increase it when the logits change.
VERSION = 1


def with_teachers(args: Arguments, data: ClassificationData) -> tuple[ClassificationData, np.ndarray | None]:
    """Asks the teachers about the training texts, and adds the texts without labels to these; or reads soft labels.

    Args:
        args: the options, which name the teachers, or the columns of soft labels.
        data: the splits of the run.

    Returns:
        The splits, whose training rows may be more; and (training rows, labels) float32, the mean logits of the
        teachers or the logarithms of the soft labels, in the order of the run's labels. None without either.

    Raises:
        ArgumentsError: if there is no such teacher, if it knows other labels, or if the training data has no soft
            labels.
        DataError: if the texts without labels cannot be read.
    """
    if args.data.soft_label_columns:
        return data, _soft_label_logits(args, data)
    if not args.training.teacher:
        return data, None
    train, more = cast(Dataset, data.splits["train"]), load_unlabelled(args.data, data)
    splits = [train] if more is None else [train, more]
    of_teachers = [_logits(name, args, splits, data.labels) for name in args.training.teacher]
    logits = [np.mean(of_split, axis=0) for of_split in zip(*of_teachers, strict=True)]
    if more is not None:
        columns = [*text_columns(train), "label"]
        labelled = _with_answers(more, logits[1], data.labels)
        train = concatenate_datasets([train.select_columns(columns), labelled.select_columns(columns)])
        logger.info("%d texts without labels take their teachers' answers", len(more))
    return replace(data, splits={**data.splits, "train": train}), np.concatenate(logits).astype(np.float32)


def _soft_label_logits(args: Arguments, data: ClassificationData) -> np.ndarray:
    train, names = cast(Dataset, data.splits["train"]), args.data.label_names or []
    if SOFT_LABEL not in train.column_names:
        raise ArgumentsError(
            f"--soft_label_columns {' '.join(args.data.soft_label_columns or ())}: the training data has none of them"
        )
    if data.labels.problem_type != SINGLE_LABEL:
        raise ArgumentsError(f"--soft_label_columns is for {SINGLE_LABEL}, and the task is {data.labels.problem_type}")
    shares = np.asarray(train[SOFT_LABEL][:], dtype=np.float64)[:, [names.index(name) for name in data.labels.names]]
    return np.log(shares.clip(min=SMALLEST_SHARE)).astype(np.float32)


def with_logits(splits: dict[str, Any], logits: np.ndarray | None) -> dict[str, Any]:
    """Returns the tokenized splits, whose training rows have the column of logits, if there are any."""
    if logits is None:
        return splits
    return {**splits, "train": add_logits(splits["train"], TEACHER_COLUMN, logits)}


def _logits(name: str, args: Arguments, splits: Sequence[Dataset], labels: LabelSet) -> list[np.ndarray]:
    """Returns a teacher's (rows, labels) logits of each split, in the order of the run's labels."""
    device = "cpu" if args.training.device.type == "cpu" else None
    teacher = Predictor.from_pretrained(
        name, device=device, trust_remote_code=args.model.trust_remote_code, calibrated=False, cascade=False
    )
    known = teacher.labels
    if known.problem_type != labels.problem_type or set(known.names) != set(labels.names):
        raise ArgumentsError(
            f"--teacher {name}: it knows {', '.join(known.names[:10])} ({known.problem_type}), and the data has "
            f"{', '.join(labels.names[:10])} ({labels.problem_type})"
        )
    order = [known.names.index(label) for label in labels.names]
    key = teacher.fingerprint()
    return [_cached_logits(name, teacher, key, split)[:, order] for split in splits]


def _cached_logits(name: str, teacher: Predictor, fingerprint: str, split: Dataset) -> np.ndarray:
    texts = split.select_columns(text_columns(split))
    content = [VERSION, fingerprint, content_digests(texts)]
    key = f"teacher-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}"
    cached = read_cached(key)
    if cached is not None:
        return cached[1]["logits"]
    logger.info("%s: computing the logits of %d texts", name, len(texts))
    columns = [[text or "" for text in texts[column][:]] for column in text_columns(texts)]
    found = teacher.logits(columns[0], columns[1] if len(columns) > 1 else None)
    write_cached(key, {}, {"logits": found})
    return found


def _with_answers(texts: Dataset, logits: np.ndarray, labels: LabelSet) -> Dataset:
    """Adds the labels that the logits stand for."""
    answers: Any = logits[:, 0] if labels.problem_type == REGRESSION else logits.argmax(axis=1)
    if labels.problem_type == MULTI_LABEL:
        answers = (expit(logits) > 0.5).astype(np.float32)
    return texts.add_column("label", answers.tolist(), feature=encoded_feature(labels))


def distillation_loss(
    loss: torch.Tensor,
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    problem_type: str,
    args: ClassifierTrainingArguments,
) -> torch.Tensor:
    """Mixes the loss of the labels with the distance to the teachers.

    For single labels, the distance is the divergence of the teachers' from the student's probabilities, both softened
    by the temperature, times its square, so that its gradients do not shrink; for several labels, the cross-entropy of
    each label alike; for a regression, the squared difference.

    Args:
        loss: the mean loss of the labels.
        logits: (batch, labels) of the student.
        teacher_logits: (batch, labels).
        problem_type: the task.
        args: the temperature, and the weight of the distance.
    """
    student, teacher, temperature = logits.float(), teacher_logits.float(), args.distillation_temperature
    if problem_type == REGRESSION:
        distance = F.mse_loss(student, teacher)
    elif problem_type == SINGLE_LABEL:
        shares = F.log_softmax(student / temperature, dim=-1)
        expected = F.log_softmax(teacher / temperature, dim=-1)
        distance = temperature**2 * F.kl_div(shares, expected, reduction="batchmean", log_target=True)
    else:
        expected = (teacher / temperature).sigmoid()
        distance = temperature**2 * F.binary_cross_entropy_with_logits(student / temperature, expected)
    return (1 - args.distillation_weight) * loss + args.distillation_weight * distance
