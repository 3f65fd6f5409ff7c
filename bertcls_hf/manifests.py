"""The manifest of a folder: the size and the digest of each of its files, written when all of them are there."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bertcls_hf.atomic_files import read_json, write_json_atomically
from bertcls_hf.errors import ArgumentsError, DataError, one_line


MANIFEST_FILE = "manifest.json"
# The signature of a finished run, and its bill of materials, with the ending by which other programs know that.
SIGNATURE_FILE, BILL_FILE = "model.sig", "bom.cdx.json"
VERSION = 1
DIGEST = "digest"
# The key of what the training depends on, in a checkpoint's manifest and in that of a finished run.
IDENTITY = "training"
# The names under which transformers saves weights.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
# The key of the digest of the weights, in a file that describes a model.
WEIGHTS_KEY = "weights"


def write_manifest(folder: Path, files: Iterable[Path], content: dict[str, Any]) -> None:
    """Writes `manifest.json`.

    Args:
        folder: the folder.
        files: its files that the manifest vouches for.
        content: what else the manifest tells, beside `version` and `files`.

    Raises:
        StorageError: the disk is full or cannot be written.
        OSError: a file cannot be read.
    """
    described = {path.relative_to(folder).as_posix(): _described(path) for path in sorted(files)}
    _write(folder, {"version": VERSION, **content, "files": described})


def _write(folder: Path, content: dict[str, Any]) -> None:
    """Writes a manifest with its own digest, by which a damaged one is known."""
    write_json_atomically(folder / MANIFEST_FILE, {**content, DIGEST: _digest_of(content)})


def _digest_of(content: dict[str, Any]) -> str:
    # As JSON gives it back, which has lists for tuples and texts for the numbers of keys.
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != DIGEST}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def all_files(folder: Path) -> list[Path]:
    """Lists the files of a folder and of its folders, but not its manifest."""
    return [path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST_FILE]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads `manifest.json`.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is damaged, or of another version.
    """
    content = read_json(folder / MANIFEST_FILE)
    is_known = isinstance(content, dict) and content.get("version") == VERSION
    if not is_known or not isinstance(content.get("files"), dict):
        raise ValueError("of another version")
    if content.get(DIGEST) != _digest_of(content):
        raise ValueError("damaged")
    return content


def checked_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a finished run, and compares the run's files with it.

    Raises:
        ArgumentsError: the folder has no manifest that can be read.
        DataError: a file is missing or was changed.
    """
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError) as error:
        raise ArgumentsError(f"{folder / MANIFEST_FILE} cannot be read: {one_line(error)}") from error
    if changes := list(changed_files(folder, manifest)):
        raise DataError(f"{folder} is not as its run left it: {'; '.join(changes)}")
    return manifest


def changed_files(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Says of each file that is not as the manifest describes it how it differs."""
    for name, described in manifest["files"].items():
        if (change := _change(folder / name, name, described)) is not None:
            yield change


def _change(path: Path, name: str, described: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != described["size"]:
        return f"{name} has {path.stat().st_size:,} bytes of {described['size']:,}"
    return None if _digest(path) == described["sha256"] else f"{name} has another content than was saved"


def weights_digest(folder: Path) -> str | None:
    """Returns one digest of the weights in a folder, by which a file knows its model; None if there are none.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if len(files) == 1:
        return _digest(files[0])
    digests = "".join(_digest(path) for path in files)
    return hashlib.sha256(digests.encode()).hexdigest() if files else None


def is_of_other_weights(content: dict[str, Any], folder: Path) -> bool:
    """Says whether a file that describes a model was made for other weights than those of its folder.

    An earlier version's file does not name its weights, and an exported graph has none that could be compared.

    Args:
        content: of the file.
        folder: of the file.
    """
    named = content.get(WEIGHTS_KEY)
    return named is not None and weights_digest(folder) not in (None, named)


def describe_again(folder: Path, paths: Iterable[Path]) -> None:
    """Describes files anew that a command has written beside a finished run; a folder without manifest stays so.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError):
        return
    for path in paths:
        if path.is_file():
            manifest["files"][path.relative_to(folder).as_posix()] = _described(path)
    _write(folder, manifest)


def _described(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
