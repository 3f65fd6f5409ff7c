"""The demo page: a text or a file in, labels with their probabilities out, and what the answer hangs on."""

import csv
import io
import json
import re
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
from bertcls_hf.demo.occlusion import Occlusion, occlude
from bertcls_hf.errors import RunError
from bertcls_hf.predict.arguments import PredictionArguments
from bertcls_hf.predict.input import Row, open_sources, read_rows
from bertcls_hf.predict.lines import format_rows
from bertcls_hf.predict.output import OutputFile
from bertcls_hf.predict.predictor import Prediction, Predictor
from bertcls_hf.predict.run import write_predictions


MOST_BARS = 10
PREVIEW_ROWS, PREVIEW_CHARACTERS, SHORT_CELL = 10, 100, 20
LONGEST_QUOTE = 60
LEAST_PERCENT = 0.001
# Between the chunks of a file, a text that somebody typed gets its turn.
CHUNK_ROWS = 512
# Seconds between two clean-ups of uploaded and predicted files, and the age at which they go.
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
# HTML in a card would be rendered; only what folds a part of it away is kept.
_TAG = re.compile(r"<(?!/?(?:details|summary)>)[a-zA-Z/!][^>]*>")


@dataclass(frozen=True)
class PageTexts:
    """What a page says besides the model's answers.

    Args:
        title: of the page.
        card: the text of the model card, in Markdown, or nothing.
        examples: texts to try.
    """

    title: str
    card: str = ""
    examples: tuple[str, ...] = ()


def build_page(predictor: Predictor, texts: PageTexts) -> gr.Blocks:
    """The page for one model, which is still to be launched.

    Args:
        predictor: answers.
        texts: the rest.
    """
    with gr.Blocks(title=texts.title, analytics_enabled=False, delete_cache=CLEAN_UP) as page:
        gr.HTML(f"<h1>{escape(texts.title)}</h1><p class='hint'>{escape(_summary(predictor))}</p>")
        with gr.Tab("Text"):
            _text_tab(predictor, texts.examples)
        with gr.Tab("File"):
            _file_tab(predictor)
        if texts.card:
            with gr.Accordion("Model card", open=False):
                gr.Markdown(harmless_card(texts.card), elem_id="card")
    return page


def harmless_card(card: str) -> str:
    """A card without pictures and HTML, so that a page with it asks no other server for anything."""
    return _TAG.sub("", card).replace("![", "[")


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

    if listed := [[example] for example in examples]:
        gr.Examples(listed, text, outputs, classify, run_on_click=True, cache_examples=False)
    gr.on([button.click, text.submit], classify, text, outputs, api_name="classify", show_progress_on=answer)
    clear.click(lambda: ["", *_nothing("")], None, [text, *outputs], api_visibility="private")


def answers(predictor: Predictor, text: str) -> Iterator[list[Any]]:
    """What the page shows of a text: first the labels, then also what they hang on.

    Args:
        predictor: answers.
        text: of any length; a blank one gets a hint.

    Yields:
        Values of the answer, the bars, the coloured words and the note.
    """
    if not text.strip():
        yield _nothing("<p class='hint'>There is no text yet: type or paste one above.</p>")
        return
    (prediction,) = predictor.predict([text])
    shown = [_answer(predictor, prediction) + _cut_note(predictor, text), _bars(predictor, prediction)]
    yield [*shown, gr.HighlightedText(visible=False), "<p class='note'>Looking at the words …</p>"]
    found = occlude(predictor, text)
    yield [*shown, _words(predictor, found), _note(predictor, found)]


def _nothing(message: str) -> list[Any]:
    return [message, gr.Label(visible=False), gr.HighlightedText(visible=False), ""]


def _answer(predictor: Predictor, prediction: Prediction) -> str:
    label, probabilities = prediction.label, prediction.probabilities
    if probabilities is None:
        said = f"<strong>{label:.4g}</strong>"
    elif isinstance(label, list):
        said = ", ".join(f"<strong>{escape(name)}</strong> {_percent(probabilities[name])}" for name in label)
        said = said or "No label is above its threshold."
    else:
        said = f"<strong>{escape(str(label))}</strong> {_percent(probabilities[str(label)])}"
    return f"<p class='answer' role='status'>{said}</p>"


def _cut_note(predictor: Predictor, text: str) -> str:
    part = predictor.read_part(text)
    if part.tokens == part.all_tokens:
        return ""
    which = "last" if predictor.tokenizer.truncation_side == "left" else "first"
    return (
        f"<p class='hint'>The text is too long for the model, which read its {which} {part.tokens:,} of "
        f"{part.all_tokens:,} tokens.</p>"
    )


def _bars(predictor: Predictor, prediction: Prediction) -> gr.Label:
    if prediction.probabilities is None:
        return gr.Label(visible=False)
    chosen = prediction.label if isinstance(prediction.label, list) else []
    bars = {f"✓ {name}" if name in chosen else name: value for name, value in prediction.probabilities.items()}
    return gr.Label(bars, visible=True)


def _words(predictor: Predictor, found: Occlusion) -> gr.HighlightedText:
    if found.strongest() is None:
        return gr.HighlightedText(visible=False)
    what = "the number" if predictor.labels.problem_type == REGRESSION else found.label
    relative = found.effects / np.abs(found.effects).max()
    coloured = [
        part
        for span, effect in zip(found.spans, relative, strict=True)
        for part in ((span.rstrip(), float(effect)), (span[len(span.rstrip()) :], None))
        if part[0]
    ]
    return gr.HighlightedText(coloured, label=f"What speaks for {what} (occlusion)", visible=True)


def _note(predictor: Predictor, found: Occlusion) -> str:
    strongest = found.strongest()
    if strongest is None:
        return "<p class='note'>Leaving out any part of the text changes nothing.</p>"
    word = escape(_shortened(found.spans[strongest].strip(), LONGEST_QUOTE))
    return f"<p class='note'>Without “{word}”, {_change(predictor, found, strongest)}. {OCCLUSION_NOTE}</p>"


def _change(predictor: Predictor, found: Occlusion, span: int) -> str:
    if predictor.labels.problem_type == REGRESSION:
        return f"the number goes from {found.score:.4g} to {found.scores[span]:.4g}"
    factor, verb = np.exp(abs(found.effects[span])), "fall" if found.effects[span] > 0 else "rise"
    return (
        f"the odds of {escape(found.label)} {verb} by a factor of {factor:,.{0 if factor >= 10 else 1}f} "
        f"({_percent(found.score)} → {_percent(found.scores[span])})"
    )


def _percent(probability: float) -> str:
    """Never 0 or 100 where it is only near them."""
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
                count = Counted(progress)
                write_file(predictor, Path(path), output, columns, count)
            except RunError as error:
                # The visitor knows files by their names only.
                yield _refusal(str(error).replace(f"{Path(path).parent}/", "").replace(f"{folder}/", ""))
                return
            message = f"<p role='status'>{count.rows:,} texts in {count.seconds:.1f} s; the first of them:</p>"
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
    """Counts the rows that pass, and tells the visitor."""

    def __init__(self, progress: gr.Progress):
        self._progress, self._start, self.rows = progress, time.monotonic(), 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
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
        predictor: answers.
        path: the texts.
        output: a name that is not taken, ending in .csv or .jsonl.
        columns: one or two names, with a comma between them; empty for the usual ones.
        count: sees the rows.

    Raises:
        RunError: as the command does.
    """
    names = [name.strip() for name in columns.split(",") if name.strip()]
    options = PredictionArguments(
        output_file=str(output), text_column_names=names or None, chunk_rows=CHUNK_ROWS, disable_tqdm=True
    )
    sources = open_sources([str(path)], options.data(), options.stdin_format, io.BytesIO())
    # Nothing is resumed in a folder of its own, so that no settings need to be compared.
    write_predictions(predictor, count(read_rows(sources)), OutputFile(output, {}), options)


def preview_table(predictions: Path) -> str:
    """The first rows of a file of predictions as an HTML table, with long cells shortened."""
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
    width = " class='long'" if len(content) > SHORT_CELL else ""
    return f"<td{width}>{escape(_shortened(content, PREVIEW_CHARACTERS))}</td>"
