"""Texts to token ids: lengths, pairs, and the cache that spares a second run the work."""

import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bertcls_hf.config.arguments import DataArguments, ModelArguments
from bertcls_hf.data.labels import SINGLE_LABEL, LabelSet
from bertcls_hf.data.load import ClassificationData, load_data
from bertcls_hf.data.tokenization import (
    encode_texts,
    pad_flat_texts,
    pad_texts,
    report_lengths,
    resolve_max_seq_length,
    tokenize,
)
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.models.loading import load_tokenizer, open_checkpoint
from tests.helpers.reviews import ROOT, write_reviews


@pytest.fixture
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


def in_memory(**columns: list) -> ClassificationData:
    return ClassificationData(LabelSet(SINGLE_LABEL, ("a", "b")), {"train": datasets.Dataset.from_dict(columns)})


def run(path: Path, tokenizer: PreTrainedTokenizerBase, length: int = 8, **options: Any) -> datasets.DatasetDict:
    args = DataArguments(train_file=str(path), **options)
    data = load_data(args, None, trains=True, predicts=False)
    tokenizer.model_max_length = length
    return datasets.DatasetDict(tokenize(data, tokenizer, args))


@pytest.mark.parametrize(
    ("asked", "own_limit", "positions", "length"),
    [
        (None, 64, 64, 64),
        (None, 10**30, 514, 512),
        (None, 10**30, 8192, 512),
        (None, 128, 512, 128),
        (300, 128, 512, 300),
    ],
)
def test_longest_text(
    tokenizer: PreTrainedTokenizerBase, asked: int | None, own_limit: int, positions: int, length: int
) -> None:
    tokenizer.model_max_length = own_limit
    assert resolve_max_seq_length(asked, tokenizer, positions) == length


def test_no_more_tokens_than_positions(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ArgumentsError, match=r"--max_seq_length 65: .* 64 tokens"):
        resolve_max_seq_length(65, tokenizer, 64)


@pytest.mark.parametrize(("asked", "length"), [(None, 64), (7, 7)])
def test_the_tokenizer_carries_the_length(tiny_bert: Path, asked: int | None, length: int) -> None:
    args = ModelArguments(model_name_or_path=str(tiny_bert))
    tokenizer = load_tokenizer(args, open_checkpoint(args), asked)
    assert tokenizer.model_max_length == length
    split = tokenize(in_memory(text=["good " * 80], label=[0]), tokenizer, DataArguments())["train"]
    assert split["length"][:] == [length]
    with pytest.raises(ArgumentsError, match="--max_seq_length 65"):
        load_tokenizer(args, open_checkpoint(args), 65)


def test_columns(tokenizer: PreTrainedTokenizerBase) -> None:
    split = tokenize(in_memory(text=["good film", None], label=[1, 0]), tokenizer, DataArguments())["train"]
    assert split["input_ids"][:] == tokenizer(["good film", ""])["input_ids"]
    assert split["length"][:] == [4, 2]
    assert split["labels"][:] == [1, 0]
    assert set(split.column_names) == {"input_ids", "token_type_ids", "attention_mask", "length", "labels"}


def test_pairs_share_the_length(tokenizer: PreTrainedTokenizerBase) -> None:
    data = in_memory(text=["good " * 20, "bad"], text_pair=["film " * 20, None])
    tokenizer.model_max_length = 9
    split = tokenize(data, tokenizer, DataArguments())["train"]
    assert split["input_ids"][0] == tokenizer("good " * 3, "film " * 3)["input_ids"]
    assert split["token_type_ids"][0] == [0] * 5 + [1] * 4
    assert split["length"][:] == [9, 4]
    assert "labels" not in split.column_names


@pytest.mark.parametrize(("columns", "length"), [({"text": ["a"]}, 2), ({"text": ["a"], "text_pair": ["b"]}, 3)])
def test_a_length_without_room_for_text_is_refused(
    tokenizer: PreTrainedTokenizerBase, columns: dict[str, list], length: int
) -> None:
    tokenizer.model_max_length = length
    with pytest.raises(ArgumentsError, match=f"--max_seq_length {length}: {length} of them are special"):
        tokenize(in_memory(**columns), tokenizer, DataArguments())


def test_workers_change_nothing(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "train.csv", 40)
    one = run(path, tokenizer)
    two = run(path, tokenizer, preprocessing_num_workers=2)
    assert all(one[split][:] == two[split][:] for split in one)


def test_the_start_can_be_cut_and_the_saved_tokenizer_knows(tiny_bert: Path, tmp_path: Path) -> None:
    args = ModelArguments(model_name_or_path=str(tiny_bert), truncation_strategy="tail")
    tokenizer = load_tokenizer(args, open_checkpoint(args), max_seq_length=4)
    long = "good film bad story good"
    ids = tokenize(in_memory(text=[long], label=[0]), tokenizer, DataArguments())["train"]["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "story", "good", "[SEP]"]
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(long, truncation=True)["input_ids"] == ids


def test_texts_are_cut_at_the_tokenizers_length(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.model_max_length = 5
    encoded = encode_texts(tokenizer, ["good film " * 9, None], None)
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in encoded["input_ids"]] == [
        ["[CLS]", "good", "film", "good", "[SEP]"],
        ["[CLS]", "[SEP]"],
    ]
    assert encode_texts(tokenizer, ["good"], [None])["token_type_ids"] == [[0, 0, 0, 1]]


class TestPadding:
    ids, types = [[2, 5, 6, 3], [2, 3], [2, 5, 3]], [[0, 0, 1, 1], [0, 1], [0, 0, 0]]

    def test_it_is_that_of_the_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.pad_token, tokenizer._pad_token_type_id = "[MASK]", 7
        columns = {"input_ids": self.ids, "token_type_ids": self.types}
        expected = tokenizer.pad(columns, return_tensors="pt")
        batch = pad_texts(columns, tokenizer)
        assert set(batch) == {"input_ids", "token_type_ids", "attention_mask"}
        for name, values in batch.items():
            assert values.dtype == torch.int64
            assert torch.equal(values, expected[name])
        flat = {name: np.concatenate(rows, dtype=np.int32) for name, rows in columns.items()}
        for name, values in pad_flat_texts(flat, np.array([4, 2, 3]), tokenizer).items():
            assert torch.equal(values, expected[name])

    def test_only_tokens_are_padded(self, tokenizer: PreTrainedTokenizerBase) -> None:
        batch = pad_texts({"input_ids": self.ids, "length": [4, 2, 3], "attention_mask": [[1]] * 3}, tokenizer)
        assert set(batch) == {"input_ids", "attention_mask"}
        assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]

    def test_the_first_token_stays_first(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.padding_side = "left"
        assert pad_texts({"input_ids": self.ids}, tokenizer)["input_ids"][:, 0].tolist() == [2, 2, 2]


class TestCache:
    @pytest.fixture
    def path(self, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        """A file of this test alone that was tokenized once."""
        path = write_reviews(tmp_path / "train.csv", 30, start=zlib.crc32(request.node.name.encode()))
        run(path, tokenizer)
        return path

    @pytest.fixture
    def no_work(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **options: object) -> None:
            raise AssertionError("the tokenizer ran")

        monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", refuse)

    @pytest.mark.usefixtures("no_work")
    @pytest.mark.parametrize("changed", [{}, {"empty_text": "keep"}, {"validation_split_percentage": 10.0}])
    def test_a_second_run_reads_it(
        self, path: Path, tokenizer: PreTrainedTokenizerBase, changed: dict[str, Any]
    ) -> None:
        # The first call left its truncation in the tokenizer, which must not matter.
        assert max(run(path, tokenizer, **changed)["train"]["length"]) == 8

    @pytest.mark.usefixtures("no_work")
    @pytest.mark.parametrize(
        "changed", [{"length": 9}, {"overwrite_cache": True}, {"split_seed": 7}, {"max_train_samples": 9}]
    )
    def test_what_changes_the_tokens_is_work(
        self, path: Path, tokenizer: PreTrainedTokenizerBase, changed: dict[str, Any]
    ) -> None:
        with pytest.raises(AssertionError, match="the tokenizer ran"):
            run(path, tokenizer, **changed)

    @pytest.mark.usefixtures("no_work")
    def test_another_vocabulary_is_work(self, path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.add_tokens(["good film"])
        with pytest.raises(AssertionError, match="the tokenizer ran"):
            run(path, tokenizer)

    @pytest.mark.slow
    def test_another_process_reads_it(self, path: Path, tiny_bert: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.data.test_tokenization import run
from transformers import AutoTokenizer, PreTrainedTokenizerBase

PreTrainedTokenizerBase.__call__ = None
split = run(Path({str(path)!r}), AutoTokenizer.from_pretrained({str(tiny_bert)!r}))["validation"]
print(split["input_ids"][:], split["labels"][:])
"""
        env = os.environ | {"PYTHONHASHSEED": "17"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        # The same texts are held out, whatever the salt of Python's hashes.
        split = run(path, tokenizer)["validation"]
        assert done.stdout.strip() == f"{split['input_ids'][:]} {split['labels'][:]}"


def test_lengths_are_reported(tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer.model_max_length = 5
    splits = tokenize(in_memory(text=["good", "good film good film"]), tokenizer, DataArguments())
    with caplog.at_level("INFO", "bertcls_hf"):
        report_lengths(splits, tokenizer)
    assert "train: 4 tokens on average, 1 of 2 texts reach 5" in caplog.text
