"""The start of a process: garbage, imports, Ctrl-C."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.artefacts import ROOT

pytestmark = pytest.mark.slow


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


_WORK = """
import gc, weakref
from pipeline.core import stage

class Cell:
    pass

def is_found():
    cell = Cell()
    cell.itself = cell
    found = weakref.ref(cell)
    del cell
    gc.collect()
    return found() is None
"""


def test_a_stage_looks_for_garbage_while_it_works_but_not_in_its_modules() -> None:
    # As Python has it while it looks for the module of `python -m`.
    begin = (
        "import sys; sys.argv[0] = '-m'; sys.orig_argv[-1] = 'pipeline.clean'; import pipeline\n"
    )
    run(
        f"{begin}{_WORK}\n"
        "assert not gc.isenabled()\n"
        "with stage.report_errors('mine'):\n"
        "    assert gc.isenabled() and gc.get_freeze_count() > 10_000 and is_found()\n"
    )


def test_another_program_that_imports_the_package_keeps_its_search_for_garbage(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("import pipeline\n")
    (tmp_path / "mine/__main__.py").write_text("import gc\nassert gc.isenabled()\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-m", "mine"], env=environment, check=True)


def test_who_only_imports_the_package_keeps_the_usual_search_for_garbage() -> None:
    run(
        f"{_WORK}\n"
        "assert gc.isenabled()\n"
        "with stage.report_errors('mine'):\n"
        "    assert gc.isenabled() and gc.get_freeze_count() == 0 and is_found()\n"
    )


_INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "pipeline.core.params":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    "words", [("pipeline.search",), ("pipeline.score",), ("pipeline.clean",), ("pipeline", "index")]
)
def test_ctrl_c_while_a_command_is_imported_is_one_line(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPTED_IMPORT)
    ended = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    name = words[-1].removeprefix("pipeline.")
    assert (ended.returncode, ended.stderr) == (130, f"{name} was interrupted.\n")


def test_ctrl_c_is_an_exception_again_where_a_command_works() -> None:
    run(
        "import signal\n"
        "from pipeline.core import stage, start\n"
        "start.begin('mine')\n"
        "with stage.report_errors('mine') as outcome:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "assert outcome.status == 130\n"
    )


def test_a_command_in_the_background_ignores_ctrl_c_from_its_start() -> None:
    run(
        "import signal\n"
        "from pipeline.core import start\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "start.begin('mine')\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "start.end()\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("contract", ("--name", "minilm")),
        ("index_entry", ("--locale", "us")),
        ("rerank", ("--locale", "us")),
        ("systems", ("--locale", "us")),
    ],
)
def test_a_stage_that_only_writes_a_card_starts_without_numpy_and_arrow(
    project: Path, name: str, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"pipeline.{name}", *arguments],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, text=True,
        capture_output=True,
    )  # fmt: skip
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "pipeline.core.params" in imported
    assert not imported & {"numpy", "pandas", "pyarrow"}


_SPARED = """
import sys
from pipeline.core import start
import pyarrow as pa
start.spare_pandas()
table = pa.table({"a": pa.chunked_array([[1, 2], [3]]), "b": ["x", "y", "z"]})
assert table["a"].to_numpy().tolist() == [1, 2, 3]
assert len(table.sort_by("a").group_by("b").aggregate([])) == 3
assert "pandas" not in sys.modules
assert table.to_pandas()["b"].tolist() == ["x", "y", "z"]
assert sys.modules["pandas"].Series is not None
"""


def test_a_stage_converts_without_pandas_which_can_be_used_all_the_same() -> None:
    run(_SPARED)
