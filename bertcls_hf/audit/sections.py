"""Tells the findings in words and tables, of which a page and the log are made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bertcls_hf.audit.balance import FEWEST_ROWS, TELLING_AUC, LabelBalance
from bertcls_hf.audit.findings import FOLDS, Findings
from bertcls_hf.audit.near_duplicates import SIMILAR, SimilarRows
from bertcls_hf.audit.telling_ngrams import MOST_NAMED
from bertcls_hf.data.load import ROW_COLUMN
from bertcls_hf.hub.card.public_text import shortened


# The rows of each table, and the characters of a text in it.
MOST_SHOWN, LONGEST_TEXT = 50, 400


@dataclass(frozen=True)
class Section:
    """One kind of finding.

    Args:
        name: its name in addresses.
        title: its title.
        summary: one sentence with the figures.
        note: how to read the table.
        header: the titles of the columns.
        rows: the cells of the first findings, as plain text.
    """

    name: str
    title: str
    summary: str
    note: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def sections(findings: Findings) -> list[Section]:
    """Returns all sections, also of what was looked for and not found."""
    return [
        _label_errors(findings), _contradictions(findings), _similar_contradictions(findings), _repeated(findings),
        _telling(findings), _balance(findings),
    ]  # fmt: skip


def _label_errors(findings: Findings) -> Section:
    errors, rows = findings.errors, findings.rows
    likely = int(errors.is_likely_wrong.sum())
    shown = errors.order[errors.is_likely_wrong[errors.order]][:MOST_SHOWN]
    table = []
    for number in shown.tolist():
        row, suggested = rows.description(number), rows.labels.readable(errors.suggested[number])
        figures = (errors.margins[number], errors.suggested_probability[number])
        cells = (_place(row), _text(row), _label(row["label"]), _label(suggested))
        table.append((*cells, *(f"{figure:.3f}" for figure in figures)))
    return Section(
        "labels",
        "Labels that are likely wrong",
        f"Training rows whose label is confidently contradicted by models of other rows: {likely:,} of "
        f"{rows.train_rows:,}; wrong labels by estimate: {errors.estimated:,.0f}.",
        f"Each row was judged by models that were fitted to the other folds (of {FOLDS}). The score says by how much "
        "more the suggested label exceeds its threshold than the given one does; a label's threshold is its mean "
        "probability over the rows that have it (confident learning). The estimate counts what the models cannot "
        "read, too: read from the top, and stop where the labels are right.",
        ("row", "text", "label", "suggested", "score", "probability"),
        table,
    )


def _contradictions(findings: Findings) -> Section:
    groups = findings.contradictions
    table = []
    for group in groups[:MOST_SHOWN]:
        members = [findings.rows.description(number) for number in group[:MOST_SHOWN].tolist()]
        places = [f"{_place(member)}: {_label(member['label'])}" for member in members]
        places += ["…"] if len(group) > MOST_SHOWN else []
        table.append((_text(members[0]), "; ".join(places)))
    return Section(
        "contradictions",
        "Texts with different labels",
        f"Texts that stand in several rows with different labels: {len(groups):,} (rows: {sum(map(len, groups)):,}).",
        "Texts are the same here if they differ in white space and case at most.",
        ("text", "rows and labels"),
        table,
    )


def _similar_contradictions(findings: Findings) -> Section:
    pairs = findings.similar_contradictions
    return Section(
        "similar",
        "Nearly the same texts with different labels",
        f"Pairs of training texts that are nearly the same, and have different labels: {len(pairs):,}.",
        _similarity_note(),
        ("row", "text", "label", "row", "text", "label", "similarity"),
        _pair_cells(findings, pairs),
    )


def _repeated(findings: Findings) -> Section:
    rows, pairs = findings.rows, findings.repeated
    counts = [
        f"{sum(start <= pair.row < stop for pair in pairs):,} of {stop - start:,} {name} rows"
        for name, start, stop in zip(rows.splits, rows.starts.tolist(), rows.starts[1:].tolist(), strict=False)
        if name != "train"
    ]
    exact = sum(pair.similarity == 1 for pair in pairs)
    summary = (
        f"Rows whose text is in the training data, or nearly so: {' and '.join(counts)}; the very same: {exact:,}."
        if counts
        else "There are no validation and test files to compare with the training data."
    )
    return Section(
        "repeated",
        "Training texts in the validation and test data",
        summary,
        _similarity_note(),
        ("row", "text", "label", "training row", "text", "label", "similarity"),
        _pair_cells(findings, pairs),
    )


def _similarity_note() -> str:
    return (
        f"Texts are nearly the same if they share {SIMILAR:.0%} or more of their overlapping runs of characters "
        "(Jaccard's similarity); 1 differs in white space and case at most."
    )


def _pair_cells(findings: Findings, pairs: list[SimilarRows]) -> list[tuple[str, ...]]:
    table = []
    for pair in pairs[:MOST_SHOWN]:
        both = [findings.rows.description(number) for number in (pair.row, pair.other)]
        cells = [cell for row in both for cell in (_place(row), _text(row), _label(row.get("label", "")))]
        table.append((*cells, f"{pair.similarity:.2f}"))
    return table


def _telling(findings: Findings) -> Section:
    telling = findings.telling
    first = f", most often {shortened(telling[0].ngram, 40)!r} ({telling[0].label})" if telling else ""
    more = " or more" if len(telling) == MOST_NAMED else ""
    return Section(
        "telling",
        "Words that tell the label",
        f"Words or short phrases that tell a label nearly without exception: {len(telling):,}{more}{first}.",
        "The share of the rows with the word that have the label, its lowest value with 95 % confidence (Wilson), the "
        "share of all rows that have the label, and the share of the label's rows that hold the word. Words of the "
        "label's subject belong here; an id, a rating or the label's own name leaked.",
        (
            "word or phrase",
            "label",
            "rows",
            "of them with the label",
            "at least",
            "of all rows",
            "of the label's rows",
            "such as row",
        ),
        [
            (
                shortened(found.ngram, LONGEST_TEXT),
                found.label,
                f"{found.rows:,}",
                f"{found.precision:.1%}",
                f"{found.lowest_precision:.1%}",
                f"{found.base_rate:.1%}",
                f"{found.coverage:.1%}",
                _place(findings.rows.description(found.example)),
            )
            for found in telling[:MOST_SHOWN]
        ],
    )


def _balance(findings: Findings) -> Section:
    balance = findings.balance
    rare = _listed(label.label for label in balance if label.is_rare)
    told = _listed(label.label for label in balance if label.is_told_by_length)
    warnings = [f" Rare: {rare}."] if rare else []
    warnings += [f" The length alone tells much of: {told}."] if told else []
    return Section(
        "balance",
        "Labels and lengths",
        f"Labels: {len(balance):,}; training texts of more than {findings.longest_text:,} tokens, which the encoder "
        f"reads in part: {findings.cut_texts:,} of {findings.rows.train_rows:,}." + "".join(warnings),
        "A label is rare if it has less than a tenth of the rows of the most frequent one. Lengths are tokens. The "
        "area under the ROC curve says how well the length alone tells the label from the others: 0.5 is a coin, and "
        f"{0.5 - TELLING_AUC:.1f} or less and {0.5 + TELLING_AUC:.1f} or more are much; it is left out for fewer than "
        f"{FEWEST_ROWS} rows.",
        (
            "label",
            "rows",
            "share",
            "shortest",
            "a quarter up to",
            "half up to",
            "three quarters up to",
            "longest",
            "area of the length",
            "remark",
        ),
        [_balance_cells(label) for label in sorted(balance, key=lambda label: label.rows)[:MOST_SHOWN]],
    )


def _balance_cells(label: LabelBalance) -> tuple[str, ...]:
    remarks = ["rare"] * label.is_rare + ["told by length"] * label.is_told_by_length
    lengths = [f"{length:,}" for length in label.lengths] or [""] * 5
    auc = "" if label.length_auc is None else f"{label.length_auc:.2f}"
    return (label.label, f"{label.rows:,}", f"{label.share:.1%}", *lengths, auc, ", ".join(remarks))


def _listed(names: Iterable[str], most: int = 5) -> str:
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def _place(row: dict[str, Any]) -> str:
    """Names a row as a person finds it."""
    split = "" if row["split"] == "train" else f"{row['split']} "
    return f"{split}{row[ROW_COLUMN]}" + (f" (id {row['id']})" if row.get("id") is not None else "")


def _text(row: dict[str, Any]) -> str:
    texts = [row[name] for name in ("text", "text_pair") if name in row]
    return " | ".join(shortened(text or "", LONGEST_TEXT) for text in texts)


def _label(label: Any) -> str:
    return ", ".join(label) or "none" if isinstance(label, list) else str(label)
