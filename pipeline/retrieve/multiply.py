"""Products of queries with the vectors of codes, in blocks: in floats or in integers.

The codes of sq8 are integers of 8 bits already. A CPU with instructions for them multiplies four
times as many of these as floats. A query becomes the sum of two such vectors, one for what the
other leaves; so a product is nearly as exact as one of floats.
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

LEAST_NUMBERS = 5 * 10**11
"""How many products of two numbers there must be: importing PyTorch, which multiplies integers,
takes as long as some 10¹¹ of them."""

INSTRUCTIONS = "avx512_vnni"
"""Those for integers of 8 bits that PyTorch uses; CPUs with AMX have them too."""

_CENTRE, _LEVELS = 128, 255
"""128 is taken from each code, 0 to 255."""

_LARGEST, _FINER = 127, 128
"""The first part of a query goes from -127 to 127, the second from -64 to 64; it is 128 times as
fine."""

_MOST_COMPONENTS = 2**31 // (_CENTRE * (_LARGEST * _FINER + _FINER // 2))
"""With more, a product of both parts may be too large for 32 bits."""


class Decoded:
    """Products with decoded vectors."""

    def __init__(self, index: Any, queries: Matrix) -> None:
        """Take the codes, and float32 [queries, dimension]."""
        self._index, self._queries = index, queries

    def products(self, start: int, end: int) -> Floats32:
        """Return the products with the vectors of some rows; by l2, less half their squares."""
        vectors = self._index.reconstruct_n(start, end - start)
        products: Floats32 = self._queries @ vectors.T
        if self._index.metric_type == faiss.METRIC_L2:
            products -= np.einsum("ij,ij->i", vectors, vectors) / 2
        return products

    def most(self, products: Floats32) -> Floats:
        """Return how large the true products can be, one of each query, but for rounding."""
        return products.astype(np.float64)


class Integers:
    """Products of queries in two parts with codes of sq8, in units of the second part.

    With w the query times the step of each component's codes, and c a code less 128, the true
    product is that of the query and the vector of c = 0, plus w · c. Here w is both parts in their
    units, and a rest r: what is left out is 128 times the sum of |r| at most.
    """

    def __init__(self, index: Any, queries: Matrix) -> None:
        """Take the codes of sq8, and float32 [queries, dimension]."""
        import torch  # here, because few searches are so large

        torch.set_num_threads(1)  # of this thread
        low, width = faiss.vector_to_array(index.sq.trained).reshape(2, -1).astype(np.float64)
        step = width / _LEVELS
        weights = queries * step
        largest = np.abs(weights).max(axis=1, keepdims=True)
        unit = np.where(largest > 0, largest, 1) / (_LARGEST * _FINER)
        first = np.rint(weights / (_FINER * unit))
        second = np.rint(weights / unit - _FINER * first)
        rest = weights - unit * (_FINER * first + second)
        self._parts = np.concatenate([first, second]).astype(np.int8)
        self._unit, self._constant = unit[:, 0], queries @ (low + (_CENTRE + 0.5) * step)
        self._left_out = 1.001 * _CENTRE * np.abs(rest).sum(axis=1)
        codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
        self._codes = codes.reshape(index.ntotal, index.code_size)

    def products(self, start: int, end: int) -> Floats32:
        """Return the products with the codes of some rows."""
        codes = (self._codes[start:end] ^ np.uint8(_CENTRE)).view(np.int8)
        first, second = _multiply(self._parts, codes).chunk(2)
        return np.asarray(second.add_(first, alpha=_FINER).float().numpy())

    def most(self, products: Floats32) -> Floats:
        """Return how large the true products can be, one of each query, but for rounding."""
        return np.asarray(self._unit * products + self._constant + self._left_out)


def longest(index: Any, start: int, end: int) -> float:
    """Return the length of the longest of some decoded vectors, or a little more."""
    vectors = index.reconstruct_n(start, end - start)
    return 1.001 * float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max()))


def is_faster_in_integers(index: Any, queries: int) -> bool:
    """Say whether this CPU multiplies so many queries with an index's codes faster in integers."""
    return (
        isinstance(index, faiss.IndexScalarQuantizer)
        and index.sq.qtype == faiss.ScalarQuantizer.QT_8bit
        and index.metric_type == faiss.METRIC_INNER_PRODUCT
        and index.d <= _MOST_COMPONENTS
        and queries * index.ntotal * index.d >= LEAST_NUMBERS
        and INSTRUCTIONS in cpu_flags()
        and _multiplies_right(index.d)
    )


@cache
def _multiplies_right(dimension: int) -> bool:
    """Say whether PyTorch multiplies integers of so many components without loss.

    It may not, and says nothing: on some CPUs, sums of two products are kept in 16 bits
    (pytorch/pytorch#136746); where a dimension of one has an unusual stride, the result is left as
    it was (#195066).
    """
    import torch

    if dimension < 2 or not hasattr(torch, "_int_mm"):
        return False
    for rows, others in ((2, 1), (2, 2), (66, 70), (1_024, 2_048)):
        queries = np.full((rows, dimension), _LARGEST, np.int8)
        codes = np.full((others, dimension), -_CENTRE, np.int8)
        queries[1::2], codes[1::2] = -_LARGEST, _LARGEST
        exact = queries.astype(np.float64) @ codes.T.astype(np.float64)
        if not np.array_equal(_multiply(queries, codes).numpy(), exact):
            return False
    return True


def _multiply(queries: NDArray[np.int8], codes: NDArray[np.int8]) -> Any:
    """Return the products of two lists of vectors, a tensor of 32 bits [queries, codes]."""
    import torch

    return torch._int_mm(torch.from_numpy(queries), torch.from_numpy(codes).t())


@contextmanager
def kept_torch_threads() -> Iterator[None]:
    """Give PyTorch back the number of threads that it has now; not for two calls at a time."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
