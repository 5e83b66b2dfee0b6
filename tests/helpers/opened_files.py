"""Which files of a folder are opened, by whatever means: as the Linux kernel sees it."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_OPEN, _IS_FOLDER, _NONBLOCK = 0x20, 0x40000000, 0x800
_EVENT = struct.Struct("iIII")


@contextmanager
def opened_files(root: Path) -> Iterator[set[str]]:
    """Collect the paths, relative to `root`, of the files below it that this process opens.

    The set is filled at the end. A file that is opened through a link from elsewhere counts.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "inotify_init1"):
        pytest.skip("only Linux says which files are opened")
    queue = library.inotify_init1(_NONBLOCK)
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    watched = {
        library.inotify_add_watch(queue, os.fsencode(folder), _OPEN): folder for folder in folders
    }
    assert min(watched) >= 0, os.strerror(ctypes.get_errno())
    found: set[str] = set()
    try:
        yield found
        data = b""
        while True:
            try:
                data += os.read(queue, 1 << 20)
            except BlockingIOError:
                break
        at = 0
        while at < len(data):
            watch, mask, _, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + size].rstrip(b"\0").decode()
            at += size
            if name and not mask & _IS_FOLDER:
                found.add((watched[watch] / name).relative_to(root).as_posix())
    finally:
        os.close(queue)
