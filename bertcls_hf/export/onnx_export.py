"""Exports a trained classifier to a folder of ONNX graphs, compares them with PyTorch and measures them.

Importing this module needs the packages of requirements-deploy.txt.
"""

import copy
import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedConfig

from bertcls_hf.atomic_files import TEMPORARY_MARK, storage_error
from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.load import load_data
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.export.arguments import ExportArguments
from bertcls_hf.export.onnx_graph import (
    Batch,
    LexicalLogitsOf,
    LogitsOf,
    export_graph,
    graph_inputs,
    largest_difference,
    model_runner,
    quantize_graph,
    random_batch,
)
from bertcls_hf.export.onnx_report import (
    LATENCY_ROUNDS,
    LATENCY_ROWS,
    LATENCY_TOKENS,
    Evaluation,
    Variant,
    environment,
    measure_latency,
    measure_metrics,
    table,
)
from bertcls_hf.metrics.calibration import CALIBRATION_FILE
from bertcls_hf.metrics.cascade import CASCADE_FILE, read_cascade
from bertcls_hf.models.modeling import TextClassifier, TextClassifierConfig
from bertcls_hf.predict.engines import GRAPH_FILE, INT8_FILE, LEXICAL_FILE, LEXICAL_INPUTS, OnnxRuntime
from bertcls_hf.predict.predictor import Predictor


logger = logging.getLogger(__name__)

REPORT_FILE = "onnx_report.json"
TOLERANCE = 1e-4
EXAMPLE_SHAPE = (2, 8)
# The rows and tokens of the batches that are compared. Rows are cut to the longest text, and some rows are padded.
PARITY_SHAPES = ((1, 3), (2, 9), (3, 17), (8, 64), (1, 512))
RANDOM_SEED = 0


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier that was loaded from its output_dir.

    Args:
        folder: its output_dir.
        loaded: the model in float32 on the processor, and its tokenizer, labels, longest text and calibration.
    """

    folder: Path
    loaded: Predictor

    @property
    def encoder_config(self) -> PreTrainedConfig:
        """The encoder's part of the model's configuration, which is all of it for a stock class."""
        config = self.loaded.model.config
        return config.encoder_config if isinstance(config, TextClassifierConfig) else config

    @property
    def family(self) -> str:
        """The encoder's family, as transformers calls it, such as `bert`."""
        return self.encoder_config.model_type

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the graph's inputs."""
        return graph_inputs(self.loaded.model, self.loaded.tokenizer)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata that the graph's file carries; all values but `problem_type` are JSON."""
        labels, calibration, truncation = self.loaded.labels, self.loaded.calibration, self.loaded.truncation
        return {
            "id2label": json.dumps(labels.id2label, ensure_ascii=False),
            "problem_type": labels.problem_type,
            "max_seq_length": json.dumps(self.loaded.max_seq_length),
            "temperature": json.dumps(calibration.temperature),
            "thresholds": json.dumps(calibration.thresholds),
            "truncation": json.dumps(None if truncation is None else truncation._asdict()),
            "lexical_features": json.dumps(self.loaded.engine.has_lexical_features),
        }

    def random_batch(self, rows: int, tokens: int) -> Batch:
        """Makes random inputs, which are not longer than the longest text; equal shapes give equal inputs."""
        length = min(tokens, self.loaded.max_seq_length)
        generator = np.random.default_rng(RANDOM_SEED)
        return random_batch(self.loaded.tokenizer, self.input_names, rows, length, generator)


def export(folder: Path, args: ExportArguments, data_args: DataArguments) -> str:
    """Exports a classifier, checks the graph and measures it; output_dir appears when everything is done.

    Args:
        folder: output_dir of the trained classifier.
        args: the export's options.
        data_args: the options for the longest text and for the data of `--evaluate`.

    Returns:
        A table of sizes, latencies and the task's default metric.

    Raises:
        ArgumentsError: if the folder holds no trained classifier, or if the logits of its graph differ too much.
        DataError: if the data to evaluate on is bad.
        StorageError: if output_dir cannot be written.
    """
    loaded = Predictor.from_pretrained(
        str(folder), device="cpu", max_seq_length=data_args.max_seq_length, cascade=False
    )
    trained = TrainedClassifier(folder, loaded)
    evaluation = _load_evaluation(trained, data_args) if args.evaluate else None
    with _staged(Path(args.output_dir)) as staging:
        (staging / GRAPH_FILE).parent.mkdir()
        difference = _write_graph(staging / GRAPH_FILE, trained)
        if args.quantize is not None:
            quantize_graph(staging / GRAPH_FILE, trained.metadata, staging / INT8_FILE)
        _write_companions(staging, trained)
        return _write_report(staging, trained, difference, evaluation)


def _load_evaluation(trained: TrainedClassifier, args: DataArguments) -> Evaluation:
    """Loads the test split, or the validation split if the test split has no labels."""
    loaded = trained.loaded
    data = load_data(args, loaded.labels, trains=False, predicts=False)
    split = next(filter(data.has_labels, ("test", "validation")), None)
    if split is None:
        raise ArgumentsError("--evaluate: there is no labelled test or validation data: give --test_file")
    tokenized = tokenize(data, loaded.tokenizer, args)[split]
    return Evaluation(split, tokenized, loaded.tokenizer, trained.input_names, loaded.labels)


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Creates a folder beside the target, which replaces the target if the block succeeds; else it is deleted."""
    target = target.absolute()
    staging = target.with_name(f"{target.name}{TEMPORARY_MARK}{uuid.uuid4().hex}")
    try:
        staging.mkdir(parents=True)
        yield staging
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_graph(path: Path, trained: TrainedClassifier) -> float:
    """Writes the float32 graph, and compares its logits with those of PyTorch.

    Returns:
        The largest difference between the logits.

    Raises:
        ArgumentsError: if the encoder's family cannot be exported.
    """
    try:
        export_graph(LogitsOf(trained.loaded.model), trained.random_batch(*EXAMPLE_SHAPE), trained.metadata, path)
        run_model, run_graph = model_runner(trained.loaded.model), OnnxRuntime(path, threads=1).run
        batches = [trained.random_batch(*shape) for shape in PARITY_SHAPES]
        difference = max(largest_difference(run_model(batch), run_graph(batch)) for batch in batches)
    except OSError:
        raise
    except Exception as error:  # tracer, translator and ONNX Runtime each raise their own kinds of error
        raise ArgumentsError(f"{trained.family} cannot be exported to ONNX: {_first_cause(error)}") from error
    _check_difference(trained, difference)
    logger.info("the graph's logits differ from PyTorch's by %.1e at most", difference)
    return difference


def _check_difference(trained: TrainedClassifier, difference: float, where: str = "") -> None:
    """Refuses a graph whose logits are not those of PyTorch."""
    if difference > TOLERANCE:
        raise ArgumentsError(
            f"{trained.family} cannot be exported to ONNX: the graph's logits differ from PyTorch's by "
            f"{difference:.1e}{where}, more than {TOLERANCE:.0e}"
        )


def _first_cause(error: BaseException) -> str:
    """Returns the first line of the original error, which PyTorch wraps in long messages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _write_companions(folder: Path, trained: TrainedClassifier) -> None:
    """Writes the files that servers and pipelines read beside a graph: configuration, tokenizer and calibration."""
    _portable_config(trained).save_pretrained(folder)
    tokenizer = trained.loaded.tokenizer
    # The tokenizer saves its input names only if they are among its initial arguments.
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = list(trained.input_names)
    if tokenizer.is_fast:
        # Otherwise, programs that read only tokenizer.json would pad and truncate as the tokenizer's last call did.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.enable_truncation(tokenizer.model_max_length)
    tokenizer.save_pretrained(folder)
    if (trained.folder / CALIBRATION_FILE).exists():
        shutil.copyfile(trained.folder / CALIBRATION_FILE, folder / CALIBRATION_FILE)
    if (trained.folder / CASCADE_FILE).exists():
        _write_cascade(folder, trained)


def _write_cascade(folder: Path, trained: TrainedClassifier) -> None:
    """Writes the cascade, and the graph of the lexical features that it needs."""
    cascade = read_cascade(trained.folder / CASCADE_FILE)
    if cascade.max_seq_length != trained.loaded.encoder_length:
        logger.warning("%s is not exported: it holds for %d tokens", CASCADE_FILE, cascade.max_seq_length)
        return
    shutil.copyfile(trained.folder / CASCADE_FILE, folder / CASCADE_FILE)
    if cascade.lexical is not None:
        example = trained.random_batch(*EXAMPLE_SHAPE)
        inputs = {name: example[name] for name in LEXICAL_INPUTS}
        module = LexicalLogitsOf(cast(TextClassifier, trained.loaded.model))
        export_graph(module, inputs, trained.metadata, folder / LEXICAL_FILE)


def _portable_config(trained: TrainedClassifier) -> PreTrainedConfig:
    """Returns the encoder's configuration with the task's labels and the name of the family's stock class.

    Programs that run the graph read labels, sizes and the task from it. It loads without this package's code.
    """
    config = copy.deepcopy(trained.encoder_config)
    config.architectures = [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].__name__]
    labels = trained.loaded.labels
    config.id2label, config.label2id, config.problem_type = labels.id2label, labels.label2id, labels.problem_type
    return config


def _write_report(folder: Path, trained: TrainedClassifier, difference: float, evaluation: Evaluation | None) -> str:
    # ONNX Runtime has another default, but latencies are only comparable with the same number of threads.
    threads = torch.get_num_threads()
    variants = _variants(folder, trained, threads)
    tokens = min(LATENCY_TOKENS, trained.loaded.max_seq_length)
    measure_latency(variants, {rows: trained.random_batch(rows, tokens) for rows in LATENCY_ROWS})
    if evaluation is not None:
        measure_metrics(variants, evaluation)
        _check_difference(trained, variants[1].metrics["largest_difference"], f" on the {evaluation.split} data")
    report = {
        "model": trained.folder.absolute().name,
        "largest_difference": difference,
        "latency": {"threads": threads, "tokens_per_text": tokens, "rounds": LATENCY_ROUNDS},
        "evaluation": None if evaluation is None else {"split": evaluation.split, "rows": len(evaluation.rows)},
        "variants": {variant.name: variant.as_json() for variant in variants},
        "environment": environment(),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    return "\n".join((table(variants, trained.loaded.labels.problem_type), *_captions(report)))


def _captions(report: dict[str, Any]) -> Iterator[str]:
    """Yields the lines below the table, which say how its latencies and its metric were measured."""
    latency, evaluation = report["latency"], report["evaluation"]
    yield "ms: median of {rounds} measurements, {tokens_per_text} tokens per text, threads: {threads}".format(
        **latency
    )
    if evaluation is not None:
        yield "metric: on the {rows:,} rows of the {split} split".format(**evaluation)


def _variants(folder: Path, trained: TrainedClassifier, threads: int) -> list[Variant]:
    weights = trained.folder.glob("model*.safetensors")
    variants = [Variant("PyTorch", model_runner(trained.loaded.model), _size(weights))]
    for name, file in (("ONNX", GRAPH_FILE), ("ONNX int8", INT8_FILE)):
        if (folder / file).exists():
            variants.append(Variant(name, OnnxRuntime(folder / file, threads).run, _size(folder.glob(f"{file}*"))))
    return variants


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
