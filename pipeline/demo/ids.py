"""Product ids like Amazon's."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LETTERS = 8
_BASE_36 = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)


def product_ids(
    seed: int, lane: int, lanes: int, numbers: NDArray[np.int64], twin: int = 0
) -> pa.Array:
    """Return the id of each product of a lane; one in 20 is the same in all, a twin is the next id.

    Distinct for all numbers below 2^26: an odd factor permutes the residues of 2^37, and the lane
    has bits of its own.

    Args:
        seed: of the ids.
        lane: which locale it is.
        lanes: how many there are, 3 at most.
        numbers: of the products, from 0.
        twin: 1 for the ids of the products' twins.
    """
    offset, factor = np.random.default_rng([seed]).integers(2**37, size=2).tolist()
    residues = (numbers.astype(np.uint64) * np.uint64(factor | 1) + np.uint64(offset)) % 2**37
    lane_of = np.where(numbers % 20 == 7, lanes, lane).astype(np.uint64)
    rest: NDArray[Any] = (residues * np.uint64(4) + lane_of) * np.uint64(2) + np.uint64(twin)
    text = np.empty((len(numbers), 2 + LETTERS), np.uint8)
    text[:, :2] = np.frombuffer(b"B0", np.uint8)
    for place in range(1 + LETTERS, 1, -1):
        text[:, place] = _BASE_36[rest % np.uint64(36)]
        rest //= np.uint64(36)
    ends = np.arange(len(numbers) + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(
        len(numbers), pa.py_buffer(ends), pa.py_buffer(text.tobytes())
    )
