"""How many products of each group have each term, and the terms of each product."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.clusters.surfaces import Surfaces
from pipeline.core.arrays import Ints
from pipeline.runs import ranking

BRAND = 0.4
"""A term is a brand's where at least this share of its products have it in their brand."""

LEFT_OUT = -1
"""Where a title has words that name nothing, its brand's, or that it had before."""

_COMPACT_AT = 1 << 22


@dataclass(frozen=True)
class Counts:
    """How many products of each group have each term, as a sparse matrix.

    Attributes:
        groups, terms, products: of each pair that occurs, sorted by group and term, int64 [pairs].
        shown: the most frequent surface form of each term.
        is_brand: whether a term is rather a brand's than a product's, bool [terms].
    """

    groups: Ints
    terms: Ints
    products: Ints
    shown: list[str]
    is_brand: NDArray[np.bool_]

    def within(self, larger: Ints) -> "Counts":
        """Return the counts of larger groups; `larger` has the one that each group is of."""
        key = larger[self.groups] * len(self.shown) + self.terms
        keys, products = _summed(key, self.products)
        groups, terms = np.divmod(keys, max(1, len(self.shown)))
        return Counts(groups, terms, products, self.shown, self.is_brand)


@dataclass(frozen=True)
class Titles:
    """The terms of each product's title in their order, each once, without its own brand's.

    Attributes:
        terms: of one product after another, `LEFT_OUT` between those that are no neighbours,
            int32 [all terms].
        ends: where those of each product end, int64 [products].
    """

    terms: NDArray[np.int32]
    ends: Ints

    def of(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return the terms of some products, and the place in `rows` that each is of."""
        lengths = np.diff(self.ends, prepend=0)[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        starts = self.ends[rows] - lengths
        return self.terms[starts[owner] + ranking.places(owner)].astype(np.int64), owner


@dataclass
class Counter:
    """Counts the terms of products as they are read, each once a product."""

    surfaces: Surfaces
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    _terms: dict[str, int] = field(default_factory=dict)
    _term_of: list[int] = field(default_factory=list)
    _written: list[int] = field(default_factory=list)
    _pairs: list[tuple[Ints, Ints]] = field(default_factory=list)
    _branded: list[int] = field(default_factory=list)
    _sequences: list[NDArray[np.int32]] = field(default_factory=list)
    _lengths: list[Ints] = field(default_factory=list)

    def add(self, titles: Iterable[str], brands: Iterable[str], groups: Ints) -> None:
        """Count the terms of some more products.

        A word of a product's own brand is not counted for its group.

        Args:
            titles: the texts that names come from.
            brands: the brand of each product, empty where it has none.
            groups: the group of each product.
        """
        terms: list[int] = []
        lengths: list[int] = []
        for title, brand in zip(titles, brands, strict=True):
            own = {self._term(word[1]) for word in self.surfaces(brand) if word}
            for term in own:
                self._branded[term] += 1
            found = [pair and self._number(pair) for pair in self.surfaces(title)]
            for number in {number for number in found if number is not None}:
                self._written[number] += 1
            kept = self._kept(found, own)
            terms.extend(kept)
            lengths.append(len(kept))
        sequence = np.array(terms, dtype=np.int32)
        self._sequences.append(sequence)
        self._lengths.append(np.array(lengths, dtype=np.int64))
        key = (np.repeat(groups, lengths) << 32 | sequence)[sequence != LEFT_OUT]
        self._pairs.append(_summed(key, np.ones(len(key), dtype=np.int64)))
        if sum(len(keys) for keys, _ in self._pairs) > _COMPACT_AT:
            self._pairs = [self._merged()]

    def finish(self) -> tuple[Counts, Titles]:
        """Return the counts and the terms of all products that were added."""
        keys, products = self._merged()
        titled = np.zeros(len(self._terms), dtype=np.int64)
        shown = [""] * len(self._terms)
        most = [0] * len(self._terms)
        # Of forms that are equally frequent, the first in the order of their letters.
        for (surface, _), number in sorted(self._numbers.items()):
            term, written = self._term_of[number], self._written[number]
            if written > most[term]:
                shown[term], most[term] = surface, written
        terms = keys & 0xFFFFFFFF
        np.add.at(titled, terms, products)
        branded = np.array(self._branded, dtype=np.int64)
        is_brand = branded >= BRAND * np.maximum(titled + branded, 1)
        ends = np.cumsum(np.concatenate([np.empty(0, dtype=np.int64), *self._lengths]))
        titles = Titles(np.concatenate([np.empty(0, dtype=np.int32), *self._sequences]), ends)
        return Counts(keys >> 32, terms, products, shown, is_brand), titles

    def _kept(self, found: Sequence[int | None], own: set[int]) -> list[int]:
        """Return the terms of a title's words, each once; one `LEFT_OUT` for words in a row."""
        kept: list[int] = []
        seen = {*own}
        for number in found:
            term = LEFT_OUT if number is None else self._term_of[number]
            if term in seen:
                term = LEFT_OUT
            if term != LEFT_OUT or kept[-1:] != [LEFT_OUT]:
                kept.append(term)
            seen.add(term)
        return kept

    def _term(self, term: str) -> int:
        number = self._terms.setdefault(term, len(self._terms))
        if number == len(self._branded):
            self._branded.append(0)
        return number

    def _number(self, pair: tuple[str, str]) -> int:
        number = self._numbers.setdefault(pair, len(self._numbers))
        if number == len(self._written):
            self._written.append(0)
            self._term_of.append(self._term(pair[1]))
        return number

    def _merged(self) -> tuple[Ints, Ints]:
        if not self._pairs:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        keys, products = (np.concatenate(parts) for parts in zip(*self._pairs, strict=True))
        return _summed(keys, products)


def _summed(keys: Ints, values: Ints) -> tuple[Ints, Ints]:
    """Return the distinct keys, ascending, and the sum of the values of each."""
    distinct, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, inverse, values)
    return distinct, sums
