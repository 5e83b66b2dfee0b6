"""The queries to browse: which ones are on the page, and their data for its script."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import layout, tables
from pipeline.core.arrays import Floats, Ints
from pipeline.core.errors import PipelineError
from pipeline.core.params import Report
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.report.inputs import LocaleResults, evaluate_again
from pipeline.report.wording import display_name

_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def choose_queries(apart: Floats, settings: Report) -> Ints:
    """Return the rows of the queries that are on the page, ascending.

    All, if there are no more than asked for. Else half of them (rounded up) are those with the
    largest differences between systems; the others are drawn from the rest, to show usual queries
    too.

    Args:
        apart: between the best and the worst system, [queries]; NaN where undefined.
        settings: how many, and the seed of the draw.
    """
    queries = len(apart)
    if queries <= settings.queries:
        return np.arange(queries)
    largest = np.lexsort((np.arange(queries), -np.nan_to_num(apart, nan=-1.0)))
    differing = differing_most(settings)
    drawn = np.random.default_rng(settings.seed).choice(
        np.sort(largest[differing:]), settings.queries - differing, replace=False
    )
    return np.sort(np.concatenate([largest[:differing], drawn]))


def differing_most(settings: Report) -> int:
    """Return how many queries are chosen for their differences, where not all are shown."""
    return (settings.queries + 1) // 2


def differences(results: LocaleResults) -> Floats:
    """Return how far the systems are apart in the first measure, [queries]; NaN: undefined."""
    columns = [f"{system}.{results.measures[0]}" for system in results.runs]
    values = np.column_stack(
        [results.per_query[name].to_numpy().astype(np.float64) for name in columns]
    )
    return np.asarray(values.max(axis=1) - values.min(axis=1))


def queries_data(
    results: LocaleResults, settings: Report, also: Collection[int] = ()
) -> Mapping[str, Any]:
    """Return what the page's script shows of a locale, ready for `embedded_json`.

    The queries are those that `choose_queries` chooses, and those with the ids in `also`.

    `products` are [id, title], the title null where the product has no text. `queries` are [id,
    text, values, lists, kinds, exact, missed]: `values` has one row per system with one value per
    measure (or null), `lists` one list per system as `_ranked_lists` gives it, `kinds` the place of
    the query's value in each of the `kinds` of the locale, `exact` how many products are Exact, and
    `missed` is what `_missed` gives. An id of a query is a string: a number beyond 2**53 loses
    digits in JavaScript.

    Raises:
        PipelineError: in the table of first products, a rank is missing or there twice.
    """
    chosen = choose_queries(differences(results), settings)
    linked = pc.is_in(results.per_query["query_id"], value_set=pa.array(also, pa.int64()))
    places = np.union1d(chosen, np.flatnonzero(linked))
    queries = results.per_query.take(places)
    ids = queries["query_id"]
    top, exact = (_of_queries(each, ids) for each in (results.top, results.exact))
    top = top.filter(pc.less_equal(top["rank"], settings.results)).sort_by(
        [("query_id", "ascending"), ("system", "ascending"), ("rank", "ascending")]
    )
    missed = exact.filter(_is_missed(exact, results.runs, settings.results))
    named, titled = (
        pa.chunked_array([*top[name].chunks, *missed[name].chunks], pa.string())
        for name in ("product_id", "title")
    )
    products = pc.unique(named).sort()
    titles = titled.take(pc.index_in(products, value_set=named.combine_chunks())).to_pylist()
    values = np.array(
        [
            [_rounded(queries[f"{system}.{measure}"]) for measure in results.measures]
            for system in results.runs
        ],
        dtype=object,
    )
    lists = _ranked_lists(results, ids, top, products)
    kinds, members = _kinds(_of_queries(results.kinds, ids))
    numbers = _exact_products(ids, exact)
    absent = _missed(ids, missed, products, results.runs)
    texts = queries["query"].to_pylist()
    return {
        "locale": results.locale,
        "note": note(results, settings, len(places) - len(chosen)),
        "total": results.per_query.num_rows,
        "depth": results.depth,
        "results": settings.results,
        "language": "" if results.language == "any" else results.language,
        "systems": list(results.runs),
        "measures": [display_name(measure) for measure in results.measures],
        "kinds": kinds,
        "products": [list(pair) for pair in zip(products.to_pylist(), titles, strict=True)],
        "queries": [
            [query_id, texts[row], values[:, :, row].tolist(), lists[row], members[row],
             numbers[row], absent[row]]
            for row, query_id in enumerate(ids.cast(pa.string()).to_pylist())
        ],
    }  # fmt: skip


def _of_queries(table: pa.Table, query_ids: pa.ChunkedArray) -> pa.Table:
    """Return the rows of a table that are of some queries."""
    return table.filter(pc.is_in(table["query_id"], value_set=query_ids.combine_chunks()))


def _is_missed(exact: pa.Table, systems: Sequence[str], shown: int) -> pa.ChunkedArray:
    """Return of each Exact product whether a system lacks it among its first `shown` products."""
    missed = pa.chunked_array([np.zeros(len(exact), dtype=bool)])
    for system in systems:
        found = pc.less_equal(exact[system], shown).fill_null(False)
        missed = pc.or_(missed, pc.invert(found))
    return missed


def _kinds(kinds: pa.Table) -> tuple[list[list[Any]], list[list[int]]]:
    """Return each slice as [name, values], and the places of the queries' values, [queries][kinds].

    A value that none of these queries has is left out.
    """
    columns = [kinds[name].combine_chunks().dictionary_encode() for name in kinds.column_names[1:]]
    named = [
        [name, column.dictionary.to_pylist()]
        for name, column in zip(kinds.column_names[1:], columns, strict=True)
    ]
    places = [column.indices.to_pylist() for column in columns]
    return named, [list(row) for row in zip(*places, strict=True)] or [
        [] for _ in range(len(kinds))
    ]


def _exact_products(query_ids: pa.ChunkedArray, exact: pa.Table) -> list[int]:
    """Return how many products of each query are Exact."""
    counts = exact["query_id"].value_counts()
    of_id = dict(
        zip(*(counts.field(name).to_pylist() for name in ("values", "counts")), strict=True)
    )
    return [of_id.get(query_id, 0) for query_id in query_ids.to_pylist()]


def _missed(
    query_ids: pa.ChunkedArray, missed: pa.Table, products: pa.Array, systems: Sequence[str]
) -> list[list[list[int]]]:
    """Return of each query the Exact products that a system misses: [place in `products`, ranks].

    A product is one flat list with a rank for each system, 0 where its run lacks the product. The
    one that any system ranks highest is first.
    """
    codes = pc.index_in(missed["product_id"].combine_chunks(), value_set=products).to_pylist()
    ranks = [pc.fill_null(missed[system], 0).to_pylist() for system in systems]
    of_id: dict[int, list[list[int]]] = {each: [] for each in query_ids.to_pylist()}
    for query_id, *numbers in zip(missed["query_id"].to_pylist(), codes, *ranks, strict=True):
        of_id[query_id].append(numbers)
    for found in of_id.values():
        found.sort(
            key=lambda each: (min((rank for rank in each[1:] if rank), default=math.inf), each)
        )
    return list(of_id.values())


def _ranked_lists(
    results: LocaleResults, query_ids: pa.ChunkedArray, top: pa.Table, products: pa.Array
) -> list[list[list[int | str]]]:
    """Return what each system gives each query: (place in `products`, label) as a flat list.

    The list is in the order of rank; the label of a product without a judgement is "".

    Raises:
        PipelineError: a rank is missing, or there twice.
    """
    path, remedy = layout.top(results.locale), evaluate_again(results.locale)
    rows = tables.rows_of(query_ids, top["query_id"], path, remedy).tolist()
    codes = pc.index_in(top["product_id"].combine_chunks(), value_set=products).to_pylist()
    systems, labels, ranks = (top[name].to_pylist() for name in ("system", "label", "rank"))
    lists: list[list[list[int | str]]] = [[[] for _ in results.runs] for _ in query_ids]
    for row, system, rank, code, label in zip(rows, systems, ranks, codes, labels, strict=True):
        ranked = lists[row][results.runs.index(system)]
        if len(ranked) != 2 * (rank - 1):
            raise PipelineError(
                f"{path}: {system} must have rank {len(ranked) // 2 + 1} of query "
                f"{query_ids[row]} next (found {rank}). {remedy}"
            )
        ranked += [code, label or ""]
    return lists


def note(results: LocaleResults, settings: Report, more: int = 0) -> str:
    """Return which queries of a locale are on the page, for its reader.

    Args:
        results: those of the locale.
        settings: how many queries are chosen.
        more: how many are there beside them, because something else on the page links to them.
    """
    queries = results.per_query.num_rows
    if queries <= settings.queries:
        return f"All {queries:,} queries of {results.locale}."
    differing = differing_most(settings)
    return (
        f"{settings.queries:,} of the {queries:,} queries of {results.locale}: the {differing:,} "
        f"on which the systems' {display_name(results.measures[0])} differs the most, and "
        f"{settings.queries - differing:,} of the others, drawn at random (seed {settings.seed})."
        + (f" Beside them, {more:,} that moved." if more else "")
    )


def embedded_json(content: object) -> str:
    """Return JSON for a script element: nothing in it can open or end a tag."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _rounded(column: pa.ChunkedArray) -> list[float | None]:
    return [None if value is None else round(value, MEAN_DECIMALS) for value in column.to_pylist()]
