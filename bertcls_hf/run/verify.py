"""The command `bertcls verify`: whether a finished run is as it was written, and whether it can be repeated."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcls_hf.atomic_files import read_json
from bertcls_hf.config.command import run_command, set_up_logging
from bertcls_hf.config.parsing import RECIPE_FILE, build_arguments, explicit_options
from bertcls_hf.errors import DataError
from bertcls_hf.manifests import (
    IDENTITY,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    checked_manifest,
    describe_again,
    read_manifest,
    write_manifest,
)
from bertcls_hf.run.sign import check_signature


if TYPE_CHECKING:
    import torch

    from bertcls_hf.hub.card.finished_run import FinishedRun

logger = logging.getLogger(__name__)

PROGRAM = "python -m bertcls_hf.run.verify"
# In a manifest: what the run ran on.
MACHINE = "machine"
WEIGHTS_FILE, RESULTS_FILE = "model.safetensors", "all_results.json"
# Results that change with the machine and its load.
TIMINGS = ("runtime", "per_second", "preparation_time")


def write_run_manifest(finished: "FinishedRun") -> None:
    """Writes `manifest.json` into output_dir: a digest of each file of the run, its data, options and machine.

    An evaluation in the folder of a training only describes its files beside those of the training.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    import torch

    from bertcls_hf.hub.card.environment import device_name, versions

    folder, training = finished.folder, finished.args.training
    if not finished.has_trained and (folder / MANIFEST_FILE).is_file():
        describe_again(folder, run_files(folder))
        return
    identity = finished.trainer.identity
    machine = {
        "versions": versions(),
        "device": device_name(training),
        "processes": training.world_size,
        "threads": torch.get_num_threads(),
    }
    described = None if identity is None else identity.as_json()
    write_manifest(folder, run_files(folder), {IDENTITY: described, MACHINE: machine})


def run_files(folder: Path) -> list[Path]:
    """Lists the files of a finished run: those of output_dir itself, and its pictures."""
    found = [*folder.iterdir(), *folder.glob("figures/*.png")]
    own = (MANIFEST_FILE, SIGNATURE_FILE)
    return [path for path in found if path.is_file() and path.name not in own and path.name[0] not in "._"]


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    set_up_logging()
    return run_command(lambda words: _run_words(words, program), argv)


def _run_words(words: Sequence[str], program: str) -> None:
    parser = argparse.ArgumentParser(prog=program, description="Compares a finished run with its manifest.")
    parser.add_argument("folder", type=Path, help="output_dir of the run")
    parser.add_argument(
        "--retrain", action="store_true", help="also repeat the run from its recipe, and compare weights and results"
    )
    parser.add_argument(
        "--public_key", type=Path, metavar="PEM", help="also check the signature that bertcls sign wrote with its key"
    )
    args = parser.parse_args(words)
    verify(args.folder, args.retrain, args.public_key)


def verify(folder: Path, retrain: bool = False, public_key: Path | None = None) -> None:
    """Compares the files of a finished run with its manifest, and prints what was compared.

    Args:
        folder: output_dir.
        retrain: whether the run is also repeated, in a temporary folder, and compared.
        public_key: PEM file of the key that must have signed the folder; None checks no signature.

    Raises:
        ArgumentsError: the folder has no manifest that can be read, or no signature, or the key cannot be read.
        DataError: a file is missing or was changed, the signature is another one, or the repeated run ends with other
            weights.
    """
    manifest = checked_manifest(folder)
    sys.stdout.write(f"{folder}: {len(manifest['files'])} files are as the run left them\n")
    if public_key is not None:
        check_signature(folder, public_key)
        if unsigned := _files_of_others(folder, manifest):
            raise DataError(f"{folder} holds files that are not signed: {', '.join(unsigned)}")
        sys.stdout.write(f"{folder}: the signature is of these files and of this key\n")
    if retrain:
        with tempfile.TemporaryDirectory(prefix="bertcls_hf-verify-") as again:
            sys.stdout.write(_repeated(folder, Path(again), manifest) + "\n")


def _files_of_others(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Lists files that the manifest does not know, in the places where programs look for parts of a model."""
    found = [path for path in (*run_files(folder), *folder.glob("onnx/*")) if path.is_file()]
    return sorted({path.relative_to(folder).as_posix() for path in found} - manifest["files"].keys())


def _repeated(folder: Path, again: Path, manifest: dict[str, Any]) -> str:
    """Repeats a run, and returns how it compares."""
    from bertcls_hf.run.pipeline import run

    words = [str(folder / RECIPE_FILE), "--output_dir", str(again), "--push_to_hub", "false"]
    options = explicit_options(words)
    finished = run(build_arguments(options), options, words)
    identity = finished.trainer.identity
    saved = manifest.get(IDENTITY)
    if identity is not None and saved is not None:
        changes = [name for name, digest in saved["digests"].items() if identity.digests.get(name) != digest]
        if changes:
            raise DataError(f"{folder} cannot be repeated: other than in its run are now: {', '.join(changes)}")
    difference = _largest_difference(_weights(folder), _weights(again))
    machine = _machine_changes(manifest.get(MACHINE) or {}, again)
    if difference == 0:
        return f"the repeated run ends with the same weights, bit for bit, and {_results_compared(folder, again)}"
    advice = f"The machine differs: {machine}" if machine else "Equal bits need one process and one thread"
    raise DataError(
        f"the repeated run ends with other weights (largest difference {difference:.2g}), and "
        f"{_results_compared(folder, again)}. {advice}"
    )


def _weights(folder: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return load_file(folder / WEIGHTS_FILE)


def _largest_difference(first: "dict[str, torch.Tensor]", second: "dict[str, torch.Tensor]") -> float:
    if {n: w.shape for n, w in first.items()} != {n: w.shape for n, w in second.items()}:
        return float("inf")
    return max((float((first[name] - second[name]).abs().max()) for name in first if first[name].numel()), default=0.0)


def _results_compared(first: Path, second: Path) -> str:
    results = [read_json(folder / RESULTS_FILE) for folder in (first, second)]
    names = [name for name in results[0] if not any(part in name for part in TIMINGS)]
    other = [name for name in names if results[0][name] != results[1].get(name)]
    if not other:
        return f"all of its {len(names)} results are equal"
    shown = ", ".join(f"{name} {results[0][name]} and {results[1].get(name)}" for name in other[:3])
    return f"{len(other)} of its {len(names)} results differ ({shown})"


def _machine_changes(before: dict[str, Any], again: Path) -> str:
    now = read_manifest(again)[MACHINE]
    versions = {**before.get("versions", {}), **now["versions"]}
    changed = [
        f"{name} {before.get('versions', {}).get(name)} and {now['versions'].get(name)}"
        for name in versions
        if before.get("versions", {}).get(name) != now["versions"].get(name)
    ]
    changed += [
        f"{name} {before.get(name)} and {now[name]}"
        for name in ("device", "processes", "threads")
        if before.get(name) != now[name]
    ]
    return ", ".join(changed)


if __name__ == "__main__":
    raise SystemExit(main())
