"""The options of `bertcls cascade`. The data options are those of a training run."""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from bertcls_hf.errors import ArgumentsError
from bertcls_hf.predict.arguments import InferenceDtype, PredictionArguments, as_in


@dataclass
class CascadeArguments:
    """The options of `python -m bertcls_hf.cascade`."""

    _argument_group_name = "cascade"

    max_difference: float | None = HfArg(
        default=None, help="The share of all labels that may differ from the whole model's where the lexical features "
        "answer alone. 0: they never do. Default: 0.005 for a model with lexical features.",
    )  # fmt: skip
    abstain_at_risk: float | None = HfArg(
        default=None, help="Mark the texts that a person should read, so that of the others no larger share is wrong "
        "than this. Default: mark none.",
    )  # fmt: skip
    confidence: float = HfArg(default=0.95, help="With which both limits hold for new texts like the validation data.")
    trust_remote_code: bool = as_in(PredictionArguments, "trust_remote_code")
    device: str | None = as_in(PredictionArguments, "device")
    dtype: InferenceDtype = as_in(PredictionArguments, "dtype")  # noqa: RUF009

    def __post_init__(self) -> None:
        for name in ("max_difference", "abstain_at_risk"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ArgumentsError(f"--{name} {value}: a share below 1, such as 0.01 for 1 %")
        if self.abstain_at_risk == 0:
            raise ArgumentsError("--abstain_at_risk 0: no rows can show that none is ever wrong; try 0.01")
        if not 0.5 <= self.confidence < 1:
            raise ArgumentsError(f"--confidence {self.confidence}: must lie in [0.5, 1)")
