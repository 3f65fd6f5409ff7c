"""How fast boost extracts features, and how fast a head trains on them, each against named ways in the same run.

    python benchmarks/boost.py
    python benchmarks/boost.py --train_file imdb.parquet --output boost.json
    python benchmarks/boost.py --only training --profile

Extraction: real tokens per second over a random sample of distinct texts, MiniLM, at each `--max_seq_length`.

(a) the seed's way: every text padded to the longest length, batches of 16, the pooler's output kept in memory;
(b) `encode` of sentence-transformers, batches of 32;
(c) ours: `FeatureExtractor` into a fresh cache folder, hashes, checksums and fsync included;
    the same with `--boost_dtype bfloat16`, which some processors multiply faster than float32, and others slower;
(d) the roofline: the encoder's floating-point operations over these lengths, at the rate of its own products in the
    number format of (c).

(a), (c) and (d) start from token ids. (b) tokenizes itself, so (c) is also shown with the time that tokenizing takes.

Training: ten epochs of a linear head on 25,000 x 384 cached features. Our time is that of a run that finds them in
the cache: it loads the model, finds and checks the cache, and trains through `ClassificationTrainer`, at batch 32 and
512, without evaluation and checkpoints, which the others do not have either.

(e) the seed's loop on vectors in memory: `TensorDataset`, `DataLoader` with batches of 32, the same head, Adam;
(f) `LogisticRegression` of scikit-learn on the same array.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import numpy as np
import torch
from _common import environment, interleaved, print_table, ratios_to, report, spread
from _stopwatch import now
from finetuning import CORPUS, MODEL
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModel, PreTrainedConfig, PrinterCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from bertcls_hf.config.arguments import Arguments
from bertcls_hf.config.parsing import build_arguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.data.load import load_data
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.features.dataset import FeatureDataset
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.models.loading import load_classifier, load_tokenizer, open_checkpoint, resolve_config
from bertcls_hf.models.modeling import ClassificationHead, TextClassifier
from bertcls_hf.training.phases import build_trainer
from bertcls_hf.training.trainer import ClassificationTrainer


SEED_WAY, SENTENCES, OURS, TOKENIZING, ROOFLINE = "(a) seed", "(b) encode", "(c) ours", "tokenizing", "(d) roofline"
OURS_HALF, ROOFLINE_HALF = "(c) in bfloat16", "(d) in bfloat16"
SEED_LOOP, REGRESSION = "(e) seed's loop, 32", "(f) LogisticRegression"
SEED_BATCH, SENTENCES_BATCH, LOOP_BATCH, OUR_BATCHES = 16, 32, 32, (32, 512)
WARM_UP_TEXTS = 2 * SENTENCES_BATCH
GEMM_ROWS, GEMM_TRIALS = 2048, 30
LEARNING_RATE = 1e-3
SHORT_TEXT = 5  # tokens of the texts whose features a head trains on
PROFILE_LINES = 25


def forward_operations(config: PreTrainedConfig, lengths: np.ndarray) -> float:
    """Floating-point operations of the encoder's layers over texts of these lengths, without any padding.

    With n tokens, hidden size h, feed-forward size f and L layers, a text takes

        L * (2n * 4h^2  +  2n * 2hf  +  2 * 2n^2 * h)

    for the projections of queries, keys, values and output; the two feed-forward layers; and attention's scores and
    values. A multiplication and an addition count as two. Embeddings, norms, softmax, activations and pooling, which
    are not matrix products, count as none: the roofline takes no time for them.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    tokens, squares = float(lengths.sum()), float((lengths.astype(float) ** 2).sum())
    per_layer = tokens * (8 * hidden**2 + 4 * hidden * inner) + squares * 4 * hidden
    return config.num_hidden_layers * per_layer


def gemm_rate(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of `torch.mm` at a layer's shapes: the best of several for each shape."""
    hidden, inner = config.hidden_size, config.intermediate_size
    operations, seconds = 0.0, 0.0
    for depth, width, number in ((hidden, hidden, 4), (hidden, inner, 1), (inner, hidden, 1)):
        shapes = (GEMM_ROWS, depth), (depth, width), (GEMM_ROWS, width)
        rows, weights, product = (torch.randn(shape, device=device, dtype=dtype) for shape in shapes)
        multiply = partial(torch.mm, rows, weights, out=product)
        operations += number * 2 * GEMM_ROWS * depth * width
        seconds += number * min(_seconds(device, multiply) for _ in range(GEMM_TRIALS))
    return operations / seconds


def _seconds(device: torch.device, work: Callable[[], Any]) -> float:
    begin = now(device)
    work()
    return now(device) - begin


def run_arguments(folder: str, **options: Any) -> Arguments:
    """The options of a run with boost."""
    return build_arguments(
        {
            "model_name_or_path": MODEL,
            "boost": True,
            "boost_cache_dir": folder,
            "output_dir": folder,
            "validation_split_percentage": 0.0,
            "do_train": True,
            "eval_strategy": "no",
            "save_strategy": "no",
            "disable_tqdm": True,
            **options,
        }
    )


class Extraction:
    """A sample of texts, tokenized at one length, and each way to turn them into vectors."""

    def __init__(self, options: argparse.Namespace, max_seq_length: int, folder: str):
        source = {"train_file": options.train_file} if options.train_file else {"dataset_name": CORPUS}
        self.folder = folder
        self.args = run_arguments(
            folder,
            **source,
            encoding_errors="replace",  # one of the corpus's files is Latin-1
            max_train_samples=options.rows,
            max_seq_length=max_seq_length,
            pooling=options.pooling,
            pooling_layers=options.pooling_layers,
            overwrite_cache=True,  # so that tokenizing takes its time
        )
        checkpoint = open_checkpoint(self.args.model)
        self.tokenizer = load_tokenizer(self.args.model, checkpoint, max_seq_length)
        self.max_seq_length = self.tokenizer.model_max_length
        self.data = load_data(self.args.data, None, trains=True, predicts=False)
        self._drop_repeated(self._tokenized()["input_ids"][:])
        self.split = self._tokenized()
        self.lengths = np.asarray(self.split["length"][:])
        self.device = self.args.training.device
        config = resolve_config(self.args.model, checkpoint, self.data.labels)
        self.model = load_classifier(self.args.model, checkpoint, config)
        self.seed_model = AutoModel.from_pretrained(checkpoint.path).to(self.device).eval()
        self.sentences = SentenceTransformer(checkpoint.path, device=str(self.device))
        self.sentences.max_seq_length = self.max_seq_length
        self.rates: dict[torch.dtype, list[float]] = {}

    def _drop_repeated(self, texts: list[list[int]]) -> None:
        """Leaves one of each text: ours would compute a repeated one once, and gain from the corpus."""
        rows = list({tuple(ids): row for row, ids in enumerate(texts)}.values())
        self.data.splits["train"] = self.data.splits["train"].select(rows)

    def _tokenized(self) -> datasets.Dataset:
        return tokenize(self.data, self.tokenizer, self.args.data)["train"]

    def seed_seconds(self, texts: int) -> float:
        """(a), on texts that are padded already."""
        padded = self.tokenizer.pad(
            self.split.select(range(texts)).remove_columns(["length", "labels"])[:],
            padding="max_length",
            max_length=self.max_seq_length,
            return_tensors="pt",
        )
        loader = DataLoader(TensorDataset(*padded.values()), SEED_BATCH)
        vectors = []

        @torch.no_grad()
        def encode() -> None:
            for batch in loader:
                inputs = {name: values.to(self.device) for name, values in zip(padded, batch, strict=True)}
                vectors.append(self.seed_model(**inputs).pooler_output.cpu())
            torch.cat(vectors)

        return _seconds(self.device, encode)

    def sentences_seconds(self, texts: int) -> float:
        """(b), which includes tokenizing."""
        content = self.data.splits["train"]["text"][:texts]
        return _seconds(
            self.device,
            lambda: self.sentences.encode(content, batch_size=SENTENCES_BATCH, show_progress_bar=False),
        )

    def our_seconds(self, texts: int, dtype: str = "float32") -> float:
        """(c), into an empty cache."""
        split = self.split.select(range(texts)) if texts < len(self.split) else self.split
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            args = replace(self.args, boost=replace(self.args.boost, boost_cache_dir=cache, boost_dtype=dtype))

            def extract() -> None:
                FeatureExtractor(self.model, self.tokenizer, args).features("train", split)

            return _seconds(self.device, extract)

    def tokenizing_seconds(self) -> float:
        """What (c) with tokenizing has on top."""
        return _seconds(self.device, self._tokenized)

    def roofline_seconds(self, dtype: torch.dtype = torch.float32) -> float:
        """(d), at the rate of this moment."""
        config = self.model.config.encoder_config
        rate = gemm_rate(config, self.device, dtype)
        self.rates.setdefault(dtype, []).append(rate)
        return forward_operations(config, self.lengths) / rate

    def measured(self, rounds: int) -> dict[str, list[float]]:
        """Seconds of every way, round by round."""
        by_texts = {
            SEED_WAY: self.seed_seconds,
            SENTENCES: self.sentences_seconds,
            OURS: self.our_seconds,
            OURS_HALF: partial(self.our_seconds, dtype="bfloat16"),
        }
        texts = len(self.split)
        for seconds in by_texts.values():
            seconds(min(WARM_UP_TEXTS, texts))
        ways = {name: lambda way=way: way(texts) for name, way in by_texts.items()}
        rooflines = {
            ROOFLINE: self.roofline_seconds,
            ROOFLINE_HALF: partial(self.roofline_seconds, torch.bfloat16),
        }
        return interleaved({**ways, TOKENIZING: self.tokenizing_seconds, **rooflines}, rounds)


def compare_extraction(options: argparse.Namespace, max_seq_length: int, folder: str) -> dict[str, Any]:
    """Measures and prints the first table."""
    bench = Extraction(options, max_seq_length, folder)
    seconds = bench.measured(options.rounds)
    tokens, texts = int(bench.lengths.sum()), len(bench.split)
    with_tokenizing = [mine + more for mine, more in zip(seconds[OURS], seconds.pop(TOKENIZING), strict=True)]
    both = f"{OURS}, tokenizing"
    seconds[both] = with_tokenizing
    names = (SEED_WAY, SENTENCES, OURS, both, OURS_HALF, ROOFLINE, ROOFLINE_HALF)
    speeds = {name: tokens / statistics.median(seconds[name]) for name in names}
    ours_against, both_against, half_against = (ratios_to(name, seconds) for name in (OURS, both, OURS_HALF))
    config = bench.model.config
    rates = {dtype: statistics.median(rates) / 1e9 for dtype, rates in bench.rates.items()}
    print(
        f"\n{texts} distinct texts of {tokens / texts:.0f} tokens on average, cut at {bench.max_seq_length}; ours "
        f"pools {config.pooling} x {config.pooling_layers};\nmatrix products at {rates[torch.float32]:.0f} GFLOP/s, "
        f"in bfloat16 at {rates[torch.bfloat16]:.0f}; median of {options.rounds} rounds"
    )
    print_table(
        ("way", "seconds", "tokens/s", "speed of (c) against it", "(c), tokenizing", "(c) in bfloat16"),
        [
            (name, f"{statistics.median(seconds[name]):.2f}", f"{speeds[name]:.0f}", spread(ours_against[name]),
             spread(both_against[name]), spread(half_against[name]))
            for name in names
        ],
    )  # fmt: skip
    return {"max_seq_length": bench.max_seq_length, "texts": texts, "tokens": tokens, "pooling": config.pooling,
            "pooling_layers": config.pooling_layers,
            "gemm_flops": {str(dtype): rates for dtype, rates in bench.rates.items()},
            "seconds": seconds, "tokens_per_second": speeds, "speed_of_ours": ours_against,
            "speed_of_ours_with_tokenizing": both_against, "speed_of_ours_in_bfloat16": half_against}  # fmt: skip


class HeadTraining:
    """Features in a cache, and each way to train a linear head on them."""

    def __init__(self, options: argparse.Namespace, folder: str):
        self.epochs = options.epochs
        self.args = run_arguments(
            folder,
            dataset_name=CORPUS,  # not read
            pooling="mean",
            pooling_layers=1,
            dropout=options.dropout,
            num_train_epochs=options.epochs,
            head_learning_rate=LEARNING_RATE,
        )
        self.labels = LabelSet(SINGLE_LABEL, ("negative", "positive"))
        self.checkpoint = open_checkpoint(self.args.model)
        self.tokenizer = load_tokenizer(self.args.model, self.checkpoint)
        self.config = resolve_config(self.args.model, self.checkpoint, self.labels)
        self.split = self._texts(options.feature_rows)
        self.features = self._cached()[1].__getitems__(np.arange(len(self.split)))["features"]
        self.split = self.split.add_column("labels", self._classes().tolist())
        self.parts: dict[int, list[tuple[float, float]]] = {batch: [] for batch in OUR_BATCHES}

    def _texts(self, rows: int) -> datasets.Dataset:
        """Short texts of random tokens."""
        tokens = np.random.default_rng(0).integers(1000, self.tokenizer.vocab_size, (rows, SHORT_TEXT))
        tokens[:, 0], tokens[:, -1] = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        return datasets.Dataset.from_dict({"input_ids": list(tokens.astype(np.int32))})

    def _classes(self) -> np.ndarray:
        """Two classes of equal size that a line divides, a tenth of them wrong."""
        random = np.random.default_rng(1)
        scores = self.features.numpy() @ random.standard_normal(self.features.shape[1])
        is_wrong = random.random(len(scores)) < 0.1
        return ((scores > np.median(scores)) ^ is_wrong).astype(np.int64)

    def _cached(self) -> tuple[TextClassifier, FeatureDataset]:
        """The model and its features, as a run gets them."""
        set_seed(self.args.training.seed)
        model = load_classifier(self.args.model, self.checkpoint, self.config)
        extractor = FeatureExtractor(model, self.tokenizer, self.args)
        return model, extractor.features("train", self.split)

    def trainer(self, batch_size: int) -> ClassificationTrainer:
        """What a run has when its training starts."""
        model, features = self._cached()
        args = self.args.training
        args.per_device_train_batch_size = batch_size
        trainer = build_trainer(args, model, self.tokenizer, {"train": features}, self.labels)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def our_seconds(self, batch_size: int) -> float:
        """The whole second run; `parts` keeps the seconds until training starts, and of training."""
        begin = perf_counter()
        trainer = self.trainer(batch_size)
        ready = now(self.args.training.device)
        trainer.train()
        end = now(self.args.training.device)
        self.parts[batch_size].append((ready - begin, end - ready))
        return end - begin

    def seed_seconds(self) -> float:
        """(e): the loss is read once an epoch."""
        device = self.args.training.device
        set_seed(0)
        labels = torch.tensor(self.split["labels"][:])
        loader = DataLoader(TensorDataset(self.features, labels), LOOP_BATCH, shuffle=True)
        head = ClassificationHead(self.config).to(device)
        optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)

        def epoch() -> None:
            total = torch.zeros((), device=device)
            for vectors, classes in loader:
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(head(vectors.to(device)), classes.to(device))
                loss.backward()
                optimizer.step()
                total += loss.detach()
            total.item()

        return _seconds(device, lambda: [epoch() for _ in range(self.epochs)])

    def regression_seconds(self) -> float:
        """(f), until it has converged."""
        features, labels = self.features.numpy(), np.asarray(self.split["labels"][:])
        return _seconds(torch.device("cpu"), lambda: LogisticRegression(max_iter=1000).fit(features, labels))

    def measured(self, rounds: int) -> dict[str, list[float]]:
        """Seconds of every way, round by round."""
        ours = {our_name(batch): lambda batch=batch: self.our_seconds(batch) for batch in OUR_BATCHES}
        return interleaved({SEED_LOOP: self.seed_seconds, REGRESSION: self.regression_seconds, **ours}, rounds)

    def print_profile(self, batch_size: int) -> None:
        """Where the time of a training goes, function by function."""
        trainer = self.trainer(batch_size)
        profile = cProfile.Profile()
        profile.runcall(trainer.train)
        print_profile(profile, trainer.state.global_step)


def our_name(batch_size: int) -> str:
    return f"ours, {batch_size}"


def print_profile(profile: cProfile.Profile, steps: int) -> None:
    """The functions that take longest with all that they call, per optimizer step; the profiler slows Python down."""
    calls = sorted(pstats.Stats(profile).stats.items(), key=lambda item: -item[1][3])[:PROFILE_LINES]
    rows = [
        (_function_name(*place), f"{count / steps:.2f}", f"{own / steps * 1e6:.0f}", f"{total / steps * 1e6:.0f}")
        for place, (_, count, own, total, _) in calls
    ]
    print(f"\n{steps} steps under the profiler")
    print_table(("function", "calls/step", "own us/step", "total us/step"), rows)


def _function_name(file: str, line: int, name: str) -> str:
    return f"{'/'.join(Path(file).parts[-2:])}:{line} {name}" if line else name


def compare_training(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Measures and prints the second table."""
    bench = HeadTraining(options, folder)
    seconds = bench.measured(options.rounds)
    parts = {our_name(batch): list(zip(*values, strict=True)) for batch, values in bench.parts.items()}
    to_loop, to_regression = ratios_to(SEED_LOOP, seconds), ratios_to(REGRESSION, seconds)
    print(
        f"\n{options.epochs} epochs over {bench.features.shape[0]} x {bench.features.shape[1]} features; "
        f"median of {options.rounds} rounds"
    )
    rows = []
    for name, values in seconds.items():
        ready, trainings = parts.get(name, ((0.0,), values))
        alone = [mine / loop for mine, loop in zip(trainings, seconds[SEED_LOOP], strict=True)]
        ratios = map(spread, (alone, to_loop[name], to_regression[name]))
        rows.append((name, f"{statistics.median(ready):.2f}", f"{statistics.median(trainings):.2f}", *ratios))
    header = ("way", "s until it trains", "s of training", "training / (e)", "both / (e)", "both / (f)")
    print_table(header, rows)
    if options.profile:
        bench.print_profile(OUR_BATCHES[0])
    return {"shape": list(bench.features.shape), "epochs": options.epochs, "seconds": seconds,
            "ready_and_training": parts, "times_seed_loop": to_loop, "times_regression": to_regression}  # fmt: skip


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("extraction", "training"), help="one half alone (default: both)")
    parser.add_argument("--train_file", help="csv or parquet file with text and label (default: the BBC corpus)")
    parser.add_argument(
        "--rows", type=int, default=2000, help="texts to extract, a stratified random sample (%(default)s)"
    )
    parser.add_argument(
        "--max_seq_length", type=int, nargs="+", default=[256, 512], help="longest text in tokens (256 512)"
    )
    parser.add_argument("--pooling", help="of our way (default: a run's own, the means of the last 4 layers)")
    parser.add_argument("--pooling_layers", type=int, help="of our way (default: a run's own)")
    parser.add_argument("--feature_rows", type=int, default=25_000, help="rows to train a head on (%(default)s)")
    parser.add_argument("--dropout", type=float, default=0.1, help="of ours and of the seed's head (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of training a head (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of every way (%(default)s)")
    parser.add_argument("--profile", action="store_true", help="also print where the training's time goes, per step")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # the tokenizers'
    datasets.disable_progress_bars()
    disable_progress_bar()
    results: dict[str, Any] = {"options": vars(options)}
    packages = ("sentence-transformers", "scikit-learn")
    results["environment"] = {**environment(*packages), "threads": options.threads}
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(options.threads):
        if options.only != "training":
            results["extraction"] = [compare_extraction(options, length, folder) for length in options.max_seq_length]
        if options.only != "extraction":
            results["training"] = compare_training(options, folder)
    print()
    report(results, options.output)


if __name__ == "__main__":
    main()
