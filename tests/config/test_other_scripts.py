"""Options of other scripts: each gets the right answer, however it is given, and never a wrong hint."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import bertcls_hf
from bertcls_hf.config.other_scripts import ANSWERS, LEFT_OUT, NOT_HERE, RENAMED, SECRETS, named_options
from bertcls_hf.config.parsing import OptionParser, parse_arguments
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.export.__main__ import parse as parse_export
from bertcls_hf.predict.__main__ import parse as parse_prediction
from bertcls_hf.run.command import COMMANDS
from tests.helpers.documentation import table_rows
from tests.helpers.reviews import ROOT


DATA = ["--train_file", "train.csv"]
MIGRATING = ROOT / "docs/migrating.md"


@pytest.fixture(scope="module")
def options() -> set[str]:
    return set(OptionParser().recipe_options())


def refusal(*tokens: str) -> str:
    with pytest.raises(ArgumentsError) as caught:
        parse_arguments([*tokens, "--use_cpu"])
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_every_one_is_answered_without_a_guess(name: str, options: set[str]) -> None:
    for spelling in (f"--{name}", f"--{name.replace('_', '-')}"):
        expected = f"unknown option {spelling}: {ANSWERS[name]}"
        assert refusal(*DATA, spelling) == refusal(*DATA, spelling, "x") == refusal(*DATA, f"{spelling}=x") == expected
    assert "did you mean" not in ANSWERS[name]
    assert name not in options
    # Every option that a sentence names exists, and so does every command.
    assert named_options(ANSWERS[name]) <= options
    assert {command for command in re.findall(r"`bertcls (\w+)", ANSWERS[name])} <= set(COMMANDS)


def test_an_answer_is_given_once() -> None:
    tables = (RENAMED, LEFT_OUT, NOT_HERE, SECRETS)
    assert sum(map(len, tables)) == len(ANSWERS) > 200


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("--max_train_steps 10", "here it is --max_steps"),
        ("--checkpointing_steps epoch", "here it is --save_strategy epoch, or --save_strategy steps --save_steps N"),
        ("--overwrite_output_dir", "leave it out: a run writes its files anew"),
        ("--metric_name f1", "leave it out: all usual metrics of the task are computed"),
        ("--pad_to_max_length False", "leave it out: a batch is padded to its longest text"),
        ("--config_name x", "leave it out: the configuration is the model's own"),
        ("--cache_dir c", "here it is HF_HOME=DIR in the environment"),
        ("--logging_dir runs", "here it is TENSORBOARD_LOGGING_DIR=DIR in the environment"),
        ("--mixed-precision fp16", "here it is --fp16 or --bf16"),
        ("--target-column label", "here it is --label_column_name"),
        ("--model bert-base-cased", "here it is --model_name_or_path"),
        ("--best_model_dir x", "leave it out: the best model is in --output_dir"),
        ("--username me", "here it is --hub_model_id USER/NAME"),
        ("--margin 0.2", "there is none here: --few_shot compares the cosines"),
    ],
)
def test_the_words_of_an_answer(tokens: str, expected: str) -> None:
    assert f": {expected}" in refusal(*DATA, *tokens.split())


@pytest.mark.parametrize("option", ["--token", "--use_auth_token", "--push_to_hub_token", "--hub_token"])
def test_a_token_is_refused_in_one_step_and_not_repeated(option: str) -> None:
    message = refusal(*DATA, option, "hf_secret")
    assert "`hf auth login`" in message
    assert "HF_TOKEN" in message
    assert "hf_secret" not in message
    assert "--hub_token" not in message or option == "--hub_token"


def test_a_recipe_and_python_get_the_same_answers(tmp_path: Path) -> None:
    path = tmp_path / "args.json"
    path.write_text(json.dumps({"train_file": "a.csv", "max-train-steps": 10}))
    assert refusal(str(path)) == f"recipe {path}: unknown option max-train-steps: here it is --max_steps"
    with pytest.raises(ArgumentsError, match="unknown option epochs: here it is --num_train_epochs"):
        bertcls_hf.train(train_file="a.csv", epochs=3)


def refusal_of(parse: Callable[[list[str]], object], *tokens: str) -> str:
    with pytest.raises(ArgumentsError) as caught:
        parse([*tokens])
    return str(caught.value)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--cache_dir", "unknown option --cache_dir: here it is HF_HOME=DIR in the environment"),
        ("--token", "unknown option --token: log in with `hf auth login`"),
        ("--text_column", "unknown option --text_column: here it is --text_column_names"),
        # What it is called in a training run is no option of these.
        ("--epochs", "unknown option --epochs (--help lists all options)"),
        ("--train_batch_size", "unknown option --train_batch_size (--help lists all options)"),
    ],
)
def test_other_commands_name_no_options_but_their_own(option: str, expected: str) -> None:
    assert refusal_of(parse_prediction, "model", option, "x").startswith(expected)
    assert refusal_of(parse_export, "model", "--output_dir", "out", option, "x").startswith(expected)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--learnin_rate", "learning_rate"), ("--max_seq_lenght", "max_seq_length"), ("--batchsize", "batch_size"),
        ("--text-column-name", "text_column_names"), ("--warmup_step", "warmup_steps"), ("--pooing", "pooling"),
        ("--no_push_to_hub", "push_to_hub"), ("--validation_fil", "validation_file"),
    ],
)  # fmt: skip
def test_a_misspelling_is_guessed(option: str, meant: str) -> None:
    assert refusal(*DATA, option, "1") == f"unknown option {option}; did you mean --{meant}?"


@pytest.mark.parametrize("option", ["--max_trained_names", "--rank", "--cache", "--log_dir", "--test_splits", "--tok"])
def test_other_words_are_not_guessed(option: str) -> None:
    assert refusal(*DATA, option, "1") == f"unknown option {option} (--help lists all options)"


def test_the_page_for_movers_and_the_answers_agree(options: set[str]) -> None:
    """What the page calls gone or renamed has an answer, which names an option of the page's."""
    for theirs, ours in (cells for cells in table_rows(MIGRATING) if len(cells) == 2):
        spans = [span for span in re.findall(r"`([^`]+)`", theirs) if re.fullmatch(r"(--)?[a-z][\w-]+( .*)?", span)]
        names = {span.split()[0].lstrip("-").replace("-", "_") for span in spans}
        unanswered = {name for name in names if name not in options and name not in ANSWERS}
        assert unanswered <= WORDS_OF_PYTHON, theirs
        assert not names & set(RENAMED) or not ours.startswith(("leave out:", "none")), theirs


# Calls, values and files, which are no options.
WORDS_OF_PYTHON = {"eval_accuracy", "predict_results.txt", "run_classification.py", "run_glue.py"}


class TestARecipeInJson:
    def test_it_comes_first_or_by_config(self, tmp_path: Path) -> None:
        path = tmp_path / "args.json"
        path.write_text(json.dumps({
            "train_file": "a.csv", "learning_rate": 1e-5, "do_predict": False, "max_seq_length": 64,
            "text_column_names": ["a", "b"], "lr_scheduler_kwargs": {"num_cycles": 2}, "hub_model_id": None,
        }, indent="\t"))  # fmt: skip
        for words in ([str(path)], ["--config", str(path)], [str(path), "--seed", "42"]):
            args, _ = parse_arguments([*words, "--use_cpu"])
            assert (args.training.learning_rate, args.data.max_seq_length) == (1e-5, 64)
            assert args.data.text_column_names == ["a", "b"]
            assert args.training.lr_scheduler_kwargs == {"num_cycles": 2}
            assert args.training.do_predict is False

    def test_an_escaped_emoji_is_one_character(self, tmp_path: Path) -> None:
        path = tmp_path / "args.json"
        path.write_text('\ufeff{"train_file": "a.csv", "label_delimiter": "\\ud83d\\ude00"}', encoding="utf-8")
        assert parse_arguments([str(path), "--use_cpu"])[0].data.label_delimiter == "😀"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("{", "not valid JSON: Expecting property name"),
            ('{"seed": 1, "seed": 2}', "seed is given twice"),
            ('["seed"]', "expected lines of the form"),
            ('{"seed": null}', "seed takes one value, not nothing"),
            ('{"text_column_names": ["a", null]}', "text_column_names: each item must be a text or a number"),
            ('{"hub_token": "hf_secret"}', "hub_token cannot stand in a recipe, since it is a secret"),
        ],
    )
    def test_a_wrong_one_is_refused_by_name(self, tmp_path: Path, text: str, expected: str) -> None:
        path = tmp_path / "args.json"
        path.write_text(text)
        message = refusal(str(path))
        assert message.startswith(f"recipe {path}: ")
        assert expected in message
        assert "hf_secret" not in message
