"""Queries that are known by their text: spellings that `clean` makes one text are one query."""

from collections import Counter

import numpy as np
import pyarrow as pa

from pipeline.sample.columns import QUERY_ID_BITS, by_value, hashed
from pipeline.text.columns import normalise_column

_KEYS = ["product_locale", "query_id"]


def ids_of(texts: pa.ChunkedArray) -> pa.Array:
    """Return the ids of queries by their texts, int64: a hash of the normalised text."""
    normalised = pa.chunked_array([normalise_column(texts.combine_chunks())])
    return by_value(normalised, lambda text: hashed(text, QUERY_ID_BITS)).combine_chunks()


def join_spellings(examples: pa.Table) -> tuple[pa.Table, Counter[str]]:
    """Give the queries of one id one text: the least, so that the order of rows changes nothing.

    Args:
        examples: judgements whose ids are those of `ids_of`.

    Returns:
        The judgements, in their order, and how many other spellings each locale had.
    """
    spellings = examples.group_by([*_KEYS, "query"], use_threads=False).aggregate([])
    least = spellings.group_by(_KEYS, use_threads=False).aggregate([("query", "min")])
    if len(least) == len(spellings):
        return examples, Counter()
    counts = [Counter(table["product_locale"].to_pylist()) for table in (spellings, least)]
    at = pa.array(np.arange(len(examples)))
    joined = examples.append_column("at", at).join(least, _KEYS).sort_by("at")
    place = examples.column_names.index("query")
    query = joined["query_min"].cast(examples.schema.field("query").type)
    return examples.set_column(place, "query", query), counts[0] - counts[1]
