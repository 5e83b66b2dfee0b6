"""Products of queries with the vectors of codes, in blocks: in floats, or nearly in integers.

The codes of sq8 are integers of 8 bits already. A CPU with instructions for them multiplies four
times as many of these as floats. The queries are rounded to 8 bits; what that loses is known.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Floats32, Matrix
from pipeline.core.cpu import cpu_flags
from pipeline.core.faiss import faiss

LEAST_NUMBERS = 3 * 10**11
"""How many products of two numbers there must be: importing PyTorch, which multiplies integers,
takes as long as some 10¹¹ of them."""

INSTRUCTIONS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
"""Those that multiply integers of 8 bits."""

_CENTRE, _LEVELS, _LARGEST = 128, 255, 127
"""A code, 0 to 255, is taken from 128; a rounded query goes from -127 to 127."""

_EXACT_DIMENSION = 2**24 // (_CENTRE * _LARGEST)
"""With up to this many components, float32 holds every product of integers."""


class Decoded:
    """Products with decoded vectors: exact but for the rounding of floats."""

    def __init__(self, index: Any, queries: Matrix) -> None:
        """Take the codes, and float32 [queries, dimension]."""
        self._index, self._queries, self._square = index, queries, 0.0

    def products(self, start: int, end: int) -> Floats32:
        """Return the products with the vectors of some rows; by l2, less half their squares."""
        vectors = self._index.reconstruct_n(start, end - start)
        squares = np.einsum("ij,ij->i", vectors, vectors)
        self._square = max(self._square, float(squares.max()))
        products: Floats32 = self._queries @ vectors.T
        if self._index.metric_type == faiss.METRIC_L2:
            products -= squares / 2
        return products

    def most(self, products: Floats32) -> Floats:
        """Return the most that products can truly be, one of each query, but for rounding."""
        return products.astype(np.float64)

    def longest(self) -> float:
        """Return the length of the longest vector so far, or more."""
        return 1.001 * float(np.sqrt(self._square))


class Integers:
    """Products with codes of sq8 in integers, in the order of the true ones but for `most`.

    With w the query times the step of each component's codes, and c a code less 128, the product is
    that of the query and the vector of c = 0, plus w · c. Here w is s times integers, and a rest r:
    the integers' products are off by |r| |c| at most.
    """

    def __init__(self, index: Any, queries: Matrix) -> None:
        """Take the codes of sq8, and float32 [queries, dimension]."""
        low, width = faiss.vector_to_array(index.sq.trained).reshape(2, -1).astype(np.float64)
        step = width / _LEVELS
        self._zero, self._step = low + (_CENTRE + 0.5) * step, step
        weights = queries * step
        largest = np.abs(weights).max(axis=1, keepdims=True)
        scale = np.where(largest > 0, largest, 1) / _LARGEST
        whole = np.rint(weights / scale)
        self._rest = np.linalg.norm(weights - scale * whole, axis=1)
        self._whole, self._scale = whole.astype(np.int8), scale[:, 0]
        self._constant = queries @ self._zero
        codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
        self._codes = codes.reshape(index.ntotal, index.code_size)
        self._square = 0.0

    def products(self, start: int, end: int) -> Floats32:
        """Return the products with the codes of some rows, whole numbers."""
        codes = (self._codes[start:end] ^ np.uint8(_CENTRE)).view(np.int8)
        numbers = codes.astype(np.float32)
        self._square = max(self._square, float(np.einsum("ij,ij->i", numbers, numbers).max()))
        return _multiply(self._whole, codes)

    def most(self, products: Floats32) -> Floats:
        """Return the most that products can truly be, one of each query, but for rounding."""
        lost = self._rest * np.sqrt(self._square)
        return np.asarray(self._scale * products + self._constant + lost)

    def longest(self) -> float:
        """Return the length of the longest vector so far, or more."""
        length = np.linalg.norm(self._zero) + np.abs(self._step).max() * np.sqrt(self._square)
        return 1.001 * float(length)


def is_faster_in_integers(index: Any, queries: int) -> bool:
    """Say whether this CPU multiplies so many queries with an index's codes faster in integers."""
    return (
        isinstance(index, faiss.IndexScalarQuantizer)
        and index.metric_type == faiss.METRIC_INNER_PRODUCT
        and index.d <= _EXACT_DIMENSION
        and queries * index.ntotal * index.d >= LEAST_NUMBERS
        and not INSTRUCTIONS.isdisjoint(cpu_flags())
        and _multiplies_right(index.d)
    )


def _multiply(queries: NDArray[np.int8], codes: NDArray[np.int8]) -> Floats32:
    """Return the products of two lists of vectors in integers, whole numbers."""
    import torch  # here, because few searches are so large

    found = torch._int_mm(torch.from_numpy(queries), torch.from_numpy(codes).t())
    return np.asarray(found.float().numpy())


@cache
def _multiplies_right(dimension: int) -> bool:
    """Say whether PyTorch multiplies integers of so many components without loss.

    It may not, and says nothing: on some CPUs, sums of two products are kept in 16 bits
    (pytorch/pytorch#136746); of some shapes, the result is left as it was (#195066).
    """
    import torch

    if not hasattr(torch, "_int_mm"):
        return False
    queries = np.full((2, dimension), _LARGEST, np.int8)
    codes = np.full((2, dimension), -_CENTRE, np.int8)
    queries[1], codes[1] = -_LARGEST, _LARGEST
    exact = queries.astype(np.int64) @ codes.T.astype(np.int64)
    return bool(np.array_equal(_multiply(queries, codes), exact))


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Let PyTorch multiply on the thread that asks, and on no other."""
    import torch  # here, because few searches are so large

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
