"""The training of a model card: the settings as resolved, and the search for them."""

from typing import Any

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.data.label_descriptions import described_labels
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.public_text import escape_markdown, without_local_paths
from bertcls_hf.hub.card.sections.names import base_model_code
from bertcls_hf.hub.card.sections.tables import table
from bertcls_hf.training.adaptation import FOLDER, read_adaptation
from bertcls_hf.training.few_shot import read_choice
from bertcls_hf.training.self_training import read_self_training


MOST_TRIALS = 5
MOST_SHARES = 10


def training_section(run: FinishedRun) -> dict[str, Any]:
    """The settings as resolved, and the trials of the search for them; empty without training."""
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
    """The settings that shape the model, by name; an empty value is left out of the card."""
    args, config, model = run.args.training, run.trainer.model.config, run.trainer.model
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    layers = f" of the last {config.pooling_layers} layers ({config.pooling_layers_merge})"
    is_frozen = run.args.model.has_frozen_backbone
    settings = {
        "encoder": f"{base_model_code(run)}, {config.encoder_config.model_type}",
        "parameters": f"{everything:,}, of which {trained:,} were trained",
        "pooling and head": f"{config.pooling}{layers if config.pooling_layers > 1 else ''}, {config.head}",
        "dropout of the head": f"{config.dropout:g}",
        "dropout of attention weights": _attention_dropout(run),
        "loss": _loss(config),
        "lexical features": _lexical_features(model),
        "longest text": _longest_text(run),
        "adaptation to the texts": _adaptation(run),
        "choice of the encoder": _few_shot_choice(run),
        "self-training": _self_training(run),
        "teachers": _teachers(run),
        "adapters": _adapters(run),
        "features": "computed once by the frozen encoder, and cached" if run.args.boost.boost else "",
        "start of the head": run.args.boost.head_init,
        "label descriptions": _descriptions(run),
        "length of the training": _training_length(run),
        "batch of a step": f"{per_step} texts ({args.per_device_train_batch_size} per device, times "
        f"{args.gradient_accumulation_steps} accumulated, times {args.world_size} for the processes)",
        "learning rate": f"head {run.trainer.args.head_learning_rate:g}"
        + ("" if is_frozen else f", encoder {args.learning_rate:g}"),
        "layer-wise decay of it": f"{args.layerwise_lr_decay:g}" if args.layerwise_lr_decay != 1 else "",
        "schedule": f"{_plain(args.lr_scheduler_type)}, warm-up {args.warmup_steps:g}"
        f"{' of all steps' if args.warmup_steps < 1 else ' steps'}",
        "optimizer": f"{_plain(args.optim)}, weight decay {args.weight_decay:g}",
        "average of the weights": _average(args),
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "seed": f"{args.seed}, of the splits {run.args.data.split_seed}",
        "checkpoint": _checkpoint(run),
    }
    return {name: value if name == "encoder" else escape_markdown(value) for name, value in settings.items()}


def _attention_dropout(run: FinishedRun) -> str:
    """The dropout that was asked for; empty for the checkpoint's own, and where no encoder was trained."""
    args = run.args.model
    return "" if args.attention_dropout is None or args.has_frozen_backbone else f"{args.attention_dropout:g}"


def _longest_text(run: FinishedRun) -> str:
    """What the encoder reads of a long text."""
    settings, tokens = run.truncation, run.max_seq_length
    if settings is not None and settings.strategy == "head_tail":
        kept = settings.kept_at_start
        return f"{tokens} tokens: of longer texts the first {kept} and the last {tokens - kept}"
    if settings is not None and settings.strategy == "windows":
        return (
            f"{settings.max_text_length:,} tokens, in windows of {tokens} that share {settings.stride}; their vectors "
            f"are pooled ({settings.window_pooling})"
        )
    return f"{tokens} tokens, cut on the {run.trainer.processing_class.truncation_side}"


def _lexical_features(model: Any) -> str:
    """What the wide part of the head is; empty without one."""
    if model.lexical is None:
        return ""
    settings, table = model.lexical.settings, model.lexical
    return (
        f"weights of {settings.table_size:,} {settings.ngrams} ({table.megabytes:.1f} MB), of up to "
        f"{model.truncation.max_text_length:,} tokens of a text, fitted before the training (Wang & Manning 2012); "
        f"they count {table.scale.item():.2f} times beside the head"
    )


def _teachers(run: FinishedRun) -> str:
    """The classifiers, or the columns, whose probabilities were learned too; empty without them."""
    args, columns = run.args.training, run.args.data.soft_label_columns
    if columns:
        return f"soft labels ({', '.join(columns)}): weight {args.distillation_weight:g} in the loss"
    names = ", ".join(str(without_local_paths(name)) for name in args.teacher or [])
    settings = f"weight {args.distillation_weight:g} in the loss, temperature {args.distillation_temperature:g}"
    return f"{names}: {settings} (Hinton et al. 2015)" if names else ""


def _adapters(run: FinishedRun) -> str:
    """The low-rank adapters that were trained in place of the encoder; empty without them."""
    args = run.args.model
    if not args.lora_r:
        return ""
    alpha = 2 * args.lora_r if args.lora_alpha is None else args.lora_alpha
    places = ", ".join(args.lora_target_modules or ["all projections"])
    dropout = f", dropout {args.lora_dropout:g}" if args.lora_dropout else ""
    return f"LoRA of rank {args.lora_r}, alpha {alpha:g}{dropout}, beside {places}; multiplied into the saved weights"


def _adaptation(run: FinishedRun) -> str:
    """The training of the encoder as a masked language model; empty without one."""
    found = read_adaptation(run.folder / FOLDER) if run.args.adapt.adapt_num_train_epochs else None
    if found is None:
        return ""
    unlabelled = f", {found.unlabelled:,} of them without labels" if found.unlabelled else ""
    losses = ""
    if found.loss_before is not None and found.loss_after is not None:
        losses = f"; loss of a masked validation token {found.loss_before:.3f} before, {found.loss_after:.3f} after"
    return f"{found.epochs:g} epochs as a masked language model on {found.texts:,} texts{unlabelled}{losses}"


def _few_shot_choice(run: FinishedRun) -> str:
    """What cross-validation chose with few labelled texts, and among what; empty without it."""
    choice = read_choice(run.folder) if run.args.few_shot.few_shot else None
    if choice is None:
        return ""
    mean = f"the mean of {choice.tunings} tunings, together " if choice.tunings > 1 else ""
    tuned = f" ({mean}in {choice.steps} steps, Tunstall et al. 2022)" if choice.best.is_tuned else ""
    measured = [
        f"{candidate.words}: log-loss {candidate.log_loss:.3f}, accuracy {candidate.accuracy:.3f}, "
        f"{candidate.behind:.1f} standard errors behind the best"
        for candidate in choice.candidates
        if candidate.log_loss is not None
    ]
    if not measured:
        return f"{choice.best.words}{tuned}; {choice.rows} rows are too few for a choice by cross-validation"
    return f"{choice.best.words}{tuned}, by cross-validation on {choice.rows:,} rows ({'; '.join(measured)})"


def _descriptions(run: FinishedRun) -> str:
    """The texts that told what labels mean; empty without any."""
    texts = described_labels(run.args, run.labels) if run.args.boost.head_init == "logistic" else None
    if texts is None:
        return ""
    pairs = list(zip(run.labels.names, texts, strict=True))
    more = f"; and {len(pairs) - MOST_SHARES:,} more" if len(pairs) > MOST_SHARES else ""
    return "; ".join(f"{name}: {text}" for name, text in pairs[:MOST_SHARES]) + more


def _self_training(run: FinishedRun) -> str:
    """The texts that the classifier labelled for itself; empty without any."""
    asked = run.args.few_shot.self_training_rounds or run.args.learns_without_labels
    found = read_self_training(run.folder) if asked else None
    if found is None:
        return ""
    shares = ", ".join(f"{label} {share:.1%}" for label, share in list(found.shares.items())[:MOST_SHARES])
    if not found.rounds:
        return f"none: {found.texts:,} texts without labels got that of the nearest label description ({shares})"
    return (
        f"{found.texts:,} texts without labels got one in {found.rounds} rounds, from {found.labelled:,} labelled "
        f"rows ({shares}); features and n-grams alone agree on {found.agreement[-1]:.1%} of them"
    )


def _average(args: ClassifierTrainingArguments) -> str:
    if args.weight_averaging == "ema":
        return f"exponential, with a decay of {args.ema_decay:g} at most"
    if args.weight_averaging == "swa":
        return f"the mean after {args.swa_start:.0%} of the training"
    return ""


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
