"""Upkeep of the store: measure it, and delete its oldest entries when it is over its limit."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.store.namespace import ABOUT, LOCK, explain_os_errors, namespace_name
from pipeline.store.segments import PARTIAL, Segment, npy_names

# Writing a segment takes milliseconds: a process that left one partial for longer was killed.
_ABANDONED_SECONDS = 3_600.0

# File systems round times of use; the coarsest rounds to two seconds.
_CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class SegmentFile:
    """A segment: its number of entries, size in bytes, and time of last use in Unix seconds."""

    path: Path
    entries: int
    size: int
    used: float


@dataclass(frozen=True)
class Namespace:
    """A namespace: its identity and its segments."""

    folder: Path
    identity: dict[str, Any]
    segments: tuple[SegmentFile, ...]

    @property
    def entries(self) -> int:
        """How many entries it holds."""
        return sum(segment.entries for segment in self.segments)

    @property
    def size(self) -> int:
        """The size of its segments, in bytes."""
        return sum(segment.size for segment in self.segments)

    @property
    def used(self) -> float:
        """When it was last used, in Unix seconds."""
        return max((segment.used for segment in self.segments), default=0.0)


@dataclass(frozen=True)
class Freed:
    """What was deleted, or would be; `size` in bytes."""

    segments: int
    entries: int
    size: int


def usage(root: Path) -> list[Namespace]:
    """Return the namespaces under `root`, the last used first; other files are ignored.

    Raises:
        PipelineError: a folder cannot be read.
    """
    found: list[Namespace | None] = []
    with explain_os_errors(root), suppress(FileNotFoundError):
        found = [_namespace(folder) for folder in sorted(root.iterdir())]
    return sorted((one for one in found if one is not None), key=lambda one: -one.used)


def prune(root: Path, limit_bytes: float, keep_since: float, *, delete: bool = True) -> Freed:
    """Delete the least recently used segments until all of them are within a limit.

    A segment is used when it is written, and when a `Store` first reads it or notes its use.
    Namespaces that are empty afterwards are deleted too.

    Args:
        root: the folder of all namespaces.
        limit_bytes: how large all segments together may be.
        keep_since: a time in Unix seconds; entries used then or later stay, even over the limit.
        delete: False to delete nothing, and only return what would be deleted.

    Raises:
        PipelineError: something cannot be deleted.
    """
    namespaces = usage(root)
    segments = [segment for namespace in namespaces for segment in namespace.segments]
    excess = sum(segment.size for segment in segments) - limit_bytes
    going: list[SegmentFile] = []
    for segment in sorted(segments, key=lambda one: (one.used, one.path)):
        if excess <= 0 or segment.used >= keep_since - _CLOCK_SECONDS:
            break
        going.append(segment)
        excess -= segment.size
    if delete:
        with explain_os_errors(root):
            for segment in going:
                segment.path.unlink(missing_ok=True)
            untidy = [one.folder for one in namespaces if going or _is_untidy(one.folder)]
            # With nothing to do, nothing is written, not even a lock: this process may only be
            # allowed to read the store.
            if untidy:
                with FileLock(root / LOCK):
                    for folder in untidy:
                        _tidy(folder)
    return Freed(len(going), sum(one.entries for one in going), sum(one.size for one in going))


def _namespace(folder: Path) -> Namespace | None:
    """Return the namespace in a folder, or None if there is none."""
    try:
        # `is_file` first: reading a pipe would not end.
        about = (folder / ABOUT).read_bytes() if (folder / ABOUT).is_file() else b""
    except (FileNotFoundError, PermissionError):
        return None
    if namespace_name(about) != folder.name:
        return None
    try:
        identity = json.loads(about)
    except (ValueError, RecursionError):
        return None
    if not isinstance(identity, dict):
        return None
    segments = []
    for name in npy_names(folder):
        segment = Segment.named(folder, name)
        if segment is not None:
            with suppress(FileNotFoundError):  # deleted a moment ago
                stat = segment.path.stat()
                segments.append(
                    SegmentFile(segment.path, segment.entries, stat.st_size, stat.st_mtime)
                )
    return Namespace(folder, identity, tuple(segments))


def _is_untidy(folder: Path) -> bool:
    """Say whether `_tidy` would do something."""
    with suppress(FileNotFoundError):  # another process was faster
        return bool(_abandoned(folder)) or [path.name for path in folder.iterdir()] == [ABOUT]
    return False


def _abandoned(folder: Path) -> list[Path]:
    """Return the partial segments of killed processes."""
    partial = [path for path in folder.iterdir() if PARTIAL.fullmatch(path.name)]
    return [path for path in partial if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS]


def _tidy(folder: Path) -> None:
    """Remove the partial segments of killed processes, and the folder of an empty namespace."""
    with suppress(FileNotFoundError):  # another process was faster
        for path in _abandoned(folder):
            path.unlink()
        if [path.name for path in folder.iterdir()] == [ABOUT]:
            (folder / ABOUT).unlink()
            folder.rmdir()


def prune_after_run(gigabytes: int, started: float) -> None:
    """Delete the least recently used entries; if that fails, the run is still done.

    Args:
        gigabytes: how much may stay.
        started: when the run began, in Unix seconds; what was used since stays.
    """
    try:
        freed = prune(layout.store(), gigabytes * 10**9, keep_since=started)
    except PipelineError as err:
        log.warning("warning: %s", err)
        return
    if freed.segments:
        log.info(
            "the store of vectors passed runtime.store_gigabytes=%d: freed %.1f GB, %d vectors",
            gigabytes, freed.size / 10**9, freed.entries,
        )  # fmt: skip
