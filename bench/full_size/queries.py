"""The queries of a large catalogue and their judgements, by whole columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bench.full_size.products import lines_of
from bench.full_size.shape import JUDGED_LEAST, JUDGED_MOST, JUDGED_USUAL, Shape
from bench.full_size.vocabulary import LABELS, Bank
from pipeline.core.arrays import Ints
from pipeline.demo.catalogue import Query, Rng


@dataclass(frozen=True)
class Asked:
    """The queries of a locale and their judgements, by query.

    Attributes:
        texts: of each query.
        small: which are in the small version.
        test: which are test queries.
        counts: judgements of each query.
        products: the number of each judgement's product.
        labels: the place of each judgement's label in LABELS.
    """

    texts: pa.Array
    small: NDArray[np.bool_]
    test: NDArray[np.bool_]
    counts: Ints
    products: Ints
    labels: Ints


def ask(rng: Rng, bank: Bank, shape: Shape) -> Asked:
    """Draw a locale's queries, and judge products for them; no query judges one twice."""
    asked = rng.integers(len(bank.queries), size=shape.queries)
    most = min(JUDGED_MOST, shape.products // len(bank.prototypes))
    counts = judged_counts(rng, shape, most)
    labels = _labels(rng, counts, shape.labels)
    rows = np.repeat(np.arange(shape.queries), counts)
    prototypes = _judged_prototypes(rng, bank.queries, asked[rows], labels)
    products = _nth_product(prototypes, len(bank.prototypes), shape.products)
    order = rng.permutation(shape.queries)
    small, test = np.zeros((2, shape.queries), bool)
    small[order[: shape.small]] = True
    test[order[: shape.small_test]] = True
    test[order[shape.small : shape.small + shape.test - shape.small_test]] = True
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    texts = pa.array([each.text for each in bank.queries]).take(pa.array(asked))
    # Most are for more than the words of the demo can say: for the line of a product that is E.
    named = pc.binary_join_element_wise(texts, lines_of(bank, products[firsts]), " ")
    texts = pc.if_else(pa.array(rng.random(shape.queries) < 0.8), pc.utf8_lower(named), texts)
    return Asked(texts, small, test, counts, products, labels)


def judged_counts(rng: Rng, shape: Shape, most: int) -> Ints:
    """Return how many judgements each query has: as many in all as `shape` says.

    Half have 16 or fewer, the others up to `most`, few of them many.
    """
    below = rng.integers(JUDGED_LEAST, JUDGED_USUAL, size=shape.queries)
    mean = shape.judgements / shape.queries
    tail = max(2 * (mean - JUDGED_USUAL) + 4, 1.0)
    above = JUDGED_USUAL + rng.exponential(tail, shape.queries)
    lots = rng.random(shape.queries)
    counts = np.where(lots < 0.2, below, np.where(lots < 0.6, JUDGED_USUAL, above))
    counts = np.clip(counts, JUDGED_LEAST, most).astype(np.int64)
    while missing := shape.judgements - int(counts.sum()):
        step = 1 if missing > 0 else -1
        free = np.flatnonzero((counts < most) if step > 0 else (counts > JUDGED_LEAST))
        counts[rng.permutation(free)[: abs(missing)]] += step
    return counts


def _labels(rng: Rng, counts: Ints, shares: Sequence[float]) -> Ints:
    """Return the labels of all judgements, by query, E first and at least once; queries differ."""
    own_shares = rng.dirichlet(np.array(shares) * 4, size=len(counts))
    by_label = rng.multinomial(counts, own_shares)
    without = np.flatnonzero(by_label[:, 0] == 0)
    by_label[without, by_label[without].argmax(axis=1)] -= 1
    by_label[without, 0] = 1
    return np.repeat(np.tile(np.arange(len(LABELS)), len(counts)), by_label.ravel())


def _judged_prototypes(rng: Rng, queries: Sequence[Query], asked: Ints, labels: Ints) -> Ints:
    """Return a prototype for each judgement, which its query's prototype gives that label."""
    lists = [
        [int(number) for number, label in query.judgements if label == name]
        for query in queries
        for name in LABELS
    ]
    sizes = np.array(list(map(len, lists)))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    flat = np.array([number for each in lists for number in each])
    which = asked * len(LABELS) + labels
    chosen: Ints = flat[starts[which] + (rng.random(len(which)) * sizes[which]).astype(np.int64)]
    return chosen


def _nth_product(prototypes: Ints, count: int, products: int) -> Ints:
    """Return a product for each prototype, its products by turns, so that all come up."""
    order = np.argsort(prototypes, kind="stable")
    ordered = prototypes[order]
    first = np.searchsorted(ordered, ordered)
    turns = np.empty(len(order), np.int64)
    turns[order] = np.arange(len(order)) - first
    owned = (products - prototypes + count - 1) // count
    return prototypes + count * (turns % owned)
