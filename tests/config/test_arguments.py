"""From recipes and command lines to checked arguments, and every way to refuse them."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from bertcls_hf.config.arguments import (
    ARGUMENT_CLASSES,
    REFUSED_OPTIONS,
    Arguments,
    ClassifierTrainingArguments,
    own_fields,
)
from bertcls_hf.config.parsing import OptionParser, parse_arguments
from bertcls_hf.errors import ArgumentsError, ExitCode
from tests.helpers.reviews import ROOT


DATA = ["--train_file", "train.csv"]


def parse(*tokens: str | Path) -> Arguments:
    return parse_arguments([*map(str, tokens), "--use_cpu"])[0]


def refusal(*tokens: str | Path) -> str:
    with pytest.raises(ArgumentsError) as caught:
        parse(*tokens)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


class TestRecipe:
    def test_the_command_line_wins_over_it(self, recipe: Callable[[str], Path]) -> None:
        path = recipe("train_file: a.csv\nlearning_rate: 3.0e-5\nmax_seq_length: 64\n")
        args = parse(path, "--learning_rate", "1e-4", "--train_path", "b.csv")
        assert (args.training.learning_rate, args.data.train_file, args.data.max_seq_length) == (1e-4, "b.csv", 64)

    @pytest.mark.parametrize(
        ("line", "name", "expected"),
        [
            # What YAML 1.1 makes of these is a text, false, 8, 90, a date and true.
            ("learning_rate: 1e-5", "learning_rate", 1e-5),
            ("eval_strategy: no", "eval_strategy", "no"),
            ("seed: 010", "seed", 10),
            ("run_name: 1:30", "run_name", "1:30"),
            ("run_name: 2026-01-02", "run_name", "2026-01-02"),
            ("resume_from_checkpoint: true", "resume_from_checkpoint", "true"),
            ("num_train_epochs: 2", "num_train_epochs", 2.0),
            ("learning_rate: '2.0e-5'", "learning_rate", 2e-5),
            ("do_predict: True", "do_predict", True),
            ("do_predict: no", "do_predict", False),
            ("per-device-eval-batch-size: 8", "per_device_eval_batch_size", 8),
            ("n_epochs: 4", "num_train_epochs", 4.0),
            ("hub_private_repo:", "hub_private_repo", None),
            ("hub_private_repo: null", "hub_private_repo", None),
        ],
    )
    def test_a_value_becomes_the_type_of_its_option(
        self, recipe: Callable[[str], Path], line: str, name: str, expected: Any
    ) -> None:
        args = parse(recipe(f"dataset_name: some/corpus\nload_best_model_at_end: false\n{line}\n"))
        value = getattr(args.training, name)
        assert value == expected
        assert isinstance(value, type(expected))

    @pytest.mark.parametrize("value", ["true", "false"])
    def test_a_choice_that_yaml_takes_for_a_truth_value_stays_a_text(
        self, recipe: Callable[[str], Path], value: str
    ) -> None:
        assert parse(recipe(f"train_file: a.csv\ncsv_header: {value}\n")).data.csv_header == value

    @pytest.mark.parametrize(
        "value", ["[premise, hypothesis]", "premise, hypothesis", "premise,hypothesis", "\n- premise\n- hypothesis"]
    )
    def test_a_list_is_written_in_any_way(self, recipe: Callable[[str], Path], value: str) -> None:
        args = parse(recipe(f"train_file: a.csv\ntext_column_names: {value}\n"))
        assert args.data.text_column_names == ["premise", "hypothesis"]

    def test_numbers_in_a_list_and_in_a_mapping(self, recipe: Callable[[str], Path]) -> None:
        path = recipe(
            "train_file: a.csv\nclass_weights: [0.5, 2]\nlr_scheduler_type: cosine_with_min_lr\n"
            "lr_scheduler_kwargs: {min_lr: 1e-7, num_cycles: 2}\n"
        )
        args = parse(path)
        assert args.model.class_weights == ["0.5", "2"]
        assert args.training.lr_scheduler_kwargs == {"min_lr": 1e-7, "num_cycles": 2}

    @pytest.mark.parametrize("spelling", ["first", "--config PATH", "--config=PATH", "--config at the end"])
    def test_it_is_named_in_any_way(self, recipe: Callable[[str], Path], spelling: str) -> None:
        path = str(recipe("train_file: a.csv\nseed: 7\n"))
        options = {
            "first": [path, "--max_length", "32"],
            "--config PATH": ["--config", path, "--max_length", "32"],
            "--config=PATH": [f"--config={path}", "--max_length", "32"],
            "--config at the end": ["--max_length", "32", "--config", path],
        }[spelling]
        args = parse(*options)
        assert (args.training.seed, args.data.max_seq_length) == (7, 32)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("learnin_rate: 1.0e-5", "unknown option learnin_rate; did you mean learning_rate?"),
            ("evaluation_strategy: epoch", "unknown option evaluation_strategy: here it is --eval_strategy"),
            ("group_by_length: true", "unknown option group_by_length: here it is --train_sampling_strategy"),
            ("zzz: 1", "unknown option zzz (--help lists all options)"),
            ("config: other.yaml", "unknown option config"),
            ("help: true", "unknown option help"),
            ("no_load_best_model_at_end: true", "did you mean load_best_model_at_end?"),
            ("seed: 1\nseed: 2", "seed is given twice"),
            ("max_seq_length: 8\nmax-seq-length: 9", "max_seq_length is given twice"),
            ("max_seq_length: 8\nmax_length: 9", "--max_seq_length and --max_length set one option"),
            ("seed: !!python/object/apply:os.system ['true']", "not valid YAML: could not determine a constructor"),
            ("seed: !!binary aGk=", "seed takes one value, not something else"),
            ("- seed\n- 1", "expected lines of the form `option: value`"),
            ("seed", "expected lines of the form"),
            ("", "expected lines of the form"),
            ("seed: [1", "not valid YAML: while parsing a flow sequence"),
            ("seed: 1\n---\nseed: 2", "not valid YAML: expected a single document"),
            ("seed: 1.5", "--seed: invalid int value: '1.5'"),
            ("dropout: a lot", "--dropout: invalid float value: 'a lot'"),
            ("pooling: median", "--pooling: invalid choice: 'median'"),
            ("boost: maybe", "--boost: Truthy value expected: got maybe"),
            ("save_total_limit: null", "save_total_limit takes one value, not nothing"),
            ("output_dir: [a, b]", "output_dir takes one value, not a list"),
            ("output_dir: {a: b}", "output_dir takes one value, not a mapping"),
            ("text_column_names: {a: b}", "text_column_names takes values, not a mapping"),
            ("text_column_names: [a, null]", "text_column_names: each item must be a text or a number"),
            ("text_column_names: []", "--text_column_names: expected at least one argument"),
        ],
    )
    def test_a_wrong_one_is_refused_by_name(self, recipe: Callable[[str], Path], text: str, expected: str) -> None:
        path = recipe(text + "\n")
        message = refusal(path)
        assert message.startswith(f"recipe {path}: ")
        assert expected in message

    @pytest.mark.parametrize(
        "text",
        [
            "trust_remote_code: true",
            "trust_remote_code: false",
            "trust-remote-code: true",
            "hub_token: hf_secret",
            "text_column_names: [a, --trust_remote_code, 'true']",
            "text_column_names: [a, --trust-remote-code=true]",
            "class_weights: [balanced, --hub_token=hf_secret]",
            "output_dir: [a, --trust_remote_code=true]",
        ],
    )
    def test_it_can_neither_run_code_nor_carry_a_secret(self, recipe: Callable[[str], Path], text: str) -> None:
        message = refusal(recipe(f"train_file: a.csv\n{text}\n"))
        assert re.search(r"cannot stand in a recipe|none can start with a dash|not a list", message)
        assert "hf_secret" not in message

    def test_aliases_within_each_other_are_refused(self, recipe: Callable[[str], Path]) -> None:
        """Nine lines would stand for a billion values."""
        lines = ["a: &a {x: 1}"] + [f"{n}: &{n} {{x: *{p}, y: *{p}}}" for p, n in itertools.pairwise("abcdefghi")]
        message = refusal(recipe("\n".join([*lines, "lr_scheduler_kwargs: *i"])))
        assert "an alias (*name) stands for a list or mapping: write it out" in message
        assert parse(recipe("train_file: &file a.csv\noutput_dir: *file\n")).training.output_dir == "a.csv"

    def test_a_dash_may_start_a_single_text(self, recipe: Callable[[str], Path]) -> None:
        args = parse(recipe("train_file: a.csv\nlabel_delimiter: --trust_remote_code=true\n"))
        assert args.data.label_delimiter == "--trust_remote_code=true"
        assert not args.model.trust_remote_code

    def test_what_it_may_not_say_the_command_line_may(self, recipe: Callable[[str], Path]) -> None:
        assert parse(recipe("train_file: a.csv\n"), "--trust_remote_code", "true").model.trust_remote_code

    def test_files_that_cannot_be_read_are_refused(self, tmp_path: Path) -> None:
        latin = tmp_path / "latin.yaml"
        latin.write_bytes("output_dir: caf\xe9\n".encode("latin-1"))
        assert refusal(tmp_path / "none.yaml").endswith("none.yaml: No such file or directory")
        assert refusal("--config", tmp_path).endswith("Is a directory")
        assert "not a UTF-8 text file" in refusal(latin)

    def test_there_is_one_at_most(self, recipe: Callable[[str], Path]) -> None:
        path = recipe("train_file: a.csv\n")
        assert refusal(path, "--config", path).startswith("two recipes")

    def test_a_byte_order_mark_is_skipped(self, recipe: Callable[[str], Path]) -> None:
        assert parse(recipe("\ufefftrain_file: a.csv\n")).data.train_file == "a.csv"


class TestCommandLine:
    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            (["--learnin_rate", "1"], "unknown option --learnin_rate; did you mean --learning_rate?"),
            (["--learnin-rate=1"], "unknown option --learnin-rate; did you mean --learning_rate?"),
            (["--no_cuda"], "unknown option --no_cuda: here it is --use_cpu"),
            (["--max_seq_len", "1"], "unknown option --max_seq_len: here it is --max_seq_length"),
            (["-x"], "unknown option -x (--help lists all options)"),
            (["--zzz"], "unknown option --zzz (--help lists all options)"),
            (
                ["recipe.json"],
                "unexpected argument 'recipe.json': options start with --, and a recipe (.yaml or .json)",
            ),
            (["--seed", "x"], "--seed: invalid int value: 'x'"),
            (["--max_seq_length"], "--max_seq_length: expected one argument"),
            (["--config"], "--config: expected one argument"),
            (["--head", "big"], "--head: invalid choice: 'big' (choose from"),
            (["--lr", "1e-3", "--head_learning_rate", "1e-3"], "--lr and --head_learning_rate set one option"),
            (["--hub_token", "hf_secret"], "--hub_token would leave a secret in files"),
        ],
    )
    def test_a_wrong_one_is_refused_by_name(self, tokens: list[str], expected: str) -> None:
        message = refusal(*DATA, *tokens)
        assert message.startswith(expected)
        assert "hf_secret" not in message

    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            (["--boost"], True),
            (["--boost", "True"], True),
            (["--boost", "true"], True),
            (["--boost=yes"], True),
            (["--boost", "1"], True),
            (["--boost", "False"], False),
            (["--boost=no"], False),
            ([], False),
        ],
    )
    def test_truth_values(self, tokens: list[str], expected: bool) -> None:
        assert parse(*DATA, *tokens).boost.boost is expected

    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            (["--freeze_backbone"], True),
            (["--freeze_backbone", "True"], True),
            (["--freeze_backbone", "false"], False),
            (["--bert_finetuning"], False),
            (["--bert_finetuning", "True"], False),
            (["--bert_finetuning", "False"], True),
            (["--bert-finetuning=false"], True),
            ([], False),
        ],
    )
    def test_options_of_three_states_and_the_negated_one(self, tokens: list[str], expected: bool) -> None:
        assert parse(*DATA, *tokens).model.freeze_backbone is expected

    def test_the_last_of_two_wins(self) -> None:
        assert parse(*DATA, "--seed", "1", "--seed", "2").training.seed == 2

    @pytest.mark.parametrize("tokens", [["a", "b"], ["a,b"], ["a, b"], ["a,", "b"]])
    def test_columns_are_separated_by_blanks_or_commas(self, tokens: list[str]) -> None:
        assert parse(*DATA, "--text_column_names", *tokens).data.text_column_names == ["a", "b"]

    def test_class_weights_are_separated_by_blanks_or_commas(self) -> None:
        assert parse(*DATA, "--class_weights", "0.5,2").model.class_weights == ["0.5", "2"]

    def test_given_options_are_returned_by_field_name(self) -> None:
        _, options = parse_arguments([*DATA, "--lr", "1e-2", "--bert_finetuning", "false", "--use_cpu"])
        assert options == {
            "train_file": "train.csv", "head_learning_rate": 0.01, "freeze_backbone": True, "use_cpu": True,
        }  # fmt: skip


class TestSeedCommand:
    COMMAND = (
        "--train_path a.csv --valid_path b.csv --max_length 128 --save_path out --bert_name some/bert "
        "--bert_finetuning False --dropout_p 0.2 --boost True --n_epochs 7 --lr 3e-3 --lr_main 1e-5 --early_stop 4 "
        "--batch_size 16 --gradient_accumulation_steps 4"
    ).split()

    def test_every_option_means_what_it_meant(self) -> None:
        args = parse(*self.COMMAND)
        data, model, training = args.data, args.model, args.training
        assert (data.train_file, data.validation_file, data.test_file) == ("a.csv", "b.csv", None)
        assert (data.max_seq_length, training.output_dir, model.model_name_or_path) == (128, "out", "some/bert")
        assert (model.freeze_backbone, model.dropout, args.boost.boost) == (True, 0.2, True)
        assert (training.num_train_epochs, training.head_learning_rate, training.learning_rate) == (7.0, 3e-3, 1e-5)
        assert training.early_stopping_patience == 4
        # The seed divides the batch by the accumulation.
        assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (4, 4)

    def test_the_example_of_its_readme_works(self) -> None:
        tokens = (
            "--train_path source/train.csv --valid_path source/test.csv --batch_size 16 "
            "--gradient_accumulation_steps 4 --boost True"
        )
        args = parse(*tokens.split())
        assert args.boost.boost
        assert args.model.freeze_backbone
        assert args.training.per_device_train_batch_size == 4
        assert args.head_learning_rate == 1e-3

    def test_early_stopping_is_off_at_minus_one(self) -> None:
        assert parse(*DATA, "--early_stop", "-1").training.early_stopping_patience == -1

    def test_its_names_work_in_a_recipe_too(self, recipe: Callable[[str], Path]) -> None:
        path = recipe("train_path: a.csv\nbert_finetuning: false\nlr: 3.0e-3\nearly_stop: 4\n")
        args = parse(path, "--head_learning_rate", "1e-2")
        assert args.model.freeze_backbone
        assert (args.head_learning_rate, args.training.early_stopping_patience) == (1e-2, 4)


class TestBatchSize:
    @pytest.mark.parametrize("value", ["0", "-4", "6", "2"])
    def test_it_is_a_multiple_of_the_accumulation(self, value: str) -> None:
        message = refusal(*DATA, "--batch_size", value, "--gradient_accumulation_steps", "4")
        assert message == (
            f"--batch_size {value} is the total of 4 --gradient_accumulation_steps: it must be a multiple of 4"
        )

    def test_no_accumulation_is_an_error_and_no_division_by_zero(self) -> None:
        message = refusal(*DATA, "--batch_size", "4", "--gradient_accumulation_steps", "0")
        assert message == "--gradient_accumulation_steps 0: must be 1 or more"

    def test_both_names_in_one_source_are_refused(self, recipe: Callable[[str], Path]) -> None:
        expected = "--batch_size and --per_device_train_batch_size set the same thing: give one of them"
        assert refusal(*DATA, "--batch_size", "8", "--per_device_train_batch_size", "8") == expected
        path = recipe("train_file: a.csv\nbatch_size: 8\nper_device_train_batch_size: 8\n")
        assert refusal(path) == expected

    @pytest.mark.parametrize(
        ("in_recipe", "on_command_line", "expected"),
        [
            ("batch_size: 32", ["--per_device_train_batch_size", "4"], 4),
            ("per_device_train_batch_size: 32", ["--batch_size", "8"], 4),
            ("batch_size: 32", ["--batch_size", "8"], 4),
            ("batch_size: 32", ["--gradient_accumulation_steps", "4"], 8),
        ],
    )
    def test_the_command_line_replaces_either_name(
        self, recipe: Callable[[str], Path], in_recipe: str, on_command_line: list[str], expected: int
    ) -> None:
        path = recipe(f"train_file: a.csv\ngradient_accumulation_steps: 2\n{in_recipe}\n")
        assert parse(path, *on_command_line).training.per_device_train_batch_size == expected


class TestSources:
    def test_a_hub_dataset_and_files_exclude_each_other(self, recipe: Callable[[str], Path]) -> None:
        expected = "--dataset_name and --train_file set the same thing: give one of them"
        assert refusal("--dataset_name", "a/b", "--train_file", "a.csv") == expected
        assert refusal(recipe("dataset_name: a/b\ntrain_file: a.csv\n")) == expected

    def test_files_on_the_command_line_replace_the_recipes_dataset_and_its_splits(
        self, recipe: Callable[[str], Path]
    ) -> None:
        path = recipe(
            "dataset_name: a/b\ndataset_config_name: c\ndataset_revision: d\ntrain_split_name: e\n"
            "validation_split_name: f\ntest_split_name: g\nmax_seq_length: 16\n"
        )
        data = parse(path, "--train_file", "a.csv").data
        assert (data.dataset_name, data.dataset_config_name, data.train_split_name) == (None, None, "train")
        assert (data.train_file, data.max_seq_length) == ("a.csv", 16)

    def test_a_dataset_on_the_command_line_replaces_the_recipes_files(self, recipe: Callable[[str], Path]) -> None:
        path = recipe("train_file: a.csv\ntest_file: b.csv\nmax_seq_length: 16\n")
        data = parse(path, "--dataset_name", "a/b", "--test_split_name", "held_out").data
        assert (data.dataset_name, data.train_file, data.test_file) == ("a/b", None, None)
        assert (data.test_split_name, data.max_seq_length) == ("held_out", 16)

    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            ([], "no training data: give --train_file or --dataset_name"),
            (["--test_file", "a.csv"], "no training data"),
            (["--do_eval"], "no data: give --dataset_name, --train_file, --validation_file or --test_file"),
            ([*DATA, "--do_predict"], "--do_predict reads the test data: give --test_file or --dataset_name"),
            ([*DATA, "--dataset_revision", "a"], "--dataset_revision belong to --dataset_name, which is not given"),
            (
                [*DATA, "--train_split_name", "a", "--test_split_name", "b"],
                "--test_split_name and --train_split_name belong to --dataset_name",
            ),
            ([*DATA, "--text_column_names", "a", "b", "c"], "--text_column_names takes one column or two different"),
            (
                [*DATA, "--text_column_names", "a,b,c"],
                "--text_column_names takes one column or two different ones, got ['a', 'b', 'c']; "
                "--text_column_delimiter joins any number of them into one text",
            ),
            (
                [*DATA, "--text_column_delimiter", " "],
                "--text_column_delimiter joins --text_column_names, which is not given",
            ),
            (
                [*DATA, "--text_column_names", "a,b,a", "--text_column_delimiter", " "],
                "--text_column_names takes different columns, got ['a', 'b', 'a']",
            ),
            ([*DATA, "--text_column_names", "a,a"], "--text_column_names takes one column or two different"),
            ([*DATA, "--text_column_names", ""], "--text_column_names takes one column or two different"),
            (
                [*DATA, "--text_column_names", "a,b", "--label_column_name", "b"],
                "--label_column_name b is also a text column",
            ),
            ([*DATA, "--label_delimiter="], "--label_delimiter is empty"),
        ],
    )
    def test_data_that_cannot_be_is_refused(self, tokens: list[str], expected: str) -> None:
        assert refusal(*tokens).startswith(expected)

    @pytest.mark.parametrize("delimiter", [" ", "", " [SEP] "])
    @pytest.mark.parametrize("names", ["a", "a,b", "a,b,c,d"])
    def test_a_delimiter_joins_any_number_of_columns(self, names: str, delimiter: str) -> None:
        data = parse(*DATA, "--text_column_names", names, "--text_column_delimiter", delimiter).data
        assert (data.text_column_names, data.text_column_delimiter) == (names.split(","), delimiter)

    def test_a_part_of_train_can_be_predicted(self) -> None:
        assert parse(*DATA, "--do_predict", "--test_split_percentage", "10").training.do_predict


class TestPhases:
    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            ("", "train eval"),
            ("--do_train", "train eval"),
            ("--do_train --do_eval --do_predict", "train eval predict"),
            ("--do_train --do_predict", "train eval predict"),
            ("--do_eval", "eval"),
            ("--do_predict", "predict"),
            ("--do_eval --do_predict", "eval predict"),
            ("--do_train false", "eval"),
            ("--do_train false --do_predict", "predict"),
            ("--do_train --do_eval false", "train"),
            ("--do_eval false", "train"),
            ("--do_train false --eval_strategy no", "eval"),
        ],
    )
    def test_what_a_run_does(self, tokens: str, expected: str) -> None:
        training = parse("--dataset_name", "a/b", *tokens.split()).training
        assert [
            phase for phase in ("train", "eval", "predict") if getattr(training, f"do_{phase}")
        ] == expected.split()

    def test_nothing_to_do_is_an_error(self) -> None:
        assert refusal(*DATA, "--do_train=false", "--do_eval=false").startswith("nothing to do")


class TestContradictions:
    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            (
                "--bert_finetuning true --freeze_backbone true",
                "--bert_finetuning and --freeze_backbone set one option",
            ),
            ("--num_train_epochs 0", "--num_train_epochs 0 trains nothing"),
            ("--head_init logistic", "--head_init logistic reads cached features"),
            ("--boost --trainable_layers 2", "--boost caches features that never change"),
            ("--freeze_backbone --boost_dtype float16", "--boost_dtype float16 is for cached features"),
            ("--freeze_backbone --boost_storage int8", "--boost_storage int8 is for cached features"),
            ("--freeze_backbone --trainable_layers 2", "--freeze_backbone trains no layer"),
            ("--freeze_backbone false --trainable_layers 0", "--trainable_layers 0 freezes the backbone"),
            ("--pooling pooler --pooling_layers 2", "--pooling pooler reads the last layer alone"),
            ("--focal_gamma 3", "--focal_gamma is for --loss focal, not auto"),
            ("--boost --learning_rate 1e-4", "--learning_rate is the backbone's, which is frozen"),
            ("--trainable_layers 0 --learning_rate 1e-4", "--learning_rate is the backbone's, which is frozen"),
            (
                "--freeze_backbone --layerwise_lr_decay 0.9",
                "--layerwise_lr_decay is for the backbone, which is frozen",
            ),
            ("--freeze_backbone --neftune_noise_alpha 5", "--neftune_noise_alpha needs embeddings that learn"),
            ("--freeze_backbone --attention_dropout 0", "--attention_dropout is for an encoder that learns"),
            ("--attention_dropout 1", "--attention_dropout 1.0: must lie in [0, 1)"),
            ("--trainable_layers 1 --neftune_noise_alpha 5", "--neftune_noise_alpha needs embeddings that learn"),
            ("--early_stop 2 --eval_strategy no", "--early_stopping_patience needs evaluations"),
            ("--early_stop 2 --load_best_model_at_end false", "--early_stopping_patience keeps the best model"),
            ("--early_stop 2 --no_load_best_model_at_end", "--early_stopping_patience keeps the best model"),
            ("--early_stopping_threshold 0.1", "--early_stopping_threshold needs --early_stopping_patience"),
            ("--extra_metrics accuracy", "--extra_metrics runs code from the Hub or a file"),
            (
                "--gradient_checkpointing --activation_checkpointing false",
                "--activation_checkpointing and --gradient_",
            ),
            ("--optim galore_adamw", "--optim galore_adamw takes no --head_learning_rate"),
            ("--save_strategy no", "--load_best_model_at_end requires the save and eval strategy to match"),
        ],
    )
    def test_they_are_refused(self, tokens: str, expected: str) -> None:
        assert refusal(*DATA, *tokens.split()).startswith(expected)

    @pytest.mark.parametrize("spelling", ["--freeze_backbone false", "--bert_finetuning true"])
    def test_boost_and_fine_tuning_train_the_head_first(self, spelling: str) -> None:
        args = parse(*DATA, "--boost", *spelling.split())
        assert args.is_head_then_all
        assert (args.head_learning_rate, args.training.learning_rate) == (1e-3, 2e-5)

    def test_a_recipe_is_no_part_of_one_that_the_command_line_solves(self, recipe: Callable[[str], Path]) -> None:
        path = recipe("train_file: a.csv\nfreeze_backbone: true\n")
        assert not parse(path, "--bert_finetuning", "true").model.freeze_backbone
        path = recipe("train_file: a.csv\nboost: true\n")
        args = parse(path, "--boost", "false", "--learning_rate", "1e-4")
        assert (args.model.freeze_backbone, args.head_learning_rate) == (False, 1e-4)

    @pytest.mark.parametrize("tokens", ["--boost", "--freeze_backbone", "--trainable_layers 0"])
    def test_all_ways_to_freeze_are_one(self, tokens: str) -> None:
        args = parse(*DATA, *tokens.split(), "--lr", "1e-2", "--lr_main", "1e-4")
        assert args.model.has_frozen_backbone
        assert args.model.freeze_backbone
        assert args.head_learning_rate == 1e-2

    def test_without_evaluations_there_is_no_best_model(self) -> None:
        assert not parse(*DATA, "--eval_strategy", "no").training.load_best_model_at_end


class TestRanges:
    @pytest.mark.parametrize(
        "tokens",
        [
            "--dropout -0.1", "--dropout 1", "--dropout nan", "--trainable_layers -1", "--pooling_layers 0",
            "--focal_gamma -1", "--validation_split_percentage -1", "--validation_split_percentage 100",
            "--test_split_percentage 100", "--max_train_samples 0", "--max_eval_samples -1", "--max_predict_samples 0",
            "--preprocessing_num_workers 0", "--max_seq_length 2", "--split_seed -1", "--seed -1", "--data_seed -1",
            "--seed 4294967296", "--early_stopping_patience 0", "--early_stopping_patience -2",
            "--early_stopping_threshold -1", "--layerwise_lr_decay 0", "--layerwise_lr_decay 1.1",
            "--label_smoothing_factor 1", "--label_smoothing_factor -0.1", "--head_num_train_epochs -1",
            "--num_train_epochs -1", "--num_train_epochs inf", "--learning_rate -1", "--learning_rate nan",
            "--head_learning_rate 0", "--head_learning_rate -1", "--weight_decay -1", "--weight_decay nan",
            "--save_total_limit -1", "--gradient_accumulation_steps 0", "--per_device_train_batch_size 0",
            "--per_device_eval_batch_size 0",
        ],
    )  # fmt: skip
    def test_a_value_beyond_them_is_refused_by_name(self, tokens: str) -> None:
        option, value = tokens.split()
        message = refusal(*DATA, option, value)
        assert message.startswith(option)
        assert re.search(r": must (be|lie)", message)

    def test_what_transformers_itself_refuses_is_an_arguments_error(self) -> None:
        assert refusal(*DATA, "--warmup_steps", "-1").startswith("Got warmup_steps")
        assert "No such file" in refusal(*DATA, "--accelerator_config", "none.json")


class TestInheritedOptions:
    VALUES = {"include_for_metrics": ["inputs"], "label_names": ["a"], "optim_target_modules": "query"}

    @pytest.mark.parametrize("name", sorted(REFUSED_OPTIONS))
    def test_what_would_break_or_do_nothing_is_refused_with_the_reason(self, name: str) -> None:
        default = {f.name: f.default for f in fields(TrainingArguments)}[name]
        changed = not default if isinstance(default, bool) else self.VALUES.get(name, "checkpoint")
        with pytest.raises(ArgumentsError, match=f"--{name} cannot be used: {re.escape(REFUSED_OPTIONS[name])}"):
            ClassifierTrainingArguments(use_cpu=True, **{name: changed})

    def test_refused_options_exist(self) -> None:
        assert set(REFUSED_OPTIONS) <= {f.name for f in fields(TrainingArguments)}

    def test_a_class_docstring_lists_the_defaults_that_differ(self) -> None:
        defaults = {f.name: f.default for f in fields(TrainingArguments)}
        doc = ClassifierTrainingArguments.__doc__ or ""
        differing = [
            f.name
            for f in own_fields(ClassifierTrainingArguments)
            if f.name in defaults and f.default != defaults[f.name] and not f.name.startswith("do_")
        ]
        assert [name for name in differing if name not in doc] == []

    def test_others_pass_through(self) -> None:
        training = parse(*DATA, "--lr_scheduler_type", "cosine", "--logging_first_step", "--dataloader-num-workers=2")
        assert training.training.lr_scheduler_type == "cosine"
        assert training.training.logging_first_step is True
        assert training.training.dataloader_num_workers == 2


class TestOwnFields:
    def test_they_have_help_and_a_default(self) -> None:
        own = [f for argument_class in ARGUMENT_CLASSES for f in own_fields(argument_class)]
        assert len(own) > 60
        assert [f.name for f in own if not f.metadata.get("help", "").endswith(".")] == []

    def test_their_names_are_unique_over_all_classes(self) -> None:
        names = [f.name for argument_class in ARGUMENT_CLASSES for f in fields(argument_class) if f.init]
        assert len(names) == len(set(names))

    def test_every_option_can_be_set_in_a_recipe(self) -> None:
        names = {f.name for argument_class in ARGUMENT_CLASSES for f in fields(argument_class) if f.init}
        assert names <= set(OptionParser().recipe_options())


class TestScript:
    """The real script, in a process of its own."""

    HEAVY = ("datasets", "sklearn", "transformers.trainer", "bertcls_hf.models.modeling")

    def test_help_lists_every_option_and_exits_with_0(self) -> None:
        result = self.run("run_classification.py", "--help")
        assert result.returncode == 0
        shown = set(re.findall(r"--(\w+)", result.stdout))
        names = {f.name for argument_class in ARGUMENT_CLASSES for f in fields(argument_class) if f.init}
        assert names - set(REFUSED_OPTIONS) <= shown
        assert {"config", "bert_finetuning", "lr", "lr_main"} <= shown
        assert shown.isdisjoint(REFUSED_OPTIONS)

    @pytest.mark.parametrize("in_recipe", [True, False], ids=["recipe", "command line"])
    def test_a_wrong_option_is_one_line_and_exit_code_2_before_anything_is_loaded(
        self, recipe: Callable[[str], Path], in_recipe: bool
    ) -> None:
        argv = [str(recipe("learnin_rate: 1\n"))] if in_recipe else ["--learnin_rate", "1"]
        code = (
            "import json, sys; from bertcls_hf.run import main; code = main(sys.argv[1:]); "
            f"print(json.dumps([name for name in {self.HEAVY!r} if name in sys.modules])); sys.exit(code)"
        )
        result = self.run("-c", code, *argv)
        assert result.returncode == ExitCode.BAD_ARGUMENTS
        assert json.loads(result.stdout) == []
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert "did you mean" in line

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_resumed_run_cannot_lose_its_patience(command: Callable[..., list[str]]) -> None:
    with pytest.raises(ArgumentsError, match="always goes on with the patience"):
        parse_arguments(command(restore_callback_states_from_checkpoint=False))
    parse_arguments(command(restore_callback_states_from_checkpoint=True, ddp_find_unused_parameters=False))
