"""A fleet of workers on a Ray cluster: no item is lost when a worker or a node dies.

The workers are Ray's actors; this module hands out the items, because Ray's own ways do not fit.
`ActorPool` loses the items of an actor that died. Ray's retries go back to that actor, and wait for
ever if its node does not return. Ray Data does both, and cuts, merges and counts blocks of a stream
that is cut, bounded and counted already.
"""

import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pipeline.cluster.connection import places
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Runtime

T = TypeVar("T")
R = TypeVar("R")

ITEMS_A_WORKER = 3
"""How many items a worker has at most, unless a fleet says otherwise: all but one are being done,
and one waits, so that the worker never waits for this process."""

MOST_FAILURES = 3
"""After this many deaths of workers with one item, that item is at fault; after this many on one
node, of workers that were not ready yet, that node."""

LOOK_SECONDS = 5.0
"""How often the cluster is asked whether nodes came or went."""

READY_SECONDS = 900.0
"""How long to wait while no worker is ready."""

_REMEDY = (
    "Every node needs the same checkout and packages. Install them with `make setup` "
    "(docs/cluster.md)."
)


@dataclass(frozen=True)
class Work(Generic[T, R]):
    """What a worker does; it is made on the worker, where it loads what it needs.

    Attributes:
        do: does an item; several threads may call it at once.
        about: what the process that hands out the items has to know.
    """

    do: Callable[[T], R]
    about: Any = None


class Worker(Generic[T, R]):
    """The process on a node, a Ray actor. It returns errors that the user can correct as values."""

    def __init__(self, make: Callable[[int], Work[T, R]], cores: int) -> None:
        """Keep the function that makes the work for a number of cores; nothing is loaded yet."""
        self._make, self._cores = make, cores

    def begin(self) -> "PipelineError | Any":
        """Load what the work needs; return `Work.about`."""
        try:
            self._work = self._make(self._cores)
        except PipelineError as err:
            return err
        except OSError as err:
            return _failure_here(err)
        return self._work.about

    def work(self, item: T) -> "PipelineError | R":
        """Do an item."""
        try:
            return self._work.do(item)
        except PipelineError as err:
            return err
        except OSError as err:
            return _failure_here(err)


def _failure_here(err: OSError) -> PipelineError:
    return PipelineError(
        f"a worker of the Ray cluster, on {platform.node()}: {err}. Free that node's disk, or "
        "start Ray there with PIPELINE_CACHE set to a folder that can be written."
    )


@dataclass(eq=False)
class _Hired:
    """A worker as this process sees it.

    Attributes:
        node: the identity of its node.
        actor: Ray's handle.
        ready: whether it has loaded what it needs.
        items: how many items it has.
    """

    node: str
    actor: Any
    ready: bool = False
    items: int = 0


@dataclass
class _Task:
    """A call to a worker: an item with its number and failures; no number: the worker starts."""

    worker: _Hired
    number: int | None = None
    item: Any = None
    failures: int = 0


@dataclass
class Fleet(Generic[T, R]):
    """Workers on every node that has room for them; at the end of the context they are gone.

    Attributes:
        ray: the module ray, connected (see `connected`).
        runtime: says how many threads a worker has.
        make: makes the work on a worker, given its number of cores.
        gpu: whether each worker gets a GPU.
        items_a_worker: how many items a worker has at most, at least 2: one of them waits.
    """

    ray: Any
    runtime: Runtime
    make: Callable[[int], Work[T, R]]
    gpu: bool = False
    items_a_worker: int = ITEMS_A_WORKER
    _made: Any = None
    _workers: list[_Hired] = field(default_factory=list)
    _running: dict[Any, _Task] = field(default_factory=dict)
    _again: deque[_Task] = field(default_factory=deque)
    _failed_starts: Counter[str] = field(default_factory=Counter)
    _looked: float = -LOOK_SECONDS
    _alive: float = field(default_factory=time.monotonic)
    _about: Any = None

    def __enter__(self) -> "Fleet[T, R]":
        self._made = self.ray.put(self.make)  # once, also for workers that come later
        if not self._hire():
            need = "a GPU" if self.gpu else f"{max(self.runtime.threads, 1)} cores"
            raise PipelineError(
                f"runtime.executor: ray, but no node of the cluster has {need} for a worker. Add "
                "such a node, or change runtime.threads or runtime.device."
            )
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self.ray.kill(worker.actor)
        self._workers, self._running, self._made = [], {}, None

    def size(self) -> int:
        """Return how many workers there are, ready or not."""
        return len(self._workers)

    def about(self) -> Any:
        """Wait for the first worker; return its `Work.about`."""
        while not any(worker.ready for worker in self._workers):
            list(self._finished())
        return self._about

    def map(self, items: Iterable[T], span: int | None = None) -> Iterator[tuple[int, R]]:
        """Yield each item's number, from 0, and result as they are done.

        Items are taken as workers are free. The items of a worker that dies go to others.

        Args:
            items: the items.
            span: how many items to take at most, counted from the first that is not done. A caller
                that needs the results in order keeps no more than these. None: no limit.

        Raises:
            PipelineError: a worker refused an item, or several died with the same one.
        """
        source = enumerate(items)
        try:
            yield from self._map(source, span)
        finally:  # results that the caller did not wait for must not appear in a later call
            self._running = {c: one for c, one in self._running.items() if one.number is None}
            self._again.clear()
            for worker in self._workers:
                worker.items = 0

    def _map(self, source: Iterator[tuple[int, T]], span: int | None) -> Iterator[tuple[int, R]]:
        exhausted = False
        taken = 0
        while True:
            while worker := self._idle():
                if self._again:
                    task = self._again.popleft()
                    self._give(worker, task.number, task.item, task.failures)
                elif span is not None and taken - self._first(taken) >= span:
                    break
                elif (following := next(source, None)) is not None:
                    self._give(worker, *following, failures=0)
                    taken += 1
                else:
                    exhausted = True
                    break
            given = any(task.number is not None for task in self._running.values())
            if exhausted and not given and not self._again:
                return
            yield from self._finished()

    def _first(self, taken: int) -> int:
        """Return the number of the first item that is not done; `taken` if all those are."""
        numbers = (task.number for task in self._running.values() if task.number is not None)
        return min(numbers, default=taken)

    def _idle(self) -> _Hired | None:
        """Return the ready worker with the fewest items, None if all have enough."""
        ready = [one for one in self._workers if one.ready and one.items < self.items_a_worker]
        return min(ready, key=lambda one: one.items, default=None)

    def _give(self, worker: _Hired, number: int | None, item: Any, failures: int) -> None:
        worker.items += 1
        self._running[worker.actor.work.remote(item)] = _Task(worker, number, item, failures)

    def _finished(self) -> Iterator[tuple[int, R]]:
        """Wait for a call to end; yield the result of an item, and replace workers that died."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._hire()
        if not self._running:
            time.sleep(LOOK_SECONDS / 10)
            return
        calls = list(self._running)
        done, _ = self.ray.wait(calls, num_returns=1, timeout=LOOK_SECONDS)
        for call in done:
            task = self._running.pop(call, None)
            if task is None:  # its worker was already lost with another call
                continue
            try:
                value = self.ray.get(call)
            except self.ray.exceptions.RayTaskError:
                raise  # a bug: with the worker's traceback
            except self.ray.exceptions.RayError as err:
                self._lose(task, err)
                continue
            if isinstance(value, PipelineError):
                raise value
            if task.number is None:
                task.worker.ready, self._about = True, value
                del self._failed_starts[task.worker.node]
            else:
                task.worker.items -= 1
                yield task.number, value

    def _lose(self, task: _Task, err: Exception) -> None:
        """Drop a worker, and all of its node if that is gone; their items are given out next.

        Only a worker that dies alone counts as a failure: of its items or, if it was not ready, of
        its node. Until Ray knows that a node is gone, it calls the workers there unavailable.
        """
        node = task.worker.node
        gone = node not in {one["NodeID"] for one in self.ray.nodes() if one["Alive"]}
        alone = not gone and not isinstance(err, self.ray.exceptions.ActorUnavailableError)
        lost = [one for one in self._workers if one is task.worker or (gone and one.node == node)]
        held = [task, *(one for one in self._running.values() if one.worker in lost)]
        self._running = {c: one for c, one in self._running.items() if one.worker not in lost}
        self._workers = [one for one in self._workers if one not in lost]
        if any(one.ready for one in lost):
            self._alive = time.monotonic()
        for one in lost:
            self.ray.kill(one.actor)
        why = _cause(err)
        again = [one for one in held if one.number is not None]
        for failed in again:
            failed.failures += alone
        if max((one.failures for one in again), default=0) >= MOST_FAILURES:
            raise PipelineError(
                f"{MOST_FAILURES} workers of the Ray cluster died one after the other with the "
                f"same item (the last one: {why}). If they ran out of memory, use fewer workers "
                "per node (runtime.threads: more cores for each)."
            )
        if not task.worker.ready:
            self._failed_starts[node] += alone
        log.warning(
            "warning: a %s of the Ray cluster died; its %d items go to others (%s)",
            "node" if gone else "worker", len(again), why,
        )  # fmt: skip
        self._again.extendleft(reversed(again))
        if self._hire() and not self._workers:
            raise PipelineError(
                f"on every node of the Ray cluster {MOST_FAILURES} workers died before they were "
                f"ready (the last one: {why}). {_REMEDY}"
            )

    def _hire(self) -> bool:
        """Start workers wherever there is room: at the start, after a death, on a new node.

        Returns:
            Whether any living node has room for a worker, counting nodes where too many died.

        Raises:
            PipelineError: no worker was ready for `READY_SECONDS`.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._looked = time.monotonic()
        room = places(self.ray.nodes(), self.runtime, gpu=self.gpu)
        for node, workers in room.items():
            if self._failed_starts[node] >= MOST_FAILURES:
                continue
            there = sum(worker.node == node for worker in self._workers)
            for size in workers[there:]:
                options: dict[str, Any] = {"num_gpus" if self.gpu else "num_cpus": size}
                actor = (
                    self.ray.remote(Worker)
                    .options(
                        **{"num_cpus": 0, **options},
                        max_concurrency=self.items_a_worker - 1,
                        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                    )
                    .remote(self._made, 1 if self.gpu else int(size))
                )
                hired = _Hired(node, actor)
                self._workers.append(hired)
                self._running[actor.begin.remote()] = _Task(hired)
        now = time.monotonic()
        if any(worker.ready for worker in self._workers):
            self._alive = now
        if now - self._alive > READY_SECONDS:
            raise PipelineError(
                f"none of {len(self._workers)} workers of the Ray cluster was ready within "
                f"{READY_SECONDS / 60:.0f} minutes: other jobs may use its cores or GPUs, its "
                "nodes may be gone (see `ray status`), or a model takes long to download or "
                "convert. Correct that, or run the stage again later."
            )
        return bool(room)


def _cause(err: Exception) -> str:
    """Return the first and the last line of Ray's message about a death: what, and why."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return ": ".join(dict.fromkeys((lines[0], lines[-1])))[:500] if lines else repr(err)
