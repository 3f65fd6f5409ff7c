"""The model card of a run: `README.md` in output_dir, filled by what the run measured, with its pictures."""

import logging
import math
import re
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bertcls_hf.atomic_files import storage_error, write_atomically
from bertcls_hf.hub.card.figures import Picture
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.licences import data_name, is_hub_id
from bertcls_hf.hub.card.pictures import CURVES, FIGURES_FOLDER, HEAD_CURVES, draw_pictures
from bertcls_hf.hub.card.public_text import escape_markdown, public_command, without_local_paths
from bertcls_hf.hub.card.sections import (
    data_section,
    environment_table,
    example_texts,
    introduction,
    licence_table,
    limits,
    model_name,
    results_section,
    training_section,
)
from bertcls_hf.metrics.metrics import METRICS
from bertcls_hf.training.recipe import recipe_text, resolved_options


logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
TEMPLATE = Path(__file__).with_name("model_card_template.md")
MARK = "Written by bertcls_hf"
STORAGE_ADVICE = "; the model and its results are saved, but not their card"
PROGRAM, LAUNCHER = "run_classification.py", "accelerate launch --num_processes"
# What the Hub takes as a licence's name; others would make it refuse the card.
LICENCE_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


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
    if not path.is_file():
        return None
    if MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return "this project did not write it"
    if not run.has_trained and (path.parent / "config.json").is_file():
        return "it tells of the model's training, of which an evaluation knows nothing"
    return None


def _render(run: FinishedRun, pictures: dict[str, Picture]) -> str:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    recipe = _recipe(run)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=f"---\n{_metadata(run).to_yaml()}\n---",
        mark=MARK,
        training_pictures=[_shown(pictures[name]) for name in (HEAD_CURVES, CURVES) if name in pictures],
        result_pictures=[_shown(p) for name, p in pictures.items() if name not in (HEAD_CURVES, CURVES)],
        command=public_command(_program(run.args.training.world_size), run.command),
        recipe=recipe,
        # Longer than any run of backticks in an option.
        fence="`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", recipe))]),
        environment_table=environment_table(run),
        licence_table=licence_table(run),
        limits=limits(run),
        **introduction(run),
        **results_section(run),
        **training_section(run),
        **data_section(run),
    )
    # Conditions leave blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text)


def _program(processes: int) -> str:
    """What stands before the options; which launcher started several processes is not known to them."""
    return f"python {PROGRAM}" if processes == 1 else f"{LAUNCHER} {processes} {PROGRAM}"


def _shown(picture: Picture) -> dict[str, str]:
    return {
        "title": picture.title,
        "alt": escape_markdown(picture.alt),
        "file": f"{FIGURES_FOLDER}/{picture.path.name}",
        "note": escape_markdown(picture.note),
    }


def _recipe(run: FinishedRun) -> str:
    options = resolved_options(run.args, dict(run.options), run.trainer.model.config, run.max_seq_length)
    return recipe_text(without_local_paths(options)).rstrip()


def _metadata(run: FinishedRun) -> ModelCardData:
    """What the Hub reads: only names that it knows, and figures as they are in `all_results.json`."""
    base, dataset = run.args.model.model_name_or_path, run.args.data.dataset_name
    results = _eval_results(run)
    licence = run.licences[0]
    examples = [{"text": text} for text in example_texts(run)]
    return ModelCardData(
        base_model=base if run.has_trained and is_hub_id(base) else None,
        datasets=[dataset] if dataset and is_hub_id(dataset) else None,
        eval_results=results or None,
        library_name="transformers",
        license=licence if licence and LICENCE_NAME.fullmatch(licence) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=model_name(run) if results else None,
        pipeline_tag="text-classification",
        tags=["text-classification", "bertcls_hf"],
        widget=examples or None,
    )


def _eval_results(run: FinishedRun) -> list[EvalResult]:
    evaluation = run.headline
    if evaluation is None:
        return []
    args = run.args.data
    is_on_hub = args.dataset_name is not None and is_hub_id(args.dataset_name)
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=str(args.dataset_name) if is_on_hub else "custom",
            dataset_name=data_name(args, evaluation.split),
            dataset_config=args.dataset_config_name if is_on_hub else None,
            dataset_revision=args.dataset_revision if is_on_hub else None,
            dataset_split=evaluation.split,
            metric_type=metric.hub_name,
            metric_name=metric.words,
            metric_value=evaluation.metrics[metric.name],
        )
        for metric in METRICS[run.labels.problem_type]
        # NaN is no number to the Hub.
        if math.isfinite(evaluation.metrics[metric.name])
    ]
