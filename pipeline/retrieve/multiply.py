"""Products of queries with the vectors of codes, in blocks: in floats or in integers.

The codes of sq8 are integers of 8 bits already. A CPU with instructions for them multiplies four
times as many of these as floats. The queries are rounded to such integers, and what that loses is
known.
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

_LARGEST = 127
"""A rounded query goes from -127 to 127."""

_MOST_COMPONENTS = 2**24 // (_CENTRE * _LARGEST)
"""With up to this many, float32 holds every product of integers."""


class Decoded:
    """Products with decoded vectors."""

    lost = 0.0

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

    def estimate(self, products: Floats32) -> Floats:
        """Return the true products, one of each query."""
        return products.astype(np.float64)


class Integers:
    """Products of rounded queries with codes of sq8, whole numbers.

    With w the query times the step of each component's codes, and c a code less 128, the true
    product is that of the query and the vector of c = 0, plus w · c. Here w is a unit times whole
    numbers, and a rest: what is left out is at most the rest's length times that of c.

    Attributes:
        lost: the length of the rest, [queries].
    """

    def __init__(self, index: Any, queries: Matrix) -> None:
        """Take the codes of sq8, and float32 [queries, dimension]."""
        import torch  # here, because few searches are so large

        torch.set_num_threads(1)  # of this thread
        low, width = faiss.vector_to_array(index.sq.trained).reshape(2, -1).astype(np.float64)
        step = width / _LEVELS
        weights = queries * step
        largest = np.abs(weights).max(axis=1, keepdims=True)
        unit = np.where(largest > 0, largest, 1) / _LARGEST
        whole = np.rint(weights / unit)
        self.lost = np.linalg.norm(weights - unit * whole, axis=1)
        self._whole, self._unit = whole.astype(np.int8), unit[:, 0]
        self._constant = queries @ (low + (_CENTRE + 0.5) * step)
        self._index = index

    def products(self, start: int, end: int) -> Floats32:
        """Return the products with the codes of some rows."""
        found = _multiply(self._whole, _centred_codes(self._index, start, end))
        return np.asarray(found.float().numpy())

    def estimate(self, products: Floats32) -> Floats:
        """Return the true products nearly, one of each query."""
        return np.asarray(self._unit * products + self._constant)


def longest_vector(index: Any, start: int, end: int) -> float:
    """Return the length of the longest of some decoded vectors, or a little more."""
    return _longest(index.reconstruct_n(start, end - start))


def longest_code(index: Any, start: int, end: int) -> float:
    """Return the length of the longest of some codes of sq8 less 128, or a little more."""
    return _longest(_centred_codes(index, start, end).astype(np.float32))


def _longest(vectors: Matrix) -> float:
    return 1.001 * float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max()))


def _centred_codes(index: Any, start: int, end: int) -> NDArray[np.int8]:
    """Return some codes of sq8 less 128, [rows, dimension]."""
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    rows = codes.reshape(index.ntotal, index.code_size)[start:end]
    return (rows ^ np.uint8(_CENTRE)).view(np.int8)


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
    for rows, others in ((1, 2), (2, 1), (33, 70), (512, 2_048)):
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
