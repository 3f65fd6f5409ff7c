"""Trains only the head, on cached features, without the Trainer's cost for the unused encoder.

The Trainer's loop visits all modules and parameters of its model at every step. Cached features do not pass through
the encoder, so the step itself is short, and these visits and accelerate's wrappers take several times as long as the
step (`benchmarks/boost.py` measures it).
"""

from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType

from bertcls_hf.models.modeling import TextClassifier, classify_features
from bertcls_hf.training.trainer import ClassificationTrainer


class HeadOnFeatures(torch.nn.Module):
    """A module that holds only the head of a classifier and computes its loss from cached features.

    The training loop gets this module instead of the whole model, so that it does not visit the modules of the frozen
    encoder at every step.

    Args:
        model: the classifier. The module shares its head, its lexical table and its configuration, and copies none.
    """

    def __init__(self, model: TextClassifier):
        super().__init__()
        self.head, self.config, self.lexical = model.head, model.config, model.lexical

    def train(self, mode: bool = True) -> "HeadOnFeatures":
        """Skips the walk over submodules if the head is already in the asked mode: the loop calls this at every step.

        The mode is read from the head, because an evaluation of the whole model changes the head's mode only.
        """
        return self if self.head.training == mode else super().train(mode)

    def forward(
        self,
        features: torch.Tensor,
        labels: torch.Tensor,
        lexical_logits: torch.Tensor | None = None,
        window_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor | None]:
        """Computes loss and logits of cached features, as the classifier does, in a plain dict for speed."""
        wide_logits = None
        if self.lexical is not None and lexical_logits is not None:
            wide_logits = self.lexical.scale * lexical_logits
        loss, logits = classify_features(self.head, features, labels, self.config, wide_logits, window_mask)
        return {"loss": loss, "logits": logits}


class HeadTrainer(ClassificationTrainer):
    """Trains the head on cached features, and evaluates and saves the whole model.

    With several ranks or mixed precision, accelerate wraps the model. The loop then trains the whole model, as in
    [`ClassificationTrainer`].
    """

    @property
    def _trains_head_alone(self) -> bool:
        """Whether accelerate leaves the model unwrapped: one process, and no mixed precision."""
        is_plain = self.accelerator.distributed_type == DistributedType.NO
        return is_plain and self.accelerator.mixed_precision == "no"

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, Any]:
        """Gives the loop a [`HeadOnFeatures`] in place of the model.

        A private method is overridden, because no public one can train another module than the one that is saved.
        """
        model, dataloader = super()._prepare_for_training(*args, **kwargs)
        is_head_alone = self._trains_head_alone and model is self.model
        return (HeadOnFeatures(model) if is_head_alone else model), dataloader

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Removes accelerate's wrapper from the optimizer, because the wrapper takes as long as a step of the head."""
        if self._trains_head_alone and isinstance(self.optimizer, AcceleratedOptimizer):
            self.optimizer = self.optimizer.optimizer
        return super().create_scheduler(num_training_steps, optimizer)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clips the gradients tensor by tensor, which is faster than torch's fused path for a head's few tensors."""
        if not isinstance(model, HeadOnFeatures):
            return super()._clip_grad_norm(model)
        return torch.nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm, foreach=False)
