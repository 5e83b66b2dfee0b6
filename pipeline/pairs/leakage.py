"""What must not be learned from: queries that are evaluated, and queries that choose the epoch."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.core import layout, tables
from pipeline.core.spelling import read_typed, text_key


@dataclass(frozen=True)
class Evaluated:
    """What the metrics are of, in all locales together.

    Attributes:
        query_ids: of the queries.
        texts: what `text_key` gives for the queries, as they were typed and as they are searched.
        products: by locale, the ids of the products that are judged for them.
    """

    query_ids: frozenset[int]
    texts: frozenset[str]
    products: Mapping[str, frozenset[str]]


def read_evaluated(locales: Iterable[str]) -> Evaluated:
    """Return what is evaluated in these locales, from their clean tables.

    Raises:
        PipelineError: a table is missing or damaged.
    """
    query_ids: set[int] = set()
    texts: set[str] = set()
    products = {}
    for locale in locales:
        files, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
        queries = tables.read_table(files.queries, tables.QUERIES, remedy)
        judged = tables.read_column(files.judgements, tables.JUDGEMENTS, "product_id", remedy)
        query_ids.update(queries["query_id"].to_pylist())
        texts.update(map(text_key, queries["text"].to_pylist()))
        texts.update(map(text_key, read_typed(locale).values()))
        products[locale] = frozenset(judged.unique().to_pylist())
    return Evaluated(frozenset(query_ids), frozenset(texts), products)


def drop_evaluated(queries: pa.Table, evaluated: Evaluated) -> tuple[pa.Table, dict[str, int]]:
    """Return the queries that are not evaluated, and how many are, by reason.

    A query counts once, by its id first.

    Args:
        queries: columns as in `tables.QUERIES`.
        evaluated: of all locales: a text may be a query in two of them.
    """
    ids, texts = queries["query_id"].to_pylist(), queries["text"].to_pylist()
    by_id = [each in evaluated.query_ids for each in ids]
    by_text = [text_key(each) in evaluated.texts for each in texts]
    counts = {
        "dropped_evaluated_id": sum(by_id),
        "dropped_evaluated_text": sum(
            text and not known for known, text in zip(by_id, by_text, strict=True)
        ),
    }
    keep = [not (known or text) for known, text in zip(by_id, by_text, strict=True)]
    return queries.filter(pa.array(keep, pa.bool_())), counts


def draw_dev(queries: Mapping[str, pa.Table], share: float, seed: int) -> dict[str, set[int]]:
    """Return the ids of the queries that choose the best epoch, by locale.

    The draw depends on the seed and the id alone, so a query stays on its side when others come or
    go. Queries of one text are drawn together, by the least of their ids.

    Args:
        queries: by locale, columns as in `tables.QUERIES`.
        share: how many of them, from 0 to 1.
        seed: another seed gives another draw.
    """
    rows = [
        (query_id, text_key(text), locale)
        for locale, table in queries.items()
        for query_id, text in zip(
            table["query_id"].to_pylist(), table["text"].to_pylist(), strict=True
        )
    ]
    least: dict[str, int] = {}
    for query_id, key, _ in sorted(rows):
        least.setdefault(key, query_id)
    dev: dict[str, set[int]] = {locale: set() for locale in queries}
    for query_id, key, locale in rows:
        if _lot(seed, least[key]) < share:
            dev[locale].add(query_id)
    return dev


def _lot(seed: int, query_id: int) -> float:
    """Return a number from 0 to 1, as if drawn at random."""
    digest = hashlib.blake2b(f"dev/{seed}/{query_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
