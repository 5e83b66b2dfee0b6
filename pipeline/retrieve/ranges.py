"""Search a flat or sq8 index by ranges of products on a Ray cluster, with the bytes of one machine.

Workers get the queries once, then ranges of codes. Each finds the best products of its range; here
the best of all are kept. They stand in for the first search of `neighbours.search`, which orders
them and searches the whole index again for the few queries whose last place is open.

FAISS's inner products are in float32, and their last bits depend on the matrices: on that of
queries and, where its BLAS has only AVX2, on the number of vectors and of threads. So a range
begins where a block does, its queries are searched in the calls of one machine, and each worker
has as many threads as this machine uses. All other scores are of two vectors alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster.connection import connected
from pipeline.cluster.fingerprint import check_fingerprint, fingerprint
from pipeline.cluster.fleet import Fleet, Work
from pipeline.core.arrays import Floats, Ints, Matrix, blocks
from pipeline.core.faiss import faiss
from pipeline.core.log import log
from pipeline.core.params import Params, Runtime
from pipeline.retrieve import decoded, neighbours
from pipeline.retrieve.neighbours import Found
from pipeline.retrieve.rescored import Rescored
from pipeline.runs import ranking

ALIGNED_ROWS = 4_096
"""Where ranges begin, in products: FAISS multiplies 1,024 at once, `decoded` 2,048, `exact_l2` this
many."""

RANGE_BYTES = 256_000_000
"""About the most bytes of a range: 166,000 float32 vectors of 384 components. To keep the best
1,100 of a range, FAISS takes as long as to multiply another 38,000 vectors."""

GROUP_BYTES = 256_000_000
"""The most bytes of the best products of the queries for which all ranges are sent once: 12,288 at
a depth of 1,000. One call's queries are searched at least; theirs are 341 MB at most."""

BEST_BYTES = 16
"""Bytes of one of them: a score and a code."""

_PACKAGES = ("faiss-cpu", "numpy")


@dataclass(frozen=True)
class Job:
    """What a worker gets first.

    Attributes:
        index: the index without its codes, as FAISS writes it.
        queries: all, float32 [queries, dimension].
        threads: this machine's. Where FAISS has no AVX-512, their number decides last bits.
        kind: what else the scores depend on.
    """

    index: NDArray[np.uint8]
    queries: Matrix
    threads: int
    kind: dict[str, str]


@dataclass(frozen=True)
class Range:
    """What a worker gets then.

    Attributes:
        start: the row of the first product.
        codes: uint8 [products, bytes of a product].
        calls: which queries are searched, in each call of FAISS; one call after the other.
        asked: how many products of each are kept of all ranges.
        least: scores from which on others are known to be as good, [queries of all calls].
    """

    start: int
    codes: NDArray[np.uint8]
    calls: list[slice]
    asked: int
    least: Floats


@dataclass(frozen=True)
class Part:
    """What a range has that is better than `Range.least`.

    Attributes:
        counts: how many products each query has here, [queries].
        scores: of these, one query after the other.
        codes: of these.
        beyond: the best score that a product has here which was not found, [queries].
    """

    counts: Ints
    scores: NDArray[np.floating[Any]]
    codes: Ints
    beyond: Floats


class Best:
    """The best products of all ranges so far; of equal scores at the last place, any."""

    def __init__(self, queries: int, asked: int) -> None:
        """Begin without products."""
        self.scores = np.full((queries, asked), -np.inf)
        self.codes = np.full((queries, asked), ranking.NO_PRODUCT)
        self.least, self._beyond = np.full((2, queries), -np.inf)

    def add(self, part: Part) -> None:
        """Take what is better."""
        ends, asked = np.cumsum(part.counts), self.scores.shape[1]
        for rows in blocks(np.flatnonzero(part.counts), neighbours.RANKED_QUERIES):
            counts = part.counts[rows]
            own = slice(ends[rows[0]] - counts[0], ends[rows[-1]])
            filled = np.arange(counts.max()) < counts[:, np.newaxis]
            scores = np.full(filled.shape, -np.inf)
            codes = np.full(filled.shape, ranking.NO_PRODUCT)
            scores[filled], codes[filled] = part.scores[own], part.codes[own]
            scores = np.concatenate([self.scores[rows], scores], axis=1)
            codes = np.concatenate([self.codes[rows], codes], axis=1)
            best = np.argpartition(scores, -asked, axis=1)[:, -asked:]
            self.scores[rows] = np.take_along_axis(scores, best, axis=1)
            self.codes[rows] = np.take_along_axis(codes, best, axis=1)
            self.least[rows] = self.scores[rows].min(axis=1)
        np.maximum(self._beyond, part.beyond, out=self._beyond)

    def found(self, rows: slice) -> Found:
        """Return what a search of the whole index may return for these queries."""
        beyond = np.maximum(self.least[rows], self._beyond[rows])
        return self.scores[rows], self.codes[rows], beyond


@contextmanager
def first_searches(
    params: Params, locale: str, index: Any, queries: Matrix
) -> Iterator[Iterator[Found] | None]:
    """Yield what a cluster finds, one of `neighbours.first_calls` after the other.

    None where the whole search is this machine's.

    Args:
        params: say where the index is searched, and how many products per query.
        locale: whose index it is.
        index: of FAISS, or `Rescored`.
        queries: as `to_index_form` returns them, [queries, dimension].

    Raises:
        PipelineError: as `connected` and `Fleet`, or a worker would compute other scores.
    """
    if not params.is_searched_by_ranges(locale, index.ntotal * queries.size):
        if params.runtime.executor == "ray":
            log.info(
                "retrieve locale=%s: its %s index is searched on this machine. A Ray cluster with "
                "a runtime.ray_address searches flat and sq8, if that takes more than about 10 s.",
                locale, params.index_of(locale).kind,
            )  # fmt: skip
        yield None
        return
    with (
        connected(params.runtime) as ray,
        fleet_for(ray, params.runtime, index, queries) as fleet,
    ):
        yield search(fleet, index, len(queries), params.retrieve.depth)


def fleet_for(ray: Any, runtime: Runtime, index: Any, queries: Matrix) -> Fleet[Range, Part]:
    """Return workers that search an index for queries; the module ray is connected."""
    empty = faiss.serialize_index(decoded.empty(_coded(index)))
    job = Job(empty, queries, runtime.thread_count(), fingerprint(_PACKAGES))
    begin = partial(_begin, job)
    return Fleet(ray, runtime, begin, items_a_worker=2)


def search(fleet: Fleet[Range, Part], index: Any, queries: int, depth: int) -> Iterator[Found]:
    """Yield what the workers of `fleet_for` find in each of `neighbours.first_calls`."""
    asked = neighbours.first_asked(index, depth)
    calls = [slice(rows[0], rows[-1] + 1) for rows in neighbours.first_calls(index, queries, depth)]
    index = _coded(index)
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    codes = codes.reshape(index.ntotal, index.code_size)
    together = max(1, GROUP_BYTES // (BEST_BYTES * asked * calls[0].stop))
    for at in range(0, len(calls), together):
        group = calls[at : at + together]
        first = group[0].start
        best = Best(group[-1].stop - first, asked)
        items = (
            Range(part.start, codes[part], group, asked, best.least)
            for part in cut(index.ntotal, index.code_size, fleet.size())
        )
        for _, found in fleet.map(items):
            best.add(found)
        for rows in group:
            yield best.found(slice(rows.start - first, rows.stop - first))
        del best  # before there are others


def _coded(index: Any) -> Any:
    return index.index if isinstance(index, Rescored) else index


def cut(products: int, size: int, workers: int) -> Iterator[slice]:
    """Yield ranges of products of `size` bytes each, as many for each worker where they suffice.

    Two for each worker at least: a worker that is ready first takes two. There may be no worker for
    a while, after all died.
    """
    workers = max(1, workers)
    rounds = max(2, -(-products * size // (RANGE_BYTES * workers)))
    step = -(-products // (rounds * workers * ALIGNED_ROWS)) * ALIGNED_ROWS
    for start in range(0, products, step):
        yield slice(start, min(start + step, products))


def _begin(job: Job, _cores: int) -> Work[Range, Part]:
    """Return what searches a range on a worker.

    Raises:
        PipelineError: the worker would compute other scores.
    """
    check_fingerprint(job.kind)
    index: Any = faiss.deserialize_index(job.index)

    def search(item: Range) -> Part:
        faiss.omp_set_num_threads(job.threads)
        index.reset()
        index.add_sa_codes(item.codes)
        return search_range(index, job.queries, item)

    return Work(search)


def search_range(index: Any, queries: Matrix, item: Range) -> Part:
    """Search the codes of a range, which the index holds, for some of all queries."""
    find, asked = neighbours.finder(index), min(item.asked, index.ntotal)
    counts, beyond = np.zeros(len(item.least), np.int64), np.full(len(item.least), -np.inf)
    scores, codes = [], []
    for call in item.calls:
        rows = slice(call.start - item.calls[0].start, call.stop - item.calls[0].start)
        raw, found, others = find(queries[call], asked)
        better = (found != ranking.NO_PRODUCT) & (raw > item.least[rows, np.newaxis])
        counts[rows] = better.sum(axis=1)
        scores.append(raw[better])
        codes.append(found[better] + item.start)
        if asked < index.ntotal:
            beyond[rows] = others
    return Part(counts, np.concatenate(scores), np.concatenate(codes), beyond)
