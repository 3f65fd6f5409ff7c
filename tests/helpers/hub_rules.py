"""What the Hub refuses of what it is sent: names, paths, the lines of a commit, the metadata of a README."""

import base64
import binascii
import json
import re
from typing import Any

import yaml


LARGE_FILES = re.compile(r"\.(safetensors|png|model|bin|onnx|h5|msgpack)$")
# Longer contents go by Git LFS, whatever their name.
LARGEST_INLINE = 10_000_000
NAME = re.compile(r"(?!.*(--|\.\.))[\w](?:[\w.-]{0,94}[\w])?")
BRANCH = re.compile(r"(?!.*(\.\.|//|/\.|@\{|\.lock$))[\w][\w./-]*(?<![/.])")
REPOSITORY_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", flags=re.MULTILINE | re.DOTALL)
# Identifiers of licences that the Hub lists, as far as the tests use them.
LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "openrail",
            "other", "unknown"}  # fmt: skip
IDS_IN_METADATA = ("base_model", "datasets")


class Refusal(Exception):
    """An answer that is an error, in the Hub's own words."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: str):
        super().__init__(message)
        self.status, self.body = status, {"error": message, **body}
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


def require(condition: Any, message: str, status: int = 400) -> None:
    if not condition:
        raise Refusal(status, message)


def check_name(name: Any) -> None:
    require(isinstance(name, str) and NAME.fullmatch(name), "Invalid repo name")


def check_path(path: Any) -> None:
    parts = path.split("/") if isinstance(path, str) else [""]
    require(not {"", ".", "..", ".git"} & set(parts) and "\\" not in path, f"Invalid path: {path}")


def check_tree(paths: set[str]) -> None:
    """No path is a file as well as a folder."""
    folders = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    require(not folders & paths, f"a file as well as a folder: {sorted(folders & paths)}")


def commit_lines(body: bytes) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """The header and the operations of a commit: one JSON object per line, with a key and a value."""
    try:
        lines = [json.loads(line) for line in body.splitlines()]
        pairs = [(line["key"], line["value"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise Refusal(400, "each line is an object with a key and a value") from None
    require(pairs and pairs[0][0] == "header", "the first line is the header")
    require(all(key != "header" for key, _ in pairs[1:]), "there is one header")
    require(pairs[0][1].get("summary"), "the summary of a commit is not empty")
    return pairs[0][1], pairs[1:]


def inline_content(value: dict[str, Any]) -> bytes:
    """The content of a file that comes in the commit itself."""
    require(value.get("encoding") in ("base64", "utf-8"), "the encoding is base64 or utf-8")
    require(isinstance(value.get("content"), str), "no content")
    require(not LARGE_FILES.search(value["path"]), f"{value['path']} is for Git LFS, by .gitattributes")
    try:
        is_text = value["encoding"] == "utf-8"
        content = value["content"].encode() if is_text else base64.b64decode(value["content"], validate=True)
    except binascii.Error:
        raise Refusal(400, "not base64") from None
    require(len(content) <= LARGEST_INLINE, f"{value['path']} is too large to be no LFS file", 413)
    return content


def metadata_errors(readme: str) -> list[str]:
    """What is wrong with the metadata at the start of a README; nothing where there are none."""
    found = FRONT_MATTER.match(readme)
    if found is None:
        return []
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError:
        return ["the metadata are no YAML"]
    if not isinstance(metadata, dict):
        return ["the metadata are no mapping"]
    errors = []
    if "license" in metadata and metadata["license"] not in LICENCES:
        errors.append(f'"license" must be one of {", ".join(sorted(LICENCES))}')
    for name in IDS_IN_METADATA:
        values = metadata.get(name, [])
        for value in values if isinstance(values, list) else [values]:
            if not (isinstance(value, str) and REPOSITORY_ID.fullmatch(value)):
                errors.append(f'"{name}" {value} is not a valid id')
    return errors
