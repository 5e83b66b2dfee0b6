"""BM25 search over postings: the highest scoring products of each query."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray

from pipeline.bm25 import postings
from pipeline.core.params import Bm25
from pipeline.runs import ranking
from pipeline.runs.inputs import Inputs

ROUNDED_OFF = 1e-6
"""No rounding moves a score by more; see `ranking.SCORE_DECIMALS`."""


@dataclass(frozen=True)
class TermIndex:
    """The terms of all products, weighted.

    Memory: 12 bytes per posting, 17 while it is built (see `postings`): the 1.2 million products of
    ESCI's us, with 106 terms each, take 2.2 GB, then 1.6 GB. Scores are float64, so that the
    rounding of `ranking` removes the differences between the logarithms of machines.
    """

    retriever: bm25s.BM25
    vocabulary: Mapping[str, int]
    products: int

    @classmethod
    def build(
        cls,
        products: Iterable[list[str]],
        settings: Bm25,
        taken: Callable[[postings.Collection], None] = lambda _: None,
    ) -> "TermIndex":
        """Index the terms of products, in the order of their rows; `taken` is that of `collect`."""
        found = postings.collect(products, taken)
        scores = found.score(settings) if found.vocabulary else None
        return cls.of(scores, found.vocabulary, found.products, settings)

    @classmethod
    def of(
        cls,
        scores: dict[str, Any] | None,
        vocabulary: Mapping[str, int],
        products: int,
        settings: Bm25,
    ) -> "TermIndex":
        """Return an index over postings as `Collection.score` makes them, None where no term is."""
        retriever = bm25s.BM25(
            k1=settings.k1, b=settings.b, method="lucene", dtype="float64",
            backend="numpy", csc_backend="numpy",
        )  # fmt: skip
        if scores is not None:
            retriever.scores = scores
            retriever.nonoccurrence_array = None  # Lucene's form gives nothing for absent terms
        return cls(retriever, vocabulary, products)

    def scores(self, terms: Iterable[str]) -> NDArray[np.float64]:
        """Return every product's score for the terms of a query, float64 [products], 0 or more."""
        known = [self.vocabulary[term] for term in terms if term in self.vocabulary]
        if not known:
            return np.zeros(self.products)
        return np.asarray(self.retriever.get_scores_from_ids(known), dtype=np.float64)


def search(
    index: TermIndex, queries: Sequence[list[str]], batch: range, depth: int, inputs: Inputs
) -> tuple[ranking.Ranked, ranking.Ranked]:
    """Search for the queries of some rows.

    Args:
        index: all products.
        queries: the terms of all queries.
        batch: the rows of those searched for.
        depth: the most products found for a query.
        inputs: which products are judged.

    Returns:
        The catalogue run: products that share a term with the query, in the order of `ranking`.
        The pool run: every judged product; its score is 0 where it shares no term.
    """
    found = []
    pairs = np.searchsorted(inputs.pair_queries, [batch.start, batch.stop])
    judged_queries, judged = (
        column[slice(*pairs)] for column in (inputs.pair_queries, inputs.pair_products)
    )
    judged_scores = np.zeros(len(judged))
    for row in batch:
        scores = index.scores(queries[row])
        found.append(top(row, scores, depth))
        mine = slice(*np.searchsorted(judged_queries, [row, row + 1]))
        judged_scores[mine] = scores[judged[mine]]
    rows, codes, ranked = map(np.concatenate, zip(*found, strict=True))
    return (rows, codes, ranked), ranking.rank_pairs(judged_queries, judged, judged_scores)


def top(row: int, scores: NDArray[np.float64], depth: int) -> ranking.Ranked:
    """Return the first `depth` of one query's products that have a score above 0.

    Ties at the last place are cut off here, for each query: they may be all products.
    """
    least = 0.0
    if np.count_nonzero(scores) > depth:
        least = max(np.partition(scores, -depth)[-depth] - ROUNDED_OFF, 0.0)
    found = np.flatnonzero((scores >= least) & (scores > 0))
    rows, codes, ranked = ranking.rank_pairs(np.full(len(found), row), found, scores[found])
    # Copies: a slice would keep the whole array in memory.
    return rows[:depth].copy(), codes[:depth].copy(), ranked[:depth].copy()
