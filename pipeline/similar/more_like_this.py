"""Similar products by words: a product's own terms are the query, as Lucene's MoreLikeThis does."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.bm25.search import TermIndex
from pipeline.core.arrays import Floats, Ints
from pipeline.runs import ranking
from pipeline.similar.anchors import PLACES, Anchors

QUERY_TERMS = 25
"""How many terms of a product are searched for, as in Lucene: those of the highest tf * idf."""


def query_terms(index: TermIndex, terms: Sequence[str]) -> list[str]:
    """Return the `QUERY_TERMS` of a product with the highest tf * idf, each once.

    A tie goes to the term that comes first in the text.
    """
    counts = Counter(terms)

    def weight(term: str) -> float:
        having = index.having(term)
        return counts[term] * math.log(1 + (index.products - having + 0.5) / (having + 0.5))

    return sorted(counts, key=lambda term: -weight(term))[:QUERY_TERMS]


def score_anchors(
    index: TermIndex, terms: Mapping[int, Sequence[str]], anchors: Anchors
) -> tuple[Floats, Ints]:
    """Return what `anchors.measure` takes: the scores of the others, the nearest products.

    Args:
        index: all products.
        terms: those of each anchor's row.
        anchors: what is compared.
    """
    scores = np.zeros(len(anchors.others))
    found = np.full((len(anchors), PLACES), ranking.NO_PRODUCT, dtype=np.int64)
    for anchor, row in enumerate(anchors.row.tolist()):
        asked = terms[row]
        if not asked:
            continue
        every = index.scores(query_terms(index, asked))
        scores[anchors.part(anchor)] = every[anchors.others[anchors.part(anchor)]]
        every[row] = 0
        near = np.flatnonzero(every)
        if len(near) > PLACES:
            last = np.partition(every[near], -PLACES)[-PLACES]
            near = near[every[near] >= last - 10.0**-ranking.SCORE_DECIMALS]
        _, order, _ = ranking.rank_pairs(np.zeros(len(near), np.int64), near, every[near])
        found[anchor, : len(order)] = order[:PLACES]
    return scores, found
