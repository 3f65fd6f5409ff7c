"""Writes the model card of a run: `README.md` in output_dir, with what the run measured, and its pictures."""

import logging
import re
from pathlib import Path

import jinja2
from huggingface_hub import ModelCard

from bertcls_hf.atomic_files import storage_error, write_atomically
from bertcls_hf.hub.card.figures.canvas import Picture
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.metadata import card_metadata
from bertcls_hf.hub.card.pictures import CURVES, FIGURES_FOLDER, HEAD_CURVES, draw_pictures
from bertcls_hf.hub.card.public_text import escape_markdown
from bertcls_hf.hub.card.sections.data import data_section
from bertcls_hf.hub.card.sections.errors import errors_section
from bertcls_hf.hub.card.sections.introduction import introduction
from bertcls_hf.hub.card.sections.limits import licence_table, limits
from bertcls_hf.hub.card.sections.repeating import repeating_section
from bertcls_hf.hub.card.sections.results import results_section
from bertcls_hf.hub.card.sections.training import training_section
from bertcls_hf.training.output_folder import CARD_FILE, CARD_MARK


logger = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("model_card_template.md")
STORAGE_ADVICE = "; the model and its results are saved, but not their card"


def write_model_card(run: FinishedRun) -> None:
    """Writes `README.md` and `figures/*.png` into output_dir, where the run has something to report.

    The card of a trained model stays as it is when a later run only evaluates that model, and so does a README that
    this project did not write.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    if not run.has_trained and not run.evaluations:
        return
    path = run.folder / CARD_FILE
    reason = _reason_to_keep(path, run)
    if reason is not None:
        logger.info("%s stays as it is: %s", path, reason)
        return
    try:
        pictures = draw_pictures(run)
    except OSError as error:
        raise storage_error(run.folder / FIGURES_FOLDER, error, STORAGE_ADVICE) from error
    card = ModelCard(_render(run, pictures))
    write_atomically(path, card.save, STORAGE_ADVICE)
    logger.info("the model card is %s; it quotes texts of the evaluation data", path)


def _reason_to_keep(path: Path, run: FinishedRun) -> str | None:
    """Why a card that is there already stays; None where it is replaced."""
    if not path.is_file():
        return None
    if CARD_MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return "this project did not write it"
    if not run.has_trained and (path.parent / "config.json").is_file():
        return "it tells of the model's training, of which an evaluation knows nothing"
    return None


def _render(run: FinishedRun, pictures: dict[str, Picture]) -> str:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=f"---\n{card_metadata(run).to_yaml()}\n---",
        mark=CARD_MARK,
        training_pictures=[_shown(pictures[name]) for name in (HEAD_CURVES, CURVES) if name in pictures],
        result_pictures=[_shown(p) for name, p in pictures.items() if name not in (HEAD_CURVES, CURVES)],
        limits=limits(run),
        licence_table=licence_table(run),
        **introduction(run),
        **results_section(run),
        **errors_section(run),
        **training_section(run),
        **data_section(run),
        **repeating_section(run),
    )
    # The template's conditions leave blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text)


def _shown(picture: Picture) -> dict[str, str]:
    """The picture's entry for the template."""
    return {
        "title": picture.title,
        "alt": escape_markdown(picture.alt),
        "file": f"{FIGURES_FOLDER}/{picture.path.name}",
        "note": escape_markdown(picture.note),
    }
