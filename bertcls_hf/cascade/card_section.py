"""The section of a model card about the model's cascade."""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertcls_hf.atomic_files import storage_error, write_text_atomically
from bertcls_hf.hub.card.figures.coverage import RiskCurve, draw_coverage
from bertcls_hf.hub.card.pictures import CASCADE, FIGURES_FOLDER
from bertcls_hf.metrics.cascade import CASCADE_FILE
from bertcls_hf.training.output_folder import CARD_FILE, CARD_MARK


logger = logging.getLogger(__name__)

TITLE = "## Cascade"
# The section that it stands before.
NEXT_TITLE = "## Training"
_SECTION = re.compile(rf"^{TITLE}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def write_card_section(folder: Path, content: dict[str, Any], sentences: Sequence[str]) -> None:
    """Draws the curves, and writes the section into the folder's model card, if this project wrote the card.

    Args:
        folder: output_dir of the model.
        content: the content of `cascade.json`.
        sentences: what was chosen.

    Raises:
        StorageError: if the folder cannot be written.
    """
    card = folder / CARD_FILE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if CARD_MARK not in text:
        logger.info("there is no model card of this project to tell of the cascade")
        return
    try:
        picture = draw_coverage(folder / FIGURES_FOLDER / CASCADE, list(_curves(content)), " ".join(sentences))
    except OSError as error:
        raise storage_error(folder / FIGURES_FOLDER, error) from error
    section = "\n\n".join([
        TITLE,
        f"`{CASCADE_FILE}` is applied by `bertcls predict`, the demo page and `Predictor`, not by a pipeline "
        "(`--no_cascade` leaves it aside).",
        *sentences,
        f"![{picture.alt}]({FIGURES_FOLDER}/{CASCADE})",
        f"{picture.note} The limits hold for texts like the validation data; where these also chose the checkpoint or "
        "the calibration, the model is a little worse on others.",
    ])  # fmt: skip
    text = _SECTION.sub("", text)
    before, title, after = text.partition(f"\n{NEXT_TITLE}\n")
    new = f"{before.rstrip()}\n\n{section}\n{title}{after}"
    write_text_atomically(card, new)


def _curves(content: dict[str, Any]) -> Iterator[RiskCurve]:
    cascade, curves, rows = content["cascade"], content["curves"], content["cascade"]["rows"]
    if "lexical" in curves:
        lexical = cascade["lexical"]
        yield RiskCurve(
            "texts that lexical features answer",
            "other labels, of all texts",
            [(coverage, errors / rows) for coverage, errors in curves["lexical"]],
            (lexical["coverage"], lexical["errors"] / rows),
            cascade["max_difference"],
        )
    if "abstention" in curves:
        abstention = cascade["abstention"]
        yield RiskCurve(
            "texts that no person needs to read",
            "wrong labels, of these",
            [(coverage, errors / (coverage * rows)) for coverage, errors in curves["abstention"]],
            abstention and (abstention["coverage"], abstention["errors"] / (abstention["coverage"] * rows)),
            cascade["risk"],
        )
