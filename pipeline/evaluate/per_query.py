"""The table of measures, one row a query: small, for Git, so that revisions compare.

Next to the measures stand the labels of each system's first products, and in the schema's metadata
what the numbers are of: tables of different samples do not compare.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import tables
from pipeline.core.tables import SAMPLE_KEY
from pipeline.evaluate.metrics import MEAN_DECIMALS, PerQuery
from pipeline.runs.card import RunCard

COMPRESSION_LEVEL = 19
"""A tenth smaller than at zstd's usual level; Git keeps every version."""

Sample = dict[str, str | int]


def sample(
    locale: str, card: RunCard, queries: pa.Table, products: pa.ChunkedArray, judgements: pa.Table
) -> Sample:
    """Return what the numbers are of: two tables compare only if this is equal.

    Args:
        locale: whose it is.
        card: that of some system's runs; all are of one depth and of these queries and products.
        queries: a table of schema `tables.QUERIES`.
        products: all product_ids.
        judgements: a table of schema `tables.JUDGEMENTS`.
    """
    columns = [judgements[name] for name in ("query_id", "product_id", "label")]
    return {
        "locale": locale,
        "products": len(products),
        "queries": len(queries),
        "depth": card.depth,
        "product_ids_sha256": card.product_ids_sha256,
        "query_ids_sha256": card.query_ids_sha256,
        "judgements_sha256": tables.columns_sha256(columns),
    }


def table(
    queries: pa.Table,
    measures: Mapping[str, PerQuery],
    labels: Mapping[str, Sequence[str]],
    kept: Sequence[str],
    of: Sample,
) -> pa.Table:
    """Return the table: query_id, query, then by system its measures and its labels.

    Measures are float32, rounded to 5 digits, null where undefined: `dense.ndcg@10`; the labels
    are `dense.labels`.

    Args:
        queries: a table of schema `tables.QUERIES`.
        measures: by system, [queries] each.
        labels: by system, a string a query.
        kept: which measures; see `Evaluate.per_query`.
        of: what `sample` gives; goes to the schema's metadata.
    """
    columns = {"query_id": queries["query_id"], "query": queries["text"]}
    for system, values in measures.items():
        for name in kept:
            rounded = np.round(values[name], MEAN_DECIMALS).astype(np.float32)
            columns[f"{system}.{name}"] = pa.array(rounded, from_pandas=True)
        columns[f"{system}.labels"] = pa.array(labels[system], pa.string())
    metadata = {SAMPLE_KEY: json.dumps(of, sort_keys=True).encode()}
    return pa.table(columns).replace_schema_metadata(metadata)


def write(path: Path, rows: pa.Table) -> None:
    """Write the table, small."""
    pq.write_table(rows, path, compression_level=COMPRESSION_LEVEL, **tables.WRITE_OPTIONS)
