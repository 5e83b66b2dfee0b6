"""BM25 by ranges of products, where all postings would not fit into memory.

Of the products' terms, those count that queries have. Their postings are on disk, one range of
products after the other, and each range is searched with the statistics of all products. A
product's score is the sum over the query's terms in their order, and the order of a ranking is
total: so no byte depends on how products are cut into ranges.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bm25.counting import Counted
from pipeline.bm25.postings import Collection, Postings, Statistics
from pipeline.bm25.search import (
    BATCH_QUERIES,
    QUERIES_AT_ONCE,
    Best,
    Pairs,
    TermIndex,
    joined,
    pairs_of,
    search_range,
)
from pipeline.core.arrays import Floats, blocks
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Bm25
from pipeline.runs import ranking

Found = tuple[ranking.Ranked, ranking.Ranked]
"""The catalogue run and the pool run of some queries."""

Place = tuple[int, int, np.dtype[Any]]
"""Where an array is in a file, how many bytes it takes, and the type of its values."""


@dataclass(frozen=True)
class Range:
    """The postings of consecutive products; `start` is the row of the first one."""

    start: int
    postings: Postings


@dataclass(frozen=True)
class Part:
    """What one range has for the queries of some rows; the fields are those of `search_range`."""

    rows: range
    found: ranking.Ranked
    judged: Floats


@dataclass(frozen=True)
class Task:
    """What every range is searched for.

    Attributes:
        queries: the terms of each.
        vocabulary: the number of each of their terms.
        known: the statistics of all products.
        settings: k1 and b.
        depth: the most products found for a query.
        pairs: the judged pairs of all queries.
    """

    queries: Sequence[list[str]]
    vocabulary: Mapping[str, int]
    known: Statistics
    settings: Bm25
    depth: int
    pairs: Pairs

    def search_all(self, ranges: Sequence[Range], rows: range, threads: int) -> Iterator[Part]:
        """Search ranges one after the other for the queries of some rows, each on all threads."""
        for one in ranges:
            yield from self.search(one, rows, threads)

    def search(self, searched: Range, rows: range, threads: int) -> Iterator[Part]:
        """Search a range for the queries of some rows, on some threads."""
        index = TermIndex.of(searched.postings, self.settings, threads, self.known)

        def some(part: range) -> Part:
            pairs = pairs_of(self.pairs, part)
            start, depth = searched.start, self.depth
            return Part(part, *search_range(index, start, self.queries, part, depth, pairs))

        return in_parallel(some, blocks(rows, QUERIES_AT_ONCE), threads)


def vocabulary_of(queries: Iterable[Iterable[str]]) -> dict[str, int]:
    """Return the terms of queries, numbered."""
    return {term: n for n, term in enumerate(dict.fromkeys(t for terms in queries for t in terms))}


def make_ranges(
    pieces: Iterable[Counted],
    vocabulary: dict[str, int],
    is_full: Callable[[Collection, Counted], bool],
    folder: Path,
) -> list[Range]:
    """Collect pieces into ranges, which are kept on disk as long as they are used.

    Args:
        pieces: the counted terms of all products.
        vocabulary: the terms that queries have; the others are left out.
        is_full: says whether a range must end before a piece.
        folder: where the postings are written, to a file without a name: it ends with the process.
    """
    places: list[list[Place]] = []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        collected = Collection(vocabulary)
        for counted in pieces:
            piece = _with_terms(counted, vocabulary)
            if is_full(collected, piece):
                places.append(_write(collected.merge(), file))
                collected = Collection(vocabulary)
            collected.add(piece)
        if collected.pieces or not places:
            places.append(_write(collected.merge(), file))
        file.flush()
        # Once for all: each mapping keeps a file open. As a plain array: slices of numpy's class
        # for mapped files take microseconds.
        whole = np.asarray(np.memmap(file, np.uint8, "r"))
    ranges, start = [], 0
    for one in places:
        arrays = [whole[place : place + size].view(kind) for place, size, kind in one]
        found = Postings(vocabulary, *arrays)
        ranges.append(Range(start, found))
        start += len(found.lengths)
    return ranges


def _with_terms(piece: Counted, vocabulary: Mapping[str, int]) -> Counted:
    """Return a piece without the terms that are not in a vocabulary; its lengths count them."""
    known = np.array([term in vocabulary for term in piece.terms], dtype=bool)
    inside = np.repeat(known, piece.having)
    return replace(
        piece,
        terms=[term for term in piece.terms if term in vocabulary],
        having=piece.having[known],
        products=piece.products[inside],
        times=piece.times[inside],
    )


def _write(postings: Postings, file: Any) -> list[Place]:
    """Write the arrays of postings to the end of a file; return where they are."""
    places: list[Place] = []
    for array in (postings.starts, postings.products, postings.times, postings.lengths):
        file.write(bytes(-file.seek(0, 2) % array.itemsize))
        places.append((file.tell(), array.nbytes, array.dtype))
        file.write(array.data)
    return places


def merge(parts: Iterable[Part], task: Task, rows: range) -> Iterator[Found]:
    """Yield the catalogue run and the pool run of some queries, `BATCH_QUERIES` at a time.

    Args:
        parts: what all ranges have for these queries, in any order.
        task: what was searched for.
        rows: of the queries.
    """
    bests = {row: Best(row, task.depth) for row in rows}
    pairs = pairs_of(task.pairs, rows)
    judged = np.zeros(len(pairs[0]))
    for part in parts:
        found, codes, scores = part.found
        ends = np.searchsorted(found, np.arange(part.rows.start, part.rows.stop + 1))
        for row, first, last in zip(part.rows, ends[:-1], ends[1:], strict=True):
            bests[row].take(codes[first:last], scores[first:last])
        mine = slice(*np.searchsorted(pairs[0], [part.rows.start, part.rows.stop]))
        judged[mine] += part.judged  # a product is in one range: to the others' 0
    for batch in blocks(rows, BATCH_QUERIES):
        catalogue = joined([bests.pop(row).ranked() for row in batch])
        mine = slice(*np.searchsorted(pairs[0], [batch.start, batch.stop]))
        pool = ranking.rank_pairs(pairs[0][mine], pairs[1][mine], judged[mine])
        yield catalogue, pool
