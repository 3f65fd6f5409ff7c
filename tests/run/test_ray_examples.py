"""The jobs for many machines, on two workers of a local Ray: exactly once, also where a worker dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertcls_hf.predict.__main__ import main as predict
from bertcls_hf.run import main
from tests.helpers.feature_runs import counted_shards
from tests.helpers.reviews import ROOT, review, write_reviews


pytest.importorskip("ray", reason="ray is not installed")

FILES, ROWS = 14, 300


def start(example: str, *words: object, mark: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "TEST_MARK": mark,
                   "PYTHONPATH": str(ROOT)}  # fmt: skip
    command = [sys.executable, str(ROOT / "examples" / example), *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    )


def workers_of(mark: str) -> list[int]:
    """The processes of Ray that hold a model for the job with this mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:  # It has ended.
            continue
        if b"ray::MapWorker" in name and f"TEST_MARK={mark}".encode() in environment:
            found.append(int(folder.name))
    return found


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-4000:]
    return output


@pytest.mark.night
def test_every_text_is_predicted_once_though_a_worker_is_killed(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert main(command(num_train_epochs=1, eval_strategy="no", save_strategy="no")) == 0
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(FILES):
        lines = [review(number * ROWS + row)[0] for row in range(ROWS)]
        pq.write_table(pa.table({"text": lines}), texts / f"{number:02d}.parquet")
    output = tmp_path / "predictions"
    # A job before this one has done the last file.
    output.mkdir()
    last = output / f"{FILES - 1:02d}.parquet.jsonl"
    assert predict([str(tmp_path / "out"), str(texts / f"{FILES - 1:02d}.parquet"), "--output_file", str(last)]) == 0
    time_before = last.stat().st_mtime_ns
    job = start("predict_with_ray.py", tmp_path / "out", output, texts / "*.parquet", mark=str(tmp_path))
    while len(list(output.glob("*.jsonl"))) < 4:
        assert job.poll() is None, job.communicate()[0][-4000:]
        time.sleep(0.05)
    os.kill(workers_of(str(tmp_path))[0], signal.SIGKILL)
    finish(job)
    written = sorted(output.iterdir())
    assert [path.name for path in written] == [f"{number:02d}.parquet.jsonl" for number in range(FILES)]
    assert last.stat().st_mtime_ns == time_before
    alone = tmp_path / "alone.jsonl"
    assert predict([str(tmp_path / "out"), str(texts / "00.parquet"), "--output_file", str(alone)]) == 0
    assert written[0].read_bytes() == alone.read_bytes()
    predicted = [json.loads(line)["text"] for path in written for line in path.read_text().splitlines()]
    assert predicted == [review(row)[0] for row in range(FILES * ROWS)]


@pytest.mark.night
def test_a_training_finds_what_a_job_has_cached(command: Callable[..., list[str]], tmp_path: Path) -> None:
    for number in range(5):
        write_reviews(tmp_path / f"part-{number}.csv", 20 + number, start=number * 30)
    options = command(train_file=tmp_path / "part-*.csv", streaming=True, boost=True, learning_rate=None,
                      num_train_epochs=1, boost_cache_dir=tmp_path / "cache")  # fmt: skip
    output = finish(start("extract_with_ray.py", "--workers", 1, "--", *options, mark=str(tmp_path)))
    assert "110 rows in 5 groups of files" in output
    with counted_shards() as computed:
        assert main(options) == 0
    assert computed == [0, 0]  # of validation and test
