"""Texts and options made fit for a page that others read: as Markdown shows them, and without this machine's paths."""

import html
import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


ADDRESS = re.compile(r"""[a-z][a-z0-9+.-]*://[^\s"'|<>]+""", re.IGNORECASE)
LONGEST_QUOTE = 200
# What starts markup, links, formulas or emoji on the Hub and on GitHub; an underscore inside a word does not.
MARKUP = re.compile(r"[\\`*\[\]|~$@]|(?<!\w)_|_(?!\w)|:(?=//|\w+:)")
# These turn the direction of what follows, also outside their cell.
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# A path inside a longer value, such as a JSON object; not the slashes of an address.
INNER_PATH = re.compile(r"""(?<![\w.:/~-])(?:~|\.\.|[A-Za-z]:)?[/\\][^\s"',;{}\[\]]*""")


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML show letter by letter, on one line; control characters are left out."""
    plain = plain_text(text)
    return html.escape(MARKUP.sub(lambda found: f"\0{ord(found.group())};", plain), quote=False).replace("\0", "&#")


def plain_text(text: str) -> str:
    """Text on one line; control characters are left out."""
    return "".join(letter for letter in " ".join(text.split()) if _is_shown(letter))


def _is_shown(letter: str) -> bool:
    return letter not in TURNING and unicodedata.category(letter) not in {"Cc", "Cs"}


def quote(text: str | None, longest: int = LONGEST_QUOTE) -> str:
    """The start of a text, for a cell of a Markdown table."""
    return escape_markdown(shortened(text or "", longest))


def shortened(text: str, longest: int) -> str:
    """The start of a text on one line, with a mark where more follows."""
    plain = " ".join(text.split())
    return plain if len(plain) <= longest else plain[: longest - 1].rstrip() + "…"


def without_local_paths(value: Any) -> Any:
    """An option's value in which paths are relative to the working directory, and those outside it mere names.

    Addresses lose what may be a key: user, password and query.
    """
    if isinstance(value, dict):
        return {name: without_local_paths(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_local_paths(item) for item in value]
    return _public_text(value) if isinstance(value, str) else value


def _public_text(text: str) -> str:
    if "://" in text:
        return ADDRESS.sub(_public_address, text)
    if Path(text).is_absolute() or text.startswith(("~", "../", "..\\")):
        return _public_path(text)
    return INNER_PATH.sub(lambda found: _public_path(found.group()), text)


def _public_address(found: re.Match[str]) -> str:
    """An address without user, password and query, which may hold keys."""
    address = urlsplit(found.group())
    if address.scheme == "file":
        return _public_path(address.path)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _public_path(text: str) -> str:
    path, folder = Path(text).expanduser(), Path.cwd()
    inside = next((p for p in (path, path.resolve()) if p.is_relative_to(folder)), None)
    if inside is not None and ".." not in inside.parts:
        return str(inside.relative_to(folder))
    # A lone slash is a delimiter, not a path.
    return path.name or text


def public_command(program: str, arguments: Sequence[str]) -> str:
    """A command line as a shell takes it, see [`without_local_paths`]."""
    return " ".join([program, *(shlex.quote(_public_argument(argument)) for argument in arguments)])


def _public_argument(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_public_argument(value)}"
    if argument.startswith("{"):
        try:
            return json.dumps(without_local_paths(json.loads(argument)))
        except ValueError:
            pass  # Not JSON: looked at as a text.
    return str(without_local_paths(argument))
