"""Proposes the texts that a person should label next, and takes the answers in, from a file or on a page.

    python -m bertcls_hf.run.label --train_file labelled.csv --unlabelled_file pool.csv --output_file next.csv
    python -m bertcls_hf.run.label --train_file labelled.csv --add next.csv
    python -m bertcls_hf.run.label --train_file labelled.csv --unlabelled_file pool.csv --demo

The options of a training say how the files are read and which encoder reads them; those of the training itself, such
as the number of epochs, are not used. Exit codes: 0 done, 2 a wrong option, 65 bad data, 74 the disk is full.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bertcls_hf.config.arguments import AdaptArguments, Arguments, BoostArguments, DataArguments, ModelArguments
from bertcls_hf.config.command import enter_phase, run_command
from bertcls_hf.config.parsing import DataclassParser, build_arguments, explicit_options
from bertcls_hf.errors import ArgumentsError, DataError
from bertcls_hf.labelling.arguments import DEFAULT_NUMBER, LabelArguments
from bertcls_hf.run.frozen_features import UNLABELLED, frozen_features


PROGRAM = "python -m bertcls_hf.run.label"
# Options of the head, which is a logistic regression here, and of its training.
OF_A_HEAD = frozenset({
    "class_weights", "dropout", "focal_gamma", "head", "head_init", "head_num_train_epochs", "lexical_features",
    "loss", "sweep", "sweep_hours",
})  # fmt: skip
OF_ALL_RUNS = frozenset({"disable_tqdm", "label_descriptions", "output_dir", "seed", "tf32", "use_cpu"})


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line and returns the exit code."""
    return run_command(lambda words: _run_words(words, program), argv, needs_output=False)


def parse(words: Sequence[str], program: str) -> tuple[LabelArguments, dict[str, Any]]:
    """Reads the command's own options, and those of a training by field name; `--help` prints the help and exits.

    Raises:
        ArgumentsError: an option is wrong.
    """
    parser = DataclassParser(
        [LabelArguments],
        prog=program,
        usage="%(prog)s [RECIPE.yaml] --unlabelled_file POOL [--train_file LABELLED] [--option value ...]",
        description="Proposes the texts of a pool that a person should label next. `bertcls train --help` lists the "
        "options of a training, which say how the files are read and which encoder reads them.",
    )
    own, rest = parser.parse_args_into_dataclasses(
        list(words), return_remaining_strings=True, look_for_args_file=False
    )
    return own, explicit_options(rest, program)


def _run_words(words: Sequence[str], program: str) -> None:
    own, options = parse(words, program)
    if own.add is not None:
        add(Path(own.add), options)
    elif own.demo:
        open_page(own, options)
    else:
        write(own, options)


def add(path: Path, options: Mapping[str, Any]) -> None:
    """Adds the labelled rows of a filled-in file of proposals to `--train_file`.

    Args:
        path: the file.
        options: the options of a training, by field name.

    Raises:
        RunError: an error that the user can fix.
    """
    args = DataArguments(**{f.name: options[f.name] for f in fields(DataArguments) if f.name in options})
    if args.train_file is None:
        raise ArgumentsError("--add: name with --train_file the file that gets the rows")
    if not path.is_file():
        raise DataError(f"--add {path}: no such file")
    # Imported here, because datasets takes seconds to import.
    from bertcls_hf.labelling.addition import add_filled
    from bertcls_hf.labelling.labelled_file import LabelledFile

    enter_phase("while rows were added")
    done = add_filled(path, LabelledFile(Path(args.train_file).expanduser(), args), args)
    sys.stdout.write(
        f"{done.added:,} rows added to {args.train_file}; {done.known:,} were there already, {done.unlabelled:,} have "
        "no label\n"
    )


def write(own: LabelArguments, options: Mapping[str, Any]) -> None:
    """Writes the file of proposals.

    Args:
        own: the command's own options.
        options: the options of a training, by field name.

    Raises:
        RunError: an error that the user can fix.
    """
    assert own.output_file is not None
    path = Path(own.output_file)
    if path.exists():
        raise ArgumentsError(f"--output_file {path}: it exists, and may hold answers; name another file")
    if not path.absolute().parent.is_dir():
        raise ArgumentsError(f"--output_file {path}: there is no folder {path.parent}")
    args = _arguments(options)
    if own.strategy != "suspects" and args.data.unlabelled_file is None:
        raise ArgumentsError("--unlabelled_file: name the texts of which some should be labelled")
    has_rows = bool(args.data.train_file or args.data.dataset_name)
    is_described = bool(args.few_shot.label_descriptions) and own.strategy != "suspects"
    if not has_rows and not is_described and own.strategy not in (None, "coverage", "random"):
        raise ArgumentsError(
            f"--strategy {own.strategy} needs labelled rows: name them with --train_file, or start with --strategy "
            "coverage"
        )
    # Imported here, so that a mistyped option answers at once.
    from bertcls_hf.labelling.proposal_file import write_proposals
    from bertcls_hf.labelling.splits import read_splits
    from bertcls_hf.run import proposals

    frozen = frozen_features(args, read_splits)
    proposals.check_task(frozen)
    enter_phase("while texts were chosen")
    number = DEFAULT_NUMBER if own.number is None else own.number
    if own.strategy == "suspects":
        found = proposals.suspects(frozen, number)
    else:
        found = proposals.proposals(frozen, own.strategy, number)
    write_proposals(path, found)
    sys.stdout.write(f"{len(found):,} proposals are in {path}\n")


def open_page(own: LabelArguments, options: Mapping[str, Any]) -> None:
    """Opens the page on which a person labels, until it is interrupted.

    Args:
        own: the command's own options.
        options: the options of a training, by field name.

    Raises:
        RunError: an error that the user can fix.
    """
    chosen = dict(options)
    name = chosen.get("train_file")
    if name is None or chosen.get("unlabelled_file") is None:
        raise ArgumentsError("--demo: name with --unlabelled_file the texts, and with --train_file where answers go")
    path = Path(str(name)).expanduser()
    if not path.exists():
        if chosen.get("label_names") is None:
            raise ArgumentsError(f"--train_file {name} does not exist yet: name the labels with --label_names")
        del chosen["train_file"]
    args = _arguments(chosen)
    # Imported here, so that a mistyped option answers at once.
    from bertcls_hf.demo.serving import import_page, serve

    page = import_page("bertcls_hf.labelling.page")
    from bertcls_hf.labelling.labelled_file import LabelledFile
    from bertcls_hf.labelling.session import LabellingSession
    from bertcls_hf.labelling.splits import read_splits
    from bertcls_hf.run import proposals

    file = LabelledFile(path, args.data)
    frozen = frozen_features(args, read_splits)
    proposals.check_task(frozen)
    if frozen.data.labels.problem_type != "single_label_classification":
        raise ArgumentsError("--demo: the page gives each text one label; for several, fill in an --output_file")
    enter_phase("while texts were labelled")
    session = LabellingSession(
        proposals.proposer_of(frozen),
        proposals.texts_of(frozen, UNLABELLED),
        proposals.labelled_rows(frozen, "train"),
        file,
        proposals.labelled_rows(frozen, "validation"),
        args.training.seed,
    )
    blocks = page.build_page(session, f"Label {Path(str(chosen['unlabelled_file'])).name}")
    serve(blocks, "labelling page", own.host, own.port, css=page.CSS, head=page.KEYS)


def _arguments(options: Mapping[str, Any]) -> Arguments:
    """Builds the options of a run that extracts features, and trains nothing."""
    if options.get("streaming"):
        raise ArgumentsError("--streaming: texts are chosen among all, and a stream is read once: leave it out")
    of_features = {f.name for group in (ModelArguments, DataArguments, BoostArguments) for f in fields(group)}
    chosen = {name: options[name] for name in options if name in (of_features | OF_ALL_RUNS) - OF_A_HEAD}
    # The check is for a training, of which the texts of the pool would be no part.
    pool = chosen.pop("unlabelled_file", None)
    chosen.setdefault("validation_split_percentage", 0.0)
    chosen |= {"boost": True, "freeze_backbone": True, "do_train": True, "eval_strategy": "no", "report_to": ["none"]}
    if chosen.get("label_descriptions"):
        chosen["head_init"] = "logistic"
    has_rows = bool(chosen.get("train_file") or chosen.get("dataset_name"))
    args = build_arguments(chosen, in_memory=() if has_rows else ("train",))
    return replace(args, data=replace(args.data, unlabelled_file=pool), adapt=AdaptArguments())


if __name__ == "__main__":
    raise SystemExit(main())
