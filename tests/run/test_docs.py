"""The documentation: its links lead somewhere, its paths, functions and options exist, and its site builds."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bertcls_hf.config.arguments import REFUSED_OPTIONS
from bertcls_hf.config.parsing import OptionParser
from tests.helpers.documentation import PAGES, README, anchors, code_spans, links, marked_code, prose, table_rows
from tests.helpers.reviews import ROOT


PACKAGE, DOCS = ROOT / "bertcls_hf", ROOT / "docs"
ARCHITECTURE, MIGRATING, START = DOCS / "architecture.md", DOCS / "migrating.md", DOCS / "index.md"
MOST_LINES = 220
TOP_FOLDERS = ("bertcls_hf", "recipes", "tests", "docs", "benchmarks", "examples", ".ci", ".github")
# Of `bertcls predict` and `bertcls export`.
OTHER_OPTIONS = {"threshold", "quantize"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def options() -> set[str]:
    return set(OptionParser().recipe_options())


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_anchor_is_there(page: Path) -> None:
    for target in links(page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


def test_every_page_can_be_reached() -> None:
    """From the README or from the site's start page, each page of docs/ is one click away."""
    pages = {page for page in PAGES if page.parent == DOCS and page != START}
    for start in (README, START):
        linked = {(start.parent / target.partition("#")[0]).resolve() for target in links(start)}
        assert pages - linked == set(), name_of(start)


def repository_paths(page: Path) -> Iterator[str]:
    """What looks like a path of the repository, or of a room of the package."""
    rooms = [path.name for path in PACKAGE.iterdir() if path.is_dir()]
    for span in code_spans(prose(page)):
        word = span.split()[0]
        first, slash, _ = word.partition("/")
        if slash and re.fullmatch(r"[\w./-]+", word) and "://" not in word:
            if first in TOP_FOLDERS:
                yield word
            elif first in rooms:
                yield f"bertcls_hf/{word}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_of_the_repository_is_there(page: Path) -> None:
    assert [path for path in repository_paths(page) if not (ROOT / path).exists()] == []


def test_paths_are_looked_for() -> None:
    assert "bertcls_hf/models/modeling.py" in {*repository_paths(ARCHITECTURE)}


def defined_names() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    definitions = (ast.FunctionDef, ast.ClassDef)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, definitions)}


def test_every_function_of_the_architecture_is_there() -> None:
    """Functions are written as `load_data()` or `TextClassifier.forward()`; `save_model()` is transformers'."""
    named = {part for span in code_spans(prose(ARCHITECTURE)) if span.endswith("()") for part in span[:-2].split(".")}
    assert len(named) > 25
    assert named - defined_names() - {"save_model"} == set()


def test_the_rooms_of_the_architecture_are_those_of_the_package() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    described = {word for cells in table_rows(ARCHITECTURE) for word in code_spans(cells[0])}
    assert described == rooms | {"manifests", "atomic_files", "errors"}
    picture = (DOCS / "rooms.svg").read_text(encoding="utf-8")
    assert set(re.findall(r'<tspan font-weight="700">(\w+)</tspan>', picture)) == described


def migrations() -> Iterator[tuple[str, str]]:
    """Rows of theirs and ours."""
    rows = table_rows(MIGRATING)
    yield from ((cells[0], cells[1]) for cells in rows if len(cells) == 2)


def bare(word: str) -> str:
    return word.lstrip("-").replace("-", "_")


def test_the_options_that_a_migration_ends_with_are_there(options: set[str]) -> None:
    named = {bare(option) for _, ours in migrations() for span in code_spans(ours)
             for option in re.findall(r"--[\w-]+", span)}  # fmt: skip
    assert len(named) > 40
    assert named - options - {"config"} - OTHER_OPTIONS == set()
    assert named & set(REFUSED_OPTIONS) == set()


def test_what_a_migration_calls_the_same_is_an_option(options: set[str]) -> None:
    same = {bare(span.split()[0]) for theirs, ours in migrations() if ours.startswith("same")
            for span in code_spans(theirs)}  # fmt: skip
    assert len(same) > 40
    assert same - options == set()


def test_what_a_migration_replaces_is_no_option(options: set[str]) -> None:
    """An option that exists is not left out of a command, nor said to be missing."""
    gone = {bare(span.split()[0]) for theirs, ours in migrations() if ours.startswith(("leave out", "none"))
            for span in code_spans(theirs) if span.startswith("--")}  # fmt: skip
    assert len(gone) > 20
    assert gone & options - set(REFUSED_OPTIONS) == set()


def test_the_commands_have_options_that_are_there(options: set[str]) -> None:
    """Those of `bertcls train` and `run_classification.py`; what stands before belongs to the launcher."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES).replace("\\\n", " ")
    commands = re.findall(r"^(?:bertcls train|[^`#|]*run_classification\.py)( [^`#\n]*)", text, flags=re.MULTILINE)
    assert len(commands) > 15
    assert {bare(option) for command in commands for option in re.findall(r" (--[\w-]+)", command)} - options == set()


def test_the_python_interface_is_marked() -> None:
    """Its block is Python that parses, and short; `marked_code` is for a test that runs it."""
    code = marked_code(README, "python-api")
    assert "bertcls_hf.train(" in code
    assert len(ast.parse(code).body) <= 10


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed; see requirements-docs.txt")
def test_the_site_builds_and_asks_no_other_server_for_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert len(pages) > len(PAGES) - 2
    for page in pages:
        tags = re.findall(r"<(?:link|script|img|iframe)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert [tag for tag in tags if re.search(r"""(?:href|src)=["']?(?:https?:)?//""", tag)] == []
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style
