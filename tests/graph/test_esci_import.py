"""`make esci` against a server of the test's own: git over smart HTTP, and Git LFS beside it.

git-lfs takes no part, even where it is installed: no git configuration names it.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from tests.helpers.esci_files import EXAMPLES_FILE, PRODUCTS_FILE, SOURCES_FILE, small_source
from tests.helpers.repository import GIT_IDENTITY, PATH, commit_all, copy_project
from tests.helpers.repository import call as call_for_ever

pytestmark = pytest.mark.dvc

COPIED = (
    ".dvc/.gitignore", ".dvc/config", ".dvcignore", "Makefile", "constraints.txt", "dvc.yaml",
    "params.yaml", "pipeline", "pyproject.toml",
)  # fmt: skip
BATCH = "/repo.git/info/lfs/objects/batch"
OBJECTS = "/lfs/"
SECONDS = 120
"""What any one command may take."""

call = partial(call_for_ever, timeout=SECONDS)


class Upstream(ThreadingHTTPServer):
    """Serves `root`/repo.git, which is like amazon-science/esci-data, and its LFS objects."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.environment = environment
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lfs: dict[str, bytes] = {}
        self.over_quota = False
        self.refused_objects: set[str] = set()
        self.requests: list[str] = []

    def commit(self, locales: tuple[str, ...]) -> tuple[str, dict[str, bytes]]:
        """Commit a dataset, its parquet files as LFS pointers.

        Returns:
            The commit, and the files' contents by name.
        """
        repository = self.root / "repo.git"
        folder = small_source(repository / "shopping_queries_dataset", locales)
        (folder / SOURCES_FILE).write_text(f"query_id,source\n0,{' '.join(locales)}\n")
        (repository / ".gitattributes").write_text(
            "*.parquet filter=lfs diff=lfs merge=lfs -text\n"
        )
        contents = {path.name: path.read_bytes() for path in folder.iterdir()}
        for name in (EXAMPLES_FILE, PRODUCTS_FILE):
            oid = sha256(contents[name]).hexdigest()
            self.lfs[oid] = contents[name]
            (folder / name).write_text(
                "version https://git-lfs.github.com/spec/v1\n"
                f"oid sha256:{oid}\nsize {len(contents[name])}\n"
            )
        commit_all(repository, self.environment, "dataset")
        return call(repository, self.environment, "git", "rev-parse", "HEAD").strip(), contents


class Handler(BaseHTTPRequestHandler):
    """Git's own CGI program, and the two requests of an LFS reader."""

    server: Upstream
    timeout = SECONDS

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path.startswith(OBJECTS):
            content = self.server.lfs[self.path.removeprefix(OBJECTS)]
            self.answer(HTTPStatus.OK, "application/octet-stream", content)
        else:
            self.answer_with_git(b"")

    def do_POST(self) -> None:
        self.server.requests.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == BATCH:
            self.answer_batch(body)
        else:
            self.answer_with_git(body)

    def answer_batch(self, body: bytes) -> None:
        """Say where the objects are; see the Git LFS batch API."""
        if self.server.over_quota:
            status, refusal = HTTPStatus.FORBIDDEN, {"message": "over its data quota"}
            self.answer(status, "application/vnd.git-lfs+json", json.dumps(refusal).encode())
            return
        found = [
            {**one, "error": {"code": 403, "message": "over its data quota"}}
            if one["oid"] in self.server.refused_objects
            else {
                **one,
                "actions": {"download": {"href": f"{self.server.url}{OBJECTS}{one['oid']}"}},
            }
            for one in json.loads(body)["objects"]
        ]
        answer = json.dumps({"transfer": "basic", "objects": found}).encode()
        self.answer(HTTPStatus.OK, "application/vnd.git-lfs+json", answer)

    def answer_with_git(self, body: bytes) -> None:
        """Hand the request to `git http-backend`."""
        url = urlsplit(self.path)
        request = {
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command,
        }
        done = subprocess.run(
            ["git", "http-backend"],
            env={**self.server.environment, **request},
            input=body,
            capture_output=True,
            check=True,
            timeout=SECONDS,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = HTTPStatus(int(headers.get("Status", "200").split()[0]))
        self.answer(status, headers["Content-Type"], content)

    def answer(self, status: HTTPStatus, content_type: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment without the user's and the machine's git configuration."""
    (tmp_path / "home").mkdir()
    dropped = ("PYTHONPATH", "PIPELINE_CACHE", "MAKEFLAGS", "GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME")
    return {
        **{name: value for name, value in os.environ.items() if name not in dropped},
        **GIT_IDENTITY,
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PATH": PATH,
    }


@pytest.fixture
def upstream(tmp_path: Path, environment: dict[str, str]) -> Iterator[Upstream]:
    """The server, running on the loopback interface."""
    with Upstream(tmp_path / "upstream", environment) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def project(tmp_path: Path, environment: dict[str, str]) -> Path:
    """A repository of this pipeline."""
    folder = tmp_path / "project"
    copy_project(COPIED, folder)
    commit_all(folder, environment, "pipeline")
    return folder


def make_esci(upstream: Upstream, revision: str) -> tuple[str, ...]:
    """Return the command; `-o` keeps make from installing a .venv."""
    where = f"ESCI_REPO={upstream.url}/repo.git"
    return ("make", "-o", ".venv/.installed", "esci", where, f"ESCI_REV={revision}")


def set_source(project: Path, source: str) -> None:
    """Point the stage `sample` at a folder, and have it take all rows."""
    yaml = YAML()
    data = yaml.load(project / "params.yaml")
    data["sample"] |= {"source": source, "version": "all", "splits": ["train", "test"]}
    yaml.dump(data, project / "params.yaml")


def test_make_esci_refuses_pointers_then_brings_the_pinned_files_and_then_asks_for_nothing(
    upstream: Upstream, project: Path, environment: dict[str, str]
) -> None:
    revision, contents = upstream.commit(("us", "es", "jp"))
    upstream.commit(("us",))  # what the default branch holds today does not matter

    # Where one object is refused, DVC takes its pointer for the file.
    upstream.refused_objects = {sha256(contents[PRODUCTS_FILE]).hexdigest()}
    printed = call(project, environment, *make_esci(upstream, revision), status=2)
    assert "upstream sent Git LFS pointers instead of the files" in printed
    assert not (project / "data/esci").exists()
    assert not (project / "data/esci.dvc").exists()

    upstream.refused_objects = set()
    call(project, environment, *make_esci(upstream, revision))
    esci = project / "data/esci"
    assert {name: (esci / name).read_bytes() for name in contents} == contents
    for name in (EXAMPLES_FILE, PRODUCTS_FILE):
        assert f"{OBJECTS}{sha256(contents[name]).hexdigest()}" in upstream.requests

    call(project, environment, "git", "add", ".")
    tracked = call(project, environment, "git", "ls-files", "data").split()
    imports = [path for path in tracked if not path.endswith(".gitignore")]
    assert imports
    for path in imports:
        (source,) = YAML(typ="safe").load(project / path)["deps"]
        repository = {"url": f"{upstream.url}/repo.git", "rev": revision, "rev_lock": revision}
        assert source["repo"] == repository

    upstream.requests.clear()
    call(project, environment, *make_esci(upstream, revision))
    assert upstream.requests == []

    set_source(project, "data/esci")
    call(project, environment, "python", "-m", "pipeline.sample")
    for locale in ("us", "es", "jp"):
        drawn = pq.read_table(project / "data/sample" / locale / "products.parquet")
        assert drawn["product_id"].to_pylist() == ["A", "B", "C"]


def test_an_lfs_server_that_refuses_fails_make_esci_and_a_pointer_is_no_source(
    upstream: Upstream, project: Path, environment: dict[str, str]
) -> None:
    revision, contents = upstream.commit(("us", "es", "jp"))
    upstream.over_quota = True
    call(project, environment, *make_esci(upstream, revision), status=2)
    assert BATCH in upstream.requests
    assert not any((project / "data/esci" / name).exists() for name in contents)

    call(project, environment, "git", "clone", "--quiet", f"{upstream.url}/repo.git", "clone")
    set_source(project, "clone/shopping_queries_dataset")
    printed = call(project, environment, "python", "-m", "pipeline.sample", status=1)
    assert f"{EXAMPLES_FILE} is a Git LFS pointer" in printed
    assert "Traceback" not in printed
    assert not (project / "data/sample").exists()
