"""The queries to browse: which ones are on the page, and their data for its script."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Report
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.report.inputs import LocaleResults, evaluate_again
from pipeline.report.wording import display_name

Places = NDArray[np.int64]

_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def choose_queries(apart: NDArray[np.float64], settings: Report) -> Places:
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


def differences(results: LocaleResults) -> NDArray[np.float64]:
    """Return how far the systems are apart in the first measure, [queries]; NaN: undefined."""
    columns = [f"{system}.{results.measures[0]}" for system in results.runs]
    values = np.column_stack(
        [results.per_query[name].to_numpy().astype(np.float64) for name in columns]
    )
    return np.asarray(values.max(axis=1) - values.min(axis=1))


def queries_data(results: LocaleResults, settings: Report) -> Mapping[str, Any]:
    """Return what the page's script shows of a locale, ready for `embedded_json`.

    `products` are [id, title]. `queries` are [id, text, values, lists]: `values` has one row per
    system with one value per measure (or null), `lists` one list per system as `_ranked_lists`
    gives it. An id of a query is a string: a number beyond 2**53 loses digits in JavaScript.
    """
    queries = results.per_query.take(choose_queries(differences(results), settings))
    top = results.top.filter(
        pc.and_(
            pc.less_equal(results.top["rank"], settings.results),
            pc.is_in(results.top["query_id"], value_set=queries["query_id"].combine_chunks()),
        )
    ).sort_by([("query_id", "ascending"), ("system", "ascending"), ("rank", "ascending")])
    products = pc.unique(top["product_id"]).sort()
    first = pc.index_in(products, value_set=top["product_id"].combine_chunks())
    titles = _texts(top["title"].take(first))
    values = np.array(
        [
            [_rounded(queries[f"{system}.{measure}"]) for measure in results.measures]
            for system in results.runs
        ],
        dtype=object,
    )
    ids = queries["query_id"].cast(pa.string()).to_pylist()
    lists = _ranked_lists(results, queries["query_id"], top, products)
    return {
        "locale": results.locale,
        "note": note(results, settings),
        "language": "" if results.language == "any" else results.language,
        "systems": list(results.runs),
        "measures": [display_name(measure) for measure in results.measures],
        "products": [list(pair) for pair in zip(products.to_pylist(), titles, strict=True)],
        "queries": [
            [query_id, text, values[:, :, row].tolist(), lists[row]]
            for row, (query_id, text) in enumerate(zip(ids, _texts(queries["query"]), strict=True))
        ],
    }


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


def note(results: LocaleResults, settings: Report) -> str:
    """Return which queries of a locale are on the page, for its reader."""
    queries = results.per_query.num_rows
    if queries <= settings.queries:
        return f"All {queries:,} queries of {results.locale}."
    differing = differing_most(settings)
    return (
        f"{settings.queries:,} of the {queries:,} queries of {results.locale}: the {differing:,} "
        f"on which the systems' {display_name(results.measures[0])} differs the most, and "
        f"{settings.queries - differing:,} of the others, drawn at random (seed {settings.seed})."
    )


def embedded_json(content: object) -> str:
    """Return JSON for a script element: nothing in it can open or end a tag."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _rounded(column: pa.ChunkedArray) -> list[float | None]:
    return [None if value is None else round(value, MEAN_DECIMALS) for value in column.to_pylist()]


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [text or "" for text in column.to_pylist()]
