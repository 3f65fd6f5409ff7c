"""A campaign of faults: small runs, each with one fault, are run again and compared with an undisturbed run.

    python -m tests.faults.campaign
    python -m tests.faults.campaign --modes boost --faults kill --every 5

A fault is placed at one file operation of the run: `kill` sends SIGKILL before it, `full` lets it find no space on the
disk. `moment` sends SIGKILL at a random moment, also inside a library that writes without Python. `damage` changes one
file that a killed run left: it is removed, cut, zeroed inside, or one bit of it is turned. The same command with
`--resume_from_checkpoint auto` must then end like the undisturbed run, bit for bit, or with one sentence and its code.
The outcomes are counted:

- `equal`: the second run ended, with the same weights, history and results;
- `refused`: it ended with a documented exit code, and a third run in a new folder is what is left to do;
- `WRONG`: it ended without an error, and with another result;
- `RESTARTED`: it began afresh without a word, although a complete checkpoint was there;
- `UNFORESEEN`: a run ended with a traceback, or a code that no page documents;
- `ORPHAN`: a process outlived the killed run.
"""

import argparse
import contextlib
import functools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bertcls_hf.errors import ExitCode
from bertcls_hf.training.checkpoints import newest_checkpoint
from tests.helpers.hub_client import talk_to
from tests.helpers.hub_server import USER, Hub, serve_hub
from tests.helpers.reviews import write_reviews
from tests.helpers.tiny_bert import write_review_bert
from tests.helpers.training_runs import assert_identical_run
from tests.helpers.warm_processes import ENTRY, EntryScript, start_ranks


EQUAL, REFUSED, WRONG, RESTARTED, UNFORESEEN, ORPHAN = (
    "equal", "refused", "WRONG", "RESTARTED", "UNFORESEEN", "ORPHAN",
)  # fmt: skip
OUTCOMES = (EQUAL, REFUSED, WRONG, RESTARTED, UNFORESEEN, ORPHAN)
GOOD = {EQUAL, REFUSED}
FAULTS = ("kill", "moment", "full", "damage")
COMMON = {
    "learning_rate": 1e-3, "per_device_train_batch_size": 8, "logging_steps": 1, "disable_tqdm": True, "use_cpu": True,
    "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 2,
    "num_train_epochs": 1, "calibrate": True,
}  # fmt: skip


@dataclass(frozen=True)
class Mode:
    """A kind of run.

    Args:
        options: what a training's options are beside the common ones.
        module: the module of the command.
        again: what the command gets when it is run again.
        processes: the number of ranks, of which the first one meets the fault.
        is_pushed: whether a training pushes to a Hub on this machine.
    """

    options: dict[str, Any] = field(default_factory=dict)
    module: str = ENTRY
    again: tuple[str, ...] = ("--resume_from_checkpoint", "auto")
    processes: int = 1
    is_pushed: bool = False


MODES = {
    "fine-tuned": Mode(),
    "averaged": Mode({"weight_averaging": "ema", "lexical_features": True}),
    "boost": Mode({"boost": True, "learning_rate": None}),
    "head, then all": Mode({"boost": True, "freeze_backbone": False, "head_num_train_epochs": 1}),
    "stream": Mode({"streaming": True, "num_train_epochs": None, "max_steps": 6, "shuffle_buffer_size": 16}),
    "two ranks": Mode({"per_device_train_batch_size": 4}, processes=2),
    "pushed": Mode({"push_to_hub": True, "hub_strategy": "every_save"}, is_pushed=True),
    "predict": Mode(module="bertcls_hf.predict.__main__", again=()),
    "export": Mode(module="bertcls_hf.export.__main__", again=("--overwrite",)),
}
PREDICTED = "lines.jsonl"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda content: None,
    "cut": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: content[:20] + bytes(max(len(content) - 40, 0)) + content[-20:],
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


def watch(root: str, number: int, fault: str | None, counted: str | None = None) -> None:
    """Counts this process's changes of files below a folder; the one of this number meets the fault.

    Args:
        root: the folder.
        number: the number of the change.
        fault: `kill`, `full`, or None for none.
        counted: a file that gets the number of changes when the process ends.
    """
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if os.environ.get("RANK", "0") != "0":
            return
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if not (is_write or event in CHANGES) or not str(arguments[0]).startswith(root):
            return
        count += 1
        if count == number and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == number and fault == "full":
            raise OSError(28, "No space left on device", str(arguments[0]))

    sys.addaudithook(hook)
    if counted is not None:
        # An exit handler would not run in a process that multiprocessing started.
        original = sys.exit

        def leave(code: Any = None) -> None:
            Path(counted).write_text(str(count))
            original(code)

        sys.exit = leave  # type: ignore[assignment]


def prepare_run(root: str, number: int, fault: str | None, counted: str | None, endpoint: str, folder: str) -> None:
    """Prepares a process that runs a mode: see [`watch`]; it works in a folder, and a Hub is at this endpoint."""
    talk_to(endpoint, Path(folder))
    if fault is not None or counted is not None:
        watch(root, number, fault, counted)


@dataclass
class Campaign:
    """The data, the encoder and the undisturbed runs of all trials.

    Args:
        root: a folder for everything.
        hub: what is pushed to.
    """

    root: Path
    hub: Hub
    outcomes: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    milliseconds: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encoder = write_review_bert(self.root / "bert", layers=2)
        self.files = {
            name: write_reviews(self.root / f"{name}.csv", rows, start=start)
            for name, rows, start in (("train", 48, 0), ("validation", 16, 100), ("test", 17, 200))
        }

    def words(self, name: str, folder: Path) -> list[str]:
        """Returns the command of a mode; everything that it writes lies in the folder."""
        mode = MODES[name]
        if mode.module != ENTRY:
            return self.words_of_other_commands(name, folder)
        options = {
            **COMMON, "model_name_or_path": self.encoder, "output_dir": folder / "out",
            **{f"{name}_file": path for name, path in self.files.items()},
            **({"boost_cache_dir": folder / "features"} if mode.options.get("boost") else {}),
            **({"hub_model_id": self.repository(folder)} if mode.is_pushed else {}), **mode.options,
        }  # fmt: skip
        return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]

    def words_of_other_commands(self, name: str, folder: Path) -> list[str]:
        """Returns the command of a mode that reads a trained model."""
        model, out = str(self.whole("fine-tuned")[0]), folder / "out"
        if name == "export":
            return [model, "--output_dir", str(out)]
        out.mkdir(exist_ok=True)
        return [model, str(self.files["train"]), "--output_file", str(out / PREDICTED), "--chunk_rows", "8",
                "--device", "cpu", "--disable_tqdm"]  # fmt: skip

    def repository(self, folder: Path) -> str:
        """Returns the repository that a run in a folder pushes to."""
        return f"{USER}/{folder.name.replace(' ', '-')}"

    def start(
        self, name: str, folder: Path, words: list[str], number: int = -1, fault: str | None = None,
        counted: Path | None = None, log: Path | None = None,
    ) -> list[EntryScript]:  # fmt: skip
        """Starts the processes of a mode; the first one meets a fault or counts its changes of files."""
        prepare = functools.partial(
            prepare_run, str(folder / "out"), number, fault, None if counted is None else str(counted),
            self.hub.endpoint, str(folder),
        )  # fmt: skip
        return start_ranks(words, MODES[name].processes, log or Path(os.devnull), prepare, MODES[name].module)

    def whole(self, name: str) -> tuple[Path, int]:
        """Returns the output_dir of the undisturbed run of a mode, and the number of its changes of files."""
        folder, counted = self.root / f"whole {name}", self.root / f"changes {name}"
        if not folder.exists():
            folder.mkdir()
            words = self.words(name, folder)
            begin = time.monotonic()
            assert not any(run.wait() for run in self.start(name, folder, words, counted=counted))
            self.milliseconds[name] = round(1000 * (time.monotonic() - begin))
        return folder / "out", int(counted.read_text())

    def trial(self, name: str, fault: str, number: int) -> str:
        """Runs a mode with a fault, and again without; returns the outcome.

        Args:
            name: that of the mode.
            fault: `kill`, `full` or `moment`.
            number: the number of the change of a file at which the fault comes, or the milliseconds after the start.
        """
        folder = self.new_folder()
        log = folder / "first.log"
        at = None if fault == "moment" else fault
        first, *others = self.start(name, folder, self.words(name, folder), number, at, log=log)
        if fault == "moment":
            first.process.join(number / 1000)
            first.kill()
        code = first.wait()
        for other in others:
            # As a launcher does when a rank has died.
            other.kill()
        if psutil.Process().children() and any(_is_run(child, folder) for child in psutil.Process().children(True)):
            return ORPHAN
        if fault == "full" and not _is_documented(code):
            return UNFORESEEN
        return self.second_run(name, folder)

    def new_folder(self) -> Path:
        """Returns an empty folder for a trial; a pushed one finds no repository of that name."""
        folder = self.root / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.hub.repositories.pop(self.repository(folder), None)
        return folder

    def damage(self, name: str, file: str, damage: str, killed: Path) -> str:
        """Damages a file that a killed run left, and runs the mode again; returns the outcome."""
        folder = self.new_folder()
        shutil.copytree(killed, folder, dirs_exist_ok=True)
        path = folder / file
        content = DAMAGES[damage](path.read_bytes()) if path.stat().st_size else None
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        return self.second_run(name, folder, is_damaged=True)

    def second_run(self, name: str, folder: Path, is_damaged: bool = False) -> str:
        """Runs a mode again, resuming where it can, and compares it with the undisturbed run."""
        whole, _ = self.whole(name)
        had_checkpoint = newest_checkpoint(folder / "out") is not None
        log = folder / "second.log"
        words = [*self.words(name, folder), *MODES[name].again]
        if (folder / "out" / PREDICTED).exists():
            # A finished output is not written again.
            return self.compared(name, whole, folder / "out")
        code = max((run.wait() for run in self.start(name, folder, words, log=log)), key=abs)
        if code != 0:
            return REFUSED if _is_documented(code) else UNFORESEEN
        if had_checkpoint and "starting fresh" in log.read_text() and not is_damaged:
            return RESTARTED
        return self.compared(name, whole, folder / "out")

    def compared(self, name: str, whole: Path, other: Path) -> str:
        """Compares what two runs of a mode have written; returns the outcome."""
        try:
            self.compare(name, whole, other)
        except (AssertionError, OSError, KeyError, ValueError):
            return WRONG
        return EQUAL

    def compare(self, name: str, whole: Path, other: Path) -> None:
        """Raises an error where two runs of a mode have written something else."""
        if name == "predict":
            assert (whole / PREDICTED).read_bytes() == (other / PREDICTED).read_bytes()
            return
        if name == "export":
            files = [sorted(path.relative_to(out) for path in out.rglob("*")) for out in (whole, other)]
            assert files[0] == files[1]
            for file in files[0]:
                if (whole / file).is_file() and file.name != "onnx_report.json":  # which has timings
                    assert (whole / file).read_bytes() == (other / file).read_bytes(), file
            return
        assert_identical_run(whole, other)
        if MODES[name].is_pushed:
            pushed = self.hub.repositories[self.repository(other.parent)].files()
            for file in ("model.safetensors", "config.json", "README.md", "calibration.json"):
                assert pushed[file] == (other / file).read_bytes(), file

    def note(self, mode: str, fault: str, place: str, outcome: str) -> None:
        """Counts an outcome, and keeps a bad one's place."""
        self.outcomes.setdefault((mode, fault), Counter())[outcome] += 1
        if outcome not in GOOD:
            self.bad.append(f"{outcome}: {mode}, {fault} at {place}")

    def run(self, mode: str, fault: str, numbers: Sequence[int]) -> None:
        """Runs all trials of a mode and a fault."""
        for number in numbers:
            place = f"{number} ms" if fault == "moment" else f"change {number}"
            self.note(mode, fault, place, self.trial(mode, fault, number))

    def moments(self, mode: str, number: int, seed: int) -> list[int]:
        """Draws milliseconds within the time that the undisturbed run takes."""
        self.whole(mode)
        return [random.Random(seed).randrange(self.milliseconds[mode]) for seed in range(seed, seed + number)]

    def run_damages(self, mode: str, every: int = 1) -> None:
        """Damages each file that a run leaves which is killed while it evaluates, in each way."""
        _, changes = self.whole(mode)
        killed = self.root / f"killed {mode}"
        killed.mkdir()
        first, *others = self.start(mode, killed, self.words(mode, killed), changes * 2 // 3, "kill")
        assert first.wait() == -signal.SIGKILL
        for other in others:
            other.kill()
        # The command names folders, which a copy has elsewhere.
        files = sorted(path.relative_to(killed).as_posix() for path in killed.rglob("*") if path.is_file())
        for name in [name for name in files if not name.endswith((".lock", ".log"))][::every]:
            for damage in DAMAGES:
                self.note(mode, "damage", f"{name}, {damage}", self.damage(mode, name, damage, killed))

    def table(self) -> str:
        """Returns the table of outcomes."""
        lines = [("mode", "fault", "trials", *OUTCOMES)]
        for (mode, fault), found in self.outcomes.items():
            lines.append((mode, fault, str(sum(found.values())), *(str(found[outcome]) for outcome in OUTCOMES)))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        rows = (zip(line, widths, strict=True) for line in lines)
        return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in row) for row in rows)


def _is_documented(code: int) -> bool:
    return code in set(ExitCode) - {ExitCode.UNFORESEEN}


def _is_run(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in process.cmdline())
    return False


@contextlib.contextmanager
def new_campaign() -> Iterator[Campaign]:
    """Makes a campaign in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bertcls_hf_faults_") as folder, serve_hub() as hub:
        yield Campaign(Path(folder), hub)


def main() -> int:
    """Runs the campaign, prints its table, and returns 1 if an outcome was bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--every", type=int, default=1, help="try each n-th place alone (%(default)s)")
    parser.add_argument("--moments", type=int, default=60, help="random kills of a mode (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and places (%(default)s)")
    options = parser.parse_args()
    with new_campaign() as campaign:
        for mode in options.modes:
            changes = campaign.whole(mode)[1]
            start = random.Random(options.seed).randrange(options.every)
            for fault in options.faults:
                if fault == "damage":
                    campaign.run_damages(mode, options.every)
                elif fault == "moment":
                    campaign.run(mode, fault, campaign.moments(mode, options.moments, options.seed))
                else:
                    campaign.run(mode, fault, list(range(1 + start, changes + 1, options.every)))
                sys.stderr.write(f"{campaign.table().splitlines()[-1]}\n")
        sys.stdout.write("\n".join([campaign.table(), *campaign.bad]) + "\n")
        return int(bool(campaign.bad))


if __name__ == "__main__":
    # Caches of its own, before anything reads where they are.
    if "HF_HOME" not in os.environ or os.environ.get("BERTCLS_FAULTS") != os.environ["HF_HOME"]:
        with tempfile.TemporaryDirectory(prefix="bertcls_hf_faults_home_") as home:
            environment = {**os.environ, "HF_HOME": home, "BERTCLS_FAULTS": home, "HF_HUB_OFFLINE": "1",
                           "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}  # fmt: skip
            sys.exit(os.spawnve(os.P_WAIT, sys.executable, [sys.executable, *sys.orig_argv[1:]], environment))
    sys.exit(main())
