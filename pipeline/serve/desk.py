"""One worker and a short queue: beyond it, who asks is sent away at once and told to come again."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

WAITING = 8
"""How many searches may wait: at a tenth of a second each, the last one waits about a second."""


class BusyError(Exception):
    """The queue is full."""


class Desk:
    """Runs one search after the other on one thread: a model and an index use all cores anyway."""

    def __init__(self, waiting: int = WAITING) -> None:
        """Open the desk; `waiting` searches may wait while one runs."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._places = threading.BoundedSemaphore(waiting + 1)

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

    def close(self) -> None:
        """Finish what runs, and drop what waits."""
        self._worker.shutdown(cancel_futures=True)
