"""Work on several threads, results in the order of the work."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    work: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    waiting: int | None = None,
    given_up: Callable[[], None] = lambda: None,
) -> Generator[R]:
    """Yield work(item) for every item, in their order, from this many threads.

    Items are taken as results are asked for, `threads + waiting` at most ahead of them, so memory
    stays bounded. Where the caller stops early, what has not begun is not begun.

    Args:
        work: the function.
        items: its arguments, one per call.
        threads: how many at a time.
        waiting: how many more may wait, for a thread or to be asked for. A few are enough where
            the caller is slower than the threads, or the items large; if left out, as many as
            threads and one more, so that no thread waits for a slow one.
        given_up: called if the caller stops early, before what has begun is waited for.
    """
    ahead_at_most = threads + (threads + 1 if waiting is None else waiting)
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) == ahead_at_most:
                    yield _first(running)
            while running:
                yield _first(running)
        finally:
            if running:
                given_up()
            for future in running:
                future.cancel()


def _first(running: deque[Future[R]]) -> R:
    result = running[0].result()
    running.popleft()
    return result


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the items; a thread of its own takes them, a few ahead of the caller."""
    iterator, end = iter(items), object()
    for item in in_parallel(lambda _: next(iterator, end), itertools.count(), threads=1):
        if item is end:
            return
        yield item  # type: ignore[misc]
