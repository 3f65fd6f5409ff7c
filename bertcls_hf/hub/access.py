"""Asks the Hub, before a training, whether the token may push what the training will make."""

import logging
from typing import Any

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.utils import build_hf_headers, get_session

from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.hub.push import HubRepository


logger = logging.getLogger(__name__)

# The client itself waits without end.
TIMEOUT_S = 15.0
UNAUTHORIZED = 401
WRITES = "repo.write"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def check_access(repository: HubRepository) -> None:
    """Refuses a token that the Hub does not know, or that may not write into the repository.

    Only the Hub's own word refuses a run. A Hub that cannot be reached or is busy may be there when the training is
    over, and the model can be pushed later, so that only a warning is logged.

    Args:
        repository: receives the model at the end of the run.

    Raises:
        ArgumentsError: see above.
    """
    try:
        identity = _identity()
    except (httpx2.HTTPError, ValueError) as error:
        reason = one_line(error) or type(error).__name__
        logger.warning("--push_to_hub: the Hub does not say now whether the token may push (%s)", reason)
        return
    owner = _owner(repository, identity)
    problem = _problem(repository, owner, identity)
    if problem is not None:
        raise ArgumentsError(f"--push_to_hub: {problem}: use a token that may, or another --hub_model_id")


def _identity() -> dict[str, Any]:
    """Asks whose the token is and what it may do.

    Raises:
        ArgumentsError: the Hub does not accept the token, or the token cannot be sent.
        HTTPError: there is no answer, or an error that says nothing of the token.
        ValueError: the answer is no JSON.
    """
    address = f"{constants.ENDPOINT}/api/whoami-v2"
    try:
        answer = get_session().get(address, headers=build_hf_headers(token=get_token()), timeout=TIMEOUT_S)
    except (httpx2.LocalProtocolError, UnicodeError) as error:
        # Without the error's own words, which quote the token.
        raise ArgumentsError(f"--push_to_hub: the token has characters that no token has: {LOG_IN}") from error
    if answer.status_code == UNAUTHORIZED:
        raise ArgumentsError(f"--push_to_hub: the Hub does not accept the token (401): {LOG_IN}")
    answer.raise_for_status()
    return _mapping(answer.json())


def _owner(repository: HubRepository, identity: dict[str, Any]) -> str:
    owner, slash, _ = repository.name.partition("/")
    return owner if slash else str(identity.get("name", ""))


def _problem(repository: HubRepository, owner: str, identity: dict[str, Any]) -> str | None:
    """Returns why the token may not write into the repository, or None if nothing says so."""
    user = str(identity.get("name", ""))
    if user and "orgs" in identity and owner.lower() not in _writable_names(user, identity["orgs"]):
        return f"the token is of {user}, who may not write to {owner}"
    token = _mapping(_mapping(identity.get("auth")).get("accessToken"))
    if token.get("role") == "read":
        return "the token may only read"
    rights = _mapping(token.get("fineGrained")).get("scoped")
    if token.get("role") == "fineGrained" and isinstance(rights, list):
        full_name = f"{owner}/{repository.name.rpartition('/')[2]}".lower()
        if not any(_grants(right, {owner.lower(), full_name}) for right in rights):
            return f"the token may not write to {owner}"
    return None


def _writable_names(user: str, organizations: Any) -> set[str]:
    found = [_mapping(entry) for entry in organizations] if isinstance(organizations, list) else []
    return {user.lower(), *(str(entry.get("name", "")).lower() for entry in found if entry.get("roleInOrg") != "read")}


def _grants(right: Any, names: set[str]) -> bool:
    """Returns whether one right of a token lets it write to a user, an organization or a model of these names."""
    entity, permissions = _mapping(_mapping(right).get("entity")), _mapping(right).get("permissions")
    return str(entity.get("name", "")).lower() in names and WRITES in (permissions or ())


def _mapping(value: Any) -> dict[str, Any]:
    """Returns a part of the answer, or nothing where a Hub of another make has something else there."""
    return value if isinstance(value, dict) else {}
