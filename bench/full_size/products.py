"""The products of a large catalogue out of a bank's parts, by whole columns."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bench.full_size.shape import Length, Shape
from bench.full_size.vocabulary import ITEM_PARTS, SENTENCE, TAG, Bank
from bench.full_size.words import own, skewed
from pipeline.core.arrays import Ints
from pipeline.demo.catalogue import Rng

LINE_SALT = 11
TITLE_WORDS = 2
ODD_TITLES = 0.05
MOST_ITEMS = 24

_OPEN = ("", "<b>", "<p>", "<p>", "<ul><li>", "<div><strong>")
_CLOSE = ("", "</b>", "</p>", "</p>", "</li></ul>", "</strong></div>")
_BREAKS = ("<br>", "<br />", "<br/>", " <br> ", "<BR>", "</p><p>", "</p> <p>", "</li><li>")


def products(
    rng: Rng, bank: Bank, shape: Shape, numbers: Ints, ids: pa.Array, locale: str
) -> pa.RecordBatch:
    """Return the rows of some products.

    Args:
        rng: the chance of these products.
        bank: the parts.
        shape: their shares and lengths.
        numbers: which products of the locale; the prototypes take turns.
        ids: of these products.
        locale: of these products.
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
    """Return the items of each product's text, the prototype's own first; null for some.

    Args:
        rng: the chance of these products.
        bank: the parts.
        shape: of the locale.
        length: of these texts.
        prototypes: of each product.
        own: where among the parts the prototype's own text is.
        null: the share without a text.
        html: which have tags among their parts.
    """
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
