"""A Hub on loopback: the protocol by which huggingface_hub 2.4 pushes and loads a model, and no more of it.

Repositories are kept in memory, with a list of commits per branch. Large files go the way of Git LFS, to an address
with another host name, as the Hub's do: there the client must not send its token. The Xet protocol is not spoken, and
a server cannot decline it: where the package hf_xet is installed, the client itself chooses it for every large file.
So clients need HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


USER, TOKEN = "me", "hf_canaryCANARYcanary0123456789"
LARGE_FILES = re.compile(r"\.(safetensors|png|model)$")


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
    """A model repository; the Hub gives a new one a commit of its own."""

    private: bool
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


class HubError(Exception):
    """An answer that is an error, in the Hub's own words."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: str):
        super().__init__(message)
        self.status, self.body = status, {"error": message, **body}
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


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
    """

    daemon_threads = True

    def __init__(self, tokens: dict[str, str]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens = tokens
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
                raise HubError(401, "Invalid credentials in Authorization header")
            with self.server.lock:
                answer = action(self, user, body, *names)
        except HubError as error:
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
                raise HubError(401, "Invalid username or password.")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if writes and user is None:
            raise HubError(401, "Invalid username or password.")
        if writes and user != name.partition("/")[0]:
            raise HubError(403, "You have no write permission for this repository")
        return found

    def commit(self, user: str | None, name: str, revision: str, writes: bool = False) -> Commit:
        """The commit of a revision in such a repository."""
        commit = self.repository(user, name, writes).commit(revision)
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


def unknown(hub: Handler, user: str | None, body: bytes) -> Answer:
    raise HubError(404, f"no such address: {hub.command} {hub.path}")


def create(hub: Handler, user: str | None, body: bytes) -> Answer:
    """POST /api/repos/create."""
    asked = json.loads(body)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    owner = asked.get("organization") or user
    if owner != user:
        raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
    name = f"{owner}/{asked['name']}"
    address = f"{hub.server.endpoint}/{name}"
    if name in hub.server.repositories:
        raise HubError(409, "You already created this model repo", url=address)
    hub.server.repositories[name] = Repository(private=asked.get("visibility") == "private")
    return Answer({"url": address, "name": name})


def branch(hub: Handler, user: str | None, body: bytes, name: str, new: str) -> Answer:
    """POST /api/models/{name}/branch/{new}."""
    repository = hub.repository(user, name, writes=True)
    if new in repository.branches:
        raise HubError(409, "Reference already exists")
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
        raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    return Answer(
        [{"type": "file", "path": path, "size": len(f.content), "oid": f.oid} for path, f in sorted(inside.items())]
    )


def validate_yaml(hub: Handler, user: str | None, body: bytes) -> Answer:
    """POST /api/validate-yaml: the metadata at the start of README.md."""
    has_metadata = json.loads(body)["content"].startswith("---\n")
    return Answer({"errors": [], "warnings": [] if has_metadata else [{"message": "empty or missing yaml metadata"}]})


def preupload(hub: Handler, user: str | None, body: bytes, name: str, revision: str) -> Answer:
    """POST /api/models/{name}/preupload/{revision}: which files are large, and which are there."""
    there = hub.commit(user, name, revision, writes=True).files
    answers = []
    for file in json.loads(body)["files"]:
        path = file["path"]
        mode = "lfs" if LARGE_FILES.search(path) else "regular"
        known = {"oid": there[path].oid} if path in there else {}
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return Answer({"files": answers})


def lfs_batch(hub: Handler, user: str | None, body: bytes, name: str) -> Answer:
    """POST /{name}.git/info/lfs/objects/batch: where to put which large file."""
    hub.repository(user, name, writes=True)
    objects = []
    for wanted in json.loads(body)["objects"]:
        oid = wanted["oid"]
        upload = {"href": f"{hub.server.storage_endpoint}/storage/{oid}?signature=0"}
        verify = {"href": f"{hub.server.endpoint}/{name}.git/info/lfs/verify"}
        actions = {} if oid in hub.server.storage else {"actions": {"upload": upload, "verify": verify}}
        objects.append({**wanted, **actions})
    return Answer({"transfer": "basic", "objects": objects})


def lfs_upload(hub: Handler, user: str | None, body: bytes, oid: str) -> Answer:
    """PUT of a large file into the storage."""
    if hashlib.sha256(body).hexdigest() != oid:
        raise HubError(400, "the content is not what was announced")
    hub.server.storage[oid] = body
    return Answer()


def lfs_verify(hub: Handler, user: str | None, body: bytes, name: str) -> Answer:
    """POST after an upload."""
    hub.repository(user, name, writes=True)
    wanted = json.loads(body)
    if len(hub.server.storage.get(wanted["oid"], b"")) != wanted["size"]:
        raise HubError(404, "the object was not uploaded")
    return Answer()


def commit(hub: Handler, user: str | None, body: bytes, name: str, revision: str) -> Answer:
    """POST /api/models/{name}/commit/{revision}: one JSON object per line, the header first."""
    head = hub.commit(user, name, revision, writes=True)
    lines = [json.loads(line) for line in body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit", head.oid) != head.oid:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines[1:]:
        kind, value = line["key"], line["value"]
        if kind == "file":
            files[value["path"]] = StoredFile(base64.b64decode(value["content"]), is_large=False)
        elif kind == "lfsFile" and value["oid"] in hub.server.storage:
            files[value["path"]] = StoredFile(hub.server.storage[value["oid"]], is_large=True)
        elif kind == "deletedFile" and value["path"] in files:
            del files[value["path"]]
        else:
            raise HubError(400, f"cannot {kind} {value['path']}")
    new = Commit(header["summary"], files, head.oid)
    hub.server.repositories[name].branches[revision].append(new)
    return Answer({"commitUrl": f"{hub.server.endpoint}/{name}/commit/{new.oid}", "commitOid": new.oid})


def resolve(hub: Handler, user: str | None, body: bytes, name: str, revision: str, path: str) -> Answer:
    """GET or HEAD /{name}/resolve/{revision}/{path}; a large file is elsewhere."""
    commit = hub.commit(user, name, revision)
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        error = HubError(404, "Entry not found", "EntryNotFound")
        return Answer(error.body, error.status, {**error.headers, **headers})
    file = commit.files[path]
    if not file.is_large:
        return Answer(file.content, headers={**headers, "ETag": f'"{file.oid}"'})
    linked = {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
    location = {"Location": f"{hub.server.storage_endpoint}/storage/{file.sha256}"}
    return Answer(status=302, headers={**headers, **linked, **location})


def lfs_download(hub: Handler, user: str | None, body: bytes, oid: str) -> Answer:
    """GET or HEAD of a large file, also of a range of its bytes."""
    if oid not in hub.server.storage:
        raise HubError(404, "no such object")
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
