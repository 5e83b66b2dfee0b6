"""A worker and a short queue: beyond it, who asks is sent away at once and told to come again."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from pipeline.core.systems import System

T = TypeVar("T")

WAITING = 8
"""How many searches may wait: at a tenth of a second each, the last one waits about a second."""

RERANKS_WAITING = 1
"""The same of searches with `rerank`: each takes seconds."""

RERANK_SECONDS = 10
"""When a search with `rerank` that was sent away may come again."""


class BusyError(Exception):
    """The queue is full.

    Attributes:
        seconds: when to come again.
    """

    def __init__(self, searches: str, seconds: int) -> None:
        """Say of which searches there are too many."""
        when = "a second" if seconds == 1 else f"{seconds} seconds"
        super().__init__(f"too many {searches} at once. Try again in {when}.")
        self.seconds = seconds


class Desk:
    """Runs one search after the other on one thread: a model and an index use all cores anyway."""

    def __init__(
        self, waiting: int = WAITING, searches: str = "searches", seconds: int = 1
    ) -> None:
        """Open the desk.

        Args:
            waiting: how many searches may wait while one runs.
            searches: what they are, for the message.
            seconds: when a search that is sent away may come again.
        """
        self._busy = partial(BusyError, searches, seconds)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._places = threading.BoundedSemaphore(waiting + 1)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns.

        Raises:
            BusyError: too many wait.
        """
        if not self._places.acquire(blocking=False):
            raise self._busy()
        try:
            future = self._worker.submit(work)
        except BaseException:
            self._places.release()
            raise
        # A search that was given up before its turn is cancelled, and frees its place too.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)


def _open_rerank_desk() -> Desk:
    return Desk(RERANKS_WAITING, "searches with rerank", RERANK_SECONDS)


@dataclass(frozen=True)
class Desks:
    """A desk of its own for searches with `rerank`, so that no other search waits for one.

    Attributes:
        rerank: searches with `rerank`.
        quick: all others.
    """

    quick: Desk = field(default_factory=Desk)
    rerank: Desk = field(default_factory=_open_rerank_desk)

    def of(self, systems: Sequence[System]) -> Desk:
        """Return the desk for a search with these systems."""
        return self.rerank if "rerank" in systems else self.quick
