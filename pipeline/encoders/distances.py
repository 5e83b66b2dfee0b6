"""How far two computations of the same rows are apart."""

import numpy as np
from numpy.typing import NDArray


def cosine_distance(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine distance of rows, and more where their lengths differ; NaN for NaN."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity gives NaN too
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        squares = np.square(a - b).sum(axis=1)
        distance: NDArray[np.float64] = squares / np.maximum(2 * lengths, np.finfo(float).tiny)
    return distance


def score_distance(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how far rows of logits are apart, as cosine distance measures vectors; NaN for NaN.

    It is half the square of the largest difference, relative to logits that are larger than 1.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.square(a - b).max(axis=1)
        largest = np.square(np.maximum(np.abs(a), np.abs(b))).max(axis=1)
        distance: NDArray[np.float64] = squares / np.maximum(2 * largest, 2)
    return distance
