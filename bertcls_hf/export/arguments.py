"""The options of the export to ONNX. The data options are those of a training run."""

from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg


@dataclass
class ExportArguments:
    """The options of `python -m bertcls_hf.export`."""

    _argument_group_name = "export"

    output_dir: str = HfArg(help="Folder of the export; it must be empty or absent.")
    quantize: Literal["int8"] | None = HfArg(
        default=None, help="int8: also write onnx/model_quantized.onnx, whose weights take a quarter of the space."
    )
    evaluate: bool = HfArg(
        default=False,
        help="Compare the metrics of PyTorch and ONNX on the run's test data (else its validation data), which its "
        "recipe.yaml names, or on data named here.",
    )
    overwrite: bool = HfArg(default=False, help="Replace what an earlier export left in output_dir.")
