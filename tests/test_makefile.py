"""What `make` runs, for the targets and variables that the docs name."""

import importlib.util
import os
import re
import subprocess

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


@pytest.mark.parametrize("asked", RECIPES)
def test_a_target_runs_its_module_with_what_its_variables_say(asked: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--old-file=setup", *asked.split()],
        cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    commands = [line.split() for line in done.stdout.splitlines() if "python -m" in line]
    assert commands == [["python", "-m", *RECIPES[asked].split()]]


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (\S+)", MAKEFILE))))
def test_every_module_that_a_target_runs_is_there(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations:
        assert importlib.util.find_spec(f"{module}.__main__")
