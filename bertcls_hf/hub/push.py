"""Pushes a finished run to the Hub: only the files that a user of the model needs, in one commit."""

import json
import logging
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.hf_api import ModelInfo

from bertcls_hf.atomic_files import read_json
from bertcls_hf.config.parsing import RECIPE_FILE
from bertcls_hf.errors import PushError, one_line


logger = logging.getLogger(__name__)

# They are named one by one, so that no cache, checkpoint, log, prediction or stray file is ever published. The code of
# a custom model is added to them.
PUSHED_FILES = (
    "README.md",
    "figures/*.png",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "calibration.json",
    "cascade.json",
    RECIPE_FILE,
    "train_results.json",
    "eval_results.json",
    "test_results.json",
    "all_results.json",
    "lexical_baseline.json",
    "eval_report.json",
    "test_report.json",
)
# `module.Class`, in a configuration.
CODE_REFERENCE = re.compile(r"([A-Za-z_]\w*)\.[A-Za-z_]\w*")
# Seconds before each further attempt. The client repeats uploads by itself, but not what creates something.
WAITS_S = (1.0, 4.0)
LONGEST_WAIT_S = 300.0
# Busy, overtaken by another commit (412), or out of order.
PASSING_STATUSES = {408, 412, 429, 500, 502, 503, 504}
REASONS = {
    401: "the Hub does not accept the token (401): log in with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there (403): use one that may, or another --hub_model_id",
}
# A Hub that does not speak Xet does not know this address, which the package hf_xet asks for.
NO_XET = re.compile(r"\b(404|405|501)\b.*/xet-write-token/")
BEARER = re.compile(r"Bearer [^'\"]*")


@dataclass(frozen=True)
class HubRepository:
    """The repository that a model is pushed to.

    Args:
        name: `name` or `owner/name`.
        is_private: whether a new repository is private. An existing one must not be public where this is true.
        revision: the branch; a new branch starts at the state of main.
    """

    name: str
    is_private: bool = True
    revision: str | None = None


def run_repository(folder: Path, settings: Any) -> HubRepository:
    """The repository that a run's `hub_` options name; by default a private one with the folder's name.

    Args:
        folder: output_dir of the run.
        settings: has `hub_model_id`, `hub_private_repo` and `hub_revision`, each of which may be None.
    """
    name = settings.hub_model_id or folder.absolute().name
    return HubRepository(name, settings.hub_private_repo is not False, settings.hub_revision)


def pushed_files(folder: Path) -> list[str]:
    """The files of a folder that a push uploads, as paths relative to it."""
    found = {path for pattern in PUSHED_FILES for path in folder.glob(pattern)}
    found |= {folder / name for name in _code_files(folder)}
    return sorted(path.relative_to(folder).as_posix() for path in found if _is_own_file(path, folder))


def _is_own_file(path: Path, folder: Path) -> bool:
    """Says whether it is a file of the folder, and no link, which could lead to any file of this machine."""
    if not path.is_file():
        return False
    if path.resolve() != folder.resolve() / path.relative_to(folder):
        logger.warning("%s is a link, or in a folder that is one, and is not pushed", path)
        return False
    return True


def _code_files(folder: Path) -> set[str]:
    """The Python files beside the configurations that these name; those of a stock model name none.

    Raises:
        PushError: a configuration is damaged.
    """
    files = set()
    for name in ("config.json", "tokenizer_config.json"):
        for classes in _auto_map(folder / name).values():
            for path in classes if isinstance(classes, list) else [classes]:
                # `owner/name--module.Class` is loaded from another repository.
                if isinstance(path, str) and (module := CODE_REFERENCE.fullmatch(path)) is not None:
                    files.add(f"{module[1]}.py")
    return files


def _auto_map(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise PushError(f"{path} cannot be read: {one_line(error)}") from error
    found = content.get("auto_map", {}) if isinstance(content, dict) else {}
    return found if isinstance(found, dict) else {}


def push_folder(folder: Path, repository: HubRepository) -> str:
    """Uploads the model of a finished run, see [`upload`].

    Args:
        folder: output_dir.
        repository: receives the model.

    Returns:
        The address of the commit.

    Raises:
        PushError: the Hub refused or could not be reached. The folder is unchanged, and can be pushed again.
    """
    if not {"config.json", "model.safetensors"} <= set(pushed_files(folder)):
        raise PushError(f"{folder} holds no trained model (config.json and model.safetensors)")
    try:
        return upload(folder, repository, "Trained classifier")
    except PushError as error:
        raise PushError(
            f"{error}. The model is whole in {folder}; push it later with `{_command(folder, repository)}`"
        ) from error


def upload(folder: Path, repository: HubRepository, message: str, waits: Sequence[float] = WAITS_S) -> str:
    """Uploads the model in a folder as one commit, creating the repository and branch where needed.

    Args:
        folder: holds the model, and maybe other files.
        repository: receives the model.
        message: of the commit.
        waits: seconds before each further attempt; only failures that may pass are tried again.

    Returns:
        The address of the commit.

    Raises:
        PushError: the Hub refused or could not be reached. Nothing of the model is visible there.
    """
    try:
        return _with_retries(lambda: _push_once(folder, repository, message), waits)
    except Exception as error:  # the client raises its HTTP library's own kinds too, and none may lose a finished run
        raise PushError(f"pushing to {repository.name} failed: {_reason(error)}") from error


def _push_once(folder: Path, repository: HubRepository, message: str) -> str:
    """Makes one attempt; an earlier one may have been committed without the client getting the answer.

    The commit builds on the state that is read first, and the Hub refuses it where another commit came in between. The
    client leaves out files that are there already; where all of them are, it commits nothing.
    """
    api = HfApi()
    state = _open_repository(api, repository)
    # `upload_folder` may spread the files over several commits, and half a model would be there in between.
    commit = api.create_commit(
        state.id,
        [CommitOperationAdd(name, folder / name) for name in pushed_files(folder)],
        commit_message=message,
        parent_commit=state.sha,
        revision=repository.revision,
    )
    return str(commit.commit_url)


def _open_repository(api: HfApi, repository: HubRepository) -> ModelInfo:
    """Creates the repository and the branch where they are missing, and reads their state."""
    try:
        repo_id = api.create_repo(repository.name, private=repository.is_private, exist_ok=True).repo_id
    except KeyError as error:  # a conflict (409) whose answer names no repository
        raise PushError("the name is taken (409): choose another --hub_model_id") from error
    if repository.revision is not None and not repository.revision.startswith("refs/"):
        api.create_branch(repo_id, branch=repository.revision, exist_ok=True)
    state = api.model_info(repo_id, revision=repository.revision)
    if repository.is_private and state.private is False:
        raise PushError(
            "the name is taken by a public repository: --hub_private_repo false pushes there, another --hub_model_id "
            "makes a private one"
        )
    if not repository.is_private and state.private:
        logger.warning("%s exists and stays private: its settings on the Hub make it public", repo_id)
    return state


def _with_retries(push: Callable[[], str], waits: Sequence[float]) -> str:
    for wait in waits:
        try:
            return push()
        except Exception as error:
            pause = max(wait, _asked_wait(error))
            if not _may_pass(error) or pause > LONGEST_WAIT_S:
                raise
            logger.warning("the push failed (%s) and is tried again in %.0f s", _reason(error), pause)
            time.sleep(pause)
    return push()


def _may_pass(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in PASSING_STATUSES
    # The error page of a gateway is no JSON, which the client expects.
    return isinstance(_origin(error), httpx2.TransportError | json.JSONDecodeError)


def _origin(error: BaseException) -> BaseException:
    """The error that an upload thread of the client raised, which the client wraps into a RuntimeError."""
    return error.__cause__ if type(error) is RuntimeError and error.__cause__ is not None else error


def _response(error: BaseException) -> httpx2.Response | None:
    return getattr(_origin(error), "response", None)


def _status(error: BaseException) -> int | None:
    response = _response(error)
    return None if response is None else response.status_code


def _asked_wait(error: BaseException) -> float:
    """The seconds in the header `Retry-After`; 0 where it is missing or holds a date."""
    response = _response(error)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0


def _reason(error: BaseException) -> str:
    """The error in one line, without the token: the HTTP library quotes a header that it cannot send."""
    message = one_line(_origin(error))
    if NO_XET.search(message):
        return "this Hub does not take large files by Xet: set HF_HUB_DISABLE_XET=1 in the environment"
    reason = REASONS.get(_status(error) or 0) or message or type(_origin(error)).__name__
    return BEARER.sub("Bearer …", reason)


def _command(folder: Path, repository: HubRepository) -> str:
    """The command that pushes the same folder to the same place."""
    words = ["python", "-m", "bertcls_hf.hub", "push", str(folder), "--hub_model_id", repository.name]
    words += [] if repository.is_private else ["--hub_private_repo", "false"]
    words += [] if repository.revision is None else ["--hub_revision", repository.revision]
    return shlex.join(words)
