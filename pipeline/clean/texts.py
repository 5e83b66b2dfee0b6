"""One normalised text per query and per product."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.params import Clean
from pipeline.text.columns import join_columns, normalise_column, too_long


def clean_queries(sampled: pa.Table) -> pa.Table:
    """Return the queries' normalised texts; queries without one are left out.

    Args:
        sampled: columns as in `tables.SAMPLE_QUERIES`.

    Returns:
        The columns of `tables.QUERIES`.
    """
    texts = normalise_column(sampled["query"].combine_chunks())
    return _without_empty(pa.table({"query_id": sampled["query_id"], "text": texts}))


def clean_products(sampled: pa.Table, settings: Clean) -> pa.Table:
    """Return one text per product, its fields normalised and joined; those without are left out.

    Args:
        sampled: some products, columns as in `tables.SAMPLE_PRODUCTS`.
        settings: the fields, and the separator between them.

    Returns:
        The columns of `tables.PRODUCTS`.
    """
    rows, fields = len(sampled), settings.fields
    # All fields as one column: a kernel is set up once.
    together = pa.concat_arrays([chunk for name in fields for chunk in sampled[name].chunks])
    normalised = normalise_column(together)
    columns = [normalised.slice(place * rows, rows) for place in range(len(fields))]
    texts, ends = join_columns(columns, settings.separator)
    offsets = np.arange(0, ends.size + 1, len(fields), dtype=np.int32)
    products = {
        "product_id": sampled["product_id"],
        "text": texts,
        "field_ends": pa.ListArray.from_arrays(
            offsets, ends.ravel(), type=tables.PRODUCTS.field("field_ends").type
        ),
    }
    return _without_empty(pa.table(products, tables.PRODUCTS))


def count_cut(sampled: pa.Table, fields: Sequence[str]) -> int:
    """Return how many texts of these columns are longer than `normalise` reads."""
    return sum(pc.sum(too_long(sampled[name])).as_py() or 0 for name in fields)


def _without_empty(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["text"], ""))
