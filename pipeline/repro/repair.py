"""Repair what a killed DVC leaves: a cut dvc.lock, a broken .dvc/tmp/rwlock.

DVC 3.67 writes both in place, and refuses every command while one of them is broken. A run here
keeps a copy of each dvc.lock until it ends. A cut file is the beginning of a whole one, so its
stages are good up to the last, which may be cut; the other stages come from the copy, or from Git.
A second DVC may read the file that the killed one had emptied, and write its own stages alone.
"""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline import git
from pipeline.core import files, layout
from pipeline.core.errors import PipelineError
from pipeline.core.log import log

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast as ruamel.yaml
_STAGE = re.compile(r"^  (\S.*):\n", re.MULTILINE)


@dataclass(frozen=True)
class LockText:
    """The text of a dvc.lock: what is before the stages, and each stage's lines by its name."""

    head: str
    stages: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "LockText":
        """Cut a text before each stage's name."""
        found = list(_STAGE.finditer(text))
        ends = [*(each.start() for each in found[1:]), len(text)]
        stages = {each[1]: text[each.start() : end] for each, end in zip(found, ends, strict=False)}
        return cls(text[: found[0].start()] if found else "", stages)

    def text(self) -> str:
        """Return the text as DVC writes it."""
        return self.head + "".join(self.stages.values())


def is_whole(text: str) -> bool:
    """Return whether DVC would read a text as dvc.lock, and nothing shows that it was cut."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # a quarter of a second
    from voluptuous import Invalid

    if not text.endswith("\n") or "\ufffd" in text:
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(text, _LOADER))  # noqa: S506 (both are safe)
    except (yaml.YAMLError, Invalid, ValueError):
        return False
    return True


def repaired(text: str, base: str) -> str | None:
    """Return the whole dvc.lock of a text that was cut, or None where it is not a cut one.

    Args:
        text: what is in dvc.lock.
        base: an earlier whole dvc.lock, or nothing.
    """
    cut, before = LockText.parse(text), LockText.parse(base)
    good = dict(list(cut.stages.items())[:-1])  # the last one may be cut, at any letter
    mended = LockText(before.head or cut.head, before.stages | good)
    if not mended.stages:
        return "" if not text.strip() else None
    whole = not re.search(r"^(<{7}|={7}|>{7})", text, re.MULTILINE) and is_whole(mended.text())
    return mended.text() if whole else None


def has_lost(text: str, base: str) -> bool:
    """Return whether a dvc.lock that DVC can read lacks stages of the one that it was made from.

    `dvc repro` never removes a stage from dvc.lock, and keeps their order.
    """
    return not LockText.parse(base).stages.keys() <= LockText.parse(text).stages.keys()


@contextmanager
def protected() -> Iterator[int]:
    """Repair what an earlier run left, and keep copies of the locks for as long as this run takes.

    Yields a file descriptor for DVC to inherit: while any process has it, no other run begins.

    Raises:
        PipelineError: another run is at work, or dvc.lock is broken in another way than cut.
    """
    with _only_one() as descriptor:
        repair()
        for lock in filter(Path.exists, layout.LOCKS):
            with files.atomic_file(_copy(lock)) as partial:
                partial.write_bytes(lock.read_bytes())
        try:
            yield descriptor
        finally:
            repair()
            for lock in layout.LOCKS:
                if not _is_broken(lock):  # else another DVC is at work, and the next run repairs it
                    _copy(lock).unlink(missing_ok=True)


def repair() -> None:
    """Repair each dvc.lock and DVC's rwlock where they are broken and no DVC is at work.

    Raises:
        PipelineError: a dvc.lock is broken, and not as a killed DVC breaks it.
    """
    if not (_rwlock_is_broken() or any(map(_is_broken, layout.LOCKS))):
        return
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(str(_temporary() / "lock")):
            if _rwlock_is_broken():
                (_temporary() / "rwlock").unlink()
                log.info("A killed DVC left .dvc/tmp/rwlock empty. It is removed.")
            for lock in filter(_is_broken, layout.LOCKS):
                _repair(lock)
    except LockError:  # a DVC at work may be writing them; if not, it says what is wrong
        return


def _repair(lock: Path) -> None:
    mended = repaired(_read(lock), _earlier(lock))
    if mended is None:
        raise PipelineError(
            f"{lock} is neither a lock file of DVC nor the beginning of one. Restore the last "
            f"committed one: `git checkout {lock}`."
        )
    if not mended:
        lock.unlink()
        log.info("A killed DVC left %s empty. It is removed.", lock)
        return
    files.write_text(lock, mended)
    log.info("A killed DVC left %s cut off. It is repaired; nothing is lost.", lock)


def _is_broken(lock: Path) -> bool:
    if not lock.exists():
        return False
    text = _read(lock)
    if not is_whole(text):
        return True
    return has_lost(text, _read(_copy(lock))) and text != _committed(lock)


def _rwlock_is_broken() -> bool:
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads((_temporary() / "rwlock").read_bytes()))
    except FileNotFoundError:
        return False
    except (ValueError, RecursionError, Invalid):
        return True
    return False


def _earlier(lock: Path) -> str:
    """Return the last whole dvc.lock: that of an interrupted run's start, or that of Git."""
    return _read(_copy(lock)) or _committed(lock)


def _committed(lock: Path) -> str:
    """Return the dvc.lock of Git's last commit; nothing where there is no whole one."""
    text = git.try_run("show", f"HEAD:./{lock}") or ""
    return text if is_whole(text) else ""


def _read(path: Path) -> str:
    with suppress(FileNotFoundError):
        return path.read_bytes().decode("utf-8", "replace")
    return ""


@contextmanager
def _only_one() -> Iterator[int]:
    _temporary().mkdir(exist_ok=True)
    with (_temporary() / "repro.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise PipelineError(
                "`make repro`, or a DVC command that it started, is still running here. Wait until "
                "it ends, or find it with `pgrep -af 'dvc|pipeline.repro'` and end it with `kill`."
            ) from err
        yield handle.fileno()


def _temporary() -> Path:
    """Return the folder of DVC's own temporary files.

    Raises:
        PipelineError: there is no DVC repository here.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder / ".dvc" / "tmp"
    raise PipelineError(f"{here}: no DVC repository is here. Run from the repository root.")


def _copy(lock: Path) -> Path:
    return _temporary() / f"{'.'.join(lock.parts)}.before"
