import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.core.parallel import ahead, in_parallel


class Counted:
    """Counts how many items were taken."""

    def __init__(self, items: Iterator[int] | range) -> None:
        self.taken = 0
        self._items = items

    def __iter__(self) -> Iterator[int]:
        for item in self._items:
            self.taken += 1
            yield item


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    rng = np.random.default_rng(threads)
    pauses = rng.uniform(0, 0.004, size=rng.integers(1, 60))

    def work(item: int) -> int:
        time.sleep(pauses[item])
        return item * item

    found = list(in_parallel(work, range(len(pauses)), threads))
    assert found == [item * item for item in range(len(pauses))]
    assert list(in_parallel(work, [], threads)) == []


def test_as_many_items_as_threads_are_worked_on_at_once() -> None:
    together = threading.Barrier(3, timeout=60)
    assert list(in_parallel(lambda _: together.wait() >= 0, range(9), threads=3)) == [True] * 9


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
@pytest.mark.parametrize("waiting", [None, 0, 2])
def test_only_a_few_items_are_taken_ahead_of_the_results(threads: int, waiting: int | None) -> None:
    items = Counted(range(100))
    results = in_parallel(lambda item: item, items, threads, waiting)
    taken_ahead = [items.taken - done for done, _ in enumerate(results)]
    assert len(taken_ahead) == 100
    assert max(taken_ahead) <= threads + (threads + 1 if waiting is None else waiting)


def test_as_many_items_as_threads_are_worked_on_where_none_may_wait() -> None:
    together = threading.Barrier(3, timeout=60)
    found = in_parallel(lambda _: together.wait() >= 0, range(9), threads=3, waiting=0)
    assert list(itertools.islice(found, 3)) == [True] * 3


def test_an_error_in_the_work_comes_out_in_its_place_and_ends_the_taking() -> None:
    items = Counted(itertools.count())

    def work(item: int) -> int:
        if item >= 7:
            raise ValueError(f"item {item}")
        return item

    results = in_parallel(work, items, threads=2)
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(ValueError, match="item 7"):
        next(results)
    assert items.taken <= 7 + 2 * 2 + 1
    assert list(results) == []


def test_an_error_in_the_items_comes_out() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(in_parallel(lambda item: item, items(), threads=2))


def test_what_has_not_begun_when_the_caller_stops_is_never_begun() -> None:
    begun: list[int] = []
    release = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            release.wait(60)
        return item

    items = Counted(itertools.count())
    results = in_parallel(work, items, threads=1)
    assert next(results) == 0
    threading.Timer(0.5, release.set).start()  # closing waits for the one that runs
    results.close()
    assert items.taken <= 3
    assert max(begun) <= 1


def test_who_stops_early_gives_up_what_is_running_and_who_takes_all_does_not() -> None:
    release, given_up = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item == 1:
            assert release.wait(60)
        return item

    def give_up() -> None:
        given_up.set()
        release.set()  # without it, closing would wait a minute

    results = in_parallel(work, range(9), threads=2, given_up=give_up)
    assert next(results) == 0
    results.close()
    assert given_up.is_set()
    given_up.clear()
    assert list(in_parallel(work, range(9), threads=2, given_up=give_up)) == list(range(9))
    assert not given_up.is_set()


def test_items_taken_ahead_come_in_their_order_and_few_are_waiting() -> None:
    items = Counted(range(100))
    taken_ahead = []
    for place, item in enumerate(ahead(items)):
        assert item == place
        time.sleep(0.0005)
        taken_ahead.append(items.taken - place)
    assert len(taken_ahead) == 100
    assert max(taken_ahead) <= 4
    assert list(ahead([])) == []
    assert list(ahead([None, None])) == [None, None]


def test_an_error_ahead_comes_out_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("no more")

    found = ahead(items())
    assert list(itertools.islice(found, 5)) == list(range(5))
    with pytest.raises(OSError, match="no more"):
        next(found)
