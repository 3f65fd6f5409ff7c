"""Chooses proposals from the splits and the features of a run, for `bertcls label`."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from datasets import Dataset

from bertcls_hf.data.labels import REGRESSION, SINGLE_LABEL, RawLabel, raw_labels
from bertcls_hf.data.sources import load_path, load_sources
from bertcls_hf.data.texts import first_rows, rows_of_texts, text_keys
from bertcls_hf.errors import ArgumentsError, DataError
from bertcls_hf.labelling.arguments import AskedStrategy
from bertcls_hf.labelling.heads import fitted_scaling, out_of_fold_probabilities
from bertcls_hf.labelling.proposal_file import Proposal
from bertcls_hf.labelling.proposer import Proposer
from bertcls_hf.labelling.session import LabelledRows
from bertcls_hf.labelling.strategies import doubts, highest
from bertcls_hf.metrics.probabilities import predicted_labels
from bertcls_hf.run.frozen_features import UNLABELLED, FrozenFeatures
from bertcls_hf.training.label_descriptions import description_vectors


# Of more labelled rows, a head learns a random sample, since it is fitted anew for every proposal.
MOST_LABELLED = 20_000


def check_task(frozen: FrozenFeatures) -> None:
    """Refuses tasks of which nothing can be proposed.

    Raises:
        DataError: the labels are numbers.
        ArgumentsError: the head would learn how to pool the windows of a text.
    """
    if frozen.data.labels.problem_type == REGRESSION:
        raise DataError(
            "the labels are numbers, and proposals are for classes: if these are names of classes, pass "
            f"--problem_type {SINGLE_LABEL}"
        )
    if frozen.model.config.window_pooling == "attention":
        raise ArgumentsError("--window_pooling attention is learned, and nothing is trained here: use mean or max")


def texts_of(frozen: FrozenFeatures, split: str) -> Dataset:
    """Returns the rows of a split that is not streamed."""
    return cast(Dataset, frozen.data.splits[split])


def proposer_of(frozen: FrozenFeatures) -> Proposer:
    """Makes the proposer of those texts of the pool that are not labelled yet, each once."""
    keys = np.array(text_keys(texts_of(frozen, UNLABELLED)))
    is_open = np.zeros(len(keys), dtype=bool)
    is_open[np.unique(keys, return_index=True)[1]] = True
    if frozen.data.has_labels("train"):
        is_open &= ~np.isin(keys, np.array(text_keys(texts_of(frozen, "train"))))
    descriptions = description_vectors(frozen.resolved, frozen.model, frozen.tokenizer)
    seed = frozen.resolved.args.training.seed
    return Proposer(frozen.features[UNLABELLED], is_open, frozen.data.labels, seed, descriptions)


def labelled_rows(frozen: FrozenFeatures, split: str) -> LabelledRows:
    """Reads the labelled rows of a split, at most [`MOST_LABELLED`], into memory; none where it has no labels."""
    if not frozen.data.has_labels(split):
        width = frozen.model.config.feature_size
        return LabelledRows(np.zeros((0, width), np.float32), np.zeros(0, int), np.zeros(0, int))
    features, texts = frozen.features[split], first_rows(texts_of(frozen, split))
    rows = _sampled(len(features), frozen.resolved.args.training.seed)
    batch = features.__getitems__(rows)
    return LabelledRows(batch["features"].numpy(), batch["labels"].numpy(), texts[rows])


def _sampled(rows: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_LABELLED])


def proposals(frozen: FrozenFeatures, strategy: AskedStrategy | None, number: int) -> list[Proposal]:
    """Proposes texts of the pool.

    Args:
        frozen: the splits and features of the run.
        strategy: how to choose; None for `spread`, or for `coverage` where nothing tells the labels apart.
        number: how many.

    Raises:
        ArgumentsError: the strategy needs rows of two labels or label descriptions, and there are none.
    """
    labels, labelled, proposer = frozen.data.labels, labelled_rows(frozen, "train"), proposer_of(frozen)
    head = proposer.head(labelled.features, labelled.gold)
    chosen = strategy or ("spread" if len(labelled) or head is not None else "coverage")
    assert chosen != "suspects"
    if chosen in ("spread", "uncertainty") and head is None:
        raise ArgumentsError(
            f"--strategy {chosen} needs labelled rows of two labels or more: until then, choose coverage"
        )
    rows = proposer.propose(chosen, number, labelled.features, head)
    texts = texts_of(frozen, UNLABELLED).select(rows)
    outputs = None if head is None else head.probabilities(proposer.features(rows))
    name = cast(str, frozen.resolved.args.data.unlabelled_file)
    source, _ = load_path(name, frozen.resolved.args.data, needs_label=False)
    wanted = list(rows_of_texts(texts))
    return _assembled(source, wanted, _first_places(rows_of_texts(source), wanted), None, outputs, labels)


def suspects(frozen: FrozenFeatures, number: int) -> list[Proposal]:
    """Proposes labelled rows whose label is doubted by heads that have not seen them, the most doubted first.

    Args:
        frozen: the splits and features of the run.
        number: how many; where fewer labels are doubted, only those.

    Raises:
        ArgumentsError: there are too few rows to hold any out.
    """
    labels, rows, args = frozen.data.labels, labelled_rows(frozen, "train"), frozen.resolved.args
    generator = np.random.default_rng(args.training.seed)
    descriptions = description_vectors(frozen.resolved, frozen.model, frozen.tokenizer)
    scaling = fitted_scaling(frozen.features["train"], generator, descriptions)
    outputs = out_of_fold_probabilities(rows.features, rows.gold, rows.texts, labels, scaling, args.training.seed)
    if outputs is None:
        raise ArgumentsError("--strategy suspects holds rows out, and needs two texts of a label or more: label some")
    doubted = doubts(outputs, rows.gold, labels.problem_type)
    found = highest(doubted, number)
    found = found[doubted[found] > 0]
    split = texts_of(frozen, "train").select(_sampled(len(frozen.features["train"]), args.training.seed)[found])
    names = cast(list[RawLabel], [labels.readable(label) for label in rows.gold[found]])
    wanted = [(*texts, _key(name)) for texts, name in zip(rows_of_texts(split), names, strict=True)]
    source = load_sources(args.data, frozenset({"train"}), {})["train"].dataset
    given = map(_key, raw_labels(source, args.data))
    places = _first_places(((*texts, name) for texts, name in zip(rows_of_texts(source), given, strict=True)), wanted)
    return _assembled(source, list(rows_of_texts(split)), places, names, outputs[found], labels)


def _key(label: RawLabel) -> Any:
    return tuple(sorted(label)) if isinstance(label, list) else label


def _first_places(rows: Iterable[tuple[Any, ...]], wanted: Sequence[tuple[Any, ...]]) -> list[int]:
    """Returns the position of the first row that equals each wanted one."""
    missing, places = set(wanted), {}
    for position, row in enumerate(rows):
        if row in missing:
            places[row] = position
            missing.remove(row)
            if not missing:
                break
    return [places[row] for row in wanted]


def _assembled(
    source: Dataset,
    texts: Sequence[tuple[str | None, ...]],
    places: Sequence[int],
    given: Sequence[RawLabel] | None,
    outputs: np.ndarray | None,
    labels: Any,
) -> list[Proposal]:
    """Puts proposals together.

    Args:
        source: the file that the rows come from.
        texts: the texts of each row.
        places: the position of each row in the file.
        given: the label of each row; None for texts without labels.
        outputs: (rows, labels) probabilities; None without a head.
        labels: the labels of the task.
    """
    ids = source.select(places)["id"][:] if "id" in source.column_names else [None] * len(places)
    proposed: list[Any] = [None] * len(places)
    probability: list[float | None] = [None] * len(places)
    if outputs is not None:
        proposed = [labels.readable(label) for label in predicted_labels(outputs, labels.problem_type)]
        is_single = labels.problem_type == SINGLE_LABEL
        probability = list(outputs.max(axis=1) if is_single else np.maximum(outputs, 1 - outputs).min(axis=1))
    return [
        Proposal(
            place + 1,
            cast(tuple[str, ...], texts[number]),
            None if ids[number] is None else str(ids[number]),
            None if given is None else given[number],
            proposed[number],
            probability[number],
        )
        for number, place in enumerate(places)
    ]
