"""What `make` runs, for the targets and variables that the docs name."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers.artefacts import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

RECIPES = {
    "repro": "pipeline.repro --jobs '1'",
    "repro JOBS=2": "pipeline.repro --jobs '2'",
    "plan": "pipeline.plan",
    "costs": "pipeline.plan --against-last-run",
    "gate": "pipeline.gate",
    "clean-cache": "pipeline.store",
    "clean-cache KEEP=3": "pipeline.store --keep 3",
    "clean-cache KEEP=0.5 YES=1": "pipeline.store --keep 0.5 --yes",
    "browser": "pipeline.browser --locale 'us' --out 'build/browser/us'",
    "browser LOCALE=es": "pipeline.browser --locale 'es' --out 'build/browser/es'",
    "browser LOCALE=es OUT=here": "pipeline.browser --locale 'es' --out 'here'",
    "serve ARGS=--port=8080": "pipeline.serve --port=8080",
}


def make(*asked: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", f"--makefile={ROOT / 'Makefile'}", "--old-file=setup", *asked],
        cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("asked", RECIPES)
def test_a_target_runs_its_module_with_what_its_variables_say(asked: str) -> None:
    done = make("--dry-run", *asked.split())
    assert done.returncode == 0, done.stderr
    commands = [line.split() for line in done.stdout.splitlines() if "python -m" in line]
    assert commands == [["python", "-m", *RECIPES[asked].split()]]


@pytest.mark.parametrize("asked", ["0", "no", "false", "11"])
def test_only_1_says_yes_to_a_deletion(asked: str) -> None:
    done = make("--dry-run", "clean-cache", "KEEP=0", f"YES={asked}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"YES must be 1 or left out (found {asked})" in done.stderr


def test_quotes_in_a_variable_are_read_by_what_runs_alone(tmp_path: Path) -> None:
    python = tmp_path / ".venv/bin/python"  # the Makefile puts it first on the PATH
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf '[%s]' \"$@\"\n")
    python.chmod(0o755)
    for asked, runs in (
        (("try", "SET=clean.separator=' | '"), "[pipeline.experiment][clean.separator= | ]"),
        (("try", "SET=index.us=hnsw a=b"), "[pipeline.experiment][index.us=hnsw][a=b]"),
        (("diff", "BASE=HEAD'"), "[pipeline.compare][HEAD'][workspace]"),
        (
            ("diff", "BASE=v1", 'MARKDOWN=it\'s "1".md'),
            '[pipeline.compare][v1][workspace][--markdown][it\'s "1".md]',
        ),
    ):
        done = make("--silent", *asked, folder=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"[-m]{runs}", "")


@pytest.mark.parametrize("asked", ["SET=", "SET= "])
def test_an_experiment_without_a_change_is_refused(asked: str) -> None:
    done = make("try", asked)
    assert done.returncode == 2
    assert done.stderr.startswith("error: SET names no change.")


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (\S+)", MAKEFILE))))
def test_every_module_that_a_target_runs_is_there(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations:
        assert importlib.util.find_spec(f"{module}.__main__")
