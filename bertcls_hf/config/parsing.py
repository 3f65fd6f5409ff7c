"""Parses a recipe (YAML, or JSON) and a command line into checked [`Arguments`].

A recipe is a flat mapping from option names to values. An option on the command line overrides the recipe, even if the
two use different spellings of its name.
"""

import argparse
import difflib
import json
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from transformers.hf_argparser import HfArgumentParser, string_to_bool
from transformers.training_args import TrainingArguments

from bertcls_hf.config.arguments import (
    ARGUMENT_CLASSES,
    FEW_SHOT_DEFAULTS,
    PUSH_OPTIONS,
    REFUSED_OPTIONS,
    WITHOUT_LABELS_DEFAULTS,
    Arguments,
    configured_precision,
)
from bertcls_hf.config.cross_checks import checked
from bertcls_hf.config.other_scripts import answer
from bertcls_hf.errors import ArgumentsError, one_line


# The recipe that a run writes into its output_dir, and that repeats the run.
RECIPE_FILE = "recipe.yaml"
PROGRAM = "run_classification.py"
USAGE = "%(prog)s [RECIPE.yaml] [--option value ...]"
DESCRIPTION = """Fine-tunes a BERT-family encoder for text classification, or trains a head on its frozen features.
The optional recipe is a YAML or JSON file of these options; options given on the command line win over it."""
# Options that set another option to the opposite value.
NEGATED_OPTIONS = {"bert_finetuning": "freeze_backbone"}
# A recipe cannot set these options, because a recipe from elsewhere must not run code, and no recipe should contain a
# secret. The value is the reason in the error.
COMMAND_LINE_ONLY = {"trust_remote_code": "it lets a model run code", "hub_token": "it is a secret"}
# Pairs of sets of options. Options of one set exclude those of the other. If the command line gives an option of one
# set, the recipe's options of the other set are dropped.
EXCLUSIVE_OPTIONS = (
    ({"batch_size"}, {"per_device_train_batch_size"}),
    ({"dataset_name"}, {"train_file", "validation_file", "test_file"}),
    ({"activation_checkpointing"}, {"gradient_checkpointing"}),
    ({"activation_checkpointing_kwargs"}, {"gradient_checkpointing_kwargs"}),
)
# Options that only have a meaning together with another option. If that option is dropped, they are dropped too.
COMPANIONS = {
    "dataset_name": {
        "dataset_config_name", "dataset_revision", "train_split_name", "validation_split_name", "test_split_name",
    },
}  # fmt: skip
# How similar an unknown option must be to a known one to be taken for its misspelling; 1 is equal. At 0.8 and below,
# other words are taken for misspellings, such as `max_train_steps` for `max_train_samples`.
MISSPELLED = 0.86
RECIPE_SUFFIXES = (".yaml", ".yml", ".json")
# The reason why an option takes fewer values than in transformers.
REFUSED_CHOICES = {"hub_strategy": "checkpoints, with the state of their optimizer, stay here"}
VALUE_NAMES = {int: "N", float: "X", str: "TEXT", string_to_bool: "{true,false}"}
_UNSET: Any = object()


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Leaves the spelling with hyphens of each option, and defaults of None, out of the help."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = [name for name in action.option_strings if "-" not in name.lstrip("-")]
        value = "" if action.nargs == 0 else " " + self._format_args(action, action.dest.upper())
        return ", ".join(names) + value

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class DataclassParser(HfArgumentParser):
    """`HfArgumentParser` that raises [`ArgumentsError`] instead of exiting, and has a shorter help."""

    def __init__(self, argument_classes: Sequence[type], **texts: str):
        super().__init__(argument_classes, allow_abbrev=False, formatter_class=_HelpFormatter, **texts)
        for action in self._actions:
            self._adapt(action)

    def _adapt(self, action: argparse.Action) -> None:
        """Lets `bool | None` options be given without a value, as `bool` options can, and simplifies the help."""
        if action.type is string_to_bool and action.nargs is None:
            action.nargs, action.const = "?", True
        if action.choices is None and action.metavar is None and action.nargs != 0:
            action.metavar = VALUE_NAMES.get(action.type, "VALUE")
        if isinstance(action, argparse._StoreFalseAction):
            action.help, action.default = f"The same as --{action.dest} false.", argparse.SUPPRESS
        if action.dest in REFUSED_OPTIONS:
            action.help = argparse.SUPPRESS

    def parse_command(self, argv: Sequence[str], advice: str) -> tuple[Any, argparse.Namespace]:
        """Parses the command line of a program with a single argument class.

        Args:
            argv: the arguments after the program's name.
            advice: appended to the error of an argument that is not an option.

        Returns:
            An instance of the argument class, and the values of the options that were added with `add_argument`.

        Raises:
            ArgumentsError: an unknown option or argument.
        """
        options, others, unknown = self.parse_args_into_dataclasses(
            list(argv), return_remaining_strings=True, look_for_args_file=False
        )
        if unknown and unknown[0].startswith("-"):
            known = [f.name for f in fields(options)]
            raise ArgumentsError(unknown_option(unknown[0], known, "--"))
        if unknown:
            raise ArgumentsError(f"unexpected argument {unknown[0]!r}: {advice}")
        return options, others

    def error(self, message: str) -> Any:
        """Raises instead of printing the usage, because the usage is hundreds of lines long.

        Raises:
            ArgumentsError: always, with the message.
        """
        message = re.sub(r"^argument (--\w+)[^:]*:", r"\1:", message)
        reason = REFUSED_CHOICES.get(_option_name(message.partition(":")[0])) if "invalid choice" in message else None
        raise ArgumentsError(f"{message}: {reason}" if reason else message)


class OptionParser(DataclassParser):
    """The parser of all options of a run, including `--config` and the negated options."""

    def __init__(self, program: str = PROGRAM) -> None:
        super().__init__(ARGUMENT_CLASSES, prog=program, usage=USAGE, description=DESCRIPTION)
        self.add_argument("--config", metavar="RECIPE.yaml", help="The recipe, where it is not the first argument.")
        for name, option in NEGATED_OPTIONS.items():
            self.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=option, type=_negated_bool, nargs="?",
                              const=False, default=argparse.SUPPRESS, metavar=VALUE_NAMES[string_to_bool],
                              help=f"The negation of --{option}.")  # fmt: skip

    def recipe_options(self) -> dict[str, argparse.Action]:
        """Returns the options that a recipe may set, by each of their names in the form `learning_rate`."""
        return {
            _option_name(option): action
            for option, action in self._option_string_actions.items()
            if action.nargs != 0 and action.dest != "config"
        }

    def explicit_values(self, tokens: Sequence[str]) -> dict[str, Any]:
        """Parses tokens and leaves out the options that they do not give.

        Args:
            tokens: arguments of a command line, such as `["--pooling", "mean"]`.

        Returns:
            The given options by field name, converted to the type of the field.

        Raises:
            ArgumentsError: an unknown option, a value of another type, or two spellings of one option.
        """
        self._refuse_two_spellings(tokens)
        # Every option is set to _UNSET first, to distinguish a given value from a default.
        unset = argparse.Namespace(**{action.dest: _UNSET for action in self._actions})
        namespace, unknown = self.parse_known_args(list(tokens), unset)
        if unknown:
            raise ArgumentsError(self._unknown_option(unknown[0]))
        return {name: value for name, value in vars(namespace).items() if value is not _UNSET}

    def _refuse_two_spellings(self, tokens: Sequence[str]) -> None:
        """Refuses an option that is given under two of its names, because it is unclear which value counts."""
        spellings: dict[str, str] = {}
        for token in tokens:
            action = self._option_string_actions.get(token.partition("=")[0])
            if action is None:
                continue
            spelling = _option_name(token.partition("=")[0])
            if spellings.setdefault(action.dest, spelling) != spelling:
                raise ArgumentsError(f"--{spellings[action.dest]} and --{spelling} set one option: give one of them")

    def _unknown_option(self, token: str) -> str:
        if not token.startswith("-"):
            return f"unexpected argument {token!r}: options start with --, and a recipe (.yaml or .json) comes first"
        return unknown_option(token, self.recipe_options(), "--")


def unknown_option(token: str, known: Collection[str], prefix: str = "") -> str:
    """Returns the error message of an unknown option, which says what to write instead where that is known.

    Args:
        token: the option as it was given, with or without dashes and a value.
        known: the valid names.
        prefix: put before a suggested name, such as `--`.
    """
    spelling = token.partition("=")[0]
    name = _option_name(spelling)
    if (sentence := answer(name, known)) is not None:
        return f"unknown option {spelling}: {sentence}"
    matches = difflib.get_close_matches(name, sorted(set(known) - set(REFUSED_OPTIONS)), n=1, cutoff=MISSPELLED)
    hint = f"; did you mean {prefix}{matches[0]}?" if matches else " (--help lists all options)"
    return f"unknown option {spelling}{hint}"


def _negated_bool(value: str) -> bool:
    return not string_to_bool(value)


def _option_name(option: str) -> str:
    """Turns `--learning-rate` into `learning_rate`."""
    return option.lstrip("-").replace("-", "_")


class _RecipeLoader(yaml.SafeLoader):
    """A SafeLoader that keeps every value as text, and refuses a key that is given twice.

    Each option later converts its text to its own type. YAML itself would read `no` as false, 010 as 8 and 1:30
    as 90, and would read 1e-5 as text instead of a number.
    """

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Refuses an alias of a list or mapping: a few of them within each other stand for billions of values."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and isinstance(node, yaml.CollectionNode):
            raise yaml.YAMLError("an alias (*name) stands for a list or mapping: write it out")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Builds a mapping and refuses repeated keys."""
        _refuse_repeated([_option_name(str(self.construct_object(key, deep=True))) for key, _ in node.value])
        return super().construct_mapping(node, deep)


def _construct_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return loader.construct_scalar(node)


for _scalar_type in ("bool", "int", "float", "timestamp", "value"):
    _RecipeLoader.add_constructor(f"tag:yaml.org,2002:{_scalar_type}", _construct_text)


def read_recipe(path: Path, parser: OptionParser) -> dict[str, Any]:
    """Reads the options of a recipe.

    Returns:
        The given options by field name, converted to the type of the field.

    Raises:
        ArgumentsError: the file is missing, is not YAML (or JSON, if its name says so) or not a flat mapping, or has
            an unknown key, a forbidden key or a wrong value; the message starts with the recipe's path.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = _load_json(text) if path.suffix == ".json" else yaml.load(text, Loader=_RecipeLoader)
        return parser.explicit_values(_recipe_tokens(content, parser.recipe_options()))
    except OSError as error:
        raise ArgumentsError(f"recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ArgumentsError(f"recipe {path}: not a UTF-8 text file ({error.reason})") from error
    except yaml.YAMLError as error:
        raise ArgumentsError(f"recipe {path}: not valid YAML: {one_line(error)}") from error
    except json.JSONDecodeError as error:
        raise ArgumentsError(f"recipe {path}: not valid JSON: {one_line(error)}") from error
    except RecursionError as error:
        raise ArgumentsError(f"recipe {path}: nested too deeply") from error
    except ArgumentsError as error:
        raise ArgumentsError(f"recipe {path}: {error}") from error


def _load_json(text: str) -> Any:
    """Reads JSON into the form in which [`_RecipeLoader`] reads YAML, and refuses repeated keys as it does.

    YAML is no superset of JSON: it allows no tabs between values, and reads the two halves of an escaped emoji as two
    characters.
    """
    content = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique_keys, parse_int=str, parse_float=str)
    return {name: _recipe_value(value) for name, value in content.items()} if isinstance(content, dict) else content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [_option_name(key) for key, _ in pairs]
    _refuse_repeated(keys)
    return dict(pairs)


def _refuse_repeated(keys: list[str]) -> None:
    """Refuses repeated keys, because the last value would win silently."""
    repeated = sorted(key for key in keys if keys.count(key) > 1)
    if repeated:
        raise ArgumentsError(f"{repeated[0]} is given twice")


def _recipe_tokens(
    content: Any, known: dict[str, argparse.Action], forbidden: Mapping[str, str] = COMMAND_LINE_ONLY
) -> list[str]:
    """Converts the content of a recipe to the tokens of a command line."""
    if not isinstance(content, dict):
        raise ArgumentsError("expected lines of the form `option: value`")
    tokens: list[str] = []
    for key, value in content.items():
        name = _option_name(str(key))
        if name not in known:
            raise ArgumentsError(unknown_option(str(key), known))
        if name in forbidden:
            raise ArgumentsError(f"{key} cannot stand in a recipe, since {forbidden[name]}")
        tokens += _option_tokens(name, value, known[name])
    return tokens


def tokens_of_values(values: Mapping[str, Any]) -> list[str]:
    """Converts options from Python to the tokens of a command line.

    Args:
        values: Python values by option name, in any spelling of the name. None leaves an option at its default.

    Raises:
        ArgumentsError: an unknown option, or a value of a type that the option does not take.
    """
    recipe = {name: _recipe_value(value) for name, value in values.items() if value is not None}
    return _recipe_tokens(recipe, OptionParser().recipe_options(), forbidden={})


def _recipe_value(value: Any) -> Any:
    """Converts a Python value to the form in which [`_RecipeLoader`] reads it: text, or lists and mappings of text."""
    if isinstance(value, Mapping):
        return {str(key): _recipe_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_recipe_value(item) for item in value]
    if isinstance(value, Enum):
        return str(value.value)
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _option_tokens(name: str, value: Any, action: argparse.Action) -> list[str]:
    """Converts one option of a recipe to tokens, in a form in which no part of the value is read as another option."""
    if value is None and action.default is None:
        return []
    if isinstance(value, str):
        return [f"--{name}={value}"]
    if isinstance(value, dict) and name in TrainingArguments._VALID_DICT_FIELDS:
        return [f"--{name}={json.dumps(_json_value(value))}"]
    if isinstance(value, list) and action.nargs == "+":
        if all(isinstance(item, str) and not item.startswith("-") for item in value):
            return [f"--{name}", *value]
        raise ArgumentsError(f"{name}: each item must be a text or a number, and none can start with a dash")
    description = {type(None): "nothing", list: "a list", dict: "a mapping"}.get(type(value), "something else")
    raise ArgumentsError(f"{name} takes {'values' if action.nargs == '+' else 'one value'}, not {description}")


def _json_value(value: Any) -> Any:
    """Converts the texts in a nested value to numbers, booleans and null where they are valid JSON."""
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    try:
        return value if value is None else json.loads(value)
    except ValueError:
        return value


def merge_sources(recipe: dict[str, Any], command_line: dict[str, Any]) -> dict[str, Any]:
    """Merges the options of a recipe and a command line; the command line wins.

    Args:
        recipe: options by field name.
        command_line: options by field name.

    Raises:
        ArgumentsError: one source gives two options that exclude each other.
    """
    dropped: set[str] = set()
    for pair in EXCLUSIVE_OPTIONS:
        for one, other in (pair, pair[::-1]):
            if not one.isdisjoint(command_line):
                dropped = dropped.union(other, *(COMPANIONS.get(name, ()) for name in other))
    if command_line.get("push_to_hub") is False:
        dropped = dropped.union(PUSH_OPTIONS)
    merged = {name: value for name, value in recipe.items() if name not in dropped} | command_line
    for one, other in EXCLUSIVE_OPTIONS:
        both = sorted(one & set(merged)), sorted(other & set(merged))
        if all(both):
            raise ArgumentsError(f"--{both[0][0]} and --{both[1][0]} set the same thing: give one of them")
    return merged


def explicit_options(argv: Sequence[str], program: str = PROGRAM) -> dict[str, Any]:
    """Reads the options that a recipe and a command line give; `--help` prints the help and exits.

    Args:
        argv: the arguments after the program's name.
        program: name of the program in the help.

    Returns:
        The given options by field name, without defaults.

    Raises:
        ArgumentsError: two recipes are given; see also [`OptionParser.explicit_values`], [`read_recipe`] and
            [`merge_sources`].
    """
    parser = OptionParser(program)
    tokens = list(argv)
    starts_with_recipe = bool(tokens) and tokens[0].endswith(RECIPE_SUFFIXES) and not tokens[0].startswith("-")
    first_argument = tokens.pop(0) if starts_with_recipe else None
    command_line = parser.explicit_values(tokens)
    config = command_line.pop("config", None)
    if first_argument is not None and config is not None:
        raise ArgumentsError(f"two recipes, {first_argument} and --config {config}: give one of them")
    path = first_argument or config
    recipe = {} if path is None else read_recipe(Path(path), parser)
    return merge_sources(recipe, command_line)


def build_arguments(options: Mapping[str, Any], in_memory: Iterable[str] = ()) -> Arguments:
    """Builds the argument classes and checks them.

    Args:
        options: the given options by field name; all others take their default.
        in_memory: the splits (`train`, `validation`, `test`) whose rows the caller passes in memory.

    Raises:
        ArgumentsError: a value out of range, or options that contradict each other.
    """
    in_memory = frozenset(in_memory)
    if options.get("restore_callback_states_from_checkpoint") is False:
        raise ArgumentsError(
            "--restore_callback_states_from_checkpoint false: a resumed run always goes on with the patience that "
            "early stopping had left; leave it out"
        )
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ArgumentsError(f"--{name} {value}: must be a finite number")
    precision = configured_precision()
    if options.get(precision) is False:
        raise ArgumentsError(
            f"--{precision} false, but accelerate's configuration asks for mixed_precision: {precision}: leave one of "
            "them out (accelerate launch --mixed_precision no)"
        )
    try:
        options = {**_defaults_of(options, in_memory), **options}
        model, data, adapt, few_shot, boost, training = (_build(kind, options) for kind in ARGUMENT_CLASSES)
        return checked(Arguments(model, data, adapt, few_shot, boost, training, in_memory))
    # transformers raises a TypeError for an unknown key in one of its options that are mappings.
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise ArgumentsError(one_line(error)) from error


def _defaults_of(options: Mapping[str, Any], in_memory: Collection[str]) -> dict[str, Any]:
    """Returns the defaults that the kind of the run changes."""
    if options.get("few_shot"):
        return FEW_SHOT_DEFAULTS
    has_rows = options.get("train_file") or options.get("dataset_name") or "train" in in_memory
    is_trained = options.get("do_train", not (options.get("do_eval") or options.get("do_predict")))
    if has_rows or not is_trained or not (options.get("unlabelled_file") and options.get("label_names")):
        return {}
    rounds = options.get("self_training_rounds", WITHOUT_LABELS_DEFAULTS["self_training_rounds"])
    return {**WITHOUT_LABELS_DEFAULTS, "lexical_features": bool(rounds)}


def _build(argument_class: type, options: Mapping[str, Any]) -> Any:
    names = [f.name for f in fields(argument_class) if f.init]
    return argument_class(**{name: options[name] for name in names if name in options})


def parse_arguments(argv: Sequence[str] | None = None, program: str = PROGRAM) -> tuple[Arguments, dict[str, Any]]:
    """Parses `[RECIPE.yaml] [--option value ...]`.

    Returns:
        The checked arguments, and the given options by field name.

    Raises:
        ArgumentsError: see [`explicit_options`] and [`build_arguments`].
    """
    options = explicit_options(sys.argv[1:] if argv is None else argv, program)
    return build_arguments(options), options
