"""Fuse two rankings of the same queries into one."""

import numpy as np
from numpy.typing import NDArray

from pipeline.core.params import Fusion, WeightedFusion
from pipeline.runs import ranking


def fuse(dense: ranking.Ranked, bm25: ranking.Ranked, settings: Fusion) -> ranking.Ranked:
    """Return the union of two runs of the same queries, in the order of its fused scores.

    Weighted fusion adds the normalised scores, each times its system's weight. A BM25 score is
    divided by the query's highest: a product without a shared term has 0. A dense score is scaled
    from the lowest (0) to the highest (1) of the query's run: similarities have no natural floor
    (Bruch, Gai, Ingber: An Analysis of Fusion Functions for Hybrid Retrieval, 2023, compare such
    normalisations). A product that a run lacks has 0 in it.

    Reciprocal-rank fusion adds 1 / (rank_constant + rank) over the runs that have the product
    (Cormack, Clarke, Büttcher, 2009), times (rank_constant + 1) / 2: the first of both runs has 1.
    A product that has no term of the query is in no ranking by BM25, though a pool lists it: it has
    0 there. The rounding of `ranking` would tie deep ranks where the constant is very large or, for
    deep runs, very small; `params` refuses such constants.
    """
    if isinstance(settings, WeightedFusion):
        first = settings.dense_weight * scale_min_max(dense)
        second = (1 - settings.dense_weight) * scale_by_max(bm25)
    else:
        constant = settings.rank_constant + 1  # places are counted from 0, ranks from 1
        first, second = (
            constant / 2 / (constant + ranking.places(rows)) for rows, _, _ in (dense, bm25)
        )
        second[bm25[2] <= 0] = 0
    place = ranking.find_pairs(*bm25[:2], *dense[:2])
    alone = place < 0
    rows, codes = (np.concatenate([dense[i], bm25[i][alone]]) for i in (0, 1))
    first[place[~alone]] += second[~alone]
    return ranking.rank_pairs(rows, codes, np.concatenate([first, second[alone]]))


def scale_by_max(run: ranking.Ranked) -> NDArray[np.float64]:
    """Return scores of 0 or more divided by their query's highest; 0 where that is 0."""
    rows, _, scores = run
    highest = scores[np.searchsorted(rows, rows)]
    return np.divide(scores, highest, out=np.zeros_like(scores), where=highest > 0)


def scale_min_max(run: ranking.Ranked) -> NDArray[np.float64]:
    """Return scores scaled from their query's lowest, 0, to its highest, 1.

    Where both are equal, all have 1: the run has these products, and lacks others.
    """
    rows, _, scores = run
    highest = scores[np.searchsorted(rows, rows)]
    lowest = scores[np.searchsorted(rows, rows, side="right") - 1]
    spread = highest - lowest
    return np.divide(scores - lowest, spread, out=np.ones_like(scores), where=spread > 0)
