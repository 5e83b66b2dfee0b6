"""Judged products with both texts, some thousands of rows at a time."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core import tables
from pipeline.pairs.source import Judged

ROWS = 16_384
"""Rows joined with their texts at a time, and per row group."""


Written = dict[str, dict[str, dict[str, int]]]
"""By side and locale: how many queries, how many of them without E, and rows by label."""


def write_pairs(
    files: dict[str, Path], judged: dict[str, Judged], dev: dict[str, set[int]]
) -> Written:
    """Write the pairs of both sides, by locale, query and product.

    Args:
        files: the file of each side, train and dev.
        judged: what there is, by locale.
        dev: the queries of the side dev, by locale.
    """
    counts: Written = {side: {} for side in files}
    for side, path in files.items():
        with pq.ParquetWriter(path, tables.PAIRS, **tables.WRITE_OPTIONS) as writer:
            for locale, each in sorted(judged.items()):
                rows = _of_side(each.judgements, dev[locale], is_dev=side == "dev")
                counts[side][locale] = count_rows(rows)
                for pairs in _join(rows, each, locale):
                    writer.write_table(pairs)
    return counts


def count_rows(rows: pa.Table) -> dict[str, int]:
    """Return how many queries some judgements have, how many of them without E, rows by label."""
    labels = {label: pc.sum(pc.equal(rows["label"], label)).as_py() or 0 for label in tables.LABELS}
    exact = rows.filter(pc.equal(rows["label"], "E"))
    queries, with_exact = (pc.count_distinct(table["query_id"]).as_py() for table in (rows, exact))
    return {"queries": queries, "queries_without_E": queries - with_exact, **labels}


def _of_side(judgements: pa.Table, dev: Collection[int], *, is_dev: bool) -> pa.Table:
    inside = pc.is_in(judgements["query_id"], value_set=pa.array(sorted(dev), pa.int64()))
    return judgements.filter(inside if is_dev else pc.invert(inside))


def _join(rows: pa.Table, judged: Judged, locale: str) -> Iterator[pa.Table]:
    products = tables.read_table(judged.products, tables.PRODUCTS, "Run the stage again.")
    # Offsets of 64 bits: the texts of a locale may have more than 2 GB.
    texts = products["text"].cast(pa.large_string()).combine_chunks()
    queries = judged.queries["text"].combine_chunks()
    for start in range(0, len(rows), ROWS):
        part = rows.slice(start, ROWS)
        of_query = tables.row_of(judged.queries["query_id"], part["query_id"])
        of_product = tables.row_of(products["product_id"], part["product_id"])
        yield pa.table(
            {
                "query_id": part["query_id"],
                "locale": pa.array([locale] * len(part), pa.string()),
                "query": queries.take(of_query),
                "product_id": part["product_id"],
                "label": part["label"],
                "text": texts.take(of_product).cast(pa.string()),
            },
            tables.PAIRS,
        )
