"""One worker and a short queue: beyond it, who asks is sent away at once and told to come again."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

WAITING = 8
"""How many searches may wait: at a tenth of a second each, the last one waits about a second."""

END_SECONDS = 5.0
"""How long the end of the server waits for the search that runs."""


class BusyError(Exception):
    """The queue is full."""


class Desk:
    """Runs one search after the other on one thread: a model and an index use all cores anyway."""

    def __init__(self, waiting: int = WAITING) -> None:
        """Open the desk; `waiting` searches may wait while one runs."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._size = waiting + 1
        self._places = threading.BoundedSemaphore(self._size)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns.

        Raises:
            BusyError: too many wait.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            future = self._worker.submit(work)
        except BaseException:
            self._places.release()
            raise
        # A search that was given up before its turn is cancelled, and frees its place too.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> bool:
        """Drop what waits, and wait some seconds for what runs; return whether all has ended."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + END_SECONDS
        return all(
            self._places.acquire(timeout=max(0.0, until - time.monotonic()))
            for _ in range(self._size)
        )
