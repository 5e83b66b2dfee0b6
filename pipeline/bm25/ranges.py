"""BM25 by ranges of products: where all postings would not fit into memory, and on a cluster.

Of the products' terms, those count that queries have. Their postings are on disk, one range of
products after the other, and each range is searched with the statistics of all products. A
product's score is the sum over the query's terms in their order, and the order of a ranking is
total: so no byte depends on how products are cut into ranges, or on where these are searched.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bm25.counting import Counted
from pipeline.bm25.postings import Collection, Floats, Postings, Statistics
from pipeline.bm25.search import (
    BATCH_QUERIES,
    QUERIES_AT_ONCE,
    Best,
    Pairs,
    TermIndex,
    cut,
    joined,
    pairs_of,
    search_range,
)
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Bm25
from pipeline.runs import ranking

Found = tuple[ranking.Ranked, ranking.Ranked]
"""The catalogue run and the pool run of some queries."""


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

    def search(self, searched: Range, rows: range, threads: int) -> Iterator[Part]:
        """Search a range for the queries of some rows, on some threads."""
        index = TermIndex.of(searched.postings, self.settings, threads, self.known)

        def some(part: range) -> Part:
            pairs = pairs_of(self.pairs, part)
            start, depth = searched.start, self.depth
            return Part(part, *search_range(index, start, self.queries, part, depth, pairs))

        return in_parallel(some, cut(rows, QUERIES_AT_ONCE), threads)


Searcher = Callable[[Sequence[Range], range], Iterator[Part]]
"""Searches ranges for the queries of some rows, and yields what they have in any order."""


def vocabulary_of(queries: Iterable[Iterable[str]]) -> dict[str, int]:
    """Return the terms of queries, numbered."""
    return {term: n for n, term in enumerate(dict.fromkeys(t for terms in queries for t in terms))}


def make_ranges(
    pieces: Iterable[Counted],
    vocabulary: dict[str, int],
    is_full: Callable[[Collection], bool],
    folder: Path,
) -> list[Range]:
    """Collect pieces into ranges, which are kept on disk as long as they are used.

    Args:
        pieces: the counted terms of all products.
        vocabulary: the terms that queries have; the others are left out.
        is_full: says after each piece whether a range must end with it.
        folder: where the postings are written, to a file without a name: it ends with the process.
    """
    ranges, start = [], 0
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:

        def keep(collected: Collection) -> None:
            nonlocal start
            postings = collected.merge()
            ranges.append(Range(start, _on_disk(postings, file)))
            start += len(postings.lengths)

        collected = Collection(vocabulary)
        for piece in pieces:
            collected.add(_with_terms(piece, vocabulary))
            if is_full(collected):
                keep(collected)
                collected = Collection(vocabulary)
        if collected.pieces or not ranges:
            keep(collected)
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


def _on_disk(postings: Postings, file: Any) -> Postings:
    """Write the arrays of postings to the end of a file; return the postings, mapped from it."""

    def mapped(array: NDArray[Any]) -> NDArray[Any]:
        if not array.size:
            return array
        file.write(bytes(-file.seek(0, 2) % array.itemsize))
        place = file.tell()
        file.write(array.data)
        file.flush()
        # As plain arrays: slices of numpy's class for mapped files take microseconds.
        return np.asarray(np.memmap(file, array.dtype, "r", place, array.shape))

    return Postings(
        postings.vocabulary,
        mapped(postings.starts),
        mapped(postings.products),
        mapped(postings.times),
        mapped(postings.lengths),
    )


def search_here(task: Task, threads: int) -> Searcher:
    """Return what searches ranges one after the other, each on all threads."""

    def search(ranges: Sequence[Range], rows: range) -> Iterator[Part]:
        for one in ranges:
            yield from task.search(one, rows, threads)

    return search


def merge(
    parts: Iterable[Part], task: Task, rows: range
) -> Iterator[tuple[ranking.Ranked, ranking.Ranked]]:
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
    for batch in cut(rows, BATCH_QUERIES):
        catalogue = joined([bests.pop(row).ranked() for row in batch])
        mine = slice(*np.searchsorted(pairs[0], [batch.start, batch.stop]))
        pool = ranking.rank_pairs(pairs[0][mine], pairs[1][mine], judged[mine])
        yield catalogue, pool
