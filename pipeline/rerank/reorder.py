"""The order of a reranked run: what is scored by its scores, and below it the rest as it was."""

import numpy as np
from numpy.typing import NDArray

from pipeline.hybrid.fuse import scale_min_max
from pipeline.runs import ranking
from pipeline.runs.ranking import Ranked

STEP = 1e-3
"""How far below each other the scores of products are that are not scored, relative to the lowest
score above them where that is larger than 1. float32 tells them apart at any depth below 8 million
products."""


def in_window(run: Ranked, depth: int) -> NDArray[np.bool_]:
    """Return which rows of a run are the first `depth` of their query."""
    return ranking.places(run[0]) < depth


def reorder(
    run: Ranked, scored: NDArray[np.bool_], scores: NDArray[np.float64], weight: float
) -> Ranked:
    """Return a run with the products that were scored in the order of their scores.

    A product that was not scored stays below all that were, in its old order: scores of a model
    and of a run are of different scales. Its new score says its place alone.

    Args:
        run: the run.
        scored: which of its rows were scored, the first ones of each query.
        scores: their scores, finite; each one that float32 holds.
        weight: the share of these scores. Below 1, they and the run's own are scaled to 0..1 for
            each query and added up.
    """
    rows, codes, own = run
    if weight < 1:
        blended = weight * _scaled(rows[scored], scores)
        blended += (1 - weight) * _scaled(rows[scored], own[scored])
        scores = blended.astype(np.float32).astype(np.float64)
    upper = ranking.rank_pairs(rows[scored], codes[scored], scores)
    below = rows[~scored]
    lowest = upper[2][np.searchsorted(upper[0], below, side="right") - 1]
    steps = 1 + ranking.places(below)
    lower = below, codes[~scored], lowest - STEP * steps * np.maximum(np.abs(lowest), 1)
    order = np.argsort(np.concatenate([upper[0], below]), kind="stable")
    joined = (np.concatenate(each)[order] for each in zip(upper, lower, strict=True))
    found_rows, found_codes, found_scores = joined
    return found_rows, found_codes, found_scores


def _scaled(rows: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores scaled as `scale_min_max` does, whatever their order within a query."""
    order = np.lexsort((-scores, rows))
    scaled = np.empty_like(scores)
    scaled[order] = scale_min_max((rows[order], order, scores[order]))
    return scaled
