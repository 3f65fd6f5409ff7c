"""All findings about labelled data: `find` is the table of contents of this room."""

import logging
from dataclasses import dataclass
from typing import cast

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from bertcls_hf.audit.balance import LabelBalance, label_balance, text_lengths
from bertcls_hf.audit.contradictions import contradicting_groups
from bertcls_hf.audit.held_out_logits import encoder_logits, ngram_logits, weighed_sum
from bertcls_hf.audit.label_errors import LabelErrors, find_label_errors
from bertcls_hf.audit.labelled_rows import LabelledRows
from bertcls_hf.audit.near_duplicates import (
    SimilarRows,
    contradicting_pairs,
    repeated_in_training,
    shingle_length,
    similar_texts,
)
from bertcls_hf.audit.telling_ngrams import TellingNgram, label_indicator, telling_ngrams
from bertcls_hf.data.load import ClassificationData
from bertcls_hf.errors import ArgumentsError, DataError
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.ngrams import NgramCounter, ngram_kind_of
from bertcls_hf.training.cross_validation import held_out_rows


logger = logging.getLogger(__name__)

FOLDS = 5


@dataclass(frozen=True)
class Findings:
    """What may be wrong with the rows of a run.

    Args:
        rows: all rows.
        errors: how likely the label of each training row is wrong.
        contradictions: the rows of each text that stands there with different labels.
        similar_contradictions: training rows with nearly the same text and different labels.
        repeated: rows outside the training data whose text is in it, or nearly so.
        telling: n-grams that tell a label.
        balance: the rows and the lengths of each label.
        cut_texts: the training texts of which the encoder does not read all.
        longest_text: the tokens of a text from which on it does not.
    """

    rows: LabelledRows
    errors: LabelErrors
    contradictions: list[np.ndarray]
    similar_contradictions: list[SimilarRows]
    repeated: list[SimilarRows]
    telling: list[TellingNgram]
    balance: list[LabelBalance]
    cut_texts: int
    longest_text: int


def find(
    data: ClassificationData,
    features: FeatureDataset,
    tokenizer: PreTrainedTokenizerBase,
    longest_text: int,
    seed: int,
) -> Findings:
    """Looks for everything.

    Args:
        data: the splits, with numbered rows; the training rows are those that models are fitted to.
        features: what the encoder makes of the training texts, one vector each.
        tokenizer: the encoder's tokenizer, for the lengths of texts.
        longest_text: the tokens from which on the encoder does not read all of a text.
        seed: of the folds.

    Raises:
        DataError: there are too few different texts, or of every label.
    """
    splits = cast(dict[str, Dataset], data.splits)
    train, labels = splits["train"], data.labels
    gold = np.asarray(train["label"][:])
    try:
        folds = held_out_rows(data, FOLDS, seed)
    except ArgumentsError as error:
        raise DataError(
            f"the training data has fewer than {FOLDS} different texts, or of each label, which is too few to audit: "
            "give more rows"
        ) from error
    rows = LabelledRows.of(splits, labels)
    logger.info("looking for texts that are repeated, or nearly so, among %s rows", f"{len(rows.text_of):,}")
    kind = ngram_kind_of(train)
    similar = similar_texts(rows, shingle_length(kind))
    counter = NgramCounter(kind)
    marks = counter.fit_transform(train)
    logger.info("looking for %s that tell a label", kind.words)
    telling = telling_ngrams(train, counter, marks, gold, labels)
    logits = ngram_logits(marks, gold, labels, folds)
    del marks
    both = weighed_sum(encoder_logits(features, gold, labels, folds), logits, gold, labels)
    lengths = text_lengths(train, tokenizer)
    return Findings(
        rows=rows,
        errors=find_label_errors(both, gold, labels),
        contradictions=contradicting_groups(rows),
        similar_contradictions=contradicting_pairs(rows, similar),
        repeated=repeated_in_training(rows, similar),
        telling=telling,
        balance=label_balance(lengths, label_indicator(gold, labels), labels.names),
        cut_texts=int((lengths > longest_text).sum()),
        longest_text=longest_text,
    )
