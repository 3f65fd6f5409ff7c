"""The names and the licences of a run's model and data."""

import importlib.metadata
from pathlib import Path

import yaml
from huggingface_hub import hf_hub_download, is_offline_mode, metadata_load

from bertcls_hf.config.arguments import DataArguments, ModelArguments
from bertcls_hf.data.python_packages import PREFIX, is_packaged, packaged_model
from bertcls_hf.hub.card.public_text import without_local_paths


HUB_TIMEOUT_S = 3


def is_hub_id(name: str) -> bool:
    """Whether the name of a model or data set is an id on the Hub, not a package or a local path."""
    return not is_packaged(name) and not Path(name).expanduser().exists()


def model_licence(args: ModelArguments) -> str | None:
    """The licence in the metadata of the model's README; None where it is not known."""
    name = args.model_name_or_path
    if is_packaged(name):
        return _readme_licence(packaged_model(name) / "README.md")
    if is_hub_id(name):
        return _readme_licence(_hub_readme(name, "model", args.model_revision))
    return _readme_licence(Path(name).expanduser() / "README.md")


def data_licence(args: DataArguments) -> str | None:
    """The licence that the Hub or the Python package states for the data; None where it is not known.

    Files of the user's own state none.
    """
    name = args.dataset_name
    if name is None:
        return None
    if is_packaged(name):
        package = name.removeprefix(PREFIX).split("/")[0]
        licence = _package_licence(package)
        return None if licence is None else f"{licence} (of the package {package})"
    return _readme_licence(_hub_readme(name, "dataset", args.dataset_revision))


def _package_licence(package: str) -> str | None:
    try:
        metadata = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((metadata[key] for key in ("License-Expression", "License") if key in metadata), None)


def _hub_readme(name: str, repo_type: str, revision: str | None) -> Path | None:
    """The README of a repository on the Hub; an offline run finds it only in the cache."""
    try:
        path = hf_hub_download(
            name,
            "README.md",
            repo_type=repo_type,
            revision=revision,
            etag_timeout=HUB_TIMEOUT_S,
            local_files_only=is_offline_mode(),
        )
    except (OSError, ValueError):
        # The card then says that the licence is not known; no run fails for it.
        return None
    return Path(path)


def _readme_licence(path: Path | None) -> str | None:
    if path is None or not path.is_file():
        return None
    try:
        metadata = metadata_load(path) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return None
    licence = metadata.get("license_name") if metadata.get("license") == "other" else metadata.get("license")
    return ", ".join(map(str, licence)) if isinstance(licence, list) else licence


def data_name(args: DataArguments, split: str | None = None) -> str:
    """The name of the data, or of one split: that of the data set, or those of the files; rows in memory have none."""
    if args.dataset_name is not None:
        return " / ".join(filter(None, (args.dataset_name, args.dataset_config_name)))
    file_of = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
    # A split without a file of its own is a part of the training file.
    files = filter(None, file_of.values()) if split is None else [file_of[split] or args.train_file or ""]
    return ", ".join(dict.fromkeys(map(without_local_paths, filter(None, files)))) or "rows in memory"
