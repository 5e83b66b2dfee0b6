"""The order of a ranking: one total order, so that the order of the input never decides.

Products are rows of a table sorted by product_id, and a product's code is its row. Python and
Arrow compare strings by code point, which is the order of their UTF-8 bytes, which is what
trec_eval's strcmp compares: code order is trec_eval's id order.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Ints
from pipeline.core.errors import PipelineError

SCORE_DECIMALS = 6
"""Scores are rounded before they are compared: batch size and hardware change their last bits."""

NO_PRODUCT = -1
"""The code of a place without a result, as FAISS gives it."""


def rank_matrix(scores: NDArray[np.floating[Any]], codes: Ints) -> tuple[Floats, Ints]:
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
    query_rows: Ints, codes: Ints, scores: NDArray[np.floating[Any]]
) -> tuple[Ints, Ints, Floats]:
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
    order = order_pairs(query_rows, codes, rounded)
    return query_rows[order], codes[order], rounded[order]


def order_pairs(query_rows: Ints, codes: Ints, scores: Floats) -> Ints:
    """Return the places of triples, [n] each, in the order of `rank_pairs`; nothing is rounded.

    `np.lexsort((-codes, -scores, query_rows))` takes about four times as long. Here the scores
    alone are sorted without regard to ties, the rows as 16 bits where they fit, which NumPy sorts
    by radix; ties, mostly few, are put in order last.
    """
    rows = query_rows - (query_rows.min() if len(query_rows) else 0)
    order = np.argsort(-scores)
    rows = rows.astype(np.min_scalar_type(rows.max(initial=0)))[order]
    order = order[np.argsort(rows, kind="stable")]
    rows, scores = query_rows[order], scores[order]
    tied = (rows[1:] == rows[:-1]) & (scores[1:] == scores[:-1])
    in_ties = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
    groups = np.cumsum(np.append(True, ~tied))[in_ties]
    ties = order[in_ties]
    order[in_ties] = ties[np.lexsort((-codes[ties], groups))]
    return order


def places(groups: Ints) -> Ints:
    """Return 0, 1, 2, … within each group, such as a query; `groups`, [n], ascends from 0 on."""
    bounds = np.flatnonzero(np.diff(groups, prepend=-1, append=-1))
    return np.arange(len(groups)) - np.repeat(bounds[:-1], np.diff(bounds))


def look_up(starts: Ints, codes: Ints, known_starts: Ints, known_codes: Ints) -> NDArray[np.int32]:
    """Return where each product of a query is among the same query's known ones, or -1; [n].

    A known one that is there twice is found at one of its places. A table of all products holds
    the known ones of one query at a time: several times as fast as by sorting.

    Args:
        starts: [queries + 1], bounds each query's part of `codes`.
        codes: [n], product codes.
        known_starts: [queries + 1], bounds each query's part of `known_codes`.
        known_codes: [m], product codes.
    """
    order = np.arange(len(known_codes), dtype=np.int32)
    found = np.empty(len(codes), np.int32)
    largest = max(codes.max(initial=0), known_codes.max(initial=0))
    table = np.full(1 + int(largest), -1, np.int32)
    bounds, known_bounds = pairwise(starts.tolist()), pairwise(known_starts.tolist())
    for (start, stop), (known_start, known_stop) in zip(bounds, known_bounds, strict=True):
        known = known_codes[known_start:known_stop]
        table[known] = order[known_start:known_stop]
        found[start:stop] = table[codes[start:stop]]
        table[known] = -1
    return found


def find_pairs(
    query_rows: Ints, codes: Ints, known_rows: Ints, known_codes: Ints
) -> NDArray[np.int32]:
    """Return what `look_up` does of pairs given by their queries' rows, which ascend; [n].

    Args:
        query_rows: [n].
        codes: [n], product codes.
        known_rows: [m].
        known_codes: [m], product codes.
    """
    some = [rows for rows in (query_rows, known_rows) if len(rows)]
    first = min((int(rows[0]) for rows in some), default=0)
    queries = max((int(rows[-1]) for rows in some), default=-1) + 1 - first
    starts, known = (query_starts(rows, first, queries) for rows in (query_rows, known_rows))
    return look_up(starts, codes, known, known_codes)


def find_repeat(starts: Ints, codes: Ints) -> int | None:
    """Return where a product is that its query has once more, or None; both as in `look_up`."""
    repeats = look_up(starts, codes, starts, codes) != np.arange(len(codes))
    return int(repeats.argmax()) if repeats.any() else None


def query_starts(query_rows: Ints, first: int, queries: int) -> Ints:
    """Return where each of `queries` queries from row `first` on starts, and where the last ends.

    [queries + 1]; `query_rows`, [n], ascends.
    """
    counts = np.bincount(query_rows - first, minlength=queries)
    return np.concatenate([[0], np.cumsum(counts)])


def _round(scores: NDArray[np.floating[Any]]) -> Floats:
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


Ranked = tuple[Ints, Ints, Floats]
"""Rows of the clean queries (ascending), of the clean products, and scores, in ranked order."""
