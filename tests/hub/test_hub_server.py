"""The server that the tests push to refuses what the Hub refuses, so that a push that it takes is a push."""

import base64
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.hub_server import TOKEN, Hub, serve_hub


HEADER = {"key": "header", "value": {"summary": "s", "description": ""}}
DATA = b"data"
OID = hashlib.sha256(DATA).hexdigest()
COMMIT = "/api/models/me/m/commit/main"
BATCH = "/me/m.git/info/lfs/objects/batch"
LINES = {"Content-Type": "application/x-ndjson"}
LFS = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """With a public repository `me/m`."""
    with serve_hub() as server:
        assert call(server, "POST", "/api/repos/create", {"name": "m"}) == 200
        assert not server.repositories["me/m"].private
        yield server


def call(
    hub: Hub,
    method: str,
    path: str,
    body: Any = None,
    token: str | None = TOKEN,
    headers: dict[str, str] | None = None,
) -> int:
    """The status of an answer; a list of dictionaries is sent as lines of JSON."""
    if isinstance(body, list):
        body = b"\n".join(json.dumps(line).encode() for line in body)
        headers = LINES if headers is None else headers
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | (headers or {})
    sent |= {} if token is None else {"Authorization": f"Bearer {token}"}
    address = path if path.startswith("http") else hub.endpoint + path
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, sent, method=method)) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def file(path: str, content: bytes = b"x", **other: Any) -> dict[str, Any]:
    value = {"path": path, "encoding": "base64", "content": base64.b64encode(content).decode(), **other}
    return {"key": "file", "value": value}


def large(path: str = "m.safetensors", **other: Any) -> dict[str, Any]:
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": OID, "size": len(DATA), **other}}


def readme(metadata: str) -> dict[str, Any]:
    return file("README.md", f"---\n{metadata}\n---\n# A model\n".encode())


def upload(hub: Hub, name: str = "me/m") -> None:
    """What a client does before it commits a large file."""
    asked = {"operation": "upload", "objects": [{"oid": OID, "size": len(DATA)}]}
    assert call(hub, "POST", f"/{name}.git/info/lfs/objects/batch", asked, headers=LFS) == 200
    assert call(hub, "PUT", hub.signed(name, OID, "PUT"), DATA, token=None) == 200
    assert call(hub, "POST", f"/{name}.git/info/lfs/verify", {"oid": OID, "size": len(DATA)}) == 200


def test_what_is_right_is_taken(hub: Hub) -> None:
    upload(hub)
    right = [HEADER, file("config.json"), large(), readme("license: mit\nbase_model: google/bert-base")]
    assert call(hub, "POST", COMMIT, right) == 200
    assert hub.repositories["me/m"].files()["m.safetensors"] == DATA
    assert call(hub, "GET", "/api/whoami-v2") == 200


@pytest.mark.parametrize(
    "lines",
    [
        [{"key": "file", "value": {"summary": "x"}}, file("a.txt")],
        [{"key": "header", "value": {"summary": ""}}, file("a.txt")],
        [HEADER, HEADER],
        [HEADER, file("../evil")],
        [HEADER, file(".git/config")],
        [HEADER, file("/etc/x")],
        [HEADER, file("a//b")],
        [HEADER, file("d.txt"), file("d.txt", b"y")],
        [HEADER, file("a.txt"), file("a.txt/b")],
        [HEADER, file("model.safetensors")],
        [HEADER, file("big.txt", bytes(10_000_001))],
        [HEADER, file("e", encoding="utf-16")],
        [HEADER, {"key": "file", "value": {"path": "e", "encoding": "base64", "content": "no base64"}}],
        [HEADER, large(size=999)],
        [HEADER, large(algo="md5")],
        [HEADER, large(oid="0" * 64)],
        [HEADER, readme(": : [")],
        [HEADER, readme("license: nonsense")],
        [HEADER, readme("base_model: /home/me/x")],
        [HEADER, {"key": "deletedFile", "value": {"path": "none"}}],
    ],
)
def test_a_commit_that_cannot_be_is_refused(hub: Hub, lines: list[dict[str, Any]]) -> None:
    upload(hub)
    assert call(hub, "POST", COMMIT, lines) in (400, 413)
    assert len(hub.repositories["me/m"].branches["main"]) == 1


def test_an_object_of_another_repository_is_refused(hub: Hub) -> None:
    assert call(hub, "POST", "/api/repos/create", {"name": "other"}) == 200
    upload(hub, "me/other")
    assert call(hub, "POST", COMMIT, [HEADER, large()]) == 400
    assert call(hub, "POST", "/me/m.git/info/lfs/verify", {"oid": OID, "size": len(DATA)}) == 404


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/api/repos/create", {"name": "bad name", "visibility": "private"}, {}, 400),
        ("/api/repos/create", {"name": "a1", "type": "nonsense"}, {}, 400),
        ("/api/repos/create", {"name": "a1", "visibility": "secret"}, {}, 400),
        (COMMIT, [HEADER, file("c.txt")], {"Content-Type": "text/plain"}, 415),
        (COMMIT.replace("main", "nope"), [HEADER, file("a")], LINES, 404),
        (COMMIT.replace("main", "refs%2Fpr%2F1"), [HEADER, file("a")], LINES, 404),
        ("/api/models/me/m/branch/..", {}, {}, 400),
        ("/api/models/me/m/preupload/main", {"files": [{"path": "a"}]}, {}, 400),
        ("/api/models/me/m/preupload/main", {"files": [{"path": "../a", "size": 1, "sample": ""}]}, {}, 400),
        ("/api/validate-yaml", {"content": "---\n: : [\n---\n", "repoType": "model"}, {}, 400),
        ("/api/validate-yaml", {"content": "---\nbase_model: /home/x\n---\n", "repoType": "model"}, {}, 400),
        (BATCH, {"operation": "delete", "objects": []}, LFS, 422),
        (BATCH, {"operation": "upload", "objects": []}, {}, 406),
        (BATCH, {"operation": "upload", "hash_algo": "md5", "objects": []}, LFS, 409),
        (BATCH, {"operation": "upload", "transfers": ["foo"], "objects": []}, LFS, 422),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    hub: Hub, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    assert call(hub, "POST", path, body, headers=headers) == status


def test_the_storage_takes_signed_addresses_and_no_token(hub: Hub) -> None:
    address = hub.signed("me/m", OID, "PUT")
    assert call(hub, "PUT", address.partition("?")[0], DATA, token=None) == 403
    assert call(hub, "PUT", hub.signed("me/m", OID, "GET"), DATA, token=None) == 403
    assert call(hub, "PUT", address, DATA) == 400
    assert call(hub, "PUT", address, b"other", token=None) == 400
    assert hub.storage == {}
    upload(hub)
    assert call(hub, "GET", f"{hub.storage_endpoint}/storage/{OID}", token=None) == 403
    assert call(hub, "GET", hub.signed("me/m", OID, "GET"), token=None) == 200


def test_whose_token_it_is_is_told_to_those_who_have_one(hub: Hub) -> None:
    assert call(hub, "GET", "/api/whoami-v2", token=None) == 401
    assert call(hub, "GET", "/api/whoami-v2", token="hf_wrong") == 401
