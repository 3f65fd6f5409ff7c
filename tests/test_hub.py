"""Pushing: only named files, and a failure that loses nothing."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForSequenceClassification

from bertcls_hf.hub import NOT_PUSHED, PUSHED_FILES
from run_classification import main


@pytest.fixture
def refusing_hub() -> Iterator[tuple[str, list[str]]]:
    """A server that answers 401 to everything, and the requests that it got."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            requests.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b'{"error": "Invalid credentials"}'
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_HEAD = answer

        def log_message(self, *args: object) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()


def run(argv: list[str], endpoint: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_canary0123456789"}
    command = [sys.executable, str(ROOT / "run_classification.py"), *argv]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)


def test_a_refused_push_exits_77_and_leaves_the_model(
    command: Callable[..., list[str]], tmp_path: Path, refusing_hub: tuple[str, list[str]]
) -> None:
    endpoint, requests = refusing_hub
    done = run(command(num_train_epochs=1, push_to_hub=True, hub_model_id="me/model"), endpoint, tmp_path)
    assert done.returncode == 77, done.stderr[-2000:]
    out = tmp_path / "out"
    assert "pushing to me/model failed" in done.stderr.splitlines()[-1]
    assert f"python -m bertcls_hf.hub push {out} --hub_model_id me/model" in done.stderr
    assert "hf_canary0123456789" not in done.stderr + done.stdout
    assert AutoModelForSequenceClassification.from_pretrained(out).config.id2label == {0: "neg", 1: "pos"}
    # One attempt, after training: neither the start of the Trainer nor its checkpoints touch the Hub.
    assert [request for request in requests if "repos/create" in request] == ["POST /api/repos/create"]


def test_an_unreachable_hub_exits_77(command: Callable[..., list[str]], tmp_path: Path) -> None:
    options = command(num_train_epochs=1, push_to_hub=True, hub_model_id="me/model")
    done = run(options, "http://127.0.0.1:9", tmp_path)
    assert done.returncode == 77, done.stderr[-2000:]


def test_without_the_flag_nothing_is_asked_of_the_hub(
    command: Callable[..., list[str]], tmp_path: Path, refusing_hub: tuple[str, list[str]]
) -> None:
    endpoint, requests = refusing_hub
    assert run(command(num_train_epochs=1), endpoint, tmp_path).returncode == 0
    assert requests == []


def test_only_what_a_user_of_the_model_needs_is_pushed(command: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main(command(pooling="mean", do_train=True, do_predict=True)) == 0
    out = tmp_path / "out"
    for junk in (".env", "notes.txt", "training_args.bin", "events.out.tfevents.1", "cache.arrow"):
        (out / junk).touch()
    files = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
    pushed = set(filter_repo_objects(files, allow_patterns=list(PUSHED_FILES), ignore_patterns=NOT_PUSHED))
    assert pushed == {
        "README.md", "config.json", "model.safetensors", "modeling.py", "tokenizer.json", "tokenizer_config.json",
        "recipe.yaml", "train_results.json", "eval_results.json", "test_results.json", "all_results.json",
        "eval_report.json", "test_report.json",
    }  # fmt: skip
