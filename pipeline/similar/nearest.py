"""Each product's nearest others: an index proposes them, and the vectors decide the order.

An exact index is asked for more products until none that it did not return can be among the
nearest, so that neither FAISS nor the number of threads decides between products that tie. Where
many products have the same vector, one of them is searched for all (see `equal`). An approximate
index is asked once, for `PROPOSED` times as many as are kept, or more if its entry says `rescore`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.arrays import Floats, Ints, Matrix, blocks
from pipeline.core.faiss import faiss
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Similarity
from pipeline.retrieve import neighbours
from pipeline.runs import ranking
from pipeline.similar.equal import EqualVectors, one_of_each
from pipeline.vectors.lengths import squared_lengths, to_index_form
from pipeline.vectors.pairs import score_pairs
from pipeline.vectors.shards import ShardReader, take_any

PROPOSED = 5
"""Products that an approximate index proposes for each one that is kept, at least."""

SEARCHED = 4_096
"""Products whose neighbours are searched at once; their results are a piece of the table."""

SCORED_BYTES = 1_000_000
"""The most bytes of the vectors that a thread compares at once, so that they and their products fit
its core's cache. Measured: 64 MB take twice as long."""

ROUNDING = 0.5 * 10.0**-ranking.SCORE_DECIMALS


@dataclass(frozen=True)
class Catalogue:
    """What is searched: a locale's vectors, and the index that holds them.

    `exact` says whether the index compares whole vectors with all products. Else it proposes
    `proposed` products for each one that is kept.
    """

    index: faiss.Index
    vectors: ShardReader
    similarity: Similarity
    exact: bool
    proposed: int = PROPOSED

    def take(self, rows: Ints) -> Matrix:
        """Return the vectors of `rows`, which ascend, in the form that is compared."""
        return to_index_form(self.vectors.take(rows), self.similarity, "products")

    def pieces(self) -> Iterator[tuple[Ints, Matrix]]:
        """Yield the rows and the vectors of `SEARCHED` products at a time, as `take` has them."""
        rows = self.vectors.rows
        for start in range(0, rows, SEARCHED):
            piece = np.arange(start, min(start + SEARCHED, rows))
            yield piece, self.take(piece)

    def longest(self) -> float:
        """Return the length of the longest vector, at most; 1 where lengths do not count."""
        if self.similarity == "cosine":
            return 1.0 + 1e-6
        return max(float(np.sqrt(squared_lengths(piece).max())) for _, piece in self.pieces())


def nearest_products(
    catalogue: Catalogue, kept: int, threads: int
) -> Iterator[tuple[Ints, Floats, Ints]]:
    """Yield each product's nearest others, `SEARCHED` products at a time, in the order of rows.

    Args:
        catalogue: what is searched.
        kept: how many others per product; all where there are fewer.
        threads: how many compare vectors.

    Yields:
        The rows of the products, [products]; scores and rows of their neighbours in the order of
        `ranking`, [products, kept]. `ranking.NO_PRODUCT` fills the places that an approximate
        index found nothing for.
    """
    kept = min(kept, catalogue.index.ntotal - 1)
    if not kept:
        for rows, _ in catalogue.pieces():
            yield rows, np.empty((len(rows), 0)), np.empty((len(rows), 0), dtype=np.int64)
        return
    catalogue.vectors.check()  # before threads read them
    groups = group_products(catalogue)
    search = Search(
        catalogue,
        groups,
        neighbours.finder(one_of_each(catalogue.index, groups)),
        catalogue.longest() if catalogue.exact else 0.0,
        threads,
    )
    for rows, own in catalogue.pieces():
        yield rows, *_nearest(search, rows, own, kept)


def group_products(catalogue: Catalogue) -> EqualVectors:
    """Return groups of equal vectors where that saves time, else each product by itself.

    An approximate index is asked once, and a few products that tie fit the extra results.
    """
    if catalogue.exact:
        groups = EqualVectors.of_vectors(piece for _, piece in catalogue.pieces())
        if np.diff(groups.starts).max() > neighbours.EXTRA_RESULTS:
            return groups
    return EqualVectors.single(catalogue.vectors.rows)


@dataclass(frozen=True)
class Search:
    """How a catalogue is searched: one vector of each group for all its products."""

    catalogue: Catalogue
    groups: EqualVectors
    find: neighbours.Find
    longest: float
    threads: int


def _nearest(search: Search, rows: Ints, own: Matrix, kept: int) -> tuple[Floats, Ints]:
    """Return the scores and rows of the nearest others of some products.

    Products of one group share their neighbours, one more than wanted, and each leaves out itself.
    """
    _, first, of = np.unique(search.groups.of[rows], return_index=True, return_inverse=True)
    scores, codes = _rank_groups(search, own[first], kept + 1)
    scores, codes = scores[of], codes[of]
    out = codes == rows[:, np.newaxis]
    out[~out.any(axis=1), -1] = True
    shape = len(rows), kept
    return scores[~out].reshape(shape), codes[~out].reshape(shape)


def _rank_groups(search: Search, own: Matrix, wanted: int) -> tuple[Floats, Ints]:
    """Return the scores and rows of the `wanted` products that are nearest to each vector."""
    catalogue, groups = search.catalogue, search.groups
    scores = np.empty((len(own), wanted))
    codes = np.empty((len(own), wanted), dtype=np.int64)
    extra = neighbours.EXTRA_RESULTS if catalogue.exact else (catalogue.proposed - 1) * (wanted - 1)
    asked = min(wanted + extra, len(groups.first))
    unsure = np.arange(len(own))
    while unsure.size:
        left = []
        most = neighbours.RESULT_BYTES // (neighbours.FOUND_BYTES * asked)
        for part in blocks(unsure, most):
            _, found, beyond = search.find(own[part], asked)
            scored = _score(search, own[part], found)
            at_once = neighbours.RESULT_BYTES // (neighbours.RANKED_BYTES * asked * wanted)
            for ranked in blocks(np.arange(len(part)), at_once):
                at = part[ranked]
                scores[at], codes[at] = groups.rank(scored[ranked], found[ranked], wanted)
            best_left_out = beyond + _error(catalogue, own[part], search.longest) + ROUNDING
            left.append(part[best_left_out >= scores[part, -1]])
        again = catalogue.exact and asked < len(groups.first)
        unsure = np.concatenate(left) if again else unsure[:0]
        asked = min(2 * asked, len(groups.first))
    return scores, codes


def _score(search: Search, own: Matrix, found: Ints) -> Floats:
    """Return the scores of the groups found, [vectors, asked], by their vectors."""
    catalogue = search.catalogue
    scores = np.full(found.shape, -np.inf)

    def score(part: Ints) -> None:
        place, column = np.nonzero(found[part] != ranking.NO_PRODUCT)
        rows = search.groups.first[found[part][place, column]]
        others = take_any(rows, catalogue.take)
        scores[part[place], column] = score_pairs(own[part[place]], others, catalogue.similarity)

    at_once = SCORED_BYTES // (4 * own.shape[1] * found.shape[1])
    for _ in in_parallel(score, blocks(np.arange(len(own)), at_once), search.threads):
        pass
    return scores


def _error(catalogue: Catalogue, own: Matrix, longest: float) -> Floats | float:
    """Return how far FAISS's float32 score of a product can be from its score, [products].

    A sum of n rounded products is off by at most n u / (1 - n u) of the sum of their sizes, in any
    order (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). The l2 scores
    of `exact_l2` are bounded there.
    """
    if catalogue.similarity == "l2":
        return 0.0
    roundings = (own.shape[1] + 1) * np.finfo(np.float32).eps / 2
    return np.asarray(1.01 * roundings * np.sqrt(squared_lengths(own)) * longest)
