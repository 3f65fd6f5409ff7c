"""One reader per format: it opens its file once, for all that is read of it, and survives a way to another process."""

import io
import json
import pickle
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.file_formats import READERS, open_reader
from bertcls_hf.data.load import load_data
from bertcls_hf.data.sources import NOT_STREAMED, load_path
from bertcls_hf.errors import DataError
from bertcls_hf.predict import input as prediction_input
from bertcls_hf.predict.input import open_sources, read_rows
from tests.helpers.opened_files import counted_openings


TEXTS = [f"text {number}" for number in range(3000)]
LABELS = ["pos" if number % 3 else "neg" for number in range(3000)]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def write_table(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    """The rows in the format that the name asks for."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"version": 1, "data": rows}))
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".xlsx":
        workbook = Workbook()
        for cells in [("text", "label"), *(tuple(row.values()) for row in rows)]:
            workbook.active.append(cells)
        workbook.save(path)
    elif path.suffix == ".fasttext":
        path.write_text("".join(f"__label__{row['label']} {row['text']}\n" for row in rows))
    elif path.suffix == ".trec":
        path.write_text("".join(f"{row['label']} {row['text']}\n" for row in rows))
    else:
        delimiter = "," if path.suffix == ".csv" else "\t"
        lines = [delimiter.join(("text", "label")), *(delimiter.join(row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is in the datasets cache, so that every row is read."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


TEXT_SUFFIXES = [suffix for suffix in READERS if suffix not in (".parquet", ".trec")]
# A workbook is also opened for its digest.
OPENED_ONCE = [suffix for suffix in READERS if suffix not in (".xlsx", ".trec")]
STREAMED_SUFFIXES = [suffix for suffix in TEXT_SUFFIXES if suffix not in NOT_STREAMED]


class TestOpenings:
    def test_the_counter_counts(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.parquet")
        with counted_openings(path) as counts:
            path.read_bytes()
            path.read_bytes()
            pq.read_schema(path)
        assert counts == [3]

    @pytest.mark.usefixtures("no_cache")
    @pytest.mark.parametrize("suffix", [suffix for suffix in OPENED_ONCE if suffix != ".parquet"])
    def test_a_file_is_opened_once_to_load_it(self, tmp_path: Path, suffix: str) -> None:
        path = write_table(tmp_path / f"a{suffix}")
        with counted_openings(path) as counts:
            dataset, _ = load_path(str(path), DataArguments(), needs_label=True)
        assert dataset[:] == {"text": TEXTS, "label": LABELS}
        assert counts == [1]

    @pytest.mark.usefixtures("no_cache")
    def test_a_parquet_file_is_opened_by_datasets_alone(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.parquet")
        with counted_openings(path) as of_library:
            datasets.load_dataset("parquet", data_files=str(path), split="train")
        # The same rows under another name are not in the cache.
        renamed = path.rename(tmp_path / "b.parquet")
        with counted_openings(renamed) as counts:
            dataset, _ = load_path(str(renamed), DataArguments(), needs_label=True)
        assert dataset[:] == {"text": TEXTS, "label": LABELS}
        assert counts == of_library

    @pytest.mark.parametrize("suffix", OPENED_ONCE)
    def test_a_file_is_opened_once_to_predict_it(self, tmp_path: Path, suffix: str) -> None:
        path = write_table(tmp_path / f"a{suffix}")
        with counted_openings(path) as counts:
            rows = list(read_rows(open_sources([str(path)], DataArguments(), "lines", io.BytesIO())))
        assert rows == [{"text": text} for text in TEXTS]
        assert counts == [1]

    @pytest.mark.parametrize("suffix", OPENED_ONCE)
    def test_of_many_files_few_are_open_at_a_time(
        self, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prediction_input, "MOST_OPEN_FILES", 5)
        names = [str(write_table(tmp_path / f"{n}{suffix}", ROWS[n * 10 : n * 10 + 10])) for n in range(6)]
        rows = read_rows(open_sources(names, DataArguments(), "lines", io.BytesIO()))
        assert open_files(tmp_path) == 0
        read = [next(rows)]
        assert open_files(tmp_path) == 1
        read += rows
        assert read == [{"text": text} for text in TEXTS[:60]]
        assert open_files(tmp_path) == 0


def open_files(folder: Path) -> int:
    """How many files of a folder this process holds open."""
    targets = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(target.parent == folder for target in targets)


class TestReaders:
    def test_damage_inside_a_parquet_file_is_told(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.parquet")
        content = path.read_bytes()
        path.write_bytes(content[:4] + b"\xff" * 8 + content[12:])
        with pytest.raises(DataError, match=r"a\.parquet: a broken parquet file"):
            load_path(str(path), DataArguments(), needs_label=True)
        with pytest.raises(DataError, match=r"a\.parquet: a broken parquet file"):
            list(read_rows(open_sources([str(path)], DataArguments(), "lines", io.BytesIO())))

    @pytest.mark.parametrize("suffix", [*TEXT_SUFFIXES, ".parquet"])
    def test_rows_begin_anew_each_time(self, tmp_path: Path, suffix: str) -> None:
        path = write_table(tmp_path / f"a{suffix}", ROWS[:9])
        expected = [row if suffix != ".parquet" else {"text": row["text"]} for row in ROWS[:9]]
        with open_reader(path, DataArguments(), needs_label=True, alternative="") as reader:
            assert reader.columns.standard_names() == {"text": "text", "label": "label"}
            assert next(reader.rows()) == expected[0]
            assert list(reader.rows()) == expected
            reader.close()
            assert list(reader.rows()) == expected

    @pytest.mark.parametrize("suffix", TEXT_SUFFIXES)
    def test_a_pickled_reader_reads_the_same(self, tmp_path: Path, suffix: str) -> None:
        path = write_table(tmp_path / f"a{suffix}", ROWS[:9])
        with open_reader(path, DataArguments(), needs_label=True, alternative="") as reader:
            next(reader.rows())
            with pickle.loads(pickle.dumps(reader)) as copied:
                assert list(copied.rows()) == list(reader.rows()) == ROWS[:9]

    @pytest.mark.parametrize("suffix", STREAMED_SUFFIXES)
    def test_a_stream_can_be_pickled_and_read_twice_at_once(self, tmp_path: Path, suffix: str) -> None:
        for number in range(3):
            write_table(tmp_path / f"{number}{suffix}", ROWS[number * 9 : number * 9 + 9])
        validation = write_table(tmp_path / "validation.csv")
        args = DataArguments(train_file=f"{tmp_path}/?{suffix}", validation_file=str(validation), streaming=True)
        stream = load_data(args, None, trains=True, predicts=False).splits["train"].source.dataset
        assert stream.num_shards == 3
        copied = pickle.loads(pickle.dumps(stream))
        assert list(copied) == ROWS[:27]
        pairs = list(zip(stream, stream, strict=True))
        assert pairs == [(row, row) for row in ROWS[:27]]

    def test_an_unknown_suffix_lists_the_known_ones(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as error:
            open_reader(tmp_path / "a.XLS", DataArguments(), needs_label=True, alternative="or a folder")
        known = (
            ".csv, .tsv, .txt, .json, .jsonl, .ndjson, .parquet, .xlsx (also with .gz, .bz2, .xz or .zip), or a "
            "folder; another name: --file_format csv"
        )
        assert str(error.value) == f"{tmp_path}/a.XLS: unknown format '.xls'; known: {known}"
