"""The end of a model card: what its figures do not say, and the licences of the sources."""

import numpy as np

from bertcls_hf.data.labels import REGRESSION, SINGLE_LABEL
from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.public_text import escape_markdown, quote
from bertcls_hf.hub.card.sections.names import base_model_code, escaped_data_name
from bertcls_hf.hub.card.sections.tables import table
from bertcls_hf.metrics.calibration import CALIBRATION_FILE


# With fewer texts, a label's own figures are rough.
FEW_ROWS = 30
# More labels are counted, not named.
MOST_NAMED = 10


def limits(run: FinishedRun) -> list[str]:
    """The sentences about what the figures do not tell."""
    sentences = [
        f"The figures hold for texts like those of {escaped_data_name(run)}: other sources, languages and times were "
        "not measured, and neither were biases of the encoder or the data."
    ]
    if run.labels.problem_type == SINGLE_LABEL:
        sentences.append(f"A text about anything else also gets one of the {len(run.labels.names)} labels.")
    split = run.headline.split if run.headline else next(iter(run.data.splits))
    lengths = run.lengths(split)
    if lengths is not None:
        share = f"{(lengths >= run.max_seq_length).mean():.1%} of the {split} texts"
        sentences += _long_texts(run, share)
    if run.args.training.calibrate:
        sentences.append(
            f"The figures are of the model's own outputs: what `{CALIBRATION_FILE}` holds is applied by "
            "`python -m bertcls_hf.predict`, and not by a pipeline."
        )
    return [*sentences, *_rare_labels(run)]


def _long_texts(run: FinishedRun, share: str) -> list[str]:
    """Says what is read of texts that are too long for the encoder, and which share of a split they are."""
    tokens, settings = run.max_seq_length, run.truncation
    own_code = "No stock class does this, so that the model needs the code beside its weights."
    if settings is not None and settings.strategy == "windows":
        beyond = f"What lies beyond {settings.max_text_length:,} tokens is not read."
        return [f"Texts of more than {tokens} tokens are split into windows; {share} reach that length.", beyond,
                own_code]  # fmt: skip
    if settings is not None and settings.strategy == "head_tail":
        kept = settings.kept_at_start
        ends = f"the first {kept} and the last {tokens - kept} tokens of the first {settings.max_text_length:,}"
        return [f"Of a text of more than {tokens} tokens, the encoder reads {ends}; {share} reach {tokens}.", own_code]
    reads_more = run.pipeline_max_length > tokens
    reader = "For the encoder, longer texts are" if reads_more else "Longer texts are"
    return [f"{reader} cut at {tokens} tokens, which {share} reach."]


def _rare_labels(run: FinishedRun) -> list[str]:
    evaluation, labels = run.headline, run.labels
    if evaluation is None or labels.problem_type == REGRESSION:
        return []
    gold = np.asarray(evaluation.gold)
    counts = gold.sum(axis=0) if gold.ndim > 1 else np.bincount(gold, minlength=len(labels.names))
    rare = [quote(name, 60) for name, count in zip(labels.names, counts, strict=True) if count < FEW_ROWS]
    named = f" ({', '.join(rare)})" if len(rare) <= MOST_NAMED else ""
    about = f"{len(rare)} of {len(labels.names)} labels{named} have fewer than {FEW_ROWS} {evaluation.split} texts"
    return [f"{about}: their own figures are rough."] if rare else []


def licence_table(run: FinishedRun) -> str:
    """The licences that the model and the data state."""
    model, data = run.licences
    base = base_model_code(run)
    rows = [
        ["encoder" if run.has_trained else "model", base, escape_markdown(model or "not known")],
        ["data", escaped_data_name(run), escape_markdown(data or "not known")],
    ]
    return table(["", "", "licence"], rows, left=3)
