"""How long one text takes: `Predictor` in each way and with a cascade, against a pipeline and ONNX Runtime alone.

    python benchmarks/latency.py
    python benchmarks/latency.py --test_file imdb.parquet --model outputs/imdb --output latency.json

One text after the other, from text to probabilities. Each way classifies every text in turn, so that all of them meet
the same disturbances; loading is not timed. ONNX Runtime alone is the same graph behind the same tokenizer, with
nothing of this project. Where `sentence-transformers[onnx]` is installed, its encoder alone is timed too. Without
`--model`, the model is MiniLM under a random head.
"""

import argparse
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, sleep

import datasets
import numpy as np
import onnxruntime
import torch
from _common import environment, print_table, report
from finetuning import MODEL
from predict import graph_ways, load_for, pipeline_of, sampled_texts, untrained_model
from transformers.utils.logging import disable_progress_bar

from bertcls_hf.data.python_packages import packaged_model
from bertcls_hf.metrics.cascade import CASCADE_FILE
from bertcls_hf.predict.engines import GRAPH_FILE, INT8_FILE
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.predict.quickest import Way


PIPELINE, WARM_UP_TEXTS = "pipeline", 8
PERCENTILES = (50, 99)
PAUSE_S = 0.05
# Does one text.
Work = Callable[[str], object]


def ways_to_classify(model: str, folder: Path) -> dict[str, Work]:
    """Every way to classify one text, by its name in the table."""
    graph, predictor = folder / "graph", Predictor.from_pretrained(model, cascade=False)
    of_graphs = graph_ways(model, graph, predictor)
    classify, length = pipeline_of(predictor), predictor.encoder_length
    ways: dict[str, Work] = {PIPELINE: lambda text: classify(text, truncation=True, max_length=length)}
    for file in (GRAPH_FILE, INT8_FILE):
        ways[f"ONNX Runtime alone, {Path(file).name}"] = alone(predictor, graph / file)
    for way in [Way("torch", "float32"), Way("torch", "bfloat16"), *of_graphs]:
        for cascade in (False, True) if Path(model, CASCADE_FILE).exists() else (False,):
            loaded = load_for(way, model, graph, cascade)
            name = f"cascade, {way}" if cascade else f"Predictor, {way}"
            ways[name] = lambda text, loaded=loaded: loaded.predict([text])  # type: ignore[misc]
    if find_spec("sentence_transformers") and find_spec("optimum"):
        ways["sentence-transformers, onnx, encoder alone"] = sentence_encoder(length)
    return ways


def alone(predictor: Predictor, graph: Path) -> Work:
    """The graph behind the model's tokenizer, as in docs/export.md."""
    session = onnxruntime.InferenceSession(graph)
    names = [value.name for value in session.get_inputs()]

    def classify(text: str) -> np.ndarray:
        inputs = predictor.tokenizer([text], truncation=True, return_tensors="np")
        (logits,) = session.run(["logits"], {name: inputs[name] for name in names})
        shares = np.exp(logits - logits.max())
        return shares / shares.sum()

    return classify


def sentence_encoder(length: int) -> Work:
    """sentence-transformers' ONNX backend."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(packaged_model(MODEL)), backend="onnx", device="cpu")
    encoder.max_seq_length = length
    return lambda text: encoder.encode([text], show_progress_bar=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test_file", help="csv, jsonl or parquet file with texts (default: the BBC corpus)")
    parser.add_argument("--model", help="a trained classifier (default: MiniLM under a random head)")
    parser.add_argument("--rows", type=int, default=200, help="texts, a random sample (%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=512, help="longest text in tokens (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    disable_progress_bar()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or str(folder / "model")
        if options.model is None:
            untrained_model(Path(model), options.max_seq_length)
        ways = ways_to_classify(model, folder)
        texts = sampled_texts(options.test_file, options.rows + WARM_UP_TEXTS)
        milliseconds: dict[str, list[float]] = {way: [] for way in ways}
        for number, text in enumerate(texts):
            for way, work in ways.items():
                # The threads of ONNX Runtime alone go on waiting for a while.
                sleep(PAUSE_S)
                begin = perf_counter()
                work(text)
                if number >= WARM_UP_TEXTS:
                    milliseconds[way].append(1000 * (perf_counter() - begin))
    rows = []
    for way, values in milliseconds.items():
        found, base = (np.percentile(of, PERCENTILES) for of in (values, milliseconds[PIPELINE]))
        rows.append((way, *(f"{value:.1f}" for value in found), *(f"{ratio:.2f}" for ratio in base / found)))
    print(f"{options.rows} texts, one at a time, {torch.get_num_threads()} threads")
    print_table(("way", "p50, ms", "p99, ms", "speed of p50", "speed of p99"), rows)
    report({"options": vars(options), "environment": environment(), "milliseconds": milliseconds}, options.output)


if __name__ == "__main__":
    main()
