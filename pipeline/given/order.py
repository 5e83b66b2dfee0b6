"""The order of somebody's run: by score, compared in 32 bits, then by product_id, as trec_eval."""

import numpy as np

from pipeline.core.arrays import Floats, Ints
from pipeline.core.errors import PipelineError, shorten
from pipeline.given.table import Given
from pipeline.runs.ranking import order_pairs

LARGEST = float(np.finfo(np.float32).max)


def read_scores(run: Given) -> Floats:
    """Return what orders a run, higher is better: its scores, or its ranks if it has no scores.

    Both are compared as numbers of 32 bits, as trec_eval compares scores.

    Raises:
        PipelineError: there is neither a score nor a rank, or one is not a finite number of 32
            bits.
    """
    names = run.names("score", "rank")
    if not names:
        raise PipelineError(
            f"{run.where}: there must be a column score or rank (the columns are "
            f"{', '.join(run.columns)}). Rename yours."
        )
    found = run.numbers(names[0])
    if (unfit := np.flatnonzero(np.abs(found) > LARGEST)).size:
        row = int(unfit[0])
        raise run.wrong(
            row,
            f"{names[0]} {found[row]:g} is too large for 32 bits. Write smaller {names[0]}s into "
            "the run.",
        )
    found = found.astype(np.float32).astype(np.float64)
    return -found if names[0] == "rank" else found


def order_run(run: Given, rows: Ints, codes: Ints, scores: Floats) -> Ints:
    """Return the rows of a run in their final order.

    Args:
        run: the run, for messages.
        rows: the query of each row, [results].
        codes: the product of each, in the order of the product_ids.
        scores: what `read_scores` returns.

    Raises:
        PipelineError: a query has a product twice or, without scores, a rank.
    """
    refuse_twice(run, rows, codes)
    order = order_pairs(rows, codes, scores)
    if not run.names("score"):
        _refuse_equal_ranks(run, order, rows[order], scores[order])
    return order


def count_against_rank(run: Given, order: Ints, rows: Ints) -> int:
    """Return in how many queries the order of scores is not that of the ranks, if there are both.

    Args:
        run: of which the rows are.
        order: the rows that count, [results], in their final order.
        rows: the query of each.
    """
    if len(run.names("score", "rank")) < 2:
        return 0
    try:
        ranks = run.numbers("rank")[order]
    except PipelineError:  # such as the - of some TREC files: the scores decide
        return 0
    against = (np.diff(rows) == 0) & (np.diff(ranks) < 0)
    return len(np.unique(rows[1:][against]))


def refuse_twice(given: Given, rows: Ints, codes: Ints) -> None:
    """Raise a `PipelineError` if a query has a product twice."""
    # One number per pair sorts several times as fast as two columns.
    pairs = rows * (1 + codes.max()) + codes
    order = np.argsort(pairs, kind="stable")
    twice = np.diff(pairs[order]) == 0
    if twice.any():
        row = int(order[1:][twice].min())
        query, product = (given.ids(name)[row].as_py() for name in ("query_id", "product_id"))
        raise given.wrong(
            row,
            f"query {shorten(query)} has product {shorten(product)} twice "
            f"({int(twice.sum()):,} such rows in all). Keep one of each.",
        )


def _refuse_equal_ranks(run: Given, order: Ints, rows: Ints, ranks: Floats) -> None:
    """Raise a `PipelineError` if a query has a rank twice: no order is right."""
    twice = (np.diff(rows) == 0) & (np.diff(ranks) == 0)
    if twice.any():
        row = int(order[1:][twice].min())
        raise run.wrong(
            row,
            f"query {shorten(run.ids('query_id')[row].as_py())} has rank "
            f"{run.numbers('rank')[row]:g} twice ({int(twice.sum()):,} such rows in all). Rank "
            "each product, or give scores.",
        )
