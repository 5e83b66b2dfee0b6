"""Faults in every stage: kills, full disks, damaged files, odd surroundings, a cache that vanishes.

Real stages in real processes; `make prove` does the same at many more moments.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import fault_lab as lab
from pipeline.core import layout
from tests.core.test_files import small_disk
from tests.helpers.artefacts import ROOT

pytestmark = pytest.mark.slow

SURROUNDED = """
import os, sys, time
from pathlib import Path
now = time.time
time.time = lambda: now() - 20 * 365 * 86_400
from bench.fault_lab import OUTPUTS, run_here
folder = Path(sys.argv[1])
for name in OUTPUTS:
    try:
        run_here(name, folder, folder / ".cache", None, folder / "said")
    except SystemExit as ended:
        assert ended.code == 0, (folder / "said").read_text()
    for path in folder.glob("data/**/*.*"):
        os.utime(path, (0, 0))
"""


@pytest.fixture(scope="module")
def shop(workshop: lab.Workshop) -> lab.Workshop:
    """The workshop, its embeddings' vectors kept."""
    return workshop


@pytest.fixture(scope="module")
def whole(shop: lab.Workshop) -> lab.Files:
    """What all stages wrote, undisturbed."""
    return shop.written(lab.OUTPUTS)


@pytest.mark.parametrize("name", lab.OUTPUTS)
def test_a_stage_killed_at_any_moment_leaves_nothing_partial_and_the_next_run_the_same_bytes(
    shop: lab.Workshop, whole: lab.Files, name: str
) -> None:
    rng = np.random.default_rng([*name.encode()])
    writes = shop.writes(name)
    moments: list[lab.Fault] = [
        lab.AtWrite(int(rng.integers(1, writes)), lab.kill),
        lab.AtWrite(writes - int(rng.integers(3)), lab.kill),
        lab.KillAfter(float(rng.uniform(0.01, 0.1))),
    ]
    killed = 0
    for moment in moments:
        shop.remove(name)
        killed += lab.was_killed(shop.run(name, moment))
        lab.check_absent_or_whole(shop, name, whole)
        assert shop.run(name).status == 0
        assert shop.written(lab.OUTPUTS) == whole
        assert not shop.left_over()
    assert killed >= 2


def test_a_disk_that_is_full_is_one_message_in_every_stage_and_with_room_the_next_run_heals(
    shop: lab.Workshop, whole: lab.Files, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, megabytes=64):
        for name in ("data", "models", "reports"):
            shutil.copytree(shop.folder / name, disk / name)
        shutil.copy(shop.folder / "params.yaml", disk)
        for name in lab.OUTPUTS:
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(shutil.disk_usage(disk).free))
            message = lab.check_one_message(shop.run(name, folder=disk), name)
            assert "the disk is full" in message
            assert shop.written(lab.OUTPUTS, disk) == whole, name
            ballast.unlink()
            assert shop.run(name, folder=disk).status == 0
            assert shop.written(lab.OUTPUTS, disk) == whole, name


@pytest.mark.parametrize(
    "name", ["demo", "embed", "index", "retrieve", "bm25", "hybrid", "evaluate", "report"]
)
def test_a_file_that_lacks_one_byte_of_room_is_one_message_and_the_old_outputs_stay(
    shop: lab.Workshop, whole: lab.Files, name: str
) -> None:
    largest = max(map(len, shop.written([name]).values()))
    message = lab.check_one_message(shop.run(name, lab.FileLimit(largest - 1)), name)
    assert "ulimit -f" in message
    assert shop.written(lab.OUTPUTS) == whole


@pytest.mark.parametrize("name", lab.INPUTS)
def test_a_damaged_input_is_refused_with_the_way_out_or_changes_no_number(
    shop: lab.Workshop, whole: lab.Files, name: str
) -> None:
    rng = np.random.default_rng([*name.encode()])
    refused = 0
    for number, path in enumerate(lab.damaged(shop, name)):
        here = shop.folder / path
        sound = here.read_bytes()
        if number % 3:
            lab.flip(here, int(rng.integers(len(sound))), int(rng.integers(8)))
        else:
            here.write_bytes(sound[: int(rng.integers(len(sound)))])
        refused += lab.same_or_refused(shop, name, whole)
        here.write_bytes(sound)
    assert refused
    assert shop.run(name).status == 0
    assert shop.written(lab.OUTPUTS) == whole


class Idle(lab.Workshop):
    """A workshop whose stages end well and do nothing."""

    def run(
        self, name: str, fault: lab.Fault | None = None, folder: Path | None = None
    ) -> lab.Ended:
        return lab.Ended(0, "")


def test_a_stage_that_ends_well_and_writes_nothing_is_not_harmless(
    whole: lab.Files, tmp_path: Path
) -> None:
    idle = Idle(tmp_path)
    for name in lab.OUTPUTS:
        with pytest.raises(AssertionError, match=f"{name} wrote something else"):
            lab.same_or_refused(idle, name, whole)


def test_a_stage_that_fails_by_itself_counts_neither_as_killed_nor_as_done() -> None:
    assert lab.was_killed(lab.Ended(-9, ""))
    assert not lab.was_killed(lab.Ended(0, ""))
    with pytest.raises(AssertionError, match="status 1: error in clean"):
        lab.was_killed(lab.Ended(1, "error in clean"))


def test_clock_locale_time_zone_and_hash_seed_change_no_byte(
    shop: lab.Workshop, whole: lab.Files, tmp_path: Path
) -> None:
    shutil.copy(shop.folder / "params.yaml", tmp_path)
    shutil.copytree(shop.folder / layout.GIVEN_RUNS, tmp_path / layout.GIVEN_RUNS)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/engines").symlink_to(shop.cache / "engines")
    odd = {
        "PYTHONHASHSEED": "4242", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8",
        "TZ": "Pacific/Chatham", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SURROUNDED, str(tmp_path)],
        env={**os.environ, **odd}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert shop.written(lab.OUTPUTS, tmp_path) == whole


def test_vectors_removed_while_embed_runs_are_made_again_or_one_message_and_never_wrong(
    shop: lab.Workshop, whole: lab.Files
) -> None:
    writes = shop.writes("embed")
    rng = np.random.default_rng(5)
    for moment in sorted({1, writes - 1, *rng.integers(2, writes - 1, 4).tolist()}):
        shop.forget_kept()
        shop.remove("embed")
        ended = shop.run("embed", lab.AtWrite(moment, lab.Remove(shop.cache / "vectors")))
        if ended.status:
            assert "$PIPELINE_CACHE" in lab.check_one_message(ended, "embed")
        lab.check_absent_or_whole(shop, "embed", whole)
        assert shop.run("embed").status == 0
        assert shop.written(lab.OUTPUTS) == whole
