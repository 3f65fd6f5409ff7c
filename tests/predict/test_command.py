"""The prediction command: every format and pipe, in order, without loss, and on from where it was killed."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertcls_hf.config.arguments import DataArguments, ModelArguments
from bertcls_hf.errors import ExitCode
from bertcls_hf.predict import run as prediction_run
from bertcls_hf.predict.__main__ import main
from bertcls_hf.predict.arguments import DATA_OPTIONS, PredictionArguments
from bertcls_hf.predict.output import OutputFile
from bertcls_hf.predict.predictor import Predictor
from tests.helpers.classifiers import save_classifier, texts
from tests.helpers.disks import small_disk
from tests.helpers.reviews import ROOT
from tests.helpers.warm_processes import EntryScript


TEXTS = texts(30)


@pytest.fixture
def model(tiny_bert: Path, tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "model", tiny_bert, "custom")


@pytest.fixture
def arguments(model: Path) -> Callable[..., list[str]]:
    """The arguments of a command on files; keyword arguments are options."""

    def build(*files: object, **options: object) -> list[str]:
        options = {"device": "cpu", "disable_tqdm": True, **options}
        return [str(model), *map(str, files), *(t for n, value in options.items() for t in (f"--{n}", str(value)))]

    return build


@pytest.fixture
def lines(arguments: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[dict]]:
    """Runs the command and returns its output's rows."""

    def run(*files: object, **options: object) -> list[dict]:
        path = tmp_path / "out.jsonl"
        assert main(arguments(*files, output_file=path, overwrite=True, **options)) == 0
        return read_jsonl(path)

    return run


@pytest.fixture
def expected(model: Path) -> list[dict]:
    """What the command should say of [`TEXTS`], by the predictor."""
    found = zip(TEXTS, Predictor.from_pretrained(str(model), device="cpu").predict(TEXTS), strict=True)
    return [{"text": text, "label": one.label, "probabilities": one.probabilities} for text, one in found]


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def write_csv(path: Path, rows: list[list[Any]], **options: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_texts(path: Path) -> Path:
    """[`TEXTS`] in the format that the name asks for."""
    rows = [["text", "label"], *([text, "bad"] for text in TEXTS)]
    if path.suffix == ".csv":
        return write_csv(path, rows)
    if path.suffix in (".tsv", ".txt"):
        return write_csv(path, rows, delimiter="\t")
    if path.suffix == ".jsonl":
        return write_jsonl(path, [{"text": text, "label": 1} for text in TEXTS])
    if path.suffix == ".json":
        path.write_text(json.dumps({"data": [{"text": text} for text in TEXTS]}), encoding="utf-8")
        return path
    pq.write_table(pa.table({"text": TEXTS, "label": [0] * len(TEXTS)}), path, row_group_size=7)
    return path


class TestFormats:
    @pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "jsonl", "json", "parquet"])
    def test_every_file(self, lines: Callable, expected: list[dict], tmp_path: Path, suffix: str) -> None:
        found = lines(write_texts(tmp_path / f"in.{suffix}"), chunk_rows=8)
        assert_same(found, expected)
        assert list(found[0]) == ["text", "label", "probabilities"]

    def test_several_files_are_one(self, lines: Callable, expected: list[dict], tmp_path: Path) -> None:
        files = [write_texts(tmp_path / f"in.{suffix}") for suffix in ("csv", "parquet", "jsonl")]
        assert_same(lines(*files, chunk_rows=50), expected * 3)

    def test_long_texts_make_short_chunks(
        self, lines: Callable, expected: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prediction_run, "CHUNK_CHARACTERS", 100)
        sizes = []
        original = Predictor.logits

        def logits(self: Predictor, texts: list[str], *rest: Any) -> Any:
            sizes.append(sum(map(len, texts)))
            return original(self, texts, *rest)

        monkeypatch.setattr(Predictor, "logits", logits)
        assert_same(lines(write_texts(tmp_path / "in.csv")), expected)
        assert len(sizes) > 5
        assert sorted(sizes)[-2] < 100 + max(map(len, sorted(TEXTS, key=len)[:-1]))

    def test_ids_and_missing_texts_are_kept(self, lines: Callable, tmp_path: Path) -> None:
        rows = [{"id": 7, "review": "good film"}, {"review": None, "id": None}, {"id": "x"}, {"review": ""}]
        found = lines(write_jsonl(tmp_path / "in.jsonl", rows), text_column_names="review")
        assert [row["id"] for row in found] == ["7", None, "x", None]
        assert [row["text"] for row in found] == ["good film", None, None, ""]
        assert found[1]["probabilities"] == found[2]["probabilities"] == found[3]["probabilities"]
        table = pa.table({"id": [1, None], "text": pa.array([None, "good"]).dictionary_encode()})
        pq.write_table(table, tmp_path / "a.parquet")
        found = lines(tmp_path / "a.parquet")
        assert [(row["id"], row["text"]) for row in found] == [("1", None), (None, "good")]

    def test_a_file_without_ids_beside_one_with_them(self, lines: Callable, tmp_path: Path) -> None:
        with_ids = write_csv(tmp_path / "a.csv", [["id", "text"], ["a", "good"]])
        without = write_csv(tmp_path / "b.csv", [["text"], ["bad"]])
        assert [row["id"] for row in lines(without, with_ids)] == [None, "a"]

    def test_pairs(self, model: Path, lines: Callable, tmp_path: Path) -> None:
        rows = [["premise", "hypothesis"], *([one, other] for one, other in zip(TEXTS, TEXTS[::-1], strict=True))]
        found = lines(write_csv(tmp_path / "in.csv", rows))
        predictions = Predictor.from_pretrained(str(model), device="cpu").predict(TEXTS, TEXTS[::-1])
        assert [(row["text"], row["text_pair"]) for row in found] == list(zip(TEXTS, TEXTS[::-1], strict=True))
        for row, prediction in zip(found, predictions, strict=True):
            assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)

    def test_options_of_a_run_that_read_text_files(self, lines: Callable, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes('"gut; schlecht";schön\nein "Film";böse\n'.encode("latin-1"))
        found = lines(path, encoding="latin-1", csv_delimiter=";", csv_quoting="minimal", csv_header="false")
        assert [row["text"] for row in found] == ["gut; schlecht", 'ein "Film"']

    def test_shared_options_are_those_of_a_run(self) -> None:
        here = get_type_hints(PredictionArguments)
        own = {f.name: f for f in fields(PredictionArguments)}
        for source, names in ((DataArguments, DATA_OPTIONS), (ModelArguments, ("model_revision",))):
            for name in names:
                (there,) = (f for f in fields(source) if f.name == name)
                assert here[name] == get_type_hints(source)[name]
                assert (own[name].default, own[name].metadata["help"]) == (there.default, there.metadata["help"])


class TestStandardStreams:
    @pytest.fixture
    def pipe(
        self, arguments: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsysbinary: Any
    ) -> Callable[..., list[str]]:
        """Runs the command with something on standard input; returns the lines of standard output."""

        def run(content: bytes, *files: object, **options: object) -> list[str]:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            assert main(arguments(*files, **options)) == 0
            return capsysbinary.readouterr().out.decode().splitlines()

        return run

    def test_lines_in_jsonl_out(self, pipe: Callable, expected: list[dict]) -> None:
        assert_same([json.loads(line) for line in pipe("\n".join(TEXTS).encode())], expected)
        windows = [json.loads(line) for line in pipe("\r\n".join([*TEXTS, ""]).encode("utf-16"), encoding="utf-16")]
        assert_same(windows, expected)

    def test_jsonl_in_csv_out(self, pipe: Callable, expected: list[dict]) -> None:
        content = "\n\n".join(json.dumps({"text": text, "id": n}) for n, text in enumerate(TEXTS)).encode()
        found = list(csv.DictReader(pipe(content, "-", stdin_format="jsonl", prediction_format="csv", chunk_rows=4)))
        assert list(found[0]) == ["id", "text", "label", "probability_bad", "probability_fair", "probability_good"]
        assert [(int(row["id"]), row["text"], row["label"]) for row in found] == [
            (number, row["text"], row["label"]) for number, row in enumerate(expected)
        ]
        assert float(found[3]["probability_fair"]) == pytest.approx(expected[3]["probabilities"]["fair"], abs=1e-5)

    @pytest.mark.parametrize("stdin_format", ["lines", "jsonl"])
    def test_nothing(self, pipe: Callable, stdin_format: str) -> None:
        assert pipe(b"", stdin_format=stdin_format) == []

    @pytest.mark.slow
    def test_one_at_a_time(self, arguments: Callable[..., list[str]]) -> None:
        """A line is answered while the next one is not there yet."""
        with command(arguments(chunk_rows=1), stdin=subprocess.PIPE) as process:
            for text in ("good film", "", "bad film"):
                process.stdin.write(f"{text}\n".encode())
                process.stdin.flush()
                assert json.loads(process.stdout.readline())["text"] == text
            process.stdin.close()
            assert process.wait(30) == 0

    @pytest.mark.slow
    def test_a_reader_that_goes_away(self, arguments: Callable[..., list[str]], tmp_path: Path) -> None:
        path = write_jsonl(tmp_path / "in.jsonl", [{"text": "good film " * 20}] * 3000)
        with command(arguments(path, chunk_rows=20)) as process:
            assert json.loads(process.stdout.readline())["label"]
            process.stdout.close()
            assert process.wait(60) == 141
            assert b"Error" not in process.stderr.read()


def command(argv: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([sys.executable, "-m", "bertcls_hf.predict", *argv], cwd=ROOT, **streams)


class TestLabels:
    def test_csv_and_top_k(self, arguments: Callable, tmp_path: Path, expected: list[dict]) -> None:
        path, out = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
        assert main(arguments(path, output_file=out, top_k=2)) == 0
        with out.open(newline="") as file:
            found = list(csv.DictReader(file))
        assert list(found[0]) == ["text", "label", "label_1", "probability_1", "label_2", "probability_2"]
        for row, other in zip(found, expected, strict=True):
            ranked = sorted(other["probabilities"].items(), key=lambda item: -item[1])
            assert [row["label_1"], row["label_2"]] == [ranked[0][0], ranked[1][0]]
            assert row["label"] == row["label_1"]
            assert float(row["probability_2"]) == pytest.approx(ranked[1][1], abs=1e-5)

    def test_a_csv_that_no_spreadsheet_takes_for_formulas(self, arguments: Callable, tmp_path: Path) -> None:
        texts = ["=1+1", "+1", "-1", "@x", "\tgood", "good = bad"]
        path, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for is_safe in (False, True):
            assert main(arguments(path, output_file=out, csv_safe=is_safe, overwrite=True)) == 0
            with out.open(newline="") as file:
                found = [row["text"] for row in csv.DictReader(file)]
            assert found == [f"'{text}" if is_safe and text != "good = bad" else text for text in texts]

    def test_top_k_in_jsonl(self, lines: Callable, tmp_path: Path, expected: list[dict]) -> None:
        for row, other in zip(lines(write_texts(tmp_path / "in.csv"), top_k=2), expected, strict=True):
            ranked = sorted(other["probabilities"], key=lambda name: -other["probabilities"][name])
            assert list(row["probabilities"]) == ranked[:2]

    def test_calibration_and_what_overrides_it(self, tiny_bert: Path, tmp_path: Path) -> None:
        thresholds = {"action": 0.99, "drama": 0.01, "funny": 0.5}
        folder = save_classifier(tmp_path / "c", tiny_bert, "multi_label", temperature=3.0, thresholds=thresholds)
        path, out = write_texts(tmp_path / "in.csv"), tmp_path / "out.jsonl"

        def run(*options: str) -> list[dict]:
            assert main([str(folder), str(path), "--output_file", str(out), "--overwrite", *options]) == 0
            return read_jsonl(out)

        calibrated, plain = run(), run("--no_calibration")
        overridden = run("--temperature", "1", "--threshold", "0.3")
        assert calibrated != plain
        for one, other, third in zip(calibrated, plain, overridden, strict=True):
            assert one["label"] == [name for name, p in one["probabilities"].items() if p > thresholds[name]]
            assert other["label"] == [name for name, p in other["probabilities"].items() if p > 0.5]
            assert third["probabilities"] == other["probabilities"]
            assert third["label"] == [name for name, p in third["probabilities"].items() if p > 0.3]

    def test_a_threshold_for_the_second_of_two(self, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path / "two", tiny_bert, "two_labels")
        path, out = write_texts(tmp_path / "in.csv"), tmp_path / "out.jsonl"
        argv = [str(folder), str(path), "--output_file", str(out), "--overwrite", "--disable_tqdm"]
        assert main(argv) == 0
        middle = sorted(row["probabilities"]["yes"] for row in read_jsonl(out))[15]
        assert main([*argv, "--threshold", str(middle)]) == 0
        found = {row["text"]: row for row in read_jsonl(out)}
        assert {row["label"] for row in found.values()} == {"yes", "no"}
        assert all(
            (row["label"] == "yes") == (row["probabilities"]["yes"] > middle)
            for row in found.values()
            if abs(row["probabilities"]["yes"] - middle) > 1e-5
        )

    def test_regression(self, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path / "r", tiny_bert, "regression")
        path, out = write_texts(tmp_path / "in.csv"), tmp_path / "out.jsonl"
        assert main([str(folder), str(path), "--output_file", str(out), "--device", "cpu"]) == 0
        expected = Predictor.from_pretrained(str(folder), device="cpu").logits(TEXTS)[:, 0]
        assert [row["label"] for row in read_jsonl(out)] == pytest.approx(expected.tolist(), abs=1e-5)
        assert list(read_jsonl(out)[0]) == ["text", "label"]


class TestRefused:
    @pytest.fixture
    def refused(self, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], int, str], None]:
        def check(argv: list[str], code: int, message: str) -> None:
            assert main(argv) == code
            assert message in capsys.readouterr().err.splitlines()[-1]

        return check

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"top_k": 0}, "--top_k 0: must be 1 or more"),
            ({"chunk_rows": 0}, "--chunk_rows 0"),
            ({"tokens_per_batch": -1}, "--tokens_per_batch -1"),
            ({"temperature": 0}, "--temperature 0.0: must be above 0"),
            ({"threshold": 1.5}, "--threshold 1.5: must lie in [0, 1)"),
            ({"threshold": 0.5}, "--threshold: for two labels or a multi-label model, but there are 3 labels"),
            ({"no_such": 1}, "unknown option --no_such (--help lists all options)"),
            ({"temprature": 1}, "unknown option --temprature; did you mean --temperature?"),
            ({"dtype": "int4"}, "--dtype: invalid choice"),
            ({"dtype": "int8"}, "dtype int8 is for exported graphs"),
            ({"output_file": "a.parquet"}, "--output_file a.parquet: neither .jsonl nor .csv"),
            ({"text_column_names": "a,b,c"}, "--text_column_names takes one column or two"),
            ({"encoding": "utf-99"}, "--encoding utf-99"),
            ({"max_seq_length": 65}, "max_seq_length 65"),
            ({"output_file": "/dev/null", "prediction_format": "csv"}, "--output_file /dev/null: not a file"),
        ],
    )
    def test_options(
        self, refused: Callable, arguments: Callable, tmp_path: Path, options: dict, message: str
    ) -> None:
        refused(arguments(write_texts(tmp_path / "in.csv"), **options), ExitCode.BAD_ARGUMENTS, message)

    def test_a_damaged_tokenizer(self, refused: Callable, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path / "damaged", tiny_bert, "custom")
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        del settings["pad_token"]
        path.write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"}))
        argv = [str(folder), str(write_texts(tmp_path / "in.csv"))]
        refused(argv, ExitCode.BAD_ARGUMENTS, "damaged: its configuration or tokenizer is damaged")

    def test_tasks_without_probabilities(self, refused: Callable, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path / "r", tiny_bert, "regression")
        argv = [str(folder), str(write_texts(tmp_path / "in.csv"))]
        for option in ("--temperature", "--top_k"):
            refused([*argv, option, "2"], ExitCode.BAD_ARGUMENTS, f"{option}: the model is a regression")

    def test_no_model_or_file(self, refused: Callable, arguments: Callable, tmp_path: Path) -> None:
        refused([], ExitCode.BAD_ARGUMENTS, "MODEL")
        refused(["model", "--top_k", "1", "in.csv"], ExitCode.BAD_ARGUMENTS, "files come before the options")
        refused([str(tmp_path / "nowhere"), str(write_texts(tmp_path / "in.csv"))], ExitCode.BAD_ARGUMENTS, "nowhere")
        refused(arguments(tmp_path / "no.csv"), ExitCode.BAD_DATA, "no.csv: no such file")
        refused(arguments(tmp_path), ExitCode.BAD_DATA, "a folder; name its files")
        refused(arguments("-", "-"), ExitCode.BAD_ARGUMENTS, "can be read only once")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", b"text,label\ngood,1\nbad film, indeed,1\n", "a.csv, line 3: 3 fields where 2"),
            ("a.csv", b"text\ngood\nsch\xf6n\n", "a.csv, line 3: byte 0xf6"),
            ("a.csv", b"", "a.csv: the file is empty"),
            ("a.csv", b"number,label\ngood,1\n", "no text column: "),
            ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', "a.jsonl, row 2: 'text' holds a whole number"),
            ("a.jsonl", b'{"text": "a"}\n{"text"\n', "a.jsonl, line 2: not valid JSON"),
            ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl, row 1: 'text' holds a half of a surrogate pair"),
            ("a.parquet", b"PAR1 not really", "a.parquet: a broken parquet file"),
            ("a.docx", b"", "a.docx: unknown format '.docx'"),
        ],
    )
    def test_bad_files(
        self, refused: Callable, arguments: Callable, tmp_path: Path, name: str, content: bytes, message: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        refused(arguments(tmp_path / name), ExitCode.BAD_DATA, message)

    def test_a_parquet_column_of_numbers(self, refused: Callable, arguments: Callable, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
        refused(arguments(tmp_path / "a.parquet"), ExitCode.BAD_DATA, "'text' holds int64, not strings")

    def test_pairs_beside_single_texts(self, refused: Callable, arguments: Callable, tmp_path: Path) -> None:
        pairs = write_csv(tmp_path / "pairs.csv", [["sentence1", "sentence2"], ["a", "b"]])
        single = write_texts(tmp_path / "in.csv")
        refused(arguments(single, pairs), ExitCode.BAD_DATA, "pairs.csv has 2 text column(s)")

    @pytest.mark.parametrize(
        ("content", "options", "message"),
        [
            (b"good\nsch\xf6n\n", {}, "standard input, after line"),
            (b'{"text": "a"}\n[1]\n', {"stdin_format": "jsonl"}, "standard input, line 2: expected an object"),
            (b'{"a": "a"}\n', {"stdin_format": "jsonl"}, "no text column: standard input has the columns 'a'"),
        ],
    )
    def test_bad_pipes(
        self,
        refused: Callable,
        arguments: Callable,
        monkeypatch: pytest.MonkeyPatch,
        content: bytes,
        options: dict,
        message: str,
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        refused(arguments(**options), ExitCode.BAD_DATA, message)

    def test_outputs_that_are_not_finite(self, refused: Callable, tiny_bert: Path, tmp_path: Path) -> None:
        folder = save_classifier(tmp_path / "m", tiny_bert, "stock", temperature=1.0)
        model = Predictor.from_pretrained(str(folder), device="cpu").model
        model.classifier.bias.data[0] = float("inf")
        model.save_pretrained(folder)
        argv = [str(folder), str(write_texts(tmp_path / "in.csv"))]
        refused(argv, ExitCode.DIVERGED, "the model's outputs are not finite")


class TestOutputFile:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_texts(tmp_path / "in.jsonl")

    @pytest.fixture
    def whole(self, arguments: Callable, source: Path, tmp_path: Path) -> bytes:
        """The output of a command that was not interrupted."""
        path = tmp_path / "whole.csv"
        assert main(arguments(source, output_file=path, chunk_rows=8)) == 0
        return path.read_bytes()

    @pytest.fixture
    def stopped(
        self, arguments: Callable, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., list[str]]:
        """Stops a command in its third chunk; returns a function that gives the same arguments, or changed ones."""

        def argv(*files: Path, **options: object) -> list[str]:
            return arguments(*(files or [source]), **{"output_file": tmp_path / "out.csv", "chunk_rows": 8, **options})

        original, calls = Predictor.logits, []

        def logits(predictor: Predictor, texts: Sequence[str], *args: Any) -> Any:
            # A model is first tried out with one text.
            calls.extend([None] if len(texts) > 1 else [])
            if len(calls) == 3:
                raise KeyboardInterrupt
            return original(predictor, texts, *args)

        with monkeypatch.context() as patched:
            patched.setattr(Predictor, "logits", logits)
            assert main(argv()) == ExitCode.INTERRUPTED
        assert not (tmp_path / "out.csv").exists()
        assert len((tmp_path / "out.csv.partial").read_bytes().splitlines()) == 17
        return argv

    def test_it_is_replaced_only_when_asked(
        self, arguments: Callable, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "out.jsonl"
        path.write_text("precious")
        assert main(arguments(source, output_file=path)) == ExitCode.BAD_ARGUMENTS
        assert "it exists; --overwrite replaces it" in capsys.readouterr().err
        assert path.read_text() == "precious"
        assert main(arguments(source, output_file=path, overwrite=True)) == 0
        assert len(read_jsonl(path)) == len(TEXTS)
        assert main(arguments(source, output_file=source, overwrite=True)) == ExitCode.BAD_ARGUMENTS
        assert main(arguments(source, output_file=tmp_path / "no" / "out.csv")) == ExitCode.STORAGE
        assert {p.name for p in tmp_path.iterdir()} == {"model", "in.jsonl", "out.jsonl"}

    @pytest.mark.parametrize("tail", [b"", b"half a line", b"a,whole,chunk\r\n" * 8], ids=["", "half", "more"])
    def test_the_same_command_goes_on(
        self, stopped: Callable, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: bytes
    ) -> None:
        with (tmp_path / "out.csv.partial").open("ab") as file:
            file.write(tail)
        read: list[int] = []
        original = Predictor.logits
        monkeypatch.setattr(
            Predictor, "logits", lambda self, texts, *rest: (read.append(len(texts)), original(self, texts, *rest))[1]
        )
        assert main(stopped()) == 0
        assert read == [1, 8, 6]  # a model is first tried out with one text
        assert (tmp_path / "out.csv").read_bytes() == whole
        assert not list(tmp_path.glob("out.csv.*"))

    @pytest.fixture
    def nearly_done(
        self, stopped: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., list[str]]:
        """Goes on with the stopped command and stops it before its last step."""

        def interrupt(output: OutputFile) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(OutputFile, "finish", interrupt)
            assert main(stopped()) == ExitCode.INTERRUPTED
        return stopped

    def test_a_command_that_was_killed_before_its_last_step(
        self, nearly_done: Callable, whole: bytes, tmp_path: Path
    ) -> None:
        assert main(nearly_done()) == 0
        assert (tmp_path / "out.csv").read_bytes() == whole

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": 2.0}, "temperature was 1.0, is 2.0"),
            ({"chunk_rows": 9}, "chunk_rows was 8, is 9"),
            ({"tokens_per_batch": 64}, "tokens_per_batch was 2048, is 64"),
            ({"max_seq_length": 9}, "max_seq_length was 64, is 9"),
            ({"prediction_format": "jsonl"}, "prediction_format was csv, is jsonl"),
            ({"top_k": 1}, "top_k was None, is 1"),
        ],
    )
    def test_other_options_are_refused(
        self, stopped: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict, message: str
    ) -> None:
        before = (tmp_path / "out.csv.partial").read_bytes()
        assert main(stopped(**options)) == ExitCode.BAD_ARGUMENTS
        error = capsys.readouterr().err
        assert "cannot go on with" in error
        assert message in error
        assert (tmp_path / "out.csv.partial").read_bytes() == before

    def test_another_model_or_other_texts_are_refused(
        self,
        stopped: Callable,
        whole: bytes,
        tiny_bert: Path,
        source: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        rows = read_jsonl(source)
        for changed in ([{"text": "other"}, *rows[1:]], rows[:10], rows[1:]):
            write_jsonl(source, changed)
            assert main(stopped()) == ExitCode.BAD_ARGUMENTS
            assert "the first 16 texts are not those that it was made of" in capsys.readouterr().err
        # What comes later is free to change, and so are the files' names and formats.
        pq.write_table(pa.table({"text": TEXTS}), tmp_path / "moved.parquet")
        weights = (tmp_path / "model" / "model.safetensors").read_bytes()
        save_classifier(tmp_path / "model", tiny_bert, "custom", seed=5)
        assert main(stopped(tmp_path / "moved.parquet")) == ExitCode.BAD_ARGUMENTS
        assert "it is of another command: model was" in capsys.readouterr().err
        (tmp_path / "model" / "model.safetensors").write_bytes(weights)
        assert main(stopped(tmp_path / "moved.parquet")) == 0
        assert (tmp_path / "out.csv").read_bytes() == whole

    def test_texts_that_grew_after_the_last_one_are_refused(
        self, nearly_done: Callable, source: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_jsonl(source, [*read_jsonl(source), {"text": "one more"}])
        assert main(nearly_done()) == ExitCode.BAD_ARGUMENTS
        assert "there are more texts than the 30 that there were" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "content",
        ["", "{}", '{"settings": {}, "progress": {"row": 1}}', "[]",
         '{"settings": {}, "progress": {"rows": null, "size": 28}, "content": ""}',
         '{"settings": {}, "progress": {"rows": 1, "size": -1}, "content": ""}'],
    )  # fmt: skip
    def test_a_damaged_state(
        self, stopped: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
    ) -> None:
        (tmp_path / "out.csv.partial.json").write_text(content)
        assert main(stopped()) == ExitCode.BAD_ARGUMENTS
        assert "out.csv.partial.json is damaged; remove it to begin anew" in capsys.readouterr().err

    def test_a_shortened_or_removed_output(
        self, stopped: Callable, whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        partial = tmp_path / "out.csv.partial"
        partial.write_bytes(partial.read_bytes()[:-1])
        assert main(stopped()) == ExitCode.BAD_ARGUMENTS
        assert "it is shorter than it was" in capsys.readouterr().err
        partial.write_bytes(bytes(len(whole)))
        assert main(stopped()) == ExitCode.BAD_ARGUMENTS
        assert "its content is not what was written" in capsys.readouterr().err
        partial.unlink()
        assert main(stopped()) == 0
        assert (tmp_path / "out.csv").read_bytes() == whole

    def test_a_bad_row_costs_none_before_it(
        self, arguments: Callable, source: Path, whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        good = source.read_text().splitlines(keepends=True)
        source.write_text("".join([*good[:20], '{"text": 5}\n', *good[21:]]))
        argv = arguments(source, output_file=tmp_path / "out.csv", chunk_rows=8)
        assert main(argv) == ExitCode.BAD_DATA
        assert "in.jsonl, row 21: 'text' holds a whole number" in capsys.readouterr().err
        source.write_text("".join(good))
        assert main(argv) == 0
        assert (tmp_path / "out.csv").read_bytes() == whole

    def test_two_commands_at_once(
        self, arguments: Callable, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        argv = arguments(source, output_file=tmp_path / "out.csv")
        original, codes = Predictor.logits, []

        def logits(predictor: Predictor, texts: Sequence[str], *args: Any) -> Any:
            if not codes and len(texts) > 1:
                codes.append(None)
                codes.append(main(argv))
            return original(predictor, texts, *args)

        monkeypatch.setattr(Predictor, "logits", logits)
        assert main(argv) == 0
        assert codes[1] == ExitCode.BAD_ARGUMENTS
        assert "another command is writing it" in capsys.readouterr().err
        assert len((tmp_path / "out.csv").read_bytes().splitlines()) == 31

    def test_a_full_disk(self, arguments: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = write_jsonl(tmp_path / "many.jsonl", [{"text": text} for text in texts(600)])
        assert main(arguments(source, output_file=tmp_path / "whole.csv", chunk_rows=100)) == 0
        with small_disk(tmp_path, 32) as disk:
            argv = arguments(source, output_file=disk / "out.csv", chunk_rows=100)
            assert main(argv) == ExitCode.STORAGE
            assert "no space left for" in capsys.readouterr().err
            assert not (disk / "out.csv").exists()
            state = json.loads((disk / "out.csv.partial.json").read_text())
            assert 0 < state["progress"]["rows"] < 600
            subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
            assert main(argv) == 0
            assert (disk / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()

    def test_standard_output_on_a_full_disk(
        self, arguments: Callable, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with open("/dev/full", "w") as full, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full)
            assert main(arguments(source)) == ExitCode.STORAGE
            with contextlib.suppress(OSError):
                full.close()
        assert "no space left for standard output" in capsys.readouterr().err

    @pytest.mark.slow
    def test_killed_again_and_again(self, arguments: Callable, tmp_path: Path) -> None:
        source = write_jsonl(tmp_path / "many.jsonl", [{"id": n, "text": text} for n, text in enumerate(texts(3000))])
        whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
        assert main(arguments(source, output_file=whole, chunk_rows=200)) == 0
        state = tmp_path / "out.jsonl.partial.json"
        seen = [0]
        while not out.exists():
            argv = arguments(source, output_file=out, chunk_rows=200)
            run = EntryScript(argv, module="bertcls_hf.predict.__main__")
            for rows in reached(state, run):
                if rows >= seen[-1] + 800:
                    run.kill()
                    seen.append(rows)
                    break
            assert run.wait(60) in (0, -signal.SIGKILL)
        assert len(seen) >= 3
        assert out.read_bytes() == whole.read_bytes()


def reached(state: Path, run: EntryScript) -> Iterator[int]:
    """The rows that a running command has written, again and again."""
    while run.process.is_alive():
        if state.exists():
            yield json.loads(state.read_text())["progress"]["rows"]
        time.sleep(0.002)


@pytest.mark.night
def test_memory_does_not_grow_with_the_rows(arguments: Callable, tmp_path: Path) -> None:
    peaks = []
    for rows in (6_000, 40_000):
        source = tmp_path / f"{rows}.csv"
        write_csv(source, [["text"], *([f"good film {number} " * (number % 5)] for number in range(rows))])
        argv = arguments(source, output_file=tmp_path / f"{rows}.jsonl", chunk_rows=2048)
        process = command(argv)
        _, status, usage = os.wait4(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        process.returncode = 0
        with process:
            pass
        peaks.append(usage.ru_maxrss / 1024)
        with (tmp_path / f"{rows}.jsonl").open() as file:
            assert sum(1 for _ in file) == rows
    assert peaks[1] - peaks[0] < 20, peaks
