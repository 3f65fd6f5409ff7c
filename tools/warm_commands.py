"""Runs Python commands as forks of a process that has already imported the large libraries.

Each command saves the seconds of its imports, which are most of a refusal's time. `WarmPython` starts this file as a
server with a folder and an environment; the server reads a job per line and answers with its exit code.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


LIBRARIES = (
    "datasets",
    "matplotlib.pyplot",
    "pyarrow.parquet",
    "sklearn.linear_model",
    "sklearn.metrics",
    "torch",
    "torch._dynamo",  # optimizers import it
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.trainer",
)


class WarmPython:
    """A server in the folder `cwd`; use it as a context."""

    def __init__(self, cwd: Path, environment: Mapping[str, str], streams: Path):
        self.streams = streams
        self.streams.mkdir()
        self.server = subprocess.Popen(
            [sys.executable, __file__], cwd=cwd, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            encoding="utf-8",
        )  # fmt: skip

    def __enter__(self) -> "WarmPython":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.communicate()

    def run(self, words: Sequence[str], stdin: Path | None) -> subprocess.CompletedProcess[str]:
        """Runs `python WORDS`, where the first word is a script, or -m and a module.

        Raises:
            RuntimeError: The server has ended.
        """
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        stdout, stderr = self.streams / "stdout", self.streams / "stderr"
        job = {"words": list(words), "stdin": str(stdin or os.devnull), "stdout": str(stdout), "stderr": str(stderr)}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        if not answer:
            raise RuntimeError("the server of warm commands has ended")
        return subprocess.CompletedProcess(
            job["words"], int(answer), stdout.read_text(encoding="utf-8"), stderr.read_text(encoding="utf-8")
        )


def serve() -> None:
    """Forks once per job; the fork leaves this function as the command that it runs."""
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.path[0] = os.getcwd()
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            run_job(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run_job(job: dict[str, Any]) -> None:
    """Runs a command in this process, with its own standard streams."""
    for number, (name, flags) in enumerate(
        {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY, "stderr": os.O_WRONLY}.items()
    ):
        descriptor = os.open(job[name], flags if name == "stdin" else flags | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    if job["words"][0] == "-m":
        sys.argv = job["words"][1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = job["words"]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
