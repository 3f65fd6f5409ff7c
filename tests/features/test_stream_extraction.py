"""Features of a stream: shared out among processes, independent of their number, and without rows in memory."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from bertcls_hf.config.arguments import DataArguments
from bertcls_hf.data import streaming
from bertcls_hf.data.load import load_data
from bertcls_hf.data.streaming import TokenStream
from bertcls_hf.data.tokenization import tokenize
from bertcls_hf.errors import DataError
from bertcls_hf.features import stream_extraction
from bertcls_hf.features.extractor import FeatureExtractor
from bertcls_hf.features.stream_extraction import split_features
from tests.helpers.feature_runs import all_features, features_of_texts, make_extractor
from tests.helpers.reviews import write_reviews
from tests.helpers.warm_processes import note, notes_of, run_ranks


FILES = (20, 3, 11, 26)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four csv files of 60 reviews."""
    folder = tmp_path / "parts"
    folder.mkdir()
    start = 0
    for number, rows in enumerate(FILES):
        write_reviews(folder / f"{number}.csv", rows, start=start)
        start += rows
    return folder


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_extraction, "CHUNK_ROWS", 8)


def stream_of(folder: Path | str, model: Path, validation: Path, **options: Any) -> TokenStream:
    args = DataArguments(train_file=f"{folder}/*.csv", validation_file=str(validation), streaming=True, **options)
    data = load_data(args, None, trains=True, predicts=False)
    return tokenize(data, AutoTokenizer.from_pretrained(model, model_max_length=64), args)["train"]


def tokenized_rows(stream: TokenStream) -> Dataset:
    """All rows of a stream, loaded."""
    raw_rows = [row for group in range(stream.file_groups) for rows in stream.raw_chunks(group, 100) for row in rows]
    rows = stream.dataset(raw_rows)
    assert rows is not None
    return rows


@pytest.mark.parametrize(("groups", "processes"), [(64, 1), (64, 4), (2, 1), (64, 5), (2, 3), (1, 2)])
def test_features_and_labels_are_those_of_the_rows_in_their_order(
    folder: Path, tiny_bert: Path, reviews: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    groups: int, processes: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(streaming, "FILE_GROUPS", groups)
    monkeypatch.setattr(streaming, "FILES_OF_GROUP", groups)
    extractor = make_extractor(tiny_bert, tmp_path / "cache")
    extractor.processes = processes
    stream = stream_of(folder, tiny_bert, reviews["validation"])
    assert stream.file_groups == {64: 4, 2: 2, 1: 4}[groups]
    features = split_features(extractor, "train", stream)
    rows = tokenized_rows(stream)
    assert len(features) == len(rows) == 60
    torch.testing.assert_close(all_features(features), features_of_texts(extractor.model, rows), rtol=1e-4, atol=1e-5)
    assert features.labels.tolist() == rows["labels"][:]
    # One file a chunk, and nothing that belonged to this run alone.
    folders = list((tmp_path / "cache").iterdir())
    assert [len(list(folder.glob("*.arrow"))) for folder in folders] == [1] * len(folders)


def test_windows_come_along(folder: Path, tiny_bert: Path, reviews: dict[str, Path], tmp_path: Path) -> None:
    """Equal to the features of the same rows when they are loaded."""
    options = {"truncation_strategy": "windows", "window_pooling": "attention"}
    extractor = make_extractor(tiny_bert, tmp_path / "cache", max_seq_length=8, **options)
    args = DataArguments(train_file=f"{folder}/*.csv", validation_file=str(reviews["validation"]), streaming=True)
    data = load_data(args, None, trains=True, predicts=False)
    stream = tokenize(data, extractor.tokenizer, args, extractor.model.truncation)["train"]
    streamed, loaded = split_features(extractor, "train", stream), extractor.features("all", tokenized_rows(stream))
    assert len(streamed) == len(loaded) == 60
    for name, values in loaded.__getitems__(np.arange(60)).items():
        torch.testing.assert_close(streamed.__getitems__(np.arange(60))[name], values)


@pytest.mark.parametrize("processes", [1, 9])
def test_what_a_process_leaves_when_it_dies_another_takes_up(
    folder: Path, tiny_bert: Path, reviews: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    processes: int,
) -> None:  # fmt: skip
    alone = make_extractor(tiny_bert, tmp_path / "alone")
    expected = all_features(split_features(alone, "train", stream_of(folder, tiny_bert, reviews["validation"])))
    original = FeatureExtractor.cached
    extractor = make_extractor(tiny_bert, tmp_path / "cache")
    extractor.processes = processes
    stream = stream_of(folder, tiny_bert, reviews["validation"])
    done: list[str] = []

    def die(self: FeatureExtractor, name: str, *args: Any, **kwargs: Any) -> Any:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(name)
        return original(self, name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "cached", die)
        with pytest.raises(KeyboardInterrupt):
            stream_extraction._StreamExtraction(extractor, "train", stream, tmp_path / "rows").run()
    second = stream_extraction._StreamExtraction(extractor, "train", stream, tmp_path / "rows")
    second.run()
    assert torch.equal(all_features(second.features()), expected)


def test_rows_that_the_options_drop(tiny_bert: Path, reviews: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "0.csv").write_text("text,label\n ,pos\n ,neg\n")
    extractor = make_extractor(tiny_bert, tmp_path / "cache")
    with pytest.raises(DataError, match="no row is left"):
        split_features(extractor, "train", stream_of(folder, tiny_bert, reviews["validation"], empty_text="drop"))
    (folder / "1.csv").write_text("text,label\ngood film,pos\n ,neg\nbad film,neg\n")
    stream = stream_of(folder, tiny_bert, reviews["validation"], empty_text="drop")
    features = split_features(extractor, "train", stream)
    assert len(features) == 2


def test_rows_take_no_memory(folder: Path, tiny_bert: Path, reviews: dict[str, Path], tmp_path: Path) -> None:
    """What is known of them is mapped from files, which are gone with the run."""
    extractor = make_extractor(tiny_bert, tmp_path / "cache")
    features = split_features(extractor, "train", stream_of(folder, tiny_bert, reviews["validation"]))
    assert len(features) == 60
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if f"{tmp_path}/cache/rows-" in line]
    assert {line.split("/")[-1] for line in maps} == {"labels (deleted)", "positions (deleted)"}
    assert list((tmp_path / "cache").glob("rows-*")) == []


def note_texts(folder: Path) -> None:
    """Makes small chunks, and notes the texts that this rank tokenizes."""
    stream_extraction.CHUNK_ROWS = 8
    original = TokenStream.tokenize

    def noted(self: TokenStream, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        note(folder, "tokenized", columns["text"])
        return original(self, columns)

    TokenStream.tokenize = noted  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("files", ["many", "one"])
def test_each_of_two_ranks_tokenizes_a_part(
    command: Callable[..., list[str]], folder: Path, tmp_path: Path, files: str
) -> None:
    if files == "one":
        write_reviews(folder / "all.csv", 60)
    options = {"train_file": folder / ("all.csv" if files == "one" else "[0-9].csv"), "streaming": True, "boost": True,
               "learning_rate": None, "num_train_epochs": 1, "boost_cache_dir": tmp_path / "cache"}  # fmt: skip
    done = run_ranks(command(**options), 2, prepare=functools.partial(note_texts, tmp_path))
    assert done.code == 0, done.output[-3000:]
    texts = [notes_of(tmp_path, "tokenized", rank) for rank in (0, 1)]
    assert set(texts[0]) & set(texts[1]) == set()
    assert len(texts[0]) + len(texts[1]) == 60
    assert json.loads((tmp_path / "out" / "train_results.json").read_text())["train_samples"] == 60
