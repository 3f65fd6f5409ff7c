"""The labelling page: what it shows, and the page itself in a browser, with keys and buttons."""

import csv
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from bertcls_hf.labelling.page import curve_html
from bertcls_hf.labelling.session import Point
from tests.helpers.reviews import ROOT, review
from tests.helpers.served_pages import chromium, free_port, fresh_page, served


CODE = "<img src=x onerror='document.title=1'>great ${1+1} {{value}} </p>"


def test_no_curve_yet() -> None:
    assert "starts when" in curve_html([], is_validated=False)


def test_the_curve_is_a_picture_with_a_caption() -> None:
    curve = [Point(4, 0.5, 0.15, 0.85), Point(10, 0.8, 0.49, 0.94)]
    html = curve_html(curve, is_validated=False)
    assert "Accuracy 80.0% (95 % interval 49.0%–94.0%) with 10 labelled texts" in html
    assert "cross-validated" in html
    picture = ElementTree.fromstring(html.partition("<p class")[0])
    (line,) = picture.findall("polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
    assert heights[1] < heights[0]
    assert len(picture.findall("circle")) == 2
    assert "on the validation data" in curve_html(curve[:1], is_validated=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of 30 texts, one of which looks like code."""
    folder = tmp_path_factory.mktemp("labelling")
    texts = [CODE, *(review(index)[0] for index in range(29))]
    (folder / "pool.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path, tiny_bert: Path) -> Iterator[str]:
    """The page of a cold start: there is no labelled file yet."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1",
                   "GRADIO_TEMP_DIR": str(folder / "temporary")}  # fmt: skip
    argv = [
        sys.executable, "-m", "bertcls_hf.run.label", "--demo", "--port", str(port), "--use_cpu", "true",
        "--model_name_or_path", str(tiny_bert), "--unlabelled_file", str(folder / "pool.jsonl"), "--train_file",
        str(folder / "labelled.csv"), "--label_names", "neg,pos", "--output_dir", str(folder / "out"),
    ]  # fmt: skip
    with served(argv, port, env=environment) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture
def page(browser: BrowserContext, address: str) -> Iterator[Page]:
    with fresh_page(browser, address) as page:
        expect(page.locator("#text .text")).not_to_have_text("")
        yield page


def labelled(folder: Path) -> list[dict[str, str]]:
    path = folder / "labelled.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counted(page: Page, number: int) -> None:
    expect(page.locator("#status")).to_contain_text(f"{number} labelled")


@pytest.mark.slow
class TestPage:
    def test_keys_and_buttons_label_skip_and_undo(self, page: Page, folder: Path) -> None:
        text = page.locator("#text .text")
        first = text.inner_text()
        page.keyboard.press("2")
        counted(page, 1)
        assert labelled(folder) == [{"text": first, "label": "pos"}]
        expect(text).not_to_have_text(first)
        second = text.inner_text()
        page.get_by_role("button", name="1 · neg").click()
        counted(page, 2)
        assert labelled(folder)[1:] == [{"text": second, "label": "neg"}]
        third = text.inner_text()
        # The button that was clicked has the focus; a space skips and does not click it again.
        page.keyboard.press(" ")
        expect(text).not_to_have_text(third)
        counted(page, 2)
        page.keyboard.press("u")
        expect(text).to_have_text(third)
        page.get_by_role("button", name="Undo").click()
        counted(page, 1)
        expect(text).to_have_text(second)
        page.get_by_role("button", name="Undo").click()
        counted(page, 0)
        assert not (folder / "labelled.csv").exists()

    def test_a_reload_shows_the_same_text(self, page: Page) -> None:
        shown = page.locator("#text .text").inner_text()
        page.reload()
        expect(page.locator("#text .text")).to_have_text(shown)

    def test_quick_keys_label_no_text_that_nobody_saw(self, page: Page, folder: Path) -> None:
        shown, before = page.locator("#text .text").inner_text(), len(labelled(folder))
        page.evaluate("['label-1', 'label-2', 'label-1'].forEach(id => document.getElementById(id).click())")
        expect(page.locator("#text .text")).not_to_have_text(shown)
        page.wait_for_timeout(1000)
        assert [row["text"] for row in labelled(folder)[before:]] == [shown]

    def test_the_whole_pool_and_its_curve(self, page: Page, folder: Path) -> None:
        done = False
        for _ in range(40):
            count = len(labelled(folder))
            if not page.locator("#row textarea, #row input").first.input_value():
                done = True
                break
            shown = page.locator("#text .text").inner_text()
            page.keyboard.press("2" if re.search("good|great|fine|lovely|superb", shown) else "1")
            counted(page, count + 1)
        assert done
        expect(page.locator("#text")).to_contain_text("All texts are labelled or skipped")
        rows = labelled(folder)
        assert len(rows) == len({row["text"] for row in rows}) == 30
        # The text that looks like code was shown and written as it is, and did nothing.
        assert CODE in {row["text"] for row in rows}
        assert page.title() == "Label pool.jsonl"
        expect(page.locator("#curve svg circle").first).to_be_visible()
        expect(page.locator("#curve")).to_contain_text(re.compile(r"Accuracy [\d.]+% \(95 % interval .* with \d+"))

    def test_a_file_that_somebody_changed(self, page: Page, folder: Path) -> None:
        if not labelled(folder):  # Another process may have run the tests above, and there is nothing to undo.
            page.keyboard.press("1")
            counted(page, 1)
        with (folder / "labelled.csv").open("a") as file:
            file.write("theirs,neg\n")
        page.keyboard.press("u")
        expect(page.locator("#status").get_by_role("alert")).to_contain_text("changed by another program")
        assert labelled(folder)[-1] == {"text": "theirs", "label": "neg"}
