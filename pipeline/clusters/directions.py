"""The directions of vectors, as seen from the middle of the catalogue."""

import numpy as np

from pipeline.core.arrays import Ints, Matrix, blocks
from pipeline.vectors.shards import ShardReader

_BLOCK_ROWS = 8_192


class Directions:
    """Vectors less their mean, at length 1.

    Vectors of many encoders fill a narrow cone, and what they share says nothing: without it,
    clusters differ more (Mu, Viswanath: All-but-the-Top, ICLR 2018). A vector that equals the mean
    has no direction and is zero.
    """

    def __init__(self, vectors: ShardReader) -> None:
        """Compute the mean, in one pass; raises as iterating over a `ShardReader` does.

        Args:
            vectors: float32 [rows, dimension].
        """
        vectors.check()
        self._vectors = vectors
        self.rows = vectors.rows
        # In blocks that are always the same, so that no sum depends on the shards.
        sums = [
            vectors.take(np.asarray(rows)).sum(axis=0, dtype=np.float64)
            for rows in blocks(range(vectors.rows), _BLOCK_ROWS)
        ]
        self._mean = np.sum(sums, axis=0) / vectors.rows

    def take(self, rows: Ints) -> Matrix:
        """Return the directions of `rows`, which ascend; float32 [rows, dimension]."""
        vectors = self._vectors.take(rows)
        centred = vectors - self._mean
        lengths = np.sqrt(np.square(centred).sum(axis=1, keepdims=True))
        # What rounding left of a vector that equals the mean.
        nothing = lengths <= 1e-6 * np.linalg.norm(self._mean)
        return np.where(nothing, 0, centred / np.where(nothing, 1, lengths)).astype(np.float32)
