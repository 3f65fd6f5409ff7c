"""Tunes an encoder on pairs of texts, so that texts of one label lie close together, and others apart.

Tunstall et al. 2022 (SetFit, arXiv 2209.11055) sample pairs and encode both texts of each. Here, each batch holds
some texts of every label, and all of its pairs count: a text is encoded once for all of them, and memory is linear in
the texts of a batch.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch.optim.swa_utils import get_swa_multi_avg_fn
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.training.callbacks import training_callbacks
from bertcls_hf.training.collators import ClassificationCollator
from bertcls_hf.training.phases import trainer_arguments
from bertcls_hf.training.samplers import EpochSampler
from bertcls_hf.training.trainer import ClassificationTrainer
from bertcls_hf.training.weight_averaging import trained_weights


logger = logging.getLogger(__name__)

LABELS = "labels"
# Held-out pairs are looked at so often in a tuning, which ends when they are clearly worse placed so many times in
# turn.
LOOKS, PATIENCE = 5, 2
# The held-out texts whose pairs are looked at. More would take longer than the tuning.
MOST_HELD_OUT = 100
# What the tuned weights count, beside those of before, in the mean that held-out texts judge.
JUDGED_SHARE = 0.5


def pair_loss(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compares the cosine of each pair of texts with how alike their labels are.

    Pairs that share a label and those that share none count alike, however many there are.

    Args:
        vectors: (texts, width) floats.
        labels: (texts,) label numbers, for which pairs are alike or not; or (texts, labels) 0 and 1, for which a pair
            is as alike as the share of its labels that both have (Jaccard).

    Returns:
        The mean squared difference, a scalar; 0 if there is no pair.
    """
    alike = _likeness(labels)
    squares = (_cosines(vectors) - alike) ** 2
    is_pair = torch.ones_like(alike, dtype=torch.bool).triu(diagonal=1)
    kinds = [squares[is_pair & kind] for kind in (alike > 0, alike == 0)]
    means = [kind.mean() for kind in kinds if len(kind)]
    return torch.stack(means).mean() if means else vectors.sum() * 0.0


def losses_of_texts(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Measures how often a text lies nearer to one that is less like it than to one that is more like it.

    Unlike [`pair_loss`], it does not ask how near: a regression does not, either, and the tuning of an encoder places
    other texts in a better order long after their cosines have begun to stray from 0 and 1.

    Args:
        vectors: (texts, width) floats.
        labels: (texts,) label numbers, or (texts, labels) 0 and 1.

    Returns:
        (texts,) float64: for each text, the share of such comparisons that are wrong (1 - ROC AUC for single labels),
        of which ties count half; 0 where all others are equally like it.
    """
    cosines, alike = _cosines(torch.from_numpy(vectors)).numpy(), _likeness(torch.from_numpy(labels)).numpy()
    losses = np.zeros(len(alike))
    for text, (near, like) in enumerate(zip(cosines, alike, strict=True)):
        near, like = np.delete(near, text), np.delete(like, text)
        is_more = like[:, None] > like[None]
        if is_more.any():
            losses[text] = (1 - np.sign(near[:, None] - near[None])[is_more].mean()) / 2
    return losses


def _cosines(vectors: torch.Tensor) -> torch.Tensor:
    unit = F.normalize(vectors.float(), dim=-1)
    return unit @ unit.T


def _likeness(labels: torch.Tensor) -> torch.Tensor:
    """Returns (texts, texts) float32: 1 for the same labels, 0 for none in common."""
    if labels.dim() == 1:
        return (labels[:, None] == labels[None]).float()
    marks = labels.float()
    shared = marks @ marks.T
    either = marks.sum(dim=1)[:, None] + marks.sum(dim=1)[None] - shared
    # Two texts without a label are alike.
    return torch.where(either > 0, shared / either.clamp(min=1), torch.ones_like(shared))


class ContrastiveEncoder(TextClassifier):
    """A classifier whose encoder is trained, and which gives what its head would read in place of logits."""

    def forward(self, **inputs: Any) -> SequenceClassifierOutput:  # type: ignore[override]
        """Returns (batch, `config.feature_size`) vectors as `logits`; see [`pooled_features`] for the inputs."""
        return SequenceClassifierOutput(logits=self.pooled_features(**inputs))

    @classmethod
    def of(cls, model: TextClassifier) -> "ContrastiveEncoder":
        """Copies a classifier, and freezes its head and the embeddings of its tokens.

        Few texts hold few of the tokens, and a large vocabulary takes more time and memory than the layers.
        """
        config = copy.deepcopy(model.config)
        config.freeze_backbone, config.trainable_layers, config.lexical_features = False, None, None
        copied = cls(config)
        copied.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("lexical.")})
        copied.head.requires_grad_(False)
        copied.encoder.get_input_embeddings().requires_grad_(False)
        return copied


class SpreadLabels(EpochSampler):
    """Yields all rows in a random order in which each stretch has its share of every label.

    Args:
        labels: (rows,) label numbers.
        seed: of the order, with the epoch number.
    """

    def __init__(self, labels: np.ndarray, seed: int):
        super().__init__(len(labels), seed)
        self.labels = labels

    def order(self, epoch: int) -> Iterator[int]:
        """Yields the numbers of all rows in the order of an epoch."""
        generator = np.random.default_rng([self.seed, epoch])
        places = np.empty(len(self.labels))
        for label in np.unique(self.labels):
            rows = np.flatnonzero(self.labels == label)
            # The rows of a label are spread evenly from 0 to 1, in random order.
            places[generator.permutation(rows)] = (np.arange(len(rows)) + generator.random()) / len(rows)
        yield from np.argsort(places).tolist()


class ContrastiveTrainer(ClassificationTrainer):
    """Trains a [`ContrastiveEncoder`] on all pairs of a batch; each process takes the pairs of its own texts."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Computes [`pair_loss`] for the texts of a batch."""
        outputs = model(**{name: value for name, value in inputs.items() if name != LABELS})
        loss = pair_loss(outputs.logits, inputs[LABELS])
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        labels = np.asarray(cast(Dataset, self.train_dataset)[LABELS][:])
        if labels.ndim > 1:  # Rows with the same labels count as rows of one label.
            labels = np.unique(labels, axis=0, return_inverse=True)[1]
        return SpreadLabels(labels, self.order_seed)

    def vectors(self, split: Dataset) -> np.ndarray:
        """Returns the (rows, width) float32 vectors of a split."""
        without_labels = split.remove_columns([name for name in (LABELS,) if name in split.column_names])
        return np.asarray(self.predict(without_labels).predictions, dtype=np.float32)


class KeepBestStep(TrainerCallback):
    """Ends the training when held-out pairs are clearly worse placed than before, and keeps the weights before that.

    What places them is the encoder with the averaged weights, which is the one that is kept: the tuned weights alone
    soon place other texts worse, while their mean with those of before still places them better. A loss is clearly
    worse if it is more than one standard error above the least: few texts say little of how long to train,
    and then all steps are taken.

    Args:
        losses: computes the (texts,) losses of the held-out texts; see [`losses_of_texts`].
        model: the model, which has the weights of before.
    """

    def __init__(self, losses: Callable[[], np.ndarray], model: torch.nn.Module):
        self._losses, self._model = losses, model
        self._before = copied_weights(model)
        self._least, self.best_step = losses(), 0
        self.best_weights = self._before

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step, interval = state.global_step, math.ceil(state.max_steps / LOOKS)
        if step % interval and step < state.max_steps:
            return
        tuned = copied_weights(self._model)
        average_weights(self._model, self._before, 1 - JUDGED_SHARE)
        losses = self._losses()
        more = losses - self._least
        if more.mean() <= more.std() / np.sqrt(len(more)):
            self.best_step, self.best_weights = step, tuned
        if more.mean() < 0:
            self._least = losses
        put_weights(self._model, tuned)
        control.should_training_stop |= step - self.best_step >= PATIENCE * interval

    def restore(self) -> None:
        """Puts the mean of the best weights and those of before into the model."""
        put_weights(self._model, self.best_weights)
        average_weights(self._model, self._before, 1 - JUDGED_SHARE)


@dataclass(frozen=True)
class Tuning:
    """What a tuning leaves.

    Args:
        trainer: its model has the means of the weights before and after if texts were held out, else those after.
        weights: the weights after, by name, in the CPU's memory.
        steps: the steps that led to them; 0 if they are those of before.
    """

    trainer: ContrastiveTrainer
    weights: dict[str, torch.Tensor]
    steps: int


class MeanWeights:
    """The mean of an encoder's weights after several tunings (Wortsman et al. 2022, arXiv 2203.05482)."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self._most_steps = 0
        self.tunings = self.steps = 0

    def add(self, tuning: Tuning) -> None:
        """Adds a tuning."""
        if not self.tunings:
            self.weights = {name: weight.clone() for name, weight in tuning.weights.items()}
        averaged = [self.weights[name] for name in tuning.weights]
        get_swa_multi_avg_fn()(averaged, list(tuning.weights.values()), self.tunings)
        self.tunings += 1
        self.steps += tuning.steps
        self._most_steps += tuning.trainer.args.max_steps

    @property
    def share_of_steps(self) -> float:
        """How many of the steps that the tunings could take led to their weights; 1 without a tuning."""
        return self.steps / self._most_steps if self._most_steps else 1.0


def tune(
    model: ContrastiveEncoder,
    train: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    args: ClassifierTrainingArguments,
    held_out: Dataset | None = None,
) -> Tuning:
    """Tunes the encoder.

    If texts are held out, its weights become the means of the tuned ones and those of before, which know more than few
    texts can teach (Wortsman et al. 2022, arXiv 2109.01903): held-out texts judge those.

    Args:
        model: the encoder, which is changed.
        train: tokenized rows with `labels`.
        tokenizer: the tokenizer, which pads.
        args: the options of the training.
        held_out: more such rows, whose pairs say when to stop.
    """
    trainer = ContrastiveTrainer(
        model=model,
        args=trainer_arguments(args),
        data_collator=ClassificationCollator(tokenizer),
        train_dataset=train,
        processing_class=tokenizer,
        callbacks=training_callbacks(args),
    )
    if held_out is None:
        trainer.train()
        return Tuning(trainer, copied_weights(model), args.max_steps)
    looked_at = held_out.shuffle(seed=args.seed).select(range(min(MOST_HELD_OUT, len(held_out))))
    gold = np.asarray(looked_at[LABELS][:])
    best = KeepBestStep(lambda: losses_of_texts(trainer.vectors(looked_at), gold), model)
    trainer.add_callback(best)
    trainer.train()
    best.restore()
    return Tuning(trainer, best.best_weights, best.best_step)


def copied_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies the weights that a training changes to the CPU's memory."""
    return {name: weight.to("cpu", copy=True) for name, weight in trained_weights(model).items()}


def put_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Puts copied weights back into the model."""
    for name, weight in trained_weights(model).items():
        weight.copy_(weights[name])


def average_weights(model: torch.nn.Module, others: dict[str, torch.Tensor], share: float) -> None:
    """Moves the weights of a model to their mean with others.

    Args:
        model: the encoder.
        others: weights by name.
        share: what the others count, from 0 to 1.
    """
    for name, weight in trained_weights(model).items():
        weight.lerp_(others[name].to(weight.device), share)
