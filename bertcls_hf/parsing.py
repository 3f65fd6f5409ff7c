"""From a YAML recipe and a command line to checked [`Arguments`].

A recipe is a flat mapping of option names. The command line wins over it, whichever of an option's spellings it uses.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers.hf_argparser import HfArgumentParser, string_to_bool

from bertcls_hf.arguments import ARGUMENT_CLASSES, Arguments
from bertcls_hf.errors import ArgumentsError


USAGE = "run_classification.py [RECIPE.yaml] [--option value ...]"
DESCRIPTION = """Fine-tunes a BERT-family encoder for text classification, or trains a head on its frozen features.
The optional recipe is a YAML file of these options; options given on the command line win over it."""
# Command line only, so that a recipe from elsewhere cannot run code or carry a secret.
COMMAND_LINE_ONLY = {"trust_remote_code": "it lets a model run code", "hub_token": "it is a secret"}
# Two ways to say one thing: a later source that uses one of them replaces both.
EXCLUSIVE_OPTIONS = (
    ({"batch_size"}, {"per_device_train_batch_size"}),
    ({"dataset_name"}, {"train_file", "validation_file", "test_file"}),
)
_UNSET: Any = object()


class OptionParser(HfArgumentParser):
    """`HfArgumentParser` that reports errors instead of exiting, and knows the seed's negated option."""

    def __init__(self) -> None:
        super().__init__(ARGUMENT_CLASSES, prog="run_classification.py", usage=USAGE, description=DESCRIPTION,
                         allow_abbrev=False)  # fmt: skip
        self.add_argument(
            "--bert_finetuning",
            "--bert-finetuning",
            dest="freeze_backbone",
            type=lambda value: not string_to_bool(value),
            nargs="?",
            const=False,
            default=argparse.SUPPRESS,
            help="The negation of --freeze_backbone.",
        )

    def error(self, message: str) -> Any:
        """Raises instead of printing the usage, which is hundreds of lines long."""
        raise ArgumentsError(message)

    def option_names(self) -> list[str]:
        """Every spelling of every option, without dashes, hyphens written as underscores."""
        return sorted({_bare(option) for option in self._option_string_actions if option.startswith("--")})

    def explicit_values(self, tokens: Sequence[str]) -> dict[str, Any]:
        """The options that these tokens give, by field name and converted to the field's type.

        Raises:
            ArgumentsError: an unknown option, a value of another type, or two spellings of one option.
        """
        self._refuse_two_spellings(tokens)
        unset = argparse.Namespace(**{action.dest: _UNSET for action in self._actions})
        namespace, unknown = self.parse_known_args(list(tokens), unset)
        if unknown:
            raise ArgumentsError(self._unknown_option(unknown[0]))
        return {name: value for name, value in vars(namespace).items() if value is not _UNSET}

    def _refuse_two_spellings(self, tokens: Sequence[str]) -> None:
        spellings: dict[str, str] = {}
        for token in tokens:
            action = self._option_string_actions.get(token.partition("=")[0])
            if action is None:
                continue
            spelling = _bare(token.partition("=")[0])
            if spellings.setdefault(action.dest, spelling) != spelling:
                raise ArgumentsError(
                    f"--{spellings[action.dest]} and --{spelling} are the same option: give one of them"
                )

    def _unknown_option(self, token: str) -> str:
        if not token.startswith("-"):
            return f"unexpected argument {token!r}: options start with --, and a recipe (.yaml) comes first"
        return f"unknown option {token.partition('=')[0]}{nearest_name(token, self.option_names(), '--')}"


def nearest_name(name: str, known: Sequence[str], prefix: str = "") -> str:
    """A hint such as `; did you mean learning_rate?`, or nothing where no known name is near."""
    matches = difflib.get_close_matches(_bare(name.partition("=")[0]), known, n=1)
    return f"; did you mean {prefix}{matches[0]}?" if matches else " (--help lists all options)"


def _bare(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would resolve silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise ArgumentsError(f"{sorted(map(str, repeated))[0]} is given twice")
        return super().construct_mapping(node, deep)


def read_recipe(path: Path, parser: OptionParser) -> dict[str, Any]:
    """The options that a recipe gives, by field name.

    Raises:
        ArgumentsError: no such file, not YAML, not a flat mapping, an unknown or forbidden key, a wrong value; the
            message starts with the recipe's path.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
        return parser.explicit_values(_recipe_tokens(content, parser.option_names()))
    except OSError as error:
        raise ArgumentsError(f"recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ArgumentsError(f"recipe {path}: not a UTF-8 text file ({error.reason})") from error
    except yaml.YAMLError as error:
        raise ArgumentsError(f"recipe {path}: not valid YAML: {error}") from error
    except ArgumentsError as error:
        raise ArgumentsError(f"recipe {path}: {error}") from error


def _recipe_tokens(content: Any, known: Sequence[str]) -> list[str]:
    if not isinstance(content, dict):
        raise ArgumentsError("expected lines of the form `option: value`")
    tokens: list[str] = []
    for key, value in content.items():
        name = _bare(str(key))
        if name not in known:
            raise ArgumentsError(f"unknown option {key}{nearest_name(name, known)}")
        if name in COMMAND_LINE_ONLY:
            raise ArgumentsError(f"{key} cannot stand in a recipe, since {COMMAND_LINE_ONLY[name]}")
        if value is not None:
            tokens += _option_tokens(name, value)
    return tokens


def _option_tokens(name: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"]


def split_recipe(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The recipe's path, given first or as `--config`, and the other tokens."""
    rest = list(argv)
    if rest and not rest[0].startswith("-") and Path(rest[0]).suffix in {".yaml", ".yml"}:
        return Path(rest.pop(0)), rest
    for position, token in enumerate(rest):
        if token == "--config" and position + 1 < len(rest):
            return Path(rest[position + 1]), rest[:position] + rest[position + 2 :]
        if token.startswith("--config="):
            return Path(token.partition("=")[2]), rest[:position] + rest[position + 1 :]
    return None, rest


def merge_sources(recipe: dict[str, Any], command_line: dict[str, Any]) -> dict[str, Any]:
    """The recipe's options overridden by the command line's.

    Raises:
        ArgumentsError: one source says one thing in two ways.
    """
    kept = dict(recipe)
    for pair in EXCLUSIVE_OPTIONS:
        for one, other in (pair, pair[::-1]):
            if one & set(command_line):
                kept = {name: value for name, value in kept.items() if name not in other}
    merged = kept | command_line
    for one, other in EXCLUSIVE_OPTIONS:
        both = sorted(one & set(merged)), sorted(other & set(merged))
        if all(both):
            raise ArgumentsError(f"--{both[0][0]} and --{both[1][0]} set the same thing: give one of them")
    return merged


def explicit_options(argv: Sequence[str]) -> dict[str, Any]:
    """All options that a recipe and a command line give, by field name; `--help` prints and exits."""
    parser = OptionParser()
    recipe_path, tokens = split_recipe(argv)
    command_line = parser.explicit_values(tokens)
    recipe = {} if recipe_path is None else read_recipe(recipe_path, parser)
    return merge_sources(recipe, command_line)


def build_arguments(options: dict[str, Any]) -> Arguments:
    """Checked arguments from options by field name.

    Raises:
        ArgumentsError: a value out of range, or options that contradict each other.
    """
    try:
        return Arguments(*(_build(argument_class, options) for argument_class in ARGUMENT_CLASSES))
    except ValueError as error:
        raise ArgumentsError(str(error)) from error


def _build(argument_class: type, options: dict[str, Any]) -> Any:
    names = [name for name, f in argument_class.__dataclass_fields__.items() if f.init]  # type: ignore[attr-defined]
    return argument_class(**{name: options[name] for name in names if name in options})


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[Arguments, dict[str, Any]]:
    """Parses `[RECIPE.yaml] [--option value ...]`.

    Returns:
        The checked arguments, and the options that were given, by field name.

    Raises:
        ArgumentsError: see [`OptionParser.explicit_values`], [`read_recipe`] and [`build_arguments`].
    """
    options = explicit_options(sys.argv[1:] if argv is None else argv)
    return build_arguments(options), options
