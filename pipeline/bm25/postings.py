"""Postings: for each term, the products that have it and the score that it gives each.

The scores and their form are those of bm25s, to the last bit. To compute them, bm25s needs 55 bytes
per posting (a product and one of its terms); this needs 17.
"""

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bm25 import analysers as lexical
from pipeline.core import memory
from pipeline.core.params import Bm25
from pipeline.runs.ranking import places

PIECE_PRODUCTS = 8_192

SCORED_BYTES = 12
"""A posting with its score: a score of 8 bytes, a product of 4."""
COUNTED_BYTES = 5
"""A posting without its score: a term of 4 bytes, and mostly 1 byte for its frequency."""
COUNTING_BYTES, WEIGHING_BYTES = 50, 90
"""A term of a piece while it is counted, a posting of a piece while it gets its score: mostly
temporary int64 and float64."""
TERM_BYTES = 200
"""About what a term takes: its string, its number, its place in the dictionary, its weight."""
PRODUCT_BYTES = 90
"""A product in the scores of one query, and in the part that is sorted: all where all tie."""
FOUND_BYTES = 300
"""A product found for a query, before it is written to a run."""

Ints = NDArray[np.int64]


@dataclass
class Counted:
    """The terms of some products, counted: `terms` and `times` of each posting, by product."""

    terms: NDArray[np.int32]
    times: NDArray[Any]
    distinct: NDArray[np.int32]

    @classmethod
    def of(cls, terms: NDArray[np.int32], lengths: NDArray[np.int32]) -> "Counted":
        """Count the terms of consecutive products of these lengths."""
        width = 1 + int(terms.max(initial=0))
        product = np.repeat(np.arange(len(lengths)), lengths)
        pairs, times = np.unique(product * width + terms, return_counts=True)
        distinct = np.bincount(pairs // width, minlength=len(lengths))
        small = times.astype(np.min_scalar_type(times.max(initial=0)))
        return cls((pairs % width).astype(np.int32), small, distinct.astype(np.int32))


def memory_bytes(
    analyser: str,
    products: int,
    *,
    postings: int,
    terms: int,
    piece_terms: int,
    piece_postings: int,
    found: int,
) -> int:
    """Return how many bytes bm25 takes at most.

    Args:
        analyser: its name.
        products: how many are searched.
        postings: how many they have.
        terms: how many different ones.
        piece_terms: the terms of the longest piece of `PIECE_PRODUCTS`, repeated ones too.
        piece_postings: the most postings of a piece.
        found: how many products are found for the queries searched at once.
    """
    # One after the other.
    counting = COUNTED_BYTES * postings + COUNTING_BYTES * piece_terms
    weighing = (COUNTED_BYTES + SCORED_BYTES) * postings + WEIGHING_BYTES * piece_postings
    searching = SCORED_BYTES * postings + FOUND_BYTES * found
    held = TERM_BYTES * terms + PRODUCT_BYTES * products + lexical.dictionary_bytes(analyser)
    return memory.PROCESS_BYTES + held + max(counting, weighing, searching)


@dataclass
class Collection:
    """The terms of products as they are read: numbers instead of strings.

    `piece_terms` and `piece_postings` are those of the longest pieces.
    """

    vocabulary: dict[str, int] = field(default_factory=dict)
    pieces: list[Counted] = field(default_factory=list)
    lengths: list[NDArray[np.int32]] = field(default_factory=list)
    products: int = 0
    postings: int = 0
    piece_terms: int = 0
    piece_postings: int = 0

    def add(self, products: Iterable[list[str]]) -> None:
        """Add the terms of some more products, at least one."""
        vocabulary = self.vocabulary
        numbers, lengths = array("i"), array("i")
        for terms in products:
            numbers.extend([vocabulary.setdefault(term, len(vocabulary)) for term in terms])
            lengths.append(len(terms))
        self.lengths.append(np.array(lengths, dtype=np.int32))
        piece = Counted.of(np.array(numbers, dtype=np.int32), self.lengths[-1])
        self.pieces.append(piece)
        self.products += len(lengths)
        self.postings += len(piece.terms)
        self.piece_terms = max(self.piece_terms, len(numbers))
        self.piece_postings = max(self.piece_postings, len(piece.terms))

    def memory_bytes(self, analyser: str, products: int, found: int) -> int:
        """Return how many bytes `products` will take if the others are like those added.

        `analyser` and `found` are those of `memory_bytes`.
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
        )

    def score(self, settings: Bm25) -> dict[str, Any]:
        """Return the postings in the form of bm25s, term by term; this frees what was added."""
        count, vocabulary = self.products, len(self.vocabulary)
        having = np.zeros(vocabulary, dtype=np.int64)
        for piece in self.pieces:
            having += np.bincount(piece.terms, minlength=vocabulary)
        # By way of `math`: numpy's logarithm may differ in the last bit.
        idf = np.array([math.log(1 + (count - n + 0.5) / (n + 0.5)) for n in having.tolist()])
        mean = np.concatenate(self.lengths).mean()
        starts = np.concatenate(([0], np.cumsum(having)))
        free = starts[:-1].copy()
        scores, indices = np.empty(starts[-1]), np.empty(starts[-1], dtype=np.int32)
        first = 0
        self.pieces.reverse()
        for lengths in self.lengths:
            piece = self.pieces.pop()
            product = np.repeat(np.arange(len(lengths)), piece.distinct)
            length, times = lengths[product], piece.times.astype(np.float64)
            norm = settings.k1 * ((1 - settings.b) + settings.b * length / mean)
            order = np.argsort(piece.terms, kind="stable")
            terms = piece.terms[order].astype(np.int64)
            at = free[terms] + places(terms)
            scores[at] = (idf[piece.terms] * (times / (norm + times)))[order]
            indices[at] = first + product[order]
            free += np.bincount(terms, minlength=vocabulary)
            first += len(lengths)
        return {"data": scores, "indices": indices, "indptr": starts, "num_docs": count}


def collect(
    products: Iterable[list[str]], taken: Callable[[Collection], None] = lambda _: None
) -> Collection:
    """Collect the terms of all products; `taken` gets the collection after each piece."""
    found, left = Collection(), iter(products)
    for first in left:
        # One by one: the strings of a piece would take more than all its numbers.
        found.add(chain([first], islice(left, PIECE_PRODUCTS - 1)))
        taken(found)
    return found
