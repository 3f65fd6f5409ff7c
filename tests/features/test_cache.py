"""Shards on disk: complete or absent, and never read when they are damaged."""

import errno
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertcls_hf.errors import ArgumentsError, ExitCode, StorageError
from bertcls_hf.features import cache as feature_cache
from bertcls_hf.features.cache import (
    MISSING,
    STALE_SECONDS,
    CacheMeta,
    FeatureCache,
    cache_root,
    read_meta,
    require_space,
    shard_problem,
    sweep_temporary_files,
    write_atomically,
    writing_problem,
)
from tests.helpers.disks import DAMAGES, small_disk
from tests.helpers.feature_runs import FailingLock, NoLock, hold_claim, rewrite
from tests.helpers.warm_processes import Worker


ROWS, WIDTH = 20, 4
META = CacheMeta("some/model", "train", ROWS, WIDTH, "float32", tokens=123)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, values: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    """A complete cache of one component, in shards of 8, 8 and 4 rows."""
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 8)
    cache = FeatureCache(tmp_path / "cache", ROWS, WIDTH, "float32")
    cache.folder.mkdir()
    fill(cache, values)
    return cache


def fill(cache: FeatureCache, values: np.ndarray) -> None:
    for shard in range(cache.shards):
        cache.write("mean-1", shard, values[cache.shard_rows(shard)])


class TestShards:
    def test_what_is_written_is_read(self, cache: FeatureCache, values: np.ndarray) -> None:
        shards = cache.read("mean-1")
        assert [len(shard) for shard in shards] == [8, 8, 4]
        np.testing.assert_array_equal(np.concatenate(shards), values)
        assert cache.missing_shards(["mean-1"]) == []
        assert cache.missing_shards(["mean-1", "cls-1"]) == [0, 1, 2]
        assert cache.missing_components(1, ["mean-1", "cls-1"]) == ["cls-1"]

    def test_rows_that_fill_their_shards(self, tmp_path: Path) -> None:
        cache = FeatureCache(tmp_path, 2 * feature_cache.SHARD_ROWS, 1, "float32")
        assert cache.shards == 2
        assert cache.shard_rows(1) == slice(feature_cache.SHARD_ROWS, 2 * feature_cache.SHARD_ROWS)

    def test_they_are_memory_mapped(self, cache: FeatureCache) -> None:
        shard = cache.read("mean-1")[0]
        assert not shard.flags.owndata
        assert not shard.flags.writeable
        with open("/proc/self/maps") as maps:
            assert str(cache.shard_path("mean-1", 0)) in maps.read()
        open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit()
                      and os.path.exists(f"/proc/self/fd/{fd}")]  # fmt: skip
        assert str(cache.shard_path("mean-1", 0)) not in open_files

    def test_float16_takes_half_and_rounds_little(self, cache: FeatureCache, values: np.ndarray) -> None:
        rows = 1000
        many = np.random.default_rng(1).normal(size=(rows, 64)).astype(np.float32)
        sizes = {}
        for dtype in ("float32", "float16"):
            half = FeatureCache(cache.folder / dtype, rows, 64, dtype)
            half.folder.mkdir()
            fill(half, many)
            sizes[dtype] = sum(path.stat().st_size for path in half.folder.iterdir())
            overhead = sizes[dtype] - many.size * np.dtype(dtype).itemsize
            assert 0 < overhead < half.shards * 1000
        stored = np.concatenate(half.read("mean-1")).astype(np.float32)
        normal = np.abs(many) > np.finfo(np.float16).tiny
        assert (np.abs(stored - many)[normal] / np.abs(many)[normal]).max() <= 1 / 2048

    def test_what_float16_cannot_hold_is_refused(self, tmp_path: Path) -> None:
        cache = FeatureCache(tmp_path, 1, 2, "float16")
        cache.write("mean-1", 0, np.array([[65_504.0, -65_504.0]], dtype=np.float32))
        assert cache.read("mean-1")[0].tolist() == [[65_504.0, -65_504.0]]
        with pytest.raises(ArgumentsError, match="use float32"):
            cache.write("cls-1", 0, np.array([[70_000.0, 0.0]], dtype=np.float32))
        assert [path.name for path in tmp_path.iterdir()] == ["mean-1.00000.arrow"]


class TestDamage:
    @pytest.mark.parametrize("damage", sorted(DAMAGES))
    def test_it_is_told_and_mended(
        self, cache: FeatureCache, values: np.ndarray, caplog: pytest.LogCaptureFixture, damage: str
    ) -> None:
        path = cache.shard_path("mean-1", 1)
        content = path.read_bytes()
        path.write_bytes(DAMAGES[damage](content))
        assert cache.missing_shards(["mean-1"]) == [1]
        assert f"{path} is damaged (" in caplog.text
        cache.write("mean-1", 1, values[cache.shard_rows(1)])
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        ("rows", "width", "dtype"), [(7, WIDTH, "float32"), (8, WIDTH + 1, "float32"), (8, WIDTH, "float16")]
    )
    def test_another_shape_is_not_taken(
        self, cache: FeatureCache, caplog: pytest.LogCaptureFixture, rows: int, width: int, dtype: str
    ) -> None:
        other = FeatureCache(cache.folder, ROWS, width, dtype)
        other.write("mean-1", 1, np.zeros((rows, width), dtype=np.float32))
        assert cache.missing_shards(["mean-1"]) == [1]
        assert f"holds {rows} x {width} {dtype}, not 8 x 4 float32" in caplog.text

    def test_no_flipped_bit_and_no_cut_changes_what_is_read(self, tmp_path: Path) -> None:
        cache = FeatureCache(tmp_path, 3, WIDTH, "float32")
        values = np.arange(3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)
        cache.write("mean-1", 0, values)
        path = cache.shard_path("mean-1", 0)
        content = path.read_bytes()
        harmless = 0
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            path.write_bytes(damaged)
            if cache.problem("mean-1", 0) is None:
                # Padding, and copies of what stands elsewhere.
                harmless += 1
                np.testing.assert_array_equal(cache.read("mean-1")[0], values)
        assert 0 < harmless < len(content) / 2
        for length in range(0, len(content), 5):
            path.write_bytes(content[:length])
            assert cache.problem("mean-1", 0) not in {None, MISSING}

    def test_other_files_are_damage_too(self, cache: FeatureCache) -> None:
        path = cache.shard_path("mean-1", 0)
        path.unlink()
        assert cache.problem("mean-1", 0) == MISSING
        path.mkdir()
        assert "not readable" in (cache.problem("mean-1", 0) or "")
        assert shard_problem(cache.shard_path("mean-1", 1)) is None


class TestMeta:
    def test_it_is_written_once_and_then_touched(self, cache: FeatureCache) -> None:
        cache.finish(META)
        path = cache.folder / "meta.json"
        assert read_meta(cache.folder) == META
        os.utime(path, (0, 0))
        cache.finish(CacheMeta("the/same/elsewhere", "test", ROWS, WIDTH, "float32", tokens=123))
        assert read_meta(cache.folder) == META
        assert time.time() - path.stat().st_mtime < 60

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "null", '{"rows": 3}', json.dumps({**META.__dict__, "rows": "20"}),
         json.dumps({**META.__dict__, "dtype": "int8"}), json.dumps({**META.__dict__, "rows": 21}),
         json.dumps({**META.__dict__, "more": 1}), "\udcff"],
    )  # fmt: skip
    def test_a_damaged_one_is_rewritten(self, cache: FeatureCache, content: str) -> None:
        (cache.folder / "meta.json").write_text(content, errors="surrogateescape")
        cache.finish(META)
        assert read_meta(cache.folder) == META

    def test_a_full_disk_does_not_end_a_run_whose_features_are_there(
        self, cache: FeatureCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", _no_space)
        cache.finish(META)
        assert "its description is not written: no space left" in caplog.text
        assert read_meta(cache.folder) is None


class TestClaims:
    def test_a_shard_has_one_owner_at_a_time(self, tmp_path: Path) -> None:
        cache = FeatureCache(tmp_path, 8, WIDTH, "float32")
        other = Worker(hold_claim, tmp_path, 0)
        assert other.receive() is True
        with cache.claim(0, wait=False) as is_ours, cache.claim(1, wait=False) as is_other_ours:
            assert not is_ours
            assert is_other_ours
        other.kill()
        assert (tmp_path / "00000.lock").exists()
        # A dead process's lock blocks nobody.
        with cache.claim(0, wait=False) as is_ours:
            assert is_ours
        assert list(tmp_path.iterdir()) == []

    def test_waiting_ends_with_the_other_process(self, tmp_path: Path) -> None:
        other = Worker(hold_claim, tmp_path, 0)
        assert other.receive() is True
        other.process.kill()
        with FeatureCache(tmp_path, 8, WIDTH, "float32").claim(0, wait=True) as is_ours:
            assert is_ours
        other.process.join()

    @pytest.mark.parametrize("lock", [NoLock, FailingLock])
    def test_without_locks_everyone_may(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: type) -> None:
        monkeypatch.setattr(feature_cache, "FileLock", lock)
        cache = FeatureCache(tmp_path, 8, WIDTH, "float32")
        with cache.claim(0, wait=False) as first, cache.claim(0, wait=True) as second:
            assert first
            assert second

    def test_an_error_gives_the_shard_back(self, tmp_path: Path) -> None:
        cache = FeatureCache(tmp_path, 8, WIDTH, "float32")
        with pytest.raises(StorageError), cache.claim(0, wait=False):
            raise StorageError
        with cache.claim(0, wait=False) as is_ours:
            assert is_ours


def test_a_reader_never_sees_a_shard_half_replaced(cache: FeatureCache, values: np.ndarray) -> None:
    replaced = cache.shard_path("mean-1", 0)
    before = replaced.stat().st_mtime_ns
    writer = Worker(rewrite, cache.folder, values[:16], 2)
    assert writer.receive() == "ready"
    stop = time.monotonic() + 1.5
    while time.monotonic() < stop:
        assert cache.missing_shards(["mean-1"]) == []
        np.testing.assert_array_equal(np.concatenate(cache.read("mean-1")), values)
    writer.kill()
    assert replaced.stat().st_mtime_ns > before


def _no_space(*args: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _FullFile:
    """pyarrow's file on a disk that is full after some bytes."""

    def __init__(self, path: str, mode: str):
        self.file = open(path, mode)
        self.left = 700
        self.closed = False

    def write(self, content: Any) -> int:
        self.file.write(bytes(content)[: self.left])
        self.left -= len(bytes(content))
        return _no_space() or 0 if self.left < 0 else len(bytes(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "_FullFile":
        return self

    def __exit__(self, *args: Any) -> None:
        self.file.close()


class TestFullDisk:
    @pytest.mark.parametrize("moment", ["open", "write", "fsync", "replace"])
    def test_the_old_file_stays_and_nothing_else(
        self, cache: FeatureCache, values: np.ndarray, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        path = cache.shard_path("mean-1", 0)
        content, names = path.read_bytes(), sorted(cache.folder.iterdir())
        with monkeypatch.context() as patch:
            if moment == "open":
                patch.setattr(feature_cache.pa, "OSFile", _no_space)
            elif moment == "write":
                patch.setattr(feature_cache.pa, "OSFile", _FullFile)
            else:
                patch.setattr(os, moment, _no_space)
            with pytest.raises(
                StorageError, match=f"no space left for {path}: free some, or set --boost_cache_dir"
            ) as error:
                cache.write("mean-1", 0, values[:8] + 1)
        assert error.value.exit_code == ExitCode.STORAGE == 74
        assert path.read_bytes() == content
        assert sorted(cache.folder.iterdir()) == names

    def test_other_errors_name_the_file_and_the_reason(self, cache: FeatureCache, values: np.ndarray) -> None:
        nowhere = FeatureCache(cache.folder / "missing", ROWS, WIDTH, "float32")
        with pytest.raises(StorageError, match=r"mean-1\.00000\.arrow cannot be written \(.*No such file"):
            nowhere.write("mean-1", 0, values[:8])

    def test_what_is_no_disk_error_passes(self, tmp_path: Path) -> None:
        def fill(path: Path) -> None:
            path.write_text("half")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / "file", fill)
        assert list(tmp_path.iterdir()) == []

    def test_too_little_space_is_refused_with_numbers(self, tmp_path: Path) -> None:
        require_space(tmp_path, 1)
        with pytest.raises(
            StorageError, match=r"need 1,073,741,824\.0 MiB and .* MiB free: .*--boost_storage float16 or int8"
        ):
            require_space(tmp_path, 2**50)

    def test_a_full_tmpfs(self, tmp_path: Path, values: np.ndarray) -> None:
        with small_disk(tmp_path, 64) as folder:
            cache = FeatureCache(folder / "cache", 4000, 4, "float32")
            cache.folder.mkdir()
            many = np.tile(values, (200, 1))
            cache.write("mean-1", 0, many[: feature_cache.SHARD_ROWS])
            with pytest.raises(StorageError, match="no space left for"):
                cache.write("mean-1", 1, many[feature_cache.SHARD_ROWS :])
            assert [path.name for path in cache.folder.iterdir()] == ["mean-1.00000.arrow"]
            assert cache.missing_shards(["mean-1"]) == [1]


class TestFolders:
    def test_temporary_files_go_after_a_day(self, cache: FeatureCache) -> None:
        young = [cache.folder / "mean-1.00000.arrow.tmp-young", cache.folder / "00000.lock"]
        old = [cache.folder / "mean-1.00000.arrow.tmp-old", cache.folder / "00001.lock"]
        for path in young + old:
            path.write_bytes(b"half")
        for path in old:
            os.utime(path, (time.time() - STALE_SECONDS - 1,) * 2)
        sweep_temporary_files(cache.folder)
        assert all(path.exists() for path in young)
        assert not any(path.exists() for path in old)
        assert cache.missing_shards(["mean-1"]) == []

    def test_the_default_lies_in_the_home_of_hugging_face(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert cache_root(None) == Path(os.environ["HF_HOME"], "bertcls_hf", "features")
        monkeypatch.setenv("HOME", "/home/someone")
        assert cache_root("~/cache") == Path("/home/someone/cache")

    def test_writing_problems(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert writing_problem(tmp_path / "new" / "folder") is None
        assert (tmp_path / "new" / "folder").is_dir()
        (tmp_path / "file").touch()
        assert writing_problem(tmp_path / "file" / "folder") == "Not a directory"
        # Root may write anywhere, so the answer is made up.
        monkeypatch.setattr(os, "access", lambda *args: False)
        assert writing_problem(tmp_path) == "Permission denied"


def test_a_warning_names_only_what_is_damaged(cache: FeatureCache, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cache.shard_path("mean-1", 2).unlink()
        assert cache.missing_shards(["mean-1"]) == [2]
    assert caplog.text == ""
