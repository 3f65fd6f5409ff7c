"""Files as people have them: compressed, spreadsheets, fastText's, TREC's, long delimiters, escaped quotes."""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.load import load_data
from bertcls_hf.errors import ArgumentsError, DataError
from tests.helpers.tables import PHRASES, write


CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in PHRASES)


def load(path: Path, content: str | bytes | None = None, **options: Any) -> list[tuple[str, Any]]:
    """The texts and labels of a file."""
    if content is not None:
        write(path, content)
    args = DataArguments(train_file=str(path), validation_split_percentage=0, **options)
    data = load_data(args, None, trains=True, predicts=False)
    return [(row["text"], data.labels.readable(row["label"])) for row in data.splits["train"]]


class TestCompressed:
    @pytest.mark.parametrize(
        ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
    )
    def test_is_read(self, tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
        assert load(tmp_path / f"a.csv.{suffix}", compress(CSV.encode())) == PHRASES

    def test_a_zip_with_one_file(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("data/reviews.csv", CSV)
            archive.writestr("__MACOSX/._reviews.csv", "junk")
        assert load(tmp_path / "a.zip") == PHRASES
        with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
            archive.writestr("data/other.csv", CSV)
        with pytest.raises(DataError, match=r"holds 2 files: data/other.csv, data/reviews.csv; unpack it"):
            load(tmp_path / "a.zip")

    @pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.csv.xz", "a.csv.zip"])
    def test_broken(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match=rf"{name}: (the compressed file is broken|not a whole zip archive)"):
            load(tmp_path / name, b"\x1f\x8b\x08\x00 and rubbish")


class TestLabelFirst:
    def test_fasttext(self, tmp_path: Path) -> None:
        lines = "".join(f"__label__{label} {text}\n" for text, label in PHRASES)
        assert load(tmp_path / "a.txt", lines) == PHRASES
        assert load(tmp_path / "train.ft", lines, file_format="fasttext") == PHRASES

    def test_fasttext_with_several_labels(self, tmp_path: Path) -> None:
        read = load(tmp_path / "a.txt", "__label__a __label__b one text\n__label__b two\n")
        assert read == [("one text", ["a", "b"]), ("two", ["b"])]

    def test_trec(self, tmp_path: Path) -> None:
        lines = "".join(
            f"{'HUM:ind' if label == 'good' else 'LOC:city'} What is {text} ?\n" for text, label in PHRASES
        )
        assert load(tmp_path / "a.txt", lines)[:2] == [
            ("What is a rude and hasty crew ?", "LOC:city"), ("What is bright screen and long life ?", "HUM:ind"),
        ]  # fmt: skip
        assert load(tmp_path / "train.label", lines, file_format="trec") == load(tmp_path / "a.txt")

    def test_a_line_without_label(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="line 2: no label at the start of the line"):
            load(tmp_path / "a.ft", "__label__a x\ny\n", file_format="fasttext")


class TestDelimited:
    @pytest.mark.parametrize("delimiter", [";;", "_!_", " ||| "])
    def test_long_delimiters(self, tmp_path: Path, delimiter: str) -> None:
        lines = "".join(f"{label}{delimiter}{text}, again\n" for text, label in PHRASES)
        options = {"csv_delimiter": delimiter, "column_names": ["label", "text"]}
        assert load(tmp_path / "a.txt", lines, **options)[0] == ("a rude and hasty crew, again", "bad")
        with pytest.raises(ArgumentsError, match="cannot be quoted"):
            load(tmp_path / "a.txt", csv_quoting="minimal", **options)

    @pytest.mark.parametrize("delimiter", [";;", "_!_"])
    def test_long_delimiters_are_suggested(self, tmp_path: Path, delimiter: str) -> None:
        lines = "".join(f"{label}{delimiter}{text}\n" for text, label in PHRASES)
        with pytest.raises(DataError, match=f"seems to be separated by '{delimiter}', pass --csv_delimiter"):
            load(tmp_path / "a.txt", lines)

    def test_escaped_quotes(self, tmp_path: Path) -> None:
        content = 'text,label\n"he said \\"go\\", twice",good\nplain,bad\n'
        assert load(tmp_path / "a.csv", content) == [('he said "go", twice', "good"), ("plain", "bad")]

    def test_a_backslash_before_a_closing_quote_is_text(self, tmp_path: Path) -> None:
        content = 'text,label\n"C:\\dir\\",good\n"plain",bad\n'
        assert load(tmp_path / "a.csv", content)[0] == ("C:\\dir\\", "good")

    def test_another_suffix(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"unknown format '\.data'.* --file_format csv"):
            load(tmp_path / "a.data", CSV)
        assert load(tmp_path / "a.data", file_format="csv") == PHRASES


def test_a_workbook(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    for cells in [("text", "stars", None), *((text, 5.0 if label == "good" else 1) for text, label in PHRASES)]:
        workbook.active.append(cells)
    workbook.create_sheet("notes").append(["nothing"])
    workbook.save(tmp_path / "a.xlsx")
    assert load(tmp_path / "a.xlsx") == [(text, "5" if label == "good" else "1") for text, label in PHRASES]
    assert "only the first sheet, 'Sheet', of 2 is read" in caplog.text


def test_a_tree_of_files_without_suffix(tmp_path: Path) -> None:
    for number, (text, label) in enumerate(PHRASES):
        folder = tmp_path / "news" / f"rec.{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(10_000 + number)).write_text(text)
    read = load(tmp_path / "news")
    assert sorted(read) == sorted((text, f"rec.{label}") for text, label in PHRASES)
