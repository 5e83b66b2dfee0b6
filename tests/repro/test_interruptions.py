"""A few of the kills of `bench.interruptions`: each next run ends with the same bytes."""

from pathlib import Path

import pytest

from bench.interruptions import KILLS, prove

pytestmark = pytest.mark.dvc


@pytest.mark.parametrize(("kind", "jobs"), [("tree", 1), ("dvc", 1), ("dvc", 2), ("interrupt", 2)])
def test_the_run_after_a_kill_ends_with_the_same_bytes(
    tmp_path: Path, kind: str, jobs: int
) -> None:
    assert kind in KILLS
    figures = prove(tmp_path, (kind,), 2, jobs)
    assert figures[kind]["same bytes"] == 2
