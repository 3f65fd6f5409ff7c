"""Other processes that start in milliseconds, because a server that has imported the package forks them.

They hold none of this process's threads or locks, and can be killed. Nothing here imports conftest, which would make
its folders anew in the server.
"""

import importlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch


ROOT = Path(__file__).parents[2]
ENTRY = "bertcls_hf.run.pipeline"
PRELOADED = [
    ENTRY,
    "bertcls_hf.training.sweep",
    "bertcls_hf.predict.run",
    "tests.helpers.feature_runs",
]


class Worker:
    """A process that runs a function of a module; the function's first argument is the end of a pipe."""

    def __init__(self, function: Callable[..., None], *args: Any):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *PRELOADED])
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_start, args=(function, other, *args), daemon=True)
        # The first one starts the server, which finds modules by this variable alone.
        with patch.dict(os.environ, {"PYTHONPATH": str(ROOT)}):
            self.process.start()
        other.close()

    def receive(self, seconds: float = 60) -> Any:
        """What it sends next; EOFError where it died."""
        assert self.connection.poll(seconds), "the process does not answer"
        return self.connection.recv()

    def go(self) -> None:
        """Lets a process that is ready begin."""
        assert self.receive() == "ready"
        self.connection.send("go")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join()


def _start(function: Callable[..., None], connection: Any, *args: Any) -> None:
    torch.set_num_threads(1)
    function(connection, *args)
    connection.close()


def note(folder: Path, name: str, lines: list[str]) -> None:
    """Adds lines to the notes that this rank keeps under a name."""
    with (folder / f"{name}.{os.environ['RANK']}").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def notes_of(folder: Path, name: str, rank: int) -> list[str]:
    """What a rank has noted; nothing if it came too late to find work."""
    path = folder / f"{name}.{rank}"
    return path.read_text().splitlines() if path.exists() else []


@dataclass(frozen=True)
class Finished:
    """How a run of the entry script ended: its exit code, negative for a signal, and all that it printed."""

    code: int
    output: str


def run_ranks(argv: list[str], processes: int, prepare: Callable[[], None] | None = None) -> Finished:
    """Runs the entry script in gloo ranks with the environment that `recipes/accelerate/cpu_ddp.yaml` gives them.

    Args:
        argv: the options of the run; "{RANK}" in one is replaced by the rank's number.
        processes: the number of ranks; 1 is a run without any.
        prepare: called in every rank before the run; a function of a module.
    """
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        codes = [rank.wait() for rank in start_ranks(argv, processes, log, prepare)]
        return Finished(max(codes, key=abs), log.read_text(encoding="utf-8"))


def start_ranks(
    argv: list[str], processes: int, log: Path, prepare: Callable[[], None] | None = None, module: str = ENTRY
) -> list["EntryScript"]:
    """Starts what [`run_ranks`] waits for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
              "ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": 1}  # fmt: skip
    if processes == 1:
        shared = {}
    return [
        EntryScript(
            [word.replace("{RANK}", str(rank)) for word in argv],
            {**shared, "RANK": rank, "LOCAL_RANK": rank} if shared else {},
            log,
            prepare,
            module,
        )
        for rank in range(processes)
    ]


class EntryScript(Worker):
    """A run of the entry script, or of another command of the package.

    Args:
        argv: the arguments.
        environment: what is added to the environment.
        log: the file that standard output and error are added to.
        prepare: called before the run; a function of a module, with arguments bound by `functools.partial`.
        module: the module whose function `main` is run.
    """

    def __init__(
        self,
        argv: list[str],
        environment: Mapping[str, object] | None = None,
        log: Path | str = os.devnull,
        prepare: Callable[[], None] | None = None,
        module: str = ENTRY,
    ):
        added = {name: str(value) for name, value in (environment or {}).items()}
        super().__init__(_run_main, module, argv, added, str(log), prepare)

    def wait(self, seconds: float = 240) -> int:
        """Its exit code, negative for a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "the process does not end"
        return self.process.exitcode


def _run_main(
    connection: Any,
    module: str,
    argv: list[str],
    environment: dict[str, str],
    log: str,
    prepare: Callable[[], None] | None,
) -> None:
    os.environ.update(environment)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if prepare is not None:
        prepare()
    code = importlib.import_module(module).main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(int(code))
