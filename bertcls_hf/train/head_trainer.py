"""Training a head alone on cached features, at about the cost of the head's arithmetic.

The Trainer's loop walks over all modules and parameters of its model at every step. On cached features, which never
reach the encoder, that walk and some wrappers cost several times the step itself (`benchmarks/boost.py` measures it).
"""

from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType

from bertcls_hf.models.modeling import TextClassifier, classify_features
from bertcls_hf.train.trainer import ClassificationTrainer


class HeadOnFeatures(torch.nn.Module):
    """The head of a model, as what the training loop sees on cached features.

    At every step the loop walks over all modules and parameters of its model: those of a frozen encoder, which cached
    features never reach, cost more than the head's arithmetic.

    Args:
        model: owns the head, and the loss.
    """

    def __init__(self, model: TextClassifier):
        super().__init__()
        self.head, self.config = model.head, model.config

    def train(self, mode: bool = True) -> "HeadOnFeatures":
        """Looks at the head, which an evaluation of the whole model switches without this module."""
        return self if self.head.training == mode else super().train(mode)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """The loss and logits of the model, in the plainest container that the loop takes."""
        loss, logits = classify_features(self.head, features, labels, self.config)
        return {"loss": loss, "logits": logits}


class HeadTrainer(ClassificationTrainer):
    """Trains on cached features; what it evaluates and saves is the whole model.

    With several ranks or mixed precision, which wrap the model, it is the ordinary Trainer.
    """

    @property
    def _trains_head_alone(self) -> bool:
        """Whether nothing wraps the model."""
        is_plain = self.accelerator.distributed_type == DistributedType.NO
        return is_plain and self.accelerator.mixed_precision == "no"

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, Any]:
        """Hands the loop the head alone: no public method gives it another model than the one that is saved."""
        model, dataloader = super()._prepare_for_training(*args, **kwargs)
        is_head_alone = self._trains_head_alone and model is self.model
        return (HeadOnFeatures(model) if is_head_alone else model), dataloader

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Takes the optimizer out of accelerate's wrapper, which costs as much as a step of the head."""
        if self._trains_head_alone and isinstance(self.optimizer, AcceleratedOptimizer):
            self.optimizer = self.optimizer.optimizer
        return super().create_scheduler(num_training_steps, optimizer)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clips tensor by tensor: a head has few, for which torch's fused path over lists is the slower one."""
        if not isinstance(model, HeadOnFeatures):
            return super()._clip_grad_norm(model)
        return torch.nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm, foreach=False)
