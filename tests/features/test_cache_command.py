"""`python -m bertcls_hf.features list|verify|prune`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bertcls_hf.features import cache as feature_cache
from bertcls_hf.features.__main__ import main
from bertcls_hf.features.cache import CacheMeta, FeatureCache
from tests.helpers.reviews import ROOT


DAY = 86_400
FINISHED, HALF = "0123456789abcdef" * 2, "f" * 32


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished cache of 20 rows with a second component half done, an unfinished one, and what is no cache."""
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 8)
    values = np.ones((8, 4), dtype=np.float32)
    for name, shards in ((FINISHED, {"mean-1": 3, "cls-1": 1}), (HALF, {"pooler-0123456789ab": 2})):
        cache = FeatureCache(tmp_path / name, 20, 4, "float32")
        cache.folder.mkdir()
        for component, count in shards.items():
            for shard in range(count):
                cache.write(component, shard, values[: cache.shard_rows(shard).stop - cache.shard_rows(shard).start])
    FeatureCache(tmp_path / FINISHED, 20, 4, "float32").finish(
        CacheMeta("klue/bert", "train", 20, 4, "float32", 12345)
    )
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").touch()
    (tmp_path / ("a" * 32)).touch()
    return tmp_path


def run(root: Path, *arguments: str) -> int:
    return main([*arguments, "--boost_cache_dir", str(root)])


def age(folder: Path, days: float) -> None:
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (time.time() - days * DAY,) * 2)


class TestList:
    def test_it_tells_what_is_there(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        age(root / FINISHED, 12.3)
        assert run(root, "list") == 0
        head, finished, half, total = capsys.readouterr().out.splitlines()
        assert head.split()[:3] == ["key", "MiB", "days"]
        assert finished.split() == [
            FINISHED,
            "0.0",
            "12.3",
            "20",
            "12,345",
            "float32",
            "klue/bert,",
            "train,",
            "cls-1[1/3]",
            "mean-1",
        ]
        assert half.split() == [HALF, "0.0", "0.0", "(extraction", "not", "finished)", "pooler-0123456789ab[2/?]"]
        assert total == f"0.0 MiB in {root}"

    def test_an_empty_and_an_absent_root(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(tmp_path, "list") == run(tmp_path / "absent", "list") == 0
        assert f"0.0 MiB in {tmp_path / 'absent'}" in capsys.readouterr().out
        assert not (tmp_path / "absent").exists()

    @pytest.mark.slow
    def test_it_runs_as_a_module(self, root: Path) -> None:
        command = [sys.executable, "-m", "bertcls_hf.features", "list", "--boost_cache_dir", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert FINISHED in done.stdout
        assert done.stderr == ""


class TestVerify:
    def test_sound(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(root, "verify") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{root / HALF}: no readable meta.json")
        assert lines[1].startswith("0 of 6 shards are damaged")

    def test_damage_is_listed_and_left(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flipped, cut = root / FINISHED / "mean-1.00001.arrow", root / HALF / "pooler-0123456789ab.00000.arrow"
        content = bytearray(flipped.read_bytes())
        content[content.index(np.ones(4, dtype=np.float32).tobytes())] ^= 1
        flipped.write_bytes(content)
        cut.write_bytes(cut.read_bytes()[:100])
        # A shard of another number of rows, under the name of the last.
        short = root / FINISHED / "mean-1.00002.arrow"
        short.write_bytes((root / FINISHED / "mean-1.00000.arrow").read_bytes())
        assert run(root, "verify") == 1
        out = capsys.readouterr().out
        assert f"{flipped}: its content does not match its checksum" in out
        assert f"{cut}: not readable" in out
        assert f"{short}: holds 8 x 4 float32, not 4 x 4 float32" in out
        assert "3 of 6 shards are damaged" in out
        assert flipped.exists()
        assert cut.exists()
        assert short.exists()


class TestPrune:
    def test_what_is_old_goes(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        age(root / FINISHED, 31)
        age(root / HALF, 29)
        size = sum(path.stat().st_size for path in (root / FINISHED).iterdir())
        assert run(root, "prune") == 0
        assert not (root / FINISHED).exists()
        assert (root / HALF).exists()
        assert capsys.readouterr().out == f"{size / 2**20:,.1f} MiB freed\n"

    def test_a_used_cache_stays(self, root: Path) -> None:
        age(root / FINISHED, 31)
        FeatureCache(root / FINISHED, 20, 4, "float32").finish(
            CacheMeta("klue/bert", "train", 20, 4, "float32", 12345)
        )
        run(root, "prune")
        assert (root / FINISHED).exists()

    def test_only_unfinished(self, root: Path) -> None:
        assert run(root, "prune", "--older_than_days", "0", "--unfinished") == 0
        assert (root / FINISHED).exists()
        assert not (root / HALF).exists()

    def test_other_folders_are_not_touched(self, root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        age(root / "thesis", 1000)
        linked = tmp_path_factory.mktemp("linked")
        (linked / "file").touch()
        (root / ("b" * 32)).symlink_to(linked)
        assert run(root, "prune", "--older_than_days", "0") == 0
        assert sorted(path.name for path in root.iterdir()) == ["a" * 32, "b" * 32, "thesis"]
        assert (root / "thesis/chapter.tex").exists()
        assert (linked / "file").exists()


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["purge"])
    assert stop.value.code == 2
    assert "invalid choice: 'purge'" in capsys.readouterr().err
