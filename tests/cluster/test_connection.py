"""Clusters: Ray only where params ask for it, and what fits on which node."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cluster.connection import connected, places
from pipeline.core.errors import PipelineError
from tests.helpers.artefacts import ROOT
from tests.helpers.repository import PATH
from tests.helpers.tiny_models import runtime

RAY = runtime().model_copy(update={"executor": "ray"})

_CONNECT = """\
import sys
from pipeline.core import stage
from pipeline.cluster.connection import connected
from tests.helpers.tiny_models import runtime
address = next(iter(sys.argv[1:]), None)
given = runtime().model_copy(update={"executor": "ray", "ray_address": address})
with stage.report_errors("connect"), connected(given):
    pass
"""


def test_ray_asked_for_and_not_installed_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(
            PipelineError, match=r"Run `pip install '\.\[ray\]'`, or set executor to local"
        ),
        connected(RAY),
    ):
        pass


@pytest.mark.slow
def test_the_local_executor_imports_no_ray() -> None:
    code = "import sys, pipeline.embed.stage, pipeline.index.stage; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_worker_is_placed_where_it_does_not_fit() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        nodes: list[dict[str, Any]] = [
            {
                "NodeID": str(at),
                "Alive": bool(rng.random() < 0.8),
                "Resources": {
                    key: float(rng.integers(0, 70)) for key in ("CPU", "GPU") if rng.random() < 0.8
                },
            }
            for at in range(rng.integers(0, 5))
        ]
        threads, gpu = int(rng.integers(0, 9)), bool(rng.random() < 0.5)
        given = RAY.model_copy(update={"threads": threads})
        found = places(nodes, given, gpu=gpu)
        for node in nodes:
            has = node["Resources"].get("GPU" if gpu else "CPU", 0) if node["Alive"] else 0
            workers = found.get(node["NodeID"], [])
            assert sum(workers) <= has
            if gpu:
                assert workers == [1.0] * int(has)
            elif threads:
                assert workers == [threads] * int(has // threads)
            else:
                assert workers == ([has] if has else [])


@pytest.mark.slow
def test_nobody_else_gets_into_a_cluster_of_this_machine_alone() -> None:
    join = (
        "import os, subprocess, sys\n"
        "from pipeline.cluster.connection import connected\n"
        "from tests.helpers.tiny_models import runtime\n"
        "given = runtime().model_copy(update={'executor': 'ray'})\n"
        "with connected(given) as ray:\n"
        "    address = ray.get_runtime_context().gcs_address\n"
        "    token = {key: os.environ.pop(key) for key in list(os.environ) if '_AUTH_' in key}\n"
        "    assert ray.nodes()\n"
        "    for known in ({}, token):\n"
        "        command = ['ray', 'health-check', '--address', address]\n"
        "        done = subprocess.run(command, env=os.environ | known, capture_output=True)\n"
        "        print(done.returncode)\n"
    )
    done = _python(join)
    assert done.stdout.split() == ["1", "0"], done.stderr


@pytest.mark.slow
def test_a_token_that_is_missing_is_one_message_that_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    done = _python(_CONNECT, "127.0.0.1:1", RAY_AUTH_MODE="token", HOME=str(tmp_path))
    assert "error in connect: runtime.ray_address: 127.0.0.1:1: no Ray cluster" in done.stderr
    assert "the same token (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_address_that_no_machine_can_have_is_one_message_at_once() -> None:
    address = f"{'a' * 70}.invalid:6379"
    done = _python(_CONNECT, address)
    assert f"error in connect: runtime.ray_address: {address}: no Ray cluster" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ray_that_cannot_start_here_is_one_message_that_names_no_address(tmp_path: Path) -> None:
    done = _python(_CONNECT, RAY_TMPDIR=str(tmp_path / ("long" * 40)))  # for a socket's path
    assert "runtime.executor: ray, but Ray cannot start on this machine" in done.stderr
    assert "set executor to local" in done.stderr
    assert "ray_address" not in done.stderr
    assert "Traceback" not in done.stderr


def _python(code: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": PATH, **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
