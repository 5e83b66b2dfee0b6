"""The generated catalogue as tables in ESCI's schema.

Its faults are those of real catalogues. Of the products of one locale:

- 29 % of the descriptions hold markup and entities, 4 % of the titles entities; some bullets emoji
- nulls have about ESCI's shares: description 49 %, bullets 13 %, brand 7 %, color 34 %
- in jp, 12 % of the titles are full-width, 3 % and 6 % of the bullets half-width; queries too
- one in 75 has no text at all
- one in 25 repeats the one before it word for word under the next id; only one of the two is
  judged, the lower and the higher id by turns, so that ties are real
- one in 20 has its id in every locale, with other texts
- one in 200, the last one too, has its row twice
- beyond their number, one for every 50, two at least, is judged but has no row; every other such
  id has one in another locale

Of the queries, one in 96 has no E, one only I, one only white space as text; one judgement in 200,
the last one too, appears twice. One in 30 has no row in the sources file, whose shares are about
ESCI's: queries that avoid something are `negations`, the rest follow SOURCES. FOREIGN are products
of a locale without queries, under ids of the first locale.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from pipeline.core import tables
from pipeline.core.params import Demo
from pipeline.demo.catalogue import Product, Query, Rng, Shop, draw_product, draw_query
from pipeline.demo.ids import product_ids
from pipeline.demo.marketplace import Wording
from pipeline.demo.roughness import roughen, type_query

LOCALES = ("us", "es", "jp")
FOREIGN_LOCALE = "fr"
FOREIGN = (
    "Brisamar Gourde Isotherme en Acier Inoxydable 750 ml, Sans BPA, Bleu Nuit",
    "Chaussures de Course à Pied pour Femme, Amorti Maximal, Noir",
    "Coque de Protection pour iPhone 13 en Cuir Véritable avec Porte-Cartes",
    "Oreiller à Mémoire de Forme pour Dormeurs sur le Côté, 60 x 60 cm",
    "Cafetière Italienne 6 Tasses, Compatible Induction, Rouge",
)

SOURCES = {"other": 0.92, "parse_pattern": 0.05, "behavioral": 0.03}
"""Why a query that avoids nothing is there, and how often."""

EXAMPLES = pa.schema(
    [
        ("example_id", pa.int64()),
        ("query", pa.string()),
        ("query_id", pa.int64()),
        ("product_id", pa.string()),
        ("product_locale", pa.string()),
        ("esci_label", pa.string()),
        ("small_version", pa.int64()),
        ("large_version", pa.int64()),
        ("split", pa.string()),
    ]
)
PRODUCTS = pa.schema(
    [
        ("product_id", pa.string()),
        ("product_title", pa.string()),
        ("product_description", pa.string()),
        ("product_bullet_point", pa.string()),
        ("product_brand", pa.string()),
        ("product_color", pa.string()),
        ("product_locale", pa.string()),
    ]
)


def generate(wordings: Mapping[str, Wording], demo: Demo) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return examples, products and sources, in the schemas EXAMPLES, PRODUCTS and SAMPLE_SOURCES.

    Every locale has `demo.products` product ids and `demo.queries` query ids. A query and product
    have one label, a locale and product id one text. The number of queries changes no product.

    Args:
        wordings: the words of each locale, of which LOCALES are known.
        demo: the size and the seed.
    """
    examples: list[tuple[object, ...]] = []
    products: list[tuple[object, ...]] = []
    sources: list[tuple[object, ...]] = []
    example_id = 0
    for number, (locale, wording) in enumerate(wordings.items()):
        drawn = draw_products(wording, locale, demo)
        rows = [_product_row(each, locale) for each in drawn if each.listed]
        order = _rng(demo, locale, "order").permutation(len(rows))
        products += [rows[i] for i in order] + rows[::-200]
        if number == 0:
            ids = [row[0] for row in rows[: len(FOREIGN)]]
            foreign = zip(ids, FOREIGN, strict=True)
            products += [(each, title, *[None] * 4, FOREIGN_LOCALE) for each, title in foreign]
        judgements = []
        lots = _rng(demo, locale, "sources").random(demo.queries)
        for i, query in enumerate(draw_queries(wording, drawn, locale, demo)):
            if i % 30 != 11:
                sources.append((number * demo.queries + i, _source(query, lots[i])))
            small, split = int(i % 4 != 3), "train" if i % 3 == 2 else "test"
            for product_id, label in query.judgements:
                judgements.append(
                    (example_id, query.text, number * demo.queries + i, product_id, locale, label,
                     small, 1, split)
                )  # fmt: skip
                example_id += 1
        examples += judgements + judgements[::-200]
    return (
        _table(examples, EXAMPLES),
        _table(products, PRODUCTS),
        _table(sources, tables.SAMPLE_SOURCES),
    )


def draw_products(wording: Wording, locale: str, demo: Demo) -> list[Product]:
    """Return the products of a locale, in the order they were drawn, types by turns."""
    rng = _rng(demo, locale, "products")
    types = list(wording.types)
    products: list[Product] = []
    for i in range(demo.products):
        if i % 25 == 24:
            first = products.pop()
            second = replace(first, product_id=_asin(demo, locale, i - 1, twin=1))
            first_counts = i // 25 % 2 == 0
            products.append(replace(first, judged=first_counts))
            products.append(replace(second, judged=not first_counts))
            continue
        product = draw_product(rng, wording, types[i % len(types)], _asin(demo, locale, i))
        if i % 75 == 10:
            product = replace(
                product, title="", description=None, bullets=None, brand=None, color=None
            )
        products.append(roughen(rng, wording, product))
    elsewhere = LOCALES[LOCALES.index(locale) - 1]
    for i in range(max(2, demo.products // 50)):
        # An even number is never one that all locales share.
        product_id = _asin(demo, *((elsewhere, 2 * i) if i % 2 else (locale, demo.products + i)))
        product = draw_product(rng, wording, types[i % len(types)], product_id)
        products.append(replace(product, listed=False))
    return products


def draw_queries(
    wording: Wording, products: Sequence[Product], locale: str, demo: Demo
) -> Iterator[Query]:
    """Yield the queries of a locale; texts repeat only where the words run out."""
    rng = _rng(demo, locale, "queries")
    shop = Shop(products)
    seen: set[str] = set()
    for i in range(demo.queries):
        labels = {0: "SCI", 1: "I"}.get(i % 96, "ESCI")
        for _ in range(20):
            query = draw_query(rng, wording, shop, labels)
            if query.text not in seen:
                break
        seen.add(query.text)
        typed = type_query(rng, wording, query.text) if i % 96 != 4 else "\u3000 "
        yield replace(query, text=typed)


def _source(query: Query, lot: float) -> str:
    """Return why a query is there, by a lot from 0 to 1."""
    if query.avoids:
        return "negations"
    bounds = np.cumsum(list(SOURCES.values()))[:-1]
    return list(SOURCES)[int(np.searchsorted(bounds, lot, side="right"))]


def _rng(demo: Demo, locale: str, purpose: str) -> Rng:
    return np.random.default_rng([demo.seed, *f"{purpose} {locale}".encode()])


def _asin(demo: Demo, locale: str, i: int, twin: int = 0) -> str:
    """Return the id of product `i`: one in 20 is the same in all locales, a twin is the next id."""
    lane = LOCALES.index(locale)
    ids = product_ids(demo.seed, lane, len(LOCALES), np.array([i]), twin)
    return str(ids[0])


def _product_row(product: Product, locale: str) -> tuple[object, ...]:
    return (
        product.product_id, product.title, product.description, product.bullets, product.brand,
        product.color, locale,
    )  # fmt: skip


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
