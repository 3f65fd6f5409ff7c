"""Whatever is in a file, a command reads it, or ends with one sentence that names it.

`make test` tries a few hundred files, the same ones each time; `make fuzz` tries ten thousand others.
"""

import functools
import gzip
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.config.parsing import build_arguments, explicit_options
from bertcls_hf.data.file_formats import READERS
from bertcls_hf.data.load import load_data
from bertcls_hf.errors import ExitCode, RunError
from bertcls_hf.predict.input import open_sources, read_rows
from bertcls_hf.predict.output import OutputFile, Progress
from bertcls_hf.run import main as train
from bertcls_hf.run.command import main as bertcls
from bertcls_hf.training.adaptation import read_adaptation
from bertcls_hf.training.checkpoints import checkpoint_problem
from bertcls_hf.training.cross_validation import read_cross_validation
from bertcls_hf.training.few_shot import read_choice
from bertcls_hf.training.seed_runs import read_seeds
from bertcls_hf.training.self_training import read_self_training
from tests.data.test_annotation_exports import ROWS, label_studio
from tests.data.test_file_formats import write_table
from tests.helpers.broken_content import broken_bytes, broken_json
from tests.helpers.feature_runs import make_extractor, texts_of, tokenized
from tests.helpers.long_texts import write_texts


pytestmark = pytest.mark.slow

TABLE = [{"text": f"a text of {number}", "label": "pos" if number % 3 else "neg"} for number in range(12)]
DATA_FILES = [*READERS, ".csv.gz", ".label-studio.json", ".label-studio.jsonl"]


def broken(content: bytes, is_json: bool = False) -> st.SearchStrategy[bytes]:
    return st.one_of(broken_json(content), broken_bytes(content)) if is_json else broken_bytes(content)


@functools.cache
def data_file(suffix: str) -> bytes:
    """A file of the format; the same bytes each time, where a workbook has its time of writing."""
    with tempfile.TemporaryDirectory() as folder:
        return write_data(Path(folder), suffix)


def write_data(folder: Path, suffix: str) -> bytes:
    path = folder / f"whole{suffix}"
    if suffix == ".csv.gz":
        path.write_bytes(gzip.compress(write_table(folder / "plain.csv", TABLE).read_bytes(), mtime=0))
    elif "label-studio" in suffix:
        records = [label_studio(*row) for row in ROWS]
        lines = "\n".join(map(json.dumps, records)) + "\n"
        path.write_text(json.dumps(records) if suffix.endswith("json") else lines)
    else:
        write_table(path, TABLE)
    return path.read_bytes()


def assert_read_or_refused(read: Callable[[], Any], name: str = "") -> None:
    """Either it is read, or an error says in one line what is wrong with it, and names the file."""
    said = None
    try:
        read()
    except RunError as error:
        said = str(error)
    assert said is None or ("\n" not in said and name in said)


@pytest.mark.parametrize("suffix", DATA_FILES)
@given(st.data())
def test_data(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("data", numbered=True)
    path = folder / f"broken{suffix}"
    path.write_bytes(data.draw(broken(data_file(suffix), suffix.endswith(".json"))))
    arguments = DataArguments(train_file=str(path), validation_split_percentage=0)
    assert_read_or_refused(lambda: load_data(arguments, None, trains=True, predicts=False), path.name)
    rows = lambda: list(read_rows(open_sources([str(path)], arguments, "lines", io.BytesIO())))  # noqa: E731
    assert_read_or_refused(rows, path.name)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def runs(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a model with a calibration and a cascade, half a prediction, and a cache."""
    root = tmp_path_factory.mktemp("runs")
    rows = {"train": 40, "validation": 200, "test": 12}
    files = {
        f"{name}_file": write_texts(root / f"{name}.csv", number, seed, pairs=False)
        for seed, (name, number) in enumerate(rows.items())
    }
    for seed in (1, 2):
        options = {
            "model_name_or_path": tiny_bert, **files, "output_dir": root / f"out{seed}", "lexical_features": True,
            "max_seq_length": 24, "num_train_epochs": 1, "calibrate": True, "seed": seed, "disable_tqdm": True,
            "use_cpu": True, "seeds": 1,
        }  # fmt: skip
        assert train([f"--{name}={value}" for name, value in options.items()]) == 0
    assert bertcls(["cascade", str(root / "out1"), "--max_difference", "0.3"]) == 0
    (root / "part.csv").write_text("text\n" + "a text\n" * 9)
    extractor = make_extractor(tiny_bert, root / "features")
    extractor.features("train", tokenized(tiny_bert, texts_of(20)))
    return root


@dataclass(frozen=True)
class Kept:
    """A file that a command reads back.

    Args:
        name: its path below the runs.
        words: the command; `ROOT` stands for the folder of the runs.
    """

    name: str
    words: tuple[str, ...]


PREDICT = ("predict", "ROOT/out1", "ROOT/part.csv", "--device", "cpu", "--disable_tqdm")
COMPARE = ("compare", "ROOT/out1", "ROOT/out2", "--output_dir", "ROOT/compared")
KEPT = [
    *(
        Kept(f"out1/{name}", PREDICT)
        for name in (
            "calibration.json", "cascade.json", "config.json", "tokenizer.json", "tokenizer_config.json",
            "model.safetensors",
        )
    ),
    *(
        Kept(f"out1/{name}", COMPARE)
        for name in ("test_outputs.npz", "eval_outputs.npz", "all_results.json", "train_results.json", "recipe.yaml")
    ),
    Kept("out1/manifest.json", ("verify", "ROOT/out1")),
    Kept("out1/recipe.yaml", ("cascade", "ROOT/out1", "--max_difference", "0.5")),
]  # fmt: skip


def run_quietly(words: list[str]) -> tuple[int, str]:
    said = io.StringIO()
    with redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")), redirect_stderr(said):
        try:
            return bertcls(words), said.getvalue()
        except SystemExit as stopped:  # of an argument parser
            return int(stopped.code or 0), said.getvalue()


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: f"{kept.words[0]} {kept.name}")
@given(st.data())
def test_what_a_command_reads_back(runs: Path, kept: Kept, data: st.DataObject) -> None:
    path = runs / kept.name
    content = path.read_bytes()
    path.write_bytes(data.draw(broken(content, path.suffix == ".json")))
    others = {name: (runs / "out1" / name).read_bytes() for name in ("README.md", "cascade.json", "manifest.json")}
    try:
        code, said = run_quietly([word.replace("ROOT", str(runs)) for word in kept.words])
    finally:
        for name, whole in others.items():
            (runs / "out1" / name).write_bytes(whole)
        path.write_bytes(content)
    assert code in set(ExitCode) - {ExitCode.UNFORESEEN}, said
    assert "Traceback" not in said


@given(st.data())
def test_a_recipe(runs: Path, data: st.DataObject) -> None:
    path = runs / "broken.yaml"
    path.write_bytes(data.draw(broken((runs / "out1" / "recipe.yaml").read_bytes())))
    # An error may also name the option whose value is wrong.
    assert_read_or_refused(lambda: build_arguments(explicit_options([str(path)])))


def stop(output: OutputFile) -> None:
    """Lets go of the file and of its lock, as the end of a process does."""
    output._file.close()
    output._lock.release()


@pytest.mark.parametrize("name", ["lines.jsonl.partial", "lines.jsonl.partial.json"])
@given(st.data())
def test_half_a_prediction(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("half", numbered=True)
    output, settings = folder / "lines.jsonl", {"model": "a", "top_k": None}
    whole = b'{"text": "a"}\n{"text": "b"}\n'
    begun = OutputFile(output, settings)
    begun.write(whole, Progress(2, len(whole), "", True))
    stop(begun)
    path = folder / name
    path.write_bytes(data.draw(broken(path.read_bytes(), name.endswith(".json"))))

    def go_on() -> None:
        again = OutputFile(output, settings)
        written, rows = again.partial.read_bytes(), again.progress.rows
        stop(again)
        assert (written, rows) in ((whole, 2), (b"", 0))

    assert_read_or_refused(go_on, output.name)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["manifest.json", "trainer_state.json", "model.safetensors", "optimizer.pt"])
@given(st.data())
def test_a_checkpoint_that_differs_is_noticed(runs: Path, name: str, data: st.DataObject) -> None:
    checkpoint = next((runs / "out1").glob("checkpoint-*"))
    path = checkpoint / name
    content = path.read_bytes()
    changed = data.draw(broken(content, name.endswith(".json")))
    path.write_bytes(changed)
    try:
        problem = checkpoint_problem(checkpoint, world_size=1)
    finally:
        path.write_bytes(content)
    is_same = changed == content or (name == "manifest.json" and _is_same_json(changed, content))
    assert (problem is None) == is_same, problem


def _is_same_json(first: bytes, second: bytes) -> bool:
    try:
        return json.dumps(json.loads(first), sort_keys=True) == json.dumps(json.loads(second), sort_keys=True)
    except (ValueError, RecursionError):
        return False


SUMMARIES: dict[str, Callable[[Path], object]] = {
    "seeds.json": read_seeds, "cross_validation.json": read_cross_validation, "adaptation.json": read_adaptation,
    "few_shot.json": read_choice, "self_training.json": read_self_training,
}  # fmt: skip


@pytest.mark.parametrize("name", SUMMARIES)
@given(st.data())
def test_a_summary_is_read_or_is_none(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("summary", numbered=True)
    content = {"key": "a", "texts": 4, "extra_texts": 0, "epochs": 3.0, "eval": {"accuracy": {"mean": 0.5}}}
    if name == "few_shot.json":
        content = {"key": "a", "rows": 9, "tunings": 1, "steps": 1}
        content |= {"candidates": [{"is_tuned": True, "has_ngrams": False}]}
    if name == "self_training.json":
        content = {"labelled": 1, "texts": 2, "rounds": 1, "agreement": [0.5], "shares": {"a": 1.0}}
    (folder / name).write_bytes(data.draw(broken(json.dumps(content).encode(), is_json=True)))
    for read in SUMMARIES.values():
        found = read(folder)
        assert found is None or found
    shutil.rmtree(folder)


@pytest.mark.parametrize("pattern", ["*/meta.json", "*/*.arrow"])
@given(st.data())
def test_a_cache_of_features(runs: Path, pattern: str, data: st.DataObject) -> None:
    path = next(itertools.chain((runs / "features").glob(pattern)))
    content = path.read_bytes()
    path.write_bytes(data.draw(broken(content, path.suffix == ".json")))
    try:
        for command in ("list", "verify"):
            code, said = run_quietly(["features", command, "--boost_cache_dir", str(runs / "features")])
            assert code in (0, 1), said
    finally:
        path.write_bytes(content)
