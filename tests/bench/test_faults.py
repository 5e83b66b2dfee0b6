"""Faults in every stage: kills, full disks, damaged files, odd surroundings, a cache that vanishes.

Real stages in real processes; `make prove` does the same at many more moments, and kills every
stage.
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
from tests.helpers.artefacts import ROOT
from tests.helpers.disks import small_disk

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
def whole(workshop: lab.Workshop) -> lab.Files:
    """What all stages wrote, undisturbed."""
    return workshop.written(lab.OUTPUTS)


# A folder of tables, shards and the store, an index, runs, files in a folder of others, pages.
KILLED = ("clean", "embed", "index", "bm25", "evaluate", "report")


@pytest.mark.parametrize(
    "name",
    [
        *KILLED,
        *(
            pytest.param(each, marks=pytest.mark.thorough)
            for each in lab.OUTPUTS
            if each not in KILLED
        ),
    ],
)
def test_a_stage_killed_at_any_moment_leaves_nothing_partial_and_the_next_run_the_same_bytes(
    workshop: lab.Workshop, whole: lab.Files, name: str
) -> None:
    rng = np.random.default_rng([*name.encode()])
    writes = workshop.writes(name)
    killed = 0
    for moment in (int(rng.integers(1, writes)), writes - int(rng.integers(3))):
        workshop.remove(name)
        killed += lab.was_killed(workshop.run(name, lab.AtWrite(moment, lab.kill)))
        lab.check_absent_or_whole(workshop, name, whole)
    assert killed
    assert workshop.run(name).status == 0
    assert workshop.written(lab.OUTPUTS) == whole
    assert not workshop.left_over()


def test_a_disk_that_is_full_is_one_message_in_every_stage_and_the_old_outputs_stay(
    workshop: lab.Workshop, whole: lab.Files, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, megabytes=64):
        for name in ("data", "models", "reports"):
            shutil.copytree(workshop.folder / name, disk / name)
        shutil.copy(workshop.folder / "params.yaml", disk)
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
        for name in lab.OUTPUTS:
            message = lab.check_one_message(workshop.run(name, folder=disk), name)
            assert "the disk is full" in message
            assert workshop.written(lab.OUTPUTS, disk) == whole, name
            assert not [*disk.glob("**/.*.partial")], name


@pytest.mark.parametrize(
    "name",
    [
        "demo", "sample", "clean", "embed", "index", "retrieve", "bm25", "hybrid", "evaluate",
        "report",
    ],
)  # fmt: skip
def test_a_file_that_lacks_one_byte_of_room_is_one_message_and_the_old_outputs_stay(
    workshop: lab.Workshop, whole: lab.Files, name: str
) -> None:
    largest = max(map(len, workshop.written([name]).values()))
    message = lab.check_one_message(workshop.run(name, lab.FileLimit(largest - 1)), name)
    assert "ulimit -f" in message
    assert workshop.written(lab.OUTPUTS) == whole
    assert not workshop.left_over()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", lab.INPUTS)
def test_a_damaged_input_is_refused_with_the_way_out_or_changes_no_number(
    workshop: lab.Workshop, whole: lab.Files, name: str, every: bool
) -> None:
    rng = np.random.default_rng([*name.encode()])
    files = [workshop.folder / path for path in lab.damaged(workshop, name)]
    largest = {path.parent: path for path in sorted(files, key=lambda path: path.stat().st_size)}
    refused = 0
    for number, here in enumerate(files if every else largest.values()):  # or one of each folder
        sound = here.read_bytes()
        if number % 3:
            lab.flip(here, int(rng.integers(len(sound))), int(rng.integers(8)))
        else:
            here.write_bytes(sound[: int(rng.integers(len(sound)))])
        refused += lab.same_or_refused(workshop, name, whole)
        here.write_bytes(sound)
    assert refused
    assert workshop.run(name).status == 0
    assert workshop.written(lab.OUTPUTS) == whole


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
    workshop: lab.Workshop, whole: lab.Files, tmp_path: Path
) -> None:
    shutil.copy(workshop.folder / "params.yaml", tmp_path)
    shutil.copytree(workshop.folder / layout.GIVEN_RUNS, tmp_path / layout.GIVEN_RUNS)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/engines").symlink_to(workshop.cache / "engines")
    odd = {
        "PYTHONHASHSEED": "4242", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8",
        "TZ": "Pacific/Chatham", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SURROUNDED, str(tmp_path)],
        env={**os.environ, **odd}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert workshop.written(lab.OUTPUTS, tmp_path) == whole


def test_vectors_removed_while_embed_runs_are_made_again_or_one_message_and_never_wrong(
    workshop: lab.Workshop, whole: lab.Files
) -> None:
    writes = workshop.writes("embed")
    for moment in (1, writes // 2, writes - 1):
        workshop.forget_kept()
        workshop.remove("embed")
        ended = workshop.run("embed", lab.AtWrite(moment, lab.Remove(workshop.cache / "vectors")))
        if ended.status:
            assert "$PIPELINE_CACHE" in lab.check_one_message(ended, "embed")
        lab.check_absent_or_whole(workshop, "embed", whole)
        assert workshop.run("embed").status == 0
        assert workshop.written(lab.OUTPUTS) == whole
