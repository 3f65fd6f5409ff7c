"""Training from Python: the options of a recipe as keywords, and data from files, the Hub or memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bertcls_hf.config.parsing import build_arguments, explicit_options, merge_sources, tokens_of_values
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.run.pipeline import run


if TYPE_CHECKING:
    import pandas
    from datasets import Dataset

    Rows: TypeAlias = Dataset | pandas.DataFrame


@dataclass(frozen=True)
class TrainingResult:
    """What a run gives to its caller.

    Args:
        output_dir: holds the model, its card and results, as a run on the command line leaves them.
        metrics: by their names in `all_results.json`, such as `train_loss`, `eval_accuracy` and `test_macro_f1`.
    """

    output_dir: Path
    metrics: dict[str, float]

    @cached_property
    def predictor(self) -> Predictor:
        """The trained classifier, loaded from `output_dir` when it is first asked for."""
        return Predictor.from_pretrained(str(self.output_dir))


def train(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    train_data: "Rows | None" = None,
    validation_data: "Rows | None" = None,
    test_data: "Rows | None" = None,
    **options: Any,
) -> TrainingResult:
    """Trains, evaluates and saves a classifier, as `run_classification.py` does.

    Args:
        recipe: a recipe's path, or its options as a dictionary.
        train_data: rows to train on, in place of `train_file`: the same columns as a file's.
        validation_data: like `train_data`; absent, a part of train validates.
        test_data: like `train_data`; evaluated once, after training.
        **options: any options of the command line, such as `num_train_epochs=2`; they win over the recipe's.

    Returns:
        Metrics, folder and predictor.

    Raises:
        RunError: what the caller can mend: an option ([`ArgumentsError`]), the data ([`DataError`]), the disk …
    """
    splits = {"train": train_data, "validation": validation_data, "test": test_data}
    in_memory = {name: rows for name, rows in splits.items() if rows is not None}
    recipe_words = tokens_of_values(recipe) if isinstance(recipe, Mapping) else [] if recipe is None else [str(recipe)]
    option_words = tokens_of_values(options)
    given = merge_sources(explicit_options(recipe_words), explicit_options(option_words))
    finished = run(build_arguments(given, in_memory), given, [*recipe_words, *option_words], in_memory)
    return TrainingResult(finished.folder, finished.all_results)
