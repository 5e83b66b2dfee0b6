"""Rescoring: an index of codes proposes products, and their vectors order these."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Ints, Matrix
from pipeline.core.faiss import faiss
from pipeline.core.params import Index, QuantisedIndex, Similarity
from pipeline.runs import ranking
from pipeline.vectors.lengths import squared_lengths
from pipeline.vectors.pairs import l2_scores
from pipeline.vectors.shards import ShardReader

SCORED_PAIRS = 65_536
"""Pairs that are scored at once, at most: where vectors must be copied, this takes 100 MB."""

UNIT_LENGTH = 1e-6
"""How far the length of a normalised vector may be from 1; float32 rounds it by 1e-7."""


@dataclass(frozen=True)
class Rescored:
    """An index of codes, and the vectors on disk that order what it finds.

    `neighbours.search` takes it for an index.

    Attributes:
        index: finds products by their codes: a FAISS index, or another that can take its place.
        vectors: those of all products.
        similarity: what is compared.
        lengths: of the vectors, float64 [products], for cosine, unless all are 1.
        factor: how many times as many products are found as are wanted.
    """

    index: Any
    vectors: ShardReader
    similarity: Similarity
    lengths: Floats | None
    factor: int

    @property
    def ntotal(self) -> int:
        """How many products there are."""
        return int(self.index.ntotal)

    def score(self, queries: Matrix, codes: Ints) -> Floats:
        """Return the scores of products by their vectors, float64 [queries, products].

        FAISS computes an inner product in float32 from its two vectors alone, as where it searches
        a flat index for one query. An l2 score is that of `exact_l2`, as a flat index's.

        Args:
            queries: as `to_index_form` returns them, [queries, dimension].
            codes: rows of products, [queries, products]; `ranking.NO_PRODUCT` has the score -inf.

        Raises:
            PipelineError: a shard is missing or damaged.
        """
        scores = np.full(codes.shape, -np.inf)
        step = max(1, SCORED_PAIRS // max(1, codes.shape[1]))
        score = self._distances if self.similarity == "l2" else self._products
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            scores[part] = score(queries[part], codes[part])
        return scores

    def _distances(self, queries: Matrix, codes: Ints) -> Floats:
        scores = np.full(codes.shape, -np.inf)
        for mine, query, rows in zip(scores, queries, codes, strict=True):
            found = np.flatnonzero(rows != ranking.NO_PRODUCT)
            found = found[np.argsort(rows[found])]
            mine[found] = l2_scores(query, self.vectors.take(rows[found]))
        return scores

    def _products(self, queries: Matrix, codes: Ints) -> Floats:
        products = np.full(codes.shape, -np.inf, np.float32)
        start = 0
        for shard in self.vectors.mapped():
            inside = (codes >= start) & (codes < start + len(shard))
            if inside.any():
                places = np.where(inside, codes - start, -1)
                found = _inner_products(queries, shard, places)
                products[inside] = found[inside]
            start += len(shard)
        scores = products.astype(np.float64)
        return scores if self.lengths is None else scores / self.lengths[codes]


def rescore_factor(settings: Index) -> int:
    """Return how many times as many products an index proposes as are wanted; 1: no rescoring."""
    return (settings.rescore or 1) if isinstance(settings, QuantisedIndex) else 1


def rescored(index: Any, settings: Index, similarity: Similarity, vectors: ShardReader) -> Any:
    """Return an index, with the vectors that order what it finds if its settings say so.

    Args:
        index: a FAISS index, or another that can take its place.
        settings: those of the index.
        similarity: what is compared.
        vectors: those of all products.

    Raises:
        PipelineError: a shard is missing or damaged.
    """
    factor = rescore_factor(settings)
    if factor == 1:
        return index
    vectors.check()
    lengths = None
    if similarity == "cosine":
        lengths = np.sqrt(np.concatenate([squared_lengths(piece) for piece in vectors]))
        if np.abs(lengths - 1).max() <= UNIT_LENGTH:
            lengths = None
    return Rescored(index, vectors, similarity, lengths, factor)


def _inner_products(queries: Matrix, shard: NDArray[Any], rows: Ints) -> Matrix:
    """Return the inner products of queries with rows of a shard; nothing where a row is -1."""
    if shard.dtype != np.float32:
        needed, places = np.unique(rows, return_inverse=True)
        shard = shard[np.maximum(needed, 0)].astype(np.float32)
        rows = np.where(rows < 0, -1, places.reshape(rows.shape))
    found = np.empty(rows.shape, np.float32)
    untyped: Any = faiss
    untyped.fvec_inner_products_by_idx(
        *map(faiss.swig_ptr, (found, queries, shard, rows)), queries.shape[1], *rows.shape
    )
    return found
