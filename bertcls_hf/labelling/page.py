"""The page on which a person labels one text after the other, with keys or buttons.

It shows what the head has learned so far as a curve, and not what it thinks of the text: that would sway the person.
Importing this module needs the packages of requirements-deploy.txt.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr

from bertcls_hf.errors import RunError
from bertcls_hf.labelling.session import LabellingSession, Point


CSS = """
.gradio-container { max-width: 820px !important; margin: 0 auto !important; }
.hint { opacity: 0.8; }
.refusal { color: var(--error-text-color); overflow-wrap: anywhere; }
.text { font-size: 1.15rem; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 50vh; overflow-y: auto; }
#row { display: none; }
"""
# The keys of the labels are 1 to 9; what has the focus keeps its own keys only where text is typed.
KEYS = """<script>
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const names = { u: "undo", "0": "skip", " ": "skip" };
  const name = names[event.key] || (/^[1-9]$/.test(event.key) ? "label-" + event.key : null);
  const button = name && document.getElementById(name);
  if (!button) return;
  event.preventDefault();
  if (document.activeElement) document.activeElement.blur();
  button.click();
});
</script>"""
KEYED = 9
WIDTH, HEIGHT, MARGIN = 640, 200, 36


def build_page(session: LabellingSession, title: str) -> gr.Blocks:
    """Builds the page for one session; the caller launches it.

    Args:
        session: the work so far, which all visitors of the page share.
        title: the title of the page.
    """
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.HTML(f"<h1>{escape(title)}</h1><p class='hint'>{escape(_how_to(session))}</p>")
        text = gr.HTML(elem_id="text")
        with gr.Row():
            buttons = [
                gr.Button(_button_text(number, name), variant="primary", elem_id=f"label-{number}")
                for number, name in enumerate(session.labels.names, start=1)
            ]
        with gr.Row():
            skip = gr.Button("0 · Skip", elem_id="skip")
            undo = gr.Button("u · Undo", elem_id="undo")
        status, curve = gr.HTML(elem_id="status"), gr.HTML(elem_id="curve")
        # The browser sends it with an answer, which therefore belongs to the text that the person saw.
        shown = gr.Textbox(elem_id="row", show_label=False, container=False)
        outputs = [text, shown, status, curve]

        def handler(change: Callable[[int], None]) -> Callable[[str], list[Any]]:
            def handle(shown: str) -> list[Any]:
                message = ""
                try:
                    change(int(shown) if shown.isdecimal() else -1)
                except RunError as error:
                    message = f"<p class='refusal' role='alert'>{escape(str(error))}</p>"
                return view(session, message)

            return handle

        changes = [(button, _answering(session, position)) for position, button in enumerate(buttons)]
        changes += [(skip, session.skip), (undo, lambda row: session.undo())]
        for button, change in changes:
            button.click(
                handler(change), shown, outputs, concurrency_limit=1, concurrency_id="answers",
                api_visibility="private", show_progress="hidden",
            )  # fmt: skip
        page.load(lambda: view(session), None, outputs, api_visibility="private", show_progress="hidden")
    return page


def _answering(session: LabellingSession, position: int) -> Callable[[int], None]:
    return lambda row: session.answer(row, position)


def _button_text(number: int, name: str) -> str:
    return f"{number} · {name}" if number <= KEYED else name


def _how_to(session: LabellingSession) -> str:
    keys, file = f"keys 1 to {min(len(session.labels.names), KEYED)}", session.file.path.name
    return f"Labels: {keys}, or the buttons; 0 or space skips, u undoes. Each answer is in {file} at once."


def view(session: LabellingSession, message: str = "") -> list[Any]:
    """Returns what the page shows now: the text, the number of its row, the counts and the learning curve.

    Args:
        session: the work so far.
        message: HTML that goes before the counts, such as an error.
    """
    parts = session.text
    if parts is None:
        shown = "<p class='text' role='status'>All texts are labelled or skipped.</p>"
    else:
        shown = "<hr>".join(f"<div class='text'>{escape(part)}</div>" for part in parts)
    counts = f"<p class='hint'>{session.labelled_count:,} labelled, {session.open_count:,} left</p>"
    row = "" if session.row is None else str(session.row)
    return [shown, row, message + counts, curve_html(session.curve, session.is_validated)]


def curve_html(curve: Sequence[Point], is_validated: bool) -> str:
    """Draws the accuracy over the number of labelled rows, with its 95 % interval, as SVG.

    Args:
        curve: the points, by rising number of rows.
        is_validated: whether the accuracy is that of validation data, and not cross-validated.
    """
    if not curve:
        return "<p class='hint'>The learning curve starts when two texts of two labels each are labelled.</p>"
    last = curve[-1]
    source = (
        "on the validation data"
        if is_validated
        else "of the labelled texts, cross-validated; chosen texts are harder than most"
    )
    caption = (
        f"Accuracy {last.accuracy:.1%} (95 % interval {last.low:.1%}–{last.high:.1%}) with {last.labelled:,} labelled "
        f"texts, {source}"
    )
    return f"{_svg(curve, caption)}<p class='hint'>{escape(caption)}.</p>"


def _svg(curve: Sequence[Point], caption: str) -> str:
    first, last = curve[0].labelled, max(curve[-1].labelled, curve[0].labelled + 1)

    def place(labelled: int, share: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * (labelled - first) / (last - first)
        return f"{x:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * share:.1f}"

    upper = [place(point.labelled, point.high) for point in curve]
    lower = [place(point.labelled, point.low) for point in reversed(curve)]
    line = [place(point.labelled, point.accuracy) for point in curve]
    dots = "".join(f"<circle cx='{x}' cy='{y}' r='3'/>" for x, y in (dot.split(",") for dot in line))
    right, bottom = WIDTH - MARGIN, HEIGHT - MARGIN
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(caption)}' fill='currentColor' "
        "style='width: 100%' font-size='12'>"
        f"<polygon points='{' '.join(upper + lower)}' opacity='0.2'/>"
        f"<polyline points='{' '.join(line)}' fill='none' stroke='currentColor' stroke-width='2'/>{dots}"
        f"<path d='M{MARGIN},{MARGIN} V{bottom} H{right}' fill='none' stroke='currentColor' opacity='0.5'/>"
        f"<text x='{MARGIN - 4}' y='{MARGIN + 4}' text-anchor='end'>1</text>"
        f"<text x='{MARGIN - 4}' y='{bottom}' text-anchor='end'>0</text>"
        f"<text x='{MARGIN}' y='{HEIGHT - 12}'>{first:,}</text>"
        f"<text x='{right}' y='{HEIGHT - 12}' text-anchor='end'>{last:,} labelled</text></svg>"
    )
