"""Products with equal vectors: one is searched and compared for all of them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Ints, Matrix, blocks
from pipeline.core.faiss import faiss
from pipeline.runs import ranking
from pipeline.vectors.shards import PIECE_ROWS

DIGEST_BYTES = 16
"""Of a vector's hash: two different ones of a billion share it with a chance of 1e-21."""


@dataclass(frozen=True)
class EqualVectors:
    """The products of a catalogue by their vectors.

    Attributes:
        of: the group of each product, int64 [products].
        first: the first row of each group, int64 [groups], ascending.
        members: all rows, group by group, those of each group descending, int64 [products].
        starts: where each group begins in `members`, int64 [groups + 1].
    """

    of: Ints
    first: Ints
    members: Ints
    starts: Ints

    @classmethod
    def single(cls, products: int) -> "EqualVectors":
        """Return a group for each product."""
        rows = np.arange(products)
        return cls(rows, rows, rows, np.arange(products + 1))

    @classmethod
    def of_vectors(cls, pieces: Iterable[Matrix]) -> "EqualVectors":
        """Return the groups of equal vectors; `pieces` are all of them, in the order of rows.

        Memory: about 60 bytes a product.
        """
        digests = np.concatenate([_digests(piece) for piece in pieces])
        _, first, of = np.unique(digests, return_index=True, return_inverse=True)
        order = np.argsort(first)
        of = np.argsort(order)[of]  # groups by their first rows
        rows = np.arange(len(of))
        starts = np.concatenate([[0], np.cumsum(np.bincount(of))])
        return cls(of, first[order], np.lexsort((-rows, of)), starts)

    def rank(self, scores: Floats, found: Ints, wanted: int) -> tuple[Floats, Ints]:
        """Return the first `wanted` products of the groups found, in the order of `ranking`.

        Args:
            scores: of the groups found, [vectors, asked]; each product of a group has its score.
            found: the groups, or `ranking.NO_PRODUCT`.
            wanted: how many products.

        Returns:
            Scores and rows, both [vectors, wanted]. Places without a product come last, with the
            score -inf and `ranking.NO_PRODUCT`.
        """
        if len(self.first) == len(self.of):
            ranked, codes = ranking.rank_matrix(scores, found)
            return ranked[:, :wanted], codes[:, :wanted]
        vector, column = np.nonzero(found != ranking.NO_PRODUCT)
        begin, end = (self.starts[found[vector, column] + one] for one in (0, 1))
        sizes = np.minimum(end - begin, wanted)  # its other products come after these
        of = np.repeat(np.arange(len(sizes)), sizes)
        vector, codes, ranked = ranking.rank_pairs(
            vector[of],
            self.members[begin[of] + ranking.places(of)],
            scores[vector, column][of],
        )
        place = ranking.places(vector)
        inside = place < wanted
        at = vector[inside], place[inside]
        first_scores = np.full((len(found), wanted), -np.inf)
        first_codes = np.full((len(found), wanted), ranking.NO_PRODUCT, dtype=np.int64)
        first_scores[at], first_codes[at] = ranked[inside], codes[inside]
        return first_scores, first_codes


def one_of_each(index: faiss.Index, groups: EqualVectors) -> faiss.Index:
    """Return an index of the first vector of each group; vector i is that of group i."""
    if len(groups.first) == index.ntotal:
        return index
    distinct = faiss.IndexFlat(index.d, index.metric_type)
    for rows in blocks(groups.first, PIECE_ROWS):
        distinct.add(index.reconstruct_batch(rows))
    return distinct


def _digests(vectors: Matrix) -> NDArray[np.void]:
    found = [hashlib.blake2b(each, digest_size=DIGEST_BYTES).digest() for each in vectors]
    return np.frombuffer(b"".join(found), dtype=f"V{DIGEST_BYTES}")
