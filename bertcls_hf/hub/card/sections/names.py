"""The names of models and data, as all sections of a card write them."""

from pathlib import Path

from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.licences import data_name
from bertcls_hf.hub.card.public_text import escape_markdown, without_local_paths


def model_name(run: FinishedRun) -> str:
    """The name of the folder or of the repository on the Hub; without training, that of the evaluated model."""
    if not run.has_trained:
        return Path(without_local_paths(run.args.model.model_name_or_path)).name
    name = run.args.training.hub_model_id or run.folder.absolute().name
    return name.split("/")[-1]


def base_model_code(run: FinishedRun) -> str:
    """The name of the model that the run began with, as Markdown code, in which escapes would be shown."""
    name = str(without_local_paths(run.args.model.model_name_or_path))
    return f"`{name.replace('`', '').replace('|', '')}`"


def escaped_data_name(run: FinishedRun, split: str | None = None) -> str:
    """The name of the data, or of one split, for Markdown."""
    return escape_markdown(data_name(run.args.data, split))
