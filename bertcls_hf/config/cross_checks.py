"""Checks combinations of options. Each error names the options that contradict each other, and a way out."""

from dataclasses import replace
from pathlib import Path

from bertcls_hf.config.arguments import (
    DEFAULT_DISTILLATION_WEIGHT,
    DEFAULT_LEARNING_RATE,
    DEFAULT_TEMPERATURE,
    Arguments,
)
from bertcls_hf.config.launch import check_launch
from bertcls_hf.errors import ArgumentsError


def checked(args: Arguments) -> Arguments:
    """Checks the options and returns them with `freeze_backbone` set to true or false.

    Soft labels are probabilities as they should be, and set the temperature to 1.

    Raises:
        ArgumentsError: two options contradict each other, or an option would have no effect.
    """
    check_launch(args.training)
    _check_boost(args)
    freezes = args.model.has_frozen_backbone or (args.boost.boost and args.model.freeze_backbone is None)
    args = replace(args, model=replace(args.model, freeze_backbone=freezes))
    _check_combinations(args)
    if args.data.soft_label_columns:
        args = replace(args, training=args.training.changeable_copy(distillation_temperature=1.0))
    return args


def _check_boost(args: Arguments) -> None:
    """Refuses options that contradict cached features, and options that need cached features if there are none."""
    boost, model = args.boost, args.model
    if boost.boost and model.trainable_layers:
        raise ArgumentsError("--boost caches features that never change, but --trainable_layers changes them")
    if boost.boost and model.lora_r and model.freeze_backbone is not False:
        raise ArgumentsError(
            "--lora_r with --boost needs --freeze_backbone false: the head learns on the cache, then the adapters"
        )
    if not boost.boost and boost.boost_dtype != "float32":
        raise ArgumentsError(f"--boost_dtype {boost.boost_dtype} is for cached features: it needs --boost")
    if not boost.boost and boost.boost_storage is not None:
        raise ArgumentsError(f"--boost_storage {boost.boost_storage} is for cached features: it needs --boost")
    if not boost.boost and boost.head_init != "random":
        raise ArgumentsError(f"--head_init {boost.head_init} reads cached features: it needs --boost")
    if boost.boost and args.training.padding_free:
        raise ArgumentsError(
            "--padding_free: --boost extracts texts of like length, with next to no padding: leave it out"
        )
    if boost.sweep and boost.boost and (model.freeze_backbone is False or boost.head_init != "random"):
        raise ArgumentsError("--sweep with --boost needs a frozen backbone and --head_init random")
    if boost.sweep and not boost.boost and model.has_frozen_backbone:
        raise ArgumentsError("--sweep of a head on a frozen backbone needs --boost, where a trial takes seconds")
    if boost.sweep and args.training.eval_strategy == "no":
        raise ArgumentsError("--sweep chooses by evaluations: set --eval_strategy to steps or epoch")
    if boost.sweep and args.data.streaming and not boost.boost:
        raise ArgumentsError("--sweep: a stream is read once, in order, and each setting reads the training data")


def _check_combinations(args: Arguments) -> None:
    """Refuses all other contradictions. It needs `freeze_backbone` to be true or false."""
    _check_few_shot(args)
    _check_frozen(args)
    _check_sources(args)
    if args.data.streaming:
        _check_streaming(args)
    if args.training.num_train_epochs == 0 and args.boost.head_init == "random":
        raise ArgumentsError("--num_train_epochs 0 trains nothing, which only --head_init logistic makes sense of")
    if args.training.extra_metrics and not args.model.trust_remote_code:
        raise ArgumentsError("--extra_metrics runs code from the Hub or a file: it needs --trust_remote_code true")
    if args.model.lexical_features and not args.training.do_train:
        raise ArgumentsError("--lexical_features are fitted by a training, and nothing is trained: leave it out")
    if args.training.csv_safe and args.training.prediction_format != "csv":
        raise ArgumentsError("--csv_safe is for --prediction_format csv: leave it out")
    _check_seeds(args)
    _check_cross_validation(args)
    _check_adaptation(args)
    _check_descriptions(args)
    _check_without_labels(args)
    _check_self_training(args)
    _check_teacher(args)
    _check_calibration(args)


def _check_seeds(args: Arguments) -> None:
    """Refuses more seeds where there is nothing to repeat, or where a repetition would not start afresh."""
    if args.training.seeds == 1:
        return
    if not args.training.do_train:
        raise ArgumentsError("--seeds repeats the training, and nothing is trained: leave it out")
    if args.data.streaming and not args.boost.boost:
        raise ArgumentsError("--seeds: a stream is read once, in order; run the command once for each --seed")
    last = args.training.seed + args.training.seeds - 1
    if last >= 2**32:
        raise ArgumentsError(f"--seeds {args.training.seeds}: the last seed would be {last}, which is above 2^32")


def _check_cross_validation(args: Arguments) -> None:
    """Refuses folds where there is nothing to train, where rows cannot be chosen, or beside other repetitions."""
    if not args.training.cross_validation:
        return
    if not args.training.do_train:
        raise ArgumentsError("--cross_validation repeats the training, and nothing is trained: leave it out")
    if args.data.streaming:
        raise ArgumentsError("--cross_validation chooses among all rows, and a stream is read once, in order")
    if args.training.seeds > 1:
        raise ArgumentsError("--cross_validation and --seeds both repeat the training: give one of them")


def _check_adaptation(args: Arguments) -> None:
    """Refuses an adaptation of the encoder where nothing is trained, or where the texts are a stream."""
    if not args.adapt.adapt_num_train_epochs:
        return
    if not args.training.do_train:
        raise ArgumentsError("--adapt_num_train_epochs is for a training, and nothing is trained: leave it out")
    if args.data.streaming:
        raise ArgumentsError("--adapt_num_train_epochs reads all texts several times, and a stream is read once")


def _check_few_shot(args: Arguments) -> None:
    """Refuses options that leave nothing of what `few_shot` chooses, or that it does not choose with."""
    if not args.few_shot.few_shot:
        return
    if not args.training.do_train:
        raise ArgumentsError("--few_shot is for a training, and nothing is trained: leave it out")
    if args.data.streaming:
        raise ArgumentsError("--few_shot reads all texts several times, and a stream is read once")
    if not args.boost.boost or args.boost.head_init != "logistic" or not args.model.freeze_backbone:
        raise ArgumentsError(
            "--few_shot tunes the encoder, and then freezes it for a head that is a logistic regression: leave out "
            "--boost, --head_init and --freeze_backbone"
        )
    if args.training.cross_validation:
        raise ArgumentsError("--cross_validation: the encoder that --few_shot tunes has seen the rows of every fold")
    if args.model.truncation_strategy == "windows":
        raise ArgumentsError("--few_shot: texts in windows have no one vector: use --truncation_strategy head_tail")


def _check_descriptions(args: Arguments) -> None:
    """Refuses label descriptions that no regression reads."""
    if args.few_shot.label_descriptions and args.boost.head_init != "logistic":
        raise ArgumentsError(
            "--label_descriptions tell a logistic regression what labels mean: add --boost true --head_init logistic"
        )


def _check_without_labels(args: Arguments) -> None:
    """Refuses what needs labelled rows, where there are none."""
    if not args.learns_without_labels:
        return
    why = "there is no labelled training data, and --label_names alone tell the labels"
    if not args.boost.boost or args.boost.head_init != "logistic":
        raise ArgumentsError(f"{why}: add --boost true --head_init logistic")
    needs_labels = {
        "few_shot": args.few_shot.few_shot,
        "streaming": args.data.streaming,
        "test_split_percentage": args.data.test_split_percentage > 0,
        "class_weights": args.model.class_weights is not None,
        "max_train_samples": args.data.max_train_samples is not None,
        "cross_validation": args.training.cross_validation > 0,
        "teacher": bool(args.training.teacher),
        "soft_label_columns": bool(args.data.soft_label_columns),
    }
    for option, is_asked in needs_labels.items():
        if is_asked:
            raise ArgumentsError(f"--{option}: {why}: leave it out, or give --train_file")
    if not args.few_shot.self_training_rounds and (args.model.lexical_features or args.training.num_train_epochs):
        raise ArgumentsError(
            "--lexical_features and --num_train_epochs: nothing is known but the names of the labels, and there is "
            "nothing to learn: add --self_training_rounds, or give --num_train_epochs 0"
        )


def _check_self_training(args: Arguments) -> None:
    """Refuses rounds without texts or features, and what the labels that a classifier gives itself would spoil."""
    if not args.few_shot.self_training_rounds:
        return
    if not args.data.unlabelled_file:
        raise ArgumentsError("--self_training_rounds labels the texts of --unlabelled_file, which is not given")
    if not args.training.do_train or not args.boost.boost or args.data.streaming:
        raise ArgumentsError("--self_training_rounds is for a training with --boost, whose data is not a stream")
    if args.model.truncation_strategy == "windows" and args.model.window_pooling == "attention":
        raise ArgumentsError("--self_training_rounds: --window_pooling attention is learned later: use mean or max")
    if args.training.cross_validation or args.training.teacher or args.data.soft_label_columns:
        raise ArgumentsError(
            "--self_training_rounds gives texts labels, which --cross_validation, --teacher and --soft_label_columns "
            "know nothing of: give one of them"
        )


def _check_teacher(args: Arguments) -> None:
    """Refuses a teacher from whom nothing learns, or who may know the answers, and texts that nobody reads."""
    training = args.training
    reads_texts = training.teacher or args.adapt.adapt_num_train_epochs or args.few_shot.self_training_rounds
    if args.data.unlabelled_file and not reads_texts and not args.learns_without_labels:
        raise ArgumentsError(
            "--unlabelled_file is for --adapt_num_train_epochs, --self_training_rounds and --teacher, and none of "
            "them is given"
        )
    given = {
        "distillation_temperature": training.distillation_temperature != DEFAULT_TEMPERATURE,
        "distillation_weight": training.distillation_weight != DEFAULT_DISTILLATION_WEIGHT,
    }
    useless = [name for name, is_given in given.items() if is_given]
    source = "--teacher" if training.teacher else "--soft_label_columns" if args.data.soft_label_columns else None
    if source is None:
        if useless:
            raise ArgumentsError(f"--{' and --'.join(useless)} belong to --teacher, which is not given")
        return
    if training.teacher and args.data.soft_label_columns:
        raise ArgumentsError("--teacher and --soft_label_columns both say how probable labels are: give one of them")
    if args.data.soft_label_columns and given["distillation_temperature"]:
        raise ArgumentsError("--distillation_temperature softens a teacher's logits, and soft labels stay as they are")
    if not training.do_train or training.num_train_epochs == 0:
        raise ArgumentsError(f"{source} teaches in the epochs of a training, and there are none: leave it out")
    if args.data.streaming:
        raise ArgumentsError(f"{source} needs all texts before the training, and a stream is read once")
    if training.teacher and training.cross_validation:
        raise ArgumentsError("--cross_validation: the teacher may have learned from rows that a fold holds out")


def _check_frozen(args: Arguments) -> None:
    """Refuses options that would have no effect on an encoder, or on embeddings, that are frozen."""
    training, is_frozen = args.training, args.model.has_frozen_backbone
    if is_frozen and training.layerwise_lr_decay != 1:
        raise ArgumentsError("--layerwise_lr_decay is for the backbone, which is frozen: set it to 1")
    if is_frozen and training.head_learning_rate is None and training.learning_rate != DEFAULT_LEARNING_RATE:
        raise ArgumentsError("--learning_rate is the backbone's, which is frozen: set --head_learning_rate")
    if training.activation_checkpointing and is_frozen:
        raise ArgumentsError(
            "--activation_checkpointing (or --gradient_checkpointing) spares memory of the backbone's gradients, "
            "and it is frozen: leave it out"
        )
    reentrant = (training.activation_checkpointing_kwargs or {}).get("use_reentrant")
    if reentrant and args.model.trainable_layers:
        raise ArgumentsError("use_reentrant checkpoints need embeddings that learn: leave out --trainable_layers")
    if args.model.attention_dropout is not None and is_frozen and not args.adapt.adapt_num_train_epochs:
        raise ArgumentsError("--attention_dropout is for an encoder that learns, and it is frozen: leave it out")
    if training.neftune_noise_alpha and (is_frozen or args.model.trainable_layers):
        raise ArgumentsError("--neftune_noise_alpha needs embeddings that learn, and they are frozen")


def _check_sources(args: Arguments) -> None:
    data, training, in_memory = args.data, args.training, args.in_memory
    for split in sorted(in_memory):
        if getattr(data, f"{split}_file"):
            raise ArgumentsError(f"{split}_data is in memory, and --{split}_file names a file: give one of them")
    if data.dataset_name and in_memory:
        raise ArgumentsError(f"--dataset_name {data.dataset_name} and data in memory are two sources: give one")
    if data.streaming and "train" in in_memory:
        raise ArgumentsError("--streaming reads training data from files or the Hub, but train_data is in memory")
    learns = args.has_training_rows or args.learns_without_labels
    if training.do_train and not learns:
        others = ", or name the labels with --label_names" if data.unlabelled_file else " or --dataset_name"
        raise ArgumentsError(f"no training data: give --train_file{others}")
    if not any((learns, data.validation_file, data.test_file, in_memory)):
        raise ArgumentsError("no data: give --dataset_name, --train_file, --validation_file or --test_file")
    has_test = data.dataset_name or data.test_file or data.test_split_percentage or "test" in in_memory
    if training.do_predict and not has_test:
        raise ArgumentsError("--do_predict reads the test data: give --test_file or --dataset_name")


def _check_streaming(args: Arguments) -> None:
    """Refuses options that need all rows of the training data, or their number."""
    data, training = args.data, args.training
    is_read_once = args.boost.boost and bool(args.model.freeze_backbone)
    if not training.do_train:
        raise ArgumentsError("--streaming is for training data, and nothing is trained")
    if training.max_steps <= 0 and not is_read_once:
        raise ArgumentsError("--streaming has no last row: say with --max_steps when the training ends")
    needs_rows = {
        "lexical_features": args.model.lexical_features,
        "max_train_samples": data.max_train_samples is not None,
        "test_split_percentage": data.test_split_percentage > 0,
        "duplicated_text error": data.duplicated_text == "error",
        "class_weights balanced": args.model.class_weights == ["balanced"],
        "dataloader_num_workers": training.dataloader_num_workers > 0 and not is_read_once,
    }
    for option, is_asked in needs_rows.items():
        if is_asked:
            raise ArgumentsError(f"--{option} cannot be used with --streaming: a stream is read once, in order")


def _check_calibration(args: Arguments) -> None:
    """Refuses a calibration without training if the model is not in `output_dir`, where the calibration is written."""
    if not args.training.calibrate or args.training.do_train:
        return
    name = args.model.model_name_or_path
    if Path(name).resolve() != Path(args.training.output_dir).resolve():
        raise ArgumentsError(
            f"--calibrate without training goes beside the model that it is for: --output_dir and "
            f"--model_name_or_path must be one folder, not {args.training.output_dir} and {name}"
        )
