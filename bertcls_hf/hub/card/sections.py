"""The sections of a model card: sentences and Markdown tables from what a run knows."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from bertcls_hf.data.splits import SPLIT_NAMES
from bertcls_hf.hub.card.environment import device_name, versions
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.licences import data_name
from bertcls_hf.hub.card.public_text import (
    escape_markdown,
    plain_text,
    quote,
    shortened,
    without_local_paths,
)
from bertcls_hf.metrics.calibration import CALIBRATION_FILE
from bertcls_hf.metrics.intervals import CONFIDENCE, SHARES, Interval
from bertcls_hf.metrics.metrics import METRIC_NAMES, classification_report, metric_words
from bertcls_hf.metrics.probabilities import predicted_labels


TASKS = {
    SINGLE_LABEL: "a text classifier that gives each text one of {} labels",
    MULTI_LABEL: "a text classifier that gives each text any of {} labels",
    REGRESSION: "a model that gives each text a number",
}
HEADLINES = {
    SINGLE_LABEL: ("accuracy", "macro_f1"),
    MULTI_LABEL: ("micro_f1", "macro_f1"),
    REGRESSION: ("rmse", "pearson"),
}
MOST_LABELS = 20
MOST_ERRORS = 20
MOST_EXAMPLES, LONGEST_EXAMPLE = 5, 300
MOST_TRIALS = 5
# Fewer rows make a label's figures guesses.
FEW_ROWS = 30
MOST_NAMED = 10


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table of escaped cells; the first `left` columns hold words, the others numbers."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def model_name(run: FinishedRun) -> str:
    """The name of the folder, or of the repository that it is pushed to; without training, that of the model."""
    if not run.has_trained:
        return Path(without_local_paths(run.args.model.model_name_or_path)).name
    name = run.args.training.hub_model_id or run.folder.absolute().name
    return name.split("/")[-1]


def introduction(run: FinishedRun) -> dict[str, Any]:
    """Title, what the model is, its main figures, and how to use it."""
    name = escape_markdown(model_name(run))
    task = TASKS[run.labels.problem_type].format(len(run.labels.names))
    base = _code(run.args.model.model_name_or_path)
    if run.has_trained:
        texts = f"{_train_rows(run)} of {_shown_data(run, 'train')}"
        about = f"This is {task}: {_what_was_trained(run)} {base}, on {texts}."
    else:
        about = f"{base} is {task}. It was evaluated on {_shown_data(run)}; nothing was trained."
    code = _custom_code(run)
    return {
        "title": name if run.has_trained else f"Evaluation of {name}",
        "summary": about,
        "headline": _headline(run),
        "usage": _usage(run, code),
        "has_custom_code": code,
    }


def _code(name: str) -> str:
    """A model's name as code, which no escapes reach."""
    return f"`{str(without_local_paths(name)).replace('`', '').replace('|', '')}`"


def _shown_data(run: FinishedRun, split: str | None = None) -> str:
    return escape_markdown(data_name(run.args.data, split))


def _train_rows(run: FinishedRun) -> str:
    split = run.data.splits["train"]
    return "streamed texts" if split.num_rows is None else f"{split.num_rows:,} texts"


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
    intervals = run.intervals
    figures = []
    for name in HEADLINES[run.labels.problem_type]:
        value, interval = evaluation.metrics[name], intervals.get(name)
        between = f" ({CONFIDENCE:.0%} confidence interval {_between(interval)})" if interval else ""
        figures.append(f"{metric_words(name)} **{value:.3f}**{between}")
    return f"On the {evaluation.split} data, {len(evaluation.gold):,} texts: {', '.join(figures)}."


def _between(interval: Interval) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _custom_code(run: FinishedRun) -> bool:
    """Whether what was saved loads with its own code alone."""
    path = run.folder / "config.json"
    return run.has_trained and path.is_file() and "auto_map" in json.loads(path.read_text(encoding="utf-8"))


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
    return f"classify = {call}\nclassify({text}, truncation=True, max_length={run.max_seq_length})"


def results_section(run: FinishedRun) -> dict[str, Any]:
    """Metrics with intervals, figures per label, and the errors."""
    names = ("metrics_table", "interval_note", "per_class_table", "per_class_note", "errors_title", "errors_table")
    section = dict.fromkeys(names, "")
    if run.headline is None:
        return section
    section |= {"metrics_table": _metrics_table(run), "interval_note": _interval_note(run)}
    if run.labels.problem_type != REGRESSION:
        section |= _per_class(run)
    return section if run.outputs is None else section | _errors(run, run.outputs)


def _metrics_table(run: FinishedRun) -> str:
    headline, intervals = run.headline, run.intervals
    assert headline is not None
    others = [evaluation for evaluation in run.evaluations if evaluation is not headline]
    names = [*METRIC_NAMES[run.labels.problem_type], "loss"]
    rows = [
        [
            metric_words(name),
            f"{headline.metrics[name]:.4f}",
            _between(intervals[name]) if name in intervals else "",
            *(f"{other.metrics[name]:.4f}" for other in others),
        ]
        for name in (*names, *_extra_metrics(run, names))
    ]
    header = ["metric", headline.split, f"{CONFIDENCE:.0%} interval", *(other.split for other in others)]
    return table(header, rows)


def _extra_metrics(run: FinishedRun, names: Sequence[str]) -> list[str]:
    """Numbers of `--extra_metrics`; what the Trainer measures of its own speed is not the model's."""
    assert run.headline is not None
    speed = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    return [
        name
        for name, value in run.headline.metrics.items()
        if name not in (*names, *speed) and isinstance(value, int | float)
    ]


def _interval_note(run: FinishedRun) -> str:
    headline = run.headline
    assert headline is not None
    share = SHARES.get(run.labels.problem_type)
    wilson = f"Wilson's (1927) for {metric_words(share)}, and " if share else ""
    note = (
        f"Of {len(headline.gold):,} {headline.split} texts. The intervals are {wilson}the percentile bootstrap's "
        "(Efron 1979) over texts, with a fixed seed. They tell of the choice of these texts, not of another training."
    )
    if run.has_trained and headline.split == "validation" and run.args.training.load_best_model_at_end:
        note += " The validation data also chose the checkpoint, so that its figures are somewhat too good."
    return note


def _per_class(run: FinishedRun) -> dict[str, str]:
    """All labels, or those with the lowest F1 of many."""
    evaluation = run.headline
    assert evaluation is not None
    rows = classification_report(evaluation.logits, np.asarray(evaluation.gold), run.labels)["per_class"]
    names, note = list(run.labels.names), ""
    if len(names) > MOST_LABELS:
        names = sorted(names, key=lambda name: rows[name]["f1-score"])[:MOST_LABELS]
        prefix = "test" if evaluation.split == "test" else "eval"
        note = f"The {MOST_LABELS} labels with the lowest F1 of {len(rows)}; all are in `{prefix}_report.json`."
    keys = ("precision", "recall", "f1-score")
    lines = [
        [quote(name, 60), *(f"{rows[name][key]:.3f}" for key in keys), f"{rows[name]['support']:,.0f}"]
        for name in names
    ]
    return {"per_class_table": table(["label", "precision", "recall", "F1", "texts"], lines), "per_class_note": note}


def _errors(run: FinishedRun, scores: np.ndarray) -> dict[str, str]:
    """The texts on which the model is most sure and wrong."""
    evaluation, names = run.headline, run.labels.names
    assert evaluation is not None
    gold = np.asarray(evaluation.gold)
    if run.labels.problem_type == REGRESSION:
        return _largest_errors(run, scores, gold.reshape(-1))
    predicted = predicted_labels(scores, run.labels.problem_type)
    if run.labels.problem_type == MULTI_LABEL:
        return _confident_decisions(run, scores, predicted, gold)
    confidence = scores.max(axis=1)
    rows = _first(np.where(predicted != gold, confidence, -1.0))
    lines = [
        [
            text,
            quote(names[gold[row]], 60),
            quote(names[predicted[row]], 60),
            f"{confidence[row]:.3f}",
        ]
        for row, text in zip(rows, _texts(run, rows), strict=True)
    ]
    return _error_table(run, "most confident errors", ["text", "gold", "predicted", "probability"], lines)


def _confident_decisions(
    run: FinishedRun, scores: np.ndarray, predicted: np.ndarray, gold: np.ndarray
) -> dict[str, str]:
    """One wrong yes or no per text."""
    names = run.labels.names
    confidence = np.where(predicted != gold, np.abs(scores - 0.5), -1.0)
    label_of = confidence.argmax(axis=1)
    rows = _first(confidence.max(axis=1))
    lines = [
        [
            text,
            ", ".join(quote(names[label], 60) for label in np.flatnonzero(gold[row])) or "none",
            ("" if predicted[row, label_of[row]] else "not ") + quote(names[label_of[row]], 60),
            f"{scores[row, label_of[row]]:.3f}",
        ]
        for row, text in zip(rows, _texts(run, rows), strict=True)
    ]
    header = ["text", "gold", "said of it", "probability of that label"]
    return _error_table(run, "most confident errors", header, lines)


def _largest_errors(run: FinishedRun, predicted: np.ndarray, gold: np.ndarray) -> dict[str, str]:
    rows = _first(np.abs(predicted - gold))
    lines = [
        [text, f"{gold[row]:.4g}", f"{predicted[row]:.4g}", f"{predicted[row] - gold[row]:+.4g}"]
        for row, text in zip(rows, _texts(run, rows), strict=True)
    ]
    return _error_table(run, "largest errors", ["text", "gold", "predicted", "error"], lines)


def _error_table(run: FinishedRun, what: str, header: list[str], lines: list[list[str]]) -> dict[str, str]:
    words = len(header) if run.labels.problem_type == REGRESSION else 3
    if not lines:
        return {"errors_table": "", "errors_title": ""}
    return {
        "errors_title": f"The {len(lines)} {what}" if len(lines) > 1 else f"The one of the {what}",
        "errors_table": table(header, lines, left=1 if words == len(header) else words),
    }


def _first(size: np.ndarray) -> np.ndarray:
    """Rows of the largest sizes, largest first; those below 0 are no errors."""
    order = np.argsort(-size, kind="stable")[:MOST_ERRORS]
    return order[size[order] >= 0]


def _texts(run: FinishedRun, rows: np.ndarray) -> list[str]:
    """Quoted texts of the headline's split; both of a pair."""
    assert run.headline is not None
    split = run.texts(run.headline.split)
    chosen = split.select(rows.tolist())
    if "text_pair" not in chosen.column_names:
        return [quote(text) for text in chosen["text"]]
    return [f"{quote(a, 100)}<br>{quote(b, 100)}" for a, b in zip(chosen["text"], chosen["text_pair"], strict=True)]


def example_texts(run: FinishedRun) -> list[str]:
    """The starts of some texts of the headline's split whose labels differ, for trying the model; none of pairs."""
    if run.headline is None:
        return []
    split = run.texts(run.headline.split)
    if "text_pair" in split.column_names:
        return []
    _, first = np.unique(run.headline.gold, axis=0, return_index=True)
    texts = split.select(sorted(first.tolist())[:MOST_EXAMPLES])["text"]
    plain = [plain_text(shortened(text or "", LONGEST_EXAMPLE)) for text in texts]
    return list(dict.fromkeys(text for text in plain if text))


def training_section(run: FinishedRun) -> dict[str, Any]:
    """Settings as resolved, and the search for them."""
    section: dict[str, Any] = {"training_table": "", "sweep_table": "", "sweep_trials": 0, "sweep_metric": ""}
    if not run.has_trained:
        return section
    section["training_table"] = table(["setting", "value"], [[n, v] for n, v in _settings(run).items() if v], left=2)
    sweep = run.sweep
    return section if sweep is None else section | _best_trials(sweep, bool(run.args.training.greater_is_better))


def _best_trials(sweep: dict[str, Any], greater_is_better: bool) -> dict[str, Any]:
    metric = sweep["metric"]
    finished = [trial for trial in sweep["trials"] if trial[metric] is not None]
    trials = sorted(finished, key=lambda trial: trial[metric], reverse=greater_is_better)
    rows = [[_number(value) for value in trial.values()] for trial in trials[:MOST_TRIALS]]
    return {
        "sweep_table": table([escape_markdown(name) for name in trials[0]], rows),
        "sweep_trials": len(sweep["trials"]),
        "sweep_metric": escape_markdown(metric),
    }


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape_markdown(str(value))


def _settings(run: FinishedRun) -> dict[str, str]:
    """Name and value of what shaped the model."""
    args, config, model = run.args.training, run.trainer.model.config, run.trainer.model
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    layers = f" of the last {config.pooling_layers} layers ({config.pooling_layers_merge})"
    is_frozen = run.args.model.has_frozen_backbone
    settings = {
        "encoder": f"{_code(run.args.model.model_name_or_path)}, {config.encoder_config.model_type}",
        "parameters": f"{everything:,}, of which {trained:,} were trained",
        "pooling and head": f"{config.pooling}{layers if config.pooling_layers > 1 else ''}, {config.head}",
        "dropout of the head": f"{config.dropout:g}",
        "loss": _loss(config),
        "longest text": f"{run.max_seq_length} tokens, cut on the {run.trainer.processing_class.truncation_side}",
        "features": "computed once by the frozen encoder, and cached" if run.args.boost.boost else "",
        "start of the head": run.args.boost.head_init,
        "length of the training": _training_length(run),
        "batch of a step": f"{per_step} texts ({args.per_device_train_batch_size} per device, times "
        f"{args.gradient_accumulation_steps} accumulated, times {args.world_size} for the processes)",
        "learning rate": f"head {run.trainer.args.head_learning_rate:g}"
        + ("" if is_frozen else f", encoder {args.learning_rate:g}"),
        "layer-wise decay of it": f"{args.layerwise_lr_decay:g}" if args.layerwise_lr_decay != 1 else "",
        "schedule": f"{_plain(args.lr_scheduler_type)}, warm-up {args.warmup_steps:g}"
        f"{' of all steps' if args.warmup_steps < 1 else ' steps'}",
        "optimizer": f"{_plain(args.optim)}, weight decay {args.weight_decay:g}",
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "seed": f"{args.seed}, of the splits {run.args.data.split_seed}",
        "checkpoint": _checkpoint(run),
    }
    return {name: value if name == "encoder" else escape_markdown(value) for name, value in settings.items()}


def _training_length(run: FinishedRun) -> str:
    args, state = run.args.training, run.state
    if args.max_steps > 0:
        return f"{state.global_step:,} of {args.max_steps:,} steps"
    return f"{state.epoch or 0:g} of {args.num_train_epochs:g} epochs, {state.global_step:,} steps"


def _plain(value: Any) -> str:
    return str(getattr(value, "value", value))


def _loss(config: Any) -> str:
    parts = [config.loss]
    parts += [f"gamma {config.focal_gamma:g}"] if config.loss == "focal" else []
    parts += [f"label smoothing {config.label_smoothing:g}"] if config.label_smoothing else []
    parts += ["with class weights"] if config.class_weights else []
    return ", ".join(parts)


def _checkpoint(run: FinishedRun) -> str:
    args, state = run.args.training, run.state
    if not args.load_best_model_at_end or state.best_global_step is None:
        return "the last"
    return f"step {state.best_global_step:,}, the best {args.metric_for_best_model} on the validation data"


def data_section(run: FinishedRun) -> dict[str, str]:
    """Sizes, lengths and labels of the splits."""
    splits = {name: run.data.splits[name] for name in SPLIT_NAMES if name in run.data.splits}
    header = ["split", "texts", "median tokens", "longest", f"reach {run.max_seq_length}"]
    rows = [[name, *_sizes(run, name, split)] for name, split in splits.items()]
    section = {
        "data_note": _data_note(run),
        "splits_table": table(header, rows),
        "labels_table": "",
        "labels_note": "",
    }
    labelled = {name: split for name, split in splits.items() if _is_counted(split)}
    if not labelled:
        return section
    if run.labels.problem_type == REGRESSION:
        return section | {"labels_table": _number_table(labelled)}
    return section | _label_table(run, labelled)


def _is_counted(split: Any) -> bool:
    return split.num_rows is not None and "label" in split.column_names


def _sizes(run: FinishedRun, name: str, split: Any) -> list[str]:
    lengths = run.lengths(name)
    if lengths is None:
        return ["streamed", "", "", ""]
    cut = (lengths >= run.max_seq_length).mean()
    return [f"{len(split):,}", f"{np.median(lengths):.0f}", f"{lengths.max():,}", f"{cut:.1%}"]


def _data_note(run: FinishedRun) -> str:
    held_out = [f"{share:g}% for {split}" for split, share in run.data.held_out.items()]
    note = f" Held out of the training data before training: {', and then '.join(held_out)}." if held_out else ""
    return f"{_shown_data(run)}.{note}"


def _number_table(splits: dict[str, Dataset]) -> str:
    rows = []
    for name, split in splits.items():
        values = np.asarray(split.select_columns("label")["label"][:], dtype=float)
        rows.append([name, *(f"{f(values):.4g}" for f in (np.min, np.median, np.mean, np.max, np.std))])
    return table(["numbers of", "least", "median", "mean", "greatest", "standard deviation"], rows)


def _label_table(run: FinishedRun, splits: dict[str, Dataset]) -> dict[str, str]:
    """Texts per label; the most frequent of many, and the names of all."""
    names = run.labels.names
    counts = {name: _label_counts(split, len(names), run.labels.problem_type) for name, split in splits.items()}
    total = np.sum(list(counts.values()), axis=0)
    order = np.arange(len(names))
    note = "A text may have several labels, or none." if run.labels.problem_type == MULTI_LABEL else ""
    if len(names) > MOST_LABELS:
        order = np.argsort(-total, kind="stable")[:MOST_LABELS]
        listed = ", ".join(f"{label}: {quote(name, 60)}" for label, name in enumerate(names))
        note += f"\n\nThe {MOST_LABELS} most frequent of {len(names)} labels. All of them: {listed}."
    sizes = {name: len(split) for name, split in splits.items()}
    rows = [
        [
            str(label),
            quote(names[label], 60),
            *(f"{counts[split][label]:,} ({counts[split][label] / sizes[split]:.1%})" for split in splits),
        ]
        for label in order
    ]
    return {"labels_table": table(["number", "label", *splits], rows, left=2), "labels_note": note.strip()}


def _label_counts(split: Dataset, labels: int, problem_type: str) -> np.ndarray:
    values = np.asarray(split.select_columns("label")["label"][:])
    if problem_type == MULTI_LABEL:
        return values.sum(axis=0).astype(int)
    return np.bincount(values, minlength=labels)


def environment_table(run: FinishedRun) -> str:
    """Machine, time and versions."""
    rows = [["machine", escape_markdown(device_name(run.args.training))]]
    runtime = run.train_results.get("train_runtime")
    if runtime is not None:
        texts = _trained_texts(run)
        resumed = run.args.training.resume_from_checkpoint
        part = f", from {Path(resumed).name} on" if resumed else ""
        rows.append(["training", f"{_duration(runtime)}{part}; {texts / max(runtime, 1e-9):,.0f} texts per second"])
    rows.append(["versions", ", ".join(f"{name} {version}" for name, version in versions().items())])
    return table(["", ""], rows, left=2)


def _trained_texts(run: FinishedRun) -> float:
    """Texts of this process's steps; the Trainer's own rate counts the planned ones, also where fewer were made."""
    args, state = run.args.training, run.state
    before = int(Path(args.resume_from_checkpoint).name.rpartition("-")[2]) if args.resume_from_checkpoint else 0
    steps = max(state.global_step - before, 0)
    train = run.data.splits["train"]
    if train.num_rows is None:
        return steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return (state.epoch or 0) * train.num_rows * steps / max(state.global_step, 1)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def limits(run: FinishedRun) -> list[str]:
    """What the figures do not say."""
    found = [
        f"The figures hold for texts like those of {_shown_data(run)}: other sources, languages and times were not "
        "measured, and neither were biases of the encoder or the data."
    ]
    if run.labels.problem_type == SINGLE_LABEL:
        found.append(f"A text about anything else also gets one of the {len(run.labels.names)} labels.")
    split = run.headline.split if run.headline else next(iter(run.data.splits))
    lengths = run.lengths(split)
    if lengths is not None:
        share = (lengths >= run.max_seq_length).mean()
        found.append(
            f"Longer texts are cut at {run.max_seq_length} tokens, which {share:.1%} of the {split} texts reach."
        )
    if run.args.training.calibrate:
        found.append(
            f"The figures are of the model's own outputs: what `{CALIBRATION_FILE}` holds is applied by "
            "`python -m bertcls_hf.predict`, and not by a pipeline."
        )
    return [*found, *_rare_labels(run)]


def _rare_labels(run: FinishedRun) -> list[str]:
    evaluation, labels = run.headline, run.labels
    if evaluation is None or labels.problem_type == REGRESSION:
        return []
    gold = np.asarray(evaluation.gold)
    counts = gold.sum(axis=0) if gold.ndim > 1 else np.bincount(gold, minlength=len(labels.names))
    rare = [quote(name, 60) for name, count in zip(labels.names, counts, strict=True) if count < FEW_ROWS]
    named = f" ({', '.join(rare)})" if len(rare) <= MOST_NAMED else ""
    about = f"{len(rare)} of {len(labels.names)} labels{named} have fewer than {FEW_ROWS} {evaluation.split} texts"
    return [f"{about}: their own figures are rough."] if rare else []


def licence_table(run: FinishedRun) -> str:
    """What the sources state of themselves."""
    model, data = run.licences
    base = _code(run.args.model.model_name_or_path)
    rows = [
        ["encoder" if run.has_trained else "model", base, escape_markdown(model or "not known")],
        ["data", _shown_data(run), escape_markdown(data or "not known")],
    ]
    return table(["", "", "licence"], rows, left=3)
