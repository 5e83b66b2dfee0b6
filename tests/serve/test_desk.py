"""The queue: one search at a time, a few wait, the others are sent away at once."""

import asyncio
import threading
from functools import partial

import pytest

from pipeline.serve.desk import BusyError, Desk


def test_one_runs_a_few_wait_and_the_others_are_refused_at_once() -> None:
    desk, go_on, running = Desk(waiting=2), threading.Event(), [0]
    most = [0]

    def work(number: int) -> int:
        running[0] += 1
        most[0] = max(most[0], running[0])
        go_on.wait(10)
        running[0] -= 1
        return number

    async def ask() -> None:
        tasks = [asyncio.create_task(desk.run(partial(work, each))) for each in range(3)]
        await asyncio.sleep(0)
        for _ in range(5):
            with pytest.raises(BusyError):
                await desk.run(lambda: 0)
        go_on.set()
        assert await asyncio.gather(*tasks) == [0, 1, 2]
        assert await desk.run(lambda: 7) == 7  # there is room again

    asyncio.run(ask())
    assert most == [1]


def test_a_search_that_fails_or_is_given_up_frees_its_place() -> None:
    desk, go_on = Desk(waiting=1), threading.Event()

    async def ask() -> None:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await desk.run(lambda: 1 // 0)
        first = asyncio.create_task(desk.run(lambda: go_on.wait(10)))
        second = asyncio.create_task(desk.run(lambda: None))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        third = asyncio.create_task(desk.run(lambda: 3))
        await asyncio.sleep(0)
        go_on.set()
        await first
        assert await third == 3

    asyncio.run(ask())
