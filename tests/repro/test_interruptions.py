"""One kill of each kind of `bench.interruptions`: the next run ends with the same bytes.

One locale at a time: that is one DVC a run, and not five. `make prove` has two at a time too.
"""

from pathlib import Path

import pytest

from bench.interruptions import KILLS, prove

pytestmark = pytest.mark.dvc


def test_the_run_after_a_kill_ends_with_the_same_bytes(tmp_path: Path) -> None:
    figures = prove(tmp_path, tuple(KILLS), 1, jobs=1)
    assert {kind: figures[kind]["same bytes"] for kind in KILLS} == dict.fromkeys(KILLS, 1)
