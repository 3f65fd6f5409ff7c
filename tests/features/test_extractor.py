"""Boost: the cache's key, its equality with a frozen run, and what happens when things go wrong."""

import copy
import csv
import functools
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from bertcls_hf.errors import ArgumentsError, ExitCode, StorageError
from bertcls_hf.features import cache as feature_cache
from bertcls_hf.features import dataset as feature_dataset
from bertcls_hf.features.cache import read_meta
from bertcls_hf.features.extractor import FeatureExtractor, component_names, encoder_fingerprint
from bertcls_hf.features.number_formats import decode_features, encode_features
from bertcls_hf.features.plan import plan_extraction
from bertcls_hf.models import token_batches as batching
from bertcls_hf.models.fingerprints import tokenizer_fingerprint
from bertcls_hf.models.modeling import PooledPart, TextClassifier
from bertcls_hf.models.token_batches import run_batches
from bertcls_hf.run import main
from tests.helpers.disks import DAMAGES, small_disk
from tests.helpers.families import make_model
from tests.helpers.feature_runs import (
    NoLock,
    all_features,
    cache_bytes,
    cache_times,
    counted_shards,
    extract,
    features_of_texts,
    make_extractor,
    other_files,
    peak_memory,
    run_main,
    texts_of,
    tokenized,
)
from tests.helpers.reviews import ROOT, review
from tests.helpers.warm_processes import Worker, note, notes_of, run_ranks


POOLINGS = [
    {"pooling": "pooler"},
    {"pooling": "cls"},
    {"pooling": "cls", "freeze_backbone": False},
    {"pooling": "mean", "pooling_layers": 3},
    {"pooling": "max", "pooling_layers": 2},
    {"pooling": "cls_mean"},
    {"pooling": "mean", "pooling_layers": 3, "pooling_layers_merge": "mean"},
    {"pooling": "cls_mean", "pooling_layers": 2, "pooling_layers_merge": "mean"},
    {"pooling": "cls_mean", "pooling_layers": 2, "pooling_layers_merge": "concat"},
    {"pooling": "mean", "pooling_layers": 2, "pooling_layers_merge": "weighted"},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def threads() -> Iterator[int]:
    """How many there are, to which a test's own number is put back."""
    number = torch.get_num_threads()
    yield number
    torch.set_num_threads(number)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 8)
    return 8


def write_task(folder: Path, task: str) -> dict[str, object]:
    """Training and validation files of a task, and the options that it needs."""
    for name, rows, start in (("train", 48, 0), ("validation", 16, 100)):
        with (folder / f"{task}_{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "text_b", "label"] if task == "pairs" else ["text", "label"])
            for index in range(start, start + rows):
                text, label = review(index)
                if task == "multi_label":
                    label = "|".join(part for part, has in ((label, index % 3), ("short", len(text) < 50)) if has)
                    writer.writerow([text, label or "none"])
                elif task == "regression":
                    writer.writerow([text, f"{(1 if label == 'pos' else -1) + index / 1000:.3f}"])
                elif task == "pairs":
                    writer.writerow([text, review(index * 3)[0], label])
                else:
                    writer.writerow([text, label])
    options = {"pairs": {"text_column_names": "text,text_b"}, "multi_label": {"label_delimiter": "|"}}.get(task, {})
    files = {f"{name}_file": folder / f"{task}_{name}.csv" for name in ("train", "validation")}
    return {**files, **options, "test_file": folder / f"{task}_validation.csv"}


EQUIVALENCE = {
    "default": {},
    "pooler": {"pooling": "pooler"},
    "pairs of cls_mean with an mlp": {"task": "pairs", "pooling": "cls_mean", "pooling_layers": 2, "head": "mlp"},
    "multi-label means": {"task": "multi_label", "pooling": "mean", "pooling_layers": 3,
                          "pooling_layers_merge": "mean"},
    "weighted layers": {"pooling": "cls_mean", "pooling_layers": 3, "pooling_layers_merge": "weighted"},
    "regression on max": {"task": "regression", "pooling": "max"},
}  # fmt: skip


class TestEquivalence:
    @pytest.mark.parametrize("case", list(EQUIVALENCE))
    def test_boost_trains_as_a_frozen_backbone_does(
        self, command: Callable[..., list[str]], tmp_path: Path, case: str
    ) -> None:
        options = dict(EQUIVALENCE[case])
        options |= write_task(tmp_path, str(options.pop("task", "single_label")))
        options |= {"train_sampling_strategy": "random", "dropout": 0.3, "head_learning_rate": 0.01, "do_train": True,
                    "do_eval": True, "do_predict": True}  # fmt: skip
        frozen, boost, again = tmp_path / "frozen", tmp_path / "boost", tmp_path / "again"
        assert main(command(**options, freeze_backbone=True, output_dir=frozen)) == 0
        assert main(command(**options, boost=True, boost_cache_dir=tmp_path / "cache", output_dir=boost)) == 0
        for name in ("loss", "grad_norm", "eval_loss"):
            curves = [curve(folder, name) for folder in (frozen, boost)]
            assert len(curves[0]) == (2 if name == "eval_loss" else 12)
            assert curves[1] == pytest.approx(curves[0], rel=1e-4, abs=1e-5)
        first, second = load_file(frozen / "model.safetensors"), load_file(boost / "model.safetensors")
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-5)

        # The saved model is a whole classifier: it gives on raw text what it gave on the cache.
        of_training = {"do_train", "head_learning_rate", "head", "pooling", "pooling_layers", "pooling_layers_merge"}
        options = {name: value for name, value in options.items() if name not in of_training}
        assert main(command(**options, model_name_or_path=boost, output_dir=again)) == 0
        cached, raw = predictions(boost), predictions(again)
        assert cached.shape == raw.shape
        assert len(cached) == 16
        np.testing.assert_allclose(raw, cached, atol=1e-5)
        assert results(again)["eval_loss"] == pytest.approx(results(boost)["eval_loss"], rel=1e-5)

    @pytest.mark.parametrize("options", POOLINGS, ids=lambda options: " ".join(map(str, options.values())))
    def test_the_cache_holds_what_single_texts_give(
        self, tiny_bert: Path, root: Path, options: dict[str, Any], small_shards: int
    ) -> None:
        extractor = make_extractor(tiny_bert, root, **options)
        split = tokenized(extractor.tokenizer, texts_of(30))
        cached = all_features(extractor.features("train", split))
        assert cached.shape == (30, extractor.model.config.feature_size)
        torch.testing.assert_close(cached, features_of_texts(extractor.model, split), rtol=1e-5, atol=1e-5)

    def test_labels_are_kept_in_their_format(self, tiny_bert: Path, root: Path) -> None:
        extractor = make_extractor(tiny_bert, root)
        split = tokenized(extractor.tokenizer, texts_of(4)).remove_columns("labels")
        assert "labels" not in extractor.features("test", split)[0]
        for labels, dtype in (
            ([0, 1, 1, 0], torch.int64),
            (np.array([0.5, 1, 2, 3], dtype=np.float32), torch.float32),
            ([np.array([i, 1 - i], dtype=np.float32) for i in (0, 1, 1, 0)], torch.float32),
        ):
            labelled = split.add_column("labels", labels).select([3, 1, 0])
            dataset = extractor.features("train", labelled)
            assert dataset.labels.dtype == dtype
            torch.testing.assert_close(dataset.labels, torch.tensor(np.array(labels))[[3, 1, 0]])


def curve(folder: Path, name: str) -> list[float]:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [line[name] for line in log if name in line]


def results(folder: Path) -> dict[str, float]:
    return json.loads((folder / "eval_results.json").read_text())


def predictions(folder: Path) -> np.ndarray:
    """Every number of every line, in order."""
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return np.array([[value for value in _numbers(line)] for line in lines])


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for name, part in value.items() if name != "gold" for number in _numbers(part)]
    return [value] if isinstance(value, float) else []


class TestKey:
    def key(self, model: Path, texts: list[str], **options: Any) -> str:
        extractor = make_extractor(model, model.parent / "unused", **options)
        length = options.get("max_seq_length", 64)
        return extractor.key(plan_extraction(tokenized(extractor.tokenizer, texts, length)))

    def test_what_changes_the_numbers_changes_it(self, tiny_bert: Path, tmp_path: Path) -> None:
        texts = texts_of(12)
        keys = {"as it is": self.key(tiny_bert, texts)}
        keys["one text"] = self.key(tiny_bert, ["good film", *texts[1:]])
        keys["a text more"] = self.key(tiny_bert, [*texts, "good film"])
        keys["max length"] = self.key(tiny_bert, texts, max_seq_length=16)
        keys["a max length that cuts nothing"] = self.key(tiny_bert, texts, max_seq_length=63)
        keys["half"] = self.key(tiny_bert, texts, boost_dtype="float16")
        keys["bfloat16"] = self.key(tiny_bert, texts, boost_dtype="bfloat16")
        keys["int8"] = self.key(tiny_bert, texts, boost_storage="int8")
        keys["bfloat16, int8"] = self.key(tiny_bert, texts, boost_dtype="bfloat16", boost_storage="int8")

        weights = load_file(copied(tiny_bert, tmp_path / "weights") / "model.safetensors")
        weights["encoder.layer.1.output.dense.weight"][3, 5] += 1e-6
        save_file(weights, tmp_path / "weights/model.safetensors", metadata={"format": "pt"})
        keys["one weight"] = self.key(tmp_path / "weights", texts)

        tokenizer = copied(tiny_bert, tmp_path / "tokens") / "tokenizer.json"
        # No text has this letter: only the vocabulary differs.
        tokenizer.write_text(tokenizer.read_text().replace('"##z"', '"##é"'))
        keys["one token"] = self.key(tmp_path / "tokens", texts)

        config = copied(tiny_bert, tmp_path / "settings") / "config.json"
        config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-06'))
        keys["a setting"] = self.key(tmp_path / "settings", texts)
        assert len(set(keys.values())) == len(keys)

    def test_nothing_else_does(self, tiny_bert: Path, tmp_path: Path) -> None:
        texts = texts_of(12)
        key = self.key(tiny_bert, texts)
        others = {
            "batch size": {"per_device_train_batch_size": 3, "per_device_eval_batch_size": 5},
            "epochs, seed, rate": {"num_train_epochs": 9, "seed": 7, "head_learning_rate": 0.5},
            "output_dir": {"output_dir": tmp_path / "elsewhere"},
            "cache folder": {"boost_cache_dir": tmp_path / "other"},
            "dropout of the head": {"dropout": 0.7},
            "head": {"head": "mlp"},
            "pooling": {"pooling": "cls"},
            "attention": {"attn_implementation": "eager"},
            "fine-tuning after the head": {"freeze_backbone": False},
        }
        assert {
            name: self.key(tiny_bert, texts, **options) == key for name, options in others.items()
        } == dict.fromkeys(others, True)
        assert self.key(copied(tiny_bert, tmp_path / "copy"), texts) == key
        config = copied(tiny_bert, tmp_path / "dropout") / "config.json"
        settings = json.loads(config.read_text())
        settings |= {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.0, "id2label": {"0": "a", "1": "b"}}
        config.write_text(json.dumps(settings))
        assert self.key(tmp_path / "dropout", texts) == key
        # Order and repetition of texts: positions tell the rows apart.
        assert self.key(tiny_bert, [*texts[::-1], *texts[:3]]) == key

    def test_using_a_tokenizer_changes_nothing(self, tiny_bert: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
        before = tokenizer_fingerprint(tokenizer)
        tokenizer("good film", truncation=True, max_length=4, padding="max_length")
        assert tokenizer_fingerprint(tokenizer) == before
        tokenizer.add_tokens(["film7"])
        assert tokenizer_fingerprint(tokenizer) != before

    def test_a_pooler_names_its_weights(self, tiny_bert: Path, root: Path) -> None:
        model = make_extractor(tiny_bert, root, pooling="pooler").model
        fingerprint, names = encoder_fingerprint(model), component_names(model)
        assert re.fullmatch("pooler-[0-9a-f]{12}", names[PooledPart("pooler")])
        with torch.no_grad():
            model.encoder.pooler.dense.bias[0] += 1
        assert encoder_fingerprint(model) == fingerprint
        assert component_names(model) != names

    def test_parts_have_the_names_of_before(self) -> None:
        """Files of these names lie in caches that are still read."""
        model = make_model(pooling="cls_mean", pooling_layers=2)
        assert list(component_names(model).values()) == ["cls-2", "mean-2", "cls-1", "mean-1"]
        assert list(component_names(make_model(pooling="max")).values()) == ["max-1"]


def copied(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


class TestHits:
    def test_another_pooling_computes_only_what_is_new(self, tiny_bert: Path, root: Path, small_shards: int) -> None:
        split = tokenized(tiny_bert, texts_of(20))
        for options, computed, components in (
            ({"pooling": "mean", "pooling_layers": 2}, [0, 1, 2], {"mean-1", "mean-2"}),
            ({"pooling": "mean", "pooling_layers": 1}, [], {"mean-1", "mean-2"}),
            ({"pooling": "cls_mean"}, [0, 1, 2], {"mean-1", "mean-2", "cls-1"}),
            (
                {"pooling": "mean", "pooling_layers": 2, "pooling_layers_merge": "mean"},
                [],
                {"mean-1", "mean-2", "cls-1"},
            ),
        ):
            times = cache_times(root)
            with counted_shards() as counted:
                make_extractor(tiny_bert, root, **options).features("train", split)
            assert sorted(counted) == computed
            assert {Path(name).name.split(".")[0] for name in cache_times(root)} == components
            assert times.items() <= cache_times(root).items()

    @pytest.mark.slow
    def test_a_second_run_reads_the_first_ones_features(
        self, command: Callable[..., list[str]], tiny_bert: Path, tmp_path: Path, root: Path
    ) -> None:
        with counted_shards() as computed:
            assert main(command(boost=True, learning_rate=None, boost_cache_dir=root)) == 0
        assert computed == [0, 0, 0]  # a shard for each of train, validation and test
        times = cache_times(root)
        changed = {"model_name_or_path": copied(tiny_bert, tmp_path / "moved"), "output_dir": tmp_path / "second",
                   "per_device_train_batch_size": 4, "num_train_epochs": 1, "dropout": 0.2, "head": "mlp",
                   "seed": 3}  # fmt: skip
        with counted_shards() as computed:
            assert main(command(boost=True, learning_rate=None, boost_cache_dir=root, **changed)) == 0
        assert computed == []
        assert cache_times(root) == times
        assert other_files(root) == ["meta.json"] * 3

        # So does another process, with other hashes of strings.
        environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
        options = {"boost": True, "learning_rate": None, "boost_cache_dir": root, "num_train_epochs": 1}
        argv = [sys.executable, str(ROOT / "run_classification.py"), *command(**options)]
        subprocess.run(argv, check=True, capture_output=True, env=environment)
        assert cache_times(root) == times

    def test_repeated_texts_are_computed_once(self, tiny_bert: Path, root: Path, small_shards: int) -> None:
        texts = texts_of(10)
        rows = [3, 3, 0, 9, 1, 3, 7, 0, 5, 2, 4, 6, 8, 3]
        extractor = make_extractor(tiny_bert, root)
        once = all_features(extractor.features("train", tokenized(extractor.tokenizer, texts)))
        with counted_shards() as computed:
            repeated = extractor.features("train", tokenized(extractor.tokenizer, [texts[row] for row in rows]))
        assert len(repeated) == len(rows)
        assert computed == []
        assert sum(len(shard) for shard in repeated.parts[0]) == 10
        assert torch.equal(all_features(repeated), once[rows])


class TestNumberFormats:
    def test_bfloat16_computes_in_bfloat16_and_stores_float16(self, tiny_bert: Path, root: Path) -> None:
        split = tokenized(tiny_bert, texts_of(12))
        by_dtype = {}
        for dtype in ("float32", "float16", "bfloat16"):
            dataset = make_extractor(tiny_bert, root, boost_dtype=dtype).features("train", split)
            assert dataset.parts[0][0].dtype == (np.float32 if dtype == "float32" else np.float16)
            by_dtype[dtype] = all_features(dataset)
            assert by_dtype[dtype].dtype == torch.float32
        assert len(list(root.iterdir())) == 3
        exact = by_dtype["float32"]
        assert torch.equal(by_dtype["float16"], exact.half().float())
        errors = (by_dtype["bfloat16"] - exact).abs().max() / exact.abs().max()
        assert 1e-4 < errors < 0.05

    @pytest.mark.parametrize("in_memory", [True, False])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_int8_takes_a_quarter_and_rounds_each_row_by_its_largest_number(
        self, tiny_bert: Path, tmp_path: Path, dtype: str, in_memory: bool, monkeypatch: pytest.MonkeyPatch,
        small_shards: int,
    ) -> None:  # fmt: skip
        split = tokenized(tiny_bert, texts_of(30))
        if not in_memory:
            monkeypatch.setattr(feature_dataset, "IN_MEMORY_BYTES", 0)
        exact, rounded = (
            make_extractor(tiny_bert, tmp_path / storage, boost_dtype=dtype, boost_storage=storage)
            .features("train", split) for storage in ("float32", "int8")
        )  # fmt: skip
        width = exact.parts[0][0].shape[1]
        assert rounded.parts[0][0].dtype == np.int8
        assert rounded.parts[0][0].nbytes == exact.parts[0][0].nbytes / 4 + 4 * 8
        for part, values in enumerate(all_features(exact).split(width, dim=1)):
            errors = (all_features(rounded)[:, part * width : (part + 1) * width] - values).abs().amax(1)
            assert (errors <= values.abs().amax(1) / 254 * 1.001).all()
            assert errors.max() > 0
        metas = [read_meta(folder) for folder in (tmp_path / "int8").iterdir()]
        assert [meta.dtype for meta in metas if meta is not None] == ["int8"]

    def test_rows_without_a_number_beside_zero_stay_so(self) -> None:
        features = np.array([[0, 0, 0], [1, -2, 0.5]], dtype=np.float32)
        np.testing.assert_allclose(decode_features(encode_features(features, "int8")), features, atol=2 / 254)
        with pytest.raises(ArgumentsError, match="--boost_storage int8: some features are not finite"):
            encode_features(np.array([[np.nan, 1]], dtype=np.float32), "int8")

    def test_too_large_for_float16(self, tiny_bert: Path, root: Path) -> None:
        extractor = make_extractor(tiny_bert, root, boost_dtype="float16", pooling="cls", pooling_layers=1)
        with torch.no_grad():
            extractor.model.encoder.encoder.layer[-1].output.LayerNorm.bias[0] = 1e6
        with pytest.raises(ArgumentsError, match="use float32"):
            extractor.features("train", tokenized(tiny_bert, texts_of(3)))
        assert cache_bytes(root) == {}


class TestDevices:
    def test_two_devices_of_a_process_share_the_work(
        self, tiny_bert: Path, tmp_path: Path, small_shards: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        split = tokenized(tiny_bert, texts_of(60))
        make_extractor(tiny_bert, tmp_path / "one").features("train", split)
        extractor = make_extractor(tiny_bert, tmp_path / "two")
        extractor.devices = (torch.device("cpu"), torch.device("cpu"))
        models = set()
        original = FeatureExtractor._extract_shard

        def slowly(self: FeatureExtractor, job: Any, shard: int, parts: Any, model: TextClassifier) -> None:
            models.add(id(model))
            time.sleep(0.01)
            original(self, job, shard, parts, model)

        monkeypatch.setattr(FeatureExtractor, "_extract_shard", slowly)
        extractor.features("train", split)
        assert len(models) == 2
        assert cache_bytes(tmp_path / "one") == cache_bytes(tmp_path / "two")
        assert len(cache_bytes(tmp_path / "one")) == 8 * 3

    def test_an_error_on_one_device_ends_the_other(
        self, tiny_bert: Path, root: Path, small_shards: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        extractor = make_extractor(tiny_bert, root)
        extractor.devices = (torch.device("cpu"), torch.device("cpu"))
        started = []

        def fail(self: FeatureExtractor, job: Any, shard: int, *rest: Any) -> None:
            started.append(shard)
            time.sleep(0.05)
            if shard == 0:
                raise StorageError("full")

        monkeypatch.setattr(FeatureExtractor, "_extract_shard", fail)
        with pytest.raises(StorageError, match="full"):
            extractor.features("train", tokenized(tiny_bert, texts_of(60)))
        assert len(started) <= 4  # of 8

    @pytest.mark.usefixtures("threads")
    def test_threads_take_a_batch_each(self, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batching, "TOKENS_PER_BATCH", {"cpu": 64})
        caches = []
        for number in (1, 3):
            torch.set_num_threads(number)
            root = tmp_path / str(number) / "cache"
            make_extractor(tiny_bert, root).features("train", tokenized(tiny_bert, texts_of(50)))
            assert torch.get_num_threads() == number
            caches.append(cache_bytes(root))
        assert caches[0] == caches[1]

    @pytest.mark.usefixtures("threads")
    def test_an_error_in_one_thread_ends_the_others(self) -> None:
        begun = []

        def fail(batch: slice) -> None:
            begun.append(batch.start)
            time.sleep(0.01)
            raise ValueError("one batch")

        torch.set_num_threads(3)
        with pytest.raises(ValueError, match="one batch"):
            run_batches(fail, (slice(row, row + 1) for row in range(1000)), torch.device("cpu"))
        assert torch.get_num_threads() == 3
        assert len(begun) < 500

    def test_the_model_is_left_as_it_was(self, tiny_bert: Path, root: Path) -> None:
        extractor = make_extractor(tiny_bert, root, freeze_backbone=False)
        before = copy.deepcopy(extractor.model.state_dict())
        dataset = extractor.features("train", tokenized(tiny_bert, texts_of(6)))
        assert all(torch.equal(tensor, before[name]) for name, tensor in extractor.model.state_dict().items())
        # What was cached under inference mode does not stand in the way of fine-tuning.
        extractor.model.train()
        batch = {name: torch.tensor(value[:1]) for name, value in tokenized(tiny_bert, texts_of(1))[:].items()}
        extractor.model(batch["input_ids"], batch["attention_mask"], labels=batch["labels"]).loss.backward()
        assert not all_features(dataset).requires_grad


def undisturbed(model: Path, root: Path, split: Dataset) -> tuple[dict[str, bytes], torch.Tensor]:
    features = all_features(make_extractor(model, root).features("train", split))
    return cache_bytes(root), features


class TestKilledAndResumed:
    """SIGKILL at random moments of an extraction of 30 shards of three components."""

    def kill_and_resume(self, model: Path, folder: Path, moments: list[float]) -> list[int]:
        """Kills at shares of the work; returns how many whole shards each killed run had left."""
        split = tokenized(model, texts_of(240))
        expected, expected_features = undisturbed(model, folder / "undisturbed", split)
        left = []
        for number, moment in enumerate(moments):
            root = folder / f"killed-{number}"
            worker = Worker(extract, model, root, split, 8)
            worker.go()
            # By progress, since time says little on a busy machine; the rest of the moment is anywhere in a shard.
            while len(cache_times(root)) < moment * 90:
                time.sleep(0.001)
            time.sleep(moment * 1000 % 1 * 0.01)
            worker.kill()
            whole = cache_times(root)
            assert cache_bytes(root).items() <= expected.items()
            # What a killed writer left is not read, blocks nobody, and goes after a day.
            for leftover in [*root.glob("*/*.tmp-*"), *root.glob("*/*.lock")]:
                os.utime(leftover, (0, 0))
            with counted_shards() as computed:
                dataset = make_extractor(model, root).features("train", split)
            assert cache_bytes(root) == expected
            assert torch.equal(all_features(dataset), expected_features)
            assert whole.items() <= cache_times(root).items()
            complete = sum(all(f"{component}.{shard:05d}.arrow" in {Path(n).name for n in whole}
                               for component in ("mean-3", "mean-2", "mean-1")) for shard in range(30))  # fmt: skip
            assert len(computed) == 30 - complete
            assert other_files(root) == ["meta.json"]
            left.append(len(whole))
        return left

    def test_three_moments(self, tiny_bert: Path, tmp_path: Path, small_shards: int) -> None:
        left = self.kill_and_resume(tiny_bert, tmp_path, [0.2, 0.5, 0.8])
        assert any(0 < shards < 90 for shards in left)

    @pytest.mark.night
    def test_twenty_moments(self, tiny_bert: Path, tmp_path: Path, small_shards: int) -> None:
        generator = random.Random(time.time_ns())
        moments = [generator.random() for _ in range(20)]
        left = self.kill_and_resume(tiny_bert, tmp_path, moments)
        assert sum(0 < shards < 90 for shards in left) >= 5, list(zip(moments, left, strict=True))


class TestConcurrentRuns:
    @pytest.mark.parametrize("lock", [None, NoLock], ids=["locks", "locks that do not lock"])
    def test_four_processes_on_an_empty_cache(
        self, tiny_bert: Path, tmp_path: Path, small_shards: int, lock: type | None
    ) -> None:
        split = tokenized(tiny_bert, texts_of(120))
        expected, _ = undisturbed(tiny_bert, tmp_path / "undisturbed", split)
        root = tmp_path / "shared"
        workers = [Worker(extract, tiny_bert, root, split, 8, lock) for _ in range(4)]
        for worker in workers:
            assert worker.receive() == "ready"
        for worker in workers:
            worker.connection.send("go")
        _, computed, digests = zip(*(worker.receive() for worker in workers), strict=True)
        assert len(set(digests)) == 1
        assert cache_bytes(root) == expected
        assert other_files(root) == ["meta.json"]
        shards = sorted(itertools.chain(*computed))
        assert set(shards) == set(range(15))
        if lock is None:
            assert len(shards) == 15  # each of them once

    def test_one_takes_over_what_another_dies_over(self, tiny_bert: Path, root: Path, small_shards: int) -> None:
        split = tokenized(tiny_bert, texts_of(240))
        workers = [Worker(extract, tiny_bert, root, split, 8) for _ in range(2)]
        for worker in workers:
            worker.go()
        while not cache_times(root):
            time.sleep(0.005)
        workers[0].kill()
        _, computed, _ = workers[1].receive()
        assert len(cache_bytes(root)) == 90
        assert 0 < len(computed) <= 30

    def test_damage_is_mended_once_by_two(
        self, tiny_bert: Path, root: Path, small_shards: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        split = tokenized(tiny_bert, texts_of(40))
        expected, features_before = undisturbed(tiny_bert, root, split)
        path = sorted(root.glob("*/mean-2.00003.arrow"))[0]
        content = path.read_bytes()
        path.write_bytes(content[:-200] + bytes([content[-200] ^ 255]) + content[-199:])
        worker = Worker(extract, tiny_bert, root, split, 8)
        worker.go()
        with counted_shards() as computed:
            dataset = make_extractor(tiny_bert, root).features("train", split)
        assert len(computed) + len(worker.receive()[1]) == 1
        assert cache_bytes(root) == expected
        assert torch.equal(all_features(dataset), features_before)
        if computed:
            assert f"{path} is damaged (" in caplog.text


class TestDamage:
    @pytest.mark.parametrize("damage", sorted(DAMAGES))
    def test_a_damaged_shard_is_computed_anew(
        self, tiny_bert: Path, root: Path, small_shards: int, caplog: pytest.LogCaptureFixture, damage: str
    ) -> None:
        split = tokenized(tiny_bert, texts_of(30))
        expected, expected_features = undisturbed(tiny_bert, root, split)
        times = cache_times(root)
        path = next(root.glob("*/mean-2.00001.arrow"))
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        (path.parent / "meta.json").write_text("{")
        with counted_shards() as computed:
            dataset = make_extractor(tiny_bert, root).features("train", split)
        assert computed == [1]
        assert f"{path} is damaged (" in caplog.text
        assert cache_bytes(root) == expected
        assert torch.equal(all_features(dataset), expected_features)
        assert read_meta(path.parent) is not None
        # Nothing else was written.
        assert [name for name, time in cache_times(root).items() if time != times[name]] == [
            str(path.relative_to(root))
        ]


class TestStorage:
    def test_a_full_disk_ends_the_run_with_74(
        self, command: Callable[..., list[str]], root: Path, tmp_path: Path
    ) -> None:
        argv = command(boost=True, learning_rate=None, boost_cache_dir=root)
        worker = Worker(run_main, argv, 1500)
        code, messages = worker.receive()
        assert code == ExitCode.STORAGE == 74
        assert f"error: no space left for {root}" in messages
        assert "--boost_cache_dir" in messages
        # The texts fit into one shard, which did not fit: neither it nor a part of it is there.
        assert cache_bytes(root) == {}
        assert other_files(root) == []
        assert main(argv) == 0

    def test_a_full_tmpfs_is_refused_and_larger_it_resumes(
        self, tiny_bert: Path, tmp_path: Path, small_shards: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        split = tokenized(tiny_bert, texts_of(240))
        expected, _ = undisturbed(tiny_bert, tmp_path / "undisturbed", split)
        with small_disk(tmp_path, 200) as disk:
            root = disk / "cache"
            with monkeypatch.context() as patch:
                # Files take whole pages, so that 45 KiB of numbers do not fit into 200 KiB.
                with pytest.raises(StorageError, match="no space left for"):
                    make_extractor(tiny_bert, root).features("train", split)
                assert other_files(root) == []
                assert 10 < len(cache_bytes(root)) < 90
                patch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 1000))
                with pytest.raises(StorageError, match=r"the features need 0\.0 MiB and .* has 0\.0 MiB free"):
                    make_extractor(tiny_bert, root).features("train", split)
            written = cache_times(root)
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
            make_extractor(tiny_bert, root).features("train", split)
            assert cache_bytes(root) == expected
            assert written.items() <= cache_times(root).items()

    def test_a_folder_that_cannot_be_written_is_replaced_for_the_run(
        self, tiny_bert: Path, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        root.write_text("a file where the folder should be")
        extractor = make_extractor(tiny_bert, root)
        split = tokenized(tiny_bert, texts_of(6))
        with counted_shards() as computed:
            first, second = extractor.features("train", split), extractor.features("train", split)
        assert computed == [0]
        assert re.search(
            f"{root}/.* cannot be written .Not a directory.: the features of this run go to /", caplog.text
        )
        temporary = Path(extractor._temporary_folder.name)
        assert temporary.is_dir()
        expected = features_of_texts(extractor.model, split)
        del extractor
        assert not temporary.exists()
        for dataset in (first, second):
            torch.testing.assert_close(all_features(dataset), expected, atol=1e-5, rtol=1e-5)

    def test_a_cache_that_may_only_be_read_is_read(
        self, tiny_bert: Path, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        split = tokenized(tiny_bert, texts_of(6))
        undisturbed(tiny_bert, root, split)
        caplog.clear()
        # Root may write anywhere, so the answer is made up.
        monkeypatch.setattr(os, "access", lambda *args: False)
        with counted_shards() as computed:
            make_extractor(tiny_bert, root).features("train", split)
            assert computed == []
            assert caplog.text == ""
            make_extractor(tiny_bert, root).features("train", tokenized(tiny_bert, texts_of(7)))
        assert computed == [0]
        assert "cannot be written (Permission denied)" in caplog.text
        assert len({name.split("/")[0] for name in cache_bytes(root)}) == 1

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_rows(self, tiny_bert: Path, tmp_path: Path) -> None:
        peaks = [Worker(peak_memory, tiny_bert, tmp_path / str(rows), rows).receive(120) for rows in (3_000, 60_000)]
        assert peaks[1] - peaks[0] < 150, peaks


def note_shards(folder: Path) -> None:
    """Makes small shards, and notes those that this rank computes in a file of its own."""
    feature_cache.SHARD_ROWS = 8
    original = FeatureExtractor._extract_shard

    def noted(self: FeatureExtractor, job: Any, shard: int, *rest: Any) -> None:
        note(folder, "computed", [f"{len(job.plan.rows)}:{shard}"])
        original(self, job, shard, *rest)

    FeatureExtractor._extract_shard = noted  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["shared", "of each node"])
def test_two_ranks_make_the_cache_of_one(
    command: Callable[..., list[str]], tmp_path: Path, small_shards: int, disk: str
) -> None:
    write_reviews_of(tmp_path / "many.csv", 160)
    options = {"train_file": tmp_path / "many.csv", "boost": True, "learning_rate": None, "num_train_epochs": 1}
    assert main(command(**options, boost_cache_dir=tmp_path / "one", output_dir=tmp_path / "first")) == 0
    expected = cache_bytes(tmp_path / "one")
    root = tmp_path / ("two" if disk == "shared" else "two-{RANK}")
    argv = command(**options, output_dir=tmp_path / "second", boost_cache_dir=root)
    done = run_ranks(argv, 2, prepare=functools.partial(note_shards, tmp_path))
    assert done.code == 0, done.output[-3000:]
    computed = [set(notes_of(tmp_path, "computed", rank)) for rank in (0, 1)]
    assert len(computed[0] | computed[1]) == len(expected) / 3
    if disk == "shared":
        assert cache_bytes(root) == expected
        assert not computed[0] & computed[1]
        assert other_files(root) == ["meta.json"] * 3
    else:
        assert computed[0] == computed[1]
        assert cache_bytes(tmp_path / "two-0") == cache_bytes(tmp_path / "two-1") == expected


def write_reviews_of(path: Path, rows: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *(review(index) for index in range(rows))])


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2)])
def test_the_space_of_missing_shards_is_asked_for(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, size: int
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("bertcls_hf.features.extractor.require_space", lambda folder, size: asked.append(size))
    extractor = make_extractor(tiny_bert, tmp_path / "cache", pooling="mean", pooling_layers=2, boost_dtype=dtype)
    extractor.features("train", tokenized(tiny_bert, texts_of(20)))
    # 20 rows of 2 layers of 16 numbers.
    assert asked == [20 * 2 * 16 * size]
