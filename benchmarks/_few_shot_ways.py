"""Trains on few texts in one way and prints its figures as JSON, for `benchmarks/few_shot.py`.

It imports nothing of bertcls_hf for the ways of others, so that it runs in an environment of their own.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


# The contrastive pairs of SetFit are so many for each text, as in its paper.
SETFIT_ITERATIONS = 20
Classify = Callable[[list[str]], list[str]]


def names(task: dict[str, Any]) -> Classify:
    """Takes the label whose name is nearest."""
    return ours(task, _without_labels(task))


def descriptions(task: dict[str, Any]) -> Classify:
    """Takes the label whose description is nearest."""
    return ours(task, {**_without_labels(task), "label_descriptions": task["descriptions"]})


def self_trained(task: dict[str, Any]) -> Classify:
    """Starts from the descriptions, and lets features and n-grams teach each other on the pool."""
    more = {"label_descriptions": task["descriptions"], "self_training_rounds": None}
    return ours(task, {**_without_labels(task), **more})


def _without_labels(task: dict[str, Any]) -> dict[str, Any]:
    return {
        "few_shot": None, "train_file": None, "unlabelled_file": task["pool"], "label_names": task["names"],
        "self_training_rounds": 0,
    }  # fmt: skip


def described(task: dict[str, Any]) -> Classify:
    """Runs `--few_shot` with `--label_descriptions`."""
    return ours(task, {"label_descriptions": task["descriptions"]})


def ours(task: dict[str, Any], more: dict[str, Any] | None = None) -> Classify:
    """Runs `--few_shot` in a process of its own, with more options."""
    out = Path(task["folder"], "ours")
    options = {
        "few_shot": "true", "train_file": task["train_file"], "model_name_or_path": task["model"],
        "max_seq_length": task["max_seq_length"], "output_dir": out, "lexical_baseline": "false", "report_to": "none",
        "disable_tqdm": "true", "seed": task["seed"], "use_cpu": "true", **task["options"], **(more or {}),
    }  # fmt: skip
    script = Path(__file__).parents[1] / "run_classification.py"
    words = []
    for name, value in options.items():
        if value is None:
            continue
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    run = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr[-2000:])

    def classify(texts: list[str]) -> list[str]:
        from bertcls_hf.predict.predictor import Predictor

        return [str(found.label) for found in Predictor.from_pretrained(str(out), device="cpu").predict(texts)]

    return classify


def setfit(task: dict[str, Any]) -> Classify:
    """SetFit with its defaults, but for the number of pairs, which grows with the square of the texts otherwise."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(task["model"], device="cpu")
    model.model_body.max_seq_length = task["max_seq_length"]
    model.model_body.tokenizer.truncation_side = task["truncation_side"]
    args = TrainingArguments(
        output_dir=str(Path(task["folder"], "setfit")), num_iterations=SETFIT_ITERATIONS, num_epochs=1,
        batch_size=16, seed=task["seed"], report_to="none", show_progress_bar=False, save_strategy="no",
    )  # fmt: skip
    data = Dataset.from_dict({"text": task["texts"], "label": task["labels"]})
    Trainer(model, args, train_dataset=data).train()
    return lambda texts: [str(label) for label in model.predict(texts)]


def embeddings(task: dict[str, Any]) -> Classify:
    """Embeddings of sentence-transformers, of length 1, and scikit-learn's logistic regression with its defaults."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(task["model"], device="cpu")
    encoder.max_seq_length = task["max_seq_length"]
    encoder.tokenizer.truncation_side = task["truncation_side"]

    def encode(texts: list[str]) -> Any:
        return encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    regression = LogisticRegression(max_iter=1000).fit(encode(task["texts"]), task["labels"])
    return lambda texts: list(regression.predict(encode(texts)))


def tfidf(task: dict[str, Any]) -> Classify:
    """TF-IDF of words and pairs of words, or of characters where words say little, and a logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    kind = {"analyzer": "char_wb", "ngram_range": (1, 4)} if task["characters"] else {"ngram_range": (1, 2)}
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, **kind), LogisticRegression(C=10, max_iter=1000))
    model.fit(task["texts"], task["labels"])
    return lambda texts: list(model.predict(texts))


WAYS = {
    "names": names,
    "descriptions": descriptions,
    "self_trained": self_trained,
    "ours": ours,
    "described": described,
    "setfit": setfit,
    "embeddings": embeddings,
    "tfidf": tfidf,
}


def main() -> None:
    """Reads the way and the file of the task from the command line."""
    start = time.perf_counter()
    way, path = sys.argv[1:]
    task = json.loads(Path(path).read_text(encoding="utf-8"))
    classify = WAYS[way](task)
    seconds = time.perf_counter() - start
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = classify(task["test_texts"])
    hits = sum(one == other for one, other in zip(found, task["test_labels"], strict=True))
    # Linux counts kilobytes.
    print(json.dumps({"accuracy": hits / len(found), "seconds": seconds, "megabytes": max(usage) / 1024}))


if __name__ == "__main__":
    main()
