"""Every recipe parses, and says the truth about itself."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from bertcls_hf.config.arguments import ARGUMENT_CLASSES, Arguments
from bertcls_hf.config.parsing import build_arguments, explicit_options
from tests.helpers.reviews import ROOT


EXPECTED = {
    "amazon/streamed_256.yaml",
    "quickstart.yaml",
    "quickstart_hub.yaml",
    "imdb/adapted_lexical_512_gpu.yaml",
    "imdb/finetuned_256.yaml",
    "imdb/finetuned_512.yaml",
    "imdb/finetuned_512_gpu.yaml",
    "imdb/finetuned_512_layerwise.yaml",
    "imdb/frozen_256.yaml",
    "imdb/frozen_512.yaml",
    "imdb/frozen_512_mean4.yaml",
    "imdb/lpft_512.yaml",
    "imdb/modernbert_512.yaml",
    "imdb/modernbert_lexical_2048_gpu.yaml",
    "imdb/mpnet_finetuned_lexical_512_gpu.yaml",
    "imdb/mpnet_lexical_512.yaml",
    "imdb/mpnet_self_training_256.yaml",
    "imdb/roberta_large_512_gpu.yaml",
    "minilm/imdb_finetuned_256.yaml",
    "minilm/bbc_few_shot_256.yaml",
    "minilm/imdb_adapted_lexical_512_gpu.yaml",
    "minilm/imdb_finetuned_lexical_256.yaml",
    "minilm/imdb_finetuned_lexical_512_gpu.yaml",
    "minilm/imdb_frozen_256.yaml",
    "minilm/imdb_lexical_256.yaml",
    "minilm/imdb_logistic_256.yaml",
    "minilm/news_no_labels_256.yaml",
    "minilm/nsmc_frozen_128.yaml",
    "nsmc/e5_finetuned_lexical_128.yaml",
    "nsmc/e5_lexical_128.yaml",
    "nsmc/klue_bert_finetuned_128.yaml",
    "nsmc/klue_bert_finetuned_128_gpu.yaml",
    "nsmc/klue_roberta_adapted_128_gpu.yaml",
    "nsmc/kobert_frozen_512.yaml",
    "nsmc/lpft_128.yaml",
    "nsmc/mbert_cased_frozen_512.yaml",
    "nsmc/mbert_uncased_frozen_512.yaml",
}
FOLDER = ROOT / "recipes"
FOUND = sorted(path for path in FOLDER.rglob("*.yaml") if path.relative_to(FOLDER).parts[0] != "accelerate")
every_recipe = pytest.mark.parametrize("path", FOUND, ids=lambda path: path.relative_to(FOLDER).as_posix())


def command(path: Path) -> list[str]:
    """The words of the command that a recipe opens with."""
    return shlex.split(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))


def build(*words: str) -> Arguments:
    return build_arguments(explicit_options([*words, "--use_cpu", "true"]))


def test_the_recipes_are_those_that_are_expected() -> None:
    assert {path.relative_to(FOLDER).as_posix() for path in FOUND} == EXPECTED


@every_recipe
def test_a_recipe_is_run_by_the_command_that_it_opens_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    python, script, recipe, *options = command(path)
    assert (python, script, recipe) == ("python", "run_classification.py", path.relative_to(ROOT).as_posix())
    args = build(recipe, *options)
    assert args.training.do_train
    assert args.training.do_eval


@every_recipe
def test_a_recipe_writes_where_its_name_says_and_nowhere_else(path: Path) -> None:
    args = build(str(path))
    assert args.training.output_dir == f"outputs/{path.relative_to(FOLDER).with_suffix('').as_posix()}"
    assert not args.training.push_to_hub


@every_recipe
def test_a_recipe_never_validates_on_test(path: Path) -> None:
    args = build(str(path))
    data, few_shot = args.data, args.few_shot
    assert data.validation_file is None
    assert data.validation_split_name is None
    # Of few labelled rows, none is held out.
    has_few = few_shot.few_shot or few_shot.self_training_rounds
    has_none = args.learns_without_labels
    assert data.validation_split_percentage == (0 if has_few and not has_none else 10)


@every_recipe
def test_a_recipe_does_not_repeat_defaults(path: Path) -> None:
    defaults = {f.name: f.default for argument_class in ARGUMENT_CLASSES for f in fields(argument_class)}
    # Each recipe names its model, whatever the default is.
    given = {k: v for k, v in explicit_options([str(path)]).items() if k != "model_name_or_path"}
    assert given
    assert [name for name, value in given.items() if defaults[name] == value] == []


@every_recipe
def test_a_recipe_is_written_in_the_common_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    keys = [line.partition(":")[0] for line in lines if line and not line.startswith(("#", "  - "))]
    assert text.endswith("\n")
    assert max(map(len, lines)) <= 119
    assert lines[1] == "#"
    # Sections in the order of the argument classes, each with its options below it.
    names = [c._argument_group_name for c in ARGUMENT_CLASSES]
    sections = [line.removeprefix("# ") for line in lines if line.removeprefix("# ") in names]
    assert sections == sorted(sections, key=names.index)
    group_of = {f.name: c._argument_group_name for c in ARGUMENT_CLASSES for f in fields(c) if f.init}
    assert list(dict.fromkeys(group_of[key] for key in keys)) == sections
    # PyYAML and every other YAML reader see 2.0e-5 as a number, and 2e-5 as a text.
    assert not re.search(r":\s*\d+e", text)


def test_an_imdb_recipe_reads_files_of_the_command_line_instead_of_the_hub() -> None:
    data = build(str(FOLDER / "minilm/imdb_frozen_256.yaml"), "--train_file", "a.csv", "--test_file", "b.csv").data
    assert (data.dataset_name, data.train_file, data.test_file) == (None, "a.csv", "b.csv")
