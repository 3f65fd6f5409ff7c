"""The top of a model card: title, what the model is, its main figures, and how to use it."""

import json
from typing import Any

from bertcls_hf.atomic_files import read_json
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.public_text import escape_markdown, without_local_paths
from bertcls_hf.hub.card.sections.names import base_model_code, escaped_data_name, model_name
from bertcls_hf.hub.card.sections.tables import interval_words
from bertcls_hf.metrics.intervals import CONFIDENCE
from bertcls_hf.metrics.metrics import HEADLINES, metric_words
from bertcls_hf.training.baseline_results import shortfall


TASKS = {
    SINGLE_LABEL: "a text classifier that gives each text one of {} labels",
    MULTI_LABEL: "a text classifier that gives each text any of {} labels",
    REGRESSION: "a model that gives each text a number",
}
# The oldest version that the code beside a saved model runs on; tests/models/test_load_anywhere.py tries it.
MINIMUM_TRANSFORMERS = "4.57"


def introduction(run: FinishedRun) -> dict[str, Any]:
    """The title, a sentence about the model, its main figures, and the code that uses it."""
    name = escape_markdown(model_name(run))
    task = TASKS[run.labels.problem_type].format(len(run.labels.names))
    base = base_model_code(run)
    if run.has_trained:
        summary = f"This is {task}: {_what_was_trained(run)} {base}, on {_train_rows(run)}."
    else:
        summary = f"{base} is {task}. It was evaluated on {escaped_data_name(run)}; nothing was trained."
    has_custom_code = _has_custom_code(run)
    return {
        "title": name if run.has_trained else f"Evaluation of {name}",
        "summary": summary,
        "headline": _headline(run),
        "usage": _usage(run, has_custom_code),
        "has_custom_code": has_custom_code,
        "minimum_transformers": MINIMUM_TRANSFORMERS,
    }


def _train_rows(run: FinishedRun) -> str:
    if run.args.learns_without_labels:
        name = escape_markdown(str(without_local_paths(run.args.data.unlabelled_file)))
        return f"{len(run.tokenized['train']):,} texts without labels of {name}"
    split = run.data.splits["train"]
    rows = "streamed texts" if split.num_rows is None else f"{split.num_rows:,} texts"
    return f"{rows} of {escaped_data_name(run, 'train')}"


def _what_was_trained(run: FinishedRun) -> str:
    model = run.args.model
    if run.args.is_head_then_all:
        return "a head was trained first, on cached features, and then all layers of"
    if model.has_frozen_backbone:
        return "a head was trained on the frozen"
    if model.trainable_layers:
        return f"the head and the top {model.trainable_layers} layers were trained of"
    return "all layers were fine-tuned of"


def _headline(run: FinishedRun) -> str:
    evaluation = run.headline
    if evaluation is None:
        return ""
    figures = []
    for name in HEADLINES[run.labels.problem_type]:
        value, interval = evaluation.metrics[name], run.intervals.get(name)
        between = f" ({CONFIDENCE:.0%} confidence interval {interval_words(interval)})" if interval else ""
        figures.append(f"{metric_words(name)} **{value:.3f}**{between}")
    text = f"On the {evaluation.split} data, {len(evaluation.gold):,} texts: {', '.join(figures)}."
    warning = shortfall(evaluation.baseline, run.labels) if evaluation.baseline else None
    return text if warning is None else f"{text}\n\n**Note:** {warning}."


def _has_custom_code(run: FinishedRun) -> bool:
    """Whether the saved model needs its own code to be loaded."""
    path = run.folder / "config.json"
    return run.has_trained and path.is_file() and "auto_map" in read_json(path)


def _usage(run: FinishedRun, has_custom_code: bool) -> str:
    args = run.args.training
    name = args.hub_model_id if args.push_to_hub and args.hub_model_id else str(run.folder.absolute())
    name = name if run.has_trained else run.args.model.model_name_or_path
    arguments = f'"text-classification", {json.dumps(without_local_paths(name), ensure_ascii=False)}'
    call = f"pipeline({arguments}, top_k=None)"
    if has_custom_code:
        call = f"pipeline(\n    {arguments}, top_k=None, trust_remote_code=True\n)"
    text = '"One text, or a list of them"'
    if run.data.is_pair:
        text = '{"text": "One text", "text_pair": "and the other"}'
    return f"classify = {call}\nclassify({text}, truncation=True, max_length={run.pipeline_max_length})"
