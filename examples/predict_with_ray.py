"""Classify many files on many machines with Ray Data: a line for each text, in a file of predictions for each file.

Every worker runs the code of `bertcls predict`: a file of predictions is whole or has another name, and a worker that
takes up a file goes on where the last one stopped. So each text is in the output exactly once, whatever dies, and the
same command does the rest of a job that was stopped. All machines must see the files under the same paths.

Example:
    python examples/predict_with_ray.py outputs/mine predictions 'reviews/*.parquet' --workers 2
    RAY_ADDRESS=auto python examples/predict_with_ray.py outputs/mine predictions 'reviews/*.parquet' --gpus 1 \
        --dtype bfloat16
"""

import argparse
import glob
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from bertcls_hf.config.command import run_command
from bertcls_hf.config.parsing import DataclassParser
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.predict.arguments import PredictionArguments


class ClassifyFile:
    """Loads a model once, and classifies one file after the other."""

    def __init__(self, model: str, options: PredictionArguments):
        from bertcls_hf.predict.run import load

        self.options, self.predictor = options, load(model, options)

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Writes the predictions for a file, unless they are there, and returns their size."""
        from bertcls_hf.predict.input import open_sources, read_rows
        from bertcls_hf.predict.output import OutputFile
        from bertcls_hf.predict.run import settings, write_predictions

        output = Path(task["output"])
        if not output.exists():
            sources = open_sources([task["file"]], self.options.data(), self.options.stdin_format, sys.stdin.buffer)
            written = OutputFile(output, settings(self.predictor, self.options))
            write_predictions(self.predictor, read_rows(sources), written, self.options)
        return {"output": str(output), "bytes": output.stat().st_size}


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, PredictionArguments]:
    """Reads the command line: what belongs to the job, and the options of `bertcls predict`."""
    parser = DataclassParser([PredictionArguments], description="Classify many files with Ray Data.")
    parser.add_argument("model", help="an output_dir, a Hub id or pypi:PACKAGE")
    parser.add_argument("output_dir", type=Path, help="folder for the predictions")
    parser.add_argument("files", nargs="+", help="files, or patterns of files, of any format that bertcls reads")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with the model (%(default)s)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a worker (%(default)s)")
    options, job = parser.parse_command(words, "files come before the options")
    return job, options


def tasks_of(job: argparse.Namespace, options: PredictionArguments) -> list[dict[str, str]]:
    """Names the output of every file."""
    files = sorted({str(Path(path).absolute()) for pattern in job.files for path in glob.glob(pattern)})
    if not files:
        raise ArgumentsError(f"no file matches {' '.join(job.files)}")
    repeated = [name for name, count in Counter(Path(file).name for file in files).items() if count > 1]
    if repeated:
        raise ArgumentsError(f"several files are named {repeated[0]}, and so would be their predictions: rename them")
    folder = job.output_dir.absolute()
    return [{"file": file, "output": str(folder / f"{Path(file).name}.{options.prediction_format}")} for file in files]


def run(words: Sequence[str]) -> None:
    """Shares the files out among the workers, and says what was written."""
    job, options = parse(words)
    tasks = tasks_of(job, options)
    job.output_dir.mkdir(parents=True, exist_ok=True)
    files = ray.data.from_items(tasks, override_num_blocks=len(tasks))
    written = files.map(
        ClassifyFile, fn_constructor_args=(job.model, options), num_gpus=job.gpus, concurrency=job.workers
    )
    for line in written.iter_rows():
        print(f"{line['output']}: {line['bytes']:,} bytes")


if __name__ == "__main__":
    sys.exit(run_command(run, None))
