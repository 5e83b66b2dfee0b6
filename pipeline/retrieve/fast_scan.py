"""What FAISS's fast scan leaves out: queries for which all products tie.

It stretches a query's table of distances over 8 bits. Where all of them are equal, as for a query
that is zero, there is nothing to stretch: FAISS 1.15 then finds nothing, or scores that are not
numbers.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix


def fill(index: Any, queries: Matrix, scores: NDArray[np.float32], rows: Ints) -> None:
    """Give the queries without results the last products, all with the score they have, in place.

    Args:
        index: searched by fast scan.
        queries: float32 [queries, dimension].
        scores: distances or inner products as FAISS gives them, [queries, asked].
        rows: of the products, [queries, asked], asked is at most all.
    """
    empty = np.flatnonzero((rows < 0).any(axis=1) | ~np.isfinite(scores).all(axis=1))
    if not len(empty):
        return
    product = index.reconstruct(0)
    for at in empty:
        if index.metric_type == faiss.METRIC_L2:
            scores[at] = np.square(queries[at] - product).sum()
        else:
            scores[at] = queries[at] @ product
        rows[at] = np.arange(index.ntotal)[::-1][: rows.shape[1]]
