"""Accuracy, seconds and memory from few labelled texts: ours, SetFit, embeddings with a regression, and TF-IDF.

    python benchmarks/few_shot.py
    python benchmarks/few_shot.py --data imdb --train_file train.parquet --per_class 8 32 --seeds 3 --output few.json \
        --peers /path/to/another/python -- --bf16 true

Each way is a process of its own, whose seconds are those from its start until it can classify, imports included. All
ways of a seed get the same texts and are asked about the same others, which no draw trains on; `described` is ours
with a sentence about each label, too. SetFit and sentence-transformers run in the environment of `--peers`; without it
they are left out. Words after `--` go to our runs. A figure that is in `--output` already is not measured again.

With `--per_class 0`, no text has a label: `names` takes the nearest label name, `descriptions` the nearest sentence
about a label, and `self_trained` goes on from there with the texts of a pool, by features and n-grams.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import environment, print_table, report, words_and_rest
from finetuning import CORPUS, MODEL

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.load import load_data
from bertcls_hf.data.python_packages import is_packaged, packaged_model


TEST_SEED = 1_000_000
PEERS = ("setfit", "embeddings")
WAYS, WAYS_WITHOUT_LABELS = ("ours", "described", *PEERS, "tfidf"), ("names", "descriptions", "self_trained")
# The texts without labels of a draw.
POOL_ROWS = 1000


@dataclass(frozen=True)
class Corpus:
    """How the texts of a corpus are read.

    Args:
        truncation_side: the side on which long texts are cut.
        max_seq_length: the longest text in tokens.
        characters: whether TF-IDF is of characters.
        descriptions: a text for each label, in the order of their names.
    """

    descriptions: tuple[str, ...]
    truncation_side: str = "right"
    max_seq_length: int = 256
    characters: bool = False


NEWS = (
    "News about companies, markets and the economy.",
    "News about films, music, television and celebrities.",
    "News about the government, parties and elections.",
    "News about athletes, teams, matches and tournaments.",
    "News about computers, software, phones and the internet.",
)
REVIEWS = ("This movie was terrible, boring and a waste of time.", "This movie was great, I loved it.")
KOREAN_REVIEWS = ("최악의 영화, 지루하고 시간 낭비다", "정말 재미있고 감동적인 최고의 영화")
CORPORA = {
    "bbc": Corpus(NEWS),
    "imdb": Corpus(REVIEWS, truncation_side="left"),
    "nsmc": Corpus(KOREAN_REVIEWS, max_seq_length=64, characters=True),
}


def read_rows(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The texts and labels of the corpus, each text once."""
    source: dict[str, Any] = {"train_file": options.train_file} if options.train_file else {"dataset_name": CORPUS}
    args = DataArguments(
        **source, encoding_errors="replace", empty_text="drop", validation_split_percentage=0, label_names=None
    )
    data = load_data(args, None, trains=True, predicts=False)
    rows = dict(zip(data.splits["train"]["text"], data.splits["train"]["label"], strict=True))
    return list(rows), [data.labels.names[label] for label in rows.values()]


def task_of(
    texts: list[str], labels: list[str], per_class: int, seed: int, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """What a way is given: a few texts of each label, and others to classify."""
    corpus, gold = CORPORA[options.data], np.array(labels)
    test = np.random.default_rng(TEST_SEED).permutation(len(texts))[: options.test_rows]
    order = np.setdiff1d(np.arange(len(texts)), test)
    order = np.random.default_rng(seed).permutation(order)
    train = np.concatenate([order[gold[order] == label][:per_class] for label in np.unique(gold)])
    path, pool = folder / "train.jsonl", folder / "pool.jsonl"
    unlabelled = [json.dumps({"text": texts[row]}, ensure_ascii=False) for row in order[:POOL_ROWS]]
    pool.write_text("\n".join(unlabelled) + "\n", encoding="utf-8")
    lines = [json.dumps({"text": texts[row], "label": labels[row]}, ensure_ascii=False) for row in train]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    side = {"truncation_strategy": "tail"} if corpus.truncation_side == "left" else {}
    words = dict(zip(options.words[::2], options.words[1::2], strict=True))
    own = {name.removeprefix("--"): value for name, value in words.items()}
    model = str(packaged_model(options.model)) if is_packaged(options.model) else options.model
    return {
        "model": model, "seed": seed, "folder": str(folder), "train_file": str(path), "pool": str(pool),
        "max_seq_length": corpus.max_seq_length, "truncation_side": corpus.truncation_side,
        "characters": corpus.characters, "options": {**side, **own},
        "names": sorted(set(labels)), "descriptions": corpus.descriptions,
        "texts": [texts[row] for row in train], "labels": [labels[row] for row in train],
        "test_texts": [texts[row] for row in test], "test_labels": [labels[row] for row in test],
    }  # fmt: skip


def measure(way: str, task: dict[str, Any], python: str) -> dict[str, float]:
    """Runs a way in a process of its own."""
    path = Path(task["folder"], "task.json")
    path.write_text(json.dumps(task), encoding="utf-8")
    command = [python, str(Path(__file__).parent / "_few_shot_ways.py"), way, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{way}: {run.stderr[-2000:]}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def row(found: dict[str, list[dict[str, float]]], way: str) -> tuple[str, ...]:
    """A line of the table: means and deviations over the seeds."""
    figures = found[way]
    accuracy = [100 * figure["accuracy"] for figure in figures]
    spread = f" ± {statistics.stdev(accuracy):.1f}" if len(accuracy) > 1 else ""
    seconds = statistics.mean(figure["seconds"] for figure in figures)
    memory = statistics.mean(figure["megabytes"] for figure in figures)
    return (way, f"{statistics.mean(accuracy):.1f}{spread}", str(len(accuracy)), f"{seconds:.1f}", f"{memory:,.0f}")


def parse() -> argparse.Namespace:
    """The options of the command line."""
    own, words = words_and_rest()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=sorted(CORPORA), default="bbc", help="how the texts are read")
    parser.add_argument("--train_file", help="the labelled texts; default: the BBC's news of a PyPI package")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--per_class", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--test_rows", type=int, default=1000)
    parser.add_argument("--ways", nargs="+", default=[*WAYS, *WAYS_WITHOUT_LABELS])
    parser.add_argument("--peers", help="the python of an environment with setfit and sentence-transformers")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(own, argparse.Namespace(words=words))


def main() -> None:
    """Measures, and prints a table for each number of texts."""
    options = parse()
    ways = [way for way in options.ways if way not in PEERS or options.peers]
    texts, labels = read_rows(options)
    is_begun = options.output is not None and options.output.exists()
    results: dict[str, Any] = json.loads(options.output.read_text(encoding="utf-8")) if is_begun else {}
    results |= {"environment": environment("scikit-learn"), "data": options.data, "words": options.words}
    results["test_rows"] = options.test_rows
    for per_class in options.per_class:
        found = results.setdefault(str(per_class), {})
        for seed in range(options.seeds):
            for way in ways:
                if (per_class == 0) != (way in WAYS_WITHOUT_LABELS):
                    continue
                if str(seed) in found.setdefault(way, {}):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    task = task_of(texts, labels, per_class, seed, Path(folder), options)
                    found[way][str(seed)] = measure(way, task, options.peers if way in PEERS else sys.executable)
                print(
                    f"{per_class} per label, seed {seed}, {way}: {found[way][str(seed)]}", file=sys.stderr, flush=True
                )
                if options.output is not None:
                    report_quietly(results, options.output)
        print(f"\n{options.data}, {per_class} texts of each label")
        lists = {way: list(figures.values()) for way, figures in found.items()}
        print_table(("way", "accuracy, %", "seeds", "seconds", "MB"), [row(lists, way) for way in lists])
    report(results, options.output)


def report_quietly(results: dict[str, Any], output: Path) -> None:
    """Keeps what was measured so far."""
    output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
