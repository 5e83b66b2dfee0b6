"""Nearest products of one vector by the built index, among all products or some of them."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.faiss import faiss
from pipeline.index.kinds import codes_of
from pipeline.retrieve import fast_scan, neighbours
from pipeline.retrieve.rescored import Rescored
from pipeline.search.parts import InParts

Allowed = NDArray[np.bool_]
"""Which products may be found, bool [products]."""

Nearest = tuple[NDArray[np.float64], Ints]
"""Scores and product codes in the order of `ranking`, both [products found]."""


class Restricted:
    """An index of which only some vectors are searched; `neighbours.search` takes it for one.

    All of these are compared, with any kind of index: all inverted lists are searched, and of a
    graph the vectors are. So a filter never loses a product. RaBitQ of several bits may pass over
    one by its first bit, with a filter as without.
    """

    def __init__(self, index: faiss.Index, allowed: Allowed) -> None:
        """Restrict `index` to the rows where `allowed` is true."""
        untyped: Any = faiss  # its types lack the arguments that Python may name
        selector = untyped.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        searched: Any = faiss.downcast_index(index)
        if isinstance(searched, faiss.IndexPreTransform):
            searched = faiss.downcast_index(searched.index)
        parameters = untyped.SearchParameters(sel=selector)
        if isinstance(searched, faiss.IndexHNSW):
            searched = faiss.downcast_index(searched.storage)
        elif isinstance(searched, faiss.IndexIVF):
            parameters = untyped.SearchParametersIVF(sel=selector, nprobe=searched.nlist)
        self._index, self._parameters, self._kept = searched, parameters, selector
        self._whole, self._allowed = index, allowed
        self.ntotal = int(np.count_nonzero(allowed))
        self.metric_type = index.metric_type

    def search(self, queries: Matrix, asked: int) -> tuple[NDArray[np.float32], Ints]:
        """Search as a FAISS index does."""
        if isinstance(self._index, faiss.IndexFastScan):
            return self._scan(queries, asked)
        _, queries = codes_of(self._whole, queries)
        scores, codes = self._index.search(queries, asked, params=self._parameters)
        if fast_scan.is_scanned(self._index):
            among = np.flatnonzero(self._allowed)
            fast_scan.fill(self._index, queries, scores, codes, among)
        return scores, codes

    def _scan(self, queries: Matrix, asked: int) -> tuple[NDArray[np.float32], Ints]:
        """Search by fast scan, which knows no selectors: until enough of those found may be."""
        scanned = asked
        while True:
            scanned = min(2 * scanned, self._index.ntotal)
            scores, codes = self._index.search(queries, scanned)
            fast_scan.fill(self._index, queries, scores, codes)
            inside = self._allowed[codes]
            if scanned == self._index.ntotal or (inside.sum(axis=1) >= asked).all():
                break
        order = np.argsort(~inside, axis=1, kind="stable")[:, :asked]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(codes, order, axis=1)


def nearest(
    index: faiss.Index | InParts | Rescored,
    query: Matrix,
    depth: int,
    allowed: Allowed | None = None,
) -> Nearest:
    """Return the first `depth` products of one query, fewer where there are not as many.

    Args:
        index: the products', its parts, or either with the vectors that order what it finds.
        query: as `to_index_form` returns it, [1, dimension].
        depth: how many products at most.
        allowed: which ones may be found, at least one; all where it is None.
    """
    searched: Any = index
    plain = index.index if isinstance(index, Rescored) else index
    whole: Any = plain.whole if isinstance(plain, InParts) else plain
    flat_l2 = isinstance(whole, faiss.IndexFlat) and whole.metric_type == faiss.METRIC_L2
    if allowed is None or (flat_l2 and allowed.all()):
        scores, codes = neighbours.search(searched, query, depth)
    elif flat_l2:
        # `neighbours` computes exact distances from the vectors of a flat index.
        rows = np.flatnonzero(allowed)
        vectors = faiss.rev_swig_ptr(whole.get_xb(), whole.ntotal * whole.d).reshape(-1, whole.d)
        part = faiss.IndexFlat(whole.d, faiss.METRIC_L2)
        part.add(vectors[rows])
        scores, places = neighbours.search(part, query, depth)
        codes = rows[places]
    else:
        searched = Restricted(whole, allowed)
        if isinstance(index, Rescored):
            searched = replace(index, index=searched)
        scores, codes = neighbours.search(searched, query, depth)
    found = codes[0] >= 0
    return scores[0][found], codes[0][found]
