"""Answers options of other scripts and libraries: what such an option is called here, or why it is not needed.

The options are those of transformers' `run_classification.py`, `run_glue.py`, `run_xnli.py` and
`run_glue_no_trainer.py`, of `TrainingArguments` in transformers 4, of SetFit, AutoTrain and simpletransformers, and a
few names that people try. Options that exist here under the same name are not in the tables. docs/migrating.md has the
same answers, sorted by script.

In the sentences, an option of a training run stands as it is, and a command of its own in backticks.
"""

import re
from collections.abc import Collection


_TOKEN = "log in with `hf auth login`, or set HF_TOKEN in the environment: an option would leave the secret in files"
_BOTH_BATCHES = "--per_device_train_batch_size and --per_device_eval_batch_size"
_ALL_PAIRS = "--few_shot compares the cosines of all pairs of a batch, in --contrastive_max_steps batches"
_QUANTISED = "weights are loaded in full precision; --lora_r trains few beside them, and --bf16 computes in 16 bits"
_FLAT_RECIPE = "a recipe is flat, lines of the form `option: value`"
_SHUFFLED = "the training rows are in another order in each epoch, by --seed"
_TENSORBOARD = "TENSORBOARD_LOGGING_DIR=DIR in the environment, with --report_to tensorboard"
_WANDB = "WANDB_PROJECT=NAME and the like in the environment, with --report_to wandb"
_SAVED_ALWAYS = "the default, --save_strategy epoch; the best model is in --output_dir at the end"
_FROM_DATA = "the labels are those of the data"
_TOKENIZER = "the tokenizer's own files decide"
_PADDED = "a batch is padded to its longest text"
_DEVICE = "the device is found; --use_cpu stays on the processor"

# What the option is called here.
RENAMED = {
    # transformers: the scripts
    "cache_dir": "HF_HOME=DIR in the environment",
    "do_regression": "--problem_type regression",
    "task_name": "--dataset_name nyu-mll/glue --dataset_config_name TASK (mnli also needs --validation_split_name "
    "validation_matched, stsb --problem_type regression)",
    "language": "--dataset_name facebook/xnli --dataset_config_name LANGUAGE",
    "train_language": "--dataset_name facebook/xnli --dataset_config_name LANGUAGE; evaluate the trained model on "
    "another language in a second run, with --do_eval",
    "max_train_steps": "--max_steps",
    "num_warmup_steps": "--warmup_steps",
    "checkpointing_steps": "--save_strategy epoch, or --save_strategy steps --save_steps N",
    "with_tracking": "--report_to SERVICE",
    "data_dir": "--train_file, --validation_file and --test_file",
    # transformers 4: TrainingArguments
    "evaluation_strategy": "--eval_strategy",
    "warmup_ratio": "--warmup_steps: a value below 1 is a share of all steps",
    "per_gpu_train_batch_size": "--per_device_train_batch_size",
    "per_gpu_eval_batch_size": "--per_device_eval_batch_size",
    "no_cuda": "--use_cpu",
    "group_by_length": "--train_sampling_strategy group_by_length, which is the default",
    "logging_dir": _TENSORBOARD,
    "adafactor": "--optim adafactor",
    "torchdynamo": "--torch_compile true --torch_compile_backend BACKEND",
    "push_to_hub_model_id": "--hub_model_id",
    "push_to_hub_organization": "--hub_model_id ORGANIZATION/NAME",
    "dispatch_batches": "--accelerator_config '{\"dispatch_batches\": true}'",
    "split_batches": "--accelerator_config '{\"split_batches\": true}'",
    "fsdp_transformer_layer_cls_to_wrap": '--fsdp_config \'{"transformer_layer_cls_to_wrap": ["LAYER"]}\'',
    "fsdp_min_num_params": "--fsdp_config '{\"min_num_params\": N}'",
    "include_tokens_per_second": "--include_num_input_tokens_seen",
    # SetFit
    "num_epochs": "--num_train_epochs",
    "embedding_num_epochs": "--num_train_epochs",
    "classifier_num_epochs": "--num_train_epochs, or --head_num_train_epochs for a head that is trained first",
    "embedding_batch_size": "--per_device_train_batch_size",
    "classifier_batch_size": "--per_device_train_batch_size",
    "body_learning_rate": "--contrastive_learning_rate with --few_shot, else --learning_rate",
    "body_embedding_learning_rate": "--contrastive_learning_rate with --few_shot",
    "body_classifier_learning_rate": "--learning_rate",
    "warmup_proportion": "--warmup_steps: a value below 1 is a share of all steps",
    "l2_weight": "--weight_decay",
    "use_amp": "--bf16 or --fp16",
    "eval_max_steps": "--max_eval_samples, in rows",
    "show_progress_bar": "--disable_tqdm, which is the opposite",
    "column_mapping": "--text_column_names and --label_column_name",
    # AutoTrain
    "model": "--model_name_or_path",
    "base_model": "--model_name_or_path",
    "data_path": "--dataset_name or --train_file",
    "train_split": "--train_split_name, with --dataset_name",
    "valid_split": "--validation_split_name, with --dataset_name",
    "text_column": "--text_column_names",
    "target_column": "--label_column_name",
    "epochs": "--num_train_epochs",
    "gradient_accumulation": "--gradient_accumulation_steps",
    "optimizer": "--optim",
    "scheduler": "--lr_scheduler_type",
    "mixed_precision": "--fp16 or --bf16",
    "log": "--report_to",
    "project_name": "--output_dir",
    "username": "--hub_model_id USER/NAME",
    "repo_id": "--hub_model_id",
    # simpletransformers
    "train_batch_size": "--per_device_train_batch_size",
    "eval_batch_size": "--per_device_eval_batch_size",
    "manual_seed": "--seed",
    "use_early_stopping": "--early_stopping_patience N",
    "early_stopping_delta": "--early_stopping_threshold",
    "early_stopping_metric": "--metric_for_best_model",
    "early_stopping_metric_minimize": "--greater_is_better false",
    "evaluate_during_training_steps": "--eval_strategy steps --eval_steps N",
    "regression": "--problem_type regression",
    "weight": "--class_weights",
    "no_cache": "--overwrite_cache",
    "process_count": "--preprocessing_num_workers",
    "lazy_loading": "--streaming true",
    "lazy_delimiter": "--csv_delimiter",
    "lazy_labels_column": "--label_column_name",
    "lazy_text_column": "--text_column_names",
    "lazy_text_a_column": "--text_column_names A B",
    "lazy_text_b_column": "--text_column_names A B",
    "lazy_loading_start_line": "--csv_header",
    "custom_layer_parameters": "--layerwise_lr_decay and --head_learning_rate",
    "custom_parameter_groups": "--layerwise_lr_decay and --head_learning_rate",
    "train_custom_parameters_only": "--freeze_backbone or --trainable_layers N",
    "silent": "--disable_tqdm true",
    "tensorboard_dir": _TENSORBOARD,
    "wandb_project": _WANDB,
    "wandb_kwargs": _WANDB,
    "loss_type": "--loss",
    "cosine_schedule_num_cycles": "--lr_scheduler_kwargs '{\"num_cycles\": X}'",
    "polynomial_decay_schedule_lr_end": "--lr_scheduler_kwargs '{\"lr_end\": X}'",
    "polynomial_decay_schedule_power": "--lr_scheduler_kwargs '{\"power\": X}'",
    "use_cuda": "--use_cpu, which is the opposite",
    "sliding_window": "--truncation_strategy windows",
    "stride": "--window_stride, with --truncation_strategy windows: the tokens that two windows share",
    "tie_value": "--window_pooling: the vectors of a text's windows are pooled, not their votes",
    # names that people try
    "peft": "--lora_r",
    "use_peft": "--lora_r",
    "lora_rank": "--lora_r",
    "doc_stride": "--window_stride, with --truncation_strategy windows",
    "truncation_side": "--truncation_strategy head (right) or tail (left)",
    "batch_size_per_device": "--per_device_train_batch_size",
    "per_device_batch_size": _BOTH_BATCHES,
    "bert_model": "--model_name_or_path",
    "model_name": "--model_name_or_path",
    "model_path": "--model_name_or_path",
    "pretrained_model_name_or_path": "--model_name_or_path",
    "revision": "--model_revision",
    "tokenizer": "--tokenizer_name",
    "dataset": "--dataset_name",
    "dataset_config": "--dataset_config_name",
    "data_files": "--train_file, --validation_file and --test_file",
    "train_data": "--train_file",
    "train_dataset": "--train_file or --dataset_name",
    "eval_dataset": "--validation_file, or --validation_split_name with --dataset_name",
    "valid_file": "--validation_file",
    "val_file": "--validation_file",
    "dev_file": "--validation_file",
    "eval_file": "--validation_file",
    "validation_path": "--validation_file",
    "eval_path": "--validation_file",
    "test_path": "--test_file",
    "predict_file": "--test_file",
    "max_test_samples": "--max_predict_samples",
    "max_val_samples": "--max_eval_samples",
    "validation_size": "--validation_split_percentage",
    "test_size": "--test_split_percentage",
    "label_column": "--label_column_name",
    "text_columns": "--text_column_names",
    "max_len": "--max_seq_length",
    "max_seq_len": "--max_seq_length",
    "num_train_steps": "--max_steps",
    "train_epochs": "--num_train_epochs",
    "num_workers": "--dataloader_num_workers, or --preprocessing_num_workers for the tokenizer",
    "lr_scheduler": "--lr_scheduler_type",
    "warmup": "--warmup_steps: a value below 1 is a share of all steps",
    "early_stopping": "--early_stopping_patience N",
    "patience": "--early_stopping_patience",
    "label_smoothing": "--label_smoothing_factor",
    "freeze": "--freeze_backbone",
    "freeze_encoder": "--freeze_backbone",
    "dropout_rate": "--dropout",
    "classifier_dropout": "--dropout",
    "save_dir": "--output_dir",
    "grad_accum_steps": "--gradient_accumulation_steps",
    "processing_class": "--tokenizer_name",
    "device": "--use_cpu true, or CUDA_VISIBLE_DEVICES in the environment",
}

# Why the option is not needed.
LEFT_OUT = {
    # transformers: the scripts
    "config_name": "the configuration is the model's own",
    "use_fast_tokenizer": _TOKENIZER,
    "use_slow_tokenizer": _TOKENIZER,
    "do_lower_case": _TOKENIZER,
    "remove_splits": "only the splits that are used are read; --train_split_name and the like choose them",
    "remove_columns": "only the columns of --text_column_names and --label_column_name are read",
    "pad_to_max_length": _PADDED,
    "shuffle_train_dataset": _SHUFFLED,
    "shuffle_seed": _SHUFFLED,
    "metric_name": "all usual metrics of the task are computed; --metric_for_best_model chooses among them, and "
    "--extra_metrics NAME --trust_remote_code true adds others",
    "model_type": "it is read from --model_name_or_path",
    "eval_all_checkpoints": "every checkpoint is evaluated when it is saved; trainer_state.json has the results",
    # transformers 4: TrainingArguments
    "overwrite_output_dir": "a run writes its files anew; --resume_from_checkpoint auto goes on with an earlier one",
    "save_safetensors": "weights are always saved as safetensors",
    "fp16_backend": "--fp16 uses torch's own",
    "half_precision_backend": "--fp16 and --bf16 use torch's own",
    "fp16_opt_level": "it was apex's; --fp16 uses torch's own",
    "use_ipex": "transformers 5 has no such option; --bf16 and --torch_compile speed up processors",
    "xpu_backend": "--ddp_backend names the backend",
    "jit_mode_eval": "transformers 5 has no such option; `bertcls export` makes a graph",
    "use_mps_device": _DEVICE,
    "past_index": "it is for models that keep a memory over batches, which encoders do not",
    "ray_scope": "--sweep needs no Ray",
    "tpu_num_cores": "the number of processes is `accelerate launch --num_processes`",
    "tpu_metrics_debug": "--debug tpu_metrics_debug is the same",
    "mp_parameters": "it was SageMaker's; `accelerate launch` starts several processes",
    "sharded_ddp": "transformers 5 has no such option; --fsdp and recipes/accelerate/fsdp2.yaml spread the weights",
    "use_legacy_prediction_loop": "there is one loop",
    "include_inputs_for_metrics": "the metrics need predictions and labels alone",
    # SetFit
    "multi_target_strategy": "lists of labels in the data make a multi-label task; --problem_type can force it",
    "use_differentiable_head": "the head is one; --head_init logistic starts it as a logistic regression",
    "metric": "all usual metrics of the task are computed; --metric_for_best_model chooses among them",
    "metric_kwargs": "all usual averages are computed; --metric_for_best_model macro_f1 chooses one",
    # AutoTrain
    "task": "it is inferred from the data; --problem_type can force it",
    "train": "a run trains; --do_train false does not",
    "backend": "a run is on this machine",
    "disable_gradient_checkpointing": "it is off; --gradient_checkpointing turns it on",
    "disable_gc": "it is off; --gradient_checkpointing turns it on",
    # simpletransformers
    "best_model_dir": "the best model is in --output_dir at the end",
    "save_best_model": "the best model is in --output_dir at the end",
    "save_model_every_epoch": _SAVED_ALWAYS,
    "save_eval_checkpoints": _SAVED_ALWAYS,
    "save_optimizer_and_scheduler": "checkpoints hold them, and --save_only_model true leaves them out",
    "evaluate_during_training": "the default, --eval_strategy epoch",
    "evaluate_each_epoch": "the default, --eval_strategy epoch",
    "evaluate_during_training_silent": "--disable_tqdm true hides the progress",
    "evaluate_during_training_verbose": "every evaluation is logged",
    "early_stopping_consider_epochs": "every evaluation counts; --eval_strategy epoch is the default",
    "labels_list": _FROM_DATA,
    "labels_map": _FROM_DATA,
    "num_labels": _FROM_DATA,
    "label_list": _FROM_DATA,
    "reprocess_input_data": "the cache is renewed where the data changed; --overwrite_cache forces it",
    "use_cached_eval_features": "tokenized data are cached",
    "use_multiprocessing": "--preprocessing_num_workers is the number of processes that tokenize",
    "use_multiprocessing_for_evaluation": "--preprocessing_num_workers is the number of processes that tokenize",
    "multiprocessing_chunksize": "--preprocessing_num_workers is the number of processes that tokenize",
    "thread_count": "set OMP_NUM_THREADS in the environment",
    "n_gpu": "`accelerate launch --num_processes` starts a process per GPU",
    "cuda_device": "set CUDA_VISIBLE_DEVICES in the environment",
    "model_class": "lists of labels in the data make a multi-label task",
    "not_saved_args": "recipe.yaml holds what repeats the run",
    "skip_special_tokens": "it is for text generation",
    "args": "a recipe or the command line has the options",
}

# Why there is no such option.
NOT_HERE = {
    # transformers: the scripts
    "server_ip": "a debugger is attached by `python -m debugpy`",
    "server_port": "a debugger is attached by `python -m debugpy`",
    "load_in_8bit": _QUANTISED,
    "load_in_4bit": _QUANTISED,
    "quantization": _QUANTISED,
    # SetFit
    "num_iterations": _ALL_PAIRS,
    "sampling_strategy": _ALL_PAIRS,
    "distance_metric": _ALL_PAIRS,
    "margin": _ALL_PAIRS,
    "samples_per_label": _ALL_PAIRS,
    "end_to_end": _ALL_PAIRS,
    "normalize_embeddings": "pooled vectors are used as they are; --pooling and --pooling_layers choose them",
    "head_params": "--head_init logistic chooses its own penalty; --sweep searches settings of a head",
    "model_init": "a new head is drawn by --seed",
    # AutoTrain
    "deploy": "`bertcls demo` and docs/serving.md serve a model",
    "inference": "`bertcls predict` classifies files",
    "data": _FLAT_RECIPE,
    "params": _FLAT_RECIPE,
    "hub": _FLAT_RECIPE,
    # simpletransformers
    "special_tokens_list": "the vocabulary is the tokenizer's own; --tokenizer_name can name another one",
    "no_save": "the trained model is saved always; --save_strategy no --load_best_model_at_end false saves no "
    "checkpoint",
    "loss_args": "--focal_gamma and --class_weights are the settings of a loss",
    "onnx": "`bertcls export` writes the trained model as ONNX",
    "dynamic_quantize": "`bertcls export --quantize int8` quantises the trained model",
    "quantized_model": "`bertcls export --quantize int8` quantises the trained model",
    "quantize": "`bertcls export --quantize int8` quantises the trained model",
    "threshold": "`bertcls predict --threshold` sets it; --calibrate finds one per label of a multi-label task",
}

# Options that carry a secret.
SECRETS = dict.fromkeys(("token", "use_auth_token", "push_to_hub_token", "hf_token", "auth_token", "api_key"), _TOKEN)

ANSWERS = {
    **{name: f"here it is {ours}" for name, ours in RENAMED.items()},
    **{name: f"leave it out: {reason}" for name, reason in LEFT_OUT.items()},
    **{name: f"there is none here: {reason}" for name, reason in NOT_HERE.items()},
    **SECRETS,
}


def answer(name: str, known: Collection[str]) -> str | None:
    """Returns the sentence that answers an option of another script, or None if there is none.

    Args:
        name: the option in the form `learning_rate`.
        known: the options of the command. A sentence that names another option is of no use to it.
    """
    sentence = ANSWERS.get(name)
    return sentence if sentence is not None and named_options(sentence) <= set(known) else None


def named_options(sentence: str) -> set[str]:
    """Returns the options of a training run that a sentence names, in the form `learning_rate`."""
    return set(re.findall(r"--(\w+)", re.sub(r"`[^`]*`", "", sentence)))
