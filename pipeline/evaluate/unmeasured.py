"""What evaluate reports of a catalogue without judgements: what it is, and not one measure."""

from collections.abc import Mapping

import pyarrow as pa

from pipeline.core.params import Params
from pipeline.evaluate import exact_ranks, metrics, per_query, slices
from pipeline.evaluate.results import Results, chosen, of_vectors
from pipeline.evaluate.system_scores import Judged
from pipeline.evaluate.top_products import TOP
from pipeline.runs.card import INDEX_SETTINGS, NO_JUDGEMENTS, NOT_MEASURED, RunCard, index_settings


def describe(
    params: Params,
    locale: str,
    judged: Judged,
    cards: Mapping[str, RunCard],
    dropped: Mapping[str, int],
) -> Results:
    """Return a locale's reports: counts, empty tables, and why nothing is measured.

    Args:
        params: the settings.
        locale: the locale.
        judged: its tables, of which only the products have rows.
        cards: of the runs, which are empty.
        dropped: how many judgements, products and queries clean left out.
    """
    dense = cards["dense"]
    rows = per_query.table(judged.queries, {}, {}, ())
    of = per_query.sample(locale, dense, judged.queries, judged.ids.products, judged.judgements)
    top, no_ids = TOP.empty_table(), pa.chunked_array([], pa.string())
    exact = exact_ranks.table(judged.ids.queries, no_ids, pa.array([], pa.string()), {})
    by_kind = {
        "measure": params.evaluate.headline()[0],
        "small_below": slices.SMALL_BELOW,
        "top10": {},
        "slices": [],
    }
    beside = per_query.Beside(top, exact, {}, by_kind)
    return Results(
        record={
            NOT_MEASURED: NO_JUDGEMENTS,
            **chosen(dense),
            INDEX_SETTINGS: index_settings(dense.of),
            **metrics.counts(judged.qrels),
            "products": len(judged.ids.products),
            **dropped,
        },
        key_metrics={NOT_MEASURED: NO_JUDGEMENTS, "queries": 0},
        intervals=beside.intervals,
        slices=beside.slices,
        curves={},
        per_query=per_query.with_card(
            rows, of, beside=beside, **chosen(dense), **of_vectors(dense)
        ),
        top=top,
        exact=exact,
        kinds=slices.table(judged.ids.queries, []),
    )
