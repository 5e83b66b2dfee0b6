"""Build an index from vectors, `PIECE_ROWS` at a time, with the same bytes every time."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.core.arrays import Matrix, sampled_rows
from pipeline.core.faiss import faiss, faiss_threads
from pipeline.core.params import (
    FilledByCodes,
    HnswIndex,
    Index,
    Similarity,
    Sq8Index,
)
from pipeline.index import size as index_size
from pipeline.index.codes import Adder, add_here
from pipeline.index.kinds import (
    TRAINING_SEED,
    empty_index,
    is_rotated,
    rotate,
    rotation,
)
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.shards import PIECE_ROWS

GRAPHS_ARE_DETERMINISTIC = hasattr(faiss, "hnsw_add_vertices_deterministic")
"""Whether FAISS builds the same graph with any number of threads (1.15 does)."""


def build_index(
    index: Index,
    dimension: int,
    similarity: Similarity,
    shards: Iterable[Matrix],
    rows: int | None = None,
    add: Adder = add_here,
) -> faiss.Index:
    """Return an index that holds the vectors of all shards; row i has id i.

    The vectors are added `PIECE_ROWS` at a time, wherever shards end; to a graph all at once: in
    one that grows piece by piece, far parts lack links to each other. An inverted file is trained
    here and filled by `add`, which may use other machines; the others have too little to compute
    for that, or FAISS cannot fill them with codes (hnsw, ivf-pq-fastscan).

    Args:
        index: its settings.
        dimension: the vectors' components.
        similarity: what is compared.
        shards: float32, [any, dimension] each; read twice where the index is trained.
        rows: how many vectors there are; if left out, they are read once more and counted.
        add: adds the vectors to an inverted file.
    """
    rows = sum(map(len, shards)) if rows is None else rows
    # One thread: with several, k-means and a rotation depend on the BLAS, and a graph on which is
    # first.
    parallel = isinstance(index, HnswIndex) and GRAPHS_ARE_DETERMINISTIC
    threads = faiss.omp_get_max_threads() if parallel else 1
    with faiss_threads(threads), threadpool_limits(None if parallel else 1, "blas"):
        return _build(index, dimension, similarity, shards, rows, add)


def _build(
    index: Index,
    dimension: int,
    similarity: Similarity,
    shards: Iterable[Matrix],
    rows: int,
    add: Adder,
) -> faiss.Index:
    built = empty_index(index, dimension, similarity)
    turn = rotation(dimension) if is_rotated(index) else None

    def pieces() -> Iterator[Matrix]:
        found = _pieces(shards, similarity)
        return found if turn is None else map(partial(rotate, turn), found)

    if isinstance(index, Sq8Index):
        built.train(_extremes(pieces()))
    elif turn is not None:
        built.train(_mean(pieces()))
    elif not built.is_trained:
        wanted = index_size.training_rows(index, rows)
        built.train(_sample(pieces(), rows, wanted))
    _reserve(built, rows)
    if isinstance(index, FilledByCodes):
        add(built, pieces())
    elif isinstance(index, HnswIndex):
        built.add(_all(pieces(), rows, dimension))
    else:
        for piece in pieces():
            built.add(piece)
    return built if turn is None else _rotated(turn, built)


def _rotated(turn: Any, codes: Any) -> faiss.Index:
    """Return an index that rotates vectors before it compares them; it owns its parts."""
    whole: Any = faiss.IndexPreTransform(turn, codes)
    whole.own_fields = True
    for part in (turn, codes):
        part.this.disown()
    return whole  # type: ignore[no-any-return]


def _all(pieces: Iterable[Matrix], rows: int, dimension: int) -> Matrix:
    """Return all vectors in one array."""
    vectors, start = np.empty((rows, dimension), np.float32), 0
    for piece in pieces:
        vectors[start : start + len(piece)] = piece
        start += len(piece)
    return vectors


def _mean(pieces: Iterable[Matrix]) -> Matrix:
    """Return the mean of all vectors, [1, dimension]: all that rabitq and eden learn."""
    rows, total = 0, np.float64(0)
    for piece in pieces:
        rows, total = rows + len(piece), total + piece.sum(axis=0, dtype=np.float64)
    return np.asarray(total / rows, np.float32)[np.newaxis]


def _extremes(pieces: Iterable[Matrix]) -> Matrix:
    """Return each component's least and greatest value, [2, dimension]: all that sq8 needs."""
    ends = [(piece.min(axis=0), piece.max(axis=0)) for piece in pieces]
    least, greatest = zip(*ends, strict=True)
    return np.stack([np.min(least, axis=0), np.max(greatest, axis=0)])


def _sample(pieces: Iterable[Matrix], rows: int, wanted: int) -> Matrix:
    """Return `wanted` of all `rows` vectors, drawn by a fixed seed, in the order of their rows."""
    chosen = sampled_rows(rows, wanted, TRAINING_SEED)
    sample, start = [], 0
    for piece in pieces:
        first, last = np.searchsorted(chosen, [start, start + len(piece)])
        sample.append(piece[chosen[first:last] - start])
        start += len(piece)
    return np.concatenate(sample)


def _pieces(shards: Iterable[Matrix], similarity: Similarity) -> Iterator[Matrix]:
    """Yield all vectors in the form that is compared, `PIECE_ROWS` at a time, then the rest."""
    waiting: list[Matrix] = []
    held = done = 0

    def piece() -> Matrix:
        matrix = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        return to_index_form(matrix, similarity, "products", done)

    for shard in shards:
        start = 0
        while start < len(shard):
            part = shard[start : start + PIECE_ROWS - held]
            waiting.append(part)
            start, held = start + len(part), held + len(part)
            if held == PIECE_ROWS:
                yield piece()
                waiting, held, done = [], 0, done + held
    if held:
        yield piece()


def _reserve(built: faiss.Index, rows: int) -> None:
    """Make room for all vectors at once; else FAISS doubles the room and keeps the old one too."""
    whole: Any = faiss.downcast_index(built)
    flat = whole
    if isinstance(whole, faiss.IndexHNSW):
        graph: Any = whole.hnsw
        _make_room(graph.neighbors, index_size.graph_links(graph.nb_neighbors(1), rows))
        _make_room(graph.offsets, rows + 1)
        _make_room(graph.levels, rows)
        flat = faiss.downcast_index(whole.storage)
    if isinstance(flat, faiss.IndexFlatCodes):
        _make_room(flat.codes, rows * flat.code_size)


def _make_room(array: Any, size: int) -> None:
    """Give one of FAISS's arrays room for `size` values; what is in it stays."""
    held = array.size()
    array.resize(size)
    array.resize(held)
