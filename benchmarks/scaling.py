"""How time and memory grow with rows, with the length of texts, and with processes; and what a billion texts cost.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --only rows --rows 1000 10000 100000 1000000 --output scaling.json
    python benchmarks/scaling.py --only estimate --gpus 8 64 512 --gpu_hour 2.5

rows: generated texts of about 40 tokens, a small random encoder (2 layers x 128), so that what a run does besides the
    encoder shows: reading and tokenizing, extracting features, an epoch of a head on them. Loaded, and streamed.
many: millions of rows of three words, streamed, with an encoder that costs next to nothing, so that reading,
    tokenizing, planning, writing and the order of an epoch show. Memory is what a process holds besides mapped files.
length: MiniLM on texts that fill 64, 128, 256 and 512 tokens: extraction, and updates of fine-tuning.
ranks: the same at 32 tokens with one and two processes of one thread each, through `accelerate launch`.
estimate: hours, storage and money for a number of texts, from the encoder's operations and the prices that are given.

Each figure comes from a process of its own with fresh caches; memory is that process's peak, in MiB.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _common import ROOT, environment, print_table, report
from _stopwatch import Stopwatch
from boost import forward_operations
from finetuning import MODEL
from transformers import AutoTokenizer, BertConfig, BertModel, PrinterCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from bertcls_hf.config.parsing import build_arguments
from bertcls_hf.data.load import load_data
from bertcls_hf.data.python_packages import packaged_model
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.features.cache import SHARD_ROWS
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.features.stream_extraction import split_features
from bertcls_hf.models.loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
from bertcls_hf.training.phases import build_trainer


WORDS = "the film was good bad long short story actor plot scene music very not never much more than its with".split()
FILES = 10
ROW_WORDS, ROW_LENGTH = 35, 64
BATCH_ROWS, HEAD_BATCH_ROWS, UPDATES = 16, 512, 6
MANY_FILE_ROWS, MANY_BATCH_ROWS = 500_000, 4096
BERT_BASE = BertConfig()
SECONDS_PER_HOUR, GIB, TIB = 3600, 2**30, 2**40
FORWARD_AND_BACKWARD = 3  # times the operations of a forward pass


def write_texts(folder: Path, rows: int, words: int) -> None:
    """Parquet files of random texts; the number in each makes it distinct."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, part in enumerate(np.array_split(np.arange(rows), FILES)):
        drawn = generator.integers(0, len(WORDS), (len(part), words))
        texts = [" ".join(WORDS[word] for word in line) + f" {row}" for line, row in zip(drawn, part, strict=True)]
        labels = [("neg", "pos")[row % 2] for row in part]
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / f"{number}.parquet")


def write_small_encoder(folder: Path, **sizes: int) -> None:
    """A random BERT that costs little, with the tokenizer of MiniLM."""
    tokenizer = AutoTokenizer.from_pretrained(str(packaged_model(MODEL)))
    tokenizer.save_pretrained(folder)
    set_seed(0)
    small = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    BertModel(BertConfig(vocab_size=len(tokenizer), **{**small, **sizes})).save_pretrained(folder)


class HeldMemory(threading.Thread):
    """Watches what this process holds besides mapped files, in MiB; looks twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self.start()

    def run(self) -> None:
        while True:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.peak = max(self.peak, int(status["RssAnon"].split()[0]) / 1024)
            time.sleep(0.5)


def work(options: dict[str, Any], steps: list[str]) -> dict[str, float]:
    """Runs the parts of a run that are asked for, in this process: seconds of each, tokens, and peak memory."""
    datasets.disable_progress_bars()
    disable_progress_bar()
    held = HeldMemory()
    args = build_arguments({**options, "disable_tqdm": True, "save_strategy": "no", "eval_strategy": "no"})
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begin = perf_counter()
        result = call()
        seconds[name] = perf_counter() - begin
        return result

    checkpoint = open_checkpoint(args.model)
    tokenizer = load_tokenizer(args.model, checkpoint, args.data.max_seq_length or ROW_LENGTH)
    data = timed("load", lambda: load_data(args.data, None, trains=True, predicts=False))
    splits = timed("tokenize", lambda: tokenize(data, tokenizer, args.data))
    config = resolve_config(args.model, checkpoint, data.labels)
    set_seed(args.training.seed)
    model = load_classifier(args.model, checkpoint, config)
    if "features" in steps:
        extractor = FeatureExtractor(model, tokenizer, args)
        splits = {"train": timed("features", lambda: split_features(extractor, "train", splits["train"]))}
    if "train" in steps:
        trainer, stopwatch = build_trainer(args.training, model, tokenizer, splits, data.labels), Stopwatch()
        trainer.add_callback(stopwatch)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        seconds["train"] = stopwatch.seconds
    files = sum(1 for _ in Path(options["boost_cache_dir"]).rglob("*.arrow"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**seconds, "memory": memory, "held": held.peak, "files": files}


def measure(options: dict[str, Any], steps: list[str], processes: int = 1, threads: int | None = None) -> dict:
    """The figures of a fresh process, or of the first of several."""
    with tempfile.TemporaryDirectory() as folder:
        task = {"options": {**options, "output_dir": folder, "boost_cache_dir": f"{folder}/cache"}, "steps": steps,
                "result": f"{folder}/result.json"}  # fmt: skip
        launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/cpu_ddp.yaml"),
                    "--num_processes", str(processes), "--main_process_port", "0"]  # fmt: skip
        command = [*(launcher if processes > 1 else []), str(Path(__file__)), "--work", json.dumps(task)]
        environment_of_process = {**os.environ, "HF_HOME": f"{folder}/home", "TOKENIZERS_PARALLELISM": "false"}
        if threads is not None:
            environment_of_process["OMP_NUM_THREADS"] = str(threads)
        done = subprocess.run([sys.executable, *command], env=environment_of_process, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"a measurement failed:\n{done.stderr[-3000:]}")
        figures = json.loads(Path(task["result"]).read_text())
    print(f"{steps} {processes} × {options.get('train_file')}: {figures}", file=sys.stderr, flush=True)
    return figures


def growth_with_rows(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Loaded and streamed runs over ever more rows."""
    encoder = folder / "small"
    write_small_encoder(encoder)
    results = []
    for rows in options.rows:
        texts = folder / f"rows-{rows}"
        write_texts(texts, rows, ROW_WORDS)
        pq.write_table(pq.read_table(texts), folder / f"rows-{rows}.parquet")
        dev = folder / "dev.parquet"
        pq.write_table(pq.read_table(texts).slice(0, 100), dev)
        common = {"model_name_or_path": str(encoder), "boost": True, "num_train_epochs": 1, "do_train": True,
                  "max_seq_length": ROW_LENGTH, "per_device_train_batch_size": HEAD_BATCH_ROWS, "use_cpu": True,
                  "validation_split_percentage": 0.0}  # fmt: skip
        loaded = {**common, "train_file": str(folder / f"rows-{rows}.parquet")}
        streamed = {**common, "train_file": str(texts), "validation_file": str(dev), "streaming": True}
        for way, way_options in (("loaded", loaded), ("streamed", streamed)):
            results.append({"rows": rows, "way": way, **measure(way_options, ["features", "train"])})
    print_table(
        ("rows", "way", "load + tokenize, s", "features, s", "head's epoch, s", "s per 1,000 rows", "memory, MiB"),
        [
            (f"{r['rows']:,}", r["way"], f"{r['load'] + r['tokenize']:.1f}", f"{r['features']:.1f}",
             f"{r['train']:.2f}", f"{1000 * _total(r) / r['rows']:.3f}", f"{r['memory']:.0f}")
            for r in results
        ],
    )  # fmt: skip
    return results


def _total(figures: dict[str, Any]) -> float:
    return sum(figures[name] for name in ("load", "tokenize", "features", "train"))


def write_many_texts(folder: Path, rows: int) -> None:
    """Parquet files of two words and a number each, made without a Python object per row."""
    folder.mkdir(parents=True)
    words = pa.array(WORDS)
    for number, first in enumerate(range(0, rows, MANY_FILE_ROWS)):
        numbers = np.arange(first, min(first + MANY_FILE_ROWS, rows))
        parts = [words.take(pa.array(numbers * step % len(WORDS))) for step in (7, 11)]
        texts = pc.binary_join_element_wise(*parts, pa.array(numbers).cast(pa.string()), " ")
        labels = pa.array(["neg", "pos"]).take(pa.array(numbers % 2))
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / f"{number:04d}.parquet")


def growth_with_many_rows(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Streamed runs over millions of rows, with a stub of an encoder."""
    encoder = folder / "stub"
    write_small_encoder(encoder, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    write_texts(folder / "dev", 100, 3)
    results = []
    for rows in options.many_rows:
        write_many_texts(folder / f"many-{rows}", rows)
        streamed = {"model_name_or_path": str(encoder), "boost": True, "num_train_epochs": 1, "do_train": True,
                    "max_seq_length": ROW_LENGTH, "per_device_train_batch_size": MANY_BATCH_ROWS, "use_cpu": True,
                    "boost_dtype": "float16", "train_file": str(folder / f"many-{rows}"), "streaming": True,
                    "validation_file": str(folder / "dev" / "0.parquet"), "pooling_layers": 1}  # fmt: skip
        results.append({"rows": rows, **measure(streamed, ["features", "train"])})
    print_table(
        ("rows", "features, s", "head's epoch, s", "s per million rows", "memory, MiB", "files of features"),
        [
            (f"{r['rows']:,}", f"{r['features']:.0f}", f"{r['train']:.0f}", f"{1e6 * _total(r) / r['rows']:.1f}",
             f"{r['held']:.0f}", f"{r['files']:,.0f}")
            for r in results
        ],
    )  # fmt: skip
    return results


def growth_with_length(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Extraction and fine-tuning on texts that fill the limit."""
    results = []
    for length in options.lengths:
        rows = max(options.tokens // length, BATCH_ROWS * UPDATES)
        texts = folder / f"length-{length}"
        write_texts(texts, rows, length)
        pq.write_table(pq.read_table(texts), folder / f"length-{length}.parquet")
        figures = _both_ways(folder / f"length-{length}.parquet", length)
        results.append({"length": length, "rows": rows, **figures})
    print_table(
        ("tokens", "features, tokens/s", "memory, MiB", "fine-tuning, tokens/s", "memory, MiB"),
        [
            (str(r["length"]), f"{r['length'] * r['rows'] / r['features']:,.0f}", f"{r['features_memory']:.0f}",
             f"{r['length'] * BATCH_ROWS * UPDATES / r['train']:,.0f}", f"{r['train_memory']:.0f}")
            for r in results
        ],
    )  # fmt: skip
    return results


def _both_ways(texts: Path, length: int, processes: int = 1, threads: int | None = None) -> dict[str, float]:
    common = {"model_name_or_path": MODEL, "train_file": str(texts), "max_seq_length": length, "use_cpu": True,
              "do_train": True, "validation_split_percentage": 0.0}  # fmt: skip
    features = measure({**common, "boost": True}, ["features"], processes, threads)
    batch = {"per_device_train_batch_size": BATCH_ROWS // processes, "max_steps": UPDATES}
    training = measure({**common, **batch}, ["train"], processes, threads)
    return {"features": features["features"], "features_memory": features["memory"],
            "train": training["train"], "train_memory": training["memory"]}  # fmt: skip


def growth_with_ranks(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One and more processes of a thread each, with the same work."""
    length = 32
    # Processes share out shards.
    write_texts(folder / "ranks", 2 * max(options.ranks) * SHARD_ROWS, length)
    pq.write_table(pq.read_table(folder / "ranks"), folder / "ranks.parquet")
    results = [{"ranks": ranks, **_both_ways(folder / "ranks.parquet", length, ranks, 1)} for ranks in options.ranks]
    first = results[0]
    print_table(
        ("processes", "features, s", "times as fast", "fine-tuning, s", "times as fast", "memory each, MiB"),
        [
            (str(r["ranks"]), f"{r['features']:.1f}", f"{first['features'] / r['features']:.2f}",
             f"{r['train']:.1f}", f"{first['train'] / r['train']:.2f}", f"{r['train_memory']:.0f}")
            for r in results
        ],
    )  # fmt: skip
    return results


def estimate(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """What BERT-base costs on GPUs: arithmetic, not a measurement."""
    lengths = np.full(1, options.text_tokens)
    forward = forward_operations(BERT_BASE, lengths) * options.texts
    rate = options.gpu_teraflops * 1e12 * options.utilisation
    cache = options.texts * BERT_BASE.hidden_size * 2 * options.components
    text_bytes = options.texts * options.text_bytes
    results = []
    for gpus in options.gpus:
        extraction = forward / rate / gpus / SECONDS_PER_HOUR
        tuning = FORWARD_AND_BACKWARD * forward / rate / gpus / SECONDS_PER_HOUR
        results.append({
            "gpus": gpus, "extraction_hours": extraction, "tuning_hours": tuning,
            "extraction_money": extraction * gpus * options.gpu_hour, "tuning_money": tuning * gpus * options.gpu_hour,
            "read_mib_per_second": text_bytes / (extraction * SECONDS_PER_HOUR) / 2**20,
            "write_mib_per_second": cache / (extraction * SECONDS_PER_HOUR) / 2**20,
            "tokenized_texts_per_second_and_gpu": options.texts / (extraction * SECONDS_PER_HOUR) / gpus,
        })  # fmt: skip
    print(
        f"{options.texts:,.0f} texts of {options.text_tokens} tokens, BERT-base, {options.gpu_teraflops:.0f} TFLOPS "
        f"at {options.utilisation:.0%}, {options.gpu_hour} per GPU-hour: {forward:.2e} operations forward; texts "
        f"{text_bytes / TIB:.2f} TiB; cache of {options.components} × {BERT_BASE.hidden_size} float16 "
        f"{cache / TIB:.2f} TiB, {cache / GIB * options.storage_month:,.0f} a month; moving the texts out of another "
        f"cloud {text_bytes / GIB * options.egress:,.0f}, the cache {cache / GIB * options.egress:,.0f}"
    )
    print_table(
        ("GPUs", "features, h", "money", "fine-tuning an epoch, h", "money", "reads, MiB/s", "writes, MiB/s",
         "texts/s and GPU to tokenize"),
        [
            (str(r["gpus"]), f"{r['extraction_hours']:.1f}", f"{r['extraction_money']:,.0f}",
             f"{r['tuning_hours']:.1f}", f"{r['tuning_money']:,.0f}", f"{r['read_mib_per_second']:,.0f}",
             f"{r['write_mib_per_second']:,.0f}", f"{r['tokenized_texts_per_second_and_gpu']:,.0f}")
            for r in results
        ],
    )  # fmt: skip
    return results


PARTS: dict[str, Callable[[argparse.Namespace, Path], list[dict[str, Any]]]] = {
    "rows": growth_with_rows, "many": growth_with_many_rows, "length": growth_with_length,
    "ranks": growth_with_ranks, "estimate": estimate,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="measure this alone")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000], help="(%(default)s)")
    parser.add_argument("--many_rows", type=int, nargs="+", default=[1_000_000, 4_000_000], help="(%(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512], help="(%(default)s)")
    parser.add_argument("--tokens", type=int, default=65_536, help="tokens to extract per length (%(default)s)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of processes (%(default)s)")
    parser.add_argument("--texts", type=float, default=1e9, help="estimate: texts (%(default)s)")
    parser.add_argument("--text_tokens", type=int, default=128, help="estimate: tokens of a text (%(default)s)")
    parser.add_argument("--text_bytes", type=int, default=550, help="estimate: bytes of a text (%(default)s)")
    parser.add_argument("--components", type=int, default=1, help="estimate: vectors kept per text (%(default)s)")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512], help="estimate: GPUs (%(default)s)")
    parser.add_argument("--gpu_teraflops", type=float, default=989, help="estimate: peak in bfloat16 (%(default)s)")
    parser.add_argument("--utilisation", type=float, default=0.35, help="estimate: share of the peak (%(default)s)")
    parser.add_argument("--gpu_hour", type=float, default=2.5, help="estimate: price of a GPU-hour (%(default)s)")
    parser.add_argument("--storage_month", type=float, default=0.023, help="estimate: price of a GiB-month")
    parser.add_argument("--egress", type=float, default=0.09, help="estimate: price of a GiB that leaves a cloud")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        task = json.loads(options.work)
        figures = work(task["options"], task["steps"])
        if int(os.environ.get("RANK", "0")) == 0:
            Path(task["result"]).write_text(json.dumps(figures))
        return
    results: dict[str, Any] = {"options": vars(options), "environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.only] if options.only else PARTS:
            print(f"\n{name}")
            results[name] = PARTS[name](options, Path(folder))
    report(results, options.output)


if __name__ == "__main__":
    main()
