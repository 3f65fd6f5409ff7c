"""A Hub on loopback: the protocol by which huggingface_hub 2.4 pushes and loads a model, and no more of it.

Repositories are kept in memory, with a list of commits per branch. Large files go the way of Git LFS, to an address
with another host name, as the Hub's do: there the client must not send its token, since the address is signed. What is
sent is refused where the Hub would refuse it, see `hub_rules`. The Xet protocol is not spoken, and
a server cannot decline it: where the package hf_xet is installed, the client itself chooses it for every large file.
So clients need HF_HUB_DISABLE_XET=1.
"""

import hashlib
import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.hub_rules import (
    BRANCH,
    LARGE_FILES,
    Refusal,
    check_name,
    check_path,
    check_tree,
    commit_lines,
    inline_content,
    metadata_errors,
    require,
)


USER, TOKEN = "me", "hf_canaryCANARYcanary0123456789"
LFS_JSON = "application/vnd.git-lfs+json"
COMMIT_LINES = "application/x-ndjson"


@dataclass(frozen=True)
class StoredFile:
    """Content of a file at a commit."""

    content: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What a client compares its own file with."""
        blob = b"blob %d\0" % len(self.content) + self.content
        return self.sha256 if self.is_large else hashlib.sha1(blob).hexdigest()


@dataclass(frozen=True)
class Commit:
    """The state of a branch."""

    message: str
    files: dict[str, StoredFile]
    parent: str | None = None

    @property
    def oid(self) -> str:
        state = [self.message, self.parent, {name: file.oid for name, file in sorted(self.files.items())}]
        return hashlib.sha1(json.dumps(state).encode()).hexdigest()


@dataclass
class Repository:
    """A model repository; the Hub gives a new one a commit of its own.

    Args:
        private: whether others may not read it.
        objects: the large files that were uploaded to this repository and verified, by their hashes.
        branches: the commits of each, the oldest first.
    """

    private: bool
    objects: set[str] = field(default_factory=set)
    branches: dict[str, list[Commit]] = field(
        default_factory=lambda: {
            "main": [Commit("initial commit", {".gitattributes": StoredFile(b"*.safetensors filter=lfs\n", False)})]
        }
    )

    def commit(self, revision: str) -> Commit | None:
        """The newest commit of a branch, or the one of this name."""
        if revision in self.branches:
            return self.branches[revision][-1]
        every = [commit for branch in self.branches.values() for commit in branch]
        return next((commit for commit in every if commit.oid == revision), None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Content by name."""
        commit = self.commit(revision)
        assert commit is not None
        return {name: file.content for name, file in commit.files.items()}


@dataclass
class Fault:
    """What goes wrong the next few times that a route is asked.

    Args:
        status: answered instead of doing anything; None drops the connection.
        times: how often.
        when: with status None: `before` reading the request's body, in the `middle` of it, or `after` all is done.
    """

    status: int | None
    times: int = 1
    when: str = "after"
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=lambda: {"error": "out of order"})


@dataclass(frozen=True)
class Request:
    """One that the server got."""

    route: str
    method: str
    path: str
    host: str
    has_token: bool


@dataclass
class Answer:
    """A status, headers and a body; dictionaries and lists become JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Hub(ThreadingHTTPServer):
    """The server and what it stores.

    Args:
        tokens: their owners.

    `identities` holds the answers about tokens that may not do everything.
    """

    daemon_threads = True

    def __init__(self, tokens: dict[str, str]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens = tokens
        self.identities: dict[str, dict[str, Any]] = {}
        self.key = secrets.token_bytes(16)
        self.uploaded: set[tuple[str, str]] = set()
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[Request] = []
        self.hold: dict[str, threading.Event] = {}
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage_endpoint(self) -> str:
        return f"http://localhost:{self.server_port}"

    def signed(self, name: str, oid: str, method: str) -> str:
        """The address of a large file of a repository, for one method."""
        return f"{self.storage_endpoint}/storage/{oid}?repository={name}&signature={self.signature(name, oid, method)}"

    def signature(self, name: str, oid: str, method: str) -> str:
        return hmac.new(self.key, f"{method} {name} {oid}".encode(), hashlib.sha256).hexdigest()

    def fail(self, route: str, status: int | None, **options: Any) -> None:
        """Lets a route fail, see [`Fault`]."""
        self.faults.setdefault(route, []).append(Fault(status, **options))

    def next_fault(self, route: str) -> Fault | None:
        with self.lock:
            faults = self.faults.get(route, [])
            if not faults:
                return None
            faults[0].times -= 1
            return faults[0] if faults[0].times > 0 else faults.pop(0)

    def asked(self, route: str) -> int:
        """How often a route was asked."""
        return sum(request.route == route for request in self.requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that are dropped on purpose, at either end, are no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: object) -> None:
        """Keeps the test's output clean."""

    def _serve(self) -> None:
        route, action, names = self._route()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        host = (self.headers.get("Host") or "").partition(":")[0]
        self.server.requests.append(Request(route, self.command, self.path, host, bool(token)))
        if route in self.server.hold:
            self.server.hold[route].wait(60)
        fault = self.server.next_fault(route)
        size = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.status is None and fault.when != "after":
            self.rfile.read(0 if fault.when == "before" else size // 2)
            self._drop()
            return
        body = self._body(size)
        if fault is not None and fault.status is not None:
            self._send(Answer(fault.body, fault.status, fault.headers))
            return
        try:
            user = self.server.tokens.get(token)
            if token and user is None:
                raise Refusal(401, "Invalid credentials in Authorization header")
            with self.server.lock:
                answer = action(self, user, body, *names)
        except Refusal as error:
            answer = Answer(error.body, error.status, error.headers)
        self._drop() if fault is not None else self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _body(self, size: int) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(size)
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _send(self, answer: Answer) -> None:
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(content)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _route(self) -> tuple[str, Callable[..., Answer], list[str]]:
        path = urlsplit(self.path).path
        for methods, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods:
                return action.__name__, action, [unquote(name) for name in match.groups()]
        return "unknown", unknown, []

    def repository(self, user: str | None, name: str, writes: bool = False) -> Repository:
        """A repository that this user may read, or write."""
        found = self.server.repositories.get(name)
        if found is None or (found.private and user != name.partition("/")[0]):
            if user is None:
                raise Refusal(401, "Invalid username or password.")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if writes and user is None:
            raise Refusal(401, "Invalid username or password.")
        if writes and user != name.partition("/")[0]:
            raise Refusal(403, "You have no write permission for this repository")
        return found

    def commit(self, user: str | None, name: str, revision: str, writes: bool = False) -> Commit:
        """The commit of a revision in such a repository."""
        commit = self.repository(user, name, writes).commit(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


def unknown(hub: Handler, user: str | None, body: bytes) -> Answer:
    raise Refusal(404, f"no such address: {hub.command} {hub.path}")


def create(hub: Handler, user: str | None, body: bytes) -> Answer:
    """POST /api/repos/create."""
    asked = json.loads(body)
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    check_name(asked.get("name"))
    require(asked.get("type", "model") == "model", "this Hub has models alone")
    require(asked.get("visibility", "public") in ("public", "private"), "the visibility is public or private")
    owner = asked.get("organization") or user
    if owner != user:
        raise Refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
    name = f"{owner}/{asked['name']}"
    address = f"{hub.server.endpoint}/{name}"
    if name in hub.server.repositories:
        raise Refusal(409, "You already created this model repo", url=address)
    hub.server.repositories[name] = Repository(private=asked.get("visibility") == "private")
    return Answer({"url": address, "name": name})


def branch(hub: Handler, user: str | None, body: bytes, name: str, new: str) -> Answer:
    """POST /api/models/{name}/branch/{new}."""
    repository = hub.repository(user, name, writes=True)
    require(BRANCH.fullmatch(new), f"Invalid branch name: {new}")
    if new in repository.branches:
        raise Refusal(409, "Reference already exists")
    repository.branches[new] = list(repository.branches["main"])
    return Answer({})


def info(hub: Handler, user: str | None, body: bytes, name: str, revision: str = "main") -> Answer:
    """GET /api/models/{name}, also with /revision/{revision}."""
    commit = hub.commit(user, name, revision)
    private = hub.server.repositories[name].private
    siblings = [{"rfilename": path} for path in sorted(commit.files)]
    return Answer({"id": name, "sha": commit.oid, "private": private, "siblings": siblings, "tags": []})


def tree(hub: Handler, user: str | None, body: bytes, name: str, revision: str, folder: str = "") -> Answer:
    """GET /api/models/{name}/tree/{revision}/{folder}, and all below it."""
    commit = hub.commit(user, name, revision)
    inside = {path: file for path, file in commit.files.items() if path.startswith(f"{folder}/" if folder else "")}
    if folder and not inside:
        raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    return Answer(
        [{"type": "file", "path": path, "size": len(f.content), "oid": f.oid} for path, f in sorted(inside.items())]
    )


def whoami(hub: Handler, user: str | None, body: bytes) -> Answer:
    """GET /api/whoami-v2: whose the token is, and what it may do."""
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    token = (hub.headers.get("Authorization") or "").removeprefix("Bearer ")
    access = {"accessToken": {"displayName": "test", "role": "write"}, "type": "access_token"}
    identity = {"type": "user", "name": user, "fullname": user, "orgs": [], "auth": access}
    return Answer(identity | hub.server.identities.get(token, {}))


def validate_yaml(hub: Handler, user: str | None, body: bytes) -> Answer:
    """POST /api/validate-yaml: the metadata at the start of README.md."""
    content = json.loads(body)["content"]
    warnings = [] if content.startswith("---\n") else [{"message": "empty or missing yaml metadata"}]
    errors = [{"message": message} for message in metadata_errors(content)]
    return Answer({"errors": errors, "warnings": warnings}, 400 if errors else 200)


def preupload(hub: Handler, user: str | None, body: bytes, name: str, revision: str) -> Answer:
    """POST /api/models/{name}/preupload/{revision}: which files are large, and which are there."""
    there = hub.commit(user, name, revision, writes=True).files
    answers = []
    for file in json.loads(body)["files"]:
        require(file.keys() >= {"path", "size", "sample"}, "a file has a path, a size and a sample")
        path = file["path"]
        check_path(path)
        mode = "lfs" if LARGE_FILES.search(path) else "regular"
        known = {"oid": there[path].oid} if path in there else {}
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return Answer({"files": answers})


def lfs_batch(hub: Handler, user: str | None, body: bytes, name: str) -> Answer:
    """POST /{name}.git/info/lfs/objects/batch: where to put which large file."""
    repository, asked = hub.repository(user, name, writes=True), json.loads(body)
    require(LFS_JSON in hub.headers.get("Accept", ""), f"this is for clients that accept {LFS_JSON}", 406)
    require(asked.get("operation") == "upload", "the operation is upload", 422)
    require(asked.get("hash_algo", "sha256") == "sha256", "hashes are sha256", 409)
    require("basic" in asked.get("transfers", ["basic"]), "the transfer is basic", 422)
    objects = []
    for wanted in asked["objects"]:
        oid = wanted["oid"]
        upload = {"href": hub.server.signed(name, oid, "PUT")}
        verify = {"href": f"{hub.server.endpoint}/{name}.git/info/lfs/verify"}
        actions = {} if oid in repository.objects else {"actions": {"upload": upload, "verify": verify}}
        objects.append({**wanted, **actions})
    return Answer({"transfer": "basic", "objects": objects})


def check_signature(hub: Handler, oid: str, method: str) -> str:
    """The repository of a signed address. The storage refuses a second way to say who one is, as S3 does."""
    require("Authorization" not in hub.headers, "Only one auth mechanism allowed")
    query = {key: values[0] for key, values in parse_qs(urlsplit(hub.path).query).items()}
    name = query.get("repository", "")
    expected = hub.server.signature(name, oid, method)
    require(hmac.compare_digest(query.get("signature", ""), expected), "the address is not signed", 403)
    return name


def lfs_upload(hub: Handler, user: str | None, body: bytes, oid: str) -> Answer:
    """PUT of a large file into the storage."""
    name = check_signature(hub, oid, "PUT")
    require(hashlib.sha256(body).hexdigest() == oid, "the content is not what was announced")
    hub.server.storage[oid] = body
    hub.server.uploaded.add((name, oid))
    return Answer()


def lfs_verify(hub: Handler, user: str | None, body: bytes, name: str) -> Answer:
    """POST after an upload."""
    repository, wanted = hub.repository(user, name, writes=True), json.loads(body)
    oid = wanted["oid"]
    if (name, oid) not in hub.server.uploaded or len(hub.server.storage[oid]) != wanted["size"]:
        raise Refusal(404, "the object was not uploaded")
    repository.objects.add(oid)
    return Answer()


def commit(hub: Handler, user: str | None, body: bytes, name: str, revision: str) -> Answer:
    """POST /api/models/{name}/commit/{revision}: one JSON object per line, the header first."""
    head = hub.commit(user, name, revision, writes=True)
    repository = hub.server.repositories[name]
    require(hub.headers.get("Content-Type", "").partition(";")[0] == COMMIT_LINES, f"a commit is {COMMIT_LINES}", 415)
    require(revision in repository.branches, "only a branch can be committed to")
    header, operations = commit_lines(body)
    if header.get("parentCommit", head.oid) != head.oid:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = committed(repository, head.files, operations, hub.server.storage)
    new = Commit(header["summary"], files, head.oid)
    repository.branches[revision].append(new)
    return Answer({"commitUrl": f"{hub.server.endpoint}/{name}/commit/{new.oid}", "commitOid": new.oid})


def committed(
    repository: Repository,
    before: dict[str, StoredFile],
    operations: list[tuple[str, dict[str, Any]]],
    storage: dict[str, bytes],
) -> dict[str, StoredFile]:
    """The files after the operations of a commit."""
    paths = [value.get("path") for _, value in operations]
    require(len(set(paths)) == len(paths), "a path is given twice")
    files = dict(before)
    for kind, value in operations:
        check_path(value.get("path"))
        path = value["path"]
        if kind == "file":
            files[path] = StoredFile(inline_content(value), is_large=False)
        elif kind == "lfsFile":
            files[path] = StoredFile(large_content(repository, value, storage), is_large=True)
        elif kind == "deletedFile" and path in files:
            del files[path]
        else:
            raise Refusal(400, f"cannot {kind} {path}")
    check_tree(set(files))
    readme = files.get("README.md", StoredFile(b"", False)).content.decode()
    require(not metadata_errors(readme), "; ".join(metadata_errors(readme)))
    return files


def large_content(repository: Repository, value: dict[str, Any], storage: dict[str, bytes]) -> bytes:
    """The content of a large file, which was uploaded to this repository before."""
    require(value.get("algo") == "sha256", "hashes are sha256")
    require(value.get("oid") in repository.objects, f"{value['path']} was not uploaded to this repository")
    content = storage[value["oid"]]
    require(value.get("size") in (None, len(content)), f"{value['path']} has another size")
    return content


def resolve(hub: Handler, user: str | None, body: bytes, name: str, revision: str, path: str) -> Answer:
    """GET or HEAD /{name}/resolve/{revision}/{path}; a large file is elsewhere."""
    commit = hub.commit(user, name, revision)
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        error = Refusal(404, "Entry not found", "EntryNotFound")
        return Answer(error.body, error.status, {**error.headers, **headers})
    file = commit.files[path]
    if not file.is_large:
        return Answer(file.content, headers={**headers, "ETag": f'"{file.oid}"'})
    linked = {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
    location = {"Location": hub.server.signed(name, file.sha256, "GET")}
    return Answer(status=302, headers={**headers, **linked, **location})


def lfs_download(hub: Handler, user: str | None, body: bytes, oid: str) -> Answer:
    """GET or HEAD of a large file, also of a range of its bytes."""
    check_signature(hub, oid, "GET")
    if oid not in hub.server.storage:
        raise Refusal(404, "no such object")
    content = hub.server.storage[oid]
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", hub.headers.get("Range") or "")
    if asked is None:
        return Answer(content, headers={"ETag": f'"{oid}"'})
    start, end = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
    part = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return Answer(content[start : end + 1], status=206, headers=part)


MODEL = r"([\w.-]+/[\w.-]+)"
API = rf"/api/models/{MODEL}"
ROUTES: tuple[tuple[tuple[str, ...], str, Callable[..., Answer]], ...] = (
    (("GET",), "/api/whoami-v2", whoami),
    (("POST",), "/api/repos/create", create),
    (("POST",), "/api/validate-yaml", validate_yaml),
    (("POST",), rf"{API}/branch/([^/]+)", branch),
    (("POST",), rf"{API}/preupload/([^/]+)", preupload),
    (("POST",), rf"{API}/commit/([^/]+)", commit),
    (("GET",), API, info),
    (("GET",), rf"{API}/revision/([^/]+)", info),
    (("GET",), rf"{API}/tree/([^/]+)", tree),
    (("GET",), rf"{API}/tree/([^/]+)/(.+)", tree),
    (("POST",), rf"/{MODEL}\.git/info/lfs/objects/batch", lfs_batch),
    (("POST",), rf"/{MODEL}\.git/info/lfs/verify", lfs_verify),
    (("PUT",), r"/storage/(\w+)", lfs_upload),
    (("GET", "HEAD"), r"/storage/(\w+)", lfs_download),
    (("GET", "HEAD"), rf"/{MODEL}/resolve/([^/]+)/(.+)", resolve),
)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A running Hub that knows one user."""
    hub = Hub({TOKEN: USER})
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
