"""Cross-validation: trains on all parts of the training rows but one, and evaluates on that one, for each part.

The parts are drawn over distinct texts, so that no text is on both sides, and have equal shares of single labels. The
run's validation rows serve each training as they serve the run's own, for example to choose the best checkpoint.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from bertcls_hf.atomic_files import write_json_atomically
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.texts import first_rows
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.cross_fitting import divided_rows
from bertcls_hf.features.logits_columns import LEXICAL_COLUMN
from bertcls_hf.metrics.metrics import compute_metrics, metric_words
from bertcls_hf.training.baseline_results import evaluate_baseline, log_baseline, plain_comparison
from bertcls_hf.training.lexical_parts import fitted_baseline, fitted_features
from bertcls_hf.training.repetitions import Metrics, once, read_summary, repeat, summary
from bertcls_hf.training.resolve import ResolvedRun
from bertcls_hf.training.results import PREFIXES
from bertcls_hf.training.saved_outputs import SUFFIX, SavedOutputs, read_outputs


logger = logging.getLogger(__name__)

CROSS_VALIDATION_FILE = "cross_validation.json"
OUTPUTS_FILE = f"{PREFIXES['test']}{SUFFIX}"


def held_out_rows(data: ClassificationData, folds: int, seed: int) -> list[np.ndarray]:
    """Returns the rows that each fold holds out, ascending: every training row is held out once.

    Args:
        data: the splits with their texts; single labels are spread evenly over the folds.
        folds: the number of folds; none for 0.
        seed: of the order of the texts.

    Raises:
        ArgumentsError: if there are fewer distinct texts than folds, or fewer texts of every label.
    """
    if folds == 0:
        return []
    train = cast(Dataset, data.splits["train"])
    groups, gold = first_rows(train), np.asarray(train["label"][:])
    is_single = data.labels.problem_type == SINGLE_LABEL
    if len(np.unique(groups)) < folds or (is_single and np.bincount(gold).max() < folds):
        raise ArgumentsError(f"--cross_validation {folds}: there are fewer different training texts, or of each label")
    return divided_rows(gold, groups, folds, seed, is_single_label=is_single)


def cross_validate(
    resolved: ResolvedRun,
    held_out: Sequence[np.ndarray],
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    features: Mapping[str, Any] | None,
    data: ClassificationData,
) -> None:
    """Trains and evaluates each fold in output_dir/fold-<number>-of-<folds>, and writes `cross_validation.json`.

    A fold that finished before is not repeated if the run resumes. The models of the folds are not saved.

    Args:
        resolved: the run.
        held_out: the rows that each fold holds out; see [`held_out_rows`].
        tokenizer: the run's tokenizer.
        splits: the tokenized splits.
        features: their cached features; None without `--boost`.
        data: the splits with their texts.
    """
    training = resolved.args.training
    all_rows = np.sort(np.concatenate(held_out))
    metrics, folders = [], []
    for number, held in enumerate(held_out, start=1):
        # The number of folds is part of the name, so that a run with another one takes none of them over.
        folder = Path(training.output_dir, f"fold-{number}-of-{len(held_out)}")
        kept = np.setdiff1d(all_rows, held)

        def trained(kept: np.ndarray = kept, held: np.ndarray = held, folder: Path = folder) -> Metrics:
            logger.info("%s: training on %d rows, to evaluate on %d", folder.name, len(kept), len(held))
            return _run_fold(resolved, folder, tokenizer, splits, features, data, kept, held)

        metrics.append(once(folder, resolved, trained, part=xxhash.xxh3_64_hexdigest(held.tobytes())))
        folders.append(folder)
    if training.process_index == 0:
        _write(Path(training.output_dir, CROSS_VALIDATION_FILE), metrics, folders, data.labels)


def read_cross_validation(folder: Path) -> dict[str, Any] | None:
    """Reads `cross_validation.json`; returns None if the run had none, or the file is damaged."""
    return read_summary(folder / CROSS_VALIDATION_FILE)


def _run_fold(
    resolved: ResolvedRun,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Any],
    features: Mapping[str, Any] | None,
    data: ClassificationData,
    kept: np.ndarray,
    held: np.ndarray,
) -> Metrics:
    fold_data = replace(data, splits=_parts(data.splits, kept, held))
    fold_splits = _parts(splits, kept, held)
    fold_features = None if features is None else _parts(features, kept, held)
    if resolved.lexical is not None:
        lexical = fitted_features(resolved, fold_data, tokenizer)
        resolved = replace(resolved, lexical=lexical)
        fold_splits = lexical.with_logits(
            {name: part.remove_columns(LEXICAL_COLUMN) for name, part in fold_splits.items()}
        )
        if fold_features is not None:
            logits = lexical.logits
            fold_features = {name: part.with_lexical_logits(logits[name]) for name, part in fold_features.items()}
    baseline = fitted_baseline(resolved, fold_data)
    return repeat(resolved, folder, tokenizer, fold_splits, fold_features, fold_data, baseline)


def _parts(splits: Mapping[str, Any], kept: np.ndarray, held: np.ndarray) -> dict[str, Any]:
    """Returns the splits of a fold, whose test split is held out of the training rows."""
    parts = {"train": splits["train"].select(kept), "test": splits["train"].select(held)}
    return parts | ({"validation": splits["validation"]} if "validation" in splits else {})


def _write(path: Path, metrics: list[Metrics], folders: list[Path], labels: LabelSet) -> None:
    """Writes the mean and the deviation over the folds, and the figures of all rows together."""
    found: dict[str, Any] = {"folds": len(folders), "metrics": summary(metrics)["test"]}
    outputs = [read_outputs(folder / OUTPUTS_FILE) for folder in folders if (folder / OUTPUTS_FILE).is_file()]
    if len(outputs) == len(folders):  # Those of very many labels are not kept.
        found |= _together(outputs, labels)
    write_json_atomically(path, found)
    name, figures = next(iter(found["metrics"].items()))
    logger.info(
        "cross-validation: %s %.4f ± %.4f over %d folds", metric_words(name), figures["mean"],
        figures["standard_deviation"], len(folders),
    )  # fmt: skip


def _together(outputs: list[SavedOutputs], labels: LabelSet) -> dict[str, Any]:
    """Computes the metrics over the rows of all folds, each classified by a model that was not trained on it."""
    logits, gold = (np.concatenate([getattr(fold, name) for fold in outputs]) for name in ("logits", "gold"))
    found: dict[str, Any] = {"rows": len(gold), "all_rows": compute_metrics(logits, gold, labels.problem_type)}
    baselines = [fold.baseline_logits for fold in outputs if fold.baseline_logits is not None]
    if len(baselines) == len(outputs):
        compared = evaluate_baseline(np.concatenate(baselines), logits, gold, labels)
        log_baseline("cross-validation", compared, labels)
        found["lexical_baseline"] = {"metrics": compared.metrics, "comparison": plain_comparison(compared.comparison)}
    return found
