"""Where a run's model and data come from, under which licence, and on what it ran."""

import importlib.metadata
import platform
from pathlib import Path

import datasets
import torch
import transformers
import yaml
from huggingface_hub import hf_hub_download, is_offline_mode, metadata_load

import bertcls_hf
from bertcls_hf.config.arguments import ClassifierTrainingArguments, DataArguments, ModelArguments
from bertcls_hf.data.python_packages import PREFIX, is_packaged, packaged_model
from bertcls_hf.hub.card.public_text import without_local_paths


CPU_DESCRIPTION = Path("/proc/cpuinfo")
HUB_TIMEOUT_S = 3


def is_hub_id(name: str) -> bool:
    """Whether a model's or data set's name is one of the Hub."""
    return not is_packaged(name) and not Path(name).expanduser().exists()


def model_licence(args: ModelArguments) -> str | None:
    """The licence in the metadata of the model's README, where there is one."""
    name = args.model_name_or_path
    if is_packaged(name):
        return _readme_licence(packaged_model(name) / "README.md")
    if is_hub_id(name):
        return _readme_licence(_hub_readme(name, "model", args.model_revision))
    return _readme_licence(Path(name).expanduser() / "README.md")


def data_licence(args: DataArguments) -> str | None:
    """The licence that the Hub, or the Python package, states for the data; files of one's own have none."""
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
    """The README of a repository; a run that works offline reads no more than its cache."""
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
        # The licence is then not known, which is what the card says; no run fails for it.
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
    """What the data, or a split of it, is called: a data set's name, or the names of files."""
    if args.dataset_name is not None:
        return " / ".join(filter(None, (args.dataset_name, args.dataset_config_name)))
    all_files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
    # A split that is not given is a part of train.
    files = filter(None, all_files.values()) if split is None else [all_files[split] or args.train_file or ""]
    return ", ".join(dict.fromkeys(map(without_local_paths, files)))


def device_name(args: ClassifierTrainingArguments) -> str:
    """The accelerators or processors that a run used, and by how many processes."""
    device = args.device
    processes = "1 process" if args.world_size == 1 else f"{args.world_size} processes"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {processes}"
    if device.type != "cpu":
        return f"{device.type.upper()}; {processes}"
    threads = "1 thread" if torch.get_num_threads() == 1 else f"{torch.get_num_threads()} threads"
    return f"{_cpu_name()}; {processes} of {threads}"


def _cpu_name() -> str:
    if CPU_DESCRIPTION.is_file():
        for line in CPU_DESCRIPTION.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return f"CPU: {line.partition(':')[2].strip()}"
    return f"CPU: {platform.processor() or platform.machine()}"


def versions() -> dict[str, str]:
    """What ran, by name."""
    return {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "datasets": datasets.__version__,
        "bertcls_hf": bertcls_hf.__version__,
    }
