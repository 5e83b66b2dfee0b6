"""How similar the vectors of two texts are, pair by pair."""

from collections.abc import Iterator

import numpy as np

from pipeline.core.arrays import Floats, Ints, Matrix
from pipeline.core.params import Similarity
from pipeline.runs.ranking import Ranked, rank_pairs
from pipeline.vectors.shards import Take, take_any

BATCH_BYTES = 256_000_000
"""The most bytes of the pairs that are compared at once, unless one query alone has more."""

COMPONENT_BYTES = 20
"""Bytes of a component of a pair: the vectors as read, as they are compared, and pair by pair."""


def score_pairs(queries: Matrix, products: Matrix, similarity: Similarity) -> Floats:
    """Return the similarity of query row i and product row i, higher is better, float64 [rows].

    A score depends on its two vectors alone: see `squared_lengths`.
    """
    if similarity == "l2":
        return l2_scores(queries, products)
    return np.asarray(np.multiply(queries, products, dtype=np.float64, order="C").sum(axis=1))


def l2_scores(queries: Matrix, products: Matrix) -> Floats:
    """Return minus the squared distance of query i and product i, float64 [rows].

    Args:
        queries: float32 [rows, dimension], or one query as [dimension].
        products: float32 [rows, dimension].
    """
    differences = np.subtract(queries, products, dtype=np.float64, order="C")
    return np.asarray(-np.square(differences, out=differences).sum(axis=1))


def rank_judged(
    query_rows: Ints,
    product_rows: Ints,
    queries_of: Take,
    products_of: Take,
    similarity: Similarity,
    dimension: int,
) -> Iterator[Ranked]:
    """Rank judged pairs by their similarities, some queries at a time.

    Args:
        query_rows: [pairs], ascending.
        product_rows: [pairs].
        queries_of: returns vectors of queries, in the form that is compared (`to_index_form`).
        products_of: returns vectors of products, likewise.
        similarity: how both are compared.
        dimension: of the vectors.

    Yields:
        The pairs of some queries, all of each, in the order of `rank_pairs`.
    """
    most = max(1, BATCH_BYTES // (COMPONENT_BYTES * dimension))
    start = 0
    while start < len(query_rows):
        last = query_rows[min(start + most, len(query_rows)) - 1]
        piece = slice(start, int(np.searchsorted(query_rows, last, "right")))
        rows, codes = query_rows[piece], product_rows[piece]
        scores = score_pairs(take_any(rows, queries_of), take_any(codes, products_of), similarity)
        yield rank_pairs(rows, codes, scores)
        start = piece.stop
