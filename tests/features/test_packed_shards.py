"""Caches of many shards, which are put together in few files once they are complete."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from bertcls_hf.errors import StorageError
from bertcls_hf.features import cache as feature_cache
from bertcls_hf.features.__main__ import main
from bertcls_hf.features.cache import CacheMeta, FeatureCache
from tests.helpers.disks import DAMAGES
from tests.helpers.feature_runs import (
    all_features,
    cache_bytes,
    counted_shards,
    extract,
    make_extractor,
    other_files,
    texts_of,
    tokenized,
)
from tests.helpers.warm_processes import Worker


ROWS, WIDTH = 36, 4
SHARDS = 5
KEY = "a" * 32


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 8)
    monkeypatch.setattr(feature_cache, "PACKED_SHARDS", 2)


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=(ROWS, WIDTH)).astype(np.float32) for name in ("cls-1", "mean-1", "mean-2")}


@pytest.fixture
def cache(tmp_path: Path, values: dict[str, np.ndarray]) -> FeatureCache:
    """A packed cache of two components, in two files of two shards and one of one."""
    cache = FeatureCache(tmp_path / KEY, ROWS, WIDTH, "float32")
    cache.folder.mkdir()
    fill(cache, values, ["mean-1", "mean-2"])
    cache.pack(["mean-1", "mean-2"])
    return cache


def fill(
    cache: FeatureCache, values: dict[str, np.ndarray], names: Sequence[str], shards: range | None = None
) -> None:
    for name, shard in itertools.product(names, shards or range(cache.shards)):
        cache.write(name, shard, values[name][cache.shard_rows(shard)])


def files(cache: FeatureCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir())


def assert_read(cache: FeatureCache, values: dict[str, np.ndarray], names: Sequence[str]) -> None:
    assert cache.missing_shards(names) == []
    for name, shards in zip(names, cache.read_all(names), strict=True):
        assert [len(shard) for shard in shards] == [8, 8, 8, 8, 4]
        np.testing.assert_array_equal(np.concatenate(shards), values[name])


class TestPacks:
    def test_all_components_of_many_shards_are_one_file(
        self, cache: FeatureCache, values: dict[str, np.ndarray]
    ) -> None:
        assert [name.partition(".")[2] for name in files(cache)] == ["00000.arrow", "00001.arrow", "00002.arrow"]
        assert_read(cache, values, ["mean-2", "mean-1"])
        assert cache.missing_components(3, ["mean-1", "cls-1"]) == ["cls-1"]
        assert cache.missing_shards(["cls-1"]) == list(range(SHARDS))
        # What is read is mapped from the file, not copied.
        shard = cache.read("mean-2")[0]
        assert not shard.flags.owndata
        assert not shard.flags.writeable

    def test_another_component_is_a_file_of_its_own(self, cache: FeatureCache, values: dict[str, np.ndarray]) -> None:
        before = set(files(cache))
        fill(cache, values, ["cls-1"])
        assert_read(cache, values, ["cls-1", "mean-1"])
        cache.pack(["cls-1", "mean-1"])
        assert before < set(files(cache))
        assert len(files(cache)) == 6
        assert_read(FeatureCache(cache.folder, ROWS, WIDTH, "float32"), values, ["cls-1", "mean-1", "mean-2"])

    @pytest.mark.parametrize("damage", sorted(DAMAGES))
    def test_damage_is_found_and_mended(
        self, cache: FeatureCache, values: dict[str, np.ndarray], damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = cache.place("mean-2", 2)
        content = path.read_bytes()
        at = content.rindex(values["mean-2"][20].tobytes())
        flipped = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        path.write_bytes(flipped if damage == "flipped" else DAMAGES[damage](content))
        other = FeatureCache(cache.folder, ROWS, WIDTH, "float32")
        missing = other.missing_shards(["mean-1", "mean-2"])
        assert missing == ([2] if damage == "flipped" else [2, 3])
        assert f"{path} is damaged (" in caplog.text
        for shard in missing:
            fill(other, values, other.missing_components(shard, ["mean-1", "mean-2"]), range(shard, shard + 1))
        assert_read(other, values, ["mean-1", "mean-2"])
        other.pack(["mean-1", "mean-2"])
        assert len(files(other)) == 3
        caplog.clear()
        assert_read(FeatureCache(cache.folder, ROWS, WIDTH, "float32"), values, ["mean-1", "mean-2"])
        assert caplog.text == ""

    def test_a_mended_component_leaves_no_old_copy(self, cache: FeatureCache, values: dict[str, np.ndarray]) -> None:
        """The run that mends needs one of the two components only."""
        fill(cache, values, ["mean-2"], range(1))
        cache.pack(["mean-2"])
        assert len(files(cache)) == 3
        assert_read(FeatureCache(cache.folder, ROWS, WIDTH, "float32"), values, ["mean-1", "mean-2"])

    def test_a_full_disk_leaves_the_shards(
        self, tmp_path: Path, values: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        cache = FeatureCache(tmp_path / "full", ROWS, WIDTH, "float32")
        cache.folder.mkdir()
        fill(cache, values, ["mean-1"])
        before = files(cache)

        def full(*args: object) -> None:
            raise StorageError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(feature_cache, "write_atomically", full)
            cache.pack(["mean-1"])
        assert "stay in many files: no space left" in caplog.text
        assert files(cache) == before
        assert_read(cache, values, ["mean-1"])


class TestExtraction:
    def test_the_features_are_those_of_many_files(
        self, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        split = tokenized(tiny_bert, texts_of(44))
        root = tmp_path / "cache"
        packed = all_features(make_extractor(tiny_bert, root).features("train", split))
        assert [name.partition(".")[2] for name in cache_bytes(root)] == [f"{i:05d}.arrow" for i in range(3)]
        with monkeypatch.context() as patch:
            patch.setattr(feature_cache, "PACKED_SHARDS", 100)
            many = all_features(make_extractor(tiny_bert, tmp_path / "other").features("train", split))
        assert len(cache_bytes(tmp_path / "other")) == 6 * 3
        assert torch.equal(packed, many)
        with counted_shards() as computed:
            again = make_extractor(tiny_bert, root, pooling_layers=2).features("train", split)
            assert computed == []
            make_extractor(tiny_bert, root, pooling="cls_mean", pooling_layers=1).features("train", split)
            assert computed == list(range(6))
        assert torch.equal(all_features(again), packed[:, -2 * packed.shape[1] // 3 :])
        assert other_files(root) == ["meta.json"]

    def test_processes_share_it_and_one_dies(self, tiny_bert: Path, tmp_path: Path) -> None:
        split = tokenized(tiny_bert, texts_of(120))
        expected = all_features(make_extractor(tiny_bert, tmp_path / "alone").features("train", split))
        root = tmp_path / "shared"
        workers = [Worker(extract, tiny_bert, root, split, 8, None, 2) for _ in range(3)]
        for worker in workers:
            worker.go()
        while not cache_bytes(root):
            pass
        workers[0].kill()
        digests = {worker.receive()[2] for worker in workers[1:]}
        assert len(digests) == 1
        with counted_shards() as computed:
            features = all_features(make_extractor(tiny_bert, root).features("train", split))
        assert computed == []
        assert torch.equal(features, expected)
        assert {*cache_bytes(root)} == {*cache_bytes(tmp_path / "alone")}


def test_the_command_knows_them(
    cache: FeatureCache, values: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    cache.finish(CacheMeta("klue/bert", "train", ROWS, WIDTH, "float32", 12345))
    fill(cache, values, ["cls-1"], range(2))
    root = str(cache.folder.parent)
    assert main(["list", "--boost_cache_dir", root]) == 0
    assert "klue/bert, train, cls-1[2/5] mean-1 mean-2" in capsys.readouterr().out
    assert main(["verify", "--boost_cache_dir", root]) == 0
    assert "0 of 12 shards are damaged" in capsys.readouterr().out
    path = cache.place("mean-2", 2)
    content = path.read_bytes()
    path.write_bytes(content.replace(values["mean-2"][20].tobytes(), bytes(16)))
    cache.place("mean-1", 4).write_bytes(b"")
    assert main(["verify", "--boost_cache_dir", root]) == 1
    out = capsys.readouterr().out
    assert f"{path}: mean-2 of shard 0: its content does not match its checksum" in out
    assert f"{cache.folder}/" in out
    assert "not readable" in out
    assert "2 of 11 shards are damaged" in out
