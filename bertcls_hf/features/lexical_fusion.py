"""Weighs the logits of a head and of the lexical features against each other."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from bertcls_hf.data.labels import MULTI_LABEL
from bertcls_hf.models.modeling import TextClassifier


logger = logging.getLogger(__name__)

# Both parts know the same words, so that their sum would count these twice.
EQUAL_FACTORS = (0.5, 0.5)
# What few rows have to speak against.
PRIOR_FACTORS = (1.0, 0.0)


def fuse(model: TextClassifier, factors: tuple[float, float], head: str = "head") -> None:
    """Multiplies the logits of the model's head, and sets the scale of its lexical features.

    Args:
        model: a classifier with lexical features.
        factors: of the head and of the lexical features.
        head: what the head is, for the log.
    """
    assert model.lexical is not None
    logger.info("the %s counts %.2f times, the lexical features %.2f times", head, *factors)
    with torch.no_grad():
        model.head.out_proj.weight.mul_(factors[0])
        model.head.out_proj.bias.mul_(factors[0])
        model.lexical.scale.fill_(factors[1])


def fitted_factors(
    head: np.ndarray,
    wide: np.ndarray,
    gold: np.ndarray,
    task: str,
    class_weights: Sequence[float] | None,
    prior_deviation: float = math.inf,
) -> tuple[float, float]:
    """Fits a factor of each part to labelled rows that neither part was trained on, by their mean loss.

    As in Platt 1999, labels count as a little less than certain, so that few rows without an error do not make the
    factors endless.

    Args:
        head: (rows, labels) logits of the head alone.
        wide: (rows, labels) logits of the lexical features, not scaled.
        gold: (rows,) label numbers, or (rows, labels) 0 and 1 for multi-label.
        task: single-label or multi-label classification.
        class_weights: one weight per label, which weigh the rows as in the training; None for equal weights.
        prior_deviation: of normal priors, around `PRIOR_FACTORS`, of both factors: the less, the more rows it takes
            to move them.
    """
    parts = torch.from_numpy(np.stack([head, wide])).double()
    labels = torch.from_numpy(np.asarray(gold))
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    choices = 2 if task == MULTI_LABEL else parts.shape[-1]
    doubt = choices / (len(labels) + choices)

    def loss(factors: np.ndarray) -> float:
        # The mean over all labels of the negative logarithm of the prior.
        surprise = float(np.square((factors - PRIOR_FACTORS) / prior_deviation).sum()) / 2 / labels.numel()
        logits = torch.einsum("p,prl->rl", torch.from_numpy(factors), parts)
        if task == MULTI_LABEL:
            doubted = labels.double() * (1 - doubt) + doubt / 2
            return surprise + F.binary_cross_entropy_with_logits(logits, doubted, pos_weight=weights).item()
        return surprise + F.cross_entropy(logits, labels.long(), weight=weights, label_smoothing=doubt).item()

    # A part that speaks against the labels of few rows does so by chance.
    bounds = [(0, None)] * len(EQUAL_FACTORS)
    head_factor, wide_factor = minimize(loss, x0=np.array(EQUAL_FACTORS), bounds=bounds, method="Nelder-Mead").x
    return float(head_factor), float(wide_factor)
