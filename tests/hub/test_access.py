"""Before a training: what the Hub says of the token, and what a Hub that says nothing means."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from bertcls_hf.errors import ArgumentsError
from bertcls_hf.hub.access import check_access
from bertcls_hf.hub.push import HubRepository
from tests.helpers.hub_server import TOKEN, Hub, serve_hub


WRITES, READS = ["repo.content.read", "repo.write"], ["repo.content.read"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that this process talks to, as its user `me`."""
    with serve_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        close_session()
        yield server
        close_session()


def of_token(role: str, **rights: list[str]) -> dict[str, Any]:
    """The answer about a token, with the permissions of a fine-grained one by the name that they are for."""
    scoped = [{"entity": {"type": "user", "name": name}, "permissions": given} for name, given in rights.items()]
    token = {"displayName": "test", "role": role} | ({"fineGrained": {"scoped": scoped}} if rights else {})
    return {"auth": {"type": "access_token", "accessToken": token}}


def in_organization(role: str) -> dict[str, Any]:
    return {"orgs": [{"name": "Lab", "roleInOrg": role}]}


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("model", {}),
        ("me/model", {}),
        ("Me/model", {}),
        ("lab/model", in_organization("write")),
        ("me/model", of_token("fineGrained", me=WRITES)),
        ("me/model", of_token("fineGrained", them=READS, **{"me/model": WRITES})),
        ("model", of_token("fineGrained", **{"me/model": WRITES})),
        # Of another make: it says less, or other things.
        ("me/model", {"auth": None}),
        ("me/model", {"auth": {"type": "oauth"}}),
        ("me/model", {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": None}}}}),
    ],
)
def test_a_token_that_may_write_is_let_through(hub: Hub, name: str, identity: dict[str, Any]) -> None:
    hub.identities[TOKEN] = identity
    check_access(HubRepository(name))
    # The client also asks once for something else, without a token.
    assert [request.route for request in hub.requests if request.has_token] == ["whoami"]


@pytest.mark.parametrize(
    ("name", "identity", "problem"),
    [
        ("me/model", of_token("read"), "the token may only read"),
        ("them/model", {}, "the token is of me, who may not write to them"),
        ("lab/model", in_organization("read"), "the token is of me, who may not write to lab"),
        ("me/model", of_token("fineGrained", me=READS), "the token may not write to me"),
        ("model", of_token("fineGrained", **{"me/other": WRITES}), "the token may not write to me"),
        ("lab/model", in_organization("admin") | of_token("fineGrained", me=WRITES), "the token may not write to lab"),
    ],
)
def test_a_token_that_may_not_is_refused(hub: Hub, name: str, identity: dict[str, Any], problem: str) -> None:
    hub.identities[TOKEN] = identity
    with pytest.raises(ArgumentsError) as refused:
        check_access(HubRepository(name))
    assert str(refused.value) == f"--push_to_hub: {problem}: use a token that may, or another --hub_model_id"


def test_a_token_that_the_hub_does_not_know_is_refused(hub: Hub) -> None:
    hub.tokens.clear()
    with pytest.raises(ArgumentsError, match=r"the Hub does not accept the token \(401\): log in with `hf "):
        check_access(HubRepository("me/model"))


def test_a_token_that_cannot_be_sent_is_refused_and_not_quoted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("hf_canäryCANARY", "hf_canary\nCANARY"):
        monkeypatch.setattr("bertcls_hf.hub.access.get_token", lambda token=token: token)
        with pytest.raises(ArgumentsError, match="the token has characters that no token has") as refused:
            check_access(HubRepository("me/model"))
        assert "CANARY" not in str(refused.value)
    assert hub.asked("whoami") == 0


@pytest.mark.parametrize("status", [None, 404, 429, 500, 503])
def test_a_hub_that_says_nothing_of_the_token_is_a_warning(
    hub: Hub, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the push works is seen at its end: the training may take days, and the model is kept."""
    hub.fail("whoami", status)
    check_access(HubRepository("me/model"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "--push_to_hub: the Hub does not say now whether the token may push (" in record.getMessage()
    assert TOKEN not in record.getMessage()


def test_a_hub_that_is_not_there_is_a_warning(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    check_access(HubRepository("me/model"))
    assert "Connection refused" in caplog.text


def test_a_hub_that_does_not_answer_is_waited_for_no_longer_than_needed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bertcls_hf.hub.access.TIMEOUT_S", 0.3)
    hub.hold["whoami"] = held = threading.Event()
    begin = time.monotonic()
    check_access(HubRepository("me/model"))
    held.set()
    assert time.monotonic() - begin < 10
    assert "timed out" in caplog.text
