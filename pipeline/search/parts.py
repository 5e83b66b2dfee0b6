"""One query on all cores: FAISS searches an index of codes for a single query with one thread."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.faiss import faiss
from pipeline.index.kinds import codes_of
from pipeline.retrieve import fast_scan

Found = tuple[NDArray[np.float32], Ints]

_RABITQ = getattr(faiss, "IndexRaBitQ", ())

LEAST_ROWS = 16_384
"""Fewer vectors take less time than the threads to begin."""


class InParts:
    """A mapped index whose parts are searched at once; `neighbours.search` takes it for one.

    Each vector's score is that of the whole index: FAISS computes it from the vector alone.
    """

    def __init__(self, index: faiss.Index, codes: faiss.Index, threads: int) -> None:
        """Divide the rows of `codes`, those of `index`, by the threads; no code is copied."""
        self.whole = index
        self.ntotal, self.metric_type = index.ntotal, index.metric_type
        self._starts = np.linspace(0, index.ntotal, threads + 1).astype(int)
        self._parts = [
            _view(codes, int(start), int(stop))
            for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True)
        ]
        # FAISS's own threads would be as many in each of these.
        one = partial(faiss.omp_set_num_threads, 1)
        self._pool = ThreadPoolExecutor(threads, "index", initializer=one)

    def search(self, queries: Matrix, asked: int) -> Found:
        """Search as a FAISS index does; which of equal scores come last may differ."""
        _, queries = codes_of(self.whole, queries)

        def search(part: faiss.Index) -> Found:
            found: Found = part.search(queries, min(asked, part.ntotal))
            return found

        scores, codes = zip(*self._pool.map(search, self._parts), strict=True)
        every = np.concatenate(scores, axis=1)
        rows = np.concatenate(
            [part + start for part, start in zip(codes, self._starts[:-1], strict=True)], axis=1
        )
        nearer = every if self.metric_type == faiss.METRIC_L2 else -every
        order = np.argsort(nearer, axis=1, kind="stable")[:, :asked]
        return np.take_along_axis(every, order, axis=1), np.take_along_axis(rows, order, axis=1)


def on_threads(index: faiss.Index, threads: int) -> faiss.Index | InParts:
    """Return what searches `index` for one query with several threads, where that helps.

    An inverted file shares the lists of a query out by itself, once it is told to; one of fast scan
    does not. A graph needs few comparisons. `neighbours` compares the vectors of a flat index with
    l2 by itself. RaBitQ of several bits passes over vectors by the worst score of those found so
    far, so its parts would find others than the whole.
    """
    searched: Any = faiss.downcast_index(index)
    if isinstance(searched, faiss.IndexIVF) and not fast_scan.is_scanned(searched):
        searched.parallel_mode = 1
    if isinstance(searched, faiss.IndexPreTransform):
        searched = faiss.downcast_index(searched.index)
    one_by_one = (
        isinstance(searched, faiss.IndexScalarQuantizer)
        or (isinstance(searched, _RABITQ) and searched.rabitq.nb_bits == 1)
        or (isinstance(searched, faiss.IndexFlat) and searched.metric_type != faiss.METRIC_L2)
    )
    if not one_by_one or threads == 1 or searched.ntotal < LEAST_ROWS or searched.codes.is_owned:
        return index
    return InParts(index, searched, threads)


def _view(index: Any, start: int, stop: int) -> faiss.Index:
    """Return the rows from `start` to `stop` of a mapped index."""
    size = index.code_size
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * size)
    part: Any = faiss.clone_index(index)
    mapped = faiss.swig_ptr(codes[start * size : stop * size])
    part.codes = type(index.codes).create_view(mapped, (stop - start) * size, index.codes.owner)
    part.ntotal = stop - start
    return part  # type: ignore[no-any-return]
