"""Streams: each row once per pass, exact resume, shares of ranks, and errors that name the row."""

import itertools
import json
import shutil
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from transformers import AutoTokenizer

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data.load import load_data
from bertcls_hf.data.stream_order import StreamOrder, StreamPosition, stream_parts
from bertcls_hf.data.streaming import TokenStream
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.run import main
from bertcls_hf.training.checkpoints import checkpoint_problem
from tests.helpers.reviews import review, write_reviews
from tests.helpers.training_runs import SAVES, assert_identical_run


ROWS_OF_FILES = (33, 40, 27, 40, 8)
ALL_ROWS = sum(ROWS_OF_FILES)


def write_parquet(path: Path, rows: list[tuple[str, Any]]) -> None:
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows], "n": [0] * len(rows)})
    pq.write_table(table, path, row_group_size=10)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of five parquet files of 148 reviews, sorted by label as files often are."""
    folder = tmp_path / "parts"
    folder.mkdir()
    rows = sorted((review(index) for index in range(ALL_ROWS)), key=lambda row: row[1])
    for number, size in enumerate(ROWS_OF_FILES):
        write_parquet(folder / f"part-{number}.parquet", rows[:size])
        rows = rows[size:]
    return folder


def stream_of(files: Path | str, validation: Path, tokenize: Any = None, **options: Any) -> TokenStream:
    args = DataArguments(train_file=str(files), validation_file=str(validation), streaming=True, **options)
    texts = load_data(args, None, trains=True, predicts=False).splits["train"]

    def letters(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        lengths = [len(text) for text in columns["text"]]
        return {"input_ids": columns["text"], "length": lengths, "labels": columns["label"]}

    return TokenStream(texts, tokenize or letters)


def take(stream: TokenStream, rows: int) -> list[str]:
    """The texts of the next rows, without those that are passed over."""
    iterator = iter(stream)
    taken = [next(iterator) for _ in range(rows)]
    return [row["input_ids"] for row in taken if row is not None]


def order(parts: int = 1, strategy: str = "random", seed: int = 0, rows: int = 20, step_rows: int = 12) -> StreamOrder:
    return StreamOrder(seed, step_rows, parts, strategy, rows)


def shared(stream: TokenStream, order: StreamOrder, rank: int = 0, ranks: int = 1) -> TokenStream:
    stream.order, stream.rank, stream.ranks = order, rank, ranks
    return stream


@pytest.mark.parametrize("strategy", ["group_by_length", "random", "sequential"])
@pytest.mark.parametrize("parts_", [1, 3, 4])
def test_steps_do_not_depend_on_the_number_of_processes(
    parts: Path, reviews: dict[str, Path], parts_: int, strategy: str
) -> None:
    def steps(ranks: int, count: int) -> list[list[str]]:
        streams = [shared(stream_of(parts, reviews["validation"]), order(parts_, strategy), rank, ranks)
                   for rank in range(ranks)]  # fmt: skip
        rows = [take(stream, count * 12 // ranks) for stream in streams]
        size = 12 // ranks
        return [[text for taken in rows for text in taken[step * size : (step + 1) * size]] for step in range(count)]

    one = steps(1, 26)
    assert all(len(set(step)) > 6 for step in one)
    for ranks in (2, 3, 12):
        assert steps(ranks, 26) == one


def test_every_row_comes_once_in_a_pass(parts: Path, reviews: dict[str, Path]) -> None:
    for strategy in ("group_by_length", "random", "sequential"):
        stream = shared(stream_of(parts, reviews["validation"]), order(strategy=strategy))
        assert set(Counter(take(stream, 2 * ALL_ROWS)).values()) == {2}
    # Parts of unequal size begin anew one by one, and none of their rows is passed over for another.
    counts = Counter(take(shared(stream_of(parts, reviews["validation"]), order(parts=4)), 40 * 12))
    assert set(counts) == {review(index)[0] for index in range(ALL_ROWS)}
    for number in range(4):
        own = [text for file in range(number, 5, 4) for text in texts_of_file(parts, file)]
        assert max(counts[text] for text in own) - min(counts[text] for text in own) == 1


def texts_of_file(parts: Path, number: int) -> list[str]:
    return pq.read_table(parts / f"part-{number}.parquet").column("text").to_pylist()


def test_a_process_reads_and_tokenizes_its_own_part(parts: Path, reviews: dict[str, Path]) -> None:
    seen: dict[int, set[str]] = {0: set(), 1: set()}
    for rank in (0, 1):

        def remember(columns: dict[str, list[Any]], rank: int = rank) -> dict[str, list[Any]]:
            seen[rank].update(columns["text"])
            return {"input_ids": columns["text"], "length": list(map(len, columns["text"]))}

        take(shared(stream_of(parts, reviews["validation"], remember), order(parts=4), rank, 2), 240)
    assert seen[0] & seen[1] == set()
    assert len(seen[0] | seen[1]) == ALL_ROWS


def test_the_number_of_parts() -> None:
    """It hangs on the files and the rows of a step alone, and each part has rows enough to sort them by length."""
    cases = {(1, 64): 1, (8, 32): 1, (8, 64): 2, (8, 1024): 8, (7, 1024): 4, (1000, 512 * 32): 512, (5, 7): 1}
    assert {case: stream_parts(*case, "random") for case in cases} == cases
    assert stream_parts(8, 1024, "sequential") == 1


def test_the_order_mixes_files_and_changes_with_pass_and_seed(parts: Path, reviews: dict[str, Path]) -> None:
    stream = shared(stream_of(parts, reviews["validation"]), order(rows=40))
    both = take(stream, 2 * ALL_ROWS)
    first, second = both[: len(both) // 2], both[len(both) // 2 :]
    assert sorted(first) == sorted(second)
    assert first != second
    # The files are sorted by label; every stretch holds both.
    labels = {review(index)[0]: review(index)[1] for index in range(ALL_ROWS)}
    for start in range(0, 120, 40):
        assert {labels[text] for text in first[start : start + 40]} == {"neg", "pos"}
    other = shared(stream_of(parts, reviews["validation"]), order(rows=40, seed=1))
    assert take(other, len(first)) != first


def test_rows_of_like_length_come_together(parts: Path, reviews: dict[str, Path]) -> None:
    def spread(strategy: str) -> int:
        stream = shared(stream_of(parts, reviews["validation"]), order(strategy=strategy, rows=80, step_rows=4))
        lengths = [len(text) for text in take(stream, 80)]
        return sum(max(lengths[start : start + 4]) - min(lengths[start : start + 4]) for start in range(0, 80, 4))

    assert spread("group_by_length") < spread("random") / 3


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
@pytest.mark.parametrize(("saved_by", "resumed_by"), [(1, 1), (1, 4), (4, 1), (2, 3)])
@pytest.mark.parametrize("steps", [0, 1, 12, 37])
def test_a_stream_goes_on_where_it_was(
    parts: Path, reviews: dict[str, Path], tmp_path: Path, steps: int, saved_by: int, resumed_by: int, strategy: str
) -> None:
    the_order = order(parts=3, strategy=strategy)
    for rank in range(saved_by):
        stream = shared(stream_of(parts, reviews["validation"]), the_order, rank, saved_by)
        take(stream, steps * 12 // saved_by)
        if steps == 0:
            next(iter(stream))
        stream.position.write(tmp_path, rank)
    position = StreamPosition.read(tmp_path)
    assert position.is_whole
    assert (position.steps, position.ranks) == (steps, saved_by)
    for rank in range(resumed_by):
        whole, resumed = (shared(stream_of(parts, reviews["validation"]), the_order, rank, resumed_by)
                          for _ in range(2))  # fmt: skip
        before, after = steps * 12 // resumed_by, 15 * 12 // resumed_by
        resumed.go_to(position)
        iterator = iter(resumed)
        assert [next(iterator) for _ in range(before)] == [None] * before
        assert [next(iterator)["input_ids"] for _ in range(after)] == take(whole, before + after)[before:]
        assert resumed.position == whole.position


def test_a_position_of_another_order_is_refused(parts: Path, reviews: dict[str, Path]) -> None:
    stream = shared(stream_of(parts, reviews["validation"]), order(seed=1))
    with pytest.raises(ArgumentsError, match="seed was 0, is 1"):
        stream.go_to(StreamPosition(order(seed=0), 1, 1, {}))


STREAMED = {"streaming": True, "num_train_epochs": None, "max_steps": 12, "shuffle_buffer_size": 20}


def test_a_streamed_training_saves_a_model_and_resumes_exactly(
    command: Callable[..., list[str]], parts: Path, tmp_path: Path
) -> None:
    options = {**SAVES, **STREAMED, "train_file": parts, "do_predict": True, "do_train": True,
               "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(command(**options, output_dir=whole)) == 0
    shutil.copytree(whole, cut)
    for folder in cut.glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > 6:
            shutil.rmtree(folder)
    # A checkpoint without its position, or with that of another step, is not complete.
    position = cut / "checkpoint-6" / "stream_position.json"
    assert checkpoint_problem(position.parent, 1, is_stream=True) is None
    position.write_text(json.dumps({**json.loads(position.read_text()), "steps": 5}))
    assert checkpoint_problem(position.parent, 1, is_stream=True) == "the position in the stream is of step 5"
    (cut / "checkpoint-6" / "stream_position.json").write_text("{")
    assert main(command(**options, output_dir=cut, resume_from_checkpoint="auto")) == 0
    assert (cut / "_incomplete-checkpoint-6").is_dir()
    assert_identical_run(whole, cut)
    assert "train_samples" not in json.loads((cut / "train_results.json").read_text())
    assert len((cut / "predictions.jsonl").read_text().splitlines()) == 17


def test_another_batch_size_cannot_go_on(
    command: Callable[..., list[str]], parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SAVES, **STREAMED, "train_file": parts, "train_sampling_strategy": "random"}
    assert main(command(**{**options, "max_steps": 2})) == 0
    resumed = {**options, "resume_from_checkpoint": "auto", "shuffle_buffer_size": 30}
    assert main(command(**resumed)) == 2
    assert "buffer_rows was 20, is 30" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_files_are_streamed_as_they_are_loaded(
    command: Callable[..., list[str]], tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(3):
        rows = [review(number * 16 + index) for index in range(16)]
        if suffix == "csv":
            write_reviews(folder / f"{number}.csv", 16, start=number * 16)
        else:
            lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
            (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    assert main(command(**STREAMED, train_file=f"{folder}/*.{suffix}")) == 0
    assert json.loads((tmp_path / "out" / "test_results.json").read_text())["test_samples"] == 17


def test_a_dataset_with_class_names_needs_no_validation_data(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Read from a local folder, as one on the Hub is."""
    labels = ClassLabel(names=["pos", "neg"])
    features = Features({"text": Value("string"), "label": labels})
    splits = {
        split: Dataset.from_dict(
            {"text": [review(i)[0] for i in rows], "label": [labels.str2int(review(i)[1]) for i in rows]}, features
        )
        for split, rows in {"train": range(48), "test": range(100, 117)}.items()
    }
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split, dataset in splits.items():
        dataset.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    files = {"train_file": None, "validation_file": None, "test_file": None, "dataset_name": folder}
    assert main(command(**files, **STREAMED, eval_strategy="no", save_strategy="no")) == 0
    assert json.loads((tmp_path / "out" / "test_results.json").read_text())["test_samples"] == 17
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "pos", "1": "neg"}


def test_boost_over_a_stream_equals_boost_over_a_file(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertcls_hf.features.stream_extraction.CHUNK_ROWS", 20)
    folder = tmp_path / "parts"
    folder.mkdir()
    rows = [review(index) for index in range(50)]
    for number in range(3):
        write_parquet(folder / f"{number}.parquet", rows[number * 17 : (number + 1) * 17])
    write_parquet(tmp_path / "all.parquet", rows)
    common = {"boost": True, "head_learning_rate": 0.01, "learning_rate": None, "train_sampling_strategy": "random",
              "pooling": "cls_mean"}  # fmt: skip
    cache = tmp_path / "cache"
    assert main(command(**common, streaming=True, train_file=folder, boost_cache_dir=cache)) == 0
    # Six row groups of train, in a file each; validation and test. Nothing is left that belonged to the run alone.
    files = [sorted(path.name for path in folder.glob("*.arrow")) for folder in cache.iterdir()]
    assert sorted(map(len, files)) == [1] * 6 + [2] * 2
    assert sum(names[0].startswith("packed-") for names in files) == 6
    assert main(command(**common, train_file=tmp_path / "all.parquet", output_dir=tmp_path / "file")) == 0
    first, second = tmp_path / "out", tmp_path / "file"
    results = [json.loads((out / "all_results.json").read_text()) for out in (first, second)]
    assert results[0]["train_loss"] == pytest.approx(results[1]["train_loss"], rel=1e-5)
    assert results[0]["eval_loss"] == pytest.approx(results[1]["eval_loss"], rel=1e-5)
    assert results[0]["train_samples"] == 50
    # The second time, every chunk is there.
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")}
    assert main(command(**common, streaming=True, train_file=folder, boost_cache_dir=cache)) == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")} == before


BAD_ROWS = {
    "unknown label": (("a fine plot", "odd"), "'odd' (1 ×); known: neg, pos", "such as 'a fine plot'"),
    "empty text": ((" ", "pos"), "label 'pos' has an empty text", "--empty_text drop"),
    "no label": (("a fine plot", None), "no label for 'a fine plot'", "--missing_label drop"),
}


@pytest.mark.parametrize("case", list(BAD_ROWS))
def test_a_bad_row_is_named(
    command: Callable[..., list[str]], parts: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row, *messages = BAD_ROWS[case]
    write_parquet(parts / "part-9.parquet", [review(1), review(2), row])
    assert main(command(**STREAMED, train_file=parts)) == 65
    error = capsys.readouterr().err
    assert all(message in error for message in messages), error


def test_bad_rows_are_dropped_where_that_is_asked_for(parts: Path, reviews: dict[str, Path]) -> None:
    write_parquet(parts / "part-9.parquet", [(" ", "pos"), ("a fine plot", None), ("a good plot", "pos")])
    stream = stream_of(parts, reviews["validation"], empty_text="drop", missing_label="drop")
    shared(stream, order(strategy="sequential"))
    assert take(stream, ALL_ROWS + 1)[-1] == "a good plot"


def test_a_broken_file_ends_the_run_with_its_name(
    command: Callable[..., list[str]], parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = parts / "part-9.parquet"
    broken.write_bytes((parts / "part-1.parquet").read_bytes()[:-200])
    assert main(command(**STREAMED, train_file=parts)) == 65
    assert "part-9.parquet" in capsys.readouterr().err


REFUSED = {
    "no end": ({"max_steps": None}, "--max_steps"),
    "a sample": ({"max_train_samples": 5}, "--max_train_samples"),
    "a held-out part": ({"test_file": None, "test_split_percentage": 10}, "--test_split_percentage"),
    "balanced weights": ({"class_weights": "balanced"}, "--class_weights balanced"),
    "workers": ({"dataloader_num_workers": 2}, "--dataloader_num_workers"),
    "no training": ({"do_eval": True}, "nothing is trained"),
    "no labels": ({"validation_file": None, "eval_strategy": "no"}, "give --validation_file"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_needs_all_rows_is_refused(
    command: Callable[..., list[str]], parts: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options, message = REFUSED[case]
    assert main(command(**{**STREAMED, "train_file": parts, **options})) == 2
    assert message in capsys.readouterr().err


def test_files_of_two_formats_are_refused(
    command: Callable[..., list[str]], parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reviews(parts / "more.csv", 3)
    assert main(command(**STREAMED, train_file=parts)) == 65
    assert ".csv, .parquet: name one, as in '*.csv'" in capsys.readouterr().err
    assert main(command(**STREAMED, train_file=parts / "*.txt")) == 65
    assert "no pattern that files match" in capsys.readouterr().err


def test_a_file_that_breaks_off_ends_a_training_with_code_65(
    command: Callable[..., list[str]], parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its footer is whole, its rows are not."""
    content = bytearray((parts / "part-3.parquet").read_bytes())
    content[300:700] = bytes(400)
    (parts / "part-3.parquet").write_bytes(content)
    assert main(command(**STREAMED, train_file=parts)) == 65
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tiny_bert: Path, reviews: dict[str, Path], tmp_path: Path) -> None:
    """After the first buffers, another 20,000 rows are read in no more memory."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5):
        write_parquet(folder / f"{number}.parquet", [review(number * 5_000 + index) for index in range(5_000)])
    args = DataArguments(train_file=str(folder), validation_file=str(reviews["validation"]), streaming=True)
    data = load_data(args, None, trains=True, predicts=False)
    stream = tokenize(data, AutoTokenizer.from_pretrained(tiny_bert), args)["train"]
    shared(stream, order(strategy="group_by_length", rows=2000))
    iterator = iter(stream)
    memory = []
    for _ in range(2):
        memory.append(resident_mebibytes())
        deque(itertools.islice(iterator, 5_000 if len(memory) == 1 else 20_000), maxlen=0)
    memory.append(resident_mebibytes())
    assert memory[2] - memory[1] < 8, memory


def resident_mebibytes() -> float:
    """What the process holds in memory, besides files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024
