"""The metadata of a model card, which the Hub reads."""

import math
import re

import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from bertcls_hf.hub.card.finished_run import FinishedRun
from bertcls_hf.hub.card.licences import data_name, is_hub_id
from bertcls_hf.hub.card.public_text import plain_text, shortened
from bertcls_hf.hub.card.sections.names import model_name
from bertcls_hf.metrics.metrics import METRICS


MOST_EXAMPLES, LONGEST_EXAMPLE = 5, 300
# The licence names that the Hub takes; another one would make it refuse the card.
LICENCE_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def card_metadata(run: FinishedRun) -> ModelCardData:
    """The metadata of a run: only names that the Hub knows, and the figures of `all_results.json`."""
    base, dataset = run.args.model.model_name_or_path, run.args.data.dataset_name
    results = _eval_results(run)
    licence = run.licences[0]
    examples = [{"text": text} for text in _example_texts(run)]
    return ModelCardData(
        base_model=base if run.has_trained and is_hub_id(base) else None,
        datasets=[dataset] if dataset and is_hub_id(dataset) else None,
        eval_results=results or None,
        library_name="transformers",
        license=licence if licence and LICENCE_NAME.fullmatch(licence) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=model_name(run) if results else None,
        pipeline_tag="text-classification",
        tags=["text-classification", "bertcls_hf"],
        widget=examples or None,
    )


def _eval_results(run: FinishedRun) -> list[EvalResult]:
    evaluation = run.headline
    if evaluation is None:
        return []
    args = run.args.data
    is_on_hub = args.dataset_name is not None and is_hub_id(args.dataset_name)
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=str(args.dataset_name) if is_on_hub else "custom",
            dataset_name=data_name(args, evaluation.split),
            dataset_config=args.dataset_config_name if is_on_hub else None,
            dataset_revision=args.dataset_revision if is_on_hub else None,
            dataset_split=evaluation.split,
            metric_type=metric.hub_name,
            metric_name=metric.words,
            metric_value=evaluation.metrics[metric.name],
        )
        for metric in METRICS[run.labels.problem_type]
        # The Hub takes no NaN.
        if math.isfinite(evaluation.metrics[metric.name])
    ]


def _example_texts(run: FinishedRun) -> list[str]:
    """The starts of some texts of the headline's split with different labels, for trying the model on the Hub.

    There are none for pairs, since the Hub's page takes single texts.
    """
    if run.headline is None:
        return []
    split = run.texts(run.headline.split)
    if "text_pair" in split.column_names:
        return []
    _, first = np.unique(run.headline.gold, axis=0, return_index=True)
    texts = split.select(sorted(first.tolist())[:MOST_EXAMPLES])["text"]
    plain = [plain_text(shortened(text or "", LONGEST_EXAMPLE)) for text in texts]
    return list(dict.fromkeys(text for text in plain if text))
