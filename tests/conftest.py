"""Tiny models and data for every test; nothing here touches a network."""

import os
import tempfile


# Caches of their own, here and in subprocesses, so that no test reads what an earlier run left.
_HOME = tempfile.TemporaryDirectory(prefix="bertcls_hf_tests_")
os.environ["HF_HOME"] = _HOME.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import copy
import gc
import importlib
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.helpers.reviews import write_reviews
from tests.helpers.tiny_bert import write_review_bert


# The same few cases each time; `--hypothesis-profile night` draws many others.
_ANYHOW = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("each time", max_examples=8, derandomize=True, database=None, **_ANYHOW)
settings.register_profile("night", max_examples=300, **_ANYHOW)
settings.load_profile("each time")


# A shell lets what it starts in the background ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    # Tests run side by side on few cores.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _late_imports_first() -> None:
    # A run imports this late, and it takes names from other modules: never while a test has patched them.
    importlib.import_module("bertcls_hf.training.sweep")


@pytest.fixture(scope="module", autouse=True)
def _garbage_is_looked_for_among_the_tests_own_objects() -> None:
    # accelerate collects garbage in every run, and would look through all that was imported each time.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _whole_output_where_it_matters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # These files take longer than a training on a handful of texts, and hundreds of tests train.
    if request.node.get_closest_marker("whole_output") is None:
        monkeypatch.setattr("bertcls_hf.run.bill_of_materials.write_bill_of_materials", lambda run: None)
        monkeypatch.setattr("bertcls_hf.hub.card.model_card.draw_pictures", lambda run: {})


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random BERT of 3 layers x 16 with its WordPiece tokenizer (dropout on, 64 positions)."""
    return write_review_bert(tmp_path_factory.mktemp("tiny_bert"), layers=3)


@pytest.fixture
def reviews(tmp_path: Path) -> dict[str, Path]:
    """Train, validation and test files of 48, 16 and 17 reviews."""
    return {
        "train": write_reviews(tmp_path / "train.csv", 48),
        "validation": write_reviews(tmp_path / "validation.csv", 16, start=100),
        "test": write_reviews(tmp_path / "test.csv", 17, start=200),
    }


@pytest.fixture
def command(tiny_bert: Path, reviews: dict[str, Path], tmp_path: Path) -> Callable[..., list[str]]:
    """The arguments of a quick run on the reviews; keyword arguments are options, None leaves one out."""
    defaults = {
        "model_name_or_path": tiny_bert, "train_file": reviews["train"], "validation_file": reviews["validation"],
        "test_file": reviews["test"], "output_dir": tmp_path / "out", "num_train_epochs": 2, "learning_rate": 1e-3,
        "per_device_train_batch_size": 8, "logging_steps": 1, "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip

    def build(**options: object) -> list[str]:
        merged = {**copy.copy(defaults), **options}
        return [token for name, value in merged.items() if value is not None for token in (f"--{name}", str(value))]

    return build
