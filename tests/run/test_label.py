"""`bertcls label`: proposals of a pool, the way back of a filled-in file, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.run.label import main as label
from tests.helpers.reviews import review, write_reviews


Words = Callable[..., list[str]]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """40 new reviews with ids, a labelled one, a validation text, an empty text, and one that stands twice."""
    path = tmp_path / "pool.csv"
    texts = [review(index)[0] for index in (3, 100, *range(300, 340), 300)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([f"p{number}", text] for number, text in enumerate([*texts, ""]))
    return path


@pytest.fixture
def words(command: Words, pool: Path, tmp_path: Path) -> Words:
    """The options of a quick command; keyword arguments are options, None leaves one out."""

    def build(**options: Any) -> list[str]:
        defaults = {"unlabelled_file": pool, "output_file": tmp_path / "next.csv", "number": 5}
        unused = dict.fromkeys(("num_train_epochs", "learning_rate", "test_file", "disable_tqdm"))
        return command(**{**unused, **defaults, **options})

    return build


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill(path: Path, *labels: str) -> None:
    """Writes labels into the first rows, as a person would."""
    rows = read(path)
    for row, name in zip(rows, labels, strict=False):
        row["label"] = name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_descriptions_propose_labels_where_no_row_has_one(words: Words, tmp_path: Path) -> None:
    described = ["--label_descriptions", "bad awful poor dreadful boring", "good great fine lovely superb"]
    files = {"train_file": None, "validation_file": None, "label_names": "neg,pos", "pooling": "mean"}
    assert label([*words(**files, strategy="uncertainty", number=40), *described]) == 0
    found = read(tmp_path / "next.csv")
    right = [row["proposed_label"] == ("pos" if int(row["text"].split()[-1]) % 2 else "neg") for row in found]
    assert len(found) == 40
    assert sum(right) > 24
    # The least sure come first.
    sure = [float(row["probability"]) for row in found]
    assert sure == sorted(sure)


@pytest.mark.parametrize("strategy", [None, "uncertainty", "coverage", "random"])
def test_new_texts_are_proposed_each_once(words: Words, pool: Path, tmp_path: Path, strategy: str | None) -> None:
    assert label(words(strategy=strategy, number=100)) == 0
    proposals = read(tmp_path / "next.csv")
    assert list(proposals[0]) == ["row", "id", "text", "proposed_label", "probability", "label"]
    assert sorted(row["text"] for row in proposals) == sorted(review(index)[0] for index in range(300, 340))
    in_pool = read(pool)
    for row in proposals:
        assert in_pool[int(row["row"]) - 1] == {"id": row["id"], "text": row["text"]}
        assert row["proposed_label"] in ("neg", "pos")
        assert 0.5 <= float(row["probability"]) <= 1
        assert row["label"] == ""


def test_the_most_uncertain_come_first(words: Words, tmp_path: Path) -> None:
    assert label(words(strategy="uncertainty", number=100)) == 0
    everything = [float(row["probability"]) for row in read(tmp_path / "next.csv")]
    assert everything == sorted(everything)
    (tmp_path / "next.csv").unlink()
    assert label(words(number=3)) == 0
    spread = [float(row["probability"]) for row in read(tmp_path / "next.csv")]
    # Those that are spread are among the 30 most uncertain ones of 40.
    assert max(spread) <= everything[29]


def test_the_same_command_proposes_the_same(words: Words, tmp_path: Path) -> None:
    for strategy in ("spread", "random"):
        assert label(words(strategy=strategy)) == 0
        again = tmp_path / "again.csv"
        assert label(words(strategy=strategy, output_file=again)) == 0
        assert again.read_bytes() == (tmp_path / "next.csv").read_bytes()
        again.unlink()
        (tmp_path / "next.csv").unlink()


def test_a_cold_start_covers(words: Words, tmp_path: Path) -> None:
    cold = {"train_file": None, "validation_file": None}
    assert label(words(**cold)) == 0
    proposals = read(tmp_path / "next.csv")
    assert len(proposals) == 5
    assert {row["proposed_label"] for row in proposals} == {""}


def test_labels_of_which_rows_have_one(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    only = tmp_path / "only.csv"
    only.write_text("text,label\ngood film,pos\ngreat film,pos\n")
    options = {"train_file": only, "label_names": "neg,pos"}
    assert label(words(**options)) == 2
    assert "until then, choose coverage" in capsys.readouterr().err
    assert label(words(**options, strategy="coverage")) == 0
    assert len(read(tmp_path / "next.csv")) == 5


def test_suspects_are_the_rows_with_wrong_labels(words: Words, tmp_path: Path) -> None:
    train = write_reviews(tmp_path / "train.csv", 80)
    rows = read(train)
    for number in (10, 33):
        rows[number]["label"] = "neg" if rows[number]["label"] == "pos" else "pos"
    with train.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    suspects = words(train_file=train, strategy="suspects", unlabelled_file=None, number=100)
    assert label(suspects) == 0
    proposals = read(tmp_path / "next.csv")
    assert {"11", "34"} <= {row["row"] for row in proposals}
    assert len(proposals) < 20
    for row in proposals:
        assert rows[int(row["row"]) - 1] == {"text": row["text"], "label": row["current_label"]}
        assert row["proposed_label"] != row["current_label"]


def test_several_labels_per_text(words: Words, tmp_path: Path) -> None:
    train = tmp_path / "tags.jsonl"
    lines = [{"text": review(index)[0], "label": [["odd"], ["even"]][index % 2] + ["all"]} for index in range(20)]
    train.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"train_file": train, "validation_file": None}
    assert label(words(**options)) == 0
    assert all("all" in row["proposed_label"].split("|") for row in read(tmp_path / "next.csv"))
    fill(tmp_path / "next.csv", "odd|all", "even")
    assert label(["--add", str(tmp_path / "next.csv"), "--train_file", str(train)]) == 0
    assert [json.loads(line)["label"] for line in train.read_text().splitlines()[20:]] == [["odd", "all"], ["even"]]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_odd_texts_come_back_as_they_were(words: Words, tmp_path: Path, suffix: str) -> None:
    odd = ['=HYPERLINK("http://x")', "'=so", "+1", "-2", "@me", 'a, "b"\nand c', "한국어 🎈", "'tis", "tab\there"]
    pool, train = tmp_path / "odd.jsonl", tmp_path / "train.csv"
    pool.write_text("".join(json.dumps({"text": text}) + "\n" for text in odd))
    out = tmp_path / f"next.{suffix}"
    assert label(words(unlabelled_file=pool, output_file=out, number=100)) == 0
    if suffix == "csv":
        # A spreadsheet takes none of them for a formula.
        assert not any(row["text"].startswith(("=", "+", "-", "@")) for row in read(out))
        fill(out, *["pos"] * len(odd))
    else:
        rows = [{**json.loads(line), "label": "pos"} for line in out.read_text().splitlines()]
        out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = read(train)
    assert label(["--add", str(out), "--train_file", str(train)]) == 0
    after = read(train)
    assert after[: len(before)] == before
    assert sorted(row["text"] for row in after[len(before) :]) == sorted(odd)
    # What is labelled is proposed no more.
    assert label(words(unlabelled_file=pool, output_file=tmp_path / "last.csv")) == 0
    assert read(tmp_path / "last.csv") == []


def test_rows_are_added_once(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, train = tmp_path / "next.csv", tmp_path / "train.csv"
    assert label(words()) == 0
    fill(out, "pos", "neg")
    add = ["--add", str(out), "--train_file", str(train)]
    capsys.readouterr()
    assert label(add) == 0
    assert capsys.readouterr().out.startswith("2 rows added to ")
    added = train.read_bytes()
    assert label(add) == 0
    assert "0 rows added" in (said := capsys.readouterr().out)
    assert "2 were there already, 3 have no label" in said
    assert train.read_bytes() == added


def test_a_spreadsheet_with_semicolons(words: Words, tmp_path: Path) -> None:
    out = tmp_path / "next.csv"
    assert label(words(number=1)) == 0
    (row,) = read(out)
    row |= {"label": "neg", "text": "one; two"}
    lines = [";".join(row), ";".join(f'"{value}"' if ";" in value else value for value in row.values())]
    out.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    assert label(["--add", str(out), "--train_file", str(tmp_path / "train.csv")]) == 0
    assert read(tmp_path / "train.csv")[-1] == {"text": "one; two", "label": "neg"}


def test_a_file_that_may_hold_answers_is_not_replaced(
    words: Words, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "next.csv").write_text("answers")
    assert label(words()) == 2
    assert "it exists, and may hold answers" in capsys.readouterr().err
    assert (tmp_path / "next.csv").read_text() == "answers"


def test_an_unknown_label(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, train = tmp_path / "next.csv", tmp_path / "train.csv"
    assert label(words()) == 0
    fill(out, "pos", "posi")
    before = train.read_bytes()
    add = ["--add", str(out), "--train_file", str(train)]
    assert label(add) == 65
    assert f"'posi' is no label of {train} (neg, pos)" in capsys.readouterr().err
    assert train.read_bytes() == before
    assert label([*add, "--label_names", "neg,pos,posi"]) == 0
    assert [row["label"] for row in read(train)[-2:]] == ["pos", "posi"]


def test_a_text_with_another_label(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, train = tmp_path / "next.csv", tmp_path / "train.csv"
    assert label(words()) == 0
    fill(out, "pos")
    assert label(["--add", str(out), "--train_file", str(train)]) == 0
    fill(out, "neg", "pos")
    before = train.read_bytes()
    assert label(["--add", str(out), "--train_file", str(train)]) == 65
    assert f"has the label 'neg', and in {train}, row 49, 'pos'" in capsys.readouterr().err
    assert train.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"strategy": "spread", "train_file": None, "validation_file": None}, 2, "start with --strategy coverage"),
        ({"output_file": None}, 2, "give one of --output_file, --add and --demo"),
        ({"add": "next.csv"}, 2, "give one of --output_file, --add and --demo"),
        ({"output_file": "next.txt"}, 2, "--output_file next.txt: proposals are .csv or .jsonl"),
        ({"output_file": "nowhere/next.csv"}, 2, "there is no folder nowhere"),
        ({"unlabelled_file": None}, 2, "--unlabelled_file: name the texts"),
        ({"unlabelled_file": "none.csv"}, 65, "none.csv: no such file"),
        ({"number": 0}, 2, "--number 0: must be 1 or more"),
        ({"numbr": 3}, 2, "unknown option --numbr"),
        ({"streaming": True}, 2, "--streaming: texts are chosen among all"),
        ({"problem_type": "regression"}, 65, "needs numbers"),
        ({"window_pooling": "attention", "truncation_strategy": "windows"}, 2, "use mean or max"),
    ],
)
def test_one_sentence_says_what_is_wrong(
    words: Words, capsys: pytest.CaptureFixture, options: dict[str, Any], code: int, message: str
) -> None:
    assert label(words(**options)) == code
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert message in error[0]


def test_a_file_that_nobody_proposed(tmp_path: Path, reviews: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert label(["--add", str(reviews["test"]), "--train_file", str(reviews["train"])]) == 65
    assert "no column 'proposed_label'" in capsys.readouterr().err
    assert label(["--add", str(tmp_path / "none.csv"), "--train_file", str(reviews["train"])]) == 65
    assert label(["--add", str(reviews["test"])]) == 2
    assert label(["--add", "next.xlsx", "--train_file", str(reviews["train"])]) == 2
    assert "save it as one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"train_file": "new.csv"}, 2, "new.csv does not exist yet: name the labels with --label_names"),
        ({"unlabelled_file": None}, 2, "name with --unlabelled_file the texts"),
        ({"strategy": "random"}, 2, "--strategy is for --output_file"),
        ({"number": 5}, 2, "--number is for --output_file"),
        ({"train_file": "new.parquet", "label_names": "neg,pos"}, 65, "rows are added to csv, tsv and jsonl files"),
        ({"port": 0}, 2, "--port 0: must lie between 1 and 65535"),
    ],
)
def test_a_page_that_cannot_open(
    words: Words, capsys: pytest.CaptureFixture, options: dict[str, Any], code: int, message: str
) -> None:
    assert label([*words(**{"output_file": None, "number": None, **options}), "--demo"]) == code
    assert message in capsys.readouterr().err


def test_the_page_gives_one_label(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = tmp_path / "tags.jsonl"
    train.write_text("".join(f'{{"text": "good {row}", "label": ["all"]}}\n' for row in range(5)))
    options = {"train_file": train, "validation_file": None, "output_file": None, "number": None}
    assert label([*words(**options), "--demo"]) == 2
    assert "the page gives each text one label" in capsys.readouterr().err
