"""Runs the same commands in two checkouts, compares what they print and write, and exits with 1 where it differs.

    git worktree add ../before REVISION
    python tools/compare_checkouts.py ../before . --quick              # all but the quickstart recipe
    python tools/compare_checkouts.py ../before . --only refuse        # the cases whose names hold "refuse"
    python tools/compare_checkouts.py ../before . --quick --warm       # several times as fast; see warm_commands.py

Data and a tiny random BERT are made in a temporary folder; no network is used. Only commands are called, so the
modules inside the checkouts may differ. A case runs in both checkouts at the same time, each with an HF_HOME of its
own. `ALLOWED` lists the differences that are intended.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


sys.path.insert(0, str(Path(__file__).parent))

import comparison_inputs
from warm_commands import WarmPython


# Differences that are intended: the name of a case, and why it differs.
ALLOWED: dict[str, str] = {}
# Options that AFTER may lack, and why.
GONE_OPTIONS = {
    "--no_restore_callback_states_from_checkpoint": "a resumed run always goes on with the patience that was left",
    "--threads": "latencies are measured by a benchmark, not by the export",
    "--latency_rounds": "latencies are measured by a benchmark, not by the export",
}
# Lines of a saved recipe for options that AFTER no longer redefines; transformers still knows them.
GONE_RECIPE_LINES = re.compile(
    r"^(restore_callback_states_from_checkpoint|ddp_find_unused_parameters): .*\n", re.MULTILINE
)
# Files of which only the existence is compared, and why.
UNREAD_FILES = {
    "*.lock": "empty",
    "training_args.bin": "pickled classes of the checkout",
    "*.pt": "pickled states; a resumed training shows whether they are equal",
    "*.pth": "pickled states; a resumed training shows whether they are equal",
    "onnx_report.json": "measured times",
    "modeling.py": "the code of the checkout; predictions show whether it computes the same",
}
# Keys of json files that hold times of the run.
TIMINGS = re.compile(r"runtime|per_second|preparation_time|total_flos")
# Lines of a model card that hold times, versions or the machine.
CARD_NOISE = re.compile(r"^\| (machine|training|versions) \|.*$", re.MULTILINE)
# Numbers of a model card with more digits than two libraries agree on.
LONG_NUMBER = re.compile(r"\d+\.\d{13,}")
# What of stderr tells the time: the clock of log lines, and progress bars, which show speeds.
STDERR_NOISE = re.compile(r"^\d\d:\d\d:\d\d |[^\r\n]*\[[\d:]+[^\]\r\n]*/s\][\r\n]*", re.MULTILINE)
TOLERANCE = 1e-6
TIMEOUT_S = 900
PROGRAMS = {
    "run": ["run_classification.py"],
    **{name: ["-m", f"bertcls_hf.{name}"] for name in ("predict", "features", "export", "hub", "demo")},
}


@dataclass(frozen=True)
class Side:
    """A checkout, the folder of its outputs, and the folder of the other checkout's."""

    checkout: Path
    outputs: Path
    other_outputs: Path
    inputs: Path

    def filled(self, template: str, case_name: str) -> str:
        """`template` with the folders of this side."""
        return template.format(
            inputs=self.inputs, here=self.outputs, other=self.other_outputs, out=self.outputs / case_name
        )

    def masked(self, text: str) -> str:
        """`text` without the paths in which the two sides differ."""
        for path, name in (
            (self.outputs, "<outputs>"),
            (self.other_outputs, "<other outputs>"),
            (self.checkout, "<checkout>"),
        ):
            text = text.replace(str(path), name)
        return text


@dataclass(frozen=True)
class Outcome:
    """What a command did on one side."""

    side: Side
    folder: Path
    exit_code: int
    stdout: str
    stderr: str
    seconds: float


Check = Callable[[Outcome, Outcome], Iterator[str]]


# Checks: each yields a sentence per difference.


def exit_code(before: Outcome, after: Outcome) -> Iterator[str]:
    if before.exit_code != after.exit_code:
        yield f"exit code {before.exit_code} became {after.exit_code}: {last_line(after.stderr)}"


def stdout(before: Outcome, after: Outcome) -> Iterator[str]:
    yield from text_difference("stdout", before.side.masked(before.stdout), after.side.masked(after.stdout))


def stderr(before: Outcome, after: Outcome) -> Iterator[str]:
    """What was written to stderr, without progress bars and times."""
    texts = (STDERR_NOISE.sub("", outcome.side.masked(outcome.stderr)) for outcome in (before, after))
    yield from text_difference("stderr", *texts)


def options(before: Outcome, after: Outcome) -> Iterator[str]:
    """Options that `--help` prints."""
    names_before, names_after = (set(re.findall(r"--\w+", outcome.stdout)) for outcome in (before, after))
    for name in sorted(names_before - names_after - set(GONE_OPTIONS)):
        yield f"{name} is gone"
    for name in sorted(names_after - names_before):
        yield f"{name} is new"


def file_names(before: Outcome, after: Outcome) -> Iterator[str]:
    """Names of all files below the case's folder."""
    names_before, names_after = names_below(before.folder), names_below(after.folder)
    for name in sorted(names_before - names_after):
        yield f"{name} is gone"
    for name in sorted(names_after - names_before):
        yield f"{name} is new"


def file_contents(before: Outcome, after: Outcome) -> Iterator[str]:
    """Contents of the files that both sides have below the case's folder."""
    for name in sorted(names_below(before.folder) & names_below(after.folder)):
        if not any(fnmatch(Path(name).name, pattern) for pattern in UNREAD_FILES):
            compare = next(function for pattern, function in FILE_COMPARISONS if fnmatch(Path(name).name, pattern))
            yield from compare(name, before, after)


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def text_difference(name: str, before: str, after: str) -> Iterator[str]:
    """The first line that differs."""
    if before == after:
        return
    lines_before, lines_after = before.splitlines(), after.splitlines()
    shared = min(len(lines_before), len(lines_after))
    first = next((row for row in range(shared) if lines_before[row] != lines_after[row]), shared)
    old, new = (repr(lines[first][:300]) if first < len(lines) else "nothing" for lines in (lines_before, lines_after))
    yield f"{name}, line {first + 1}: {old} became {new}"


# Comparisons of files.


def compare_bytes(name: str, before: Outcome, after: Outcome) -> Iterator[str]:
    if (before.folder / name).read_bytes() != (after.folder / name).read_bytes():
        yield f"{name}: other bytes"


def compare_text(name: str, before: Outcome, after: Outcome) -> Iterator[str]:
    yield from text_difference(name, *(read_masked(outcome, name) for outcome in (before, after)))


def compare_card(name: str, before: Outcome, after: Outcome) -> Iterator[str]:
    yield from text_difference(name, *(read_card(outcome, name) for outcome in (before, after)))


def compare_json(name: str, before: Outcome, after: Outcome) -> Iterator[str]:
    import json

    yield from value_difference(name, *(json.loads(read_masked(outcome, name)) for outcome in (before, after)))


def compare_onnx(name: str, before: Outcome, after: Outcome) -> Iterator[str]:
    """Graphs without the stack traces of their nodes, which hold paths of the checkout."""
    import onnx

    graphs = [onnx.load(outcome.folder / name) for outcome in (before, after)]
    for graph in graphs:
        for node in graph.graph.node:
            del node.metadata_props[:]
    if graphs[0] != graphs[1]:
        yield f"{name}: another graph, other weights or other metadata"


def compare_weights(name: str, before: Outcome, after: Outcome) -> Iterator[str]:
    from safetensors.torch import load_file

    old, new = (load_file(outcome.folder / name) for outcome in (before, after))
    if [(key, old[key].shape, old[key].dtype) for key in sorted(old)] != [
        (key, new[key].shape, new[key].dtype) for key in sorted(new)
    ]:
        yield f"{name}: other names, shapes or dtypes of weights"
        return
    largest = max((float((old[key].double() - new[key].double()).abs().max()) for key in old), default=0.0)
    if largest > 0:
        yield f"{name}: weights differ by up to {largest:.2g}"


def read_card(outcome: Outcome, name: str) -> str:
    text = CARD_NOISE.sub("", read_masked(outcome, name))
    return LONG_NUMBER.sub(lambda number: f"{float(number.group()):.12g}", text)


def read_masked(outcome: Outcome, name: str) -> str:
    text = outcome.side.masked((outcome.folder / name).read_text(encoding="utf-8"))
    return GONE_RECIPE_LINES.sub("", text)


def value_difference(name: str, before: Any, after: Any) -> Iterator[str]:
    """Differences of two json values, timings left out and numbers to `TOLERANCE`."""
    if isinstance(before, dict) and isinstance(after, dict):
        if list(before) != list(after):
            yield f"{name}: keys {list(before)} became {list(after)}"
        for key in before.keys() & after.keys():
            if not TIMINGS.search(key):
                yield from value_difference(f"{name}, {key}", before[key], after[key])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for row, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from value_difference(f"{name}[{row}]", old, new)
    elif isinstance(before, float) and isinstance(after, float):
        if abs(before - after) > TOLERANCE * max(1.0, abs(before)):
            yield f"{name}: {before} became {after}"
    elif before != after:
        yield f"{name}: {before!r} became {after!r}"


FILE_COMPARISONS: list[tuple[str, Callable[[str, Outcome, Outcome], Iterator[str]]]] = [
    ("*_results.json", compare_json),
    ("trainer_state.json", compare_json),
    ("*.safetensors", compare_weights),
    ("*.onnx", compare_onnx),
    ("README.md", compare_card),
    ("*.yaml", compare_text),
    ("*.json", compare_text),
    ("*", compare_bytes),
]


# Cases.


@dataclass(frozen=True)
class Case:
    """A command, and what of it must be equal.

    In `command`, `folder` and `stdin`, {inputs} is the folder of data and model, {out} the case's own output folder,
    {here}/NAME that of another case, which runs before, and {other}/NAME what the other checkout left there.
    """

    name: str
    command: str
    checks: tuple[Check, ...]
    stdin: str | None = None
    folder: str = "{out}"
    is_refused: bool = False
    is_slow: bool = False

    @property
    def needs(self) -> set[str]:
        """Names of the cases whose outputs this one reads."""
        return set(re.findall(r"\{(?:here|other)\}/(\w+)", f"{self.command} {self.folder}"))


FOLDER = (exit_code, file_names, file_contents)
STREAMS = (exit_code, stdout, stderr)
PRINTED = (exit_code, stdout)
HELP = (exit_code, options)

MODEL = " --model_name_or_path {inputs}/bert --use_cpu --disable_tqdm true"
STEPS = " --num_train_epochs 2 --per_device_train_batch_size 8 --head_learning_rate 1e-2 --logging_steps 1"
FINE = " --learning_rate 1e-2"
REVIEWS = " --train_file {inputs}/train.csv --validation_file {inputs}/validation.csv --test_file {inputs}/test.csv"
RUN = "run --output_dir {out}" + MODEL + STEPS
TRAIN = RUN + REVIEWS

TRAININGS = {
    "finetuned": TRAIN + FINE + " --save_total_limit 0 --do_predict true --do_train true --do_eval true",
    "frozen": TRAIN + " --freeze_backbone true --do_predict true --do_train true --prediction_format csv",
    "boost": TRAIN + " --boost",
    "boost_logistic": TRAIN + " --boost --head_init logistic",
    "boost_float16": TRAIN + " --boost --boost_dtype float16 --pooling max",
    "lp_ft": TRAIN + FINE + " --boost --freeze_backbone false --head_num_train_epochs 2",
    "weighted_mlp": TRAIN + " --boost --head mlp --pooling_layers 3 --pooling_layers_merge weighted",
    "layerwise": TRAIN + FINE + " --trainable_layers 2 --layerwise_lr_decay 0.9 --class_weights balanced --loss focal",
    "multi_label": RUN + FINE + " --train_file {inputs}/multi_label.jsonl --test_split_percentage 20 --calibrate true",
    "regression": RUN + FINE + " --train_file {inputs}/regression.csv --test_split_percentage 20",
    "pairs": RUN
    + FINE
    + " --train_file {inputs}/pairs.csv --text_column_names first second --test_split_percentage 20",
    "padding_free": TRAIN + FINE + " --padding_free true --train_sampling_strategy random",
    "streaming": RUN + FINE + " --streaming true --train_file {inputs}/shards/*.parquet --max_steps 8"
    " --validation_file {inputs}/validation.csv --eval_strategy steps --save_strategy steps --eval_steps 4"
    " --save_steps 4",
    "streaming_boost": RUN + " --streaming true --train_file {inputs}/shards --boost"
    " --validation_file {inputs}/validation.csv",
    "calibrate": TRAIN + " --boost --calibrate true --early_stopping_patience 1",
    "sweep": TRAIN + " --boost --sweep 2",
    "resume": TRAIN + FINE + " --resume_from_checkpoint {here}/finetuned/checkpoint-6",
    "resume_other": TRAIN + FINE + " --resume_from_checkpoint {other}/finetuned/checkpoint-6",
    "evaluate": "run --output_dir {out} --use_cpu --disable_tqdm true --model_name_or_path {here}/finetuned"
    " --do_eval true --do_predict true" + REVIEWS,
}

PREDICTIONS = {
    "predict_csv": "predict {here}/finetuned {inputs}/test.csv --output_file {out}/predictions.jsonl",
    "predict_jsonl": "predict {here}/finetuned {inputs}/test.jsonl --output_file {out}/predictions.csv",
    "predict_parquet": "predict {here}/multi_label {inputs}/test.parquet --output_file {out}/predictions.jsonl",
    "predict_top_k": "predict {here}/frozen {inputs}/test.csv {inputs}/test.jsonl --trust_remote_code true --top_k 1",
    "predict_regression": "predict {here}/regression {inputs}/test.csv",
    "predict_pairs": "predict {here}/pairs {inputs}/pairs.csv --text_column_names first second",
    "predict_calibrated": "predict {here}/calibrate {inputs}/test.csv --trust_remote_code true",
    "predict_other": "predict {other}/finetuned {inputs}/test.csv",
    "predict_other_boost": "predict {other}/boost {inputs}/test.csv --trust_remote_code true",
    "predict_other_multi_label": "predict {other}/multi_label {inputs}/test.csv",
}

PREDICT = "predict {here}/finetuned "
REFUSALS = {
    "wrong_option": TRAIN + " --learning_rat 1",
    "wrong_choice": TRAIN + " --pooling middle",
    "wrong_number": TRAIN + " --num_train_epochs many",
    "unknown_recipe_key": "run {inputs}/unknown_key.yaml",
    "recipe_is_no_yaml": "run {inputs}/broken.yaml",
    "missing_recipe": "run {inputs}/nothing.yaml",
    "missing_file": RUN + " --train_file {inputs}/nothing.csv",
    "no_data": RUN,
    "bad_csv_row": RUN + " --train_file {inputs}/bad_row.csv",
    "empty_text": RUN + " --train_file {inputs}/empty_text.csv",
    "missing_label": RUN + " --train_file {inputs}/missing_label.csv",
    "unseen_label": RUN + " --train_file {inputs}/train.csv --validation_file {inputs}/unseen_label.csv",
    "one_label": RUN + " --train_file {inputs}/one_label.csv",
    "mismatched_model": TRAIN.replace("{inputs}/bert", "{here}/multi_label"),
    "missing_model": TRAIN.replace("{inputs}/bert", "{inputs}/nothing"),
    "folder_without_model": TRAIN.replace("{inputs}/bert", "{inputs}/shards"),
    "fp16_on_cpu": TRAIN + " --fp16 true",
    "missing_text_column": TRAIN + " --text_column_names review",
    "missing_label_column": TRAIN + " --label_column_name stars",
    "unknown_format": RUN + " --train_file {inputs}/train.docx",
    "empty_file": RUN + " --train_file {inputs}/empty.csv",
    "broken_parquet": RUN + " --train_file {inputs}/broken.parquet",
    "cut_json": RUN + " --train_file {inputs}/cut.jsonl",
    "wrong_encoding": RUN + " --train_file {inputs}/latin1.csv",
    "unknown_encoding": TRAIN + " --encoding utf-99",
    "two_spellings": TRAIN + " --lr 1e-3 --head_learning_rate 1e-2",
    "frozen_with_layers": TRAIN + " --freeze_backbone true --trainable_layers 2",
    "boost_with_layers": TRAIN + " --boost --trainable_layers 2",
    "sweep_without_boost": TRAIN + " --sweep 3",
    "streaming_without_steps": TRAIN + " --streaming true",
    "refused_option": TRAIN + " --dataloader_drop_last true",
    "resume_from_nothing": TRAIN + " --resume_from_checkpoint true",
    "unknown_metric": TRAIN + " --metric_for_best_model beauty",
    "predict_existing_output": PREDICT + "{inputs}/test.csv --output_file {here}/predict_csv/predictions.jsonl",
    "predict_missing_model": "predict {inputs}/nothing {inputs}/test.csv",
    "predict_missing_file": PREDICT + "{inputs}/nothing.csv",
    "predict_missing_column": PREDICT + "{inputs}/test.csv --text_column_names review",
    "predict_untrained": "predict {inputs}/bert {inputs}/test.csv",
    "predict_wrong_output": PREDICT + "{inputs}/test.csv --output_file {out}.xlsx",
    "predict_wrong_temperature": PREDICT + "{inputs}/test.csv --temperature 0",
    "export_missing_model": "export {inputs}/nothing --output_dir {out}",
    "export_into_model": "export {here}/finetuned --output_dir {here}/finetuned",
    "demo_missing_model": "demo {inputs}/nothing",
    "features_unknown_word": "features lists",
    "hub_missing_folder": "hub push {inputs}/nothing",
}

CASES = [
    *(Case(name, command, FOLDER) for name, command in TRAININGS.items()),
    Case("feature_cache", "features verify", (*PRINTED, *FOLDER), folder="{here}/hf_home/bertcls_hf/features"),
    *(Case(name, command, (*PRINTED, *FOLDER)) for name, command in PREDICTIONS.items()),
    Case("predict_stdin", PREDICT.strip(), PRINTED, stdin="lines.txt"),
    Case("predict_stdin_jsonl", PREDICT + "- --stdin_format jsonl --chunk_rows 1", PRINTED, stdin="test.jsonl"),
    Case("export", "export {here}/finetuned --output_dir {out} --quantize int8", FOLDER),
    Case("export_evaluated", "export {here}/boost --output_dir {out} --evaluate", (exit_code, file_names)),
    Case("features_list", "features list --boost_cache_dir {here}/hf_home/bertcls_hf/features", PRINTED),
    Case("features_prune", "features prune --unfinished", PRINTED),
    Case("hub_push_without_token", "hub push {here}/finetuned --hub_model_id me/mine", STREAMS, is_refused=True),
    Case("demo_space", "demo {here}/finetuned --export_space {out}", (exit_code,)),
    *(Case(f"refuse_{name}", command, (*STREAMS, file_names), is_refused=True) for name, command in REFUSALS.items()),
    *(Case(f"help_{program}", f"{program} --help", HELP) for program in PROGRAMS),
    Case(
        "quickstart",
        "run recipes/quickstart.yaml --use_cpu --do_train true --do_predict true --output_dir {out}",
        FOLDER,
        is_slow=True,
    ),
]


def chosen_cases(quick: bool, part_of_name: str) -> list[Case]:
    """The cases that were asked for and those that they need, in the order of `CASES`."""
    names = {case.name for case in CASES if part_of_name in case.name and not (quick and case.is_slow)}
    for case in reversed(CASES):
        if case.name in names:
            names |= case.needs
    return [case for case in CASES if case.name in names]


# Running and reporting.


def run_case(case: Case, side: Side, warm: WarmPython | None) -> Outcome:
    """Runs the case's command in one checkout; times of `--help` are those of a new process."""
    program, *words = (side.filled(word, case.name) for word in shlex.split(case.command))
    words = [*PROGRAMS[program], *words]
    stdin_file = side.inputs / case.stdin if case.stdin else None
    folder = Path(side.filled(case.folder, case.name))
    if "{out}/" in case.command:
        folder.mkdir()
    started = time.perf_counter()
    done = warm.run(words, stdin_file) if warm and options not in case.checks else run_new(side, words, stdin_file)
    seconds = time.perf_counter() - started
    return Outcome(side, folder, done.returncode, done.stdout, done.stderr, seconds)


def run_new(side: Side, words: Sequence[str], stdin_file: Path | None) -> subprocess.CompletedProcess[str]:
    """Runs `python WORDS` as a new process, which reads a pipe."""
    stdin_text = stdin_file.read_text(encoding="utf-8") if stdin_file else ""
    return subprocess.run(
        [sys.executable, *words],
        cwd=side.checkout, env=environment(side), input=stdin_text, capture_output=True, encoding="utf-8",
        timeout=TIMEOUT_S,
    )  # fmt: skip


def environment(side: Side) -> dict[str, str]:
    """This process's environment without credentials, offline, with one thread and caches of the side's own."""
    kept = {name: value for name, value in os.environ.items() if "TOKEN" not in name and not name.startswith("HF_")}
    return {
        **kept,
        "PYTHONPATH": str(side.checkout),
        "HF_HOME": str(side.outputs / "hf_home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "COLUMNS": "120",
    }


def compare(case: Case, sides: Sequence[Side], warm: Sequence[WarmPython | None]) -> bool:
    """Runs a case on both sides, prints its row, and says whether it may stay as it is."""
    with ThreadPoolExecutor(2) as pool:
        old, new = pool.map(run_case, (case, case), sides, warm)
    differences = [sentence for check in dict.fromkeys(case.checks) for sentence in check(old, new)]
    if (old.exit_code != 0) != case.is_refused:
        differences.append(f"the case tests nothing: BEFORE ended with {old.exit_code}: {last_line(old.stderr)}")
    verdict = "equal" if not differences else "allowed" if case.name in ALLOWED else "DIFFERS"
    row = f"{case.name:32} {verdict:8} {old.exit_code:4} {old.seconds:7.1f} {new.seconds:7.1f}  {note(case, old)}"
    print(row, flush=True)
    for sentence in differences:
        print(f"    {sentence}", flush=True)
    return verdict != "DIFFERS"


def note(case: Case, before: Outcome) -> str:
    """What was compared, or why a difference is allowed."""
    if case.name in ALLOWED:
        return ALLOWED[case.name]
    words = [check.__name__.replace("_", " ") for check in dict.fromkeys(case.checks)]
    if file_contents in case.checks:
        words.append(f"{len(names_below(before.folder))} files")
    if options in case.checks:
        gone = [name for name in GONE_OPTIONS if re.search(rf"{name}\b", before.stdout)]
        words += [f"allowed to be gone: {', '.join(gone)}"] if gone else []
    return ", ".join(words)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="checkout of the revision that is known to be right")
    parser.add_argument("after", type=Path, help="checkout of the revision that should do the same")
    parser.add_argument("--quick", action="store_true", help="leave out the quickstart recipe")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="run the cases whose names hold this")
    parser.add_argument("--warm", action="store_true", help="run commands as forks that have the libraries already")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="write everything into this new folder, and keep it"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where a case differs and is not allowed to, 2 where no case has such a name."""
    args = parsed(argv)
    cases = chosen_cases(args.quick, args.only)
    if not cases:
        print(f"no case has {args.only!r} in its name")
        return 2
    with tempfile.TemporaryDirectory(prefix="compare_checkouts_") as temporary_folder:
        root = (args.keep or Path(temporary_folder)).resolve()
        sides = make_sides(root, args.before.resolve(), args.after.resolve())
        differing = run_all(cases, sides, args.warm)
    print(f"{len(cases)} cases, {len(differing)} differ" + "".join(f"\n    {name}" for name in differing))
    return 1 if differing else 0


def make_sides(root: Path, before: Path, after: Path) -> tuple[Side, Side]:
    """The two sides, whose folders and inputs are written below `root`."""
    inputs, outputs_before, outputs_after = (root / name for name in ("inputs", "before", "after"))
    for folder in (inputs, outputs_before, outputs_after):
        folder.mkdir(parents=True)
    comparison_inputs.write_inputs(inputs)
    return (
        Side(before, outputs_before, outputs_after, inputs),
        Side(after, outputs_after, outputs_before, inputs),
    )


def run_all(cases: Sequence[Case], sides: Sequence[Side], is_warm: bool) -> list[str]:
    """Prints the table, and returns the names of the cases that differ."""
    print(f"{'case':32} {'verdict':8} {'exit':>4} {'before':>7} {'after':>7}  compared (seconds of each)")
    with ExitStack() as stack:
        warm = [stack.enter_context(warm_python(side)) if is_warm else None for side in sides]
        return [case.name for case in cases if not compare(case, sides, warm)]


def warm_python(side: Side) -> WarmPython:
    return WarmPython(side.checkout, environment(side), side.outputs / "streams")


if __name__ == "__main__":
    sys.exit(main())
