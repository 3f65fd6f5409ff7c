"""Chooses, for few labelled texts, between an encoder that is tuned on pairs of them and the encoder as it is.

Cross-validation on the training rows chooses: each candidate classifies every row by regressions, and by an encoder,
that have not seen it. Candidates are the tuned encoder and the encoder as it is, each alone and beside n-grams. Of
those whose loss is within one standard error of the least, the first is chosen (Breiman et al. 1984), since few rows
cannot tell them apart. The tuned ones come first: cross-validation tunes an encoder without each part of the rows, and
knows these from fewer rows than their mean has seen.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, set_seed

from bertcls_hf.atomic_files import read_json, write_json_atomically
from bertcls_hf.config.arguments import Arguments, ClassifierTrainingArguments
from bertcls_hf.data.labels import REGRESSION
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.data.texts import first_rows
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.features.cross_fitting import CrossFit, cross_fit, held_out_parts
from bertcls_hf.features.extractor import FeatureExtractor, encoder_fingerprint
from bertcls_hf.features.lexical_fusion import fitted_factors
from bertcls_hf.features.logistic_head import HeldOutFit
from bertcls_hf.features.regressions import losses_of_rows
from bertcls_hf.features.scaling import Vectors
from bertcls_hf.models.fingerprints import tokenizer_fingerprint
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.training.contrastive import ContrastiveEncoder, MeanWeights, Tuning, average_weights, tune
from bertcls_hf.training.label_descriptions import description_tokens, description_vectors
from bertcls_hf.training.lexical_parts import fitted_features
from bertcls_hf.training.phases import encoder_phase
from bertcls_hf.training.resolve import ResolvedRun


logger = logging.getLogger(__name__)

# In output_dir: the tuned encoder, and what was chosen and why, which is written last.
FOLDER, DESCRIPTION_FILE = "tuned", "few_shot.json"
# With fewer rows, cross-validation tells no candidate from another.
FEWEST_ROWS = 50
# The parts that cross-validation divides the rows into, each of which costs a tuning, and from how many rows on there
# are more parts.
FEW_FOLDS, FOLDS, ENOUGH_ROWS = 2, 4, 100
# With fewer tunings by cross-validation, there is one more on all rows.
ENOUGH_TUNINGS = 3
# What the mean of so many tunings counts beside the weights of before.
TUNED_SHARES = {1: 1 / 2, 3: 3 / 4, 4: 2 / 3}
# C with fewer rows.
FEW_ROWS_PENALTY = 0.01
# How far the factors of an encoder and of n-grams are thought to lie from 1 and 0: tens of rows can speak for n-grams
# by chance.
PRIOR_DEVIATION = 0.5
# The steps of a tuning, and the texts for each of which there is one more.
FEWEST_STEPS, TEXTS_PER_STEP = 14, 8
# Part of the key. Increase it when the same options give another encoder.
VERSION = 7


@dataclass(frozen=True)
class Candidate:
    """A way to classify, and what cross-validation on the training rows says of it.

    Args:
        is_tuned: whether its encoder is tuned on pairs.
        has_ngrams: whether n-grams stand beside the encoder.
        accuracy: the share of the rows all of whose labels are right; None without cross-validation.
        log_loss: the mean negative logarithm of a row's probability; None without cross-validation.
        behind: how much more that is than the least of the candidates, in standard errors of the difference.
        penalty: C of the regression.
        head_factor: what the regression counts beside n-grams; None without these.
        ngram_factor: what these count.
    """

    is_tuned: bool
    has_ngrams: bool
    accuracy: float | None = None
    log_loss: float | None = None
    behind: float | None = None
    penalty: float | None = None
    head_factor: float | None = None
    ngram_factor: float | None = None

    @property
    def head_fit(self) -> HeldOutFit | None:
        """How the regression is to be fitted; None where its own cross-validation says so."""
        if not self.is_tuned or self.penalty is None:
            return None
        if self.head_factor is None or self.ngram_factor is None:
            return HeldOutFit(self.penalty)
        return HeldOutFit(self.penalty, (self.head_factor, self.ngram_factor))

    @property
    def words(self) -> str:
        """What the candidate is, for logs and cards."""
        encoder = "encoder tuned on pairs" if self.is_tuned else "encoder as it is"
        return f"{encoder}, {'beside n-grams' if self.has_ngrams else 'alone'}"


@dataclass(frozen=True)
class FewShotChoice:
    """The candidates, the chosen one first.

    Args:
        key: a hash of all that the choice depends on.
        rows: the number of training rows.
        tunings: the tunings that were made; the tuned encoder is their mean.
        steps: the steps of all of them.
        candidates: the candidates; one, if the rows are too few for cross-validation.
    """

    key: str
    rows: int
    tunings: int
    steps: int
    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        figures = [
            figure
            for one in self.candidates
            for figure in (one.accuracy, one.log_loss, one.behind, one.penalty, one.head_factor, one.ngram_factor)
        ]
        are_numbers = all(figure is None or isinstance(figure, int | float) for figure in figures)
        counts = (self.rows, self.tunings, self.steps)
        if not self.candidates or not are_numbers or any(type(count) is not int for count in counts):
            raise ValueError(f"not a choice: {self}")

    @property
    def best(self) -> Candidate:
        """The chosen candidate."""
        return self.candidates[0]


def choose_encoder(
    resolved: ResolvedRun, data: ClassificationData, splits: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[ResolvedRun, bool]:
    """Chooses by cross-validation, tunes the encoder in output_dir/tuned if that is best, and describes the choice.

    Args:
        resolved: the run.
        data: the splits with their texts.
        splits: the tokenized splits.
        tokenizer: the run's tokenizer.

    Returns:
        The run that starts from the chosen encoder, and whether it has lexical features.

    Raises:
        ArgumentsError: if the task has no classes.
    """
    if data.labels.problem_type == REGRESSION:
        raise ArgumentsError(f"--few_shot is for classes, and the task is a {REGRESSION}")
    output_dir = Path(resolved.args.training.output_dir)
    folder = output_dir / FOLDER
    model = resolved.load_model()
    train = cast(Dataset, splits["train"])
    key = _key(resolved.args, model, tokenizer, train)
    choice = read_choice(output_dir)
    if choice is None or choice.key != key:
        # A description belongs to the encoder beside it, also after a kill.
        (output_dir / DESCRIPTION_FILE).unlink(missing_ok=True)
        candidates, mean = _compare(resolved, model, data, train, tokenizer)
        if candidates[0].is_tuned:
            if mean.tunings < ENOUGH_TUNINGS:
                mean.add(_tuned_on_all(resolved.args, model, train, tokenizer, mean.share_of_steps))
            _save(resolved.args, model, tokenizer, mean, folder)
        choice = FewShotChoice(key, len(train), mean.tunings, mean.steps, tuple(candidates))
        if resolved.args.training.process_index == 0:
            write_json_atomically(output_dir / DESCRIPTION_FILE, asdict(choice))
    else:
        logger.info("%s describes the same choice: nothing is tuned", output_dir / DESCRIPTION_FILE)
    PartialState().wait_for_everyone()
    _log(choice)
    if choice.best.is_tuned:
        # Rows that the encoder has learned from would let the regression trust it too much; texts of a pool would not.
        has_others = resolved.args.few_shot.self_training_rounds > 0
        fit = None if has_others else choice.best.head_fit
        resolved = replace(resolved.starting_from(folder), head_fit=fit)
    return resolved, choice.best.has_ngrams


def read_choice(folder: Path) -> FewShotChoice | None:
    """Reads what was chosen; returns None if there is no description, or it is not whole."""
    try:
        found = read_json(folder / DESCRIPTION_FILE)
        candidates = tuple(Candidate(**candidate) for candidate in found.pop("candidates"))
        return FewShotChoice(**found, candidates=candidates)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _log(choice: FewShotChoice) -> None:
    for candidate in choice.candidates:
        if candidate.log_loss is not None:
            logger.info(
                "few shots, cross-validation on %d rows: %s: accuracy %.4f, log-loss %.4f",
                choice.rows, candidate.words, candidate.accuracy, candidate.log_loss,
            )  # fmt: skip
    logger.info("few shots: the %s is chosen", choice.best.words)


def _key(args: Arguments, model: TextClassifier, tokenizer: PreTrainedTokenizerBase, train: Dataset) -> str:
    few_shot, training = args.few_shot, args.training
    settings = [
        asdict(few_shot), args.model.lexical_features, model.config.pooling, model.config.pooling_layers,
        model.config.pooling_layers_merge, training.per_device_train_batch_size, training.world_size,
        training.weight_decay, training.warmup_steps, str(training.lr_scheduler_type), training.bf16, training.fp16,
        training.seed, training.optim, tokenizer.model_max_length,
    ]  # fmt: skip
    content = [VERSION, str(settings), encoder_fingerprint(model), tokenizer_fingerprint(tokenizer)]
    return hashlib.sha256(json.dumps([*content, train._fingerprint]).encode()).hexdigest()[:32]


def _compare(
    resolved: ResolvedRun,
    model: TextClassifier,
    data: ClassificationData,
    train: Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[Candidate], MeanWeights]:
    """Cross-validates the candidates on the training rows; returns them, the best one first, and its tunings."""
    gold = np.asarray(train["labels"][:])
    texts = first_rows(cast(Dataset, data.splits["train"]))
    folds = FOLDS if len(gold) >= ENOUGH_ROWS else FEW_FOLDS
    parts = held_out_parts(gold, texts, folds, resolved.args.training.seed)
    can_tune = bool(parts and _steps(resolved.args, len(gold)))
    mean = MeanWeights()
    if not parts or len(gold) < FEWEST_ROWS:
        logger.info("few shots: %d rows are too few to compare anything by cross-validation", len(gold))
        return [Candidate(is_tuned=can_tune, has_ngrams=False, penalty=FEW_ROWS_PENALTY)], mean
    ngrams = (
        fitted_features(resolved, data, tokenizer).logits["train"] if resolved.args.model.lexical_features else None
    )
    weights = None if resolved.class_weights is None else np.asarray(resolved.class_weights)
    labels = len(data.labels.names)
    features = _features(resolved, model, train, tokenizer)
    vectors = Vectors(features, description_vectors(resolved, model, tokenizer))
    encoders = {False: cross_fit(vectors, gold, parts, labels, weights)}
    if can_tune:
        tuned_vectors = []
        for tuning, of_part in _tunings(resolved, model, train, tokenizer, parts):
            mean.add(tuning)
            tuned_vectors.append(of_part)
        encoders[True] = cross_fit(tuned_vectors, gold, parts, labels, weights)
    measured = [
        _measured(is_tuned, encoders[is_tuned], beside, gold, data.labels.problem_type, resolved.class_weights)
        for is_tuned in sorted(encoders, reverse=True)
        for beside in ([None] if ngrams is None else [None, ngrams])
    ]
    return _ordered(measured, gold, weights), mean


def _features(
    resolved: ResolvedRun, model: TextClassifier, train: Dataset, tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    """Returns the (rows, width) features of the encoder as it is, which the cache keeps."""
    dataset = FeatureExtractor(model, tokenizer, resolved.args).features("train", train)
    return dataset.__getitems__(np.arange(len(dataset)))["features"].numpy()


def _tunings(
    resolved: ResolvedRun,
    model: TextClassifier,
    train: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    parts: list[np.ndarray],
) -> Iterator[tuple[Tuning, Vectors]]:
    """Tunes an encoder without each part, whose texts say when to stop; yields the features of all rows, too."""
    described = description_tokens(resolved, tokenizer)
    every = np.arange(len(train))
    for number, held in enumerate(parts, start=1):
        kept = np.setdiff1d(every, held)
        logger.info("few shots: tuning on %d of %d rows, part %d of %d", len(kept), len(train), number, len(parts))
        steps = _steps(resolved.args, len(kept))
        tuning = _tuned(resolved.args, model, train.select(kept), tokenizer, steps, train.select(held))
        vectors_of = tuning.trainer.vectors
        yield tuning, Vectors(vectors_of(train), None if described is None else vectors_of(described))


def _tuned_on_all(
    args: Arguments, model: TextClassifier, train: Dataset, tokenizer: PreTrainedTokenizerBase, share_of_steps: float
) -> Tuning:
    steps = max(1, round(share_of_steps * _steps(args, len(train))))
    logger.info("few shots: tuning on all %d rows in %d steps", len(train), steps)
    return _tuned(args, model, train, tokenizer, steps)


def _steps(args: Arguments, rows: int) -> int:
    """Returns the most steps of a tuning on so many rows."""
    asked = args.few_shot.contrastive_max_steps
    return FEWEST_STEPS + rows // TEXTS_PER_STEP if asked is None else asked


def _tuned(
    args: Arguments,
    model: TextClassifier,
    train: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    held_out: Dataset | None = None,
) -> Tuning:
    training = _training_arguments(args, steps)
    set_seed(training.seed)
    return tune(ContrastiveEncoder.of(model), train, tokenizer, training, held_out)


def _training_arguments(args: Arguments, steps: int) -> ClassifierTrainingArguments:
    """Returns the options of the training on pairs."""
    training = args.training
    return encoder_phase(
        training, Path(training.output_dir, FOLDER), args.few_shot.contrastive_learning_rate, max_steps=steps,
        gradient_accumulation_steps=1, save_strategy="no", report_to=[],
    )  # fmt: skip


def _measured(
    is_tuned: bool,
    crossed: CrossFit,
    ngrams: np.ndarray | None,
    gold: np.ndarray,
    task: str,
    class_weights: list[float] | None,
) -> tuple[Candidate, np.ndarray]:
    """Weighs logits that no row's own regression gave, beside those of n-grams if there are any.

    Returns:
        The candidate, and its (rows, labels) logits.
    """
    wide = np.zeros_like(crossed.logits) if ngrams is None else ngrams
    factors = fitted_factors(crossed.logits, wide, gold, task, class_weights, PRIOR_DEVIATION)
    candidate = Candidate(is_tuned, ngrams is not None, penalty=crossed.penalty)
    if ngrams is not None:
        candidate = replace(candidate, head_factor=factors[0], ngram_factor=factors[1])
    return candidate, factors[0] * crossed.logits + factors[1] * wide


def _ordered(
    measured: list[tuple[Candidate, np.ndarray]], gold: np.ndarray, class_weights: np.ndarray | None
) -> list[Candidate]:
    """Compares candidates, row by row; the first that is not clearly behind the best becomes the first of all.

    Args:
        measured: the candidates and their (rows, labels) logits, by preference.
        gold: (rows,) label numbers, or (rows, labels) of 0 and 1.
        class_weights: (labels,) floats, or None for equal ones.
    """
    losses = [losses_of_rows(logits, gold, class_weights) for _, logits in measured]
    least = min(losses, key=np.mean)
    candidates = []
    for (candidate, logits), loss in zip(measured, losses, strict=True):
        more = loss - least
        error = more.std(ddof=1) / np.sqrt(len(gold))
        behind = float(more.mean() / error) if error > 0 else 0.0
        is_right = logits.argmax(axis=1) == gold if gold.ndim == 1 else ((logits > 0) == (gold > 0)).all(axis=1)
        accuracy = float(is_right.mean())
        candidates.append(replace(candidate, accuracy=accuracy, log_loss=float(loss.mean()), behind=behind))
    chosen = next(candidate for candidate in candidates if cast(float, candidate.behind) <= 1)
    return [chosen, *(candidate for candidate in candidates if candidate is not chosen)]


def _save(
    args: Arguments, model: TextClassifier, tokenizer: PreTrainedTokenizerBase, mean: MeanWeights, folder: Path
) -> None:
    """Saves the mean of the tuned weights and of those of before as an ordinary encoder."""
    if args.training.process_index == 0:
        encoder = ContrastiveEncoder.of(model)
        average_weights(encoder, mean.weights, TUNED_SHARES[mean.tunings])
        encoder.encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
