"""dvc.lock after a kill: what is cut is whole again, what is whole stays, the rest is refused."""

import logging
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.repro import repair
from pipeline.repro.repair import LockText, has_lost, is_whole, protected, repaired
from tests.helpers.artefacts import ROOT

pytestmark = pytest.mark.slow

OLD = (ROOT / layout.LOCK).read_text(encoding="utf-8")
NEW = OLD.replace("md5: ", "md5: 0")
"""What DVC writes after another run: the same stages with other hashes."""

RWLOCK, COPY = Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/dvc.lock.before")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what DVC has in one, as the working folder."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commit_lock(text: str) -> None:
    """Commit a dvc.lock in the working folder."""
    layout.LOCK.write_text(text)
    for command in ("init -q", "add dvc.lock", "-c user.name=t -c user.email=t@t commit -qm lock"):
        subprocess.run(["git", *command.split()], check=True)


def test_a_lock_is_its_head_and_its_stages() -> None:
    parsed = LockText.parse(OLD)
    assert parsed.text() == OLD
    assert list(parsed.stages)[:3] == ["demo", "sample", "clean@us"]


def test_a_lock_cut_anywhere_has_every_stage_again_the_whole_ones_as_dvc_wrote_them() -> None:
    rng = np.random.default_rng(1)
    old, new = LockText.parse(OLD).stages, LockText.parse(NEW).stages
    for size in (0, 1, 30, len(NEW) - 1, *rng.integers(len(NEW), size=12)):
        mended = repaired(NEW[:size], OLD)
        assert mended is not None
        found = LockText.parse(mended).stages
        assert list(found) == list(old)
        whole = list(LockText.parse(NEW[:size]).stages)[:-1]
        assert {name: found[name] for name in whole} == {name: new[name] for name in whole}
        assert {found[name] for name in old.keys() - set(whole)} <= set(old.values())


def test_a_lock_that_dvc_can_read_and_that_lacks_stages_has_lost_them() -> None:
    stages = LockText.parse(OLD).stages
    cut = OLD[: OLD.index(stages["report"])]
    assert is_whole(cut)
    assert has_lost(cut, OLD)
    assert not has_lost(OLD, cut)
    alone = LockText(LockText.parse(OLD).head, {"clean@us": stages["clean@us"]}).text()
    assert is_whole(alone)
    assert has_lost(alone, OLD)


def test_a_second_dvc_that_read_an_emptied_lock_costs_no_stage(repository: Path) -> None:
    """The killed one had emptied dvc.lock; the other one then wrote its own stage alone."""
    layout.LOCK.write_text(OLD)
    old, new = LockText.parse(OLD), LockText.parse(NEW)
    with protected():
        layout.LOCK.write_text(
            LockText(old.head, {name: new.stages[name] for name in ("embed@es", "clean@us")}).text()
        )
    found = LockText.parse(layout.LOCK.read_text()).stages
    assert list(found) == list(old.stages)
    assert found["embed@es"] == new.stages["embed@es"]
    others = old.stages.keys() - {"embed@es", "clean@us"}
    assert {found[name] for name in others} == {old.stages[name] for name in others}


def test_a_lock_that_git_restored_is_no_lost_one(repository: Path) -> None:
    small = LockText(LockText.parse(OLD).head, {"demo": LockText.parse(OLD).stages["demo"]}).text()
    commit_lock(small)
    COPY.write_text(OLD)  # of a run that was killed on another branch
    with protected():
        assert layout.LOCK.read_text() == small


def test_without_any_earlier_lock_the_whole_stages_of_a_cut_one_are_kept() -> None:
    stages = LockText.parse(OLD).stages
    mended = repaired(OLD[: OLD.index(stages["clean@us"]) + 99], "")
    assert mended is not None
    assert list(LockText.parse(mended).stages) == ["demo", "sample"]
    assert repaired("", "") == ""


@pytest.mark.parametrize(
    "text",
    ["{}", "no lock\n", "schema: '2.0'\nstages:\n  demo:\n    cmd: []\n  x: [\n  y:\n    cmd: a\n",
     OLD.replace("  sample:\n", "<<<<<<< HEAD\n  sample:\n"), OLD.replace("cmd:", "cdm:", 1)],
    ids=["no stages", "prose", "broken in the middle", "a merge conflict", "a wrong key"],
)  # fmt: skip
def test_a_lock_that_is_broken_otherwise_is_left_alone_with_the_way_out(
    repository: Path, text: str
) -> None:
    layout.LOCK.write_text(text)
    with pytest.raises(PipelineError, match=r"git checkout dvc\.lock"), protected():
        pytest.fail("it was taken for a cut one")
    assert layout.LOCK.read_text() == text


@pytest.mark.parametrize("content", ["", "{", '{"write": {"a', '{"read": []}', "[]", "\0"])
def test_a_broken_rwlock_is_removed_and_a_good_one_stays(repository: Path, content: str) -> None:
    RWLOCK.write_text(content)
    repair.repair()
    assert not RWLOCK.exists()
    good = '{"write": {"/a": {"pid": 1, "cmd": "dvc repro"}}}'
    RWLOCK.write_text(good)
    repair.repair()
    assert RWLOCK.read_text() == good


def test_a_run_that_is_killed_leaves_a_copy_from_which_the_next_repairs(repository: Path) -> None:
    layout.LOCK.write_text(OLD)
    with protected():
        assert COPY.read_text() == OLD
        layout.LOCK.write_text(NEW[:20_000])
    assert list(LockText.parse(layout.LOCK.read_text()).stages) == list(LockText.parse(OLD).stages)
    assert not COPY.exists()
    COPY.write_text(OLD)  # as a killed run leaves it
    layout.LOCK.write_text("")
    with protected():
        assert layout.LOCK.read_text() == OLD


def test_a_whole_lock_is_never_changed(repository: Path) -> None:
    layout.LOCK.write_text(NEW)
    COPY.write_text(OLD)
    with protected():
        assert layout.LOCK.read_text() == NEW
        grown = NEW + "  another:\n    cmd: echo\n"
        layout.LOCK.write_text(grown)
    assert layout.LOCK.read_text() == grown


def test_git_has_the_stages_where_plain_dvc_was_killed(repository: Path) -> None:
    commit_lock(OLD)
    layout.LOCK.write_text(NEW[:9_000])
    with protected():
        assert is_whole(layout.LOCK.read_text())
        names = list(LockText.parse(layout.LOCK.read_text()).stages)
    assert names == list(LockText.parse(OLD).stages)


def test_nothing_is_repaired_while_dvc_is_at_work(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from dvc.lock import make_lock

    RWLOCK.write_text("")
    with make_lock(".dvc/tmp/lock"), caplog.at_level(logging.INFO, "pipeline"):
        repair.repair()
    assert RWLOCK.exists()
    assert not caplog.messages


def test_two_runs_at_the_same_time_are_refused(repository: Path) -> None:
    with (
        protected(),
        pytest.raises(PipelineError, match="still running here"),
        protected(),
    ):
        pytest.fail("both ran")
