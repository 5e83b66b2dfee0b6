"""A large catalogue out of a bank's parts, by whole columns: products, queries, judgements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.generator.bank import ITEM_PARTS, LABELS, SENTENCE, TAG, Bank
from pipeline.generator.catalogue import Query, Rng
from pipeline.generator.shape import (
    JUDGED_LEAST,
    JUDGED_MOST,
    JUDGED_USUAL,
    Length,
    Shape,
)
from pipeline.generator.words import own, skewed

Ints = NDArray[np.int64]

LINE_SALT = 11
TITLE_WORDS = 2
ODD_TITLES = 0.05
MOST_ITEMS = 24

_OPEN = ("", "<b>", "<p>", "<p>", "<ul><li>", "<div><strong>")
_CLOSE = ("", "</b>", "</p>", "</p>", "</li></ul>", "</strong></div>")
_BREAKS = ("<br>", "<br />", "<br/>", " <br> ", "<BR>", "</p><p>", "</p> <p>", "</li><li>")


def ids_of(seed: int, lane: int, lanes: int, numbers: Ints) -> pa.Array:
    """Return product ids like Amazon's; one in 20 is the same in all lanes.

    Distinct for all numbers below 2^26: an odd factor permutes the residues, and the lane has bits
    of its own.
    """
    offset, factor = np.random.default_rng([seed]).integers(2**37, size=2).tolist()
    residues = (numbers.astype(np.uint64) * np.uint64(factor | 1) + np.uint64(offset)) % 2**37
    own_lane = np.where(numbers % 20 == 7, lanes, lane).astype(np.uint64)
    rest = (residues * np.uint64(4) + own_lane) * np.uint64(2)
    letters = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)
    text = np.empty((len(numbers), 10), np.uint8)
    text[:, :2] = np.frombuffer(b"B0", np.uint8)
    for place in range(9, 1, -1):
        text[:, place] = letters[rest % np.uint64(36)]
        rest //= np.uint64(36)
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * 10
    return pa.StringArray.from_buffers(
        len(numbers), pa.py_buffer(offsets), pa.py_buffer(text.tobytes())
    )


def products(
    rng: Rng, bank: Bank, shape: Shape, numbers: Ints, ids: pa.Array, locale: str
) -> pa.RecordBatch:
    """Return the rows of some products.

    Args:
        rng: the chance of these products.
        bank: the parts.
        shape: their shares and lengths.
        numbers: which products of the locale; the prototypes take turns.
        ids: theirs.
        locale: theirs.
    """
    count = len(numbers)
    prototypes = numbers % len(bank.prototypes)
    take = pa.array(prototypes)
    lines = lines_of(bank, numbers)
    no_description, no_bullets, no_brand, no_color = shape.null
    words = skewed(rng, bank.words, (TITLE_WORDS, count))
    odd = np.flatnonzero(rng.random(count) < ODD_TITLES)
    words[-1, odd] = bank.words + rng.integers(bank.odd, size=len(odd))
    further = [bank.parts.take(pa.array(each)) for each in words]
    title = pc.binary_join_element_wise(bank.titles.take(take), lines, *further, " ")
    brands = bank.brands.take(take)
    of_line = pa.array(rng.random(count) < 0.7)
    brand = pc.if_else(of_line, pc.binary_join_element_wise(brands, lines, " "), brands)
    uncolored = bank.colors.null_count / len(bank.colors)
    bullets = _texts(rng, bank, shape, shape.bullets, prototypes, bank.own + prototypes, no_bullets)
    own_description = bank.own + len(bank.prototypes) + prototypes
    html = rng.random(count) < shape.html
    description = _texts(
        rng, bank, shape, shape.description, prototypes, own_description, no_description, html
    )
    return pa.RecordBatch.from_pydict(
        {
            "product_id": ids,
            "product_title": title,
            "product_description": _marked_up(rng, description, html, _gap(bank)),
            "product_bullet_point": pc.binary_join(bullets, "\n"),
            "product_brand": _without(rng, brand, no_brand),
            "product_color": _without(
                rng, bank.colors.take(take), max(0.0, (no_color - uncolored) / (1 - uncolored))
            ),
            "product_locale": pa.repeat(locale, count),
        }
    )


def lines_of(bank: Bank, numbers: Ints) -> pa.Array:
    """Return the product line of each product."""
    return bank.lines.take(pa.array(own(numbers, len(bank.lines), LINE_SALT)))


def _texts(
    rng: Rng,
    bank: Bank,
    shape: Shape,
    length: Length,
    prototypes: Ints,
    own: Ints,
    null: float,
    html: "NDArray[np.bool_] | None" = None,
) -> pa.ListArray:
    """Return the items of each product's text, the prototype's own first; null for some."""
    count = len(prototypes)
    gap = _gap(bank)
    targets = length.median * np.exp(length.spread * rng.standard_normal(count))
    items = 1 + np.clip(np.rint((targets - bank.mean_own) / bank.mean_item), 0, MOST_ITEMS)
    missing = rng.random(count) < null
    items = np.where(missing, 0, items).astype(np.int64)
    ends = np.cumsum(items)
    sizes = rng.integers(*ITEM_PARTS, size=ends[-1])
    firsts = (ends - items)[~missing]
    sizes[firsts] = 1
    part_ends = np.cumsum(sizes)
    rows = np.repeat(np.repeat(np.arange(count), items), sizes)
    # What each part is, by lot: a sentence of the product's type, a tag, else a word.
    lots = rng.random(len(rows), np.float32)
    parts = skewed(rng, bank.words, len(rows))
    chosen = np.flatnonzero(lots < SENTENCE)
    types = bank.types[prototypes[rows[chosen]]]
    start, stop = bank.sentences[types], bank.sentences[types + 1]
    parts[chosen] = start + (rng.random(len(chosen)) * (stop - start)).astype(np.int64)
    if html is not None:
        chosen = np.flatnonzero((lots > 1 - TAG) & html[rows])
        parts[chosen] = bank.words + bank.odd + rng.integers(bank.tags, size=len(chosen))
    odd = np.flatnonzero(rng.random(len(sizes)) < shape.odd)
    parts[(part_ends - 1)[odd]] = bank.words + rng.integers(bank.odd, size=len(odd))
    parts[(part_ends - 1)[firsts]] = own[~missing]
    joined = pc.binary_join(
        pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], part_ends]), pa.int32()), bank.parts.take(pa.array(parts))
        ),
        gap,
    )
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], ends]), pa.int32()), joined, mask=pa.array(missing)
    )


def _gap(bank: Bank) -> str:
    return "" if bank.script == "japanese" else " "


def _marked_up(rng: Rng, items: pa.ListArray, html: "NDArray[np.bool_]", gap: str) -> pa.Array:
    """Return texts out of their items, with markup where `html` says so."""
    breaks = pa.array(_BREAKS).take(pa.array(rng.integers(len(_BREAKS), size=len(items))))
    outside = pa.array(rng.integers(len(_OPEN), size=len(items)))
    marked = pa.array(html)
    body = pc.binary_join(items, pc.if_else(marked, breaks, gap))
    opened = pc.if_else(marked, pa.array(_OPEN).take(outside), "")
    closed = pc.if_else(marked, pa.array(_CLOSE).take(outside), "")
    return pc.binary_join_element_wise(opened, body, closed, "")


def _without(rng: Rng, values: pa.Array, share: float) -> pa.Array:
    return pc.if_else(pa.array(rng.random(len(values)) < share), None, values)


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
    drawn: Ints = flat[starts[which] + (rng.random(len(which)) * sizes[which]).astype(np.int64)]
    return drawn


def _nth_product(prototypes: Ints, count: int, products: int) -> Ints:
    """Return a product for each prototype, its products by turns, so that all come up."""
    order = np.argsort(prototypes, kind="stable")
    ordered = prototypes[order]
    first = np.searchsorted(ordered, ordered)
    turns = np.empty(len(order), np.int64)
    turns[order] = np.arange(len(order)) - first
    owned = (products - prototypes + count - 1) // count
    return prototypes + count * (turns % owned)
