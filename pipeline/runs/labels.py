"""The labels that a reranker gives the judged products of each query, as probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS
from pipeline.runs.inputs import Ids
from pipeline.runs.ranking import SCORE_DECIMALS

PROBABILITIES = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("product_row", pa.int32(), nullable=False),
        *(pa.field(label, pa.float32(), nullable=False) for label in LABELS),
    ]
)
"""Of each judged pair, the probability of each label; sorted by query_id and product_row."""


def labels_table(ids: Ids, rows: Ints, codes: Ints, shares: NDArray[np.floating[Any]]) -> pa.Table:
    """Return a table of schema `PROBABILITIES`.

    Args:
        ids: what the rows and codes are of.
        rows: of the clean queries, [pairs].
        codes: of the clean products, [pairs].
        shares: the probabilities, [pairs, labels].
    """
    order = np.lexsort((codes, rows))
    rounded = np.round(shares[order], SCORE_DECIMALS).astype(np.float32)
    return pa.table(
        {
            "query_id": ids.queries.take(pa.array(rows[order])),
            "product_row": codes[order].astype(np.int32),
            **{label: rounded[:, place] for place, label in enumerate(LABELS)},
        }
    ).cast(PROBABILITIES)


def read_labels(path: Path, ids: Ids, rows: Ints, codes: Ints, remedy: str) -> NDArray[np.float32]:
    """Return the probabilities of these judged pairs, [pairs, labels].

    Args:
        path: the table.
        ids: what the rows and codes are of.
        rows: of the clean queries, ascending.
        codes: of the clean products, ascending for each query.
        remedy: a sentence that says what brings the file back; messages end with it.

    Raises:
        PipelineError: the table is missing or damaged, is of other pairs, or a number is no
            probability.
    """
    table = tables.read_table(path, PROBABILITIES, remedy)
    found = tables.rows_of(ids.queries, table["query_id"], path, remedy)
    if not (np.array_equal(found, rows) and np.array_equal(table["product_row"].to_numpy(), codes)):
        raise PipelineError(f"{path} is not of the judged pairs of the clean tables. {remedy}")
    shares: NDArray[np.float32] = np.column_stack([table[label].to_numpy() for label in LABELS])
    if not ((shares >= 0) & (shares <= 1)).all() or not np.allclose(
        shares.sum(axis=1), 1, atol=1e-4
    ):
        raise PipelineError(f"{path}: the probabilities of a pair must add up to 1. {remedy}")
    return shares
