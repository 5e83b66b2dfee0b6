"""Postings: for each term, the products that have it, and how often.

BM25's scores follow from them for any k1 and b. They are those of bm25s, to the last bit. To
compute them, bm25s needs 55 bytes per posting (a product and one of its terms); this needs 13.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bm25 import analysers
from pipeline.bm25.counting import Counted
from pipeline.core import memory
from pipeline.core.arrays import Floats
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Bm25

COUNTED_BYTES = 4
"""A posting of a piece: 2 bytes for the product, mostly 1 for its frequency, 1 for its term."""
MERGED_BYTES = 5
"""A posting of all products: 4 bytes for the product, mostly 1 for its frequency."""
WEIGHT_BYTES = 8
COUNTING_BYTES, MERGING_BYTES, WEIGHING_BYTES = 40, 60, 40
"""A term of a piece while it is counted, a posting of a piece while it is merged, a posting while
it is weighed: mostly temporary int64 and float64."""
TERM_BYTES = 200
"""About what a term takes: its string, its number, its place in the dictionary, its weight."""
PRODUCT_BYTES = 40
"""A product: its id, its length, and what it does to a frequency."""
FOUND_BYTES = 300
"""A product found for a query, before it is written to a run."""
SCORED_BYTES = 150
"""A product of those that a thread scores at once: its postings of `search.COLUMNS` terms, its
scores before and after, and what is compared with them."""
WORKER_BYTES = 250_000_000
"""What a process takes that counts terms: its libraries, a piece, and the parts it remembers."""

WEIGHED_AT_ONCE = 1 << 20

RANGE_PRODUCTS = 1 << 19
"""How many products a thread scores at once. With fewer, threads wait more for Python's lock: NumPy
and SciPy let go of it only while they compute."""


@dataclass(frozen=True)
class Postings:
    """The products that have each term.

    Attributes:
        vocabulary: the number of each term.
        starts: where the postings of each term start, and the last ones end, int64 [terms + 1].
        products: of each posting, by term and then ascending, int32 [postings].
        times: how often the product has the term, unsigned [postings].
        lengths: how many terms each product has, repeated ones too, int32 [products].
    """

    vocabulary: Mapping[str, int]
    starts: NDArray[np.int64]
    products: NDArray[np.int32]
    times: NDArray[np.unsignedinteger[Any]]
    lengths: NDArray[np.int32]


@dataclass(frozen=True)
class Statistics:
    """What BM25 knows of all products; the postings may be those of some of them.

    Attributes:
        idf: of each term, float64 [terms].
        mean_length: of all products, in terms.
    """

    idf: Floats
    mean_length: float

    @classmethod
    def of(cls, parts: Iterable[Postings]) -> "Statistics":
        """Return the statistics of all products, given in one or more parts of one vocabulary."""
        having: NDArray[np.int64] | int = 0
        count = length = 0
        for part in parts:
            having = having + np.diff(part.starts)
            count += len(part.lengths)
            length += int(part.lengths.sum(dtype=np.int64))
        different, place = np.unique(having, return_inverse=True)
        # By way of `math`: numpy's logarithm may differ in the last bit.
        idf = [math.log(1 + (count - n + 0.5) / (n + 0.5)) for n in different.tolist()]
        return cls(np.array(idf)[place], length / count if length else 1.0)


@dataclass(frozen=True)
class Weighting:
    """What BM25 makes of postings.

    Attributes:
        idf: of each term, float64 [terms].
        norm: what a product's length adds to a frequency, float64 [products].
    """

    idf: Floats
    norm: Floats

    @classmethod
    def of(cls, postings: Postings, settings: Bm25, known: Statistics | None = None) -> "Weighting":
        """Return the weighting of postings; without `known`, they are those of all products."""
        known = known or Statistics.of([postings])
        share = settings.b * postings.lengths / known.mean_length
        return cls(known.idf, np.asarray(settings.k1 * ((1 - settings.b) + share), np.float64))

    def weigh(self, postings: Postings, part: slice, idf: float | Floats) -> Floats:
        """Return the scores of some postings, float64; `idf` is that of their terms."""
        times = postings.times[part].astype(np.float64)
        return np.asarray(idf * (times / (self.norm[postings.products[part]] + times)))

    def weigh_all(self, postings: Postings, threads: int) -> Floats:
        """Return the scores of all postings, float64 [postings]."""
        weights, starts = np.empty(len(postings.products)), postings.starts

        def weigh(first: int) -> None:
            last = min(first + WEIGHED_AT_ONCE, len(weights))
            terms = np.searchsorted(starts, [first, last - 1], side="right") - 1
            inside = np.clip(starts[terms[0] : terms[1] + 2], first, last)
            idf = np.repeat(self.idf[terms[0] : terms[1] + 1], np.diff(inside))
            weights[first:last] = self.weigh(postings, slice(first, last), idf)

        for _ in in_parallel(weigh, range(0, len(weights), WEIGHED_AT_ONCE), threads):
            pass
        return weights


def memory_bytes(
    analyser: str,
    products: int,
    *,
    postings: int,
    terms: int,
    piece_terms: int,
    piece_postings: int,
    found: int,
    threads: int = 1,
    workers: int = 0,
    searched: int | None = None,
) -> int:
    """Return how many bytes bm25 takes at most, with the processes that it starts.

    Args:
        analyser: its name.
        products: how many are searched.
        postings: how many they have.
        terms: how many different ones.
        piece_terms: the terms of the longest piece, repeated ones too.
        piece_postings: the most postings of a piece.
        found: how many products are found for the queries searched at once.
        threads: how many search at a time.
        workers: how many other processes count.
        searched: how many products are searched at a time; all, if it is left out.
    """
    # One after the other.
    counting = COUNTED_BYTES * postings + COUNTING_BYTES * piece_terms + WORKER_BYTES * workers
    merging = (COUNTED_BYTES + MERGED_BYTES) * postings + MERGING_BYTES * piece_postings
    weighing = (MERGED_BYTES + WEIGHT_BYTES) * postings
    weighing += WEIGHING_BYTES * min(postings, WEIGHED_AT_ONCE * threads)
    scored = products if searched is None else searched
    searching = (MERGED_BYTES + WEIGHT_BYTES) * postings
    searching += FOUND_BYTES * found + SCORED_BYTES * min(scored, RANGE_PRODUCTS) * threads
    held = TERM_BYTES * terms + PRODUCT_BYTES * products + analysers.dictionary_bytes(analyser)
    return memory.PROCESS_BYTES + held + max(counting, merging, weighing, searching)


@dataclass
class Collection:
    """The counted terms of products as they are read, piece by piece.

    `piece_terms` and `piece_postings` are those of the longest pieces.
    """

    vocabulary: dict[str, int] = field(default_factory=dict)
    pieces: list[tuple[NDArray[np.int32], Counted]] = field(default_factory=list)
    products: int = 0
    postings: int = 0
    piece_terms: int = 0
    piece_postings: int = 0

    def add(self, piece: Counted) -> None:
        """Add the terms of some more products."""
        vocabulary = self.vocabulary
        numbers = [vocabulary.setdefault(term, len(vocabulary)) for term in piece.terms]
        # The numbers of the terms are all that is needed of them.
        self.pieces.append((np.array(numbers, dtype=np.int32), replace(piece, terms=[])))
        self.products += len(piece.lengths)
        self.postings += len(piece.products)
        self.piece_terms = max(self.piece_terms, int(piece.lengths.sum()))
        self.piece_postings = max(self.piece_postings, len(piece.products))

    def memory_bytes(
        self, analyser: str, products: int, found: int, threads: int = 1, workers: int = 0
    ) -> int:
        """Return how many bytes `products` will take if the others are like those added.

        `analyser`, `found`, `threads` and `workers` are those of `memory_bytes`.
        """
        share = products / max(self.products, 1)
        return memory_bytes(
            analyser,
            products,
            postings=round(self.postings * share),
            terms=round(len(self.vocabulary) * share**0.5),  # new terms become rare
            piece_terms=self.piece_terms,
            piece_postings=self.piece_postings,
            found=found,
            threads=threads,
            workers=workers,
        )

    def merge(self) -> Postings:
        """Return the postings of all products; this frees what was added."""
        having = np.zeros(len(self.vocabulary), dtype=np.int64)
        for numbers, piece in self.pieces:
            having[numbers] += piece.having
        starts = np.concatenate(([0], np.cumsum(having)))
        free, first = starts[:-1].copy(), 0
        products = np.empty(starts[-1], dtype=np.int32)
        types = [piece.times.dtype for _, piece in self.pieces]
        times = np.empty(starts[-1], dtype=np.result_type(np.uint8, *types))
        lengths = [np.empty(0, dtype=np.int32)]
        self.pieces.reverse()
        while self.pieces:
            numbers, piece = self.pieces.pop()
            before = np.cumsum(piece.having) - piece.having
            at = np.arange(len(piece.products)) + np.repeat(free[numbers] - before, piece.having)
            products[at] = piece.products.astype(np.int32) + first
            times[at] = piece.times
            free[numbers] += piece.having
            first += len(piece.lengths)
            lengths.append(piece.lengths)
        return Postings(self.vocabulary, starts, products, times, np.concatenate(lengths))


def collect(
    pieces: Iterable[Counted], taken: Callable[[Collection], None] = lambda _: None
) -> Postings:
    """Return the postings of all products; `taken` gets what is collected after each piece."""
    found = Collection()
    for piece in pieces:
        found.add(piece)
        taken(found)
    return found.merge()
