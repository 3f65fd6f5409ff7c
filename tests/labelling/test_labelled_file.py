"""Rows are added to files of labelled texts as people have them, and none is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.errors import DataError
from bertcls_hf.labelling.labelled_file import LabelledFile, LabelledRow


ODD = ["a, b", 'say "so"', '"all of it"', "two\nlines", "two\r\nlines", "=1+1", "'=1", "naïve 한국어 🎈", " blanks ",
       "tab\there", "back\\slash", "'tis", "x,y\nz,w"]  # fmt: skip


def rows(*texts: str, label: Any = "pos") -> list[LabelledRow]:
    return [LabelledRow((text,), label) for text in texts]


def opened(path: Path, **options: Any) -> LabelledFile:
    return LabelledFile(path, DataArguments(train_file=str(path), **options))


def found(path: Path, **options: Any) -> list[tuple[str, Any]]:
    return [(row.texts[0], row.label) for row in opened(path, **options).rows]


@pytest.mark.parametrize("name", ["new.csv", "new.jsonl"])
@pytest.mark.parametrize("text", ODD)
def test_any_text_comes_back_as_it_was(tmp_path: Path, name: str, text: str) -> None:
    file = opened(tmp_path / name)
    file.append(rows("plain"))
    file.append(rows(text))
    assert found(tmp_path / name) == [("plain", "pos"), (text, "pos")]


def test_a_tsv_takes_a_text_whole_or_not_at_all(tmp_path: Path) -> None:
    """Quotation marks of a tsv can be part of its texts, so that not every text can stand in it."""
    path, refused = tmp_path / "new.tsv", []
    expected = [("plain", "pos"), ("plainer", "pos")]
    opened(path).append(rows("plain", "plainer"))
    for text in ODD:
        file = opened(path)
        try:
            file.append(rows(text))
        except DataError as error:
            refused.append(str(error))
        else:
            expected.append((text, "pos"))
        assert found(path) == expected
    assert len(expected) > len(ODD) / 2
    assert all("nothing was written" in message for message in refused)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "text,label\ngood,pos\n", {}),
        ("a.csv", "text,label\r\ngood,pos", {}),
        ("a.csv", "label;when;words\npos;today;good\n", {"csv_delimiter": ";", "text_column_names": ["words"]}),
        ("a.csv", "good,pos\nfine,pos\nbad,neg\n", {}),
        ("a.csv", "\ufefftext,label\ngood,pos\n", {}),
        ("a.tsv", "text\tlabel\nsay \"so\tpos\nbad\tneg\n", {}),
        ("a.jsonl", '{"label": "pos", "text": "good", "more": [1]}\n', {}),
        ("a.jsonl", '{"label": "pos", "text": "good"}', {}),
    ],
)  # fmt: skip
def test_the_file_before_is_the_start_of_the_file_after(
    tmp_path: Path, name: str, content: str, options: dict[str, Any]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    before, file = found(path, **options), opened(path, **options)
    file.append(rows("a new one", "another"))
    assert found(path, **options) == [*before, ("a new one", "pos"), ("another", "pos")]
    assert path.read_bytes().startswith(content.encode())
    assert not list(tmp_path.glob("*.tmp-*"))


def test_labels_are_spelled_as_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "bad", "label": 0}\n{"text": "good", "label": 1}\n')
    opened(path, label_names=["neg", "pos"]).append(rows("fine"))
    assert json.loads(path.read_text().splitlines()[-1]) == {"text": "fine", "label": 1}
    assert found(path, label_names=["neg", "pos"])[-1] == ("fine", "pos")


@pytest.mark.parametrize("options", [{}, {"label_delimiter": "|"}])
def test_several_labels(tmp_path: Path, options: dict[str, Any]) -> None:
    for name in ("a.csv", "a.jsonl") if not options else ("a.csv",):
        file = opened(tmp_path / name, **options)
        file.append(rows("both", label=["rude", "spam"]))
        file.append(rows("one", label=["rude"]))
        assert found(tmp_path / name, **options) == [("both", ["rude", "spam"]), ("one", ["rude"])]


def test_pairs_and_ids(tmp_path: Path) -> None:
    file = opened(tmp_path / "a.csv")
    file.append([LabelledRow(("first", "second"), "yes", "7")])
    assert (tmp_path / "a.csv").read_text() == "id,text,text_pair,label\n7,first,second,yes\n"
    assert opened(tmp_path / "a.csv").rows == [LabelledRow(("first", "second"), "yes", "7")]


def test_undo_restores_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\r\ngood,pos")
    file = opened(path)
    file.append(rows("one", "two"))
    file.append(rows("three"))
    file.undo()
    assert [text for text, _ in found(path)] == ["good", "one", "two"]
    file.undo()
    assert path.read_bytes() == b"text,label\r\ngood,pos"


def test_undo_of_the_first_row_removes_the_file(tmp_path: Path) -> None:
    file = opened(tmp_path / "a.csv")
    file.append(rows("one"))
    file.undo()
    assert not (tmp_path / "a.csv").exists()
    file.append(rows("two"))
    assert found(tmp_path / "a.csv") == [("two", "pos")]


def test_what_somebody_else_has_written_stays(tmp_path: Path) -> None:
    file = opened(tmp_path / "a.csv")
    file.append(rows("one"))
    with (tmp_path / "a.csv").open("a") as other:
        other.write("theirs,neg\n")
    for change in (lambda: file.append(rows("two")), file.undo):
        with pytest.raises(DataError, match="changed by another program"):
            change()
    assert found(tmp_path / "a.csv") == [("one", "pos"), ("theirs", "neg")]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.json", "a"])
def test_formats_that_take_no_rows(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="csv, tsv and jsonl"):
        opened(tmp_path / name)


def test_several_label_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,rude,spam\nhello,0,0\nhi,1,0\n")
    with pytest.raises(DataError, match="one column of labels"):
        opened(path, label_column_name=["rude", "spam"]).append(rows("new", label=["rude"]))


def test_a_character_that_the_encoding_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nschön,pos\n".encode("latin-1"))
    with pytest.raises(DataError, match="convert the file to UTF-8"):
        opened(path, encoding="latin-1").append(rows("한국어"))
    assert found(path, encoding="latin-1") == [("schön", "pos")]
