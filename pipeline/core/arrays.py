"""Names for the array types that modules hand to each other; blocks and samples of rows; .npy."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

SAMPLE_SEED = 29

Ints = NDArray[np.int64]
"""Row numbers, codes, counts: int64."""

Floats = NDArray[np.float64]
"""Scores, values of a measure: float64."""

Floats32 = NDArray[np.float32]
"""Numbers as FAISS and the models compute them: float32."""

Matrix = np.ndarray[Any, np.dtype[np.float32]]
"""Vectors as rows: float32, shape [rows, dimension]."""

Rows = TypeVar("Rows", range, Ints, NDArray[Any])


def blocks(rows: Rows, size: int) -> list[Rows]:
    """Return rows in blocks of at most `size`, but at least one: in order, none empty.

    Args:
        rows: their numbers, or an array of them; of an array, the blocks are views.
        size: how many rows are in each block but the last one.
    """
    size = max(1, size)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def sampled_rows(rows: int, most: int, seed: int = SAMPLE_SEED) -> Ints:
    """Return all rows, or a seeded sample of `most` of them, ascending."""
    if rows <= most:
        return np.arange(rows)
    chosen = np.random.default_rng(seed).choice(rows, most, replace=False)
    return np.sort(chosen)


def write_npy(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array as .npy; unlike `np.save`, a full disk shows as the system's own error."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as handle:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(array.data)
