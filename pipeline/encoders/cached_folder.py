"""Folders in the cache that are built once, whole or not at all, and built again if damaged."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from pipeline.core.files import atomic_directory, canonical_json, sha256_file, write_json

log = logging.getLogger("pipeline")

Digests = dict[str, str]
"""The SHA-256 of each file of a folder, by its path in the folder."""


def build_once(folder: Path, fill: Callable[[Path], None]) -> Digests:
    """Build a folder if it is missing or not as it was built; return its files' hashes.

    A seal beside the folder holds the hash, size and time of change of every file. A file with the
    size and time of the seal counts as unchanged, as for Git and DVC: half a gigabyte of
    weights takes seconds to hash. Several processes may ask for the same folder at once.
    """
    seal = folder.with_name(f".{folder.name}.seal.json")
    digests = _digests_if_as_built(folder, seal)
    if digests is not None:
        return digests
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        digests = _digests_if_as_built(folder, seal)
        if digests is None:
            if folder.is_dir():
                log.warning("warning: %s is not as it was built; it is built again", folder)
            with atomic_directory(folder) as partial:
                fill(partial)
            digests = {name: sha256_file(folder / name) for name in _stamps(folder)}
            write_json(seal, {"sha256": digests, "stamps": _stamps(folder)})
    return digests


def _digests_if_as_built(folder: Path, seal: Path) -> Digests | None:
    try:
        sealed = json.loads(seal.read_text(encoding="utf-8"))
        stamps, digests = dict(sealed["stamps"]), dict(sealed["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    found = _stamps(folder) if folder.is_dir() else {}
    if found.keys() != digests.keys():
        return None
    changed = [name for name, stamp in found.items() if stamp != stamps.get(name)]
    if any(sha256_file(folder / name) != digests[name] for name in changed):
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
