"""Tables in Markdown, and the form of the figures in them."""

from collections.abc import Iterable, Sequence

from bertcls_hf.metrics.intervals import Interval
from bertcls_hf.metrics.paired import Difference


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Writes a Markdown table.

    Args:
        header: the titles of the columns.
        rows: escaped cells.
        left: so many columns hold words and are aligned to the left; the others hold numbers.
    """
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def interval_words(interval: Interval) -> str:
    """An interval as `0.812 to 0.871`."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def difference_words(difference: Difference) -> str:
    """A difference with its interval, as `+0.0120 (+0.004 to +0.020)`."""
    low, high = difference.interval
    return f"{difference.value:+.4f} ({low:+.3f} to {high:+.3f})"


def p_words(p_value: float) -> str:
    """A p-value as `p = 0.012`."""
    return f"p {'< 0.0001' if p_value < 0.0001 else f'= {p_value:.2g}'}"
