"""Files with one or a few things wrong."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


# Bytes that parsers trip over.
PIECES = (
    b"", b"\0", b"\n", b"\r", b'"', b"'", b",", b"\t", b"{", b"}", b"[", b"]", b":", b"\\", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"null", b"NaN", b"1e999", b"-1", b"9" * 400, b"[" * 3000,
    b"&a [*a]", b"!!python",
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 1, 1.5, 10**400, float("nan"), float("inf"), "", "x" * 5000, "\0", "\ud800", "../../etc/passwd",
    [], {}, [None], {"a": {"b": []}}, [[[]]],
)  # fmt: skip


def turn_last_bit(path: Path) -> None:
    """Turns the last bit of a file, whose size stays."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@st.composite
def broken_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Cuts, turns, removes, repeats or inserts bytes, in up to three places."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(content) - 1, 0)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(["cut", "turn", "remove", "repeat", "insert"]))
        if kind == "cut":
            content = content[:start]
        elif kind == "turn" and content:
            turned = content[start] ^ (1 << draw(st.integers(0, 7)))
            content = content[:start] + bytes([turned]) + content[start + 1 :]
        elif kind == "remove":
            content = content[:start] + content[end:]
        elif kind == "repeat":
            content = content[:end] + content[start:end] * draw(st.integers(1, 5)) + content[end:]
        else:
            content = content[:start] + draw(st.sampled_from(PIECES)) + content[start:]
    return content


@st.composite
def broken_json(draw: st.DrawFn, content: bytes) -> bytes:
    """Removes, renames or replaces up to three values of a JSON file; the file is still JSON, as Python writes it."""
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        value = _with_another_value(draw, value)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _with_another_value(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        kind = draw(st.sampled_from(["into", "into", "remove", "rename"]))
        if kind == "into":
            return {**value, name: _with_another_value(draw, value[name])}
        rest = {other: kept for other, kept in value.items() if other != name}
        return rest if kind == "remove" else {**rest, draw(st.sampled_from(["", "x", f"{name} "])): value[name]}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _with_another_value(draw, value[place]), *value[place + 1 :]]
    return draw(st.sampled_from(VALUES))
