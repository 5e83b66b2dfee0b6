"""BM25's ranges on a Ray cluster: workers search them; this process counts terms and merges.

Scores are sums, products and quotients in float64, which every CPU rounds alike. The logarithms
come from this process.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from pipeline.bm25.postings import Postings
from pipeline.bm25.ranges import Part, Range, Task
from pipeline.cluster.connection import connected
from pipeline.cluster.fingerprint import check_fingerprint, fingerprint
from pipeline.cluster.fleet import Fleet, Work
from pipeline.core.params import Runtime

Search = Callable[[Sequence[Range], range], Iterator[Part]]
"""Searches ranges for the queries of some rows."""

_PACKAGES = ("numpy", "scipy")


@dataclass(frozen=True)
class Item:
    """A range without its terms, which all have, and the rows of the queries."""

    start: int
    arrays: tuple[NDArray[Any], ...]
    rows: range


@contextmanager
def connection(runtime: Runtime) -> Iterator[Any]:
    """Yield the module ray, connected; None where this machine searches alone.

    Raises:
        PipelineError: as `connected`.
    """
    if not runtime.is_on_cluster():
        yield None
        return
    with connected(runtime) as ray:
        yield ray


@contextmanager
def searcher(ray: Any, runtime: Runtime, task: Task) -> Iterator[Search]:
    """Yield what searches ranges: here, or on the cluster of a `connection`.

    Raises:
        PipelineError: as `Fleet`, or a worker would compute other scores.
    """
    if ray is None:
        yield partial(task.search_all, threads=runtime.thread_count())
        return
    begin = partial(_begin, task, fingerprint(_PACKAGES, on_cpu=False))
    with Fleet[Item, list[Part]](ray, runtime, begin, items_a_worker=2) as fleet:

        def search(ranges: Sequence[Range], rows: range) -> Iterator[Part]:
            for _, parts in fleet.map(_item(one, rows) for one in ranges):
                yield from parts

        yield search


def _item(one: Range, rows: range) -> Item:
    found = one.postings
    return Item(one.start, (found.starts, found.products, found.times, found.lengths), rows)


def _begin(task: Task, kind: dict[str, str], cores: int) -> Work[Item, list[Part]]:
    """Return what searches a range on a worker.

    Raises:
        PipelineError: the worker would compute other scores.
    """
    check_fingerprint(kind)

    def search(item: Item) -> list[Part]:
        searched = Range(item.start, Postings(task.vocabulary, *item.arrays))
        return list(task.search(searched, item.rows, cores))

    return Work(search)
