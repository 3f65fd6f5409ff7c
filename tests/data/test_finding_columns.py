"""The text and the label are found, or a refusal says what to name; nothing is swapped or dropped in silence."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.columns import resolve_columns
from bertcls_hf.data.file_formats import open_reader
from bertcls_hf.data.load import ClassificationData, load_data
from bertcls_hf.errors import ArgumentsError, DataError
from tests.helpers.tables import PHRASES, write


def load(path: Path, content: str | bytes, **options: Any) -> ClassificationData:
    write(path, content)
    return load_data(DataArguments(train_file=str(path), validation_split_percentage=0, **options), None, True, False)


def first_row(data: ClassificationData) -> dict[str, Any]:
    row = data.splits["train"][0]
    return {**row, "label": data.labels.readable(row["label"])}


LABEL_FIRST = "".join(f"{label}\t{text}\n" for text, label in PHRASES)


class TestUsualNames:
    @pytest.mark.parametrize(
        ("available", "texts", "label"),
        [
            (["idx", "question", "sentence", "label"], ("question", "sentence"), "label"),
            (["title", "text", "category"], ("title", "text"), "category"),
            (["text1", "text2", "gold_label"], ("text1", "text2"), "gold_label"),
            (
                ["tweet_id", "airline_sentiment", "airline_sentiment_confidence", "text"],
                ("text",),
                "airline_sentiment",
            ),
            (["review_body", "star_rating", "stars"], ("review_body",), "stars"),
            (["Class Index", "Title", "Description"], ("Title", "Description"), "Class Index"),
            (["question1", "question2", "is_duplicate"], ("question1", "question2"), "is_duplicate"),
            (["headline", "is_sarcastic", "sentiment"], ("headline",), "sentiment"),
        ],
    )
    def test_are_found(self, available: list[str], texts: tuple[str, ...], label: str) -> None:
        columns = resolve_columns(available, DataArguments(), "a.csv", needs_label=True)
        assert (columns.texts, columns.label) == (texts, label)
        assert set(columns.unused) == set(available) - {*texts, label}

    def test_two_are_ambiguous_and_both_missing_columns_are_told_with_examples(self) -> None:
        rows = [{"tweet": "good film", "comment": "so good", "stars": 5, "rating": 1}]
        with pytest.raises(DataError) as error:
            resolve_columns(list(rows[0]), DataArguments(), "a.csv", needs_label=True, rows=rows)
        assert str(error.value) == (
            "no text column and no label column: a.csv has the columns 'tweet' ('good film'), 'comment' ('so good'), "
            "'stars' (5), 'rating' (1); name them with --text_column_names (two for pairs) and --label_column_name"
        )

    def test_used_and_unused_columns_are_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        content = "idx,question,sentence,label\n0,why,because,yes\n1,who,me,no\n"
        with caplog.at_level(logging.INFO):
            data = load(tmp_path / "a.csv", content)
        description = "text: question, sentence; label: label; unused: idx"
        assert f"a.csv: {description}" in caplog.text
        assert data.columns["train"].description() == description


class TestWithoutHeader:
    @pytest.mark.parametrize("header", ["auto", "false"])
    @pytest.mark.parametrize("content", [LABEL_FIRST, LABEL_FIRST + LABEL_FIRST.splitlines()[0]])
    def test_a_label_first_is_refused(self, tmp_path: Path, content: str, header: str) -> None:
        with pytest.raises(DataError) as error:
            load(tmp_path / "a.txt", content, csv_header=header)
        assert "column 1 looks like the label (2 different values" in str(error.value)
        assert "pass --column_names label text " in str(error.value)

    def test_its_columns_can_be_named(self, tmp_path: Path) -> None:
        data = load(tmp_path / "a.txt", LABEL_FIRST, column_names=["label", "text"])
        assert first_row(data) == {"text": PHRASES[0][0], "label": PHRASES[0][1]}

    def test_four_columns_or_more_get_advice(self, tmp_path: Path) -> None:
        content = "".join(f"{label},{n},NO_QUERY,{text}\n" for n, (text, label) in enumerate(PHRASES))
        with pytest.raises(DataError, match=r"4 columns and no header: .* --column_names label _ _ text"):
            load(tmp_path / "a.csv", content)
        data = load(tmp_path / "b.csv", content, column_names=["label", "_", "_", "text"])
        assert first_row(data)["text"] == PHRASES[0][0]

    def test_names_of_another_number_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="2 columns, but --column_names gives 3 names"):
            load(tmp_path / "a.txt", LABEL_FIRST, column_names=["label", "_", "text"])

    def test_names_replace_a_header(self, tmp_path: Path) -> None:
        content = "eins,zwei\n" + "".join(f"{text},{label}\n" for text, label in PHRASES)
        data = load(tmp_path / "a.csv", content, column_names=["text", "label"], csv_header="true")
        assert data.splits["train"].num_rows == len(PHRASES)

    def test_a_label_with_the_name_of_a_column_is_no_header(self, tmp_path: Path) -> None:
        content = "".join(f"{text}\t{'question' if label == 'good' else 'answer'}\n" for text, label in PHRASES)
        assert load(tmp_path / "a.tsv", content).labels.names == ("answer", "question")

    def test_as_many_labels_as_rows_are_refused(self, tmp_path: Path) -> None:
        content = "label,text\n" + "".join(f"{text},{label}\n" for text, label in PHRASES)
        with pytest.raises(
            DataError, match="the label column 'label' has 20 different labels in 20 rows, and the text"
        ):
            load(tmp_path / "a.csv", content)
        data = load(tmp_path / "a.csv", content, problem_type="single_label_classification")
        assert len(data.labels.names) == 20


class TestWhatTheHeaderDoesNotSay:
    def test_trailing_empty_columns_and_names_that_say_nothing(self, tmp_path: Path) -> None:
        content = "v1,v2,,,\n" + "".join(f"{label},{text},,,\n" for text, label in PHRASES)
        data = load(tmp_path / "spam.csv", content)
        assert first_row(data) == {"text": PHRASES[0][0], "label": PHRASES[0][1]}
        assert data.splits["train"].num_rows == len(PHRASES)

    def test_cells_beside_the_table(self, tmp_path: Path) -> None:
        """A text with a delimiter that nobody quoted goes on in the next columns, as in a corpus of spam."""
        rows = [f"{label},{text},{', so it goes' if n == 7 else ','},\n" for n, (text, label) in enumerate(PHRASES)]
        data = load(tmp_path / "spam.csv", "v1,v2,,,\n" + "".join(rows))
        assert data.splits["train"].num_rows == len(PHRASES)
        assert data.columns["train"].description() == "text: v2; label: v1"

    def test_no_column_that_recurs_is_no_guess(self, tmp_path: Path) -> None:
        content = "v1,v2\n" + "".join(f"{text},{text} again\n" for text, _ in PHRASES)
        with pytest.raises(DataError, match=r"no text column and no label column: .*'v1' \('a rude") as error:
            load(tmp_path / "a.csv", content)
        # Line 1 is plainly a header.
        assert "csv_header" not in str(error.value)


class TestSeveralColumns:
    CONTENT = "id,comment_text,rude,threat,spam\n" + "".join(
        f"{n},{text},{int(label == 'bad')},{n % 2},0\n" for n, (text, label) in enumerate(PHRASES)
    )

    def test_of_zeros_and_ones_are_labels(self, tmp_path: Path) -> None:
        options = {"label_column_name": ["rude", "threat", "spam"]}
        data = load(tmp_path / "a.csv", self.CONTENT, **options)
        assert data.labels.problem_type == "multi_label_classification"
        assert data.labels.names == ("rude", "threat", "spam")
        assert first_row(data) == {"id": "0", "text": PHRASES[0][0], "label": ["rude"]}

    def test_are_suggested_where_none_is_the_label(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="for several labels per text: --label_column_name rude threat"):
            load(tmp_path / "a.csv", self.CONTENT)

    def test_hold_minus_one_where_a_row_has_no_labels(self, tmp_path: Path) -> None:
        content = self.CONTENT + "x,not labelled,-1,-1,-1\n"
        options: dict[str, Any] = {"label_column_name": "rude,threat,spam"}
        with pytest.raises(DataError, match="no label in 1 of 21 rows"):
            load(tmp_path / "a.csv", content, **options)
        assert load(tmp_path / "a.csv", content, missing_label="drop", **options).splits["train"].num_rows == 20

    def test_that_hold_something_else_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"row 21: the label column 'rude' holds '0\.7'"):
            load(tmp_path / "a.csv", self.CONTENT + "x,half,0.7,0,0\n", label_column_name=["rude", "threat"])

    @pytest.mark.parametrize("suffix", ["json", "parquet", "memory"])
    def test_in_other_sources(self, tmp_path: Path, suffix: str) -> None:
        rows = [{"title": f"title {n}", "content": "words", "a": n % 2, "b": 1, "c": 0} for n in range(4)]
        path = tmp_path / f"a.{suffix}"
        options: dict[str, Any] = {
            "text_column_names": ["title", "content"], "text_column_delimiter": " | ",
            "label_column_name": ["a", "b", "c"], "validation_split_percentage": 0,
        }  # fmt: skip
        if suffix == "memory":
            data = load_data(DataArguments(**options), None, True, False, {"train": Dataset.from_list(rows)})
        else:
            path.write_text(json.dumps(rows))
            if suffix == "parquet":
                Dataset.from_list(rows).to_parquet(path)
            data = load_data(DataArguments(train_file=str(path), **options), None, True, False)
        assert [first_row(data)["text"], first_row(data)["label"]] == ["title 0 | words", ["b"]]

    def test_are_joined_only_by_a_delimiter(self) -> None:
        with pytest.raises(ArgumentsError, match="--text_column_delimiter joins any number"):
            DataArguments(text_column_names=["a", "b", "c"])


@pytest.mark.parametrize("header", [["comments"], ["utterance_raw"], []])
def test_one_column_files_are_read_for_predictions(tmp_path: Path, header: list[str]) -> None:
    texts = [text for text, _ in PHRASES]
    path = write(tmp_path / "a.csv", "\n".join([*header, *texts]) + "\n")
    with open_reader(path, DataArguments(), needs_label=False, alternative="") as reader:
        assert [row["text"] for row in reader.rows()] == texts
