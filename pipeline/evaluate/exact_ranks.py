"""Where each system ranks each query's Exact products: what it finds, and what it misses."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.arrays import Ints
from pipeline.evaluate.judged_run import E_CODE, JudgedRun, Judgements
from pipeline.runs.ranking import find_pairs

IDS = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
    ]
)
"""The first columns of the table of Exact products; the title is null where the product has no
text, so that no system can find it."""

RANK = pa.int32()
"""The type of the other columns, one per system: from 1, null where the run lacks the product."""


def find(run: JudgedRun, judgements: Judgements) -> Ints:
    """Return the rank of each Exact product in a run, from 1, or 0 where the run lacks it.

    Args:
        run: the run of some queries.
        judgements: of the same queries; the result is in the order of those that are Exact.
    """
    rows, exact = codes(judgements)
    place = find_pairs(rows - judgements.first_query, exact, run.query, run.code)
    ranks = np.zeros(place.size, dtype=np.int64)
    ranks[place >= 0] = run.rank[place[place >= 0]]
    return ranks


def codes(judgements: Judgements) -> tuple[Ints, Ints]:
    """Return the query row and the product code of each Exact product, in the order of `find`."""
    exact = judgements.labels == E_CODE
    return judgements.positions()[exact] + judgements.first_query, judgements.codes[exact]


def table(
    query_ids: pa.ChunkedArray,
    product_ids: pa.ChunkedArray,
    titles: pa.Array,
    ranks: Mapping[str, Ints],
) -> pa.Table:
    """Return the table of Exact products: the columns `IDS`, then each system's ranks.

    Args:
        query_ids: one for each Exact product.
        product_ids: the same.
        titles: the same, null where the product has no text.
        ranks: by system, what `find` gives.
    """
    columns = {
        system: pc.if_else(pa.array(of > 0), pa.array(of.astype(np.int32)), pa.scalar(None, RANK))
        for system, of in ranks.items()
    }
    schema = pa.schema([*IDS, *(pa.field(system, RANK) for system in columns)])
    return pa.table([query_ids, product_ids, titles, *columns.values()], schema=schema)
