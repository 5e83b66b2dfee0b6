"""Clusters: Ray where it is asked for and nowhere else, and what fits on which node."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pipeline.cluster import connected, places
from pipeline.errors import PipelineError
from tests.tiny_models import runtime

RAY = runtime().model_copy(update={"executor": "ray"})


def test_ray_asked_for_and_not_installed_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(PipelineError, match=r"pip install '\.\[ray\]', or set local"),
        connected(RAY),
    ):
        pass


def test_the_local_executor_imports_no_ray() -> None:
    code = "import sys, pipeline.embed, pipeline.index; sys.exit('ray' in sys.modules)"
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
