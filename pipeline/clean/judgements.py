"""The judgements that can be used: of a query with a text, of a product with a row, once each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.errors import PipelineError, shorten


@dataclass(frozen=True)
class Pairs:
    """The judgements that can be used, and how many cannot, by reason."""

    table: pa.Table
    dropped: dict[str, int]


def clean_judgements(
    sampled: pa.Table,
    queries: pa.Table,
    products: pa.ChunkedArray,
    where: Path,
) -> Pairs:
    """Keep the judgements whose query has a text and whose product has a row, once each.

    A product without text keeps its judgements: nothing can find it, and the judgements must not
    depend on the fields that make up a text.

    Args:
        sampled: judgements sorted by query_id and product_id.
        queries: those that have a text, as in `tables.QUERIES`.
        products: the product_ids of the sample, with or without a text.
        where: the file they come from, for messages.

    Raises:
        PipelineError: a pair is judged twice, with different labels.
    """
    frame = pd.DataFrame(
        {
            "query_id": sampled["query_id"].to_numpy(),
            "product_id": sampled["product_id"],
            "label": sampled["esci_label"].to_pylist(),
        }
    )
    repeated = frame.duplicated(["query_id", "product_id"]).to_numpy()
    conflicting = repeated & ~frame.duplicated(["query_id", "product_id", "label"]).to_numpy()
    if conflicting.any():
        row = frame.iloc[int(np.flatnonzero(conflicting)[0])]
        labels = frame[
            (frame.query_id == row.query_id) & (frame.product_id == row.product_id)
        ].label
        text = queries["text"].filter(pc.equal(queries["query_id"], row.query_id)).to_pylist()
        shown = f" ({shorten(text[0])})" if text else ""
        raise PipelineError(
            f"{where}: query_id {row.query_id}{shown} and product_id {row.product_id} must have "
            f"one label (found {' and '.join(labels)}). Keep one label per pair in the source."
        )
    no_query = tables.row_of(queries["query_id"], sampled["query_id"]).is_null().to_numpy(False)
    no_row = tables.row_of(products, sampled["product_id"]).is_null().to_numpy(False)
    # One reason per row, the first that holds.
    dropped = {
        "dropped_repeated": repeated,
        "dropped_query_empty": no_query & ~repeated,
        "dropped_product_missing": no_row & ~(no_query | repeated),
    }
    kept = frame[~(repeated | no_query | no_row)]
    table = pa.Table.from_pandas(kept, tables.JUDGEMENTS, preserve_index=False)
    return Pairs(table.replace_schema_metadata(), {k: int(v.sum()) for k, v in dropped.items()})
