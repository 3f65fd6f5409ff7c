#!/usr/bin/env python
"""Trains, evaluates and applies a text classifier with a BERT-family encoder.

    python run_classification.py recipes/quickstart.yaml
    python run_classification.py recipes/imdb/frozen_256.yaml --head_learning_rate 2e-3
    python run_classification.py --train_file train.csv --validation_file dev.csv --output_dir outputs/mine
    accelerate launch run_classification.py recipes/imdb/finetuned_512.yaml

A recipe is a YAML file of options; those on the command line win. `--help` lists them all.
Exit codes: 0 done, 2 bad arguments, 65 bad data, 74 disk full, 75 stopped by a signal, 76 diverged, 77 the push
failed (the model is saved).
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.config.parsing import parse_arguments
from bertcls_hf.data.input_paths import check_files
from bertcls_hf.errors import ExitCode, RunError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    command = sys.argv[1:] if argv is None else argv
    try:
        args, options = parse_arguments(command)
        run(args, options, command)
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return ExitCode.DONE


def run(args: Arguments, options: dict[str, Any], command: Sequence[str]) -> None:
    """One run from data to a saved model. `options` and `command` are those given, for others to repeat it."""
    check_files(args.data)
    # datasets, scikit-learn and the Trainer take seconds to import: a mistyped option should not wait for them.
    from transformers import set_seed

    from bertcls_hf.data.load import class_weights, load_data
    from bertcls_hf.data.tokenization import report_lengths, tokenize
    from bertcls_hf.features.extractor import FeatureExtractor
    from bertcls_hf.features.logistic_head import check_head_init, init_head_by_logistic_regression
    from bertcls_hf.hub.card.finished_run import FinishedRun
    from bertcls_hf.hub.card.model_card import write_model_card
    from bertcls_hf.hub.push_callback import PushRun
    from bertcls_hf.models.encoder_checks import check_encoder
    from bertcls_hf.models.loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
    from bertcls_hf.train import phases as training
    from bertcls_hf.train.checkpoints import refuse_other_model
    from bertcls_hf.train.recipe import start_run, write_recipe
    from bertcls_hf.train.sweep import HeadSweep

    start_run(args)
    checkpoint = open_checkpoint(args.model)
    check_encoder(args, checkpoint)
    tokenizer = load_tokenizer(args.model, checkpoint, args.data.max_seq_length)

    with args.training.main_process_first(desc="data"):
        data = load_data(args.data, checkpoint.labels, bool(args.training.do_train), args.training.do_predict)
        splits: dict[str, Any] = tokenize(data, tokenizer, args.data)
    report_lengths(splits, tokenizer)
    training.check_plan(args.training, data)

    weights = (
        class_weights(data.splits["train"], data.labels, args.model.class_weights) if args.training.do_train else None
    )
    if args.boost.sweep:
        sweep = HeadSweep(args, checkpoint, data, splits, tokenizer, weights)
        args = sweep.run(args.boost.sweep)
    config = resolve_config(args.model, checkpoint, data.labels, weights, args.training.label_smoothing_factor)
    check_head_init(args.boost.head_init, config)
    if args.training.resume_from_checkpoint is not None:
        refuse_other_model(Path(args.training.resume_from_checkpoint), config)
    if args.training.process_index == 0:
        write_recipe(args, options, config, tokenizer.model_max_length)
    set_seed(args.training.seed)
    model = load_classifier(args.model, checkpoint, config)
    inputs: Mapping[str, Any] = splits
    if args.boost.boost:
        extractor = FeatureExtractor(model, tokenizer, args)
        head_first = args.training.do_train and args.is_head_then_all
        # A head that comes first is never tested on its own.
        read = [name for name in splits if not (head_first and name == "test")]
        features = {name: extractor.features(name, splits[name]) for name in read}
        if args.training.do_train and args.boost.head_init == "logistic":
            init_head_by_logistic_regression(model, features["train"], features.get("validation"), args.training.seed)
        if head_first:
            training.train_head(args, model, tokenizer, features, data.labels)
        else:
            inputs = features

    trainer = training.build_trainer(args.training, model, tokenizer, inputs, data.labels)
    push = PushRun(trainer, args.training) if args.training.push_to_hub else None
    if args.training.do_train:
        training.train(trainer)
        trainer.save_model()
    found: list[Any] = []
    if args.training.do_eval and data.has_labels("validation"):
        found.append(training.evaluate(trainer, inputs["validation"], data))
    if "test" in splits and (data.has_labels("test") or args.training.do_predict):
        found.append(training.predict(trainer, inputs["test"], data))
    if trainer.is_world_process_zero():
        write_model_card(FinishedRun(args, options, command, data, splits, trainer, found))

    if push is not None:
        push.finish()


if __name__ == "__main__":
    sys.exit(main())
