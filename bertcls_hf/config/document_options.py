"""Writes the options' documentation into a Markdown file: `python -m bertcls_hf.config.document_options`.

The text between the two markers is replaced by one table for each argument class. With `--check` nothing is written,
and the exit code is 1 if the file is out of date.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bertcls_hf.config.arguments import ARGUMENT_CLASSES, REFUSED_OPTIONS, own_fields
from bertcls_hf.config.parsing import NEGATED_OPTIONS


DEFAULT_PAGE = Path("docs/options.md")
START, END = "<!-- options:start -->", "<!-- options:end -->"
COLUMNS = ("Option", "Also", "Value", "Default", "Meaning")
TYPE_NAMES = {bool: "true, false", int: "whole number", float: "number", str: "text", list[str]: "texts"}


def options_markdown() -> str:
    """Returns the documentation of all options in Markdown: a table per argument class, and the refused options."""
    sections = [f"{heading(c)}\n\n{_table(c)}" for c in ARGUMENT_CLASSES]
    refused = ", ".join(f"`{name}`" for name in sorted(REFUSED_OPTIONS))
    others = (
        "All other options of `transformers.TrainingArguments` work too, and `--help` lists them. Only these are "
        f"refused, with the reason: {refused}."
    )
    return "\n\n".join([*sections, f"## Others\n\n{others}"])


def heading(argument_class: type) -> str:
    """Returns the heading above the table of an argument class."""
    return f"## {argument_class._argument_group_name.capitalize()}"  # type: ignore[attr-defined]


def _table(argument_class: type) -> str:
    hints = get_type_hints(argument_class)
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(f, hints[f.name]) for f in own_fields(argument_class))]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def _row(field: Field, hint: Any) -> tuple[str, ...]:
    negated = [f"`--{name}` (negated)" for name, option in NEGATED_OPTIONS.items() if option == field.name]
    also = [f"`{alias}`" for alias in field.metadata.get("aliases", ())] + negated
    return f"`--{field.name}`", ", ".join(also), _value(hint), _default(field), field.metadata["help"]


def _value(hint: Any) -> str:
    """Describes the values of an option by its type hint; `X | None` is described like `X`."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    (inner_hint,) = (part for part in get_args(hint) if part is not NoneType)
    return _value(inner_hint)


def _default(field: Field) -> str:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if default is None:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def with_options(text: str) -> str:
    """Replaces the text between the two markers by the current documentation of the options.

    Raises:
        ValueError: a marker is missing or repeated, or the end marker comes first.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in rest or END in before + after:
        raise ValueError(f"expected {START} and below it {END}, once each")
    return f"{before}{START}\n\n{options_markdown()}\n\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bertcls_hf.config.document_options", description="Documents the options."
    )
    parser.add_argument(
        "path", nargs="?", type=Path, default=DEFAULT_PAGE, help="a Markdown file with the two markers"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 where the file is out of date"
    )
    args = parser.parse_args(argv)
    try:
        text = args.path.read_text(encoding="utf-8")
        expected = with_options(text)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {args.path}: {error}\n")
        return 2
    if text == expected:
        return 0
    if args.check:
        sys.stderr.write(
            f"{args.path} is out of date: run `python -m bertcls_hf.config.document_options {args.path}`\n"
        )
        return 1
    args.path.write_text(expected, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
