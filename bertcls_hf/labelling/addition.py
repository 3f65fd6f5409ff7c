"""Adds the rows that a person has labelled to a file of labelled texts, each once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.labels import LabelFormat, RawLabel
from bertcls_hf.errors import DataError
from bertcls_hf.labelling.labelled_file import LabelledFile, LabelledRow
from bertcls_hf.labelling.proposal_file import read_filled


@dataclass(frozen=True)
class Addition:
    """What became of the rows of a filled-in file.

    Args:
        added: the number of rows that were added.
        known: the number of rows that were there already, with the same label.
        unlabelled: the number of rows that nobody has labelled.
    """

    added: int
    known: int
    unlabelled: int


def add_filled(path: Path, labelled: LabelledFile, args: DataArguments) -> Addition:
    """Adds the labelled rows of a file of proposals, all of them or none; adding them again changes nothing.

    Args:
        path: the file of proposals.
        labelled: the file that gets them.
        args: the data options, of which `label_names` names labels that the file does not have yet.

    Raises:
        DataError: a label is unknown, or a text has another label already.
        StorageError: the disk is full or cannot be written.
    """
    has_several = any(isinstance(row.label, list) for row in labelled.rows) or args.label_delimiter is not None
    filled, unlabelled = read_filled(path, has_several)
    read = LabelFormat(None, args).read
    filled = [replace(row, label=read(row.label)) for row in filled]
    _refuse_unknown_labels(path, filled, labelled, args)
    labels_of = {row.texts: (number, row.label) for number, row in enumerate(labelled.rows, start=1)}
    new: dict[tuple[str, ...], LabelledRow] = {}
    for row in filled:
        known = labels_of.get(row.texts)
        if known is not None and _differs(known[1], row.label):
            raise DataError(
                f"{path}: {_shortened(row.texts[0])!r} has the label {row.label!r}, and in {labelled.path}, row "
                f"{known[0]}, {known[1]!r}: change it in one of the files; nothing was added"
            )
        if row.texts in new and _differs(new[row.texts].label, row.label):
            raise DataError(f"{path}: {_shortened(row.texts[0])!r} has two labels: leave one; nothing was added")
        if known is None:
            new[row.texts] = row
    if new:
        labelled.append(list(new.values()))
    return Addition(len(new), len(filled) - len(new), unlabelled)


def _refuse_unknown_labels(
    path: Path, filled: Sequence[LabelledRow], labelled: LabelledFile, args: DataArguments
) -> None:
    known = {name for row in labelled.rows for name in _names(row.label)} | set(args.label_names or ())
    unknown = sorted({name for row in filled for name in _names(row.label)} - known)
    if unknown:
        listed = ", ".join(map(repr, unknown))
        raise DataError(
            f"{path}: {listed} is no label of {labelled.path} ({', '.join(sorted(known)) or 'it has none yet'}): "
            "correct it, or name all labels with --label_names if it is a new one; nothing was added"
        )


def _names(label: RawLabel) -> list[str]:
    if label is None:
        return []
    return label if isinstance(label, list) else [label]


def _differs(one: RawLabel, other: RawLabel) -> bool:
    return sorted(_names(one)) != sorted(_names(other))


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]} …"
