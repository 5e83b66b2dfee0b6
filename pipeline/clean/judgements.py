"""The judgements that can be used: of a query with a text, of a product with a row, once each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
    product, label = (
        sampled[name].combine_chunks().dictionary_encode() for name in ("product_id", "esci_label")
    )
    query = sampled["query_id"].to_numpy()
    _, place = np.unique(query, return_inverse=True)
    pair = place * len(product.dictionary) + product.indices.to_numpy()
    _, firsts, place = np.unique(pair, return_index=True, return_inverse=True)
    first = firsts[place]
    repeated = first != np.arange(len(first))
    labels = label.indices.to_numpy()
    if (conflicting := np.flatnonzero(labels != labels[first])).size:
        row = int(conflicting[0])
        found = label.take(pa.array(np.flatnonzero(pair == pair[row]))).to_pylist()
        text = queries["text"].filter(pc.equal(queries["query_id"], query[row])).to_pylist()
        shown = f" ({shorten(text[0])})" if text else ""
        raise PipelineError(
            f"{where}: query_id {query[row]}{shown} and product_id {product[row]} must have one "
            f"label (found {' and '.join(found)}). Keep one label per pair in the source."
        )
    no_query = tables.row_of(queries["query_id"], sampled["query_id"]).is_null().to_numpy(False)
    no_row = tables.row_of(products, sampled["product_id"]).is_null().to_numpy(False)
    # One reason per row, the first that holds.
    dropped = {
        "dropped_repeated": repeated,
        "dropped_query_empty": no_query & ~repeated,
        "dropped_product_missing": no_row & ~(no_query | repeated),
    }
    kept = sampled.select(["query_id", "product_id", "esci_label"])
    kept = kept.rename_columns(tables.JUDGEMENTS.names).cast(tables.JUDGEMENTS)
    kept = kept.filter(pa.array(~(repeated | no_query | no_row))).combine_chunks()
    return Pairs(kept, {reason: int(rows.sum()) for reason, rows in dropped.items()})
