"""Rows for tables of many formats."""

from pathlib import Path


PHRASES = [
    ("a rude and hasty crew", "bad"), ("bright screen and long life", "good"), ("tea that tasted of soap", "bad"),
    ("will never order again", "bad"), ("would gladly order again", "good"), ("the soup was lovely", "good"),
    ("the hike was a misery", "bad"), ("a warm and friendly crew", "good"), ("dim screen and short life", "bad"),
    ("the hike was a delight", "good"), ("the soup was cold", "bad"), ("slow post and a torn box", "bad"),
    ("my aunt hates this kettle", "bad"), ("worst lamp i ever bought", "bad"), ("tea that tasted of summer", "good"),
    ("fast post and a fine box", "good"), ("crisp sound for the price", "good"), ("best lamp i ever bought", "good"),
    ("tinny sound for the price", "bad"), ("my aunt adores this kettle", "good"),
]  # fmt: skip


def write(path: Path, content: str | bytes) -> Path:
    """A file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
