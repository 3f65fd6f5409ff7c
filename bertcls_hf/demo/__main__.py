"""Opens a page where people try a trained model: they enter a text or a file, and get labels and probabilities.

python -m bertcls_hf.demo outputs/mine
python -m bertcls_hf.demo outputs/mine --export_space my_space    # the same page as a folder for a Hugging Face Space

Exit codes: 0 done, 2 a wrong option or model, 74 the disk is full.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.hf_argparser import HfArg

from bertcls_hf.config.command import run_command, set_up_logging
from bertcls_hf.config.parsing import DataclassParser
from bertcls_hf.data.python_packages import is_packaged, packaged_model
from bertcls_hf.demo.serving import import_page, serve
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.predict.arguments import Backend, InferenceDtype, PredictionArguments, as_in, loading_arguments


if TYPE_CHECKING:
    from types import ModuleType

    from bertcls_hf.predict.predictor import Predictor

# Named explicitly, because `__name__` is `__main__` if this module runs as a command.
logger = logging.getLogger("bertcls_hf.demo")

PROGRAM = "python -m bertcls_hf.demo"
LOOPBACK = "127.0.0.1"


@dataclass
class DemoArguments:
    """The options of `python -m bertcls_hf.demo`."""

    host: str | None = HfArg(
        default=None, help="Address to listen on; 0.0.0.0 lets other machines in. Default: GRADIO_SERVER_NAME, or "
        f"{LOOPBACK}.",
    )  # fmt: skip
    port: int | None = HfArg(default=None, help="Default: GRADIO_SERVER_PORT, or the first free one from 7860 on.")
    title: str | None = HfArg(default=None, help="Title of the page. Default: the model's name.")
    export_space: str | None = HfArg(
        default=None, help="Write the page as a folder that a Hugging Face Space runs, and open nothing."
    )
    model_revision: str = as_in(PredictionArguments, "model_revision")
    trust_remote_code: bool = as_in(PredictionArguments, "trust_remote_code")
    max_seq_length: int | None = HfArg(
        default=None, help="Longest text in tokens; longer ones are cut. Default: as in the model's training."
    )
    cascade: bool = as_in(PredictionArguments, "cascade")
    device: str | None = as_in(PredictionArguments, "device")
    backend: Backend | None = HfArg(
        default=None, help="What computes; see `bertcls predict`. Default: torch; onnx for the folder of an export."
    )
    dtype: InferenceDtype = as_in(PredictionArguments, "dtype")  # noqa: RUF009

    def __post_init__(self) -> None:
        if self.port is not None and not 0 < self.port < 2**16:
            raise ArgumentsError(f"--port {self.port}: must lie between 1 and {2**16 - 1}")


def parse(argv: Sequence[str], program: str = PROGRAM) -> tuple[str, DemoArguments]:
    """Reads the model and the options; `--help` prints the options and exits.

    Raises:
        ArgumentsError: if an option is wrong.
    """
    parser = DataclassParser(
        [DemoArguments],
        prog=program,
        usage="%(prog)s MODEL [--option value ...]",
        description="Opens a page where a trained model can be tried.",
    )
    parser.add_argument("model", metavar="MODEL", help="an output_dir, a Hub id or pypi:PACKAGE")
    options, positional = parser.parse_command(argv, "there is one model")
    return positional.model, options


def run(model: str, options: DemoArguments) -> None:
    """Opens the page and serves it until it is interrupted, or exports it as a Space.

    Args:
        model: an output_dir, a Hub id or pypi:PACKAGE.
        options: the options of the command.

    Raises:
        ArgumentsError: if there is no such model, if the port is in use, or if a package is not installed.
        StorageError: if the Space cannot be written.
    """
    from transformers.utils.logging import disable_progress_bar

    from bertcls_hf.predict.predictor import Predictor

    page_module = import_page("bertcls_hf.demo.page")
    disable_progress_bar()
    path = str(packaged_model(model)) if is_packaged(model) else model
    title = options.title or model.removeprefix("pypi:").rstrip("/").rpartition("/")[2] or model
    predictor = Predictor.from_pretrained(path, **loading_arguments(options))
    if options.export_space is None:
        _serve(page_module, predictor, path, title, options)
        return
    from bertcls_hf.demo.space_export import SpaceSettings, export_space

    settings = SpaceSettings(
        path,
        title,
        options.model_revision,
        options.max_seq_length,
        predictor.engine.backend,
        options.dtype,
        options.cascade,
    )
    export_space(Path(options.export_space), settings)
    logger.info("the Space is in %s; its README.md says how to try and to upload it", options.export_space)


def _serve(page_module: "ModuleType", predictor: "Predictor", path: str, title: str, options: DemoArguments) -> None:
    from bertcls_hf.demo.card_text import read_card

    card, examples = read_card(path, options.model_revision)
    page = page_module.build_page(predictor, page_module.PageTexts(title, card, examples))
    serve(page, "demo page", options.host, options.port, css=page_module.CSS)


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    set_up_logging()
    return run_command(lambda words: run(*parse(words, program)), argv)


if __name__ == "__main__":
    sys.exit(main())
