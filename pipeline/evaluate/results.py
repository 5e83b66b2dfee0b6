"""What evaluate reports of a locale, computed from the scores of every system."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from pipeline.core.arrays import Ints
from pipeline.core.params import Params
from pipeline.evaluate import exact_ranks, metrics, per_query, slices, system_scores
from pipeline.evaluate import top_products as first_products
from pipeline.evaluate.system_scores import Judged, Scores
from pipeline.evaluate.top_products import Top
from pipeline.evaluate.uncertainty import bootstrap_intervals
from pipeline.runs.card import (
    INDEX_OVERLAP,
    INDEX_SETTINGS,
    RANDOM,
    RunCard,
    index_settings,
)
from pipeline.runs.inputs import product_ids

Means = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Results:
    """The reports of a locale.

    `record` holds the means of every measure by system and the counts that explain them;
    `key_metrics` is the little of it that DVC shows;
    `intervals` is by system and measure; `slices` is by kind of query; `curves` is mean recall by
    system and cutoff; `per_query`, `top`, `exact` and `kinds` are tables.
    """

    record: dict[str, Any]
    key_metrics: dict[str, Any]
    intervals: dict[str, dict[str, dict[str, float]]]
    slices: dict[str, Any]
    curves: Means
    per_query: pa.Table
    top: pa.Table
    exact: pa.Table
    kinds: pa.Table


def shown_products(judged: Judged, tops: Mapping[str, Top]) -> Ints:
    """Return the codes of all products in any first place and of the Exact ones, ascending."""
    _, exact = exact_ranks.codes(judged.qrels)
    exact = exact[exact < len(judged.ids.products)]
    return np.union1d(first_products.shown_products(tops), exact)


def summarise(
    params: Params,
    locale: str,
    judged: Judged,
    scores: Mapping[str, Scores],
    tops: Mapping[str, Top],
    dense: RunCard,
    dropped: Mapping[str, int],
    brands: Collection[str] | None,
    sources: Sequence[str | None] | None,
    titles: Mapping[int, str],
) -> Results:
    """Return every report of a locale.

    Args:
        params: the settings.
        locale: the locale.
        judged: what was evaluated.
        scores: by system, the random order included.
        tops: the first products of each system that has runs.
        dense: the card of the dense runs.
        dropped: how many judgements, products and queries clean left out.
        brands: see `slices.divide`.
        sources: see `slices.divide`.
        titles: of the first products and of the Exact ones that have a text, by ascending code.
    """
    measures = {system: each.measures for system, each in scores.items()}
    means = {system: metrics.means(each) for system, each in measures.items()}
    if dense.index_overlap is not None:
        means["dense"][INDEX_OVERLAP] = dense.index_overlap
    record = {
        **means,
        **chosen(dense),
        INDEX_SETTINGS: index_settings(dense.of),
        **metrics.counts(judged.qrels),
        "products": len(judged.ids.products),
        **dropped,
    }
    divided = slices.divide(
        judged.queries["text"].to_pylist(),
        params.language[locale],
        judged.qrels.label_counts(),
        brands,
        sources,
    )
    with threadpool_limits(1, "blas"):  # each thread of the bootstrap multiplies by itself
        beside = per_query.Beside(
            top=first_products.table(tops, judged.ids.queries, judged.ids.products, titles),
            exact=_exact(judged, {system: scores[system].exact for system in tops}, titles),
            intervals=intervals(params, measures),
            slices=by_kind(params, judged, measures, tops, divided),
        )
    return Results(
        record=record,
        key_metrics=key_metrics(record, tuple(tops), *params.evaluate.key_measures()),
        intervals=beside.intervals,
        slices=beside.slices,
        curves={system: metrics.means(each.curve) for system, each in scores.items()},
        per_query=_rows(params, locale, judged, measures, tops, dense, beside),
        top=beside.top,
        exact=beside.exact,
        kinds=slices.table(judged.ids.queries, divided),
    )


def _exact(judged: Judged, ranks: Mapping[str, Ints], titles: Mapping[int, str]) -> pa.Table:
    """Return the table of Exact products."""
    rows, codes = exact_ranks.codes(judged.qrels)
    return exact_ranks.table(
        judged.ids.queries.take(pa.array(rows)),
        product_ids(judged.ids, judged.judgements, codes),
        pa.array([titles.get(code) for code in codes.tolist()], pa.string()),
        ranks,
    )


def key_metrics(
    record: Mapping[str, Any], systems: Sequence[str], of_all: str, of_dense: str
) -> dict[str, Any]:
    """Return the numbers of a locale that DVC shows.

    Few, and with the same names in every locale: so `dvc metrics show` has a row per locale, and
    fits a screen. The number of queries is there because it explains a jump.

    Args:
        record: the locale's numbers of record.
        systems: those that have runs.
        of_all: the measure of every system; where it is defined for no query it is left out.
        of_dense: the measure of dense alone; likewise.
    """
    shown = {}
    for system in systems:
        names = (of_all, of_dense) if system == "dense" else (of_all,)
        shown[system] = {name: record[system][name] for name in names if name in record[system]}
    return {**shown, "queries": record["queries"]}


def _rows(
    params: Params,
    locale: str,
    judged: Judged,
    measures: Mapping[str, metrics.PerQuery],
    tops: Mapping[str, Top],
    dense: RunCard,
    beside: per_query.Beside,
) -> pa.Table:
    """Return the per-query table with its card; the arguments as in `summarise`."""
    rows = per_query.table(
        judged.queries,
        {system: measures[system] for system in tops},
        {system: each.strings() for system, each in tops.items()},
        params.evaluate.per_query(),
    )
    of = per_query.sample(locale, dense, judged.queries, judged.ids.products, judged.judgements)
    return per_query.with_card(rows, of, beside=beside, **chosen(dense), **of_vectors(dense))


def chosen(dense: RunCard) -> dict[str, str]:
    """Return the names of the encoder and the index of dense runs."""
    return {name: dense.of[name] for name in ("encoder", "index")}


def of_vectors(dense: RunCard) -> dict[str, str]:
    """Return the hashes of the vectors of dense runs."""
    return {name: dense.of[name] for name in per_query.VECTORS}


def intervals(
    params: Params, measures: Mapping[str, metrics.PerQuery]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the interval of each measure kept, by system, without those defined for no query."""
    names = params.evaluate.per_query()
    kept = [
        (system, name)
        for system, of in measures.items()
        for name in per_query.kept_of(system, of, names)
    ]
    # All systems at once: a measure is defined for the same queries in each, and shares its draws.
    values = np.stack([measures[system][name] for system, name in kept], axis=1)
    found: dict[str, dict[str, dict[str, float]]] = {system: {} for system in measures}
    estimates = bootstrap_intervals(values, params.uncertainty)
    for (system, name), interval in zip(kept, estimates, strict=True):
        if interval.queries:
            found[system][name] = interval.rounded()._asdict()
    return found


def by_kind(
    params: Params,
    judged: Judged,
    measures: Mapping[str, metrics.PerQuery],
    tops: Mapping[str, Top],
    divided: Sequence[slices.Slice],
) -> dict[str, Any]:
    """Return the first headline measure by kind of query, and which labels fill the first places.

    Args:
        params: the settings.
        judged: what was evaluated.
        measures: by system, [queries] each.
        tops: the first products of each system that has runs.
        divided: the kinds of the same queries.
    """
    name = params.evaluate.headline()[0]
    values = {system: of_system[name] for system, of_system in measures.items()}
    mixes = {system: each.mix() for system, each in tops.items()}
    return {
        "measure": name,
        "small_below": slices.SMALL_BELOW,
        "top10": {**mixes, RANDOM: first_products.shares(system_scores.random_mix(judged))},
        "slices": slices.measure(
            divided, values, params.uncertainty, params.runtime.thread_count()
        ),
    }
