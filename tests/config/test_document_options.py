"""The options' documentation in a Markdown file."""

import subprocess
import sys
from pathlib import Path

import pytest

from bertcls_hf.config.arguments import ARGUMENT_CLASSES, own_fields
from bertcls_hf.config.document_options import DEFAULT_PAGE, END, START, heading, main, options_markdown, with_options
from tests.helpers.reviews import ROOT


OPTIONS_PAGE = ROOT / DEFAULT_PAGE


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{START}\nold\n{END}\n\nThe end.\n", encoding="utf-8")
    return path


def row(option: str) -> list[str]:
    (line,) = (line for line in options_markdown().splitlines() if line.startswith(f"| `--{option}` |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_every_own_option_has_one_row_in_the_table_of_its_class() -> None:
    text = options_markdown()
    for argument_class in ARGUMENT_CLASSES:
        table = text.partition(f"{heading(argument_class)}\n")[2].partition("\n## ")[0]
        documented = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
        assert documented == [f"--{f.name}" for f in own_fields(argument_class)]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("max_seq_length", ["`--max_seq_length`", "`--max_length`", "whole number", ""]),
        ("head_learning_rate", ["`--head_learning_rate`", "`--lr`", "number", ""]),
        ("boost", ["`--boost`", "", "true, false", "`false`"]),
        ("freeze_backbone", ["`--freeze_backbone`", "`--bert_finetuning` (negated)", "true, false", ""]),
        ("empty_text", ["`--empty_text`", "", "`error`, `drop`, `keep`", "`error`"]),
        ("text_column_names", ["`--text_column_names`", "", "texts", ""]),
        ("output_dir", ["`--output_dir`", "`--save_path`", "text", "`outputs/run`"]),
    ],
)
def test_a_row_holds_spellings_values_and_default(option: str, expected: list[str]) -> None:
    assert row(option)[:4] == expected


def test_every_row_has_as_many_cells_as_the_header() -> None:
    rows = [line for line in options_markdown().splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {6}
    assert row("label_delimiter")[-1].endswith(r"e.g. \| for a\|b.")


def test_the_text_around_the_markers_is_kept(page: Path) -> None:
    assert main([str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text == f"# Title\n\n{START}\n\n{options_markdown()}\n\n{END}\n\nThe end.\n"
    assert with_options(text) == text


def test_check_reports_an_old_table_and_changes_nothing(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.read_text(encoding="utf-8")
    assert main([str(page), "--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == before
    assert main([str(page)]) == 0
    assert main([str(page), "--check"]) == 0


@pytest.mark.parametrize("text", ["no markers", START, f"{END} {START}", f"{START}{START}{END}", f"{START}{END}{END}"])
def test_a_page_without_a_pair_of_markers_is_an_error(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert "expected <!-- options:start -->" in capsys.readouterr().err
    assert path.read_text() == text


def test_a_missing_page_is_an_error(tmp_path: Path) -> None:
    assert main([str(tmp_path / "page.md")]) == 2


def test_it_runs_as_a_module(page: Path) -> None:
    command = [sys.executable, "-m", "bertcls_hf.config.document_options", str(page), "--check"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 1


def test_the_page_of_the_documentation_is_up_to_date() -> None:
    assert main([str(OPTIONS_PAGE), "--check"]) == 0, "run `make docs`"


def test_the_page_of_the_documentation_is_the_default(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / DEFAULT_PAGE).parent.mkdir()
    page.rename(tmp_path / DEFAULT_PAGE)
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert options_markdown() in (tmp_path / DEFAULT_PAGE).read_text(encoding="utf-8")
