"""BM25 on a Ray cluster: workers count the terms of texts, and search ranges of products.

Only this process reads the clean tables. Workers get texts and send terms back; then they get
ranges and send back what these have. Scores are sums, products and quotients in float64, which
every CPU rounds alike; the logarithms come from this process.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from pipeline.bm25.analysers import Analyser, analyser_for
from pipeline.bm25.counting import Counted, Counter
from pipeline.bm25.kept import LIBRARIES
from pipeline.bm25.postings import Postings
from pipeline.bm25.ranges import Part, Range, Searcher, Task
from pipeline.cluster.fingerprint import check_fingerprint, fingerprint
from pipeline.cluster.fleet import Fleet, Work
from pipeline.core.params import Runtime

PIECES_OUT = 1_024
"""How many pieces are with workers or wait for an earlier one, 4 MB each at most."""

_COUNTING, _SEARCHING = ("numpy", *LIBRARIES), ("numpy", "scipy")


@dataclass(frozen=True)
class Item:
    """A range to be searched for the queries of some rows; without its terms: all have the same."""

    start: int
    arrays: tuple[NDArray[Any], ...]
    rows: range


def count(
    ray: Any, runtime: Runtime, analyser: Analyser, texts: Iterable[pa.RecordBatch]
) -> Iterator[Counted]:
    """Yield the counted terms of texts, in their order, from one worker per core of a cluster.

    Raises:
        PipelineError: as `Fleet`, or a worker would make other terms.
    """
    single = runtime.model_copy(update={"threads": 1, "device": "cpu"})
    begin = partial(_counting, analyser.language, fingerprint(_COUNTING, on_cpu=False))
    early: dict[int, pa.RecordBatch] = {}
    following = 0
    with Fleet[pa.RecordBatch, pa.RecordBatch](ray, single, begin) as fleet:
        for number, counted in fleet.map(texts, PIECES_OUT):
            early[number] = counted
            while following in early:
                yield Counted.of_batch(early.pop(following))
                following += 1


def _counting(
    language: str, kind: dict[str, str], _cores: int
) -> Work[pa.RecordBatch, pa.RecordBatch]:
    check_fingerprint(kind)
    counter, alone = Counter(analyser_for(language)), Lock()

    def count(texts: pa.RecordBatch) -> pa.RecordBatch:
        with alone:  # the libraries are not made for several threads
            return counter.count(texts["text"]).batch()

    return Work(count)


@contextmanager
def search_on_cluster(ray: Any, runtime: Runtime, task: Task) -> Iterator[Searcher]:
    """Yield what searches ranges on a cluster, each worker on `runtime.threads` cores.

    Raises:
        PipelineError: as `Fleet`, or a worker would compute other scores.
    """
    begin = partial(_searching, task, fingerprint(_SEARCHING, on_cpu=False))
    cores = runtime.model_copy(update={"device": "cpu"})
    with Fleet[Item, list[Part]](ray, cores, begin) as fleet:

        def search(ranges: Sequence[Range], rows: range) -> Iterator[Part]:
            for _, parts in fleet.map(_item(one, rows) for one in ranges):
                yield from parts

        yield search


def _item(one: Range, rows: range) -> Item:
    found = one.postings
    return Item(one.start, (found.starts, found.products, found.times, found.lengths), rows)


def _searching(task: Task, kind: dict[str, str], cores: int) -> Work[Item, list[Part]]:
    check_fingerprint(kind)

    def search(item: Item) -> list[Part]:
        searched = Range(item.start, Postings(task.vocabulary, *item.arrays))
        return list(task.search(searched, item.rows, cores))

    return Work(search)
