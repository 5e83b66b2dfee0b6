"""Search codes for many queries at once: a block of codes is decoded once and multiplied with them.

FAISS (1.15) decodes the codes of a scalar quantiser, and of EDEN, again for every query. Here a
matrix product (`multiply`) proposes products, and FAISS scores these by their codes, as its own
search does: the scores are its own to the last bit. A bound of the product's error says how good
the others can be.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
    longest_code,
    longest_vector,
)
from pipeline.vectors.lengths import squared_lengths

BLOCK_QUERIES, BLOCK_PRODUCTS = 512, 2_048
"""How many are compared at once: 4 MB of products, and 3 MB of vectors of 384 components; in
integers, 8 MB of products and 1 MB of codes."""

LEAST_QUERIES = 32
"""With fewer queries, decoding takes longer than it saves."""

LEAST_PRODUCTS = 4
"""How many times as many products as are asked for there must be: else most are scored twice."""

MORE_BY_INTEGERS = 1.5
"""How many times as many products are proposed by integers: so nearly always, those asked for are
certainly among them."""

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
    if not is_faster_in_integers(index, len(queries)):
        return _propose(Decoded, index, queries, asked)
    with kept_torch_threads():
        more = round(MORE_BY_INTEGERS * asked)
        scores, rows, bound = _propose(Integers, index, queries, more)
    order = np.argpartition(scores, -asked, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    rows = np.take_along_axis(rows, order, axis=1)[:, -asked:]
    beyond = np.maximum(bound, scores[:, :-asked].max(axis=1))
    scores = scores[:, -asked:]
    unsure = np.flatnonzero(bound > scores.min(axis=1))
    if unsure.size:
        found = _propose(Decoded, index, queries[unsure], asked)
        scores[unsure], rows[unsure], beyond[unsure] = found
    return scores, rows, beyond


@dataclass(frozen=True)
class _Proposed:
    """The products that are proposed.

    Attributes:
        scores: by FAISS, [queries, asked].
        rows: theirs, [queries, asked].
        last: the least product of those that are proposed, as it was estimated, [queries].
        lost: how much larger the true one can be, over the length of the longest code, [queries].
    """

    scores: Floats32
    rows: Ints
    last: Floats
    lost: Floats


def _propose(
    way: type[Decoded | Integers], index: Any, queries: Matrix, asked: int
) -> tuple[Floats32, Ints, Floats]:
    """Return what `propose` does, by one way of multiplying."""
    proposed = _Proposed(
        np.empty((len(queries), asked), np.float32), np.empty((len(queries), asked), np.int64),
        np.empty(len(queries)), np.empty(len(queries)),
    )  # fmt: skip
    threads = faiss.omp_get_max_threads()
    size = min(BLOCK_QUERIES, -(-len(queries) // threads))
    parts = [slice(start, start + size) for start in range(0, len(queries), size)]
    search = partial(_search, way, index, queries, proposed)
    with threadpool_limits(1, "blas"):  # each thread multiplies by itself
        for _ in in_parallel(search, parts, threads):
            pass
        longest = _most(longest_vector, index, threads) + _undecoded(index)
        last = proposed.last
        if way is Integers:
            last += proposed.lost * _most(longest_code, index, threads)
    # A sum of n rounded products is off by at most n u / (1 - n u) of the sum of their sizes, in
    # any order (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). FAISS's
    # and this one of floats are; that of integers is rounded once, by less than `_undecoded` counts
    # for. The rest is for the squares and for their sum.
    roundings = 2.02 * (queries.shape[1] + 10) * np.finfo(np.float32).eps / 2
    squares, distances = squared_lengths(queries), index.metric_type == faiss.METRIC_L2
    lengths = np.sqrt(squares)
    sizes = (lengths + longest) ** 2 if distances else lengths * longest
    if distances:  # -|x - y|² = 2 (xy - |y|² / 2) - |x|²
        return -proposed.scores, proposed.rows, 2 * last - squares + roundings * sizes
    return proposed.scores, proposed.rows, last + roundings * sizes


def _search(
    way: type[Decoded | Integers], index: Any, queries: Matrix, proposed: _Proposed, part: slice
) -> None:
    """Fill in what is proposed for some queries."""
    faiss.omp_set_num_threads(1)  # of this thread
    scores, rows = proposed.scores[part], proposed.rows[part]
    mine, near = queries[part], np.empty_like(scores)
    heaps: Any = faiss.float_minheap_array_t()
    heaps.nh, heaps.k = near.shape
    heaps.val, heaps.ids = faiss.swig_ptr(near), faiss.swig_ptr(rows)
    heaps.heapify()
    multiplied = way(index, mine)
    for start in range(0, index.ntotal, BLOCK_PRODUCTS):
        products = multiplied.products(start, min(start + BLOCK_PRODUCTS, index.ntotal))
        heaps.addn(products.shape[1], faiss.swig_ptr(products), start)
    proposed.last[part] = multiplied.estimate(near[:, 0])  # the least of a heap
    proposed.lost[part] = multiplied.lost
    _score(index, mine, rows, scores)


def _most(length: Callable[[Any, int, int], float], index: Any, threads: int) -> float:
    """Return the largest of the lengths that a function finds in blocks of an index."""

    def of_block(start: int) -> float:
        faiss.omp_set_num_threads(1)  # of this thread
        return length(index, start, min(start + BLOCK_PRODUCTS, index.ntotal))

    return max(in_parallel(of_block, range(0, index.ntotal, BLOCK_PRODUCTS), threads))


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
