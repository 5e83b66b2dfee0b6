"""What this machine has: memory, free disk."""

import os
import shutil
from pathlib import Path

_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def memory_bytes() -> int:
    """Return the memory that this process may use at most: the machine's, or its container's."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(_CONTROL_GROUP.read_text(encoding="ascii")))
    except (OSError, ValueError):  # none, or "max"
        return whole


def free_bytes(folder: Path) -> int:
    """Return the room on the disk of a folder that need not be there yet."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
