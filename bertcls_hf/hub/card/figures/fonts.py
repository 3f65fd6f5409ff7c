"""Names of labels as a picture can show them, with fonts for letters of all scripts."""

import functools
from collections.abc import Sequence
from typing import Any

from matplotlib import font_manager


FONT = "DejaVu Sans"
LONGEST_NAME = 18
# Fonts that matplotlib finds but cannot draw at all sizes, or that hold only stand-ins for characters.
UNFIT_FONTS = ("Emoji", "Color", "LastResort", "Last Resort")
MOST_FONTS_OPENED = 100


def drawable_names(names: Sequence[str], kind: str = "label") -> list[str]:
    """Replaces names that no font of the machine can draw by `label 3`, with the place of the label.

    Args:
        names: of labels, or of something else.
        kind: the word for what has the names.
    """
    _, undrawable = _fonts_for(_letters(names))
    return [
        f"{kind} {place}" if undrawable & _letters([name]) else " ".join(name.split())
        for place, name in enumerate(names)
    ]


def numbers_note(names: Sequence[str], kind: str = "label") -> str:
    """A sentence that explains the replaced names of [`drawable_names`]; empty where there are none."""
    all_drawable = not _fonts_for(_letters(names))[1]
    note = f" No font of the machine has all letters: {kind}s without a name stand by their number."
    return "" if all_drawable else note


def short_name(name: str) -> str:
    """Shortens a long name in its middle, since names that start alike often differ at their end."""
    head, tail = LONGEST_NAME - LONGEST_NAME // 3 - 1, LONGEST_NAME // 3
    return name if len(name) <= LONGEST_NAME else f"{name[:head].rstrip()}…{name[-tail:].lstrip()}"


def _letters(names: Sequence[str]) -> frozenset[int]:
    return frozenset(ord(letter) for name in names for letter in name if not letter.isspace())


def font_families(names: Sequence[str]) -> list[str]:
    """The fonts that draw all names together, as far as this machine has them."""
    return _fonts_for(_letters(names))[0]


@functools.cache
def _fonts_for(letters: frozenset[int]) -> tuple[list[str], frozenset[int]]:
    """Finds fonts that draw the characters together, and the characters that no font of this machine has."""
    missing = letters - _characters(font_manager.findfont(FONT))
    families, opened_fonts = [FONT], 0
    for entry in sorted(font_manager.fontManager.ttflist, key=_font_preference):
        if not missing or opened_fonts == MOST_FONTS_OPENED:
            break
        if entry.name in families or any(word in entry.name for word in UNFIT_FONTS):
            continue
        opened_fonts += 1
        drawn = missing & _characters(entry.fname)
        if drawn:
            families.append(entry.name)
            missing -= drawn
    return families, missing


def _font_preference(entry: Any) -> tuple[bool, bool, str]:
    """The key that sorts fonts: upright ones of ordinary weight first, among them those known to hold many scripts."""
    is_plain = entry.style == "normal" and str(entry.weight) in {"400", "normal", "regular", "book"}
    return not is_plain, not any(word in entry.name for word in ("CJK", "Noto", "Nanum", "Gothic", "Uni")), entry.name


def _characters(file: str) -> set[int]:
    try:
        return set(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):
        # The font may have been removed since matplotlib listed it.
        return set()
