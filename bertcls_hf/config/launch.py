"""Checks how the processes of a run were started."""

import os
from pathlib import Path

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.errors import ArgumentsError


# Set by what starts several processes: torchrun and the MPIs that accelerate knows.
NUMBERS_OF_PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# Set by every `accelerate launch`, and by one of several processes.
OF_ACCELERATE, OF_SEVERAL = "ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"


def check_launch(training: ClassifierTrainingArguments) -> None:
    """Refuses a launch that started fewer processes than it was asked for, and ZeRO stage 3.

    Raises:
        ArgumentsError: see above.
    """
    if _is_one_of_missing_processes():
        raise ArgumentsError(
            "`accelerate launch` was asked for several processes and started one, as it does with --cpu or too few "
            "GPUs: use `accelerate launch --config_file recipes/accelerate/cpu_ddp.yaml` (or ddp.yaml, for GPUs), or "
            "`accelerate launch --num_processes 1`"
        )
    plugin = training.deepspeed_plugin
    if plugin is not None and plugin.hf_ds_config.is_zero3():
        raise ArgumentsError(
            "ZeRO stage 3 of DeepSpeed takes the weights apart before the encoder is read: use zero_stage: 2, or "
            "recipes/accelerate/fsdp2.yaml, which takes them apart later"
        )


def _is_one_of_missing_processes() -> bool:
    """Returns whether accelerate prepared this process to be one of several, and started no other.

    It then sets the address at which they would meet, but not their number. The address alone says nothing if it was
    set before, as scripts for clusters do.
    """
    if OF_ACCELERATE not in os.environ or any(name in os.environ for name in NUMBERS_OF_PROCESSES):
        return False
    return OF_SEVERAL in os.environ and not _launcher_had(OF_SEVERAL)


def _launcher_had(variable: str) -> bool:
    """Returns whether the launcher itself was started with a variable; where no /proc can tell, it was not."""
    try:
        lines = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(line.startswith(f"{variable}=".encode()) for line in lines)
