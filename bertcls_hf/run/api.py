"""Trains a classifier from Python, with options as keyword arguments and data from files, the Hub or memory."""

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
    """The result of [`train`].

    Args:
        output_dir: the folder with the model, its card and its results, the same as after a run on the command line.
        metrics: values by the names of `all_results.json`, such as `train_loss`, `eval_accuracy`, `test_macro_f1`.
    """

    output_dir: Path
    metrics: dict[str, float]

    @cached_property
    def predictor(self) -> Predictor:
        """The trained classifier, loaded from `output_dir` at the first access."""
        return Predictor.from_pretrained(str(self.output_dir))


def train(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    train_data: "Rows | None" = None,
    validation_data: "Rows | None" = None,
    test_data: "Rows | None" = None,
    **options: Any,
) -> TrainingResult:
    """Trains, evaluates and saves a classifier, like `run_classification.py`.

    Args:
        recipe: the path of a YAML or JSON recipe, or a dictionary of its options.
        train_data: training rows, used instead of `train_file`, with the columns that a file would have.
        validation_data: validation rows; None holds out a part of the training rows, unless the options name a
            validation source.
        test_data: test rows, evaluated once after training.
        **options: options of the command line, such as `num_train_epochs=2`; they override those of the recipe.

    Returns:
        The output folder, the metrics and a predictor.

    Raises:
        RunError: an error that the caller can fix: [`ArgumentsError`] for an option, [`DataError`] for the data,
            [`StorageError`] for the disk, and the other subclasses.
    """
    splits = {"train": train_data, "validation": validation_data, "test": test_data}
    in_memory = {name: rows for name, rows in splits.items() if rows is not None}
    recipe_tokens = (
        tokens_of_values(recipe) if isinstance(recipe, Mapping) else [] if recipe is None else [str(recipe)]
    )
    option_tokens = tokens_of_values(options)
    given_options = merge_sources(explicit_options(recipe_tokens), explicit_options(option_tokens))
    finished = run(
        build_arguments(given_options, in_memory), given_options, [*recipe_tokens, *option_tokens], in_memory
    )
    return TrainingResult(finished.folder, finished.all_results)
