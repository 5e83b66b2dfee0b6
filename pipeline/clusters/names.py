"""Names of groups: the terms that set a group apart, and together cover most of its products."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.bm25 import analysers
from pipeline.clusters.counts import LEFT_OUT, Counts, Titles
from pipeline.core.arrays import Floats, Ints, Matrix
from pipeline.runs import ranking

WORDS = 4
"""How many words a name has, at most; a pair that is written together is one."""

COMMON = 0.3
"""A term of more than this share of the clusters tells none apart; see `common_terms`."""
PRESENT = 0.05
"""A cluster has a term where at least this share of its products have it."""

SUPPORT, FEWEST = 0.05, 3
"""The least share of a group's products, and the least number of them, that a word adds to those
with a word before it. A group of fewer products needs all of them."""
CLOSE = 0.4
"""The least closeness of a term to a group; see `_closeness`."""
COVERED = 0.5
"""The least share of a group's products that a name covers; with less, the group has no name."""

PAIRED = 0.6
"""Two terms are one word where this share of a group's products with one have both in a row."""

ENDING_LETTERS = 2


@dataclass(frozen=True)
class Name:
    """A group's name; it has no words where too few products have one of them.

    Attributes:
        words: the word that tells most comes first.
        covered: the share of the group's products whose titles have one of the words that were
            found, also where these are too few for a name.
    """

    words: tuple[str, ...]
    covered: float


def name_groups(
    leaves: Counts,
    titles: Titles,
    leaf: Ints,
    group_of_leaf: Ints,
    centroids: Matrix,
    left_out: NDArray[np.bool_],
) -> list[Name]:
    """Return the name of each group of leaves, or of each leaf.

    Words are chosen one by one, each by the products that have none of the words before it: so a
    name has a word for each large part of its group. The weight of a term t in a group c is that
    of class-based TF-IDF (Grootendorst: BERTopic, 2022, arXiv 2203.05794):
    p(t, c) * log(1 + A / f(t)). p is the share of the group's products that have the term and none
    of the words before it, f how many products of all groups have it, A the mean over the groups of
    the sum of its terms' counts. A product counts a term once: a repeated word gains nothing.

    Of words of equal weight, the one of the least mean place in the titles is chosen; `LEFT_OUT`
    takes a place too. A word that is a chosen one with or without an ending is passed over.

    Args:
        leaves: the counts of the leaves.
        titles: the products' terms.
        leaf: of each product, int64 [products].
        group_of_leaf: int64 [leaves].
        centroids: of the leaves, [leaves, dimension].
        left_out: terms that are in no name, bool [terms].
    """
    counts, group = leaves.within(group_of_leaf), group_of_leaf[leaf]
    sizes = np.bincount(group)
    per_term = np.bincount(counts.terms, counts.products, minlength=len(counts.shown))
    rarity = np.log1p(counts.products.sum() / len(sizes) / np.maximum(per_term, 1))
    least = np.maximum(np.minimum(FEWEST, sizes), SUPPORT * sizes)
    enough = ~left_out[counts.terms] & (counts.products >= least[counts.groups])
    fits = np.flatnonzero(enough)
    fits = fits[_closeness(leaves, counts, fits, _likeness(group_of_leaf, centroids)) >= CLOSE]
    starts = np.searchsorted(counts.groups[fits], np.arange(len(sizes) + 1))
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    names = []
    for rows, (start, stop), fewest in zip(members, pairwise(starts), least, strict=True):
        candidates = counts.terms[fits[start:stop]]
        terms, owner = titles.of(rows)
        having = _having(terms, owner, candidates, len(rows))
        forms = [counts.shown[term] for term in candidates]
        order = _by_place(terms, owner, candidates, forms)
        chosen, covered = _choose(having, rarity[candidates], forms, order, fewest)
        words = [
            _with_pair(term, terms, owner, left_out, counts.shown)
            for term in (candidates[chosen].tolist() if covered >= COVERED else ())
        ]
        names.append(Name(tuple(dict.fromkeys(words)), covered))
    return names


def common_terms(counts: Counts, sizes: Ints) -> NDArray[np.bool_]:
    """Say which terms more than `COMMON` of the clusters have, bool [terms].

    These are function words and advertising. A term of a single cluster is never common.
    """
    present = counts.products >= PRESENT * sizes[counts.groups]
    having = np.bincount(counts.terms[present], minlength=len(counts.shown))
    return np.asarray(having > max(1, COMMON * len(sizes)))


def _likeness(group_of_leaf: Ints, centroids: Matrix) -> Floats:
    """Return the cosines of groups and leaves, 0 where negative, 1 of a group's own leaves.

    The result is [groups, leaves].
    """
    middle = np.zeros((int(group_of_leaf.max()) + 1, centroids.shape[1]))
    np.add.at(middle, group_of_leaf, centroids)
    middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-12)
    alike = np.clip(middle @ centroids.T, 0, 1)
    alike[group_of_leaf, np.arange(len(group_of_leaf))] = 1
    return np.asarray(alike)


def _closeness(leaves: Counts, counts: Counts, pairs: Ints, alike: Floats) -> Floats:
    """Return how close a term is to a group, 0 to 1, for some pairs of `counts`.

    That is the share of the term's products that are in the group. Those of other leaves count by
    the cosine of the leaf and the group. So a word of one kind of product is close where this kind
    is, though several groups share it. Colours, sizes and advertising are everywhere, and close to
    no group. One more product is counted that is far from all: it makes rare terms less close.
    """
    order = np.argsort(leaves.terms, kind="stable")
    starts = np.searchsorted(leaves.terms[order], np.arange(len(leaves.shown) + 1))
    close = np.empty(len(pairs))
    for place, pair in enumerate(pairs):
        term = counts.terms[pair]
        having = order[starts[term] : starts[term + 1]]
        products = leaves.products[having]
        near = products @ alike[counts.groups[pair], leaves.groups[having]]
        close[place] = near / (products.sum() + 1)
    return close.round(9)


def _having(terms: Ints, owner: Ints, wanted: Ints, products: int) -> NDArray[np.bool_]:
    """Say which of some products have which of the wanted terms, bool [wanted, products].

    Args:
        terms: of each pair of a term and a product that has it, or `LEFT_OUT`.
        owner: the product.
        wanted: terms, ascending.
        products: how many products there are.
    """
    having = np.zeros((len(wanted), products), dtype=np.bool_)
    if len(wanted):
        place = np.minimum(np.searchsorted(wanted, terms), len(wanted) - 1)
        found = wanted[place] == terms
        having[place[found], owner[found]] = True
    return having


def _by_place(terms: Ints, owner: Ints, wanted: Ints, forms: list[str]) -> Ints:
    """Return the rank of each wanted term by its mean place in the titles, the earliest is 0.

    A title says what a product is before it says how it is: of *Ventilador de Mesa, Motor AC*, the
    first word names all fans. Terms of equal places are ranked by their letters.

    Args:
        terms: of the titles, one after another.
        owner: the product of each, ascending.
        wanted: terms, ascending; each is in a title.
        forms: how these are written.
    """
    place = ranking.places(owner)
    found = np.isin(terms, wanted)
    of = np.searchsorted(wanted, terms[found])
    times = np.bincount(of, minlength=len(wanted))
    mean = np.bincount(of, place[found], minlength=len(wanted)) / times
    rank = np.empty(len(wanted), dtype=np.int64)
    rank[np.lexsort((np.array(forms, dtype=np.str_), mean.round(9)))] = np.arange(len(wanted))
    return rank


def _choose(
    having: NDArray[np.bool_], rarity: Floats, forms: list[str], order: Ints, least: float
) -> tuple[list[int], float]:
    """Choose words one by one; return their places and the share of the products with one.

    Args:
        having: which products have which word, [words, products].
        rarity: the part of a word's weight that does not depend on the group, [words].
        forms: how the words are written.
        order: the rank of each word, which decides between words of equal weight, int64 [words].
        least: how many products a word must add.
    """
    chosen: list[int] = []
    bare = np.ones(having.shape[1], dtype=np.bool_)
    while len(chosen) < WORDS:
        adds = having[:, bare].sum(axis=1)
        # Rounded so that no logarithm's last bit decides.
        weight = (adds / len(bare) * rarity).round(9)
        fitting = [
            place
            for place in np.flatnonzero(adds >= least).tolist()
            if not any(_same_word(forms[place], forms[other]) for other in chosen)
        ]
        if not fitting:
            break
        chosen.append(min(fitting, key=lambda place: (-weight[place], order[place])))
        bare &= ~having[chosen[-1]]
    return chosen, float(1 - bare.mean())


def _with_pair(
    term: int, terms: Ints, owner: Ints, left_out: NDArray[np.bool_], shown: list[str]
) -> str:
    """Return a word with the one that mostly follows it or precedes it in a group's titles.

    Args:
        term: of the word.
        terms: of the titles, one after another, `LEFT_OUT` between those that are no neighbours.
        owner: the product of each.
        left_out: terms that are in no name.
        shown: how terms are written.
    """
    places = np.flatnonzero(terms == term)
    best, most = shown[term], max(FEWEST, PAIRED * len(places))
    for step in (1, -1):
        others = places + step
        inside = (others >= 0) & (others < len(terms))
        others = others[inside][owner[others[inside]] == owner[places[inside]]]
        neighbours = terms[others][terms[others] != LEFT_OUT]
        beside, times = np.unique(neighbours[~left_out[neighbours]], return_counts=True)
        if times.max(initial=0) >= most:
            other = shown[beside[times.argmax()]]
            most = times.max() + 1
            best = _joined(shown[term], other) if step == 1 else _joined(other, shown[term])
    return best


def _joined(first: str, second: str) -> str:
    """Return two words in a row; a script without spaces has none between them."""
    both_unspaced = all(map(analysers.is_unspaced, (first[-1], second[0])))
    return f"{first}{second}" if both_unspaced else f"{first} {second}"


def _same_word(one: str, other: str) -> bool:
    """Say whether a word is another with an ending, such as a plural: languages without stems."""
    word, longer = sorted((one, other), key=len)
    return longer.startswith(word) and len(longer) - len(word) <= ENDING_LETTERS < len(word)
