"""Trainings of the same texts as others do them, for `benchmarks/finetuning.py`: as many updates, of as many texts."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _stopwatch import Stopwatch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
)


def peers(
    model: str, tokenizer: PreTrainedTokenizerBase, texts: list[str], labels: list[int], batch_size: int, folder: str
) -> dict[str, Callable[[int], float]]:
    """Returns for each peer that is installed what trains for a number of updates and returns the seconds.

    Args:
        model: a folder with an encoder.
        tokenizer: its tokenizer, which cuts texts at its `model_max_length`.
        texts: the texts.
        labels: their labels, from 0.
        batch_size: texts of an update.
        folder: a folder that may be written to.
    """
    limit = tokenizer.model_max_length

    def arguments(updates: int) -> dict[str, Any]:
        return {"output_dir": folder, "per_device_train_batch_size": batch_size, "max_steps": updates,
                "save_strategy": "no", "report_to": "none", "disable_tqdm": True}  # fmt: skip

    def script(updates: int, is_padded: bool) -> float:
        encoded = tokenizer(texts, truncation=True, max_length=limit, padding="max_length" if is_padded else False)
        classifier = AutoModelForSequenceClassification.from_pretrained(model, num_labels=max(labels) + 1)
        stopwatch = Stopwatch()
        trainer = Trainer(
            classifier,
            TrainingArguments(**arguments(updates)),
            train_dataset=Dataset.from_dict({**encoded, "label": labels}),
            data_collator=default_data_collator if is_padded else DataCollatorWithPadding(tokenizer),
            callbacks=[stopwatch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return stopwatch.seconds

    def sentence_transformers(updates: int) -> float:
        from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
        from sentence_transformers import SentenceTransformerTrainingArguments as SentenceArguments
        from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss

        encoder, stopwatch = SentenceTransformer(model, device="cpu"), Stopwatch()
        encoder.max_seq_length = limit
        rows = Dataset.from_dict({"sentence": texts, "label": labels})
        trainer = SentenceTransformerTrainer(
            encoder, SentenceArguments(**arguments(updates)), rows, loss=BatchAllTripletLoss(encoder),
            callbacks=[stopwatch],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return stopwatch.seconds

    def setfit(updates: int) -> float:
        import setfit as library

        encoder, stopwatch = library.SetFitModel.from_pretrained(str(Path(model)), device="cpu"), Stopwatch()
        encoder.model_body.max_seq_length = limit
        trainer = library.Trainer(
            encoder,
            library.TrainingArguments(output_dir=folder, batch_size=batch_size, max_steps=updates, report_to="none",
                                      save_strategy="no", show_progress_bar=False),
            train_dataset=Dataset.from_dict({"text": texts, "label": labels}),
            callbacks=[stopwatch],
        )  # fmt: skip
        trainer.train_embeddings(texts, labels)
        return stopwatch.seconds

    ways: dict[str, Callable[[int], float]] = {
        "Trainer as in run_classification.py, padded": lambda updates: script(updates, True),
        "the same, --pad_to_max_length False": lambda updates: script(updates, False),
    }
    if find_spec("sentence_transformers"):
        ways["sentence-transformers, triplets of a batch"] = sentence_transformers
    if find_spec("setfit"):
        ways["SetFit, pairs of texts"] = setfit
    return ways
