"""What FAISS's fast scan leaves out: the products with the least inner product, and where all tie.

It stretches a query's table of distances over 8 bits, from the least sum of a row of each to the
greatest. FAISS 1.15 never returns a product whose inner product is the least sum. Where all entries
are equal, as for a query that is zero, there is nothing to stretch: it then finds nothing, or
scores that are not numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.faiss import faiss


def fill(index: Any, queries: Matrix, scores: NDArray[np.float32], rows: Ints) -> None:
    """Give the places without a product those that were left out, the last ones first, in place.

    Args:
        index: searched by fast scan.
        queries: float32 [queries, dimension].
        scores: distances or inner products as FAISS gives them, [queries, asked].
        rows: of the products, [queries, asked], asked is at most all.
    """
    rows[~np.isfinite(scores).all(axis=1)] = -1
    for at in np.flatnonzero((rows < 0).any(axis=1)):
        places = np.flatnonzero(rows[at] < 0)
        left_out = np.setdiff1d(np.arange(index.ntotal), rows[at])
        rows[at, places] = left_out[::-1][: len(places)]
        scores[at, places] = _least(index, queries[at])


def _least(index: Any, query: Matrix) -> np.float32:
    """Return the score that fast scan counts from: of each table of a query, the least entry."""
    codebooks = faiss.vector_to_array(index.pq.centroids)
    codebooks = codebooks.reshape(index.pq.M, index.pq.ksub, index.pq.dsub)
    parts = query.reshape(index.pq.M, 1, index.pq.dsub)
    distances = index.metric_type == faiss.METRIC_L2
    table = np.square(parts - codebooks) if distances else parts * codebooks
    return np.float32(table.sum(axis=2).min(axis=1).sum())
