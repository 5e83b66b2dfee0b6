"""Folders in the cache that are built once, whole or not at all, and built again if damaged."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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

log = logging.getLogger("pipeline")

Digests = dict[str, str]
"""The SHA-256 of each file of a folder, by its path in the folder."""


def build_once(folder: Path, fill: Callable[[Path], None]) -> Digests:
    """Build a folder if it is missing or not as it was built; return its files' hashes.

    A seal beside the folder holds the hash, size and time of change of every file. A file with the
    size and time of the seal counts as unchanged, as for Git and DVC: half a gigabyte of
    weights takes seconds to hash. Several processes may ask for the same folder at once. A kill
    leaves what the next call removes.
    """
    seal, lock = _beside(folder)
    clear_away(folder)
    digests = _digests_if_as_built(folder, seal)
    if digests is not None:
        return digests
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
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


def _beside(folder: Path) -> tuple[Path, Path]:
    """Return the seal and the lock of a folder."""
    return (
        layout.seal(folder),
        folder.with_name(f".{folder.name}.lock"),
    )


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


def folder_name(kind: str, identity: object) -> str:
    """Return a folder's name: its kind and a hash of what decides its content."""
    return f"{kind}-{hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]}"
