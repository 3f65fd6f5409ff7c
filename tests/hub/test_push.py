"""Pushing: only named files, in one commit, and a failure that loses nothing."""

import errno
import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from bertcls_hf.config.arguments import ClassifierTrainingArguments
from bertcls_hf.errors import ArgumentsError, PushError
from bertcls_hf.hub import __main__ as hub_command
from bertcls_hf.hub.push import HubRepository, push_folder, pushed_files
from bertcls_hf.hub.push_callback import PushRun
from bertcls_hf.run import main
from tests.helpers.hub_client import talk_to
from tests.helpers.hub_server import TOKEN, USER, Commit, Hub, StoredFile, serve_hub
from tests.helpers.reviews import ROOT, WORDS
from tests.helpers.warm_processes import EntryScript, Finished, run_ranks


NAME = f"{USER}/model"
ALWAYS_THERE = {".gitattributes"}
MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
CARD = "---\nlibrary_name: transformers\n---\n# A model\n"
DROPPED = re.compile("disconnected|reset by peer|Broken pipe")
TEXTS = ["good film", "bad plot and a dull story", "", " ".join(WORDS)]
JUNK = (
    ".env", "notes.txt", "training_args.bin", "optimizer.pt", "events.out.tfevents.1", "cache.arrow",
    "predictions.jsonl", "model.bin", "my_results.json", "figures/notes.txt", "figures/old/roc.png", "secret/key.json",
    "checkpoint-9/model.safetensors", ".cache/huggingface/README.md", "other.py",
)  # fmt: skip


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server
        # The storage is another host.
        assert [request for request in server.requests if request.host == "localhost" and request.has_token] == []
        assert [request for request in server.requests if TOKEN in request.path] == []


@pytest.fixture
def client(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Lets this process talk to the hub; the seconds that it would have waited."""
    waits: list[float] = []
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(time, "sleep", waits.append)
    close_session()
    yield waits
    close_session()


@pytest.fixture
def model_folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A stock classifier with its tokenizer, card, picture and recipe, as a run leaves them, and junk beside them."""
    folder = tmp_path / "trained"
    BertForSequenceClassification(BertConfig.from_pretrained(tiny_bert)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    add_extras(folder)
    (folder / "recipe.yaml").write_text(f"push_to_hub: true\nhub_model_id: {NAME}\nhub_strategy: end\n")
    return folder


def add_extras(folder: Path) -> None:
    """What else may be published, and what may not."""
    for name in (*JUNK, "figures/confusion.png", "calibration.json", "cascade.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "README.md").write_text(CARD)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Of a process that knows nothing of this one but the hub; see `hub_server` on Xet."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {
        **inherited, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN,
        "HF_HOME": str(home),
    }  # fmt: skip


def run(argv: list[str], hub: Hub, folder: Path) -> Finished:
    """Runs the entry script in a new process, which reads the environment."""
    command = [sys.executable, str(ROOT / "run_classification.py"), *argv]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env=environment(hub, folder / "home"), cwd=folder,
    )  # fmt: skip
    return Finished(done.returncode, done.stdout)


def fork(argv: list[str], hub: Hub, folder: Path, processes: int = 1) -> Finished:
    """Runs the entry script in processes that are forked, and that know of this one's hub alone."""
    return run_ranks(argv, processes, functools.partial(talk_to, hub.endpoint, folder))


def messages(hub: Hub, revision: str = "main") -> list[str]:
    """Those of the commits, without the Hub's own first one."""
    return [commit.message for commit in hub.repositories[NAME].branches[revision][1:]]


def pushed_names(hub: Hub, revision: str = "main") -> set[str]:
    return set(hub.repositories[NAME].files(revision)) - ALWAYS_THERE


# Runs in a process that has transformers, and not this project.
CLASSIFY = """
import json, sys
sys.modules["bertcls_hf"] = None  # as where the package is not installed
name, trust, texts = json.loads(sys.stdin.read())
from transformers import pipeline
print(json.dumps(pipeline("text-classification", name, top_k=None, trust_remote_code=trust)(texts)))
"""


def classify(name: str, trust: bool, environment: dict[str, str], cwd: Path) -> list[dict[str, float]]:
    """The probabilities that a fresh process computes; `trust_remote_code` is asked for only where it is needed."""
    command = [sys.executable, "-I", "-c", CLASSIFY]
    asked = json.dumps([name, trust, TEXTS])
    done = subprocess.run(command, input=asked, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [{row["label"]: row["score"] for row in rows} for rows in json.loads(done.stdout.splitlines()[-1])]


class TestARunThatIsPushed:
    @pytest.mark.slow
    @pytest.mark.parametrize("pooling", [pytest.param(None, marks=pytest.mark.night), "mean"], ids=["stock", "custom"])
    def test_is_loaded_from_the_hub_by_a_process_without_this_project(
        self, command: Callable[..., list[str]], hub: Hub, tmp_path: Path, pooling: str | None
    ) -> None:
        out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
        add_extras(out)
        # As an earlier, custom model of this folder would have left it.
        (out / "modeling.py").write_text("raise RuntimeError('stale')\n")
        options = {"pooling": pooling, "do_train": True, "do_predict": True, "calibrate": True}
        start = run if pooling is None else fork
        done = start(command(num_train_epochs=1, push_to_hub=True, hub_model_id=NAME, **options), hub, tmp_path)
        assert done.code == 0, done.output[-2000:]
        assert f"the model is pushed: {hub.endpoint}/{NAME}/commit/" in done.output

        assert hub.repositories[NAME].private
        assert messages(hub) == ["Trained classifier"]
        expected = MODEL_FILES | {
            "README.md", "calibration.json", "recipe.yaml", "train_results.json", "eval_results.json",
            "test_results.json", "all_results.json", "eval_report.json", "test_report.json", "lexical_baseline.json",
        }  # fmt: skip
        expected |= {path.relative_to(out).as_posix() for path in (out / "figures").glob("*.png")}
        # A picture of the model before is gone.
        assert "figures/confusion.png" not in expected
        assert pushed_names(hub) == (expected if pooling is None else {*expected, "modeling.py"})

        assert TOKEN not in done.output
        for name, data in {**content(tmp_path), **hub.repositories[NAME].files()}.items():
            assert TOKEN.encode() not in data, name

        elsewhere.mkdir()
        trust = pooling is not None
        from_hub = classify(NAME, trust, environment(hub, elsewhere / "home"), elsewhere)
        offline = {**environment(hub, elsewhere / "empty"), "HF_HUB_OFFLINE": "1"}
        assert from_hub == classify(str(out), trust, offline, elsewhere)
        assert len(from_hub) == len(TEXTS)
        assert {*from_hub[0]} == {"neg", "pos"}
        assert hub.asked("lfs_download") == 1

    @pytest.mark.slow
    def test_that_is_refused_exits_77_and_is_pushed_later(
        self, command: Callable[..., list[str]], hub: Hub, tmp_path: Path
    ) -> None:
        hub.fail("create", 401)  # as for a token that was taken back during the training
        done = fork(command(num_train_epochs=1, push_to_hub=True, hub_model_id=NAME), hub, tmp_path)
        assert done.code == 77, done.output[-2000:]
        out = tmp_path / "out"
        error = done.output.splitlines()[-1]
        assert error == (
            f"error: pushing to {NAME} failed: the Hub does not accept the token (401): log in with `hf auth login`, "
            f"or set HF_TOKEN. The model is whole in {out}; push it later with "
            f"`python -m bertcls_hf.hub push {out} --hub_model_id {NAME}`"
        )
        assert TOKEN not in done.output
        assert AutoModelForSequenceClassification.from_pretrained(out).config.id2label == {0: "neg", 1: "pos"}
        # One attempt, after training: neither the start of the Trainer nor its checkpoints touch the Hub, and the
        # start of the run asks for the token alone.
        assert [request.route for request in hub.requests if request.route != "unknown"][:2] == ["whoami", "create"]
        assert hub.asked("create") == 1

        # The recipe knows the name.
        later = [sys.executable, "-m", "bertcls_hf.hub", "push", str(out)]
        pushed = subprocess.run(
            later, capture_output=True, text=True, env=environment(hub, tmp_path / "home"), cwd=ROOT, check=False
        )
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.startswith(f"{hub.endpoint}/{NAME}/commit/")
        assert pushed_names(hub) == set(pushed_files(out))
        assert hub.repositories[NAME].private

    @pytest.mark.slow
    def test_without_the_flag_nothing_is_asked_of_the_hub(
        self, command: Callable[..., list[str]], hub: Hub, tmp_path: Path
    ) -> None:
        assert fork(command(num_train_epochs=1), hub, tmp_path).code == 0
        assert hub.requests == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"hub_model_id": "me/model"}, "--hub_model_id belong to --push_to_hub, which is off"),
            ({"hub_strategy": "every_save"}, "--hub_strategy belong to --push_to_hub, which is off"),
            ({"push_to_hub": True, "hub_model_id": "a/b/c"}, "--hub_model_id: Repo id must be in the form"),
            ({"push_to_hub": True, "output_dir": "my model"}, "--hub_model_id: Repo id must use"),
            (
                {"push_to_hub": True, "hub_strategy": "every_save", "save_strategy": "no"},
                "--hub_strategy every_save pushes at checkpoints, but --save_strategy is no",
            ),
            (
                {"push_to_hub": True, "hub_strategy": "checkpoint"},
                ": checkpoints, with the state of their optimizer, stay here",
            ),
            ({"push_to_hub": True, "hub_always_push": True}, "--hub_always_push cannot be used"),
            ({"push_to_hub": True, "do_train": False, "do_eval": True}, "--push_to_hub pushes what the run trains"),
        ],
    )
    @pytest.mark.usefixtures("client")
    def test_is_refused_early_where_its_options_contradict(
        self, command: Callable[..., list[str]], capsys: pytest.CaptureFixture, options: dict, message: str
    ) -> None:
        assert main(command(**options)) == 2
        assert message in capsys.readouterr().err

    @pytest.mark.usefixtures("client")
    def test_is_refused_early_where_it_would_fail_at_the_end(
        self, command: Callable[..., list[str]], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        assert main(command(push_to_hub=True)) == 2
        assert "--push_to_hub needs a token: log in with `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert main(command(push_to_hub=True)) == 2
        assert "--push_to_hub needs the Hub, but HF_HUB_OFFLINE is set" in capsys.readouterr().err

    @pytest.mark.slow
    def test_is_refused_before_the_work_where_the_token_is_wrong(
        self, command: Callable[..., list[str]], hub: Hub, client: list[float], tmp_path: Path,
        capsys: pytest.CaptureFixture,
    ) -> None:  # fmt: skip
        hub.tokens.clear()
        # A model that is not there is not looked for.
        assert main(command(push_to_hub=True, hub_model_id=NAME, model_name_or_path=tmp_path / "none")) == 2
        assert capsys.readouterr().err == (
            "error: --push_to_hub: the Hub does not accept the token (401): log in with `hf auth login`, or set "
            "HF_TOKEN\n"
        )
        assert not (tmp_path / "out").exists()
        assert [request.route for request in hub.requests if request.route != "unknown"] == ["whoami"]

    def test_that_a_recipe_pushes_is_not_pushed_where_the_command_line_says_so(
        self, command: Callable[..., list[str]], hub: Hub, tmp_path: Path
    ) -> None:
        recipe = tmp_path / "pushed.yaml"
        recipe.write_text(f"push_to_hub: true\nhub_model_id: {NAME}\nhub_strategy: every_save\n")
        assert main([str(recipe), *command(num_train_epochs=1, push_to_hub=False)]) == 0
        assert hub.requests == []


class TestAPush:
    def test_holds_what_a_user_of_the_model_needs(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        address = push_folder(model_folder, HubRepository(NAME))
        expected = {
            *MODEL_FILES,
            "README.md",
            "figures/confusion.png",
            "calibration.json",
            "cascade.json",
            "recipe.yaml",
        }
        assert pushed_names(hub) == expected
        for name in expected:
            assert hub.repositories[NAME].files()[name] == (model_folder / name).read_bytes()
        repository = hub.repositories[NAME]
        assert repository.private
        assert address == f"{hub.endpoint}/{NAME}/commit/{repository.branches['main'][-1].oid}"
        assert (hub.asked("create"), hub.asked("commit"), client) == (1, 1, [])

    def test_of_a_folder_is_named_after_it(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        (model_folder / "recipe.yaml").unlink()
        assert hub_command.main(["push", str(model_folder)]) == 0
        assert set(hub.repositories) == {f"{USER}/trained"}

    def test_is_public_where_that_is_asked_for(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        assert hub_command.main(["push", str(model_folder), "--hub_private_repo", "false"]) == 0
        assert not hub.repositories[NAME].private

    def test_follows_the_recipe_of_the_run(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        with (model_folder / "recipe.yaml").open("a") as recipe:
            recipe.write("hub_private_repo: false\nhub_revision: v2\n")
        assert hub_command.main(["push", str(model_folder)]) == 0
        assert not hub.repositories[NAME].private
        assert messages(hub) == []
        assert messages(hub, "v2") == ["Trained classifier"]

    def test_again_commits_what_changed(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        push_folder(model_folder, HubRepository(NAME))
        first = push_folder(model_folder, HubRepository(NAME))
        assert (hub.asked("commit"), len(messages(hub))) == (1, 1)
        (model_folder / "config.json").write_text((model_folder / "config.json").read_text() + "\n")
        assert push_folder(model_folder, HubRepository(NAME)) != first
        assert len(messages(hub)) == 2
        assert hub.asked("lfs_upload") == 2  # the weights and the picture, once

    def test_to_a_new_and_to_an_old_branch(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        for _ in range(2):
            push_folder(model_folder, HubRepository(NAME, revision="a/b"))
            (model_folder / "README.md").write_text(CARD + "More.\n")
        assert messages(hub) == []
        assert messages(hub, "a/b") == ["Trained classifier", "Trained classifier"]

    def test_follows_no_link_and_no_pattern_of_a_configuration(
        self, hub: Hub, client: list[float], model_folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "secret.txt").write_text("CANARY")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/key.py").write_text("CANARY")
        (model_folder / "figures/link.png").symlink_to(tmp_path / "secret.txt")
        (model_folder / "merges.txt").symlink_to(tmp_path / "secret.txt")
        (model_folder / "private").symlink_to(tmp_path / "elsewhere")
        (model_folder / "modeling.py").write_text("")
        path = model_folder / "config.json"
        config = json.loads(path.read_text())
        for reference in ("**/*.X", "/etc/x.X", "../elsewhere/key.X", "private/key.X", "*.X", 5, ["modeling.X", None]):
            path.write_text(json.dumps({**config, "auto_map": {"AutoModel": reference}}))
            assert {name for name in pushed_files(model_folder) if name.endswith(".py")} <= {"modeling.py"}
        push_folder(model_folder, HubRepository(NAME))
        files = hub.repositories[NAME].files()
        assert "modeling.py" in files
        assert not files.keys() & {"figures/link.png", "merges.txt"}
        assert not any(b"CANARY" in content for content in files.values())

    @pytest.mark.parametrize(
        ("name", "content", "code"), [("config.json", "{", 77), ("recipe.yaml", "", 2), ("recipe.yaml", "a: [", 2)]
    )
    def test_of_a_damaged_folder_is_refused(
        self,
        hub: Hub,
        client: list[float],
        model_folder: Path,
        capsys: pytest.CaptureFixture,
        name: str,
        content: str,
        code: int,
    ) -> None:
        (model_folder / name).write_text(content)
        assert hub_command.main(["push", str(model_folder)]) == code
        assert capsys.readouterr().err.startswith(f"error: {model_folder / name} ")

    def test_of_nothing_is_refused(
        self, hub: Hub, client: list[float], tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        (tmp_path / "config.json").write_text("{}")
        for folder in (tmp_path, tmp_path / "nowhere"):
            assert hub_command.main(["push", str(folder)]) == 77
            message = f"error: {folder} holds no trained model (config.json and model.safetensors)\n"
            assert capsys.readouterr().err == message
        assert hub.requests == []


class TestAFaultThatPasses:
    @pytest.mark.parametrize(
        "route",
        ["create", "branch", "info", "validate_yaml", "preupload", "lfs_batch", "lfs_upload", "lfs_verify", "commit"],
    )  # fmt: skip
    @pytest.mark.parametrize("status", [500, 503])
    def test_is_tried_again(self, hub: Hub, client: list[float], model_folder: Path, route: str, status: int) -> None:
        hub.fail(route, status, times=2)
        push_folder(model_folder, HubRepository(NAME, revision="v1"))
        assert messages(hub, "v1") == ["Trained classifier"]
        assert MODEL_FILES < pushed_names(hub, "v1")
        assert len(client) == 2

    @pytest.mark.parametrize("route", ["create", "info", "preupload", "lfs_upload", "lfs_verify", "commit"])
    @pytest.mark.parametrize("when", ["before", "middle", "after"])
    def test_a_dropped_connection(
        self, hub: Hub, client: list[float], model_folder: Path, route: str, when: str
    ) -> None:
        """Also after the Hub did what it was asked: then it is not done twice."""
        hub.fail(route, None, when=when)
        address = push_folder(model_folder, HubRepository(NAME))
        assert messages(hub) == ["Trained classifier"]
        assert address.endswith(hub.repositories[NAME].branches["main"][-1].oid)
        assert len(client) == 1

    @pytest.mark.parametrize("route", ["create", "preupload", "commit"])
    def test_the_wait_that_the_hub_asks_for(
        self, hub: Hub, client: list[float], model_folder: Path, route: str
    ) -> None:
        hub.fail(route, 429, headers={"Retry-After": "17"})
        push_folder(model_folder, HubRepository(NAME))
        assert len(client) == 1
        assert client[0] in (17, 18)  # the client adds a second

    def test_another_commit_in_between_is_built_upon(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        push_folder(model_folder, HubRepository(NAME))
        (model_folder / "config.json").write_text((model_folder / "config.json").read_text() + "\n")
        hub.hold["lfs_batch"] = threading.Event()
        push = threading.Thread(target=push_folder, args=(model_folder, HubRepository(NAME)))
        push.start()
        wait_until(lambda: hub.asked("lfs_batch") == 2)
        branch = hub.repositories[NAME].branches["main"]
        branch.append(Commit("by hand", {**branch[-1].files, "NEWS.md": StoredFile(b"", False)}, branch[-1].oid))
        hub.hold["lfs_batch"].set()
        push.join()
        assert messages(hub) == ["Trained classifier", "by hand", "Trained classifier"]
        assert {"NEWS.md"} < pushed_names(hub)
        assert hub.asked("commit") == 3  # one of them is refused: it was made for another state


class TestAFaultThatStays:
    """One message, nothing half visible, the folder whole; and a push later finishes the job."""

    @pytest.mark.parametrize(
        ("route", "fault", "message"),
        [
            ("create", {"status": 401}, "the Hub does not accept the token (401): log in with `hf auth login`"),
            ("create", {"status": 403}, "the token may not write there (403): use one that may, or another"),
            ("commit", {"status": 403}, "the token may not write there (403): use one that may, or another"),
            ("create", {"status": 409}, "the name is taken (409): choose another --hub_model_id"),
            ("create", {"status": 429, "headers": {"Retry-After": "9999"}}, "429 Too Many Requests"),
            ("validate_yaml", {"status": 400, "body": {"errors": [{"message": "no such license"}]}},
             "Invalid metadata in README.md. - no such license"),
            ("info", {"status": 500}, "500 Internal Server Error"),
            ("lfs_upload", {"status": 503}, "503 Service Unavailable"),
            ("lfs_upload", {"status": None, "when": "middle"}, DROPPED),
            ("commit", {"status": 500}, "500 Internal Server Error"),
            ("commit", {"status": None, "when": "before"}, DROPPED),
        ],
    )  # fmt: skip
    def test_is_one_message(
        self, hub: Hub, client: list[float], model_folder: Path, capsys: pytest.CaptureFixture, route: str,
        fault: dict, message: str | re.Pattern[str],
    ) -> None:  # fmt: skip
        before = content(model_folder)
        hub.fail(route, fault.pop("status"), times=10**6, **fault)
        assert hub_command.main(["push", str(model_folder)]) == 77
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: pushing to {NAME} failed: ")
        assert re.search(re.escape(message) if isinstance(message, str) else message, error)
        assert error.endswith(f"`python -m bertcls_hf.hub push {model_folder} --hub_model_id {NAME}`")
        assert TOKEN not in error
        assert content(model_folder) == before
        assert NAME not in hub.repositories or pushed_names(hub) == set()

        hub.faults.clear()
        assert hub_command.main(["push", str(model_folder)]) == 0
        assert messages(hub) == ["Trained classifier"]
        assert MODEL_FILES < pushed_names(hub)

    def test_a_hub_without_xet(
        self, hub: Hub, client: list[float], model_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("hf_xet")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        with pytest.raises(PushError, match="Hub does not take large files by Xet: set HF_HUB_DISABLE_XET=1 in the e"):
            push_folder(model_folder, HubRepository(NAME))
        assert client == []

    def test_a_hub_that_is_not_there(
        self, client: list[float], model_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(PushError, match=r"pushing to me/model failed: .*Connection refused"):
            push_folder(model_folder, HubRepository(NAME))
        assert client == [1, 4]

    def test_a_name_of_someone_else(self, hub: Hub, client: list[float], model_folder: Path) -> None:
        with pytest.raises(PushError, match=re.escape("the token may not write there (403)")):
            push_folder(model_folder, HubRepository("them/model"))

    def test_a_private_model_does_not_go_into_a_public_repository(
        self, hub: Hub, client: list[float], model_folder: Path
    ) -> None:
        push_folder(model_folder, HubRepository(NAME, is_private=False))
        (model_folder / "README.md").write_text(CARD + "Secret.\n")
        with pytest.raises(PushError, match="taken by a public repository: --hub_private_repo false pushes there"):
            push_folder(model_folder, HubRepository(NAME))
        assert len(messages(hub)) == 1

    def test_the_command_that_is_named_pushes_to_the_same_place(
        self, hub: Hub, client: list[float], model_folder: Path
    ) -> None:
        hub.fail("create", 401)
        repository = HubRepository("model", is_private=False, revision="v1")
        with pytest.raises(PushError) as failure:
            push_folder(model_folder, repository)
        command = str(failure.value).rpartition("`python -m bertcls_hf.hub ")[2].removesuffix("`")
        assert hub_command.main(command.split()) == 0
        assert messages(hub, "v1") == ["Trained classifier"]
        assert not hub.repositories[NAME].private

    def test_a_token_that_cannot_be_sent_is_not_quoted(
        self, hub: Hub, client: list[float], model_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_canary\x01CANARY")
        with pytest.raises(PushError) as failure:
            push_folder(model_folder, HubRepository(NAME))
        assert "CANARY" not in str(failure.value)


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        pause.wait(0.02)


@pytest.mark.slow
class TestEverySave:
    @pytest.fixture
    def options(self) -> dict:
        """Checkpoints at steps 6, 12 and 18, of which the last one is the end."""
        return {"push_to_hub": True, "hub_model_id": NAME, "hub_strategy": "every_save", "save_total_limit": 0,
                "num_train_epochs": 3}  # fmt: skip

    @pytest.mark.parametrize(
        ("kind", "is_custom"),
        [({}, False), ({"pooling": "mean"}, True), ({"boost": True, "head_learning_rate": 0.01}, True)],
        ids=["stock", "custom", "boost"],
    )
    def test_pushes_a_model_that_loads(
        self, command: Callable[..., list[str]], hub: Hub, client: list[float], options: dict, tmp_path: Path,
        kind: dict, is_custom: bool,
    ) -> None:  # fmt: skip
        assert main(command(**options, **kind)) == 0
        said = messages(hub)
        assert said[0] == "Training in progress, step 6"
        assert said[-1] == "Trained classifier"
        assert set(said[1:-1]) <= {"Training in progress, step 12"}  # skipped where the first one still ran
        files = hub.repositories[NAME].branches["main"][1].files
        expected = {*MODEL_FILES, "recipe.yaml"} | ({"modeling.py"} if is_custom else set())
        assert set(files) - ALWAYS_THERE == expected

        snapshot = tmp_path / "snapshot"
        snapshot.mkdir()
        for name, file in files.items():
            (snapshot / name).write_bytes(file.content)
        probabilities = [self.logits(folder) for folder in (snapshot, tmp_path / "out/checkpoint-6")]
        torch.testing.assert_close(*probabilities)
        assert not (tmp_path / "out/_pushing").exists()

    def logits(self, folder: Path) -> torch.Tensor:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            return model(**tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")).logits

    @pytest.mark.usefixtures("hub", "client")
    def test_changes_nothing_of_what_is_learned(
        self, command: Callable[..., list[str]], options: dict, tmp_path: Path
    ) -> None:
        """The saving of a stock class draws random weights, and dropout draws from the same generator."""
        weights = []
        for name, pushing in (("pushed", options), ("plain", {"num_train_epochs": 3})):
            assert main(command(**pushing, output_dir=tmp_path / name, load_best_model_at_end=False)) == 0
            weights.append((tmp_path / name / "model.safetensors").read_bytes())
        assert weights[0] == weights[1]

    def test_that_fails_is_a_warning(
        self, command: Callable[..., list[str]], hub: Hub, client: list[float], options: dict,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        hub.fail("create", 500)
        assert main(command(**options)) == 0
        warning = next(record for record in caplog.records if "step 6" in record.getMessage())
        assert warning.levelname == "WARNING"
        assert "pushing to me/model failed: " in warning.getMessage()
        assert "Training in progress, step 6" not in messages(hub)
        assert messages(hub)[-1] == "Trained classifier"

    def test_that_the_disk_does_not_take_is_a_warning(
        self, command: Callable[..., list[str]], hub: Hub, client: list[float], options: dict,
        caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def save_for_use(model: object, tokenizer: object, folder: Path) -> None:
            assert folder.name == "_pushing"
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("bertcls_hf.hub.push_callback.save_for_use", save_for_use)
        assert main(command(**options)) == 0
        assert "step 6 is not pushed: its model cannot be written (No space left on device)" in caplog.text
        assert messages(hub) == ["Trained classifier"]

    def test_leaves_the_exit_code_to_the_last_push(
        self, command: Callable[..., list[str]], hub: Hub, client: list[float], options: dict,
        capsys: pytest.CaptureFixture, tmp_path: Path,
    ) -> None:  # fmt: skip
        hub.fail("create", 401, times=99)
        assert main(command(**options)) == 77
        assert f"python -m bertcls_hf.hub push {tmp_path / 'out'} " in capsys.readouterr().err.splitlines()[-1]
        assert (tmp_path / "out/model.safetensors").exists()

    def test_does_not_hold_up_the_training(
        self, command: Callable[..., list[str]], hub: Hub, client: list[float], options: dict, tmp_path: Path
    ) -> None:
        hub.hold["preupload"] = threading.Event()
        codes: list[int] = []
        training = threading.Thread(target=lambda: codes.append(main(command(**options))))
        training.start()
        wait_until(lambda: (tmp_path / "out/checkpoint-18/trainer_state.json").exists())
        assert hub.asked("preupload") == 1
        hub.hold["preupload"].set()
        training.join()
        assert codes == [0]
        # The second save found the first one's push at work.
        assert messages(hub) == ["Training in progress, step 6", "Trained classifier"]

    @pytest.mark.night
    def test_is_not_waited_for_by_a_run_that_is_stopped(
        self, command: Callable[..., list[str]], hub: Hub, options: dict, tmp_path: Path
    ) -> None:
        hub.hold["lfs_upload"] = threading.Event()
        argv = command(**{**options, "num_train_epochs": 2000, "save_strategy": "epoch", "save_total_limit": 2})
        stopped = EntryScript(argv, prepare=functools.partial(talk_to, hub.endpoint, tmp_path))
        wait_until(lambda: hub.asked("lfs_upload") == 1)
        stopped.process.terminate()
        assert stopped.wait(30) == 75
        hub.hold["lfs_upload"].set()
        assert messages(hub) == []
        # What is left of it does not hinder the next run.
        assert (tmp_path / "out/_pushing").exists()
        again = command(**{**options, "num_train_epochs": 1, "output_dir": tmp_path / "out"})
        done = fork(again, hub, tmp_path)
        assert done.code == 0, done.output[-2000:]
        assert messages(hub)[-1] == "Trained classifier"
        assert not (tmp_path / "out/_pushing").exists()

    def test_is_done_by_the_first_of_several_processes(
        self, command: Callable[..., list[str]], hub: Hub, options: dict, tmp_path: Path
    ) -> None:
        done = fork(command(**options), hub, tmp_path, processes=2)
        assert done.code == 0, done.output[-2000:]
        # 48 rows in steps of 2 x 8.
        assert messages(hub)[0] == "Training in progress, step 3"
        assert messages(hub)[-1] == "Trained classifier"
        assert hub.asked("create") == hub.asked("commit") == len(messages(hub))

    @pytest.mark.usefixtures("client")
    @pytest.mark.parametrize("kind", ["is_fsdp_enabled", "is_deepspeed_enabled"])
    def test_is_refused_where_no_process_has_the_whole_model(self, kind: str, tmp_path: Path) -> None:
        trainer = SimpleNamespace(**{"is_fsdp_enabled": False, "is_deepspeed_enabled": False, kind: True})
        for strategy in ("end", "every_save"):
            settings = ClassifierTrainingArguments(
                output_dir=str(tmp_path), push_to_hub=True, hub_strategy=strategy, use_cpu=True
            )
            if strategy == "end":
                PushRun(trainer, settings)
                continue
            with pytest.raises(ArgumentsError, match="no process has the whole model during training; use end"):
                PushRun(trainer, settings)
