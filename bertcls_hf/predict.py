"""Classifies the texts of files or of standard input with a trained model, a line for each, in their order.

python -m bertcls_hf.predict outputs/mine reviews.csv --output_file predictions.jsonl
cat lines.txt | python -m bertcls_hf.predict outputs/mine > predictions.jsonl

The same command goes on where a killed one stopped. Exit codes: 0 done, 2 a wrong option or model, 65 bad data, 74 a
disk is full, 76 the model's outputs are not finite, 130 interrupted, 141 nobody reads the output any more.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transformers.hf_argparser import HfArg

from bertcls_hf.arguments import DataArguments, ModelArguments
from bertcls_hf.errors import ArgumentsError, ExitCode, RunError
from bertcls_hf.parsing import DataclassParser


if TYPE_CHECKING:
    from bertcls_hf.inference import Predictor
    from bertcls_hf.prediction_input import Row
    from bertcls_hf.prediction_output import OutputFile, StandardOutput

# `__name__` is `__main__` where this is the command.
logger = logging.getLogger("bertcls_hf.predict")

STANDARD = "-"
# Options of a run whose names and meanings are the same here.
DATA_OPTIONS = ("text_column_names", "csv_header", "csv_delimiter", "csv_quoting", "encoding", "encoding_errors")
# A chunk also ends where its texts have so many characters.
CHUNK_CHARACTERS = 2**26
# What a shell reports of a command that SIGINT or SIGPIPE ended.
INTERRUPTED, NO_READER = 130, 141


def _as_in(argument_class: type, name: str) -> Any:
    """An option with the default, the help and the other names that it has in a run."""
    (found,) = (f for f in fields(argument_class) if f.name == name)
    return HfArg(default=found.default, help=found.metadata["help"], aliases=found.metadata.get("aliases"))


@dataclass
class PredictionArguments:
    """Which texts, which model, and what is written."""

    output_file: str = HfArg(
        default=STANDARD, help="Where predictions go, .jsonl or .csv; appears when it is whole. -: standard output."
    )
    prediction_format: Literal["jsonl", "csv"] | None = HfArg(
        default=None, help="Default: as --output_file ends; jsonl for standard output."
    )
    overwrite: bool = HfArg(default=False, help="Replace an --output_file that is there.")
    top_k: int | None = HfArg(
        default=None, help="Write only the K highest probabilities, the highest first. Default: all, in label order."
    )
    stdin_format: Literal["lines", "jsonl"] = HfArg(
        default="lines", help="What standard input holds: a text per line, or a JSON object per line."
    )
    text_column_names: list[str] | None = _as_in(DataArguments, "text_column_names")  # noqa: RUF009
    csv_header: Literal["auto", "true", "false"] = _as_in(DataArguments, "csv_header")
    csv_delimiter: str | None = _as_in(DataArguments, "csv_delimiter")
    csv_quoting: Literal["auto", "minimal", "none"] = _as_in(DataArguments, "csv_quoting")
    encoding: str = _as_in(DataArguments, "encoding")
    encoding_errors: Literal["strict", "replace", "ignore"] = _as_in(DataArguments, "encoding_errors")
    model_revision: str = _as_in(ModelArguments, "model_revision")
    trust_remote_code: bool = HfArg(default=False, help="Run the Python code that a model repository ships.")
    max_seq_length: int | None = HfArg(
        default=None, aliases=["--max_length"],
        help="Longest text in tokens; longer ones are cut. Default: as in the model's training.",
    )  # fmt: skip
    calibration: bool = HfArg(
        default=True, help="Apply the temperature and thresholds of the model's calibration.json, where it has one."
    )
    temperature: float | None = HfArg(default=None, help="Divide the logits by this, whatever the calibration says.")
    threshold: float | None = HfArg(
        default=None,
        help="What a label's probability must exceed, for every label of a multi-label model, or for the second of "
        "two labels.",
    )
    device: str | None = HfArg(default=None, help="cpu, cuda, cuda:1 … Default: an accelerator where there is one.")
    dtype: Literal["float32", "float16", "bfloat16"] = HfArg(
        default="float32", help="Of weights and arithmetic; the halves are for accelerators, bfloat16 also for some "
        "processors.",
    )  # fmt: skip
    tokens_per_batch: int | None = HfArg(
        default=None, help="Tokens of a batch, padding included. Default: 2048 on a processor, else 32768."
    )
    chunk_rows: int = HfArg(
        default=16_384,
        help="Texts that are read, sorted by length, classified and written together; 1 answers line by line.",
    )
    disable_tqdm: bool = HfArg(default=False, help="Show no progress.")

    def __post_init__(self) -> None:
        for name in ("top_k", "tokens_per_batch", "chunk_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentsError(f"--{name} {value}: must be 1 or more")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ArgumentsError(f"--temperature {self.temperature}: must be above 0")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ArgumentsError(f"--threshold {self.threshold}: must lie in [0, 1)")
        if self.prediction_format is None:
            self.prediction_format = self._format_of_name()

    def _format_of_name(self) -> Literal["jsonl", "csv"]:
        suffix = Path(self.output_file).suffix.lower()
        if self.output_file == STANDARD or suffix == ".jsonl":
            return "jsonl"
        if suffix == ".csv":
            return "csv"
        raise ArgumentsError(f"--output_file {self.output_file}: neither .jsonl nor .csv; see --prediction_format")

    def data(self) -> DataArguments:
        """The options of a run that say how texts are read."""
        return DataArguments(**{name: getattr(self, name) for name in DATA_OPTIONS})


def parse(argv: Sequence[str]) -> tuple[str, list[str], PredictionArguments]:
    """Model, files and options; `--help` prints and exits.

    Raises:
        ArgumentsError: a wrong option.
    """
    parser = DataclassParser(
        [PredictionArguments],
        prog="python -m bertcls_hf.predict",
        usage="python -m bertcls_hf.predict MODEL [FILE ...] [--option value ...]",
        description="Classifies texts with a trained model: a line for each, in their order.",
    )
    parser.add_argument("model", metavar="MODEL", help="an output_dir, a Hub id or pypi:PACKAGE")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="csv, tsv, txt (read as tsv), json, jsonl or parquet; -: standard "
        "input, which is also read where no file is named"
    )  # fmt: skip
    options, names, unknown = parser.parse_args_into_dataclasses(
        list(argv), return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        hint = "files come before the options" if not unknown[0].startswith("-") else "--help lists all options"
        raise ArgumentsError(f"unexpected {unknown[0]}: {hint}")
    return names.model, names.files or [STANDARD], options


class SpeedBar:
    """Counts texts and tokens, and shows both per second."""

    def __init__(self, start: int, hidden: bool):
        from tqdm.auto import tqdm

        self._bar = tqdm(unit=" texts", initial=start, disable=hidden, desc="Predicting", mininterval=0.5)
        self.start, self.texts, self.tokens = time.monotonic(), 0, 0

    def __call__(self, texts: int, tokens: int) -> None:
        self.texts, self.tokens = self.texts + texts, self.tokens + tokens
        self._bar.set_postfix_str(f"{self._per_second(self.tokens)} tokens/s", refresh=False)
        self._bar.update(texts)

    def _per_second(self, number: int) -> str:
        return f"{number / max(time.monotonic() - self.start, 1e-9):,.0f}"

    def close(self) -> None:
        """Ends the display and logs the whole."""
        self._bar.close()
        logger.info(
            "%s texts in %.1f s: %s texts/s, %s tokens/s",
            f"{self.texts:,}",
            time.monotonic() - self.start,
            self._per_second(self.texts),
            self._per_second(self.tokens),
        )


def run(model: str, files: Sequence[str], options: PredictionArguments) -> None:
    """Classifies all texts.

    Args:
        model: an output_dir, a Hub id or pypi:PACKAGE.
        files: paths, or `-` for standard input.
        options: the rest.

    Raises:
        RunError: see [`open_sources`], [`Predictor.from_pretrained`] and [`OutputFile`].
    """
    from transformers.utils.logging import disable_progress_bar

    from bertcls_hf.inference import Predictor
    from bertcls_hf.prediction_input import open_sources, read_rows
    from bertcls_hf.prediction_output import OutputFile, StandardOutput, refuse_existing

    disable_progress_bar()
    path = None if options.output_file == STANDARD else Path(options.output_file)
    if path is not None:
        refuse_existing(path, options.overwrite, files)
    if STANDARD in files and sys.stdin.isatty():
        logger.info("reading standard input")
    sources = open_sources(files, options.data(), options.stdin_format, sys.stdin.buffer)
    predictor = Predictor.from_pretrained(
        model,
        revision=options.model_revision,
        trust_remote_code=options.trust_remote_code,
        device=options.device,
        dtype=options.dtype,
        max_seq_length=options.max_seq_length,
        calibrated=options.calibration,
    )
    configure(predictor, options)
    output = StandardOutput(sys.stdout.buffer) if path is None else OutputFile(path, settings(predictor, options))
    write_predictions(predictor, read_rows(sources), output, options)


def configure(predictor: "Predictor", options: PredictionArguments) -> None:
    """Puts the options' temperature, threshold and batch size in place of the predictor's.

    Raises:
        ArgumentsError: the model's task has no use for an option.
    """
    from bertcls_hf.labels import MULTI_LABEL, REGRESSION

    task, names = predictor.labels.problem_type, predictor.labels.names
    needless = [name for name in ("temperature", "threshold", "top_k") if getattr(options, name) is not None]
    if task == REGRESSION and needless:
        raise ArgumentsError(f"--{needless[0]}: the model is a regression, which has no probabilities")
    if options.threshold is not None and task != MULTI_LABEL and len(names) != 2:
        raise ArgumentsError(f"--threshold: for two labels or a multi-label model, but there are {len(names)} labels")
    if options.temperature is not None:
        predictor.calibration = replace(predictor.calibration, temperature=options.temperature)
    if options.threshold is not None:
        predictor.calibration = replace(predictor.calibration, thresholds=options.threshold)
    if options.tokens_per_batch is not None:
        predictor.tokens_per_batch = options.tokens_per_batch


def settings(predictor: "Predictor", options: PredictionArguments) -> dict[str, Any]:
    """All that the lines depend on besides the texts; another value of any is another command."""
    return {
        "model": predictor.fingerprint(),
        "labels": list(predictor.labels.names),
        "max_seq_length": predictor.max_seq_length,
        "temperature": predictor.calibration.temperature,
        "thresholds": predictor.calibration.thresholds,
        "dtype": options.dtype,
        "device": predictor.model.device.type,
        "tokens_per_batch": predictor.tokens_per_batch,
        "chunk_rows": options.chunk_rows,
        "prediction_format": options.prediction_format,
        "top_k": options.top_k,
    }


def write_predictions(
    predictor: "Predictor",
    rows: Iterator["Row"],
    output: "OutputFile | StandardOutput",
    options: PredictionArguments,
) -> None:
    """Classifies the rows that the output lacks, chunk by chunk.

    Raises:
        ArgumentsError: the rows that the output has are others than these.
        DivergedError: an output of the model is not finite.
        StorageError: the disk is full, or cannot be written.
    """
    from bertcls_hf.prediction_output import Progress, TextDigest

    digest, done = TextDigest(), output.progress
    output.skip_written(rows, digest)
    progress = SpeedBar(done.rows, options.disable_tqdm)
    try:
        for chunk, is_whole in chunks(rows, options.chunk_rows):
            content = predicted_lines(predictor, chunk, options, header=done.rows == 0, progress=progress)
            for row in chunk:
                digest.update(row)
            done = Progress(done.rows + len(chunk), done.size + len(content), digest.hexdigest(), is_whole)
            output.write(content, done)
    finally:
        progress.close()
    output.finish()


def chunks(rows: Iterator["Row"], size: int) -> Iterator[tuple[list["Row"], bool]]:
    """Consecutive rows, up to `size` and about [`CHUNK_CHARACTERS`]; and whether a chunk is as large as that."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += sum(len(row.get(field) or "") for field in ("text", "text_pair"))
        if len(chunk) == size or characters >= CHUNK_CHARACTERS:
            yield chunk, True
            chunk, characters = [], 0
    if chunk:
        yield chunk, False


def predicted_lines(
    predictor: "Predictor", chunk: Sequence["Row"], options: PredictionArguments, header: bool, progress: SpeedBar
) -> bytes:
    """The lines of a chunk."""
    import numpy as np

    from bertcls_hf.errors import DivergedError
    from bertcls_hf.prediction_lines import format_rows, prediction_rows

    texts = [row["text"] or "" for row in chunk]
    pairs = [row["text_pair"] or "" for row in chunk] if "text_pair" in chunk[0] else None
    logits = predictor.logits(texts, pairs, progress)
    if not np.isfinite(logits).all():
        raise DivergedError(f"the model's outputs are not finite; was --dtype {options.dtype} too small for them?")
    scores = predictor.calibration.probabilities(logits, predictor.labels)
    predicted = predictor.calibration.predicted(scores, predictor.labels)
    rows = prediction_rows(chunk, scores, predicted, predictor.labels, options.top_k)
    assert options.prediction_format is not None
    lines = format_rows(rows, options.prediction_format, header, ranked=options.top_k is not None)
    return "".join(lines).encode()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("bertcls_hf").setLevel(logging.INFO)
    try:
        run(*parse(sys.argv[1:] if argv is None else argv))
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        # Python would complain once more when it flushes what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on with an --output_file\n")
        return INTERRUPTED
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
