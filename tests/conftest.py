"""What tests share: the shipped parameters, a project folder, stages as real processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.core.params import Params
from tests.helpers import artefacts
from tests.helpers.artefacts import ROOT
from tests.helpers.processes import fork_server, run_module
from tests.helpers.ray_cluster import two_nodes

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from bench.fault_lab import Workshop

# Threads that wait sleep. By default they spin, and take the cores from the other worker of pytest:
# the tests of torch then take twice the time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Else each dvc command in a repository of a test starts another Python, to send what was run.
os.environ["DVC_NO_ANALYTICS"] = "1"

# A shell's background jobs ignore it, and so would what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_MARKED = re.compile(
    r"^pytestmark = [^\n]*pytest\.mark\.(slow|dvc|weights|thorough)\b", re.MULTILINE
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that are deselected as a whole: importing torch and DVC takes seconds."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    mark = _MARKED.search(collection_path.read_text(encoding="utf-8"))
    return True if mark and f"not {mark[1]}" in config.option.markexpr else None


RunStage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def params() -> Params:
    """The shipped parameters."""
    return artefacts.params()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the shipped params.yaml, as the working folder."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, with a cache of its own."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run_stage(project: Path) -> RunStage:
    """Return what runs a stage or a module (`bench.scale`) in the project, as a process."""

    def run(
        name: str, *arguments: str, preexec_fn: Callable[[], None] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        module = name if "." in name else f"pipeline.{name}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if preexec_fn is None:
            return run_module(module, *arguments, folder=project, environment=environment)
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=preexec_fn,
        )

    return run


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> "Workshop":
    """A small project of one locale in which all stages have run; what a test breaks it mends."""
    from bench.fault_lab import Workshop

    shop = Workshop(tmp_path_factory.mktemp("workshop"), with_engine=True)
    fork_server()
    shop.run_all()
    return shop


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project of one locale, for tests that read it; what a test changes it restores."""
    from tests.helpers.small_project import make_project

    made = tmp_path_factory.mktemp("small") / "project"
    make_project(made)
    return made


@pytest.fixture(scope="module")
def in_small_project(small_project: Path) -> Iterator[Path]:
    """That project, as the working folder of the tests of one file."""
    from tests.helpers.small_project import inside

    with inside(small_project):
        yield small_project


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The browser of this machine, for the tests of one file: see `launched`."""
    from tests.helpers.chromium import launched

    with launched() as started:
        yield started


@pytest.fixture(scope="session")
def engines_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for tiny models as their engines take them: converting one takes seconds."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def own_cache(engines_cache: Path) -> Iterator[None]:
    """Keep tiny converted models out of the project's cache; all modules share this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_CACHE", str(engines_cache))
        yield


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """A real Ray cluster of two nodes, of one core each."""
    pytest.importorskip("ray")
    with two_nodes() as started:
        yield started


@pytest.fixture(scope="session")
def cluster(nodes: Any) -> str:
    """The address of that cluster."""
    address: str = nodes.address
    return address
