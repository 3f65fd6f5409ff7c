"""Finds texts that stand in several rows with different labels."""

import numpy as np

from bertcls_hf.audit.labelled_rows import NO_LABEL, LabelledRows


def contradicting_groups(rows: LabelledRows) -> list[np.ndarray]:
    """Returns the rows of each text that has two labels or more: int64 numbers, ascending, in the order of the data.

    Texts are the same if they differ in white space and case at most.
    """
    labelled = np.flatnonzero(rows.label_of != NO_LABEL)
    # Texts, and within them labels, stand together.
    order = labelled[np.lexsort((rows.label_of[labelled], rows.text_of[labelled]))]
    texts, labels = rows.text_of[order], rows.label_of[order]
    is_other_label = (texts[1:] == texts[:-1]) & (labels[1:] != labels[:-1])
    contradicting = np.unique(texts[1:][is_other_label])
    bounds = np.searchsorted(texts, contradicting), np.searchsorted(texts, contradicting, side="right")
    return [np.sort(order[start:stop]) for start, stop in zip(*bounds, strict=True)]
