"""What a run cost: the seconds of its training, and the size of its model."""

import logging
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_NAME

from bertcls_hf.atomic_files import read_json
from bertcls_hf.errors import one_line
from bertcls_hf.hub.card.finished_run import TRAIN_RESULTS
from bertcls_hf.training.baseline_results import BASELINE_FILE


logger = logging.getLogger(__name__)

SHARDS = "model-*.safetensors"


@dataclass(frozen=True)
class Cost:
    """What is known of the cost of a system; None where it is not known.

    Args:
        train_seconds: the time of the training.
        parameters: the numbers in the model's files.
        file_bytes: the size of the model's files.
        texts_per_second: the measured speed of prediction.
    """

    train_seconds: float | None = None
    parameters: int | None = None
    file_bytes: int | None = None
    texts_per_second: float | None = None


def run_cost(folder: Path) -> Cost:
    """Reads what the files of a run tell.

    Args:
        folder: output_dir.
    """
    parameters, file_bytes = _model_size(folder)
    return Cost(_number(folder / TRAIN_RESULTS, "train_runtime"), parameters, file_bytes)


def baseline_cost(folder: Path) -> Cost:
    """Reads what the files of a run tell of its lexical baseline.

    Args:
        folder: output_dir.
    """
    return Cost(_number(folder / BASELINE_FILE, "seconds"))


def _number(path: Path, name: str) -> float | None:
    try:
        value = _content(path).get(name)
        return float(value) if isinstance(value, int | float) else None
    except (OSError, ValueError, AttributeError, OverflowError) as error:
        logger.warning("%s is left out, since it cannot be read: %s", path, one_line(error))
        return None


def _content(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _model_size(folder: Path) -> tuple[int | None, int | None]:
    """Returns the parameters and bytes of a model; None and None without a model, such as of an evaluation alone."""
    whole = folder / SAFE_WEIGHTS_NAME
    files = [whole] if whole.is_file() else sorted(folder.glob(SHARDS))
    if not files:
        return None, None
    try:
        return sum(map(_parameters, files)), sum(path.stat().st_size for path in files)
    except (OSError, SafetensorError) as error:
        logger.warning("%s: the size of its model is left out, since it cannot be read: %s", folder, one_line(error))
        return None, None


def _parameters(path: Path) -> int:
    """Counts the numbers in a file by its header, without reading them."""
    with safe_open(path, framework="numpy") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())
