"""Which queries and products are drawn."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.log import log
from pipeline.core.params import Sample
from pipeline.sample import esci
from pipeline.sample.asker import SAMPLE, Asker

Id = TypeVar("Id", str, int)


def draw(
    ids: Iterable[Id], count: int | Literal["all", "none"], seed: int, locale: str
) -> list[Id]:
    """Draw `count` of `ids` without replacement, sorted.

    The draw depends only on the seed, the locale and each id: a larger draw contains the smaller
    one, and ids that are added or removed do not change the order of the others.
    """
    if count == "all":
        return sorted(ids)
    if count == "none":
        return []

    def lot(one: Id) -> bytes:
        return hashlib.blake2b(f"{seed}/{locale}/{one}".encode(), digest_size=16).digest()

    return sorted(sorted(ids, key=lot)[:count])


def draw_queries(
    examples: pa.Table, settings: Sample, locale: str, path: Path
) -> tuple[pa.Table, pa.Table]:
    """Return the drawn queries of a locale and all their judgements.

    Raises:
        PipelineError: a drawn query_id has two queries, or an example_id two judgements.
    """
    examples = esci.of_locale(examples, locale)
    queries = _distinct(examples.select(tables.SAMPLE_QUERIES.names))
    drawn = draw(set(queries["query_id"].to_pylist()), settings.queries, settings.seed, locale)
    of_drawn = pc.is_in(queries["query_id"], value_set=pa.array(drawn, pa.int64()))
    queries = queries.filter(of_drawn).sort_by("query_id")
    _refuse_two_meanings(queries, "query_id", ("query", "split"), locale, path)
    of_drawn = pc.is_in(examples["query_id"], value_set=pa.array(drawn, pa.int64()))
    judgements = examples.filter(of_drawn).select(tables.SAMPLE_JUDGEMENTS.names)
    _refuse_two_meanings(
        _distinct(judgements), "example_id", ("query_id", "product_id", "esci_label"), locale, path
    )
    order = [(name, "ascending") for name in ("query_id", "product_id", "example_id")]
    return queries, judgements.sort_by(order)


def sources_of(query_ids: pa.ChunkedArray, sources: pa.Table) -> pa.Table:
    """Return the sources of queries, in their order; null for one that has none."""
    found = sources["source"].take(tables.row_of(sources["query_id"], query_ids))
    return pa.table({"query_id": query_ids, "source": found})


def count_outside_filters(
    left_out: pa.Table, locale: str, queries: pa.Table, asker: Asker = SAMPLE
) -> int:
    """Return how many judgements of the drawn queries the filters left out, and warn of them.

    A sound source has none.
    """
    rows = esci.of_locale(left_out, locale)
    drawn = pc.is_in(rows["query_id"], value_set=queries["query_id"].combine_chunks())
    count: int = pc.sum(rows.filter(drawn)["count_all"]).as_py() or 0
    if count:
        log.warning(
            "warning: %d judgements of the drawn %s queries are outside %s, and left out",
            count, locale, asker.filters,
        )  # fmt: skip
    return count


def _distinct(table: pa.Table) -> pa.Table:
    return table.group_by(table.column_names, use_threads=False).aggregate([])


def _refuse_two_meanings(
    rows: pa.Table, key: str, shown: tuple[str, ...], locale: str, path: Path
) -> None:
    """Refuse a key that is in two rows; the rows are distinct."""
    if pc.count_distinct(rows[key]).as_py() == len(rows):
        return
    rows = rows.sort_by([(name, "ascending") for name in (key, *shown)])
    ids = rows[key].to_numpy()
    place = int(np.flatnonzero(ids[1:] == ids[:-1])[0])
    one, other = rows.slice(place, 2).to_pylist()
    if key == "query_id" and one["query"] == other["query"]:
        raise PipelineError(
            f"{path}: query {shorten(one['query'])} of locale {locale} is in both splits. Put all "
            "its rows in one."
        )
    first, second = (
        ", ".join(f"{name} {shorten(row[name])}" for name in shown) for row in (one, other)
    )
    raise PipelineError(
        f"{path}: {key} {ids[place]} of locale {locale} appears twice with different content: "
        f"({first}) and ({second}). Give each its own {key}."
    )
