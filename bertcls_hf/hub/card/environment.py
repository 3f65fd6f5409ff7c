"""What a run ran on: device and versions."""

import platform
from pathlib import Path

import datasets
import torch
import transformers

import bertcls_hf
from bertcls_hf.config.arguments import ClassifierTrainingArguments


CPU_DESCRIPTION = Path("/proc/cpuinfo")


def device_name(args: ClassifierTrainingArguments) -> str:
    """The accelerator or processor that a run used, and the number of its processes."""
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
    """The versions of Python and of the packages that shape a run, by name."""
    return {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "datasets": datasets.__version__,
        "bertcls_hf": bertcls_hf.__version__,
    }
