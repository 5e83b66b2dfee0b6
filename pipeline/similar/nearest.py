"""Each product's nearest others: an index proposes them, and the vectors decide the order.

An exact index is asked for more products until none that it did not return can be among the
nearest, so that neither FAISS nor the number of threads decides between products that tie. An
approximate one is asked once, for `PROPOSED` times as many as are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.params import Similarity
from pipeline.index.kinds import to_index_form
from pipeline.retrieve import neighbours
from pipeline.runs import ranking
from pipeline.vectors.shards import ShardReader

Floats = NDArray[np.float64]

PROPOSED = 5
"""Products that an approximate index proposes for each one that is kept."""

SEARCHED = 4_096
"""Products whose neighbours are searched at once; their results are a piece of the table."""

SCORED_BYTES = 64_000_000
"""The most bytes of the vectors that are compared at once; they take up to four times as much."""

ROUNDING = 0.5 * 10.0**-ranking.SCORE_DECIMALS


@dataclass(frozen=True)
class Catalogue:
    """What is searched: a locale's vectors, and the index that holds them.

    `exact` says whether the index compares whole vectors with all products.
    """

    index: faiss.Index
    vectors: ShardReader
    similarity: Similarity
    exact: bool

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
        return max(float(np.sqrt(_squares(piece).max())) for _, piece in self.pieces())


def score_rows(first: Matrix, second: Matrix, similarity: Similarity) -> Floats:
    """Return the similarity of row i and row i, higher is better, float64 [rows].

    NumPy sums each row of an array in C order by itself and in the same order: a score depends on
    its two vectors alone.
    """
    if similarity == "l2":
        between = np.subtract(first, second, dtype=np.float64)
        return np.asarray(-np.square(between, out=between).sum(axis=1))
    return np.asarray(np.multiply(first, second, dtype=np.float64).sum(axis=1))


def nearest_products(catalogue: Catalogue, kept: int) -> Iterator[tuple[Ints, Floats, Ints]]:
    """Yield each product's nearest others, `SEARCHED` products at a time, in the order of rows.

    Args:
        catalogue: what is searched.
        kept: how many others per product; all where there are fewer.

    Yields:
        The rows of the products, [products]; scores and rows of their neighbours in the order of
        `ranking`, [products, kept]. `ranking.NO_PRODUCT` fills the places that an approximate
        index found nothing for.
    """
    kept = min(kept, catalogue.index.ntotal - 1)
    find = neighbours.finder(catalogue.index)
    longest = catalogue.longest() if catalogue.exact else 0.0
    for rows, own in catalogue.pieces():
        yield rows, *_nearest(catalogue, find, rows, own, kept, longest)


def _nearest(
    catalogue: Catalogue,
    find: neighbours.Find,
    rows: Ints,
    own: Matrix,
    kept: int,
    longest: float,
) -> tuple[Floats, Ints]:
    """Return the scores and rows of the nearest others of some products."""
    total = catalogue.index.ntotal
    scores = np.empty((len(rows), kept))
    codes = np.empty((len(rows), kept), dtype=np.int64)
    if not kept:
        return scores, codes
    extra = neighbours.EXTRA_RESULTS if catalogue.exact else (PROPOSED - 1) * kept
    asked = min(kept + 1 + extra, total)
    unsure = np.arange(len(rows))
    while unsure.size:
        left = []
        most = neighbours.RESULT_BYTES // (neighbours.FOUND_BYTES * asked)
        for part in neighbours.parts(unsure, most):
            _, found, beyond = find(own[part], asked)
            found[found == rows[part, np.newaxis]] = ranking.NO_PRODUCT
            ranked, order = ranking.rank_matrix(_score(catalogue, own[part], found), found)
            scores[part], codes[part] = ranked[:, :kept], order[:, :kept]
            best_left_out = beyond + _error(catalogue, own[part], longest) + ROUNDING
            left.append(part[best_left_out >= ranked[:, kept - 1]])
        again = catalogue.exact and asked < total
        unsure = np.concatenate(left) if again else unsure[:0]
        asked = min(2 * asked, total)
    return scores, codes


def _score(catalogue: Catalogue, own: Matrix, found: Ints) -> Floats:
    """Return the scores of the products found, [products, asked], by their vectors."""
    scores = np.full(found.shape, -np.inf)
    at_once = max(1, SCORED_BYTES // (4 * own.shape[1] * found.shape[1]))
    for part in neighbours.parts(np.arange(len(own)), at_once):
        place, column = np.nonzero(found[part] != ranking.NO_PRODUCT)
        needed, at = np.unique(found[part][place, column], return_inverse=True)
        others = catalogue.take(needed)
        scores[part[place], column] = score_rows(own[part[place]], others[at], catalogue.similarity)
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
    return np.asarray(1.01 * roundings * np.sqrt(_squares(own)) * longest)


def _squares(vectors: Matrix) -> Floats:
    return np.asarray(np.square(vectors, dtype=np.float64).sum(axis=1))
