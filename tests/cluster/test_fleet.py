"""The fleet: every item done once whoever dies, messages as messages, no process left over."""

import platform
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from bench.ray import workers
from pipeline.cluster import fleet
from pipeline.cluster.connection import connected
from pipeline.cluster.fleet import ITEMS_A_WORKER, MOST_FAILURES, Fleet, Work
from pipeline.core.errors import PipelineError
from pipeline.core.params import Runtime
from tests.helpers.fleet_work import (
    cannot_make_its_folder,
    dies,
    divides,
    fills_the_disk,
    never_ready,
    process_ids,
    refuses,
    squares,
    squares_but_dies,
    takes_a_while,
    unable,
)
from tests.helpers.ray_cluster import NODES, one_more_node
from tests.helpers.tiny_models import runtime

pytestmark = pytest.mark.slow  # a real cluster

Hire = Callable[[Callable[[int], Work[int, int]]], Fleet[int, int]]


@pytest.fixture(scope="module")
def here(cluster: str) -> Runtime:
    """Settings that lead to the cluster."""
    return runtime().model_copy(update={"executor": "ray", "ray_address": cluster})


@pytest.fixture(scope="module")
def ray(here: Runtime) -> Iterator[Any]:
    """The module ray, connected."""
    with connected(here) as module:
        yield module


@pytest.fixture
def hire(ray: Any, here: Runtime) -> Hire:
    """Return what makes a fleet of two workers."""
    return lambda make: Fleet(ray, here, make)


def test_every_item_is_done_once_few_are_taken_ahead_and_what_is_abandoned_stays_away(
    hire: Hire,
) -> None:
    with hire(squares) as two:
        assert two.about() == "squares"
        for items in (0, 1, 50):
            done = list(two.map(range(100, 100 + items)))
            assert sorted(done) == [(at, (100 + at) ** 2) for at in range(items)]
        counted = Counted(100)
        for number, _ in enumerate(two.map(counted), start=1):
            assert counted.taken - number <= NODES * ITEMS_A_WORKER
        abandoned = two.map(range(50))
        next(abandoned)
        abandoned.close()  # type: ignore[attr-defined]
        assert sorted(two.map(range(7))) == [(at, at * at) for at in range(7)]


class Counted:
    """Numbers, and how many of them were taken."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for item in range(self.items):
            self.taken += 1
            yield item


def test_killed_workers_lose_and_repeat_nothing_and_none_is_taken_far_from_the_first_not_done(
    hire: Hire, tmp_path: Path
) -> None:
    dying = frozenset(np.random.default_rng(1).choice(60, 3, replace=False).tolist())
    items, span, done = Counted(60), 4, dict[int, int]()
    with hire(partial(squares_but_dies, tmp_path, 1, dying)) as two:
        two.about()
        for number, square in two.map(items, span):
            assert items.taken - min(set(range(61)) - done.keys()) <= span
            assert number not in done
            done[number] = square
    assert done == {at: at * at for at in range(60)}
    assert len(list(tmp_path.iterdir())) == len(dying)


def test_work_that_kills_every_worker_is_given_up_with_a_message(
    hire: Hire, tmp_path: Path
) -> None:
    make = partial(squares_but_dies, tmp_path, 99, frozenset({3}))
    with hire(make) as two, pytest.raises(PipelineError, match="workers of the Ray cluster died"):
        list(two.map(range(9)))
    assert len(list(tmp_path.iterdir())) == MOST_FAILURES


@pytest.mark.thorough
def test_a_node_that_goes_with_all_its_workers_counts_as_no_failure_of_an_item(
    hire: Hire, nodes: Any
) -> None:
    held = MOST_FAILURES + 1
    with one_more_node(nodes, held) as node, hire(takes_a_while) as all_of_them:
        deadline = time.monotonic() + 300
        while sum(worker.ready for worker in all_of_them._workers) < NODES + held:
            assert time.monotonic() < deadline, "not all workers became ready"
            list(all_of_them._finished())
        done = dict(all_of_them.map(_until(40, 20, lambda: nodes.remove_node(node))))
    assert done == {at: at * at for at in range(40)}


def _until(items: int, at: int, act: Callable[[], None]) -> Iterator[int]:
    """Yield numbers; act before one of them."""
    for item in range(items):
        if item == at:
            act()
        yield item


def test_what_a_worker_refuses_is_the_message_itself(hire: Hire) -> None:
    with hire(partial(refuses, 7)) as two, pytest.raises(PipelineError) as error:
        list(two.map(range(20)))
    assert str(error.value) == "7 cannot be done; leave it out"
    with hire(unable) as two, pytest.raises(PipelineError) as error:
        list(two.map(range(20)))
    assert str(error.value) == "no such model; name another"


@pytest.mark.parametrize(
    ("make", "cause"),
    [(cannot_make_its_folder, "Not a directory: '/dev/null/cache'"), (fills_the_disk, "No space")],
)
def test_a_disk_that_fails_a_worker_is_one_message_with_its_node(
    hire: Hire, make: Callable[[int], Work[int, int]], cause: str
) -> None:
    with hire(make) as two, pytest.raises(PipelineError) as error:
        list(two.map(range(9)))
    for part in (f"on {platform.node()}: ", cause, "Free that node's disk", "PIPELINE_CACHE"):
        assert part in str(error.value)


def test_a_bug_in_a_worker_keeps_its_traceback(hire: Hire) -> None:
    with hire(partial(divides, 5)) as two, pytest.raises(ZeroDivisionError) as error:
        list(two.map(range(9)))
    assert "fleet_work.py" in str(error.value)


def test_workers_that_die_before_they_are_ready_are_one_message(hire: Hire) -> None:
    with hire(dies) as two, pytest.raises(PipelineError) as error:
        two.about()
    assert re.match(
        f"on every node of the Ray cluster {MOST_FAILURES} workers died before", str(error.value)
    )
    assert "make setup" in str(error.value)


@pytest.mark.thorough
def test_a_node_that_goes_before_its_worker_is_ready_is_not_a_failed_start(
    ray: Any, here: Runtime, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "READY_SECONDS", 3)
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.2)
    large = here.model_copy(update={"threads": 3})
    with one_more_node(nodes, 3) as node, Fleet(ray, large, never_ready) as one:
        nodes.remove_node(node)
        with pytest.raises(PipelineError, match=r"none of . workers .* was ready"):
            one.about()


def test_a_cluster_without_room_for_a_worker_is_refused(ray: Any, here: Runtime) -> None:
    large = here.model_copy(update={"threads": 3})
    for given, gpu, need in ((large, False, "3 cores"), (here, True, "a GPU")):
        with pytest.raises(PipelineError, match=f"no node of the cluster has {need}"):
            Fleet(ray, given, squares, gpu=gpu).__enter__()


def test_no_worker_outlives_its_fleet(hire: Hire) -> None:
    with hire(process_ids) as two:
        processes = {process for _, process in two.map(range(50))}
        assert processes <= set(psutil.pids())
    deadline = time.monotonic() + 30
    while processes & set(psutil.pids()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes & set(psutil.pids())


def test_without_a_worker_for_too_long_the_wait_ends_with_a_message(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hire(squares) as busy:
        busy.about()
        monkeypatch.setattr(fleet, "READY_SECONDS", 0.5)
        monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.2)
        with (
            hire(squares) as late,
            pytest.raises(PipelineError, match=r"none of . workers .* was ready"),
        ):
            late.about()


def test_the_wait_begins_when_the_last_worker_is_lost_however_old_its_last_result(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late, sleep=time.sleep)
    monkeypatch.setattr(fleet, "time", clock)
    with hire(squares) as two:
        two.about()
        late = 2 * fleet.READY_SECONDS
        for worker in workers():
            worker.kill()
        assert sorted(two.map(range(9))) == [(at, at * at) for at in range(9)]
