"""BM25 search over postings: the highest scoring products of each query."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from pipeline.bm25.postings import RANGE_PRODUCTS, Postings, Statistics, Weighting
from pipeline.core.arrays import Floats, Ints
from pipeline.core.params import Bm25
from pipeline.runs import ranking
from pipeline.runs.inputs import Inputs

BATCH_QUERIES = 256
"""The results of these are written together."""

QUERIES_AT_ONCE = 32
"""A thread searches for these before it asks for others."""

ROUNDED_OFF = 1e-6
"""No rounding moves a score by more; see `ranking.SCORE_DECIMALS`."""

COLUMNS = 8
"""How many terms are added at a time: a query may be a page long. See `postings.SCORED_BYTES`."""

SAMPLED = 8_192

Column = tuple[NDArray[np.int32], Floats]
Pairs = tuple[Ints, Ints]
"""Rows of the queries, ascending, and of the products of judged pairs."""


@dataclass(frozen=True)
class TermIndex:
    """The postings of all products with what BM25 makes of them.

    Memory: see `postings`. Scores are float64, so that the rounding of `ranking` removes the
    differences between the logarithms of machines. A product's score is the sum over the query's
    terms in their order, whatever range or thread computes it.

    Attributes:
        weights: the score of every posting; None where each search computes those that it needs.
    """

    postings: Postings
    weighting: Weighting
    weights: Floats | None

    @classmethod
    def of(
        cls,
        postings: Postings,
        settings: Bm25,
        threads: int | None = None,
        known: Statistics | None = None,
    ) -> "TermIndex":
        """Weigh postings: all of them now, on so many threads; without `threads`, when needed.

        `known` is that of `Weighting.of`.
        """
        weighting = Weighting.of(postings, settings, known)
        weights = None if threads is None else weighting.weigh_all(postings, threads)
        return cls(postings, weighting, weights)

    @property
    def products(self) -> int:
        """How many products there are."""
        return len(self.postings.lengths)

    def having(self, term: str) -> int:
        """Return how many products have a term that one of them has."""
        number = self.postings.vocabulary[term]
        return int(self.postings.starts[number + 1] - self.postings.starts[number])

    def scores(self, terms: Iterable[str]) -> Floats:
        """Return every product's score for the terms of a query, float64 [products], 0 or more."""
        found = np.zeros(self.products)
        for first, scores in self.by_range(terms):
            found[first : first + len(scores)] = scores
        return found

    def by_range(self, terms: Iterable[str]) -> Iterator[tuple[int, Floats]]:
        """Yield the row of the first product of a range, and what `scores` returns for the range.

        Ranges in which no product has a term are left out.
        """
        numbers = map(self.postings.vocabulary.get, terms)
        columns = [self._column(number) for number in numbers if number is not None]
        if not columns:
            return
        firsts = range(0, self.products, RANGE_PRODUCTS)
        bounds = np.array([*firsts, self.products], dtype=np.int32)
        cuts = np.stack([np.searchsorted(products, bounds) for products, _ in columns])
        for place, first in enumerate(firsts):
            within = [
                (products[start:stop], weights[start:stop])
                for (products, weights), (start, stop) in zip(
                    columns, cuts[:, place : place + 2].tolist(), strict=True
                )
            ]
            if any(len(products) for products, _ in within):
                yield first, _sum(within, first, min(RANGE_PRODUCTS, self.products - first))

    def _column(self, number: int) -> Column:
        """Return the products that have a term, and its scores."""
        part = slice(*self.postings.starts[number : number + 2].tolist())
        if self.weights is not None:
            return self.postings.products[part], self.weights[part]
        idf = float(self.weighting.idf[number])
        return self.postings.products[part], self.weighting.weigh(self.postings, part, idf)


def _sum(columns: Sequence[Column], first: int, size: int) -> Floats:
    """Add columns one after the other, each to what is there.

    Args:
        columns: rows of products, ascending within each, and what is added to them.
        first: the least row.
        size: how many rows there are.
    """
    scores = None
    for start in range(0, len(columns), COLUMNS):
        some = columns[start : start + COLUMNS]
        if scores is not None:
            some = [(np.arange(first, first + size, dtype=np.int32), scores), *some]
        rows, values = (np.concatenate(parts) for parts in zip(*some, strict=True))
        starts = np.cumsum([0, *(len(part) for part, _ in some)], dtype=np.int32)
        # SciPy adds a column's entries to the result before those of the next column.
        matrix = csc_array((values, rows - np.int32(first), starts), shape=(size, len(some)))
        scores = matrix @ np.ones(len(some))
    return np.asarray(scores)


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
    pairs = pairs_of((inputs.pair_queries, inputs.pair_products), batch)
    found, scores = search_range(index, 0, queries, batch, depth, pairs)
    return found, ranking.rank_pairs(*pairs, scores)


def pairs_of(pairs: Pairs, batch: range) -> Pairs:
    """Return the pairs of the queries of some rows."""
    queries, products = pairs
    part = slice(*np.searchsorted(queries, [batch.start, batch.stop]))
    return queries[part], products[part]


def search_range(
    index: TermIndex,
    start: int,
    queries: Sequence[list[str]],
    batch: range,
    depth: int,
    pairs: Pairs,
) -> tuple[ranking.Ranked, Floats]:
    """Search consecutive products for the queries of some rows.

    Args:
        index: these products.
        start: the row of the first one.
        queries: the terms of all queries.
        batch: the rows of those searched for.
        depth: the most products found for a query.
        pairs: the judged pairs of these queries.

    Returns:
        The products that share a term with the query, in the order of `ranking`; and the scores of
        the judged pairs, 0 where the product is another or shares no term, float64 [pairs].
    """
    found = []
    judged_queries, judged = pairs
    judged_scores = np.zeros(len(judged))
    for row in batch:
        mine = slice(*np.searchsorted(judged_queries, [row, row + 1]))
        best = Best(row, depth)
        for offset, scores in index.by_range(queries[row]):
            first = start + offset
            best.add(first, scores)
            inside = (judged[mine] >= first) & (judged[mine] < first + len(scores))
            judged_scores[mine][inside] = scores[judged[mine][inside] - first]
        found.append(best.ranked())
    return joined(found), judged_scores


def joined(parts: Iterable[ranking.Ranked]) -> ranking.Ranked:
    """Return the rankings of consecutive queries as one."""
    rows, codes, scores = map(np.concatenate, zip(*parts, strict=True))
    return rows, codes, scores


def top(row: int, scores: Floats, depth: int) -> ranking.Ranked:
    """Return the first `depth` of one query's products that have a score above 0."""
    best = Best(row, depth)
    best.add(0, scores)
    return best.ranked()


class Best:
    """The first products of one query, out of all that were added: no more than twice as many.

    Ties at the last place may be all products; most are cut off as they come.
    """

    def __init__(self, row: int, depth: int) -> None:
        self._row, self._depth = row, depth
        self._least = 0.0
        self._codes: Ints = np.empty(0, dtype=np.int64)
        self._scores: Floats = np.empty(0)

    def add(self, first: int, scores: Floats) -> None:
        """Add the scores of consecutive products."""
        # To count numbers holds Python's lock; to compare them and to count what is true, hardly.
        if not self._least and np.count_nonzero(scores > 0) > self._depth:
            # So that the first range, too, leaves few products to look at.
            self._least = max(kth_largest(scores, self._depth) - ROUNDED_OFF, 0.0)
        near = np.flatnonzero(scores >= self._least if self._least > 0 else scores > 0)
        self.take(near + first, scores[near])

    def take(self, codes: Ints, scores: Floats) -> None:
        """Add products, each with a score above 0, of which none was added before."""
        near = scores >= self._least
        self._codes = np.concatenate([self._codes, codes[near]])
        self._scores = np.concatenate([self._scores, scores[near]])
        if len(self._codes) > self._depth:
            self._least = max(kth_largest(self._scores, self._depth) - ROUNDED_OFF, 0.0)
            self._keep(self._scores >= self._least)
        if len(self._codes) > 2 * self._depth:
            _, self._codes, self._scores = self.ranked()

    def ranked(self) -> ranking.Ranked:
        """Return them in the order of `ranking`, and no more than `depth`."""
        rows, depth = np.full(len(self._codes), self._row), self._depth
        rows, codes, scores = ranking.rank_pairs(rows, self._codes, self._scores)
        # Copies: a slice would keep the whole array in memory.
        return rows[:depth].copy(), codes[:depth].copy(), scores[:depth].copy()

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self._codes, self._scores = self._codes[kept], self._scores[kept]


def kth_largest(values: Floats, k: int) -> float:
    """Return the k-th largest of at least k values.

    Of many values, a sample says which are not worth sorting.
    """
    step = len(values) // SAMPLED
    if step > 1:
        sample = values[::step]
        place = k // step + k // (4 * step) + 32
        if place < len(sample):
            high = values[values >= np.partition(sample, -place)[-place]]
            if len(high) >= k:
                values = high
    return float(np.partition(values, -k)[-k])
