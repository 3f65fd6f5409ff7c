"""The options of the prediction command. Those that a training run also has are copied from its dataclasses."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from transformers.hf_argparser import HfArg

from bertcls_hf.config.arguments import ClassifierTrainingArguments, DataArguments, FileFormat, ModelArguments
from bertcls_hf.errors import ArgumentsError


Backend = Literal["torch", "onnx", "openvino"]
InferenceDtype = Literal["float32", "float16", "bfloat16", "int8"]
# The name that stands for standard input or standard output in place of a file.
STANDARD = "-"
# The options of a training run that have the same names and meanings here.
DATA_OPTIONS = (
    "file_format",
    "text_column_names",
    "text_column_delimiter",
    "column_names",
    "csv_header",
    "csv_delimiter",
    "csv_quoting",
    "encoding",
    "encoding_errors",
)


def as_in(argument_class: type, name: str) -> Any:
    """Returns a field with the default, the help and the aliases that the option has in another command."""
    (option,) = (f for f in fields(argument_class) if f.name == name)
    return HfArg(default=option.default, help=option.metadata["help"], aliases=option.metadata.get("aliases"))


def loading_arguments(options: Any) -> dict[str, Any]:
    """Returns the arguments of `Predictor.from_pretrained` that are options of a command.

    Args:
        options: [`PredictionArguments`], or the options of another command that has the options below.
    """
    names = ("trust_remote_code", "device", "backend", "dtype", "max_seq_length", "cascade")
    return {"revision": options.model_revision, **{name: getattr(options, name) for name in names}}


@dataclass
class PredictionArguments:
    """The options of `python -m bertcls_hf.predict`."""

    output_file: str = HfArg(
        default=STANDARD, help="Where predictions go, .jsonl or .csv; appears when it is whole. -: standard output."
    )
    prediction_format: Literal["jsonl", "csv"] | None = HfArg(
        default=None, help="Default: as --output_file ends; jsonl for standard output."
    )
    csv_safe: bool = as_in(ClassifierTrainingArguments, "csv_safe")
    overwrite: bool = HfArg(default=False, help="Replace an --output_file that is there.")
    top_k: int | None = HfArg(
        default=None, help="Write only the K highest probabilities, the highest first. Default: all, in label order."
    )
    stdin_format: Literal["lines", "jsonl"] = HfArg(
        default="lines", help="What standard input holds: a text per line, or a JSON object per line."
    )
    file_format: FileFormat | None = as_in(DataArguments, "file_format")  # noqa: RUF009
    text_column_names: list[str] | None = as_in(DataArguments, "text_column_names")  # noqa: RUF009
    text_column_delimiter: str | None = as_in(DataArguments, "text_column_delimiter")
    column_names: list[str] | None = as_in(DataArguments, "column_names")  # noqa: RUF009
    csv_header: Literal["auto", "true", "false"] = as_in(DataArguments, "csv_header")
    csv_delimiter: str | None = as_in(DataArguments, "csv_delimiter")
    csv_quoting: Literal["auto", "minimal", "escaped", "none"] = as_in(DataArguments, "csv_quoting")
    encoding: str = as_in(DataArguments, "encoding")
    encoding_errors: Literal["strict", "replace", "ignore"] = as_in(DataArguments, "encoding_errors")
    model_revision: str = as_in(ModelArguments, "model_revision")
    trust_remote_code: bool = HfArg(default=False, help="Run the Python code that a model repository ships.")
    max_seq_length: int | None = HfArg(
        default=None, aliases=["--max_length"],
        help="Longest text in tokens; longer ones are cut. Default: as in the model's training.",
    )  # fmt: skip
    calibration: bool = HfArg(
        default=True, help="Apply the temperature and thresholds of the model's calibration.json, where it has one."
    )
    cascade: bool = HfArg(
        default=True, help="Apply the thresholds of the model's cascade.json, where `bertcls cascade` has written one."
    )
    temperature: float | None = HfArg(default=None, help="Divide the logits by this, whatever the calibration says.")
    threshold: float | None = HfArg(
        default=None,
        help="What a label's probability must exceed, for every label of a multi-label model, or for the second of "
        "two labels.",
    )
    device: str | None = HfArg(default=None, help="cpu, cuda, cuda:1 … Default: an accelerator where there is one.")
    backend: Literal[Backend, "auto"] | None = HfArg(
        default=None, help="What computes: PyTorch, or ONNX Runtime or OpenVINO with a graph of `bertcls export`, on "
        "the processor. auto tries all that there are, in every dtype, on the first texts, and takes the quickest "
        "whose labels are PyTorch's. Default: torch; onnx for the folder of an export.",
    )  # fmt: skip
    dtype: InferenceDtype = HfArg(
        default="float32", help="Of weights and arithmetic; the halves are for accelerators, bfloat16 also for some "
        "processors; int8 is for exported graphs.",
    )  # fmt: skip
    tokens_per_batch: int | None = HfArg(
        default=None, help="Tokens of a batch, padding included. Default: 2048 on a processor, else 32768."
    )
    chunk_rows: int = HfArg(
        default=16_384,
        help="Texts that are read, sorted by length, classified and written together; 1 answers line by line.",
    )
    disable_tqdm: bool = HfArg(default=False, help="Show no progress.")

    def __post_init__(self) -> None:
        for name in ("top_k", "tokens_per_batch", "chunk_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentsError(f"--{name} {value}: must be 1 or more")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ArgumentsError(f"--temperature {self.temperature}: must be above 0")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ArgumentsError(f"--threshold {self.threshold}: must lie in [0, 1)")
        if self.backend == "auto" and self.dtype != "float32":
            raise ArgumentsError(f"--dtype {self.dtype}: --backend auto chooses it: leave it out")
        if self.prediction_format is None:
            self.prediction_format = self._format_of_name()
        if self.csv_safe and self.prediction_format != "csv":
            raise ArgumentsError(f"--csv_safe is for csv, and the format is {self.prediction_format}: leave it out")

    def _format_of_name(self) -> Literal["jsonl", "csv"]:
        suffix = Path(self.output_file).suffix.lower()
        if self.output_file == STANDARD or suffix == ".jsonl":
            return "jsonl"
        if suffix == ".csv":
            return "csv"
        raise ArgumentsError(f"--output_file {self.output_file}: neither .jsonl nor .csv; see --prediction_format")

    def data(self) -> DataArguments:
        """Returns the options that say how texts are read, as the dataclass of a training run."""
        return DataArguments(**{name: getattr(self, name) for name in DATA_OPTIONS})
