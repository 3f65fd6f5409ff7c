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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertcls_hf.arguments import Arguments
from bertcls_hf.errors import ExitCode, RunError
from bertcls_hf.parsing import parse_arguments
from bertcls_hf.paths import check_files


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        args, options = parse_arguments(argv)
        run(args, options)
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return ExitCode.DONE


def run(args: Arguments, options: dict[str, Any]) -> None:
    """One run from data to a saved model. `options` are the ones that were given, for the recipe to repeat it."""
    check_files(args.data)
    # datasets, scikit-learn and the Trainer take seconds to import: a mistyped option should not wait for them.
    from transformers import set_seed

    from bertcls_hf import training
    from bertcls_hf.checkpoints import refuse_other_model
    from bertcls_hf.data import class_weights, load_data
    from bertcls_hf.encoder_checks import check_encoder
    from bertcls_hf.features import FeatureExtractor
    from bertcls_hf.head_init import check_head_init, init_head_by_logistic_regression
    from bertcls_hf.hub import push_folder
    from bertcls_hf.model_loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
    from bertcls_hf.run_record import start_run, write_recipe
    from bertcls_hf.sweep import HeadSweep
    from bertcls_hf.tokenization import report_lengths, resolve_max_seq_length, tokenize

    start_run(args)
    checkpoint = open_checkpoint(args.model)
    check_encoder(args, checkpoint)
    tokenizer = load_tokenizer(args.model, checkpoint)
    max_seq_length = resolve_max_seq_length(args.data.max_seq_length, tokenizer, checkpoint.position_limit)

    with args.training.main_process_first(desc="data"):
        data = load_data(args.data, checkpoint.labels, bool(args.training.do_train), args.training.do_predict)
        splits: dict[str, Any] = tokenize(data, tokenizer, args.data, max_seq_length)
    report_lengths(splits, max_seq_length)
    training.check_plan(args.training, data)

    weights = (
        class_weights(data.splits["train"], data.labels, args.model.class_weights) if args.training.do_train else None
    )
    if args.boost.sweep:
        sweep = HeadSweep(args, checkpoint, data, splits, tokenizer, max_seq_length, weights)
        args = sweep.run(args.boost.sweep)
    config = resolve_config(args.model, checkpoint, data.labels, weights, args.training.label_smoothing_factor)
    check_head_init(args.boost.head_init, config)
    if args.training.resume_from_checkpoint is not None:
        refuse_other_model(Path(args.training.resume_from_checkpoint), config)
    if args.training.process_index == 0:
        write_recipe(args, options, config, max_seq_length)
    set_seed(args.training.seed)
    model = load_classifier(args.model, checkpoint, config)
    if args.boost.boost:
        extractor = FeatureExtractor(model, tokenizer, args, max_seq_length)
        head_first = args.training.do_train and args.is_head_then_all
        # A head that comes first is never tested on its own.
        read = [name for name in splits if not (head_first and name == "test")]
        features = {name: extractor.features(name, splits[name]) for name in read}
        if args.training.do_train and args.boost.head_init == "logistic":
            init_head_by_logistic_regression(model, features["train"], features.get("validation"), args.training.seed)
        if head_first:
            training.train_head(args, model, tokenizer, features, data.labels)
        else:
            splits = features

    trainer = training.build_trainer(args.training, model, tokenizer, splits, data.labels)
    if args.training.do_train:
        training.train(trainer)
        trainer.save_model()
    if args.training.do_eval and data.has_labels("validation"):
        training.evaluate(trainer, splits["validation"], data)
    if "test" in splits and (data.has_labels("test") or args.training.do_predict):
        training.predict(trainer, splits["test"], data)

    if args.training.push_to_hub and trainer.is_world_process_zero():
        settings = args.training
        push_folder(Path(settings.output_dir), settings.hub_model_id, settings.hub_private_repo, settings.hub_revision)


if __name__ == "__main__":
    sys.exit(main())
