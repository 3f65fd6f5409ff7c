"""The demo page, which classifies a text or a file, and shows how each word of a text changes its prediction."""

import csv
import io
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from bertcls_hf.data.delimited_files import LONGEST_FIELD
from bertcls_hf.data.labels import MULTI_LABEL, REGRESSION
from bertcls_hf.demo.card_text import harmless_card
from bertcls_hf.demo.occlusion import Occlusion, occlude
from bertcls_hf.errors import RunError
from bertcls_hf.predict.arguments import PredictionArguments
from bertcls_hf.predict.input import Row, open_sources, read_rows
from bertcls_hf.predict.lines import format_rows
from bertcls_hf.predict.output import OutputFile
from bertcls_hf.predict.predictor import LEXICAL, Prediction, Predictor
from bertcls_hf.predict.run import write_predictions


MOST_BARS = 10
PREVIEW_ROWS, PREVIEW_CHARACTERS, SHORT_CELL = 10, 100, 20
LONGEST_QUOTE = 60
LEAST_PERCENT = 0.001
# Chunks of a file are small, because a typed text waits until the current chunk is classified.
CHUNK_ROWS = 512
# The seconds between two clean-ups of uploaded and predicted files, and the age in seconds at which they are deleted.
CLEAN_UP = (3600, 3600)
OCCLUSION_NOTE = (
    "Each word (or run of words, in a long text) was left out in turn, and the rest classified again. Red speaks for "
    "the answer: without it, the answer is less likely. Violet speaks against it. Full colour is this text’s "
    "strongest. Words that say the same can each seem to matter little, since the others stay."
)
CSS = """
.gradio-container { max-width: 820px !important; margin: 0 auto !important; }
.answer { font-size: 1.25rem; }
.hint, .note { opacity: 0.8; }
.refusal { color: var(--error-text-color); overflow-wrap: anywhere; }
.preview, #card { contain: inline-size; overflow-x: auto; width: 100%; }
.preview :is(th, td) { padding: 0.25rem 0.5rem; text-align: left; vertical-align: top; }
.preview td { white-space: nowrap; }
.preview td.long { white-space: normal; overflow-wrap: anywhere; min-width: 16rem; }
"""


@dataclass(frozen=True)
class PageTexts:
    """The texts of a page besides the model's predictions.

    Args:
        title: the title of the page.
        card: the text of the model card in Markdown; empty without a card.
        examples: texts to try.
    """

    title: str
    card: str = ""
    examples: tuple[str, ...] = ()


def build_page(predictor: Predictor, texts: PageTexts) -> gr.Blocks:
    """Builds the page for one model; the caller launches it.

    Args:
        predictor: the classifier.
        texts: the texts that the page shows besides the predictions.
    """
    with gr.Blocks(title=texts.title, analytics_enabled=False, delete_cache=CLEAN_UP) as page:
        gr.HTML(f"<h1>{escape(texts.title)}</h1><p class='hint'>{escape(_summary(predictor))}</p>")
        with gr.Tab("Text"):
            _text_tab(predictor, texts.examples)
        with gr.Tab("File"):
            _file_tab(predictor)
        if texts.card:
            with gr.Accordion("Model card", open=False):
                gr.HTML(f"<div class='prose'>{harmless_card(texts.card)}</div>", elem_id="card")
    return page


def _summary(predictor: Predictor) -> str:
    names, length = predictor.labels.names, f"reads up to {predictor.max_seq_length} tokens"
    if predictor.labels.problem_type == REGRESSION:
        return f"Predicts a number; {length}."
    kind = "any number of" if predictor.labels.problem_type == MULTI_LABEL else "one of"
    listed = ", ".join(names[:MOST_BARS]) + (f" … ({len(names)} labels)" if len(names) > MOST_BARS else "")
    return f"Predicts {kind}: {listed}; {length}."


def _text_tab(predictor: Predictor, examples: Iterable[str]) -> None:
    text = gr.Textbox(
        label="Text", placeholder="Type or paste a text, then press Enter", lines=1, max_lines=12, autofocus=True
    )
    with gr.Row():
        button = gr.Button("Classify", variant="primary")
        clear = gr.Button("Clear", variant="secondary")
    answer = gr.HTML(elem_id="answer")
    bars = gr.Label(
        label="Probabilities", num_top_classes=MOST_BARS, show_heading=False, visible=False, elem_id="bars"
    )
    words = gr.HighlightedText(label="", show_legend=True, visible=False, elem_id="words")
    note = gr.HTML(elem_id="note")
    outputs = [answer, bars, words, note]

    def classify(text: str) -> Iterator[list[Any]]:
        """The predicted label and its probabilities, and then each word's part in them."""
        yield from answers(predictor, text)

    if example_rows := [[example] for example in examples]:
        gr.Examples(example_rows, text, outputs, classify, run_on_click=True, cache_examples=False)
    gr.on([button.click, text.submit], classify, text, outputs, api_name="classify", show_progress_on=answer)
    clear.click(lambda: ["", *_empty_outputs("")], None, [text, *outputs], api_visibility="private")


def answers(predictor: Predictor, text: str) -> Iterator[list[Any]]:
    """Yields what the page shows for a text: first the prediction alone, then also the effects of the words.

    Args:
        predictor: the classifier.
        text: a text of any length; for a blank text, the page shows a hint.

    Yields:
        The values of the answer, the bars, the coloured words and the note.
    """
    if not text.strip():
        yield _empty_outputs("<p class='hint'>There is no text yet: type or paste one above.</p>")
        return
    (prediction,) = predictor.predict([text])
    prediction_values = [_answer(predictor, prediction) + _cut_note(predictor, text), _bars(predictor, prediction)]
    yield [*prediction_values, gr.HighlightedText(visible=False), "<p class='note'>Looking at the words …</p>"]
    occlusion = occlude(predictor, text)
    yield [*prediction_values, _coloured_words(predictor, occlusion), _occlusion_note(predictor, occlusion)]


def _empty_outputs(message: str) -> list[Any]:
    return [message, gr.Label(visible=False), gr.HighlightedText(visible=False), ""]


def _answer(predictor: Predictor, prediction: Prediction) -> str:
    label, probabilities = prediction.label, prediction.probabilities
    if probabilities is None:
        content = f"<strong>{label:.4g}</strong>"
    elif isinstance(label, list):
        content = ", ".join(f"<strong>{escape(name)}</strong> {_percent(probabilities[name])}" for name in label)
        content = content or "No label is above its threshold."
    else:
        content = f"<strong>{escape(str(label))}</strong> {_percent(probabilities[str(label)])}"
    return f"<p class='answer' role='status'>{content}</p>{_remarks(prediction)}"


def _remarks(prediction: Prediction) -> str:
    remarks = []
    if prediction.abstained:
        remarks.append("The model is not sure: a person should read this text.")
    if prediction.answered_by == LEXICAL:
        remarks.append("Answered by its words alone; the encoder did not read it.")
    return f"<p class='hint'>{' '.join(remarks)}</p>" if remarks else ""


def _cut_note(predictor: Predictor, text: str) -> str:
    part = predictor.read_part(text)
    if part.tokens == part.all_tokens:
        return ""
    which = "last" if predictor.tokenizer.truncation_side == "left" else "first"
    tokens = f"{which} {part.tokens:,}"
    if (cut := predictor.cut) is not None and cut.strategy == "head_tail":
        tokens = f"first {cut.kept_at_start:,} and last {cut.max_length - cut.kept_at_start:,}"
    return (
        f"<p class='hint'>The text is too long for the model, which read its {tokens} of {part.all_tokens:,} "
        "tokens.</p>"
    )


def _bars(predictor: Predictor, prediction: Prediction) -> gr.Label:
    if prediction.probabilities is None:
        return gr.Label(visible=False)
    marked_labels = prediction.label if isinstance(prediction.label, list) else []
    bars = {f"✓ {name}" if name in marked_labels else name: value for name, value in prediction.probabilities.items()}
    return gr.Label(bars, visible=True)


def _coloured_words(predictor: Predictor, occlusion: Occlusion) -> gr.HighlightedText:
    if occlusion.strongest() is None:
        return gr.HighlightedText(visible=False)
    target = "the number" if predictor.labels.problem_type == REGRESSION else occlusion.label
    relative = occlusion.effects / np.abs(occlusion.effects).max()
    coloured = [
        part
        for span, effect in zip(occlusion.spans, relative, strict=True)
        for part in ((span.rstrip(), float(effect)), (span[len(span.rstrip()) :], None))
        if part[0]
    ]
    return gr.HighlightedText(coloured, label=f"What speaks for {target} (occlusion)", visible=True)


def _occlusion_note(predictor: Predictor, occlusion: Occlusion) -> str:
    strongest = occlusion.strongest()
    if strongest is None:
        return "<p class='note'>Leaving out any part of the text changes nothing.</p>"
    word = escape(_shortened(occlusion.spans[strongest].strip(), LONGEST_QUOTE))
    return f"<p class='note'>Without “{word}”, {_change_text(predictor, occlusion, strongest)}. {OCCLUSION_NOTE}</p>"


def _change_text(predictor: Predictor, occlusion: Occlusion, span: int) -> str:
    if predictor.labels.problem_type == REGRESSION:
        return f"the number goes from {occlusion.score:.4g} to {occlusion.scores[span]:.4g}"
    factor, verb = np.exp(abs(occlusion.effects[span])), "fall" if occlusion.effects[span] > 0 else "rise"
    return (
        f"the odds of {escape(occlusion.label)} {verb} by a factor of {factor:,.{0 if factor >= 10 else 1}f} "
        f"({_percent(occlusion.score)} → {_percent(occlusion.scores[span])})"
    )


def _percent(probability: float) -> str:
    """Formats a probability in percent; a value close to 0 or 100 is never rounded to it."""
    if 0 < probability < LEAST_PERCENT:
        return f"under {LEAST_PERCENT:.1%}"
    if 1 - LEAST_PERCENT < probability < 1:
        return f"over {1 - LEAST_PERCENT:.1%}"
    return f"{probability:.1%}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} …"


def _file_tab(predictor: Predictor) -> None:
    gr.HTML(
        "<p class='hint'>A csv, tsv, txt (read as tsv), json, jsonl or parquet file of texts; the predictions are "
        "those of <code>python -m bertcls_hf.predict</code>, which has more options and no limit of size.</p>"
    )
    file = gr.File(label="File", elem_id="upload")
    with gr.Row():
        columns = gr.Textbox(
            label="Text column", info="Default: text, sentence, document, review or content. Two, with a comma: pairs."
        )
        prediction_format = gr.Radio(["csv", "jsonl"], value="csv", label="Predictions as")
    button = gr.Button("Classify the file", variant="primary")
    message = gr.HTML(elem_id="message")
    preview = gr.HTML(elem_id="preview")
    download = gr.File(label="Predictions", visible=False, interactive=False, elem_id="download")

    def predict_file(
        path: str | None,
        columns: str,
        prediction_format: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[list[Any]]:
        """The predictions for a file of texts, and their first rows."""
        if path is None:
            yield _refusal("Choose a file first.")
            return
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, f"{Path(path).stem}_predictions.{prediction_format}")
            try:
                counter = Counted(progress)
                write_file(predictor, Path(path), output, columns, counter)
            except RunError as error:
                # The visitor does not know the folders on this machine, only the names of the files.
                yield _refusal(str(error).replace(f"{Path(path).parent}/", "").replace(f"{folder}/", ""))
                return
            message = f"<p role='status'>{counter.rows:,} texts in {counter.seconds:.1f} s; the first of them:</p>"
            yield [message, preview_table(output), gr.File(str(output), visible=True)]

    button.click(
        predict_file,
        [file, columns, prediction_format],
        [message, preview, download],
        api_name="predict_file",
        show_progress_on=message,
    )


def _refusal(message: str) -> list[Any]:
    return [f"<p class='refusal' role='alert'>{escape(message)}</p>", "", gr.File(visible=False)]


class Counted:
    """Counts the rows that are read, and shows their number to the visitor."""

    def __init__(self, progress: gr.Progress):
        self._progress, self._start, self.rows = progress, time.monotonic(), 0

    @property
    def seconds(self) -> float:
        """The time since the start, in seconds."""
        return time.monotonic() - self._start

    def __call__(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if self.rows % CHUNK_ROWS == 0:
                self._progress((self.rows, None), unit="texts")
            self.rows += 1
            yield row


def write_file(predictor: Predictor, path: Path, output: Path, columns: str, count: Counted) -> None:
    """Writes the predictions that the prediction command would write.

    Args:
        predictor: the classifier.
        path: the file of texts.
        output: the file to write, which must not exist; its name ends in .csv or .jsonl.
        columns: the names of one or two text columns, separated by a comma; empty for the usual ones.
        count: counts the rows.

    Raises:
        RunError: if the prediction command would raise it.
    """
    names = [name.strip() for name in columns.split(",") if name.strip()]
    options = PredictionArguments(
        output_file=str(output), text_column_names=names or None, chunk_rows=CHUNK_ROWS, disable_tqdm=True
    )
    sources = open_sources([str(path)], options.data(), options.stdin_format, io.BytesIO())
    # The settings are only compared when a file is resumed, which never happens in a temporary folder.
    write_predictions(predictor, count(read_rows(sources)), OutputFile(output, {}), options)


def preview_table(predictions: Path) -> str:
    """Formats the first rows of a file of predictions as an HTML table, in which long cells are shortened."""
    csv.field_size_limit(LONGEST_FIELD)
    with predictions.open(encoding="utf-8", newline="") as file:
        lines: Iterable[str] = file
        if predictions.suffix == ".jsonl":
            lines = io.StringIO("".join(format_rows(map(json.loads, islice(file, PREVIEW_ROWS)), "csv")), newline="")
        header, *rows = list(islice(csv.reader(lines), PREVIEW_ROWS + 1)) or [[]]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<div class='preview'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(content: str) -> str:
    class_attribute = " class='long'" if len(content) > SHORT_CELL else ""
    return f"<td{class_attribute}>{escape(_shortened(content, PREVIEW_CHARACTERS))}</td>"
