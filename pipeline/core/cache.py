"""Folders in the cache that are built once, whole or not at all, and built again if damaged.

What several commands keep of a table is in folders that are mapped when read. Such a folder is
named after the hash of what it was made from, so it is never out of date, and those unused longest
make room for new ones.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from filelock import FileLock, Timeout

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import (
    atomic_directory,
    canonical_json,
    clear_away,
    sha256_file,
    write_json,
)
from pipeline.core.log import log

R = TypeVar("R")

Digests = dict[str, str]
"""The SHA-256 of each file of a folder, by its path in the folder."""

TRIES = 3
"""How often a folder is read that others delete, or that is damaged."""

KEPT_FOLDERS = 6
"""The fewest folders that stay; two for each locale, before and after a change, if these are more.
"""


def build_once(folder: Path, fill: Callable[[Path], None]) -> Digests:
    """Build a folder if it is missing or not as it was built; return its files' hashes.

    A seal beside the folder holds the hash, size and time of change of every file. A file with the
    size and time of the seal counts as unchanged, as for Git and DVC: half a gigabyte of
    weights takes seconds to hash. Several processes may ask for the same folder at once. A kill
    leaves what the next call removes.
    """
    seal, lock = _beside(folder)
    digests = _digests_if_as_built(folder, seal)
    if digests is not None:
        return digests
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(lock, f"another process builds {folder}"):
        # Only here: in a shared cache, another machine's process may be building.
        clear_away(folder)
        digests = _digests_if_as_built(folder, seal)
        if digests is None:
            if folder.is_dir():
                log.warning("warning: %s is not as it was built; it is built again", folder)
            with atomic_directory(folder) as partial:
                fill(partial)
                stamps = _stamps(partial)
                digests = {name: sha256_file(partial / name) for name in stamps}
                # First the seal: a folder that is there without it would be built again.
                write_json(seal, {"sha256": digests, "stamps": stamps})
    return digests


@contextmanager
def held(lock: Path, why: str) -> Iterator[None]:
    """Hold a lock for the block; if another process has it, say `why` and wait."""
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        log.info("%s; waiting for it", why)
        file.acquire()
    try:
        yield
    finally:
        file.release()


def forget(folder: Path) -> None:
    """Delete a folder that `build_once` has built, and its seal; not while a process builds it.

    Its lock stays: a process that waits for a lock which is deleted would not exclude the next one.

    Raises:
        OSError: the cache cannot be written.
    """
    seal, lock = _beside(folder)
    with suppress(Timeout), FileLock(lock, timeout=0):
        shutil.rmtree(folder, ignore_errors=True)
        seal.unlink(missing_ok=True)


def keep(folder: Path, make: Callable[[Path], None], locales: int) -> Digests:
    """Fill a folder of the cache, unless it is there whole; those unused longest make room for it.

    Returns the hashes of its files, as they were when it was filled. Another process may make room
    for its own folder at any time: the files may be gone when they are opened.

    Args:
        folder: the folder.
        make: writes the files into the folder that it gets.
        locales: how many locales there are, each with folders of its own.
    """
    digests = build_once(folder, make)
    now = time.time_ns()  # the system's own time of change is coarser
    with suppress(OSError):  # a cache that can only be read
        os.utime(folder, ns=(now, now))
        others = [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]
        others = [path for path in others if not path.name.startswith(".")]
        for old in sorted(others, key=_used, reverse=True)[max(KEPT_FOLDERS, 2 * locales) - 1 :]:
            forget(old)  # who has mapped a file keeps it
    return digests


def keep_and_read(
    folder: Path, make: Callable[[Path], None], locales: int, read: Callable[[], R]
) -> R:
    """Return what `read` reads of a folder that is kept; again if others deleted it meanwhile.

    `folder`, `make` and `locales` are those of `keep`.
    """
    for _ in range(TRIES - 1):
        keep(folder, make, locales)
        with suppress(FileNotFoundError):
            return read()
    keep(folder, make, locales)
    return read()


def map_table(path: Path) -> pa.Table:
    """Return an Arrow file as a table whose rows are read from the disk as they are needed."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as file:
        return file.read_all()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow file that can be mapped."""
    with path.open("wb") as handle, pa.ipc.new_file(handle, table.schema) as writer:
        writer.write_table(table)


def folder_name(kind: str, identity: object) -> str:
    """Return a folder's name: its kind and a hash of what decides its content."""
    return f"{kind}-{hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]}"


def check_space(folder: Path, needed: int, where: str) -> None:
    """Check that the disk of an existing folder in the cache has room.

    Args:
        folder: the folder.
        needed: how many bytes are to be written.
        where: the key of the weights in params.yaml, for the message.

    Raises:
        PipelineError: it has less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PipelineError(
            f"{where}: about {needed / 1e6:,.0f} MB are needed in {folder.parent} (found "
            f"{free / 1e6:,.0f} MB free). Free some space, or move the cache to another disk "
            "(PIPELINE_CACHE)."
        )


def _beside(folder: Path) -> tuple[Path, Path]:
    """Return the seal and the lock of a folder."""
    return layout.seal(folder), folder.with_name(f".{folder.name}.lock")


def _digests_if_as_built(folder: Path, seal: Path) -> Digests | None:
    try:
        sealed = json.loads(seal.read_text(encoding="utf-8"))
        stamps, digests = dict(sealed["stamps"]), dict(sealed["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    try:
        found = _stamps(folder) if folder.is_dir() else {}
        if found.keys() != digests.keys():
            return None
        changed = [name for name, stamp in found.items() if stamp != stamps.get(name)]
        if any(sha256_file(folder / name) != digests[name] for name in changed):
            return None
    except FileNotFoundError:  # another process deletes it now
        return None
    return digests


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Return the size in bytes and the time of change in nanoseconds of every file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _used(folder: Path) -> float:
    """Return when a folder was made or used last, in Unix seconds."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
