"""The console command `bertcls`, which calls one of the package's commands with the remaining arguments."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import bertcls_hf
from bertcls_hf.errors import ExitCode


@dataclass(frozen=True)
class Command:
    """One command of `bertcls`.

    Args:
        module: the module whose function `main(argv, program)` runs the command.
        description: one line for the list of commands in the help.
    """

    module: str
    description: str


COMMANDS = {
    "train": Command("bertcls_hf.run.pipeline", "train, evaluate and save a classifier, from a recipe or options"),
    "adapt": Command("bertcls_hf.run.adapt", "train an encoder on the words of the training texts, without labels"),
    "distil": Command("bertcls_hf.run.distil", "train a classifier with the help of a trained one, its teacher"),
    "predict": Command("bertcls_hf.predict.__main__", "classify the texts of files or of standard input"),
    "compare": Command("bertcls_hf.run.compare", "compare runs that were evaluated on the same texts"),
    "rank": Command("bertcls_hf.run.rank", "order encoders by a head on their features of one's own data"),
    "audit": Command("bertcls_hf.run.audit", "tell what is wrong with labelled data: labels, repeated texts, leaks"),
    "label": Command("bertcls_hf.run.label", "choose the texts to label next, and label them on a page"),
    "verify": Command("bertcls_hf.run.verify", "compare a finished run with its manifest, or repeat it"),
    "sign": Command("bertcls_hf.run.sign", "sign a finished run with a key"),
    "features": Command("bertcls_hf.features.__main__", "list, verify or prune the caches of --boost"),
    "cascade": Command(
        "bertcls_hf.cascade.__main__", "let n-grams answer where they are sure, and mark what a person should read"
    ),
    "export": Command("bertcls_hf.export.__main__", "write a classifier as an ONNX graph, and measure it"),
    "hub": Command("bertcls_hf.hub.__main__", "push a finished run to the Hugging Face Hub"),
    "demo": Command("bertcls_hf.demo.__main__", "open a page where a classifier can be tried"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `bertcls COMMAND …` and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        sys.stdout.write(f"bertcls_hf {bertcls_hf.__version__}\n")
        return ExitCode.DONE
    if not words or words[0] in ("-h", "--help"):
        (sys.stdout if words else sys.stderr).write(_usage())
        return ExitCode.DONE if words else ExitCode.BAD_ARGUMENTS
    name, *rest = words
    if name not in COMMANDS:
        sys.stderr.write(f"error: unknown command {name!r}: use {', '.join(COMMANDS)}\n")
        return ExitCode.BAD_ARGUMENTS
    return int(import_module(COMMANDS[name].module).main(rest, program=f"bertcls {name}"))


def _usage() -> str:
    lines = [f"  {name:10}{command.description}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: bertcls COMMAND …", "", *lines, "", "bertcls COMMAND --help lists its options.", ""])
