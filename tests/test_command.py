"""The one command for all, and that what it needs is installed."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from pipeline.__main__ import find_commands, main
from tests.helpers.artefacts import ROOT
from tests.helpers.imports import import_closure
from tests.helpers.processes import run_module

LIGHT = (
    "beir",
    "compare",
    "evaluate",
    "experiments",
    "gate",
    "leaderboard",
    "params",
    "score",
    "trec",
)


def module_of(name: str) -> Path:
    folder = Path("pipeline", name, "__main__.py")
    return folder if (ROOT / folder).is_file() else Path("pipeline", f"{name}.py")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_command_is_listed_with_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", "--help"])
    assert main() == 0
    listed = capsys.readouterr().out
    for name, about in find_commands().items():
        assert about
        assert re.search(rf"^  {name} +{re.escape(about)}$", listed, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"), [(("pipeline.params",), 1), (("pipeline", "comprae"), 2)]
)
def test_a_command_that_fails_exits_with_its_status(
    tmp_path: Path, words: tuple[str, ...], status: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run_module(*words, folder=tmp_path, environment=environment)  # no params.yaml is there
    assert (done.returncode, done.stdout) == (status, "")


@pytest.mark.slow
def test_a_command_runs_with_its_arguments_and_its_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "compare", "HEAD", "no-such-revision"],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no-such-revision" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_command_is_one_line_that_names_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", "comprae"])
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no command 'comprae'" in line
    assert "compare" in line


@pytest.mark.slow
def test_what_the_light_install_cannot_do_is_one_line_that_says_what_to_install(
    tmp_path: Path,
) -> None:
    # A folder that is found before the environment's packages, as if these were not installed.
    absent = dict.fromkeys(("faiss", "openvino", "pandas", "psutil", "sudachipy", "tqdm"))
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules |= {absent}\n")
    light = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=light, text=True, check=False,
            capture_output=True,
        )  # fmt: skip

    # A folder and a file, each as `pipeline/__init__.py` begins it, and the command for all.
    for words in (("pipeline.sample",), ("pipeline.experiment",), ("pipeline", "sample")):
        done = run("-m", *words, "--locale=es")
        name = words[-1].removeprefix("pipeline.")
        line = f"error in {name}: the module .* is not .*`make setup`.*\n"
        assert re.fullmatch(line, done.stderr), done.stderr
        assert done.returncode == 1
    done = run(
        "-c", "import pipeline.core.light as it; it.explain_missing_packages(); import a_typo"
    )
    assert "Traceback" in done.stderr  # all that the extra `run` lists is installed here
    done = run("-c", "import esci_retrieval; esci_retrieval.open_workspace('es')")
    assert "PipelineError: the module pandas is not installed" in done.stderr


distributions = cache(packages_distributions)


@pytest.mark.parametrize("name", LIGHT)
def test_comparing_ranking_and_evaluating_need_only_the_light_install(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = {normal(re.split(r"[><=\[]", each)[0]) for each in project["dependencies"]}
    imported = set()
    for path in import_closure(module_of(name)):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"pipeline"}
    needed = {each: {normal(of) for of in distributions()[each]} for each in outside}
    assert {each for each, of in needed.items() if not of & (listed | {"pydantic-core"})} == set()
