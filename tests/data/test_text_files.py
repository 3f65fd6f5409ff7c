"""Readers of csv, tsv, txt, json and folders: formats, headers and quotes that are found out."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.class_folders import ClassFolderReader
from bertcls_hf.data.columns import resolve_columns
from bertcls_hf.data.delimited_files import DelimitedReader
from bertcls_hf.data.json_files import JsonReader, label_feature
from bertcls_hf.data.text_files import TextFile
from bertcls_hf.errors import DataError
from tests.helpers.reviews import NSMC


def read(path: Path, content: str | bytes, *columns: str, needs_label: bool = True, **options: Any) -> list[dict]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    args = DataArguments(text_column_names=list(columns) or None, **options)
    with DelimitedReader(path, args, needs_label) as reader:
        return list(reader.records())


def json_reader(path: Path) -> JsonReader:
    return JsonReader(path, DataArguments(), needs_label=False)


class TestQuotes:
    def test_nsmc_keeps_its_stray_quotes(self, tmp_path: Path) -> None:
        rows = read(tmp_path / "ratings.txt", NSMC)
        assert [row["document"] for row in rows] == [line.split("\t")[1] for line in NSMC.splitlines()[1:]]
        assert [row["label"] for row in rows] == list("01001")

    @pytest.mark.parametrize("quoting", ["auto", "minimal"])
    def test_a_spreadsheets_quotes_are_taken_off(self, tmp_path: Path, quoting: str) -> None:
        rows = read(tmp_path / "a.tsv", 'text\tlabel\n"He said ""go"""\tx\nplain\ty\n', csv_quoting=quoting)
        assert [row["text"] for row in rows] == ['He said "go"', "plain"]

    def test_quotes_on_every_row_are_taken_off(self, tmp_path: Path) -> None:
        rows = read(tmp_path / "a.tsv", '"text"\t"label"\n"a b"\t"x"\n"c"\t"y"\n')
        assert rows == [{"text": "a b", "label": "x"}, {"text": "c", "label": "y"}]

    @pytest.mark.parametrize("field", ['"two\tcolumns"', '"two\nlines"'])
    def test_quoted_tabs_and_lines_are_text(self, tmp_path: Path, field: str) -> None:
        assert read(tmp_path / "a.tsv", f"text\tlabel\n{field}\tx\nc\ty\n")[0] == {"text": field[1:-1], "label": "x"}

    def test_a_whole_text_in_quotes_stays_so_where_others_are_not(self, tmp_path: Path) -> None:
        rows = read(tmp_path / "a.tsv", 'text\tlabel\n"Bravo"\tx\nplain\ty\n')
        assert rows[0]["text"] == '"Bravo"'

    def test_csv_is_quoted_unless_asked(self, tmp_path: Path) -> None:
        content = 'text,label\n"a, b",x\nc d,y\n'
        assert read(tmp_path / "a.csv", content)[0]["text"] == "a, b"
        with pytest.raises(DataError, match="line 2: 3 fields"):
            read(tmp_path / "b.csv", content, csv_quoting="none")

    def test_a_long_field_is_no_error(self, tmp_path: Path) -> None:
        assert len(read(tmp_path / "a.csv", f'text,label\n"{"a," * 150_000}",x\n')[0]["text"]) == 300_000


class TestHeader:
    @pytest.mark.parametrize(
        ("content", "columns"),
        [
            ("text,label\na,x\nb,x\n", ["text", "label"]),
            ("Text , LABEL\na,x\nb,x\n", ["Text ", " LABEL"]),
            ("words,mood\na,x\nb,x\n", ["words", "mood"]),
            ("a,x\nb,x\n", ["text", "label"]),
            ("a,b,x\nc,d,y\ne,f,x\n", ["sentence1", "sentence2", "label"]),
        ],
    )
    def test_is_found_out(self, tmp_path: Path, content: str, columns: list[str]) -> None:
        rows = read(tmp_path / "a.csv", content)
        assert list(rows[0]) == columns
        assert rows[-1][columns[0]] in "be"

    def test_named_columns_mark_it(self, tmp_path: Path) -> None:
        # The label recurs: without the name, the first line would be a row.
        assert read(tmp_path / "a.csv", "words,x\na,x\n", "words") == [{"words": "a", "x": "x"}]

    @pytest.mark.parametrize(("header", "rows"), [("true", 1), ("false", 2)])
    def test_can_be_told(self, tmp_path: Path, header: str, rows: int) -> None:
        assert len(read(tmp_path / "a.csv", "a,x\nb,x\n", csv_header=header)) == rows

    def test_one_column_will_do_for_prediction(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        assert read(path, "text\nso good\n", needs_label=False) == [{"text": "so good"}]
        assert read(path, "words\nso good\n", "words", needs_label=False) == [{"words": "so good"}]
        assert read(path, "so good\nbad\n", needs_label=False, csv_header="false")[1] == {"text": "bad"}


class TestLines:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_every_line_end(self, tmp_path: Path, end: str) -> None:
        assert len(read(tmp_path / "a.csv", end.join(["text,label", "a,x", "", "b,y"]))) == 2

    def test_unicode_separators_end_no_line(self, tmp_path: Path) -> None:
        assert read(tmp_path / "a.csv", "text,label\na\u2028b\x85c\x0bd,x\n")[0]["text"] == "a\u2028b\x85c\x0bd"

    @pytest.mark.parametrize("encoding", ["UTF8", "utf_8", "utf-8", "u8", "utf-8-sig"])
    def test_byte_order_mark_is_no_text(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(b"\xef\xbb\xbftext")
        assert list(TextFile(path, encoding).lines()) == ["text"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp949"])
    def test_a_second_reading_is_that_of_the_first(self, tmp_path: Path, encoding: str) -> None:
        content = "좋은 영화\r\n나쁜\n" * 5000
        path = tmp_path / "a.txt"
        path.write_bytes(content.encode(encoding))
        with TextFile(path, encoding) as file:
            assert next(file.lines()) == "좋은 영화\r\n"
            digest = file.digest()
            assert "".join(file.lines()) == content
            assert file.digest() == digest == hashlib.sha256(path.read_bytes()).hexdigest()
            assert "".join(file.lines()) == content

    def test_a_closed_file_and_a_pickled_one_are_opened_again(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("a\nb\n")
        with TextFile(path) as file:
            assert next(file.lines()) == "a\n"
            copied = pickle.loads(pickle.dumps(file))
            file.close()
            assert list(copied.lines()) == list(file.lines()) == ["a\n", "b\n"]
            copied.close()

    @pytest.mark.parametrize(("errors", "text"), [("replace", "caf\ufffd"), ("ignore", "caf")])
    def test_unknown_bytes_as_asked(self, tmp_path: Path, errors: str, text: str) -> None:
        content = b"text,label\ncaf\xe9,x\n"
        assert read(tmp_path / "a.csv", content, encoding_errors=errors)[0]["text"] == text
        assert read(tmp_path / "a.csv", content, encoding="latin-1")[0]["text"] == "café"

    def test_the_line_of_an_unknown_byte_far_into_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="line 20002: byte 0xff"):
            read(tmp_path / "a.csv", b"text,label\n" + b"good film,pos\n" * 20_000 + b"\xff,neg\n")

    def test_the_line_of_a_bad_row_counts_quoted_line_ends(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="line 5: 1 fields"):
            read(tmp_path / "a.csv", 'text,label\n"a\nb\nc",x\nd\n')


class TestJson:
    ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.jsonl", "\n".join(map(json.dumps, ROWS))),
            ("a.ndjson", "\n\n".join(map(json.dumps, ROWS)) + "\n"),
            ("a.json", "\n".join(map(json.dumps, ROWS))),
            ("a.json", json.dumps(ROWS)),
            ("a.json", json.dumps(ROWS, indent=2)),
            ("a.json", json.dumps({"version": 1, "data": ROWS})),
            ("a.json", json.dumps({"version": [1], "data": ROWS}, indent=2)),
        ],
    )
    def test_every_layout(self, tmp_path: Path, name: str, content: str) -> None:
        (tmp_path / name).write_text(content)
        assert list(json_reader(tmp_path / name).records()) == self.ROWS

    def test_one_row(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"text": "a", "labels": ["x"]}')
        assert list(json_reader(tmp_path / "a.json").records()) == [{"text": "a", "labels": ["x"]}]

    def test_columns_are_those_of_every_row(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": null}\n{"text": null, "label": 1}\n')
        assert json_reader(tmp_path / "a.jsonl").column_kinds == {"text": {"text": 1}, "label": {"whole number": 3}}

    @pytest.mark.parametrize(
        ("kinds", "dtype"),
        [
            ({"text": 1}, "string"),
            ({}, "string"),
            ({"truth value": 1}, "bool"),
            ({"whole number": 1, "number": 2}, "float64"),
        ],
    )
    def test_label_type(self, kinds: dict[str, int], dtype: str) -> None:
        assert label_feature(Path("a"), "label", kinds).dtype == dtype

    @pytest.mark.parametrize(
        ("kinds", "dtype"),
        [
            ({"list without items": 1}, "string"),
            ({"list without items": 1, "list of whole numbers": 2}, "int64"),
        ],
    )
    def test_type_of_label_lists(self, kinds: dict[str, int], dtype: str) -> None:
        assert label_feature(Path("a"), "label", kinds).feature.dtype == dtype

    @pytest.mark.parametrize("kinds", [{"text": 1, "list without items": 2}, {"mixed list": 1}, {"nested object": 1}])
    def test_other_labels_are_refused(self, kinds: dict[str, int]) -> None:
        with pytest.raises(DataError, match=r"row [12]: 'label' holds a"):
            label_feature(Path("a"), "label", kinds)


class TestColumns:
    @pytest.mark.parametrize(
        ("available", "texts", "label", "identifier"),
        [
            (["id", "document", "label"], ("document",), "label", "id"),
            (["Review", "Target"], ("Review",), "Target", None),
            (["label", "hypothesis", "premise"], ("premise", "hypothesis"), "label", None),
            (["text", "text_pair", "category"], ("text", "text_pair"), "category", None),
            (["content", "text"], ("text",), None, None),
        ],
    )
    def test_usual_names(self, available: list[str], texts: tuple, label: str | None, identifier: str | None) -> None:
        columns = resolve_columns(available, DataArguments(), "a.csv", needs_label=label is not None)
        assert (columns.texts, columns.label, columns.id) == (texts, label, identifier)

    def test_a_text_column_is_no_label_or_id(self) -> None:
        columns = resolve_columns(
            ["id", "target"], DataArguments(text_column_names=["target", "id"]), "a.csv", needs_label=False
        )
        assert columns.standard_names() == {"target": "text", "id": "text_pair"}

    def test_a_long_name_is_cut_in_messages(self) -> None:
        with pytest.raises(DataError) as error:
            resolve_columns(["a" * 10_000], DataArguments(), "a.csv", needs_label=True)
        assert len(str(error.value)) < 300


def test_text_tree_is_sorted_and_keeps_texts_as_they_are(tmp_path: Path) -> None:
    for name, text in {"pos/2.txt": "good\nfilm\n", "neg/10.txt": "bad", "pos/1.txt": "", ".git/x.txt": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pos/readme.md").write_text("no text")
    assert list(ClassFolderReader(tmp_path, DataArguments(), needs_label=True).rows()) == [
        {"id": "neg/10.txt", "text": "bad", "label": "neg"},
        {"id": "pos/1.txt", "text": "", "label": "pos"},
        {"id": "pos/2.txt", "text": "good\nfilm\n", "label": "pos"},
    ]


def test_a_header_names_no_used_column_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label,label\na,b,c\n")
    with pytest.raises(DataError, match="column 'label' twice"):
        list(DelimitedReader(path, DataArguments(csv_header="true"), needs_label=True).rows())
    path.write_text("text,label,x,x,,\na,b,c,d,,\n")
    assert list(DelimitedReader(path, DataArguments(), needs_label=True).rows()) == [{"text": "a", "label": "b"}]
