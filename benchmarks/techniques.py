"""What each technique of docs/accuracy.md gives, over several seeds, on validation.

    python benchmarks/techniques.py
    python benchmarks/techniques.py all --train_file imdb.parquet --seeds 3 --output techniques.json -- --bf16 true

The baseline is MiniLM fine-tuned on the end of each text. A technique changes its options, and nothing else. All runs
have lexical features too, which are weighed after the training, so that each run says what its encoder is worth alone
and beside them. `teachers` learns from the runs of the baseline. The test data is not read. A run that has finished is
not repeated, so that an interrupted table goes on. Words after `--` go to every run.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from _common import ROOT, environment, print_table, report, words_and_rest
from finetuning import CORPUS, MODEL


BASELINE, FIRST_SEED, ALL = "tail", 42, "all"
COMMON = {
    "model_name_or_path": MODEL,
    "pooling": "mean",
    "attention_dropout": 0.0,
    "truncation_strategy": "tail",
    "max_seq_length": 128,
    "lexical_features": True,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "num_train_epochs": 2,
    "learning_rate": 1e-4,
    "head_learning_rate": 1e-3,
    "eval_strategy": "no",
    "do_train": True,
    "do_eval": True,
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "report_to": "none",
    "disable_tqdm": True,
}
TECHNIQUES: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "head": {"truncation_strategy": "head"},
    "head_tail": {"truncation_strategy": "head_tail"},
    "windows": {"truncation_strategy": "windows", "max_text_length": 512},
    "windows, attention": {
        "truncation_strategy": "windows",
        "window_pooling": "attention",
        "max_text_length": 512,
    },
    "adapted": {"adapt_num_train_epochs": 3},
    "ema": {"weight_averaging": "ema", "ema_decay": 0.99},
    "swa": {"weight_averaging": "swa", "lr_scheduler_type": "constant_with_warmup"},
    "layer-wise decay": {"layerwise_lr_decay": 0.8},
    "teachers": {},
    "lora": {"lora_r": 8, "learning_rate": 1e-3},
    "attention dropout": {"attention_dropout": 0.1},
}


def options_of(technique: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The options of one run."""
    source = {"dataset_name": CORPUS, "encoding_errors": "replace", "empty_text": "drop"}
    chosen = {
        **({"train_file": options.train_file} if options.train_file else source),
        **COMMON,
        **TECHNIQUES[technique],
        "max_train_samples": options.rows,
        "seed": seed,
        "output_dir": str(folder_of(technique, seed, options)),
    }
    if technique == "teachers":
        chosen["teacher"] = [str(folder_of(BASELINE, other, options)) for other in seeds_of(options)]
    return chosen


def seeds_of(options: argparse.Namespace) -> range:
    return range(FIRST_SEED, FIRST_SEED + options.seeds)


def folder_of(technique: str, seed: int, options: argparse.Namespace) -> Path:
    return options.output_dir / f"{technique.replace(', ', '_').replace(' ', '_')}_{seed}"


def run(technique: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Trains once, unless that was done before, and returns its figures."""
    folder = folder_of(technique, seed, options)
    results = folder / "all_results.json"
    if not (folder / "README.md").exists():
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder.with_suffix(".yaml")
        recipe.write_text(json.dumps(options_of(technique, seed, options)), encoding="utf-8")
        command = [sys.executable, str(ROOT / "run_classification.py"), str(recipe), *options.words]
        with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
    found = json.loads(results.read_text(encoding="utf-8"))
    figures = {"alone": found["encoder_alone_accuracy"], "both": found["eval_accuracy"],
               "seconds": found["train_runtime"]}  # fmt: skip
    print(f"{technique}, seed {seed}: {figures}", file=sys.stderr, flush=True)
    return figures


def mean_and_deviation(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def row(technique: str, results: dict[str, list[dict[str, float]]]) -> tuple[str, ...]:
    """A technique's line of the table: its means over the seeds, and the differences to the baseline's."""
    mine, base = results[technique], results[BASELINE]
    cells = [technique]
    for name in ("alone", "both"):
        differences = [100 * (run[name] - other[name]) for run, other in zip(mine, base, strict=True)]
        cells += [mean_and_deviation([run[name] for run in mine]), f"{statistics.mean(differences):+.2f}"]
    times = statistics.mean(run["seconds"] for run in mine) / statistics.mean(run["seconds"] for run in base)
    return (*cells, f"{times:.2f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = "; ".join((*TECHNIQUES, ALL))
    parser.add_argument("techniques", nargs="*", default=["head_tail"], metavar="TECHNIQUE", help=names)
    parser.add_argument("--train_file", help="csv or parquet file with text and label (default: the BBC corpus)")
    parser.add_argument("--rows", type=int, default=5000, help="training rows (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each technique (%(default)s)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/techniques"))
    parser.add_argument("--output", type=Path, help="also write the results to this JSON file")
    words, rest = words_and_rest()
    options = parser.parse_args(words)
    options.words = rest
    asked = TECHNIQUES if ALL in options.techniques else options.techniques
    for name in asked:
        if name not in TECHNIQUES:
            parser.error(f"no technique {name}: choose from {names}")
    options.techniques = [BASELINE, *(name for name in asked if name != BASELINE)]
    return options


def main() -> None:
    options = parse()
    results = {name: [run(name, seed, options) for seed in seeds_of(options)] for name in options.techniques}
    print_table(
        ("technique", "encoder, %", "difference", "with lexical features, %", "difference", "times the time"),
        [row(name, results) for name in results],
    )
    report({"environment": environment(), "options": vars(options), "results": results}, options.output)


if __name__ == "__main__":
    main()
