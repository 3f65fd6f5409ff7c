"""What rows of docs/results.md are made of: validation chooses among settings, and test is read once.

    python benchmarks/results.py
    python benchmarks/results.py imdb_minilm_frozen --imdb IMDB --output_dir outputs/results
    python benchmarks/results.py nsmc_e5_frozen nsmc_e5_finetuned --nsmc NSMC -- --bf16 true

Each row names a recipe, and the settings that were tried. Every setting is trained without the test data; that of the
best validation accuracy is then trained once more, with them. The table has the lexical baseline of the same rows,
and the paired difference to it. Words after `--` go to every run.

The folders hold `train.parquet` and `test.parquet` (IMDB), `ratings_train.txt` and `ratings_test.txt` (NSMC). The
encoders come from the Hub, or `--model` names another place, such as a folder.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import ROOT, environment, print_table, report, words_and_rest


@dataclass(frozen=True)
class Row:
    """A row of the results.

    Args:
        recipe: below `recipes/`, without its suffix.
        data: `imdb` or `nsmc`; None for data that the recipe brings along.
        settings: the options that are tried, by a name; none for the recipe as it is.
        options: further options of every run.
    """

    recipe: str
    data: str | None = None
    settings: dict[str, list[str]] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)


FILES = {
    "imdb": ("train.parquet", "test.parquet"),
    "nsmc": ("ratings_train.txt", "ratings_test.txt"),
}
RATES = {rate: ["--learning_rate", rate] for rate in ("5e-5", "1e-4", "2e-4")}
LAYERS = {f"{layers} layers": ["--pooling_layers", layers] for layers in ("4", "12")}
ALONE = ["--lexical_features", "false"]
# The seed's way to train a head: its optimizer and schedule, on the first token, as these encoders have no pooler.
SEED_WAY = ["--pooling", "cls", "--max_seq_length", "128", "--weight_decay", "0", "--lr_scheduler_type", "constant"]

ROWS = {
    "bbc_minilm_frozen": Row("quickstart"),
    "bbc_minilm_frozen_alone": Row("quickstart", options=ALONE),
    "imdb_minilm_frozen": Row(
        "minilm/imdb_lexical_256",
        "imdb",
        {
            "no epochs": ["--num_train_epochs", "0"],
            "1e-4": [],
            "5 epochs at 3e-4": ["--head_init", "random", "--head_learning_rate", "3e-4", "--num_train_epochs", "5"],
            "5 epochs at 1e-3": ["--head_init", "random", "--head_learning_rate", "1e-3", "--num_train_epochs", "5"],
        },
    ),
    "imdb_minilm_finetuned_256": Row("minilm/imdb_finetuned_lexical_256", "imdb"),
    "imdb_minilm_finetuned": Row("minilm/imdb_finetuned_lexical_512_gpu", "imdb", RATES),
    "imdb_minilm_finetuned_alone": Row("minilm/imdb_finetuned_lexical_512_gpu", "imdb", RATES, ALONE),
    "imdb_mpnet_frozen": Row("imdb/mpnet_lexical_512", "imdb", LAYERS),
    "imdb_mpnet_finetuned": Row(
        "imdb/mpnet_finetuned_lexical_512_gpu",
        "imdb",
        {rate: ["--learning_rate", rate] for rate in ("2e-5", "3e-5", "5e-5")},
    ),
    "nsmc_e5_frozen": Row("nsmc/e5_lexical_128", "nsmc", LAYERS),
    "nsmc_e5_frozen_alone": Row("nsmc/e5_lexical_128", "nsmc", LAYERS, ALONE),
    "nsmc_e5_frozen_seed": Row("nsmc/mbert_cased_frozen_512", "nsmc", options=SEED_WAY),
    "nsmc_e5_finetuned": Row("nsmc/e5_finetuned_lexical_128", "nsmc"),
}


def run(row: Row, options: argparse.Namespace, words: list[str], folder: Path, with_test: bool) -> Path:
    """Trains once, and returns the folder of the run."""
    recipe = folder.with_suffix(".yaml")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    # The data is given on the command line, and the test data only where they are to be read.
    names = ("dataset_name:", "train_file:", "test_file:") if row.data else ()
    lines = (ROOT / "recipes" / f"{row.recipe}.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    recipe.write_text("".join(line for line in lines if not line.startswith(names)), encoding="utf-8")
    command = [sys.executable, str(ROOT / "run_classification.py"), str(recipe), "--output_dir", str(folder)]
    if row.data:
        train, test = (str(Path(getattr(options, row.data), name)) for name in FILES[row.data])
        command += ["--train_file", train, *(["--test_file", test] if with_test else [])]
    command += ["--model_name_or_path", options.model] if options.model else []
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run([*command, *row.options, *words, *options.words], check=True, stdout=log, stderr=log)
    return folder


def choose(name: str, row: Row, options: argparse.Namespace) -> tuple[dict[str, float], str]:
    """Trains every setting without the test data.

    Returns:
        The validation accuracy of each, and the name of the best.
    """
    accuracies = {}
    for number, (setting, words) in enumerate(row.settings.items()):
        folder = run(row, options, words, options.output_dir / name / f"setting_{number}", with_test=False)
        accuracies[setting] = read(folder / "eval_results.json")["eval_accuracy"]
        print(f"{name}, {setting}: {accuracies[setting]:.4f} on validation", file=sys.stderr, flush=True)
    return accuracies, max(accuracies, key=lambda setting: accuracies[setting])


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Chooses the setting of a row, and trains it with the test data."""
    row = ROWS[name]
    accuracies, chosen = choose(name, row, options) if len(row.settings) > 1 else ({}, "")
    folder = run(row, options, row.settings.get(chosen, []), options.output_dir / name / "chosen", with_test=True)
    compared = read(folder / "lexical_baseline.json")["splits"]["test"]
    difference = compared["comparison"]["differences"]["accuracy"]
    return {
        "validation_accuracies": accuracies,
        "chosen": chosen,
        "validation": read(folder / "eval_results.json")["eval_accuracy"],
        "test": read(folder / "test_results.json")["test_accuracy"],
        "baseline": compared["metrics"]["accuracy"],
        "difference": difference["value"],
        "interval": difference["interval"],
        "mcnemar_p": compared["comparison"]["mcnemar_p"],
    }


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}. Default: the first")
    for data, names in FILES.items():
        parser.add_argument(f"--{data}", help=f"folder of {' and '.join(names)}")
    parser.add_argument("--model", help="where the encoder is, if not on the Hub")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/results"))
    parser.add_argument("--output", type=Path, help="also write the results to this JSON file")
    words, rest = words_and_rest()
    options = parser.parse_args(words)
    options.words = rest
    options.rows = options.rows or list(ROWS)[:1]
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"no row {name}: choose from {', '.join(ROWS)}")
        if (data := ROWS[name].data) and getattr(options, data) is None:
            parser.error(f"{name} needs --{data}")
    return options


def main() -> None:
    options = parse()
    results = {name: measure(name, options) for name in options.rows}
    print_table(
        ("row", "chosen", "validation", "test", "baseline", "difference", "interval", "McNemar"),
        [
            (
                name,
                found["chosen"],
                *(f"{100 * found[column]:.2f}" for column in ("validation", "test", "baseline")),
                f"{100 * found['difference']:+.2f}",
                " to ".join(f"{100 * bound:+.2f}" for bound in found["interval"]),
                f"{found['mcnemar_p']:.2g}",
            )
            for name, found in results.items()
        ],
    )
    report({"environment": environment(), "results": results}, options.output)


if __name__ == "__main__":
    main()
