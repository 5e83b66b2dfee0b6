"""What FAISS's fast scan leaves out: the products with the worst score, and where all tie.

It stretches a query's table of distances over 8 bits, from the least sum of a row of each to the
greatest. FAISS 1.15 never returns a product whose inner product is the least sum, nor one at the
greatest distance where its sum fills 16 bits, which takes 257 subvectors. Where all entries are
equal, as for a query that is zero, there is nothing to stretch: it then finds nothing, or scores
that are not numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.faiss import faiss


def is_scanned(index: Any) -> bool:
    """Say whether FAISS searches an index by fast scan."""
    return isinstance(index, faiss.IndexFastScan | faiss.IndexIVFFastScan)


def fill(
    index: Any,
    queries: Matrix,
    scores: NDArray[np.float32],
    rows: Ints,
    among: Ints | None = None,
) -> None:
    """Give the places without a product those that were left out, the last ones first, in place.

    Where only some inverted lists were searched, products are missing for that reason too: then
    only a query to which all codes are equal gets any.

    Args:
        index: searched by fast scan.
        queries: float32 [queries, dimension].
        scores: distances or inner products as FAISS gives them, [queries, asked].
        rows: of the products, [queries, asked], asked is at most all.
        among: the products that may be found, ascending, and all lists were searched for them. If
            it is left out: all products, and as many lists as the index says.
    """
    rows[~np.isfinite(scores).all(axis=1)] = -1
    missing = rows < 0
    partly = among is None and isinstance(index, faiss.IndexIVF) and index.nprobe < index.nlist
    for at in np.flatnonzero(missing.all(axis=1) if partly else missing.any(axis=1)):
        table = _table(index, queries[at])
        if partly and (table != table[:, :1]).any():
            continue
        left_out = np.setdiff1d(np.arange(index.ntotal) if among is None else among, rows[at])[::-1]
        places = np.flatnonzero(missing[at])[: len(left_out)]
        rows[at, places] = left_out[: len(places)]
        worst = table.max(axis=1) if _by_distance(index) else table.min(axis=1)
        scores[at, places] = np.float32(worst.sum())


def _by_distance(index: Any) -> bool:
    """Say whether the least score is the best."""
    return bool(index.metric_type == faiss.METRIC_L2)


def _table(index: Any, query: Matrix) -> Matrix:
    """Return what each code adds to a query's score, float32 [subvectors, codes]."""
    codebooks = faiss.vector_to_array(index.pq.centroids)
    codebooks = codebooks.reshape(index.pq.M, index.pq.ksub, index.pq.dsub)
    parts = query.reshape(index.pq.M, 1, index.pq.dsub)
    table = np.square(parts - codebooks) if _by_distance(index) else parts * codebooks
    return np.asarray(table.sum(axis=2))
