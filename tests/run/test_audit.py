"""`bertcls audit`: what is wrong with labelled data, in a table, as JSON and on a page."""

import csv
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.errors import ExitCode
from bertcls_hf.run.audit import main as audit
from tests.helpers.reviews import review


Command = Callable[..., list[str]]
ROWS = 120
FLIPPED = {8, 33, 71, 104}  # numbers of rows, from 1 on


def write_rows(path: Path, rows: list[list[str]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def reviews(rows: int, start: int = 0) -> list[list[str]]:
    return [list(review(start + number)) for number in range(rows)]


def other(label: str) -> str:
    return {"pos": "neg", "neg": "pos"}[label]


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """Reviews of which some have the other label."""
    rows = [[text, other(label) if number in FLIPPED else label]
            for number, (text, label) in enumerate(reviews(ROWS), start=1)]  # fmt: skip
    return write_rows(tmp_path / "flawed.csv", rows)


@pytest.fixture
def words(command: Command, flawed: Path) -> Command:
    """The options of a training on the flawed reviews alone."""

    def build(**options: Any) -> list[str]:
        alone = {"train_file": flawed, "validation_file": None, "test_file": None}
        return command(**{**alone, **options})

    return build


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "audit.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def findings(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "audit.json").read_text(encoding="utf-8"))


def test_planted_errors_come_first(words: Command, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert audit(words()) == 0
    out = tmp_path / "out"
    rows = table(out)
    assert len(rows) == ROWS
    first = rows[: len(FLIPPED)]
    assert {int(row["row"]) for row in first} == FLIPPED
    assert all(row["suggested_label"] == other(row["label"]) for row in first)
    assert all(row["likely_wrong"] == "True" for row in first)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    likely = findings(out)["likely_wrong_labels"]
    assert {row["row"] for row in likely} >= FLIPPED
    assert "Training rows whose label is confidently contradicted" in capsys.readouterr().out


def test_the_same_options_find_the_same(words: Command, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        assert audit(words(output_dir=folder)) == 0
    for name in ("audit.csv", "audit.json", "audit.html"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_rows_keep_the_number_and_id_of_the_file(words: Command, tmp_path: Path) -> None:
    rows = [[f"x{number}", *row] for number, row in enumerate(reviews(60), start=1)]
    rows[3][1] = " "
    rows[9][2] = ""
    source = write_rows(tmp_path / "holes.csv", rows, ("id", "text", "label"))
    options = {"empty_text": "drop", "missing_label": "drop", "max_train_samples": 40}
    assert audit(words(train_file=source, **options)) == 0
    found = table(tmp_path / "out")
    assert len(found) == 40
    assert all(rows[int(row["row"]) - 1][:2] == [row["id"], row["text"]] for row in found)


def test_repeated_texts_and_contradictions(words: Command, tmp_path: Path) -> None:
    train = reviews(60)
    train.append([f"  {train[4][0].upper()}", other(train[4][1])])
    test = reviews(10, start=500)
    test[2] = list(train[7])
    files = {"train_file": write_rows(tmp_path / "a.csv", train), "test_file": write_rows(tmp_path / "b.csv", test)}
    assert audit(words(**files)) == 0
    found = findings(tmp_path / "out")
    (group,) = found["texts_with_different_labels"]
    assert [row["row"] for row in group["rows"]] == [5, 61]
    assert group["text"] == train[4][0]
    repeated = found["training_texts_in_other_splits"]
    assert (repeated[0]["similarity"], [row["row"] for row in repeated[0]["rows"]]) == (1.0, [3, 8])
    assert found["rows"] == {"train": 61, "test": 10}


def test_a_leak_and_a_rare_label(words: Command, tmp_path: Path) -> None:
    rows = [[f"{text} src{label}", label] for text, label in reviews(200)] + [["so bad", "odd"]] * 6
    assert audit(words(train_file=write_rows(tmp_path / "leak.csv", rows))) == 0
    found = findings(tmp_path / "out")
    assert {"srcpos", "srcneg"} <= {ngram["ngram"] for ngram in found["telling_ngrams"]}
    assert [label["label"] for label in found["labels"] if label["is_rare"]] == ["odd"]


def test_texts_that_are_cut(words: Command, tmp_path: Path) -> None:
    assert audit(words(max_seq_length=9)) == 0
    found = findings(tmp_path / "out")
    assert found["longest_text"] == 9
    assert 0 < found["texts_cut"] < ROWS
    assert max(label["lengths"][-1] for label in found["labels"]) > 9


def test_several_labels_per_row(words: Command, tmp_path: Path) -> None:
    rows = [[text, f"{label}|film" if "film" in text else label] for text, label in reviews(ROWS)]
    rows[20][1] = rows[20][1].replace("neg", "pos")
    source = write_rows(tmp_path / "several.csv", rows)
    assert audit(words(train_file=source, label_delimiter="|")) == 0
    first = table(tmp_path / "out")[:3]
    assert "21" in {row["row"] for row in first}
    assert all(row["label"] != row["suggested_label"] for row in first)


def test_pairs_of_texts(words: Command, tmp_path: Path) -> None:
    rows = [[text, "the same", label] for text, label in reviews(60)]
    source = write_rows(tmp_path / "pairs.csv", rows, ("premise", "hypothesis", "label"))
    assert audit(words(train_file=source)) == 0
    assert table(tmp_path / "out")[0]["text_pair"] == "the same"


class Page(HTMLParser):
    """Collects the tags, the addresses that are asked for and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_hostile_texts_as_texts(words: Command, tmp_path: Path) -> None:
    rows = reviews(60)
    attack = "<script>alert(1)</script><img src=http://x/y onerror=a> bad"
    rows += [[attack, "pos"], [attack, "neg"]]
    rows.append(["=HYPERLINK(1) so awful", "pos"])
    assert audit(words(train_file=write_rows(tmp_path / "attack.csv", rows))) == 0
    out = tmp_path / "out"
    page = Page()
    page.feed((out / "audit.html").read_text(encoding="utf-8"))
    assert not {"script", "img", "iframe", "object", "link"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert attack in page.text
    assert page.tags.count("h2") == 6
    assert {"html", "main", "caption", "th"} <= set(page.tags)
    assert any(row["text"].startswith("'=HYPERLINK") for row in table(out))


def test_a_recipe_of_a_training_can_be_given(words: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 3e-5\nseeds: 3\nlora_r: 8\nhead: mlp\nlabel_smoothing_factor: 0.1\n")
    assert audit([str(recipe), *words()]) == 0
    assert (tmp_path / "out/audit.html").is_file()
    assert not (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"streaming": True}, ExitCode.BAD_ARGUMENTS, "--streaming: an audit compares all rows with each other"),
        ({"window_pooling": "attention", "truncation_strategy": "windows"}, ExitCode.BAD_ARGUMENTS,
         "--window_pooling attention is learned by a training"),
        ({"problem_type": "regression"}, ExitCode.BAD_DATA, "needs numbers"),
    ],
)  # fmt: skip
def test_refusals(
    words: Command, capsys: pytest.CaptureFixture, options: dict[str, Any], code: ExitCode, message: str
) -> None:
    assert audit(words(**options)) == code
    assert message in capsys.readouterr().err


def test_numbers_and_too_few_texts_are_refused(words: Command, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    numbers = [[text, str(number + 0.5)] for number, (text, _) in enumerate(reviews(12))]
    assert audit(words(train_file=write_rows(tmp_path / "numbers.csv", numbers))) == ExitCode.BAD_DATA
    assert "the labels are numbers of a regression" in capsys.readouterr().err
    few = write_rows(tmp_path / "few.csv", reviews(4))
    assert audit(words(train_file=few)) == ExitCode.BAD_DATA
    assert "fewer than 5 different texts, or of each label" in capsys.readouterr().err
