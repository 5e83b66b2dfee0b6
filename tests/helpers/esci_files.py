"""Small source folders in ESCI's official files and schema, for tests."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EXAMPLES_FILE = "shopping_queries_dataset_examples.parquet"
PRODUCTS_FILE = "shopping_queries_dataset_products.parquet"
SOURCES_FILE = "shopping_queries_dataset_sources.csv"

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
"""The official files' columns, in their order."""

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

Row = Mapping[str, Any]

_WORDS = {
    "us": ["steel", "kettle", "red", "usb", "cable", "kids", "jeans", "2 pack", "<b>new</b>"],
    "es": ["cafetera", "azul", "niño", "funda", "móvil", "de", "acero", "camión&nbsp;grande"],
    "jp": ["水筒", "ステンレス", "ｶﾊﾞｰ", "子供用", "傘", "５００ｍｌ", "＜紙＞", "が", "バッグ"],
}


def example(
    example_id: int,
    query_id: int,
    product_id: str,
    label: str = "E",
    locale: str = "us",
    query: str | None = "",
    **columns: object,
) -> dict[str, Any]:
    """A judgement of the test split in both versions; the query's text follows from its id."""
    return {
        "example_id": example_id,
        "query": f"query {query_id}" if query == "" else query,
        "query_id": query_id,
        "product_id": product_id,
        "product_locale": locale,
        "esci_label": label,
        "small_version": 1,
        "large_version": 1,
        "split": "test",
        **columns,
    }


def product(product_id: str, locale: str = "us", **columns: object) -> dict[str, Any]:
    """A product with a title; the other texts are null."""
    return {
        **dict.fromkeys(PRODUCTS.names),
        "product_id": product_id,
        "product_title": f"title {product_id}",
        "product_locale": locale,
        **columns,
    }


def write_source(folder: Path, examples: Iterable[Row], products: Iterable[Row]) -> Path:
    """Write both files; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(examples), EXAMPLES), folder / EXAMPLES_FILE)
    pq.write_table(pa.Table.from_pylist(list(products), PRODUCTS), folder / PRODUCTS_FILE)
    return folder


def small_source(folder: Path, locales: Iterable[str] = ("us", "es", "jp")) -> Path:
    """Write a source with two queries and three products a locale; return the folder."""
    examples, products = [], []
    for number, locale in enumerate(locales):
        first = 10 * number
        examples += [
            example(first, first, "A", locale=locale),
            example(first + 1, first, "B", "S", locale=locale),
            example(first + 2, first + 1, "B", locale=locale),
        ]
        products += [product(one, locale) for one in "ABC"]
    return write_source(folder, examples, products)


def random_source(
    seed: int, queries: int = 30, products: int = 60, locales: Iterable[str] = ("us", "es", "jp")
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return examples and products in random order, with nulls, empty texts and loose ends.

    Ids of products are shared between locales; some products are judged but absent, some repeated.
    """
    rng = np.random.default_rng(seed)
    examples: list[dict[str, Any]] = []
    catalogue: list[dict[str, Any]] = []

    def text(locale: str, empty: float) -> str | None:
        lot = rng.random()
        if lot < empty:
            return None if lot < empty / 2 else " <br> "
        return " ".join(rng.choice(_WORDS[locale], size=rng.integers(1, 8)))

    for number, locale in enumerate(locales):
        ids = [f"B{one:05d}" for one in rng.permutation(products * 2)[:products]]
        for query_id in rng.permutation(queries) + 1_000 * number:
            row: dict[str, Any] = {
                "query": text(locale, 0.1),
                "small_version": int(rng.random() < 0.7),
                "split": str(rng.choice(["train", "test"])),
            }
            for judged in rng.choice([*ids, "GONE"], size=rng.integers(1, 12), replace=False):
                label = str(rng.choice(["E", "S", "C", "I"]))
                number_of = len(examples)
                examples.append(
                    example(number_of, int(query_id), str(judged), label, locale, **row)
                )
        texts = [name for name in PRODUCTS.names if name not in ("product_id", "product_locale")]
        rows = [product(one, locale, **{name: text(locale, 0.4) for name in texts}) for one in ids]
        catalogue += [*rows, *rng.choice(np.array(rows), size=products // 10)]
    rng.shuffle(examples)
    rng.shuffle(catalogue)
    return examples, catalogue
