"""Names of clusters: the terms that set a cluster apart, by class-based TF-IDF."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.clusters.surfaces import Surfaces
from pipeline.core.arrays import Ints

WORDS = 4
"""How many words a name has, at most."""

COMMON = 0.3
"""A term of more than this share of the clusters tells none apart; see `common_terms`."""
PRESENT = 0.05
"""A cluster has a term where at least this share of its products have it."""

SUPPORT = 0.1
"""The least share of a group's products that have a term of its name."""

BRAND = 0.4
"""A term is a brand's where at least this share of its products have it in their brand."""

ENDING_LETTERS = 2

_COMPACT_AT = 1 << 22

Floats = NDArray[np.float64]


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
            own = {self._term(term) for _, term in self.surfaces(brand)} if brand else set()
            for term in own:
                self._branded[term] += 1
            found = {self._number(pair) for pair in self.surfaces(title)}
            for number in found:
                self._written[number] += 1
            kept = {self._term_of[number] for number in found} - own
            terms.extend(kept)
            lengths.append(len(kept))
        key = np.repeat(groups, lengths) << 32 | np.array(terms, dtype=np.int64)
        self._pairs.append(_summed(key, np.ones(len(key), dtype=np.int64)))
        if sum(len(keys) for keys, _ in self._pairs) > _COMPACT_AT:
            self._pairs = [self._merged()]

    def finish(self) -> Counts:
        """Return the counts of all products that were added."""
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
        return Counts(keys >> 32, terms, products, shown, is_brand)

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


def name_groups(counts: Counts, sizes: Ints, left_out: NDArray[np.bool_]) -> list[list[str]]:
    """Return the words of each group's name, the most telling first; none where nothing tells.

    The weight of term t in group c is that of class-based TF-IDF (Grootendorst: BERTopic, 2022,
    arXiv 2203.05794), p(t, c) * log(1 + A / f(t)): p is the share of the group's products that have
    the term, f how many products of all groups have it, A the mean over the groups of the sum of
    its terms' counts. A product counts a term once, so that a repeated word gains nothing.

    Words that fewer than `SUPPORT` of the group's products have are used only where all others
    are missing, and those of a single product never. A word that is a chosen one with or without
    an ending is passed over.

    Args:
        counts: of the groups.
        sizes: how many products each group has, int64 [groups].
        left_out: terms that are in no name, bool [terms].
    """
    per_term = np.bincount(counts.terms, counts.products, minlength=len(counts.shown))
    mean = counts.products.sum() / len(sizes)
    share = counts.products / sizes[counts.groups]
    weight = share * np.log1p(mean / per_term[counts.terms])
    weight = weight.round(9)  # so that no logarithm's last bit decides
    fits = ~left_out[counts.terms] & (counts.products >= np.minimum(2, sizes)[counts.groups])
    starts = np.searchsorted(counts.groups, np.arange(len(sizes) + 1))
    names = []
    for start, stop in pairwise(starts):
        chosen = start + np.flatnonzero(fits[start:stop])
        frequent = chosen[share[chosen] >= SUPPORT]
        words = sorted(
            (-weight[place], counts.shown[counts.terms[place]])
            for place in (frequent if len(frequent) else chosen).tolist()
        )
        names.append(_diverse(word for _, word in words))
    return names


def common_terms(counts: Counts, sizes: Ints) -> NDArray[np.bool_]:
    """Say which terms more than `COMMON` of the clusters have, bool [terms].

    These are function words and advertising. A term of a single cluster is never common.
    """
    present = counts.products >= PRESENT * sizes[counts.groups]
    having = np.bincount(counts.terms[present], minlength=len(counts.shown))
    return np.asarray(having > max(1, COMMON * len(sizes)))


def _diverse(words: Iterable[str]) -> list[str]:
    """Return the first `WORDS` words of which none is a longer form of another."""
    chosen: list[str] = []
    for word in words:
        if not any(_is_form(word, other) or _is_form(other, word) for other in chosen):
            chosen.append(word)
        if len(chosen) == WORDS:
            break
    return chosen


def _is_form(longer: str, word: str) -> bool:
    """Say whether a word is another with an ending, such as a plural: languages without stems."""
    return longer.startswith(word) and len(longer) - len(word) <= ENDING_LETTERS < len(word)


def _summed(keys: Ints, values: Ints) -> tuple[Ints, Ints]:
    """Return the distinct keys, ascending, and the sum of the values of each."""
    distinct, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, inverse, values)
    return distinct, sums
