"""How many texts per second a trained model classifies: `bertcls_hf.predict` against transformers' pipeline.

    python benchmarks/predict.py
    python benchmarks/predict.py --test_file imdb.parquet --model outputs/imdb --output predict.json
    bertcls cascade outputs/imdb && python benchmarks/predict.py --test_file imdb.parquet --model outputs/imdb --graphs

(a) `pipeline("text-classification", batch_size=32)` over the texts as they come, cut at the model's length;
(b) `Predictor.logits`, which the demo page and others call;
(c) the command's own work: reading the texts' file, classifying, and writing the lines to disk, with fsync and state;
(d) the same in bfloat16 and, with `--graphs`, with the graphs of `bertcls export`, by ONNX Runtime and OpenVINO;
(e) all of these with the cascade of `bertcls cascade`, for a `--model` that has one.

All start from text and end with probabilities, in one process; loading the model is not timed. Every text is
classified in every way, and the first line says how far the probabilities are apart. Without `--model`, the model is
MiniLM under a new, random head of two labels: they are worth nothing, but speed does not depend on them.
Beside lexical features, the pipeline has the stock class of the encoder, which has none.
"""

import argparse
import copy
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _common import environment, interleaved, print_table, ratios_to, report, spread
from _stopwatch import now
from finetuning import CORPUS, MODEL
from transformers import AutoModelForSequenceClassification, Pipeline, PreTrainedModel, pipeline, set_seed
from transformers.utils.logging import disable_progress_bar

from bertcls_hf.config.arguments import DataArguments, ModelArguments
from bertcls_hf.data.labels import REGRESSION, SINGLE_LABEL, LabelSet
from bertcls_hf.data.python_packages import packaged_corpus
from bertcls_hf.data.sources import load_path
from bertcls_hf.export.__main__ import main as export
from bertcls_hf.metrics.cascade import CASCADE_FILE
from bertcls_hf.models.loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
from bertcls_hf.models.modeling import TextClassifier
from bertcls_hf.predict.arguments import PredictionArguments
from bertcls_hf.predict.input import open_sources, read_rows
from bertcls_hf.predict.output import OutputFile
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.predict.quickest import Way, ways_of
from bertcls_hf.predict.run import write_predictions


PIPELINE, LOGITS, COMMAND = "(a) pipeline", "(b) Predictor", "(c) the command"
PIPELINE_BATCH, WARM_UP_TEXTS = 32, 64


def untrained_model(folder: Path, max_seq_length: int) -> None:
    """Saves MiniLM under a random head, as a run saves a model."""
    args = ModelArguments(model_name_or_path=MODEL)
    checkpoint = open_checkpoint(args)
    tokenizer = load_tokenizer(args, checkpoint, max_seq_length)
    set_seed(0)
    config = resolve_config(args, checkpoint, LabelSet(SINGLE_LABEL, ("neg", "pos")))
    load_classifier(args, checkpoint, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sampled_texts(test_file: str | None, rows: int) -> list[str]:
    """A random sample of the file's texts, or of the BBC corpus's."""
    path = test_file or str(packaged_corpus(CORPUS))
    # One of the corpus's files is Latin-1.
    rows_of_file, _ = load_path(path, DataArguments(encoding_errors="replace"), needs_label=False)
    texts = rows_of_file["text"][:]
    order = np.random.default_rng(0).permutation(len(texts))[:rows]
    return [texts[row] or "" for row in order]


def encoder_alone(model: TextClassifier) -> PreTrainedModel:
    """The stock class of a model's encoder, under a random head; speed does not depend on the weights."""
    config = copy.deepcopy(model.config.encoder_config)
    config.id2label, config.label2id = model.config.id2label, model.config.label2id
    return AutoModelForSequenceClassification.from_config(config).eval()


def pipeline_of(predictor: Predictor) -> Pipeline:
    """A pipeline of the model, or of its encoder alone beside lexical features."""
    model = predictor.model
    if predictor.engine.has_lexical_features:
        model = encoder_alone(cast(TextClassifier, model))
    return pipeline("text-classification", model, tokenizer=predictor.tokenizer, top_k=None)


def graph_ways(model: str, graph: Path, predictor: Predictor) -> list[Way]:
    """Exports a model, and lists the ways to run its graphs."""
    if export([model, "--output_dir", str(graph), "--quantize", "int8"]):
        raise SystemExit(f"{model} was not exported")
    # OpenVINO cannot hash n-grams.
    has_table = predictor.engine.has_lexical_features
    return [way for way in ways_of(str(graph), None) if not (has_table and way.backend == "openvino")]


def load_for(way: Way, model: str, graph: Path, cascade: bool) -> Predictor:
    """Loads the model, or the folder of its graphs."""
    source = model if way.backend == "torch" else str(graph)
    return Predictor.from_pretrained(source, backend=way.backend, dtype=way.dtype, cascade=cascade)


class Workbench:
    """The texts, the model in all ways, and one pass over the texts in each."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.folder = folder
        self.texts = sampled_texts(options.test_file, options.rows)
        self.source = folder / "texts.parquet"
        pq.write_table(pa.table({"text": self.texts}), self.source)
        model = options.model
        if model is None:
            model = str(folder / "model")
            untrained_model(Path(model), options.max_seq_length)
        self.predictor = Predictor.from_pretrained(model, cascade=False)
        if self.predictor.labels.problem_type == REGRESSION:
            raise SystemExit(f"--model {model}: a regression, which has no probabilities to compare")
        self.is_plain = not self.predictor.engine.has_lexical_features
        self.pipeline = pipeline_of(self.predictor)
        self.passes = 0
        self.predictors: dict[str, Predictor] = {COMMAND: self.predictor}
        graph = folder / "graph"
        ways = [Way("torch", "bfloat16"), *(graph_ways(model, graph, self.predictor) if options.graphs else [])]
        for way in ways:
            self.predictors[f"(d) {way}"] = load_for(way, model, graph, cascade=False)
        for way in [Way("torch", "float32"), *ways] if Path(model, CASCADE_FILE).exists() else []:
            self.predictors[f"(e) cascade, {way}"] = load_for(way, model, graph, cascade=True)

    def probabilities_of_pipeline(self, texts: list[str]) -> np.ndarray:
        """(texts, labels) as transformers computes them."""
        rows = self.pipeline(
            texts, batch_size=PIPELINE_BATCH, truncation=True, max_length=self.predictor.encoder_length
        )
        names = self.predictor.labels.names
        return np.array([[{s["label"]: s["score"] for s in row}[name] for name in names] for row in rows])

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """(texts, labels) as this project computes them."""
        return self.predictor.calibration.probabilities(self.predictor.logits(texts), self.predictor.labels)

    def agreement(self, name: str) -> float:
        """The share of texts whose label is that of the Predictor."""
        labels = (self.predictors[way].answers(self.texts).logits.argmax(axis=1) for way in (name, COMMAND))
        return float(np.mean(np.equal(*labels)))

    def by_lexical(self) -> float | None:
        """The share of texts that the lexical features of a cascade answer; None without a cascade."""
        name = next((name for name in self.predictors if name.startswith("(e)")), None)
        answered = None if name is None else self.predictors[name].answers(self.texts).by_lexical
        return None if answered is None else float(answered.mean())

    def run_command(self, name: str) -> None:
        """What the command does once it has loaded the model."""
        options = PredictionArguments(output_file=str(self.folder / "out.jsonl"), disable_tqdm=True)
        sources = open_sources([str(self.source)], options.data(), "lines", sys.stdin.buffer)
        self.passes += 1
        output = OutputFile(Path(options.output_file), {"pass": self.passes})
        write_predictions(self.predictors[name], read_rows(sources), output, options)

    def seconds(self, name: str) -> float:
        """One pass over all texts."""
        begin = now(self.predictor.model.device)
        if name == PIPELINE:
            self.probabilities_of_pipeline(self.texts)
        elif name == LOGITS:
            self.probabilities(self.texts)
        else:
            self.run_command(name)
        return now(self.predictor.model.device) - begin

    def lengths(self) -> np.ndarray:
        """Tokens of each text, special ones included."""
        encoded = self.predictor.tokenizer(self.texts, truncation=True, max_length=self.predictor.encoder_length)
        return np.array([len(ids) for ids in encoded["input_ids"]])


def padded_tokens(lengths: np.ndarray) -> float:
    """Tokens per text where batches of the pipeline's size are padded, in the order of the texts."""
    batches = [lengths[start : start + PIPELINE_BATCH] for start in range(0, len(lengths), PIPELINE_BATCH)]
    return float(sum(batch.max() * len(batch) for batch in batches) / len(lengths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test_file", help="csv, jsonl or parquet file with texts (default: the BBC corpus)")
    parser.add_argument("--model", help="a trained classifier (default: MiniLM under a random head)")
    parser.add_argument("--graphs", action="store_true", help="measure graphs too, which are exported first")
    parser.add_argument("--rows", type=int, default=400, help="texts, a random sample (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="passes in each way (%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=512, help="longest text in tokens (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    disable_progress_bar()

    machine = {**environment(), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(options, Path(folder))
        warm_up = bench.texts[:WARM_UP_TEXTS]
        difference = np.abs(bench.probabilities_of_pipeline(warm_up) - bench.probabilities(warm_up)).max()
        for predictor in bench.predictors.values():
            predictor.answers(warm_up)
        ways = {name: lambda name=name: bench.seconds(name) for name in (PIPELINE, LOGITS, *bench.predictors)}
        seconds = interleaved(ways, options.rounds)
        if options.rows > WARM_UP_TEXTS and bench.is_plain:
            difference = np.abs(bench.probabilities_of_pipeline(bench.texts) - bench.probabilities(bench.texts)).max()
        lengths = bench.lengths()
        agreements = {name: bench.agreement(name) for name in bench.predictors}
        by_lexical = bench.by_lexical()
    speeds = {name: len(bench.texts) / statistics.median(values) for name, values in seconds.items()}
    speedups = {name: [1 / ratio for ratio in values] for name, values in ratios_to(PIPELINE, seconds).items()}
    print(
        f"{len(bench.texts)} texts of {lengths.mean():.0f} tokens on average, {padded_tokens(lengths):.0f} with the "
        f"pipeline's padding, cut at {bench.predictor.encoder_length}; on {bench.predictor.model.device}, median of "
        f"{options.rounds} rounds; "
        + (
            f"probabilities differ by {difference:.1e} at most"
            if bench.is_plain
            else "the pipeline has the encoder alone"
        )
        + ("" if by_lexical is None else f"; lexical features answer {by_lexical:.1%}")
    )
    rows = [
        (name, f"{speed:.2f}", f"{speed * lengths.mean():.0f}", spread(speedups[name]),
         f"{100 * agreements[name]:.2f}" if name in agreements else "")
        for name, speed in speeds.items()
    ]  # fmt: skip
    print_table(("way", "texts/s", "tokens/s", "speed against the pipeline", "same labels, %"), rows)
    results: dict[str, Any] = {
        "options": vars(options), "environment": machine, "tokens_per_text": float(lengths.mean()),
        "padded_tokens_per_text": padded_tokens(lengths), "seconds": seconds, "texts_per_second": speeds,
        "speedups": speedups, "agreements": agreements, "answered_by_lexical_features": by_lexical,
        "largest_difference": float(difference) if bench.is_plain else None,
    }  # fmt: skip
    report(results, options.output)


if __name__ == "__main__":
    main()
