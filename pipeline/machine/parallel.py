"""Work on several threads, results in the order of the work."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield work(item) for every item, in their order, from this many threads.

    Items are taken as results are asked for, a few ahead of them, so memory stays bounded. Where
    the caller stops early, what has not begun is not begun.
    """
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > 2 * threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the items; a thread of its own takes them, a few ahead of the caller."""
    iterator, end = iter(items), object()
    for item in in_parallel(lambda _: next(iterator, end), itertools.count(), threads=1):
        if item is end:
            return
        yield item  # type: ignore[misc]
