"""Runs in any order in one folder: started, killed, resumed, with other data and options, predicted with and pushed.

A model of a few lines says what must hold: a run that ends well has the weights of an undisturbed run of its data and
options, a resumed run is of its own training, and whatever loads from the folder is one of the models that were
trained.
"""

import functools
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bertcls_hf.errors import ExitCode
from tests.faults.campaign import COMMON, watch
from tests.helpers.hub_client import talk_to
from tests.helpers.hub_server import USER, Hub, serve_hub
from tests.helpers.reviews import write_reviews
from tests.helpers.tiny_bert import write_review_bert
from tests.helpers.warm_processes import EntryScript


NAME = f"{USER}/model"
# Rows of the training file, and seeds.
DATA, OPTIONS = (48, 40), ({"seed": "1"}, {"seed": "2"})
COMMAND = "bertcls_hf.run.command"


class World:
    """What all examples share: an encoder, data, a Hub, and the digests of the undisturbed runs."""

    def __init__(self, root: Path, hub: Hub):
        self.root, self.hub = root, hub
        self.encoder = write_review_bert(root / "bert", layers=1)
        self.train = [write_reviews(root / f"train{rows}.csv", rows) for rows in DATA]
        self.validation = write_reviews(root / "validation.csv", 16, start=100)
        self.test = write_reviews(root / "test.csv", 5, start=200)

    def words(self, out: Path, data: int, options: int) -> list[str]:
        merged = {
            **COMMON, "model_name_or_path": self.encoder, "train_file": self.train[data], "lexical_baseline": False,
            "validation_file": self.validation, "output_dir": out, **OPTIONS[options],
        }  # fmt: skip
        return ["train", *(word for name, value in merged.items() for word in (f"--{name}", str(value)))]

    @functools.cache  # noqa: B019 - lives as long as the tests of this module
    def digest(self, data: int, options: int) -> str:
        """The weights of an undisturbed run."""
        out = self.root / f"whole {data} {options}"
        assert EntryScript(self.words(out, data, options), module=COMMAND).wait() == 0
        return digest_of(out)


def digest_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def watch_and_talk(endpoint: str, folder: str, number: int) -> None:
    """For a process that dies at a change of a file of its folder."""
    talk_to(endpoint, Path(folder).parent)
    watch(folder, number, "kill")


class Runs(RuleBasedStateMachine):
    """The folder, and what the model knows of it."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bertcls_hf_runs_"))
        self.out = self.folder / "out"
        self.data = self.options = 0
        # What was begun in this folder since it was last empty.
        self.begun: set[tuple[int, int]] = set()

    @initialize()
    def nothing_is_there(self) -> None:
        self.world.hub.repositories.pop(NAME, None)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def run(self, words: list[str]) -> tuple[int, str]:
        log = self.folder / "log.txt"
        log.unlink(missing_ok=True)
        prepare = functools.partial(talk_to, self.world.hub.endpoint, self.folder)
        return EntryScript(words, log=log, prepare=prepare, module=COMMAND).wait(), log.read_text()

    def training(self) -> list[str]:
        self.begun.add((self.data, self.options))
        return self.world.words(self.out, self.data, self.options)

    @rule(data=st.sampled_from(range(len(DATA))))
    def change_data(self, data: int) -> None:
        self.data = data

    @rule(options=st.sampled_from(range(len(OPTIONS))))
    def change_options(self, options: int) -> None:
        self.options = options

    @rule()
    def train(self) -> None:
        code, said = self.run(self.training())
        assert code == 0, said
        self.assert_is_of_this_training()

    @rule(number=st.integers(1, 90), resumes=st.booleans())
    def kill(self, number: int, resumes: bool) -> None:
        words = [*self.training(), *(["--resume_from_checkpoint", "auto"] if resumes else [])]
        prepare = functools.partial(watch_and_talk, self.world.hub.endpoint, str(self.out), number)
        EntryScript(words, prepare=prepare, module=COMMAND).wait()

    @rule()
    def resume(self) -> None:
        words = [*self.training(), "--resume_from_checkpoint", "auto"]
        code, said = self.run(words)
        if code == 0:
            self.assert_is_of_this_training()
            return
        # What is in the folder is of another training, and the message says what differs.
        assert code == ExitCode.BAD_ARGUMENTS, said
        assert len(self.begun) > 1, said
        assert "differ" in said or "seed was" in said, said

    def assert_is_of_this_training(self) -> None:
        assert digest_of(self.out) == self.world.digest(self.data, self.options)
        code, said = self.run(["verify", str(self.out)])
        assert code == 0, said

    def has_model(self) -> bool:
        return (self.out / "config.json").exists()

    @rule()
    def predict(self) -> None:
        words = ["predict", str(self.out), str(self.world.test), "--device", "cpu", "--disable_tqdm"]
        code, said = self.run(words)
        assert code == (0 if self.has_model() else ExitCode.BAD_ARGUMENTS), said
        assert "Traceback" not in said

    @precondition(lambda self: self.has_model())
    @rule()
    def push(self) -> None:
        code, said = self.run(["hub", "push", str(self.out), "--hub_model_id", NAME])
        # A run that was killed after its model was saved has no card.
        assert code in (0, ExitCode.BAD_ARGUMENTS, ExitCode.PUSH_FAILED), said
        if code == 0:
            pushed = self.world.hub.repositories[NAME].files()
            assert pushed["model.safetensors"] == (self.out / "model.safetensors").read_bytes()

    @invariant()
    def what_is_there_belongs_together(self) -> None:
        if not self.has_model():
            return
        known = {self.world.digest(*training) for training in self.begun}
        assert digest_of(self.out) in known
        if (self.out / "calibration.json").exists():
            assert json.loads((self.out / "calibration.json").read_text())["weights"] == digest_of(self.out)


@pytest.mark.slow
def test_any_order_of_runs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with serve_hub() as hub:
        Runs.world = World(tmp_path, hub)
        is_night = settings.default.max_examples > 100
        run_state_machine_as_test(
            Runs, settings=settings(max_examples=60 if is_night else 3, stateful_step_count=12 if is_night else 8)
        )
