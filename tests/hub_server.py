"""A stand-in of the Hugging Face Hub: repositories of models in memory, behind HTTP on loopback.

It answers what the client of ``huggingface_hub`` asks when it makes a repository or branch, checks
a card, uploads files in one commit (inline, or by the basic transfer of Git LFS), looks at a
repository and downloads from it.
"""

import base64
import hashlib
import json
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants, hf_api

TOKEN = "hf_good"
LICENSES = {"mit", "apache-2.0", "cc-by-4.0", "unknown", "other"}
LARGE = ".safetensors"  # files of this kind are uploaded by Git LFS

Files = dict[str, bytes]


@dataclass
class Repository:
    """A repository: the content of every commit, and the last commit of every branch."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        sha = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> Files:
        """Content of the main branch."""
        return self.commits[self.branches["main"]]


class Answer(Exception):
    """Ends the handling of a request."""

    def __init__(self, status: int, body: Any = None, **headers: str):
        super().__init__(status)
        self.status, self.headers = status, {k.replace("_", "-"): v for k, v in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body or {}).encode()


class HubServer:
    """The server; ``fail`` may look at the method and path of a request and return a status."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fail: Callable[[str], int | None] = lambda request: None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(size)
                path = unquote(urlsplit(self.path).path)
                server.requests.append(f"{self.command} {path}")
                try:
                    if status := server.fail(server.requests[-1]):
                        raise Answer(status, {"error": "the disk of the hub is full"})
                    token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                    server.answer(self.command, path, content, token)
                    raise Answer(404)
                except Answer as answer:
                    self.send_response(answer.status)
                    headers = {"Content-Length": str(len(answer.body))} | answer.headers
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, method: str, path: str, content: bytes, token: str) -> None:
        if token not in ("", TOKEN):
            message = "Invalid credentials in Authorization header"
            raise Answer(401, {"error": message}, X_Error_Message=message)
        if method == "PUT" and (match := re.fullmatch(r"/lfs/(\w+)", path)):
            if hashlib.sha256(content).hexdigest() != match[1]:
                raise Answer(400, {"error": "the checksum is wrong"})
            self.large[match[1]] = content
            raise Answer(200)
        body = json.loads(content) if content and "/commit/" not in path else {}
        if path == "/api/validate-yaml":
            self._validate(body["content"])
        if path == "/api/repos/create":
            self._create(body, token)
        if match := re.fullmatch(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", path):
            objects = [self._upload_to(entry) for entry in body["objects"]]
            raise Answer(200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(self._found(match[1], token), match[2], match[3])
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(\w+)/(.+))?", path):
            repository = self._found(match[1], token)
            self._models(match[1], repository, match[2] or "revision", match[3] or "main", body,
                         content, token)  # fmt: skip

    def _found(self, name: str, token: str) -> Repository:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not token):
            raise Answer(404 if token else 401, X_Error_Code="RepoNotFound")
        return repository

    def _models(
        self, name: str, repository: Repository, what: str, place: str, body: Any, content: bytes,
        token: str,
    ) -> None:  # fmt: skip
        if what == "branch":
            if place in repository.branches:
                raise Answer(409, {"error": "Reference already exists"})
            repository.branches[place] = repository.branches["main"]
            raise Answer(200)
        sha = repository.resolve(place)
        if sha is None:
            raise Answer(404, X_Error_Code="RevisionNotFound")
        files = repository.commits[sha]
        if what == "revision":
            siblings = [{"rfilename": file} for file in files]
            about = {"id": name, "sha": sha, "private": repository.private, "siblings": siblings}
            raise Answer(200, about | {"tags": [], "downloads": 0, "likes": 0})
        if what == "tree":
            raise Answer(200, [_entry(file, data) for file, data in files.items()])
        if what == "preupload":
            modes = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
                for file in body["files"]
            ]  # fmt: skip
            raise Answer(200, {"files": modes})
        if what == "commit":
            if not token:
                raise Answer(401, {"error": "Authentication required"})
            if name.split("/")[0] == "other":
                raise Answer(403, X_Error_Message="you have no rights here")
            header, *operations = map(json.loads, content.splitlines())
            if header["value"].get("parentCommit", sha) != sha:
                raise Answer(412, {"error": "A commit has happened since"})
            new = repository.commit(place, self._apply(dict(files), operations))
            raise Answer(200, {"commitUrl": f"{self.url}/{name}/commit/{new}", "commitOid": new})

    def _apply(self, files: Files, operations: list[Any]) -> Files:
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        return files

    def _create(self, body: Any, token: str) -> None:
        if not token:
            raise Answer(401, {"error": "Authentication required"})
        name = f"{body['organization']}/{body['name']}"
        if name in self.repositories:
            raise Answer(409, {"error": "You already created this model repo"})
        private = body.get("visibility") == "private" or bool(body.get("private"))
        repository = self.repositories[name] = Repository(private)
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs"})
        raise Answer(200, {"url": f"{self.url}/{name}", "name": name, "id": name})

    def _validate(self, card: str) -> None:
        """Answer as the hub does: the license and the results are checked."""
        data = yaml.safe_load(card.split("---")[1])
        errors = []
        if data.get("license") not in LICENSES:
            errors.append({"message": f'"license" must be one of {sorted(LICENSES)}'})
        for entry in data.get("model-index", ()):
            for result in entry["results"]:
                if not {"task", "dataset", "metrics"} <= result.keys():
                    errors.append({"message": "a result is not complete"})
        raise Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _upload_to(self, entry: Any) -> Any:
        upload = {"href": f"{self.url}/lfs/{entry['oid']}"}
        actions = {} if entry["oid"] in self.large else {"actions": {"upload": upload}}
        return {"oid": entry["oid"], "size": entry["size"], **actions}

    def _resolve(self, repository: Repository, revision: str, file: str) -> None:
        sha = repository.resolve(revision)
        if sha is None:
            raise Answer(404, X_Error_Code="RevisionNotFound")
        if file not in repository.commits[sha]:
            raise Answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        data = repository.commits[sha][file]
        raise Answer(200, data, ETag=f'"{_oid(file, data)}"', X_Repo_Commit=sha)


@contextmanager
def hub_on_loopback(cache: Path) -> Iterator[HubServer]:
    """Context manager: a server that ``huggingface_hub`` takes for the hub, with a good token."""
    server = HubServer()
    warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)  # for the client itself
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(hf_api.api, "endpoint", server.url)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setattr(time, "sleep", lambda seconds: None)  # before the client tries again
        try:
            yield server
        finally:
            server.close()


def _entry(file: str, data: bytes) -> Any:
    entry = {"type": "file", "path": file, "size": len(data), "oid": _oid("", data)}
    large = {"oid": _oid(file, data), "size": len(data), "pointerSize": 130}
    return entry | ({"lfs": large} if file.endswith(LARGE) else {})


def _oid(file: str, data: bytes) -> str:
    """Return the checksum by which the hub names a file: of Git, or for a large one of its LFS."""
    if file.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
