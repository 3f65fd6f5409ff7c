"""The options of the export to ONNX; those of the data are a run's own."""

from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg

from bertcls_hf.errors import ArgumentsError


@dataclass
class ExportArguments:
    """What `python -m bertcls_hf.export` makes of a trained classifier."""

    _argument_group_name = "export"

    output_dir: str = HfArg(help="Folder of the export; it must be empty or absent.")
    quantize: Literal["int8"] | None = HfArg(
        default=None, help="int8: also write model_int8.onnx, whose weights take a quarter of the space."
    )
    evaluate: bool = HfArg(
        default=False,
        help="Compare the metrics of PyTorch and ONNX on the run's test data (else its validation data), which its "
        "recipe.yaml names, or on data named here.",
    )
    threads: int | None = HfArg(
        default=None, help="Threads of the measured latencies. Default: as many as PyTorch takes."
    )
    latency_rounds: int = HfArg(default=10, help="Measurements of each latency, of which the median counts; 0 is off.")
    overwrite: bool = HfArg(default=False, help="Replace what an earlier export left in output_dir.")

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("latency_rounds", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ArgumentsError(f"--{name} {value}: must be {least} or more")
