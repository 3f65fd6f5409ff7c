"""The data of a model card: sizes, lengths and labels of the splits."""

from typing import Any

import numpy as np
from datasets import Dataset

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION
from bertcls_hf.data.splits import SPLIT_NAMES
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.public_text import quote
from bertcls_hf.hub.card.sections.names import escaped_data_name
from bertcls_hf.hub.card.sections.tables import table


MOST_LABELS = 20


def data_section(run: FinishedRun) -> dict[str, str]:
    """The sizes and lengths of the splits, and the counts of their labels."""
    splits = {name: run.data.splits[name] for name in SPLIT_NAMES if name in run.data.splits}
    header = ["split", "texts", "median tokens", "longest", f"reach {run.max_seq_length}"]
    rows = [[name, *_sizes(run, name, split)] for name, split in splits.items()]
    section = {
        "data_note": _data_note(run) + _columns_note(run),
        "splits_table": table(header, rows),
        "labels_table": "",
        "labels_note": "",
    }
    labelled = {name: split for name, split in splits.items() if _is_counted(split)}
    if not labelled:
        return section
    if run.labels.problem_type == REGRESSION:
        return section | {"labels_table": _number_table(labelled)}
    return section | _label_table(run, labelled)


def _is_counted(split: Any) -> bool:
    return bool(split.num_rows) and "label" in split.column_names


def _sizes(run: FinishedRun, name: str, split: Any) -> list[str]:
    lengths = run.lengths(name)
    if lengths is None:
        return ["streamed", "", "", ""]
    cut = (lengths >= run.max_seq_length).mean()
    rows = f"{len(split):,}" if len(split) else f"{len(lengths):,} without labels"
    return [rows, f"{np.median(lengths):.0f}", f"{lengths.max():,}", f"{cut:.1%}"]


def _data_note(run: FinishedRun) -> str:
    held_out = [f"{share:g}% for {split}" for split, share in run.data.held_out.items()]
    note = f" Held out of the training data before training: {', and then '.join(held_out)}." if held_out else ""
    return f"{escaped_data_name(run)}.{note}"


def _columns_note(run: FinishedRun) -> str:
    """Says which columns the texts and labels come from; splits that differ have a line each."""
    described = {split: columns.description() for split, columns in run.data.columns.items()}
    if len(set(described.values())) == 1:
        described = {"Columns": next(iter(described.values()))}
    lines = [f"{name}: {quote(description, 400)}." for name, description in described.items()]
    return "".join(f"\n\n{line}" for line in lines)


def _number_table(splits: dict[str, Dataset]) -> str:
    rows = []
    for name, split in splits.items():
        values = np.asarray(split.select_columns("label")["label"][:], dtype=float)
        rows.append([name, *(f"{f(values):.4g}" for f in (np.min, np.median, np.mean, np.max, np.std))])
    return table(["numbers of", "least", "median", "mean", "greatest", "standard deviation"], rows)


def _label_table(run: FinishedRun, splits: dict[str, Dataset]) -> dict[str, str]:
    """The number of texts per label; of many labels, those of the most frequent ones, and the names of all."""
    names = run.labels.names
    counts = {name: _label_counts(split, len(names), run.labels.problem_type) for name, split in splits.items()}
    total = np.sum(list(counts.values()), axis=0)
    order = np.arange(len(names))
    note = "A text may have several labels, or none." if run.labels.problem_type == MULTI_LABEL else ""
    if len(names) > MOST_LABELS:
        order = np.argsort(-total, kind="stable")[:MOST_LABELS]
        listed = ", ".join(f"{label}: {quote(name, 60)}" for label, name in enumerate(names))
        note += f"\n\nThe {MOST_LABELS} most frequent of {len(names)} labels. All of them: {listed}."
    sizes = {name: len(split) for name, split in splits.items()}
    rows = [
        [
            str(label),
            quote(names[label], 60),
            *(f"{counts[split][label]:,} ({counts[split][label] / sizes[split]:.1%})" for split in splits),
        ]
        for label in order
    ]
    return {"labels_table": table(["number", "label", *splits], rows, left=2), "labels_note": note.strip()}


def _label_counts(split: Dataset, labels: int, problem_type: str) -> np.ndarray:
    values = np.asarray(split.select_columns("label")["label"][:])
    if problem_type == MULTI_LABEL:
        return values.sum(axis=0).astype(int)
    return np.bincount(values, minlength=labels)
