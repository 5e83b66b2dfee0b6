"""A Hugging Face hub on 127.0.0.1, with the faults that a real one has.

It answers what huggingface_hub and the pipeline ask for: a model's file list at a commit, its tree,
and its files with ETag, commit and ranges. Large files are redirected to another host name, as the
hub redirects to its CDN.
"""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors", ".bin", "tokenizer.json", ".model")


@dataclass
class Fault:
    """What happens to the next `times` requests whose path contains `part`.

    `status` is answered; or the connection is cut after `cut` bytes of the body; or `silent`
    seconds pass before anything is answered.
    """

    part: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent: float = 0.0


class LoopbackHub:
    """Models by name and commit, what was asked for, and how many bytes of each file were sent."""

    def __init__(self) -> None:
        self.port = 0
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}  # commits by model and branch
        self.faults: list[Fault] = []
        self.token: str | None = None
        self.ranges = True
        self.commit: str | None = None  # what every answer names, where it is not the true one
        self.lists_sizes = True
        self.served: dict[str, bytes] = {}  # by name, where it is not what was published
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.sent: Counter[str] = Counter()
        self.chunk, self.pause = 1 << 16, 0.0  # bytes, and seconds between them

    @property
    def endpoint(self) -> str:
        """The value of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def publish(self, model: str, folder: Path) -> str:
        """Serve a folder's files, and return the commit."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        listing = json.dumps({name: git_blob(data) for name, data in files.items()})
        commit = hashlib.sha1(f"{model} {listing}".encode(), usedforsecurity=False).hexdigest()
        self.models.setdefault(model, {})[commit] = files
        return commit

    def add(self, *faults: Fault) -> None:
        """Let faults happen, the first of those that fit at a time."""
        self.faults.extend(faults)

    def paths(self) -> list[str]:
        """Return the paths that were asked for."""
        return [path for _, path, _ in self.requests]

    def fetched(self) -> set[str]:
        """Return the names of the files of which bytes were sent."""
        return {name for name, count in self.sent.items() if count}

    def next_fault(self, path: str) -> Fault | None:
        """Return the fault of a request, counted as happened."""
        for fault in self.faults:
            if fault.times and fault.part in path:
                fault.times -= 1
                return fault
        return None


def git_blob(data: bytes) -> str:
    """Return the SHA-1 that Git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing: clients that are killed end their connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: LoopbackHub, *rest: Any) -> None:
        self.hub = hub
        super().__init__(*rest)

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        parts = urlsplit(self.path)  # of a proxy's request, with the host
        path = unquote(parts.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.requests.append((self.command, path, headers))
        fault = hub.next_fault(path) or Fault("")
        time.sleep(fault.silent)
        if fault.status is not None:
            self._send(fault.status, b"no", fault.headers)
            return
        if path.startswith("/cdn/"):
            commit, _, rest = path.removeprefix("/cdn/").partition("/")
            owner, name, file = rest.split("/", 2)
            self._send_file(hub.models[f"{owner}/{name}"][commit][file], file, {}, fault)
            return
        if hub.token is not None and headers.get("authorization") != f"Bearer {hub.token}":
            self._send(401, b"", {"X-Error-Message": "Invalid username or password."})
            return
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"] and len(words) == 4:
            words += ["revision", "main"]
        if words[:2] == ["api", "models"] and len(words) >= 6 and words[4] in ("revision", "tree"):
            self._describe("/".join(words[2:4]), words[5], words[4])
        elif len(words) >= 5 and words[2] == "resolve":
            self._resolve("/".join(words[:2]), words[3], "/".join(words[4:]), fault)
        else:
            self._send(404, b"{}", {})

    def _find(self, model: str, commit: str) -> dict[str, bytes] | None:
        """Return a model's files at a commit, or answer that there are none."""
        if model not in self.hub.models:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif commit not in self.hub.models[model]:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return self.hub.models.get(model, {}).get(commit)

    def _describe(self, model: str, commit: str, form: str) -> None:
        commit = self.hub.branches.get((model, commit), commit)
        files = self._find(model, commit)
        if files is None:
            return
        siblings, tree = [], []
        for name, data in files.items():
            entry: dict[str, Any] = {"rfilename": name}
            if self.hub.lists_sizes:
                entry |= {"size": len(data), "blobId": git_blob(data)}
            branch = {"type": "file", "path": name, "size": len(data), "oid": git_blob(data)}
            if name.endswith(LARGE):
                digest = hashlib.sha256(data).hexdigest()
                pointer = {"size": len(data), "pointerSize": 134}
                if self.hub.lists_sizes:
                    entry["lfs"] = {"sha256": digest, **pointer}
                branch["lfs"] = {"oid": digest, **pointer}
            siblings.append(entry)
            tree.append(branch)
        info = {"id": model, "sha": self.hub.commit or commit, "siblings": siblings}
        body = json.dumps(info if form == "revision" else tree).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, model: str, commit: str, file: str, fault: Fault) -> None:
        files = self._find(model, commit)
        if files is None:
            return
        known = {"X-Repo-Commit": self.hub.commit or commit}
        if file not in files:
            self._send(404, b"", known | {"X-Error-Code": "EntryNotFound"})
        elif file.endswith(LARGE):
            data = files[file]
            linked = {
                "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"http://localhost:{self.hub.port}/cdn/{commit}/{model}/{file}",
            }
            self._send(302, b"", known | linked)
        else:
            etag = {"ETag": f'"{git_blob(files[file])}"'}
            self._send_file(files[file], file, known | etag, fault)

    def _send_file(self, data: bytes, file: str, headers: dict[str, str], fault: Fault) -> None:
        data = self.hub.served.get(file, data)
        asked = self.headers.get("Range")
        if asked is None or not self.hub.ranges:
            self._send(200, data, headers, file, fault.cut)
            return
        first = int(asked.removeprefix("bytes=").split("-")[0])
        if first >= len(data):
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        place = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
        self._send(206, data[first:], headers | place, file, fault.cut)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        file: str | None = None,
        cut: int | None = None,
    ) -> None:
        try:
            self.send_response(status)
            for name, value in {"Accept-Ranges": "bytes", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            body = body[:cut]
            for at in range(0, len(body), self.hub.chunk):
                part = body[at : at + self.hub.chunk]
                self.wfile.write(part)
                if file is not None:
                    self.hub.sent[file] += len(part)
                time.sleep(self.hub.pause)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if cut is not None:
            self.close_connection = True


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    """Yield an empty hub that serves until the block ends."""
    hub = LoopbackHub()
    server = _Server(("127.0.0.1", 0), partial(_Handler, hub))
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(patch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    """Let this process use a hub, with a folder in place of HF_HOME, as the environment would."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
    }.items():
        patch.setattr(constants, name, value)
    patch.delenv("HF_TOKEN", raising=False)
