"""Nearest neighbours: what an index finds, the exact ones, and the share of them it finds."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Matrix, blocks
from pipeline.core.faiss import faiss
from pipeline.core.params import FlatIndex, Similarity
from pipeline.index.kinds import codes_of, empty_index
from pipeline.retrieve import decoded, exact_l2, fast_scan
from pipeline.retrieve.rescored import Rescored
from pipeline.runs import ranking
from pipeline.runs.card import OVERLAP_DECIMALS
from pipeline.vectors.lengths import to_index_form

EXTRA_RESULTS = 100
"""Results beyond the depth, so that most ties at the last place need no second search."""

SEARCHED_QUERIES = 4_096
"""Queries per call of FAISS: it packs the vectors again for each call, and for every 4,096 queries
of one. Measured: exact search of 1,024 at once takes a quarter longer."""

RANKED_QUERIES = 512
"""Queries that are ranked at once, at most: their results fit the CPU's caches."""

RESULT_BYTES = 256_000_000
"""The most bytes of the results of the queries searched at once, and again of ranking them. Where a
million products tie, 4,096 queries would take 49 GB, and as much again."""

FOUND_BYTES, RANKED_BYTES = 12, 50
"""Bytes of one result as FAISS gives it (a score, a number), and while it is ranked."""

OVERLAP_DEPTH = 100
"""How many of a query's nearest products an index should find."""

Found = tuple[NDArray[np.floating[Any]], NDArray[np.int64], NDArray[np.floating[Any]]]
"""Scores and codes, both [queries, asked], and the best score that a product not among them can
have, [queries]."""

Find = Callable[[Matrix, int], Found]


def search(
    index: faiss.Index | Rescored, queries: Matrix, depth: int, given: Iterator[Found] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the first `depth` products of each query in the order of `ranking`.

    More products are asked for until none that was not returned can be among them: the ids decide
    between equal scores at the last place, not the order of FAISS. That holds for an index that
    compares all codes; hnsw, inverted lists and RaBitQ of several bits pass over some.

    Args:
        index: what is searched. Of a `Rescored` one, the first `factor * depth` products by their
            codes are ordered by their vectors.
        queries: as `to_index_form` returns them, [queries, dimension].
        depth: how many products per query.
        given: what each of the `first_calls` found elsewhere, if they were done.

    Returns:
        Scores and product codes, both [queries, min(depth, products)]; `ranking.NO_PRODUCT` fills
        places that an approximate index found nothing for.
    """
    depth = min(depth, index.ntotal)
    if isinstance(index, Rescored):
        return _search_rescored(index, queries, depth, given)
    scores = np.empty((len(queries), depth))
    codes = np.empty((len(queries), depth), dtype=np.int64)
    open_rows = np.arange(len(queries))
    asked = first_asked(index, depth)
    find = finder(index)
    while open_rows.size:
        unsure = np.zeros(len(queries), dtype=bool)
        for searched in blocks(open_rows, RESULT_BYTES // (FOUND_BYTES * asked)):
            whole = len(searched) == len(queries)
            if given is None:
                raw, found, beyond = find(queries if whole else queries[searched], asked)
            else:
                raw, found, beyond = next(given)
            best_beyond = np.round(beyond.astype(np.float64), ranking.SCORE_DECIMALS)
            at_once = min(RANKED_QUERIES, RESULT_BYTES // (RANKED_BYTES * asked))
            for part in blocks(np.arange(len(searched)), at_once):
                ranked, order = ranking.rank_matrix(raw[part], found[part])
                rows = searched[part]
                scores[rows], codes[rows] = ranked[:, :depth], order[:, :depth]
                unsure[rows] = best_beyond[part] >= ranked[:, depth - 1]
                unsure[rows] &= order[:, -1] != ranking.NO_PRODUCT
            del raw, found, beyond  # before there are others
        open_rows = np.flatnonzero(unsure) if asked < index.ntotal else open_rows[:0]
        asked, given = min(2 * asked, index.ntotal), None
    return scores, codes


def _search_rescored(
    index: Rescored, queries: Matrix, depth: int, given: Iterator[Found] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what `search` does, for `depth` products at most."""
    scores = np.empty((len(queries), depth))
    codes = np.empty((len(queries), depth), dtype=np.int64)
    wanted = min(index.factor * depth, index.ntotal)
    for rows in blocks(np.arange(len(queries)), RESULT_BYTES // (RANKED_BYTES * wanted)):
        _, proposed = search(index.index, queries[rows], wanted, given)
        by_vectors = index.score(queries[rows], proposed)
        ranked, order = ranking.rank_matrix(by_vectors, proposed)
        scores[rows], codes[rows] = ranked[:, :depth], order[:, :depth]
    return scores, codes


def first_asked(index: faiss.Index | Rescored, depth: int) -> int:
    """Return how many products per query `search` asks an index for at first."""
    factor = index.factor if isinstance(index, Rescored) else 1
    return min(factor * depth + EXTRA_RESULTS, index.ntotal)


def first_calls(
    index: faiss.Index | Rescored, queries: int, depth: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each first call of an index, where `search` gets a batch at a time."""
    asked = first_asked(index, depth)
    size = RESULT_BYTES // (FOUND_BYTES * asked)
    if isinstance(index, Rescored):
        size = min(size, RESULT_BYTES // (RANKED_BYTES * min(index.factor * depth, index.ntotal)))
    for batch in blocks(np.arange(queries), SEARCHED_QUERIES):
        yield from blocks(batch, size)


def finder(index: faiss.Index) -> Find:
    """Return what finds an index's nearest products."""

    def by_faiss(whole: Matrix, asked: int) -> Found:
        codes, queries = codes_of(index, whole)
        if decoded.is_faster(codes, queries, asked):
            return decoded.propose(codes, queries, asked)
        raw, found = codes.search(queries, asked)
        if fast_scan.is_scanned(codes):
            fast_scan.fill(codes, queries, raw, found)
        if index.metric_type == faiss.METRIC_L2:
            np.negative(raw, out=raw)
        return raw, found, raw[:, -1]

    if not (isinstance(index, faiss.IndexFlat) and index.metric_type == faiss.METRIC_L2):
        return by_faiss
    flat = index

    def exactly(queries: Matrix, asked: int) -> Found:
        # Here, so that this function keeps the index, which owns the memory.
        vectors = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)
        return exact_l2.propose(vectors, queries, asked)

    return exactly


def exact_codes(
    shards: Iterable[Matrix], queries: Matrix, depth: int, similarity: Similarity
) -> NDArray[np.int64]:
    """Return each query's nearest products by the vectors themselves, in the order of `ranking`.

    One shard is in memory at a time.

    Args:
        shards: the products' vectors; row i of all of them together is product i.
        queries: as `to_index_form` returns them, shape [queries, dimension].
        depth: how many products per query.
        similarity: what is compared.

    Returns:
        Product codes, shape [queries, min(depth, products)].
    """
    scores = np.empty((len(queries), 0))
    codes = np.empty((len(queries), 0), dtype=np.int64)
    start = 0
    for shard in shards:
        flat = empty_index(FlatIndex(kind="flat"), shard.shape[1], similarity)
        flat.add(to_index_form(shard, similarity, "products", start))
        nearest, found = search(flat, queries, depth)
        ranked, both = ranking.rank_matrix(
            np.concatenate([scores, nearest], axis=1),
            np.concatenate([codes, found + start], axis=1),
        )
        scores, codes = ranked[:, :depth], both[:, :depth]
        start += len(shard)
    return codes


def overlap(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Return the mean share of each query's exact neighbours that were found, in any order.

    It is rounded to `OVERLAP_DECIMALS`.

    Args:
        found: product codes or `ranking.NO_PRODUCT`, shape [queries, any].
        exact: product codes, shape [queries, depth], depth at least 1.
    """
    width = 1 + max(found.max(initial=0), exact.max(initial=0))
    query = np.arange(len(exact))[:, None] * width
    pairs = (query + found)[found != ranking.NO_PRODUCT]
    return round(float(np.isin(query + exact, pairs).mean()), OVERLAP_DECIMALS)


def index_overlap(
    index: faiss.Index | Rescored,
    queries: Matrix,
    shards: Iterable[Matrix],
    similarity: Similarity,
) -> float:
    """Return the mean share of the exact top `OVERLAP_DEPTH` that an index finds as its own.

    The arguments are those of `exact_codes`.
    """
    exact = exact_codes(shards, queries, OVERLAP_DEPTH, similarity)
    _, found = search(index, queries, OVERLAP_DEPTH)
    return overlap(found, exact)
