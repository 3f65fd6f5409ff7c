"""The documented way to serve a model over HTTP: MLflow, where it is installed (it is none of our requirements)."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from transformers import AutoTokenizer, BertConfig, pipeline

from bertcls_hf.models.modeling import to_stock
from tests.helpers.families import make_model
from tests.helpers.reviews import ROOT


pytest.importorskip("mlflow", reason="MLflow is not installed")
TEXTS = ["a good film", "bad bad plot and a really boring story", "lovely " * 200]
SECONDS_TO_START = 120


def packing_command() -> str:
    """The Python code of docs/serving.md that packs outputs/mine."""
    (code,) = re.findall(
        r'^python -c "(import mlflow[^"]+)"$', (ROOT / "docs/serving.md").read_text(), flags=re.MULTILINE
    )
    return code


@contextmanager
def served(folder: Path, port: int) -> Iterator[None]:
    command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", str(folder), "--env-manager",
               "local", "--port", str(port)]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    # A group of its own, since the server starts workers.
    process = subprocess.Popen(command, cwd=folder.parent, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not answers(port):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as response:
            return response.status == 200
    except (URLError, ConnectionError):
        return False


def ask(port: int, texts: list[str]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps({"inputs": texts}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["predictions"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"pooling": "pooler"}, {"pooling": "mean", "pooling_layers": 2}], ids=["stock", "custom"]
)
def test_mlflow_answers_as_a_pipeline_does(tiny_bert: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    folder = tmp_path / "outputs" / "mine"
    model = make_model(BertConfig.from_pretrained(tiny_bert), **options)
    (to_stock(model) or model).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    subprocess.run([sys.executable, "-c", packing_command()], cwd=tmp_path, check=True, timeout=300)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(tmp_path / "outputs" / "mine_mlflow", port):
        answer = ask(port, TEXTS)
    classify = pipeline("text-classification", str(folder), top_k=None)
    for row, expected in zip(answer, classify(TEXTS, truncation=True), strict=True):
        scores = {item["label"]: item["score"] for item in row.values()}
        assert scores == pytest.approx({item["label"]: item["score"] for item in expected}, abs=1e-5)
