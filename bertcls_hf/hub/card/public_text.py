"""Prepares texts and options for a public page: escapes Markdown, and removes keys and this machine's paths."""

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
# Characters that start markup, links, formulas or emoji on the Hub and on GitHub. An underscore in a word does not.
MARKUP = re.compile(r"[\\`*\[\]|~$@]|(?<!\w)_|_(?!\w)|:(?=//|\w+:)")
# These characters change the direction of the text that follows, even outside their table cell.
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# A path inside a longer value, such as a JSON object. The slashes of an address do not match.
INNER_PATH = re.compile(r"""(?<![\w.:/~-])(?:~|\.\.|[A-Za-z]:)?[/\\][^\s"',;{}\[\]]*""")


def escape_markdown(text: str) -> str:
    """Escapes a text so that Markdown and HTML show it literally, on one line and without control characters."""
    plain = plain_text(text)
    return html.escape(MARKUP.sub(lambda match: f"\0{ord(match.group())};", plain), quote=False).replace("\0", "&#")


def plain_text(text: str) -> str:
    """Returns a text on one line and without control characters."""
    return "".join(letter for letter in " ".join(text.split()) if _is_shown(letter))


def _is_shown(letter: str) -> bool:
    return letter not in TURNING and unicodedata.category(letter) not in {"Cc", "Cs"}


def quote(text: str | None, longest: int = LONGEST_QUOTE) -> str:
    """Returns the start of a text, escaped for a cell of a Markdown table."""
    return escape_markdown(shortened(text or "", longest))


def shortened(text: str, longest: int) -> str:
    """Returns the start of a text on one line, with an ellipsis if the text is longer."""
    plain = " ".join(text.split())
    return plain if len(plain) <= longest else plain[: longest - 1].rstrip() + "…"


def without_local_paths(value: Any) -> Any:
    """Returns an option's value without the paths of this machine.

    Paths become relative to the working directory; of a path outside it, only the last name remains. Addresses lose
    their user, password and query, which may hold keys.
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
    return INNER_PATH.sub(lambda match: _public_path(match.group()), text)


def _public_address(match: re.Match[str]) -> str:
    """Returns an address without user, password and query, which may hold keys."""
    address = urlsplit(match.group())
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
    """Returns a command line, quoted for a shell, without the paths of this machine; see [`without_local_paths`]."""
    return " ".join([program, *(shlex.quote(_public_argument(argument)) for argument in arguments)])


def _public_argument(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_public_argument(value)}"
    if argument.startswith("{"):
        try:
            return json.dumps(without_local_paths(json.loads(argument)))
        except ValueError:
            pass  # It is not JSON, and is treated as a text.
    return str(without_local_paths(argument))
