"""Changes the code at random places, one at a time, and counts of how many changes the tests take notice.

    python tools/mutants.py
    python tools/mutants.py data trainer --number 100 --seed 1

Cosmic Ray makes the changes: another operator, comparison, number, keyword or exception, no `not`, no decorator, an
empty loop. Those of type annotations are left out, since each would be noticed when the module is imported. The tests
of the room are run, without the slow ones. What survives is listed, with the lines that were changed.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.work_item import MutationSpec, TestOutcome


ROOT = Path(__file__).parents[1]
TIME_LIMIT_S = 600.0
KILLED, SURVIVED = "killed", "survived"


@dataclass(frozen=True)
class Area:
    """Code and its tests, by paths; folders stand for all that is in them."""

    code: tuple[str, ...]
    tests: tuple[str, ...]


AREAS = {
    "data": Area(("bertcls_hf/data",), ("tests/data",)),
    "features": Area(("bertcls_hf/features",), ("tests/features", "tests/run/test_lexical_features.py")),
    "checkpoints": Area(
        (
            "bertcls_hf/training/checkpoints.py", "bertcls_hf/training/resume.py",
            "bertcls_hf/training/run_identity.py", "bertcls_hf/training/output_folder.py",
            "bertcls_hf/manifests.py", "bertcls_hf/atomic_files.py",
        ),
        (
            "tests/training/test_resume.py", "tests/training/test_same_training.py",
            "tests/training/test_output_folder.py", "tests/run/test_verify.py", "tests/training/test_faults.py",
        ),
    ),
    "trainer": Area(
        (
            "bertcls_hf/training/trainer.py", "bertcls_hf/training/optimizer.py", "bertcls_hf/training/samplers.py",
            "bertcls_hf/training/collators.py", "bertcls_hf/training/callbacks.py",
            "bertcls_hf/training/head_trainer.py",
        ),
        (
            "tests/training/test_trainer.py", "tests/training/test_schedules.py",
            "tests/training/test_head_trainer.py", "tests/training/test_samplers.py", "tests/training/test_faults.py",
            "tests/data/test_streaming.py",
        ),
    ),
}  # fmt: skip


def files_of(paths: tuple[str, ...]) -> list[Path]:
    return sorted(
        file for path in paths for file in ([Path(path)] if path.endswith(".py") else Path(path).glob("*.py"))
    )


def all_changes(area: Area) -> list[MutationSpec]:
    """Every change of the code, in the order of files, operators and places."""
    names = [name for name in sorted(operator_names()) if "BitOr" not in name and not get_operator(name).arguments()]
    found = []
    for file in files_of(area.code):
        tree = get_ast_from_path(file)
        for name in names:
            operator = get_operator(name)()
            places = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
            found += [MutationSpec(str(file), name, number, *place) for number, place in enumerate(places)]
    return found


def outcome_of(change: MutationSpec, tests: tuple[str, ...], copies: str) -> tuple[str, str]:
    """Runs the tests on a change, in this process's own copy of the repository; returns the outcome and the lines."""
    copy = Path(copies, str(os.getpid()))
    if not copy.exists():
        copy_repository(copy)
    os.chdir(copy)
    command = f"{sys.executable} -m pytest -x -m 'not slow and not night' -p no:cacheprovider {' '.join(tests)}"
    result = mutate_and_test([change], command, TIME_LIMIT_S)
    return (SURVIVED if result.test_outcome == TestOutcome.SURVIVED else KILLED), result.diff or result.output or ""


def copy_repository(target: Path) -> None:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    for name in filter(None, names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)


def changed_lines(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] != "+++"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)} (all)")
    parser.add_argument("--number", type=int, default=40, help="changes of an area (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their choice (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(%(default)s)")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    os.environ.pop("PYTHONPATH", None)
    for name in options.areas or AREAS:
        area = AREAS[name]
        changes = all_changes(area)
        chosen = random.Random(options.seed).sample(changes, min(options.number, len(changes)))
        counted: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as copies, ProcessPoolExecutor(options.processes) as pool:
            for change, (outcome, diff) in zip(
                chosen, pool.map(outcome_of, chosen, repeat(area.tests), repeat(copies)), strict=True
            ):
                counted[outcome] += 1
                if outcome == SURVIVED:
                    print("\n".join([f"{change.module_path}:{change.start_pos[0]}", *changed_lines(diff)]), flush=True)
        share = counted[KILLED] / counted.total()
        print(
            f"{name}: {counted[KILLED]} of {counted.total()} noticed ({share:.0%}), of {len(changes)} possible changes"
        )


if __name__ == "__main__":
    main()
