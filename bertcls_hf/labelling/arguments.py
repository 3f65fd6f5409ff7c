"""The options of `bertcls label` that a training does not have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers.hf_argparser import HfArg

from bertcls_hf.errors import ArgumentsError


DEFAULT_NUMBER = 20
# Of the file of proposals.
FORMATS = (".csv", ".jsonl")
# `suspects` proposes labelled rows; the others are those of the proposer.
AskedStrategy = Literal["spread", "uncertainty", "coverage", "random", "suspects"]


@dataclass
class LabelArguments:
    """The options of `bertcls label`, beside those of a training."""

    _argument_group_name = "label"

    number: int | None = HfArg(default=None, help="With --output_file: how many texts to propose. Default: 20.")
    strategy: AskedStrategy | None = HfArg(
        default=None,
        help="spread: texts that a head on the labelled rows is unsure of, and that differ. uncertainty: those that "
        "it is most unsure of. coverage: texts far from all labelled ones; needs no labels. random. suspects: "
        "labelled rows whose label heads doubt that have not seen them. Default: spread; coverage without labelled "
        "rows.",
    )
    output_file: str | None = HfArg(
        default=None, help="The .csv or .jsonl file of proposals, with an empty column `label` to fill in."
    )
    add: str | None = HfArg(
        default=None, help="Instead: add the labelled rows of such a file to --train_file, a csv, tsv or jsonl file."
    )
    demo: bool = HfArg(
        default=False, help="Instead: open a page where a person labels text by text; answers go to --train_file."
    )
    host: str | None = HfArg(default=None, help="With --demo: address to listen on. Default: this machine alone.")
    port: int | None = HfArg(default=None, help="With --demo. Default: the first free one from 7860 on.")

    def __post_init__(self) -> None:
        asked = [f"--{name}" for name in ("output_file", "add", "demo") if getattr(self, name)]
        if len(asked) != 1:
            given = f"not {' and '.join(asked)}" if asked else "and none is given"
            raise ArgumentsError(f"give one of --output_file, --add and --demo, {given}")
        for name in ("output_file", "add"):
            value = getattr(self, name)
            if value is not None and Path(value).suffix.lower() not in FORMATS:
                raise ArgumentsError(f"--{name} {value}: proposals are {' or '.join(FORMATS)}; save it as one of them")
        if self.number is not None and self.number < 1:
            raise ArgumentsError(f"--number {self.number}: must be 1 or more")
        for name, needed in (
            ("number", "output_file"),
            ("strategy", "output_file"),
            ("host", "demo"),
            ("port", "demo"),
        ):
            if getattr(self, name) is not None and not getattr(self, needed):
                raise ArgumentsError(f"--{name} is for --{needed}: leave it out")
        if self.port is not None and not 0 < self.port < 2**16:
            raise ArgumentsError(f"--port {self.port}: must lie between 1 and {2**16 - 1}")
