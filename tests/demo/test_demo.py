"""The demo page: what it says of every kind of model, its export as a Space, and the page itself in a browser."""

import ast
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from huggingface_hub import metadata_load
from packaging.requirements import Requirement
from playwright.sync_api import BrowserContext, Page, expect

from bertcls_hf.demo.__main__ import main
from bertcls_hf.demo.card_text import MOST_CHARACTERS, TAGS, harmless_card, read_card
from bertcls_hf.demo.occlusion import occlude
from bertcls_hf.demo.page import answers, preview_table
from bertcls_hf.errors import ExitCode
from bertcls_hf.predict import __main__ as predict
from bertcls_hf.predict.lines import format_rows
from bertcls_hf.predict.predictor import Predictor
from tests.helpers.classifiers import NAMES, save_classifier, train_classifier
from tests.helpers.reviews import ROOT, write_reviews
from tests.helpers.served_pages import chromium, free_port, fresh_page, served


REVIEW = "that was a great story"
EXAMPLES = ("a lovely film", "it was dreadful and boring")
CARD = """---
license: apache-2.0
widget:
- text: a lovely film
- src: picture.png
- text: it was dreadful and boring
---
# Good or bad

![curve](https://example.com/curve.png) <img src="https://example.com/other.png">
<script>document.title = "mine"</script>

<details>
<summary>More</summary>

Tells **good** reviews from bad ones.

| a wide | table | of many | columns | which a | phone | does not | show at | once |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 0.123456 | 0.123456 | 0.123456 | 0.123456 | 0.123456 | 0.123456 | 0.123456 | 0.123456 | 0.123456 |

</details>
"""


def load(folder: Path, tiny_bert: Path, kind: str, **calibration: Any) -> Predictor:
    return Predictor.from_pretrained(str(save_classifier(folder, tiny_bert, kind, **calibration)), device="cpu")


class TestAnswers:
    def test_labels_come_before_words(self, tiny_bert: Path, tmp_path: Path) -> None:
        predictor = load(tmp_path, tiny_bert, "stock")
        first, last = answers(predictor, "good film")
        (prediction,) = predictor.predict(["good film"])
        assert f"<strong>{prediction.label}</strong>" in first[0]
        assert f"{prediction.probabilities[prediction.label]:.1%}" in first[0]
        assert first[1].value == last[1].value
        assert {bar["label"]: bar["confidence"] for bar in last[1].value["confidences"]} == prediction.probabilities
        assert not first[2].visible
        assert last[2].visible
        assert [part["token"] for part in last[2].value if part["class_or_confidence"] is not None] == ["good", "film"]

    def test_colours_are_relative_to_the_strongest(self, tiny_bert: Path, tmp_path: Path) -> None:
        predictor = load(tmp_path, tiny_bert, "stock")
        *_, last = answers(predictor, "good film and bad plot")
        colours = [part["class_or_confidence"] for part in last[2].value if part["class_or_confidence"] is not None]
        effects = occlude(predictor, "good film and bad plot").effects
        assert colours == pytest.approx(list(effects / abs(effects).max()))
        assert max(map(abs, colours)) == 1

    @pytest.mark.parametrize("text", ["", " \n\t "])
    def test_no_text(self, tiny_bert: Path, tmp_path: Path, text: str) -> None:
        (only,) = answers(load(tmp_path, tiny_bert, "stock"), text)
        assert "no text yet" in only[0]
        assert not only[1].visible
        assert not only[2].visible

    @pytest.mark.parametrize(("threshold", "count"), [(0.0, 3), (0.999999, 0)])
    def test_labels_above_their_thresholds(
        self, tiny_bert: Path, tmp_path: Path, threshold: float, count: int
    ) -> None:
        predictor = load(tmp_path, tiny_bert, "multi_label", thresholds=dict.fromkeys(NAMES["multi_label"], threshold))
        *_, last = answers(predictor, "good film")
        assert last[0].count("<strong>") == count
        assert ("No label is above" in last[0]) == (count == 0)
        assert sum(bar["label"].startswith("✓ ") for bar in last[1].value["confidences"]) == count
        assert len(last[1].value["confidences"]) == 3

    def test_a_number(self, tiny_bert: Path, tmp_path: Path) -> None:
        predictor = load(tmp_path, tiny_bert, "regression")
        *_, last = answers(predictor, "good film")
        assert f"<strong>{predictor.predict(['good film'])[0].label:.4g}</strong>" in last[0]
        assert not last[1].visible
        assert "the number goes from" in last[3]

    def test_a_text_that_is_cut(self, tiny_bert: Path, tmp_path: Path) -> None:
        predictor = load(tmp_path, tiny_bert, "stock")
        assert "too long" not in list(answers(predictor, "good " * 62))[-1][0]
        assert "its first 64 of 65 tokens" in list(answers(predictor, "good " * 63))[-1][0]
        predictor.tokenizer.truncation_side = "left"
        assert "its last 64 of 65 tokens" in list(answers(predictor, "good " * 63))[-1][0]

    def test_texts_and_labels_are_no_html(self, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path, tiny_bert, "two_labels")
        config = json.loads((folder / "config.json").read_text())
        config |= {"id2label": {"0": "<b>no", "1": "<b>yes"}, "label2id": {"<b>no": 0, "<b>yes": 1}}
        (folder / "config.json").write_text(json.dumps(config))
        *_, last = answers(Predictor.from_pretrained(str(folder), device="cpu"), "<i>good</i>")
        assert "&lt;b&gt;" in last[0]
        assert "&lt;i&gt;" in last[3]
        assert not re.search("<[bi]>", last[0] + last[3])

    def test_a_model_that_no_word_moves(self, tiny_bert: Path, tmp_path: Path) -> None:
        predictor = load(tmp_path, tiny_bert, "stock")
        predictor.model.classifier.weight.data.zero_()
        *_, last = answers(predictor, "good film")
        assert not last[2].visible
        assert "changes nothing" in last[3]


class TestCard:
    def test_text_and_examples(self, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_text(CARD)
        card, examples = read_card(str(tmp_path), "main")
        assert card.startswith("# Good or bad")
        assert examples == EXAMPLES

    def test_a_model_without(self, tmp_path: Path) -> None:
        assert read_card(str(tmp_path), "main") == ("", ())

    @pytest.mark.parametrize("widget", ["text: a", "- a\n- text: 3", "null", '"x"'])
    def test_other_metadata(self, tmp_path: Path, widget: str) -> None:
        (tmp_path / "README.md").write_text(f"---\nwidget:\n{widget}\n---\nThe card\n")
        card, examples = read_card(str(tmp_path), "main")
        assert examples == ()
        assert card in ("The card", "")

    def test_a_damaged_one_is_left_out_with_a_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "README.md").write_text("---\na: [\n---\nThe card\n")
        assert read_card(str(tmp_path), "main") == ("", ())
        assert "README.md cannot be read" in caplog.text

    def test_no_picture_and_no_html_is_left(self) -> None:
        harmless = harmless_card(f"{CARD} ![a][b] <IMG\nsrc=x> <details style='background: url(https://example.com)'>")
        assert set(re.findall("<([a-z0-9]+)[^>]*>", harmless)) <= TAGS
        assert "Tells <strong>good</strong> reviews" in harmless
        assert "<summary>" in harmless
        assert harmless_card("1 < 2 and a <= b") == "<p>1 &lt; 2 and a &lt;= b</p>\n"

    @pytest.mark.parametrize(
        "card",
        [
            "!![x](https://evil.example/p.png)",
            "<<b>img src=https://evil.example/p.png>",
            "<<b>script>alert(1)<<b>/script>",
            "[x](javascript:alert(1))",
            "<a href='javascript:alert(1)' onclick='alert(1)'>x</a>",
            "<style>@import url(https://evil.example/s.css)</style>",
            "<svg><image href=https://evil.example/p.png></svg>",
            "<p style='background: url(https://evil.example/p.png)'>x</p>",
            "<input type=image src=https://evil.example/p.png>",
            "<iframe src=https://evil.example></iframe>",
            "[![x](https://evil.example/p.png)](https://example.com)",
            "<details open ontoggle=alert(1)>x</details>",
        ],
    )
    def test_tricks_are_of_no_use(self, card: str) -> None:
        found = re.findall("<([^>]*)>", harmless_card(card))
        assert not any(re.search(r"evil|javascript|on\w+=|style|^(img|script|svg|input|iframe)", tag) for tag in found)

    @pytest.mark.parametrize(
        "piece", ["<a", "[a](", *(pytest.param(p, marks=pytest.mark.night) for p in ("![", "<!--", "*a"))]
    )
    def test_a_huge_card_takes_no_longer_than_its_start(self, piece: str) -> None:
        assert harmless_card(piece * MOST_CHARACTERS) == harmless_card((piece * MOST_CHARACTERS)[:MOST_CHARACTERS])


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_preview_shortens_and_escapes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"predictions.{suffix}"
    rows = [{"text": f"<b>\n{'x' * 200_000}", "label": "pos", "probabilities": {"neg": 0.25, "pos": 0.75}}] * 12
    path.write_text("".join(format_rows(rows, suffix)), newline="")
    table = preview_table(path)
    assert table.count("<tr>") == 11
    assert re.findall("<th>(.*?)</th>", table) == ["text", "label", "probability_neg", "probability_pos"]
    assert table.count("<td>0.75</td>") == 10
    assert "&lt;b&gt;\nx" in table
    assert "x" * 101 not in table
    path.write_text("")
    assert "<td" not in preview_table(path)


class TestCommand:
    def test_gradio_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
    ) -> None:
        monkeypatch.delitem(sys.modules, "bertcls_hf.demo.page")
        monkeypatch.delattr("bertcls_hf.demo.page")
        monkeypatch.setitem(sys.modules, "gradio", None)
        assert main([str(tmp_path)]) == ExitCode.BAD_ARGUMENTS
        assert "requirements-deploy.txt" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--port", "0"], "--port 0: must lie between"),
            (["--share", "true"], "unknown option --share"),
            (["another"], "unexpected argument 'another'"),
            (["--device", "nowhere"], "device nowhere"),
            (["--max_seq_length", "65"], "max_seq_length 65"),
        ],
    )
    def test_wrong_options(
        self, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
    ) -> None:
        assert main([str(save_classifier(tmp_path, tiny_bert, "stock")), *arguments]) == ExitCode.BAD_ARGUMENTS
        assert message in capsys.readouterr().err

    def test_no_model(self, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        assert main([str(tmp_path / "nothing")]) == ExitCode.BAD_ARGUMENTS
        assert main([str(tiny_bert)]) == ExitCode.BAD_ARGUMENTS
        assert "train one with run_classification.py" in capsys.readouterr().err

    def test_a_port_in_use(self, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        model = save_classifier(tmp_path, tiny_bert, "stock")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert main([str(model), "--device", "cpu", "--port", str(port)]) == ExitCode.BAD_ARGUMENTS
        assert f"--port {port}: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def space(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Space of a model folder that also holds what is no part of a model."""
    folder = tmp_path_factory.mktemp("space")
    model = save_classifier(folder / "my model", tiny_bert, "custom", temperature=2.0)
    (model / "README.md").write_text(CARD)
    (model / "checkpoint-3").mkdir()
    for name in (
        "recipe.yaml",
        "all_results.json",
        "trainer_state.json",
        "predictions.csv",
        "checkpoint-3/config.json",
    ):
        (model / name).write_text(f"{folder}\n")
    arguments = ["--export_space", str(folder / "out"), "--max_seq_length", "32", "--device", "cpu"]
    assert main([str(model), *arguments]) == ExitCode.DONE
    return folder / "out"


def source_files(folder: Path) -> dict[Path, bytes]:
    """The contents of all files but compiled ones, by their path in the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder): path.read_bytes() for path in paths}


class TestSpace:
    def test_files(self, space: Path) -> None:
        assert {path.name for path in space.iterdir()} == {
            "README.md", "app.py", "bertcls_hf", "model", "requirements.txt"
        }  # fmt: skip
        assert {path.name for path in (space / "model").iterdir()} == {
            "README.md", "calibration.json", "config.json", "model.safetensors", "modeling.py", "tokenizer.json",
            "tokenizer_config.json",
        }  # fmt: skip
        assert source_files(space / "bertcls_hf") == source_files(ROOT / "bertcls_hf")
        assert [path.name for path in space.parent.iterdir() if ".tmp-" in path.name] == []

    def test_nothing_of_this_machine(self, space: Path) -> None:
        secrets = {str(space.parent), str(ROOT), str(Path.home()), socket.gethostname()}
        for path in space.rglob("*"):
            if path.is_file() and path.suffix != ".safetensors":
                text = path.read_text(encoding="utf-8")
                assert [secret for secret in secrets if len(secret) > 6 and secret in text] == [], path

    def test_card(self, space: Path) -> None:
        metadata = metadata_load(space / "README.md")
        requirements = dict(line.split("==") for line in (space / "requirements.txt").read_text().splitlines())
        assert metadata["title"] == "my model"
        assert (metadata["sdk"], metadata["sdk_version"]) == ("gradio", requirements["gradio"])
        assert metadata["app_file"] == "app.py"
        assert "models" not in metadata

    def test_requirements_lie_in_the_project_s_ranges(self, space: Path) -> None:
        files = (ROOT / "requirements.txt", ROOT / "requirements-deploy.txt")
        lines = [line.partition("#")[0].strip() for file in files for line in file.read_text().splitlines()]
        ranges = {
            found.name: found.specifier for found in (Requirement(line) for line in lines if line and line[0] != "-")
        }
        pinned = [Requirement(line) for line in (space / "requirements.txt").read_text().splitlines()]
        for one in pinned:
            (pin,) = one.specifier
            assert "+" not in pin.version
            assert pin.version in ranges[one.name], one

    @pytest.mark.night
    def test_requirements_are_what_the_page_imports(self, space: Path) -> None:
        code = (
            "import sys, bertcls_hf.demo.page, bertcls_hf.demo.card_text, bertcls_hf.demo.space_export;"
            "print(*(module.__file__ for name, module in sys.modules.items() if name.startswith('bertcls_hf.')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=space, env=bare_environment(), capture_output=True, text=True, check=True
        )
        files = [Path(file) for file in done.stdout.split()]
        assert len(files) > 15
        assert all(file.is_relative_to(space / "bertcls_hf") for file in files)
        imported = {name for file in files for name in top_level_imports(file)} - set(sys.stdlib_module_names)
        needed = {packages_distributions()[name][0].lower() for name in imported - {"bertcls_hf"}}
        pinned = {line.split("==")[0].lower() for line in (space / "requirements.txt").read_text().splitlines()}
        # Only a workbook needs one, and the message about one that cannot be read says so; graphs need the others.
        assert needed - pinned == {"openpyxl", "onnxruntime", "openvino"}

    def test_a_model_of_the_hub_is_named(self, tiny_bert: Path, tmp_path: Path, monkeypatch: Any) -> None:
        repository = tmp_path / "cache" / "models--me--mine"
        save_classifier(repository / "snapshots" / "abc", tiny_bert, "stock")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
        for name in ("huggingface_hub.constants.HF_HUB_CACHE", "transformers.utils.hub.constants.HF_HUB_CACHE"):
            monkeypatch.setattr(name, str(tmp_path / "cache"))
        assert main(["me/mine", "--export_space", str(tmp_path / "out"), "--device", "cpu"]) == ExitCode.DONE
        assert not (tmp_path / "out" / "model").exists()
        assert metadata_load(tmp_path / "out" / "README.md")["models"] == ["me/mine"]
        app = (tmp_path / "out" / "app.py").read_text()
        assert "main(['me/mine', '--title', 'mine', '--model_revision', 'main'])" in app

    def test_a_folder_with_something_in_it_stays(self, tiny_bert: Path, tmp_path: Path, capsys: Any) -> None:
        model = save_classifier(tmp_path / "model", tiny_bert, "stock")
        (tmp_path / "out").mkdir()
        arguments = [str(model), "--device", "cpu", "--export_space", str(tmp_path / "out")]
        assert main(arguments) == ExitCode.DONE
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        assert main(arguments) == ExitCode.BAD_ARGUMENTS
        assert "is not empty" in capsys.readouterr().err
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before

    def test_a_folder_that_cannot_be_written(self, tiny_bert: Path, tmp_path: Path) -> None:
        model = save_classifier(tmp_path / "model", tiny_bert, "stock")
        (tmp_path / "file").touch()
        arguments = [str(model), "--device", "cpu", "--export_space", str(tmp_path / "file" / "out")]
        assert main(arguments) == ExitCode.STORAGE

    @pytest.mark.slow
    def test_it_runs_anywhere(self, space: Path, tmp_path: Path) -> None:
        port = free_port()
        environment = {**bare_environment(), "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
        with served([sys.executable, str(space / "app.py")], port, cwd=tmp_path, env=environment) as address:
            client = Client(address, verbose=False, analytics_enabled=False)
            answer, bars, words, note = client.predict("good film", api_name="/classify")
        predictor = Predictor.from_pretrained(str(space / "model"), device="cpu", max_seq_length=32)
        (prediction,) = predictor.predict(["good film"])
        assert f"<strong>{prediction.label}</strong>" in answer
        bars, words = bars["value"], words["value"]
        found = {bar["label"]: bar["confidence"] for bar in bars["confidences"]}
        assert found == pytest.approx(prediction.probabilities, abs=1e-5)
        assert [part["token"] for part in words if part["class_or_confidence"] is not None] == ["good", "film"]
        assert "left out in turn" in note


def top_level_imports(file: Path) -> Iterator[str]:
    """Packages that a module imports when it is imported itself, or late; not those that only type checkers import."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    blocks = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    unread = {id(node) for block in blocks for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained classifier with a card."""
    folder = train_classifier(tmp_path_factory.mktemp("demo"), tiny_bert)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor.from_pretrained(str(model), device="cpu")


@pytest.fixture(scope="module")
def outside() -> Iterator[socket.socket]:
    """Stands in for the rest of the world: whatever the server asks of it arrives here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module")
def address(model: Path, outside: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, proxy = free_port(), f"http://127.0.0.1:{outside.getsockname()[1]}"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("uploads")),
    }  # fmt: skip
    del environment["HF_HUB_OFFLINE"]
    argv = [sys.executable, "-m", "bertcls_hf.demo", str(model), "--port", str(port), "--device", "cpu"]
    with served([*argv, "--title", "Reviews"], port, env=environment) as found:
        yield found


@pytest.fixture(scope="module")
def requested() -> list[str]:
    """The addresses of all that pages asked for."""
    return []


@pytest.fixture(scope="module")
def browser(requested: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        context.on("request", lambda request: requested.append(request.url))
        yield context


@pytest.fixture
def page(browser: BrowserContext, address: str) -> Iterator[Page]:
    with fresh_page(browser, address) as page:
        yield page


@pytest.fixture
def classify_file(page: Page) -> Callable[[Path], None]:
    def classify(path: Path) -> None:
        page.get_by_role("tab", name="File").click()
        page.locator("#upload input[type=file]").set_input_files(path)
        expect(page.locator("#upload a")).to_be_visible()
        page.get_by_role("button", name="Classify the file").click()

    return classify


def text_box(page: Page) -> Any:
    return page.get_by_label("Text", exact=True)


@pytest.mark.slow
class TestPage:
    def test_type_click_read(self, page: Page, predictor: Predictor) -> None:
        text_box(page).fill(REVIEW)
        page.get_by_role("button", name="Classify", exact=True).click()
        (prediction,) = predictor.predict([REVIEW])
        probability = prediction.probabilities[prediction.label]
        expect(page.locator("#answer")).to_have_text(f"{prediction.label} {probability:.1%}")
        bars = page.locator("#bars")
        for name, value in prediction.probabilities.items():
            expect(bars).to_contain_text(re.compile(rf"{name}\s*{value:.0%}"))
        expect(page.locator("#words .score-token.highlighted")).to_have_text(REVIEW.split())
        found = occlude(predictor, REVIEW)
        strongest = page.locator("#words .score-token").get_by_text(found.spans[found.strongest()].strip())
        assert found.spans[found.strongest()] == "great "
        colour = strongest.locator("xpath=..").evaluate("element => getComputedStyle(element).backgroundColor")
        assert colour == "rgb(239, 68, 60)"
        expect(page.locator("#words")).to_contain_text("occlusion")
        expect(page.locator("#note")).to_contain_text("Without “great”, the odds of pos fall by a factor of")

    def test_enter_classifies_and_clear_clears(self, page: Page, predictor: Predictor) -> None:
        text_box(page).fill("it was awful")
        text_box(page).press("Enter")
        expect(page.locator("#answer")).to_contain_text(predictor.predict(["it was awful"])[0].label)
        expect(page.locator("#note")).to_contain_text("left out in turn")
        page.get_by_role("button", name="Clear").click()
        expect(text_box(page)).to_have_value("")
        expect(page.locator("#answer")).to_have_text("")
        expect(page.locator("#words")).not_to_be_visible()

    def test_an_empty_text(self, page: Page) -> None:
        page.get_by_role("button", name="Classify", exact=True).click()
        expect(page.locator("#answer")).to_contain_text("There is no text yet")
        expect(page.locator("#bars")).not_to_be_visible()

    def test_a_hundred_thousand_characters(self, page: Page, predictor: Predictor) -> None:
        text = ("a really good film in 2001, " * 4000)[:100_000]
        text_box(page).fill(text)
        start = time.monotonic()
        page.get_by_role("button", name="Classify", exact=True).click()
        expect(page.locator("#note")).to_contain_text("left out in turn")
        assert time.monotonic() - start < 20
        part = predictor.read_part(text)
        expect(page.locator("#answer")).to_contain_text(predictor.predict([text])[0].label)
        expect(page.locator("#answer")).to_contain_text(f"its first {part.tokens} of {part.all_tokens:,} tokens")
        assert " ".join(page.locator("#words .score-token").all_inner_texts()).split() == part.text.split()

    def test_a_text_that_looks_like_code(self, page: Page) -> None:
        text = "<img src=x onerror='document.title=1'>great ${1+1} {{value}} </p>"
        text_box(page).fill(text)
        text_box(page).press("Enter")
        expect(page.locator("#note")).to_contain_text("left out in turn")
        assert "".join(page.locator("#words .score-token").all_inner_texts()).split() == text.split()
        assert page.title() == "Reviews"

    def test_examples_and_the_card(self, page: Page, predictor: Predictor) -> None:
        page.get_by_text(EXAMPLES[1]).click()
        expect(text_box(page)).to_have_value(EXAMPLES[1])
        expect(page.locator("#answer")).to_contain_text(predictor.predict([EXAMPLES[1]])[0].label)
        page.get_by_text("Model card").click()
        page.get_by_text("More", exact=True).click()
        expect(page.get_by_text("reviews from bad ones")).to_be_visible()
        assert page.title() == "Reviews"

    def test_a_file_as_the_command_does_it(
        self, page: Page, model: Path, classify_file: Callable, tmp_path: Path
    ) -> None:
        path = write_reviews(tmp_path / "some reviews.csv", 25)
        classify_file(path)
        expect(page.locator("#message")).to_contain_text("25 texts")
        expect(page.locator("#preview tbody tr")).to_have_count(10)
        with page.expect_download() as waiting:
            page.locator("#download a").click()
        waiting.value.save_as(tmp_path / "page.csv")
        arguments = [str(path), "--device", "cpu", "--disable_tqdm", "--output_file", str(tmp_path / "command.csv")]
        assert predict.main([str(model), *arguments]) == 0
        assert (tmp_path / "page.csv").read_bytes() == (tmp_path / "command.csv").read_bytes()
        assert waiting.value.suggested_filename == "some reviews_predictions.csv"

    def test_another_column_and_format(self, page: Page, model: Path, classify_file: Callable, tmp_path: Path) -> None:
        path = tmp_path / "in.jsonl"
        path.write_text("".join(json.dumps({"body": text, "id": 7}) + "\n" for text in ("great", "", None)))
        page.get_by_role("tab", name="File").click()
        page.get_by_label("Text column").fill("body")
        page.get_by_label("jsonl").check()
        classify_file(path)
        with page.expect_download() as waiting:
            page.locator("#download a").click()
        waiting.value.save_as(tmp_path / "page.jsonl")
        arguments = [str(path), "--device", "cpu", "--disable_tqdm", "--output_file", str(tmp_path / "command.jsonl")]
        assert predict.main([str(model), *arguments, "--text_column_names", "body"]) == 0
        assert (tmp_path / "page.jsonl").read_bytes() == (tmp_path / "command.jsonl").read_bytes()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("in.pdf", b"%PDF", "in.pdf: unknown format '.pdf'; known: "),
            ("in.jsonl", b'{"a": "b"}\n', "in.jsonl has the columns 'a'"),
            ("in.jsonl", b"{", "in.jsonl, "),
            ("in.csv", b"text\n\xff\xfe\n", "in.csv"),
            ("in.parquet", b"PAR1", "in.parquet: a broken parquet file"),
        ],
    )
    def test_a_bad_file(
        self, page: Page, classify_file: Callable, tmp_path: Path, name: str, content: bytes, message: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        classify_file(tmp_path / name)
        alert = page.locator("#message").get_by_role("alert")
        expect(alert).to_contain_text(message)
        # The visitor learns nothing of the server's folders.
        assert f"/{name}" not in alert.inner_text()
        expect(page.locator("#download")).not_to_be_visible()

    def test_no_file(self, page: Page) -> None:
        page.get_by_role("tab", name="File").click()
        page.get_by_role("button", name="Classify the file").click()
        expect(page.locator("#message")).to_contain_text("Choose a file first")

    def test_it_fits_a_phone(self, page: Page, classify_file: Callable, tmp_path: Path) -> None:
        page.set_viewport_size({"width": 390, "height": 844})
        text_box(page).fill("a great story in " * 20 + "x" * 200)
        text_box(page).press("Enter")
        expect(page.locator("#note")).to_contain_text("left out in turn")
        width = "document.documentElement.scrollWidth"
        page.get_by_text("Model card").click()
        page.get_by_text("More", exact=True).click()
        expect(page.get_by_text("reviews from bad ones")).to_be_visible()
        assert page.evaluate(width) <= 390
        classify_file(write_reviews(tmp_path / "in.csv", 25))
        expect(page.locator("#preview tbody tr")).to_have_count(10)
        assert page.evaluate(width) <= 390

    def test_nobody_else_was_asked(self, page: Page, requested: list[str], address: str, outside: Any) -> None:
        """The last test, which looks at what all of them asked for."""
        text_box(page).wait_for()
        assert len(requested) > 50
        assert [url for url in requested if not url.startswith((address, "data:", f"blob:{address}"))] == []
        with pytest.raises(BlockingIOError):
            outside.accept()
