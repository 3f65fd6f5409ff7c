"""A comparison as a Markdown table, and as JSON."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION
from bertcls_hf.hub.card.figures.canvas import Picture
from bertcls_hf.hub.card.public_text import escape_markdown
from bertcls_hf.hub.card.sections.tables import difference_words, interval_words, p_words, table
from bertcls_hf.metrics.intervals import CONFIDENCE, SHARES
from bertcls_hf.metrics.metrics import HEADLINES, metric_words
from bertcls_hf.run.comparison import SEED, Comparison, System


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        title: its title.
        cell: the text of a system's cell, empty where nothing is known.
    """

    title: str
    cell: Callable[[System], str]


def comparison_markdown(comparison: Comparison, picture: Picture | None = None) -> str:
    """The comparison in Markdown: what was compared, the table, maybe the picture, and how to read them."""
    columns = list(_columns(comparison))
    rows = [[column.cell(system) for column in columns] for system in comparison.systems]
    parts = [_introduction(comparison), table([column.title for column in columns], rows)]
    if picture is not None:
        parts += [f"![{escape_markdown(picture.alt)}]({picture.path.name})", picture.note]
    return "\n\n".join([*parts, _note(comparison)]) + "\n"


def comparison_json(comparison: Comparison) -> str:
    """All figures as JSON, not rounded; a figure that is not defined is null."""
    content = {
        "split": comparison.split,
        "rows": comparison.rows,
        "problem_type": comparison.labels.problem_type,
        "labels": comparison.labels.names,
        "main_metric": comparison.main_metric,
        "reference": comparison.reference,
        "confidence": CONFIDENCE,
        "seed": SEED,
        "timed_texts": comparison.timed_texts,
        "systems": [asdict(system) for system in comparison.systems],
    }
    return json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _columns(comparison: Comparison) -> Iterator[Column]:
    yield Column("run", lambda system: escape_markdown(system.name))
    yield from map(_metric_column, HEADLINES[comparison.labels.problem_type])
    main = comparison.main_metric
    yield Column(f"difference in {metric_words(main)}", lambda system: _difference_cell(system, main))
    if comparison.labels.problem_type != REGRESSION:
        yield Column("McNemar's test", _mcnemar_cell)
    if any(system.over_seeds for system in comparison.systems):
        yield Column(f"{metric_words(main)} over seeds", _seeds_cell)
    yield Column("training, s", lambda system: _number(system.cost.train_seconds, ",.1f"))
    yield Column("parameters", lambda system: _number(system.cost.parameters, ",d"))
    yield Column("MB", lambda system: _number(system.cost.file_bytes, ",.1f", 1e-6))
    if comparison.timed_texts is not None:
        yield Column(
            f"texts/s (of {comparison.timed_texts:,})", lambda system: _number(system.cost.texts_per_second, ",.1f")
        )


def _metric_column(name: str) -> Column:
    return Column(metric_words(name), lambda system: _metric_cell(system, name))


def _metric_cell(system: System, name: str) -> str:
    value, interval = system.metrics[name], system.intervals.get(name)
    if not math.isfinite(value):
        return ""
    return f"{value:.4f} ({interval_words(interval)})" if interval else f"{value:.4f}"


def _difference_cell(system: System, name: str) -> str:
    if system.against_reference is None:
        return "reference"
    difference = system.against_reference.differences.get(name)
    return difference_words(difference) if difference else ""


def _mcnemar_cell(system: System) -> str:
    compared = system.against_reference
    return p_words(compared.mcnemar_p) if compared is not None and compared.mcnemar_p is not None else ""


def _seeds_cell(system: System) -> str:
    figures = system.over_seeds
    return f"{figures.mean:.4f} ± {figures.standard_deviation:.4f} ({figures.seeds})" if figures else ""


def _number(value: float | None, form: str, unit: float | int = 1) -> str:
    return "" if value is None else format(value * unit, form)


def _introduction(comparison: Comparison) -> str:
    return (
        f"On {comparison.rows:,} {comparison.split} texts. Differences are those to "
        f"{escape_markdown(comparison.reference)}, text by text."
    )


def _note(comparison: Comparison) -> str:
    """How to read the table."""
    share = SHARES.get(comparison.labels.problem_type)
    is_wilson = share in HEADLINES[comparison.labels.problem_type]
    wilson = f"Wilson's (1927) for {metric_words(str(share))}, else " if is_wilson else ""
    note = (
        f"In brackets: {CONFIDENCE:.0%} intervals, {wilson}the percentile bootstrap's (Efron 1979) over texts, paired "
        "for differences. They tell of the choice of these texts, not of another training. The seconds of a training "
        "are the Trainer's, without the time that the data and the features of --boost took."
    )
    if comparison.labels.problem_type == MULTI_LABEL:
        note += " McNemar's test counts a text as right if all its labels are."
    if any(system.over_seeds for system in comparison.systems):
        note += " Over seeds: the mean ± the standard deviation, and the number of seeds."
    if len(comparison.systems) > 2:
        note += " Of many comparisons some look clear by chance: nothing here is corrected for their number."
    return note
