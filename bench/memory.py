"""What a process and all that it starts hold in memory, watched from outside."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

SECONDS_BETWEEN_LOOKS = 0.02


@dataclass
class Peak:
    """The most memory that a process and its descendants held at one time, in bytes.

    Attributes:
        resident: all of it that lay in memory, each process for itself: what processes share is
            counted in each, mapped files are counted where they were read.
        private: without what is shared with a file or another process, so without mapped files.
    """

    resident: int = 0
    private: int = 0

    def look(self, process: psutil.Process) -> None:
        """Look at the memory in use now, and keep the maximum."""
        held = []
        with_descendants = [process]
        try:
            with_descendants += process.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for one in with_descendants:
            try:
                held.append(one.memory_info())
            except psutil.NoSuchProcess:
                continue
        self.resident = max(self.resident, sum(each.rss for each in held))
        # Only Linux reports shared memory.
        private = sum(each.rss - getattr(each, "shared", 0) for each in held)
        self.private = max(self.private, private)


@contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Watch a process and its descendants for as long as the block runs."""
    peak, process, over = Peak(), psutil.Process(pid), threading.Event()

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            peak.look(process)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
