"""Exact nearest neighbours by Euclidean distance.

FAISS compares many queries at once as |x|² + |y|² - 2xy in float32 (version 1.15; one query alone
too, where it uses several threads). Where vectors are nearly equal, the distance is smaller than
the rounding errors of that sum: of vectors at cosine 0.9999 it finds 98 % of the nearest 100. Here
the sum is in float64 and only proposes products. Their scores are computed again from differences,
and a bound of the sum's error says how near a product that was not proposed can be.
"""

import numpy as np

from pipeline.core.arrays import Floats, Ints, Matrix
from pipeline.vectors.lengths import squared_lengths
from pipeline.vectors.pairs import l2_scores

BLOCK_QUERIES, BLOCK_PRODUCTS = 512, 4_096
"""How many are compared at once: 16 MB of distances, which fit the CPU's caches."""


def propose(vectors: Matrix, queries: Matrix, asked: int) -> tuple[Floats, Ints, Floats]:
    """Return the nearest products of each query, with the scores of `l2_scores`.

    Args:
        vectors: those of all products, float32 [products, dimension].
        queries: float32 [queries, dimension].
        asked: how many products per query, at most all.

    Returns:
        Scores and codes, both [queries, asked], in no order; and the best score that a product
        not among them can have, -inf where there is none, [queries].
    """
    scores = np.empty((len(queries), asked))
    codes = np.empty((len(queries), asked), dtype=np.int64)
    beyond = np.empty(len(queries))
    lengths = squared_lengths(vectors)
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        codes[block], beyond[block] = _nearest(vectors, lengths, queries[block], asked)
    for row, query in enumerate(queries):
        scores[row] = l2_scores(query, vectors[codes[row]])
    return scores, codes, beyond


def _nearest(vectors: Matrix, lengths: Floats, queries: Matrix, asked: int) -> tuple[Ints, Floats]:
    """Return the codes of the products that seem nearest, and the best score of the others."""
    own = queries.astype(np.float64)
    own_lengths = squared_lengths(queries)
    near: Floats = np.empty((len(queries), 0))
    codes: Ints = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, len(vectors), BLOCK_PRODUCTS):
        block = slice(start, start + BLOCK_PRODUCTS)
        distances = own @ vectors[block].astype(np.float64).T
        distances *= -2
        distances += own_lengths[:, None]
        distances += lengths[block]
        numbers = np.arange(start, start + distances.shape[1])
        codes = np.concatenate([codes, np.broadcast_to(numbers, distances.shape)], axis=1)
        near = np.concatenate([near, distances], axis=1)
        if near.shape[1] > asked:
            kept = np.argpartition(near, asked - 1, axis=1)[:, :asked]
            near = np.take_along_axis(near, kept, axis=1)
            codes = np.take_along_axis(codes, kept, axis=1)
    if asked == len(vectors):
        return codes, np.full(len(queries), -np.inf)
    # A sum of n rounded products is off by at most n u / (1 - n u) of the sum of their sizes, in
    # any order (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
    roundings = (vectors.shape[1] + 3) * np.finfo(np.float64).eps / 2
    sizes = (np.sqrt(own_lengths) + np.sqrt(lengths.max())) ** 2
    return codes, 1.01 * roundings * sizes - near.max(axis=1)
