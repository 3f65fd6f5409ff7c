"""Classifies rows of text and writes their predictions as lines, chunk by chunk."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION
from bertcls_hf.errors import ArgumentsError, DivergedError, one_line
from bertcls_hf.predict.arguments import PredictionArguments, loading_arguments
from bertcls_hf.predict.input import Row
from bertcls_hf.predict.lines import format_rows, prediction_rows
from bertcls_hf.predict.output import OutputFile, Progress, StandardOutput, TextDigest
from bertcls_hf.predict.predictor import Predictor
from bertcls_hf.predict.quickest import Way, quickest, ways_of


logger = logging.getLogger(__name__)

# A chunk also ends when its texts have so many characters together.
CHUNK_CHARACTERS = 2**26
# The rows that are read to find the quickest way to classify them.
TRIED_ROWS = 1024


class SpeedBar:
    """A progress bar that counts texts and tokens, and shows both per second."""

    def __init__(self, start: int, hidden: bool):
        self._bar = tqdm(unit=" texts", initial=start, disable=hidden, desc="Predicting", mininterval=0.5)
        self.start, self.texts, self.tokens = time.monotonic(), 0, 0

    def __call__(self, texts: int, tokens: int) -> None:
        self.texts, self.tokens = self.texts + texts, self.tokens + tokens
        self._bar.set_postfix_str(f"{self._per_second(self.tokens)} tokens/s", refresh=False)
        self._bar.update(texts)

    def _per_second(self, number: int) -> str:
        return f"{number / max(time.monotonic() - self.start, 1e-9):,.0f}"

    def close(self) -> None:
        """Closes the progress bar, and logs the number of texts and the average speed."""
        self._bar.close()
        logger.info(
            "%s texts in %.1f s: %s texts/s, %s tokens/s",
            f"{self.texts:,}",
            time.monotonic() - self.start,
            self._per_second(self.texts),
            self._per_second(self.tokens),
        )


def configure(predictor: Predictor, options: PredictionArguments) -> None:
    """Replaces the predictor's temperature, threshold and batch size by those of the options that are given.

    Raises:
        ArgumentsError: if an option does not apply to the model's task.
    """
    task, names = predictor.labels.problem_type, predictor.labels.names
    inapplicable = [name for name in ("temperature", "threshold", "top_k") if getattr(options, name) is not None]
    if task == REGRESSION and inapplicable:
        raise ArgumentsError(f"--{inapplicable[0]}: the model is a regression, which has no probabilities")
    if options.threshold is not None and task != MULTI_LABEL and len(names) != 2:
        raise ArgumentsError(f"--threshold: for two labels or a multi-label model, but there are {len(names)} labels")
    for name in ("temperature", "threshold"):
        if predictor.cascade is not None and getattr(options, name) is not None:
            raise ArgumentsError(
                f"--{name}: the limits of the model's cascade hold for its own calibration; leave the cascade aside "
                "with --no_cascade"
            )
    if options.temperature is not None:
        predictor.calibration = replace(predictor.calibration, temperature=options.temperature)
    if options.threshold is not None:
        predictor.calibration = replace(predictor.calibration, thresholds=options.threshold)
    if options.tokens_per_batch is not None:
        predictor.tokens_per_batch = options.tokens_per_batch


def settings(predictor: Predictor, options: PredictionArguments) -> dict[str, Any]:
    """Returns all values besides the texts that the lines depend on; only a command with equal values can resume."""
    return {
        "model": predictor.fingerprint(),
        "labels": list(predictor.labels.names),
        "max_seq_length": predictor.max_seq_length,
        "temperature": predictor.calibration.temperature,
        "thresholds": predictor.calibration.thresholds,
        "cascade": None if predictor.cascade is None else predictor.cascade.as_json(),
        "backend": predictor.engine.backend,
        "dtype": options.dtype,
        "device": predictor.engine.device.type,
        "tokens_per_batch": predictor.tokens_per_batch,
        "chunk_rows": options.chunk_rows,
        "prediction_format": options.prediction_format,
        "top_k": options.top_k,
        "csv_safe": options.csv_safe,
    }


def with_quickest(
    model: str, rows: Iterator[Row], options: PredictionArguments, recorded: Mapping[str, Any]
) -> tuple[Predictor, Iterator[Row], PredictionArguments]:
    """Loads the model for the way that computes the labels of these texts the quickest.

    Args:
        model: see [`Predictor.from_pretrained`].
        rows: the texts, of which some of the first are tried.
        options: the options, whose backend is `auto`.
        recorded: the settings of an output that goes on, whose way is kept; empty for a new one.

    Returns:
        The predictor, all rows, and the options with the backend and the dtype that were chosen.
    """
    if "backend" in recorded:
        options = replace(options, backend=recorded["backend"], dtype=recorded["dtype"])
        return load(model, options), rows, options
    # A command that answers line by line does not wait for more.
    first = list(islice(rows, min(TRIED_ROWS, options.chunk_rows)))

    def with_way(way: Way) -> PredictionArguments:
        return replace(options, backend=way.backend, dtype=way.dtype)

    trial = quickest(lambda way: load(model, with_way(way)), ways_of(model, options.device), *texts_of(first))
    return trial.predictor, chain(first, rows), with_way(trial.way)


def load(model: str, options: PredictionArguments) -> Predictor:
    """Loads the model as the options say, and tries it out; see [`Predictor.from_pretrained`].

    Raises:
        ArgumentsError: if the model cannot classify a text, since its files are damaged.
    """
    predictor = Predictor.from_pretrained(model, **loading_arguments(options), calibrated=options.calibration)
    _try_out(predictor, model)
    configure(predictor, options)
    return predictor


def _try_out(predictor: Predictor, model: str) -> None:
    """Classifies a text, since libraries take many a damaged configuration until it is used."""
    try:
        predictor.predict(["a"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ArgumentsError(f"{model}: its configuration or tokenizer is damaged: {one_line(error)}") from error


def texts_of(rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
    """Returns the texts of rows, and the second texts of pairs."""
    pairs = [row["text_pair"] or "" for row in rows] if rows and "text_pair" in rows[0] else None
    return [row["text"] or "" for row in rows], pairs


def write_predictions(
    predictor: Predictor,
    rows: Iterator[Row],
    output: OutputFile | StandardOutput,
    options: PredictionArguments,
) -> None:
    """Classifies the rows that the output does not hold yet, chunk by chunk.

    Raises:
        ArgumentsError: if the output already holds predictions for other rows.
        DivergedError: if an output of the model is not finite.
        StorageError: if the disk is full or cannot be written.
    """
    digest, written = TextDigest(), output.progress
    output.skip_written(rows, digest)
    speed_bar = SpeedBar(written.rows, options.disable_tqdm)
    try:
        for chunk, is_whole in chunks(rows, options.chunk_rows):
            content = predicted_lines(predictor, chunk, options, header=written.rows == 0, progress=speed_bar)
            for row in chunk:
                digest.update(row)
            written = Progress(written.rows + len(chunk), written.size + len(content), digest.hexdigest(), is_whole)
            output.write(content, written)
    finally:
        speed_bar.close()
    output.finish()


def chunks(rows: Iterator[Row], size: int) -> Iterator[tuple[list[Row], bool]]:
    """Groups consecutive rows into chunks of `size` rows, or of about [`CHUNK_CHARACTERS`] if these are fewer rows.

    Yields:
        A chunk, and whether it is full; only the last chunk may have less.
    """
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
    predictor: Predictor, chunk: Sequence[Row], options: PredictionArguments, header: bool, progress: SpeedBar
) -> bytes:
    """Classifies a chunk, and returns its lines.

    Raises:
        DivergedError: if an output of the model is not finite.
    """
    answers = predictor.answers(*texts_of(chunk), progress)
    if not np.isfinite(answers.logits).all():
        raise DivergedError(f"the model's outputs are not finite; was --dtype {options.dtype} too small for them?")
    scores = predictor.calibration.probabilities(answers.logits, predictor.labels)
    predicted = predictor.calibration.predicted(scores, predictor.labels)
    rows = prediction_rows(chunk, scores, predicted, predictor.labels, options.top_k, answers.remarks)
    assert options.prediction_format is not None
    is_ranked = options.top_k is not None
    lines = format_rows(rows, options.prediction_format, header, is_ranked, is_safe=options.csv_safe)
    return "".join(lines).encode()
