"""What the benchmarks share: interleaved measurements, ratios to a baseline, a table and the environment."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[1]

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate")


def interleaved(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measures every way once a round, so that a machine's slow minutes fall on all of them.

    Args:
        ways: functions that measure once and return seconds, by name.
        rounds: number of measurements of each; every other round runs in the opposite order.

    Returns:
        The seconds of each way, round by round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(ways[name]())
            print(f"round {number + 1}/{rounds}  {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return seconds


def ratios_to(baseline: str, seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each way's seconds as multiples of the baseline's in the same round."""
    return {
        name: [mine / base for mine, base in zip(values, seconds[baseline], strict=True)]
        for name, values in seconds.items()
    }


def spread(values: Sequence[float]) -> str:
    """The median, and from where to where the values go: `2.01 (1.98-2.05)`."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def environment(*packages: str) -> dict[str, Any]:
    """Versions, also of further packages, and machine, with the load that other work puts on it at the start."""
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in (*PACKAGES, *packages)},
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def words_and_rest() -> tuple[list[str], list[str]]:
    """The words of the command line before and after `--`."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return sys.argv[1:end], sys.argv[end + 1 :]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns; the first is a name, the others are figures."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        name, *figures = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join((name.lstrip().ljust(widths[0]), *figures)))


def report(results: dict[str, Any], output: Path | None) -> None:
    """Prints the environment, and writes everything as JSON where that is asked for."""
    print(", ".join(f"{name} {value}" for name, value in results["environment"].items()))
    if output is not None:
        output.write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
