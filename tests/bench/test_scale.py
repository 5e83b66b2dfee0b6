"""make scale measures stages alone, with all that they start, and keeps what it measured before."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.full_size import command as full_size
from bench.memory import watched
from bench.scale import table
from pipeline.core import layout
from pipeline.core.files import read_json, write_json
from pipeline.report.scale import read_scale
from tests.conftest import RunStage

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

MEGABYTES = 120
HOLDS = f"held = b'x' * ({MEGABYTES} << 20); print(flush=True); input()"
STARTS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS!r}])"


@pytest.mark.parametrize("code", [HOLDS, STARTS], ids=["itself", "by a child"])
def test_a_peak_is_that_of_a_process_with_all_that_it_starts(code: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        with watched(process.pid) as peak:
            process.stdout.readline()
            until = time.monotonic() + 30
            while peak.private < MEGABYTES << 20 and time.monotonic() < until:
                time.sleep(0.01)
            process.stdin.write(b"\n")
            process.stdin.close()
            assert process.wait() == 0
    assert MEGABYTES << 20 <= peak.private <= peak.resident < (MEGABYTES + 100) << 20


def test_stages_are_measured_and_what_was_measured_before_stays(
    project: Path, run_stage: RunStage
) -> None:
    size = full_size.LEAST
    arguments = ("--products", str(size), "--folder", "scale")
    done = run_stage("bench.scale", "sample", "clean", *arguments)
    assert done.returncode == 0, done.stderr
    first = read_json(layout.SCALE_BENCH, "")
    assert list(first["stages"]) == ["clean", "sample"]
    text = layout.SCALE_BENCH.with_suffix(".md").read_text(encoding="utf-8")
    for points in first["stages"].values():
        (point,) = points
        assert f"Of the commit {point['commit']}, on " in text
        assert point["products"] == size
        assert point["seconds"] > 0
        assert 1 << 27 < point["peak_private_bytes"] <= point["peak_bytes"] < 3 << 30
    (point,) = first["stages"]["clean"]
    for name, rate in point["per_second"].items():
        assert point["times_as_fast"][name] == pytest.approx(
            size / point["seconds"] / rate, rel=0.01 + 0.005 / point["seconds"], abs=0.01
        )
    assert first["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert read_scale().sizes == [size]
    done = run_stage("bench.scale", "sample", *arguments)
    assert done.returncode == 0, done.stderr
    second = read_json(layout.SCALE_BENCH, "")
    assert second["stages"]["clean"] == first["stages"]["clean"]
    assert len(second["stages"]["sample"]) == 1


def test_figures_of_another_machine_are_dropped_with_a_warning(
    project: Path, run_stage: RunStage
) -> None:
    arguments = ("sample", "--products", str(full_size.LEAST), "--folder", "scale")
    elsewhere = {"cores": 96, "cpu": "sparc", "cpu_flags": [], "versions": {}}
    point = {"products": 5, "seconds": 1.0, "peak_bytes": 1, "peak_private_bytes": 1}
    write_json(layout.SCALE_BENCH, {"machine": elsewhere, "stages": {"clean": [point]}})
    done = run_stage("bench.scale", *arguments)
    assert done.returncode == 0, done.stderr
    assert "another machine or with other libraries ({'cores': 96" in done.stderr
    assert "its figures for clean are dropped" in done.stderr
    report = read_json(layout.SCALE_BENCH, "")
    assert list(report["stages"]) == ["sample"]
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))


def test_the_table_shows_growth_beside_the_size_before_and_leaves_out_what_was_not_measured() -> (
    None
):
    def point(products: int, seconds: float) -> dict[str, float]:
        return {"products": products, "seconds": seconds, "peak_private_bytes": 1.5e9}

    text = table({"report": [point(1000, 1.0)], "clean": [point(1000, 2.0), point(4000, 12.0)]})
    assert text.splitlines()[2:] == [
        "| clean | 2.0 s | 12.0 s | 1.50 | 1.50 |",
        "| report | 1.0 s |  |  | 1.50 |",
    ]


def test_a_stage_that_is_not_measured_is_refused_by_name(run_stage: RunStage) -> None:
    done = run_stage("bench.scale", "clena")
    assert done.returncode == 2
    assert "unknown stage: clena" in done.stderr
