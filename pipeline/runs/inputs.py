"""What the runs of a locale rank: its ids and its judged pairs."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core import layout, tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError


@dataclass(frozen=True)
class Ids:
    """All query_ids and product_ids of a locale's clean tables, in their order."""

    queries: pa.ChunkedArray
    products: pa.ChunkedArray

    def has_text(self, codes: Ints) -> NDArray[np.bool_]:
        """Return whether each judged product has a text: codes as `read_judgements` gives them."""
        return codes < len(self.products)


@dataclass(frozen=True)
class Inputs(Ids):
    """What a locale's runs rank.

    `pair_queries` (ascending) and `pair_products` are the rows of the judged pairs, int64 [pairs].
    A judged product without a text is in no pair: no system can rank it.
    """

    pair_queries: Ints
    pair_products: Ints


def read_judgements(locale: str) -> tuple[Ids, pa.Table, tuple[Ints, Ints, Ints]]:
    """Read the ids and the judgements of a locale's clean tables.

    Returns:
        The ids, the table of judgements, and what `Judgements.from_pairs` takes: query rows
        (ascending), product codes (those of products without a text are above all rows),
        positions in `LABELS`; int64, [judgements].

    Raises:
        PipelineError: a table is missing or damaged, or the judgements name a query or label not
            known, or are not sorted by query.
    """
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    queries = tables.read_column(clean.queries, tables.QUERIES, "query_id", remedy)
    products = tables.read_column(clean.products, tables.PRODUCTS, "product_id", remedy)
    path = clean.judgements
    judgements = tables.read_table(path, tables.JUDGEMENTS, remedy)
    rows = tables.rows_of(queries, judgements["query_id"], path, remedy)
    if (np.diff(rows) < 0).any():
        raise PipelineError(f"{path} is not sorted by query_id. {remedy}")
    codes = _codes(products, judgements["product_id"])
    labels = tables.rows_of(pa.chunked_array([tables.LABELS]), judgements["label"], path, remedy)
    return Ids(queries, products), judgements, (rows, codes, labels)


def read_inputs(locale: str) -> Inputs:
    """Read what a locale's runs rank; raises as `read_judgements` does."""
    ids, _, (rows, codes, _) = read_judgements(locale)
    text = ids.has_text(codes)
    return Inputs(ids.queries, ids.products, rows[text], codes[text])


def product_ids(ids: Ids, judgements: pa.Table, codes: Ints) -> pa.ChunkedArray:
    """Return the product_id of each code that `read_judgements` gave of these judgements."""
    judged = judgements["product_id"].combine_chunks().dictionary_encode().dictionary
    return pa.chunked_array([*ids.products.chunks, judged]).take(pa.array(codes))


def _codes(products: pa.ChunkedArray, judged: pa.ChunkedArray) -> Ints:
    """Return each judged product's row; one without text gets a code above all rows."""
    known = tables.row_of(products, judged)
    beyond = pc.add(judged.combine_chunks().dictionary_encode().indices, len(products))
    return np.asarray(pc.coalesce(known, beyond), dtype=np.int64)
