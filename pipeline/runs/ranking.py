"""The order of a ranking: one total order, so that the order of the input never decides.

Products are rows of a table sorted by product_id, and a product's code is its row. Python and
Arrow compare strings by code point, which is the order of their UTF-8 bytes, which is what
trec_eval's strcmp compares: code order is trec_eval's id order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError

SCORE_DECIMALS = 6
"""Scores are rounded before they are compared: batch size and hardware change their last bits."""

NO_PRODUCT = -1
"""The code of a place without a result, as FAISS gives it."""


def rank_matrix(
    scores: NDArray[np.floating[Any]], codes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Order each row by rounded score descending, then code descending (trec_eval's order).

    Args:
        scores: [queries, k], higher is better; ignored where there is no product.
        codes: [queries, k], product codes or `NO_PRODUCT`.

    Returns:
        The rounded scores and the codes in that order, both [queries, k]. Places without a product
        come last, with the score -inf.

    Raises:
        PipelineError: a product's score is not a finite number.
    """
    missing = codes == NO_PRODUCT
    rounded = _round(np.where(missing, 0, scores))
    rounded[missing] = -np.inf
    order = np.lexsort((-codes, -rounded), axis=-1)
    return np.take_along_axis(rounded, order, axis=-1), np.take_along_axis(codes, order, axis=-1)


def rank_pairs(
    query_rows: NDArray[np.int64], codes: NDArray[np.int64], scores: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Order (query, product, score) triples by query, then as `rank_matrix` does.

    Args:
        query_rows: [n], in any order; queries may have any number of products.
        codes: [n], product codes.
        scores: [n], higher is better.

    Returns:
        The three columns in that order, the scores rounded.

    Raises:
        PipelineError: a score is not a finite number.
    """
    rounded = _round(scores)
    order = np.lexsort((-codes, -rounded, query_rows))
    return query_rows[order], codes[order], rounded[order]


def places(query_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, 2, … within each query; `query_rows`, [n], ascends."""
    bounds = np.flatnonzero(np.diff(query_rows, prepend=-1, append=-1))
    return np.arange(len(query_rows)) - np.repeat(bounds[:-1], np.diff(bounds))


def _round(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    if not np.isfinite(scores).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(scores))[0])
        raise PipelineError(
            f"the score at {list(at)} of {list(scores.shape)} must be a finite number (found "
            f"{scores[at]}): the vectors or the index are damaged. Run the stages embed and index "
            "again."
        )
    # Adding 0.0 turns -0.0 into 0.0: equal scores are equal bytes.
    exact = np.asarray(scores, dtype=np.float64)
    return np.add(np.round(exact, SCORE_DECIMALS), 0.0, dtype=np.float64)


Ranked = tuple[Ints, Ints, NDArray[np.float64]]
"""Rows of the clean queries (ascending), of the clean products, and scores, in ranked order."""
