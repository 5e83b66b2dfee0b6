"""Folders of the cache that are whole, and mapped when read: what several commands keep of a table.

A folder is named after the hash of what it was made from, so it is never out of date.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from pipeline.core.cached_folder import Digests, build_once, forget

R = TypeVar("R")

TRIES = 3
"""How often a folder is read that others delete, or that is damaged."""

KEPT_FOLDERS = 6
"""The fewest folders that stay; two for each locale, before and after a change, if these are more.
"""


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


def _used(folder: Path) -> float:
    """Return when a folder was made or used last, in Unix seconds."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
