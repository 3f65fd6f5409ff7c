"""Text classification with BERT-family encoders on the Hugging Face Trainer.

The names in `__all__` are the Python API. Each is imported when it is first used, because importing torch and
transformers takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from bertcls_hf.config.arguments import ClassifierTrainingArguments
    from bertcls_hf.data.load import load_data
    from bertcls_hf.features.extractor import FeatureExtractor
    from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig
    from bertcls_hf.predict.predictor import Prediction, Predictor
    from bertcls_hf.run.api import TrainingResult, train
    from bertcls_hf.training.trainer import ClassificationTrainer

__version__ = "0.1.0"
__all__ = [
    "ClassificationTrainer",
    "ClassifierTrainingArguments",
    "FeatureExtractor",
    "Prediction",
    "Predictor",
    "TextClassifier",
    "TextClassifierConfig",
    "TrainingResult",
    "load_data",
    "train",
]

_MODULES = {
    "ClassificationTrainer": "bertcls_hf.training.trainer",
    "ClassifierTrainingArguments": "bertcls_hf.config.arguments",
    "FeatureExtractor": "bertcls_hf.features.extractor",
    "Prediction": "bertcls_hf.predict.predictor",
    "Predictor": "bertcls_hf.predict.predictor",
    "TextClassifier": "bertcls_hf.models.modeling",
    "TextClassifierConfig": "bertcls_hf.models.modeling",
    "TrainingResult": "bertcls_hf.run.api",
    "load_data": "bertcls_hf.data.load",
    "train": "bertcls_hf.run.api",
}


def __getattr__(name: str) -> Any:
    """Imports a name of the API when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
