"""Exports the demo page as a folder for a Hugging Face Space, with this package and the versions of its imports."""

import platform
import shutil
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData
from huggingface_hub.utils import filter_repo_objects

from bertcls_hf.atomic_files import TEMPORARY_MARK, storage_error
from bertcls_hf.errors import ArgumentsError
from bertcls_hf.hub.push import pushed_files
from bertcls_hf.predict.arguments import Backend, InferenceDtype
from bertcls_hf.predict.engines import GRAPH_DTYPES, LEXICAL_FILE, PACKAGES


PACKAGE = Path(__file__).parents[1]
# The packages that the modules of the page import.
REQUIREMENTS = (
    "torch", "transformers", "datasets", "huggingface_hub", "httpx2", "safetensors", "numpy", "scipy", "scikit-learn",
    "pyarrow", "xxhash", "filelock", "tqdm", "pyyaml", "gradio", "nh3",
    "markdown-it-py",
)  # fmt: skip
# The files of a push that describe the training, which a page does not need.
NOT_IN_A_SPACE = ("recipe.yaml", "*_results.json", "*_report.json", "figures/*")
# Sharded weights, which models from other sources may have.
SHARDS = ("model-*.safetensors", "model.safetensors.index.json")
MODEL_FOLDER = "model"
APP = """\
\"\"\"The demo page of a text classifier, for a Hugging Face Space or for `python app.py`.\"\"\"

import sys
from pathlib import Path

from bertcls_hf.demo.__main__ import main


if __name__ == "__main__":
    sys.exit(main([{arguments}]))
"""
README = """\
# {title}

The demo page of a text classifier, {source}.

On your machine, with Python {python}:

```bash
pip install -r requirements.txt
python app.py
```

As a Space of yours:

```bash
hf repos create me/my-space --type space --space-sdk gradio
hf upload me/my-space . . --type space
```

`bertcls_hf/` is the package whose `python -m bertcls_hf.demo` opens the same page.
"""


@dataclass(frozen=True)
class SpaceSettings:
    """The settings of a Space.

    Args:
        model: a folder, whose files are copied into the Space, or an id on the Hub.
        title: the title of the page.
        revision: the branch, tag or commit of a model on the Hub.
        max_seq_length: the longest text in tokens, or None for the model's own.
        backend: what computes.
        dtype: the number format of weights and arithmetic.
        cascade: whether to apply the model's cascade, if it has one.
    """

    model: str
    title: str
    revision: str = "main"
    max_seq_length: int | None = None
    backend: Backend = "torch"
    dtype: InferenceDtype = "float32"
    cascade: bool = True

    @property
    def requirements(self) -> tuple[str, ...]:
        """The packages that the page needs."""
        return REQUIREMENTS if self.backend == "torch" else (*REQUIREMENTS, PACKAGES[self.backend])

    @property
    def weights(self) -> tuple[str, ...]:
        """The patterns of the weights' files, beside those of a push."""
        graph = GRAPH_DTYPES.get(self.backend, {}).get(self.dtype)
        return SHARDS if graph is None else (f"{graph}*", LEXICAL_FILE)

    @property
    def is_copied(self) -> bool:
        """Whether the model's files are copied into the Space."""
        return Path(self.model).is_dir()


def export_space(folder: Path, settings: SpaceSettings) -> None:
    """Writes the folder of a Space, which appears once it is complete.

    Args:
        folder: the folder to write; it must be absent or empty.
        settings: the settings of the Space.

    Raises:
        ArgumentsError: if the folder is not empty, or is a file.
        StorageError: if the disk is full or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentsError(f"--export_space {folder}: it exists and is not empty; name another folder")
    temporary = folder.with_name(f"{folder.name}{TEMPORARY_MARK}{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        _fill(temporary, settings)
        # This also replaces an empty folder.
        temporary.replace(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, settings: SpaceSettings) -> None:
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    if settings.is_copied:
        _copy_model(Path(settings.model), folder / MODEL_FOLDER, settings)
    _write(folder / "app.py", APP.format(arguments=_arguments(settings)))
    _write(
        folder / "requirements.txt", "".join(f"{name}=={_public_version(name)}\n" for name in settings.requirements)
    )
    SpaceCard(_card(settings)).save(folder / "README.md")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _copy_model(source: Path, target: Path, settings: SpaceSettings) -> None:
    weights = {path.relative_to(source).as_posix() for pattern in settings.weights for path in source.glob(pattern)}
    # A page that computes with a graph does not read the weights beside it.
    unread = [] if settings.backend == "torch" else ["*.safetensors"]
    for name in filter_repo_objects({*pushed_files(source), *weights}, ignore_patterns=[*NOT_IN_A_SPACE, *unread]):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        # Only the content is copied, not the permissions, since weights may be readable only by their owner.
        shutil.copyfile(source / name, target / name)


def _arguments(settings: SpaceSettings) -> str:
    """Returns the arguments of `main` as Python code."""
    model = f"str(Path(__file__).with_name({MODEL_FOLDER!r}))" if settings.is_copied else repr(settings.model)
    options = ["--title", settings.title]
    if not settings.is_copied:
        options += ["--model_revision", settings.revision]
    if settings.max_seq_length is not None:
        options += ["--max_seq_length", str(settings.max_seq_length)]
    if settings.backend != "torch":
        options += ["--backend", settings.backend]
    if settings.dtype != "float32":
        options += ["--dtype", settings.dtype]
    if not settings.cascade:
        options += ["--no_cascade"]
    return ", ".join([model, *map(repr, options)])


def _public_version(name: str) -> str:
    """Returns a package's version without the name of its build, such as `+cpu`, since builds differ by machine."""
    return version(name).partition("+")[0]


def _card(settings: SpaceSettings) -> str:
    python = ".".join(platform.python_version_tuple()[:2])
    metadata = SpaceCardData(
        title=settings.title,
        sdk="gradio",
        sdk_version=_public_version("gradio"),
        python_version=python,
        app_file="app.py",
        models=None if settings.is_copied else [settings.model],
        tags=["text-classification", "bertcls_hf"],
    )
    source = f"whose files are in `{MODEL_FOLDER}/`" if settings.is_copied else f"`{settings.model}` of the Hub"
    text = README.format(title=settings.title, source=source, python=python)
    return f"---\n{metadata.to_yaml()}\n---\n\n{text}"
