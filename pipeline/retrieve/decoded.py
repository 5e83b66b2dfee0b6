"""Search codes for many queries at once: a block of codes is decoded once and multiplied with them.

FAISS (1.15) decodes the codes of a scalar quantiser, and of EDEN, again for every query. Here a
matrix product (`multiply`) proposes products, and FAISS scores these by their codes, as its own
search does: the scores are its own to the last bit. A bound of the product's error says how good
the others can be.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.core.arrays import Floats, Floats32, Ints, Matrix
from pipeline.core.faiss import faiss
from pipeline.core.parallel import in_parallel
from pipeline.retrieve.multiply import (
    Decoded,
    Integers,
    is_faster_in_integers,
    kept_torch_threads,
    longest,
)
from pipeline.vectors.lengths import squared_lengths

BLOCK_QUERIES, BLOCK_PRODUCTS = 512, 2_048
"""How many are compared at once: 4 MB of products, and 3 MB of vectors of 384 components; in
integers, 12 MB of products and 1 MB of codes."""

LEAST_QUERIES = 32
"""With fewer queries, decoding takes longer than it saves."""

LEAST_PRODUCTS = 4
"""How many times as many products as are asked for there must be: else most are scored twice."""

_EDEN = getattr(faiss, "IndexEDEN", ())


def is_faster(index: Any, queries: Matrix, asked: int) -> bool:
    """Say whether `propose` knows this index, and takes less time than its own search."""
    known = isinstance(index, faiss.IndexScalarQuantizer) or (
        # A distance of EDEN's is not that of the decoded vector; an inner product is.
        isinstance(index, _EDEN) and index.metric_type != faiss.METRIC_L2
    )
    return known and len(queries) >= LEAST_QUERIES and index.ntotal >= LEAST_PRODUCTS * asked


def propose(index: Any, queries: Matrix, asked: int) -> tuple[Floats32, Ints, Floats]:
    """Return products of each query, with the scores that `index.search` gives them.

    Args:
        index: the codes.
        queries: float32 [queries, dimension].
        asked: how many products per query.

    Returns:
        Scores (higher is better) and rows, both [queries, asked], in no order; and the best score
        that a product not among them can have, [queries].
    """
    way: type[Decoded | Integers] = Decoded
    torch_threads: AbstractContextManager[None] = nullcontext()
    if is_faster_in_integers(index, len(queries)):
        way, torch_threads = Integers, kept_torch_threads()
    scores = np.empty((len(queries), asked), np.float32)
    rows = np.empty((len(queries), asked), np.int64)
    last = np.empty(len(queries))
    threads = faiss.omp_get_max_threads()
    size = min(BLOCK_QUERIES, -(-len(queries) // threads))
    parts = [slice(start, start + size) for start in range(0, len(queries), size)]
    search = partial(_search, index, queries, scores, rows, last, way)
    with threadpool_limits(1, "blas"), torch_threads:  # each thread multiplies by itself
        for _ in in_parallel(search, parts, threads):
            pass
        starts = range(0, index.ntotal, BLOCK_PRODUCTS)
        most = max(in_parallel(partial(_longest, index), starts, threads)) + _undecoded(index)
    # A sum of n rounded products is off by at most n u / (1 - n u) of the sum of their sizes, in
    # any order (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). FAISS's
    # and this one of floats are; that of integers is rounded once, by less than `_undecoded` counts
    # for. The rest is for the squares and for their sum.
    roundings = 2.02 * (queries.shape[1] + 10) * np.finfo(np.float32).eps / 2
    squares, distances = squared_lengths(queries), index.metric_type == faiss.METRIC_L2
    lengths = np.sqrt(squares)
    sizes = (lengths + most) ** 2 if distances else lengths * most
    if distances:  # -|x - y|² = 2 (xy - |y|² / 2) - |x|²
        return -scores, rows, 2 * last - squares + roundings * sizes
    return scores, rows, last + roundings * sizes


def _search(
    index: Any,
    queries: Matrix,
    scores: Floats32,
    rows: Ints,
    last: Floats,
    way: type[Decoded | Integers],
    part: slice,
) -> None:
    """Fill in scores and rows of some queries, and the most that the product of another row is."""
    faiss.omp_set_num_threads(1)  # of this thread
    mine, near = queries[part], np.empty_like(scores[part])
    heaps: Any = faiss.float_minheap_array_t()
    heaps.nh, heaps.k = near.shape
    heaps.val, heaps.ids = faiss.swig_ptr(near), faiss.swig_ptr(rows[part])
    heaps.heapify()
    multiplied = way(index, mine)
    for start in range(0, index.ntotal, BLOCK_PRODUCTS):
        products = multiplied.products(start, min(start + BLOCK_PRODUCTS, index.ntotal))
        heaps.addn(products.shape[1], faiss.swig_ptr(products), start)
    last[part] = multiplied.most(near[:, 0])  # the least of a heap
    _score(index, mine, rows[part], scores[part])


def _longest(index: Any, start: int) -> float:
    """Return `longest` of a block."""
    faiss.omp_set_num_threads(1)  # of this thread
    return longest(index, start, min(start + BLOCK_PRODUCTS, index.ntotal))


def _score(index: Any, queries: Matrix, rows: Ints, scores: Floats32) -> None:
    """Let FAISS score the proposed rows, in place; few at once, as their codes are copied."""
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    codes = codes.reshape(index.ntotal, index.code_size)
    few = empty(index)
    for at in range(len(queries)):
        rows[at].sort()
        for start in range(0, rows.shape[1], BLOCK_PRODUCTS):
            part = slice(start, start + BLOCK_PRODUCTS)
            proposed = rows[at, part]
            few.reset()
            few.add_sa_codes(codes[proposed])
            near, places = few.search(queries[at : at + 1], len(proposed))
            scores[at, part], rows[at, part] = near[0], proposed[places[0]]


def _undecoded(index: Any) -> float:
    """Return by how much a vector counts as longer, for the rounding errors of decoding.

    A component of sq8 is the sum of an end and a part of a range, each of which may be larger. EDEN
    adds the products with the centre and with the rest.
    """
    if isinstance(index, _EDEN):
        return 2 * float(np.linalg.norm(faiss.vector_to_array(index.center)))
    ends = np.abs(faiss.vector_to_array(index.sq.trained).reshape(2, -1).astype(np.float64))
    return float(4 * np.linalg.norm(ends.sum(axis=0)) / (index.d + 10))


def empty(index: Any) -> Any:
    """Return an index with the codebook of another, flat or one that `propose` knows, no codes."""
    if isinstance(index, faiss.IndexFlat):
        return faiss.IndexFlat(index.d, index.metric_type)
    if isinstance(index, _EDEN):
        empty = faiss.IndexEDEN(index.d, index.metric_type, index.sq.bits)
        empty.train(faiss.vector_to_array(index.center)[np.newaxis])  # its own mean
        return empty
    made: Any = faiss.IndexScalarQuantizer(index.d, index.sq.qtype, index.metric_type)
    made.sq.trained, made.is_trained = index.sq.trained, True
    return made
