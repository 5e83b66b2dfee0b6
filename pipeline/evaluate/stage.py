"""Score one locale's runs, system by system, and write all that is shown of them under reports/.

The means of every measure (the numbers of record), intervals of the measures kept query by query,
the first of them by kind of query, all of them query by query, the first products of each query,
and tables for `dvc plots`.
"""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.core import files, layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.parallel import in_parallel
from pipeline.core.params import SYSTEMS, Evaluate, Params, System
from pipeline.evaluate import fields, metrics, per_query, plots, scoring, slices, top
from pipeline.evaluate.uncertainty import bootstrap_intervals
from pipeline.runs import card as run_card
from pipeline.runs.inputs import Ids


def evaluate(params: Params, locale: str) -> stage.Done:
    """Score a locale's runs and the random order, and write every report of the locale."""
    cutoffs, kept = params.evaluate, params.evaluate.per_query()
    judged = scoring.read_judged(locale)
    dropped = _dropped(locale)
    cards = read_cards(locale, judged.ids, cutoffs)
    dense = cards["dense"]
    scores: dict[str, scoring.Scores] = {}
    tops: dict[str, top.Top] = {}
    scored = in_parallel(
        lambda system: scoring.score(system, locale, judged, cutoffs, dense.depth),
        SYSTEMS,
        params.runtime.thread_count(),
    )
    for system, found in zip(SYSTEMS, scored, strict=True):
        scores[system], tops[system] = found
    scores[run_card.RANDOM] = scoring.score_random(judged, cutoffs, dense.depth)
    measures = {system: each.measures for system, each in scores.items()}
    means = {system: metrics.means(each) for system, each in measures.items()}
    if dense.index_overlap is not None:
        means["dense"][run_card.INDEX_OVERLAP] = dense.index_overlap
    record = {
        **means,
        "encoder": dense.of["encoder"],
        "index": dense.of["index"],
        **metrics.counts(judged.qrels),
        "products": len(judged.ids.products),
        **dropped,
    }
    titles, brands = fields.read_shown(
        layout.clean(locale).products,
        top.shown_products(tops),
        params.clean,
        layout.rerun_hint("clean", locale),
    )
    ends = intervals(params, measures)
    kinds = by_kind(params, locale, judged, measures, tops, brands)
    of_queries = per_query.table(
        judged.queries,
        {system: measures[system] for system in tops},
        {system: each.strings() for system, each in tops.items()},
        kept,
        per_query.sample(locale, dense, judged.queries, judged.ids.products, judged.judgements),
    )
    with ExitStack() as whole_or_absent:

        def opened(path: Path) -> Path:
            return whole_or_absent.enter_context(files.atomic_file(path))

        # They take their places in reverse: the numbers of record last, when all else is there.
        _write_json(opened(layout.metrics(locale)), record)
        _write_json(opened(layout.intervals(locale)), ends)
        _write_json(opened(layout.slices(locale)), kinds)
        curves = {system: metrics.means(each.curve) for system, each in scores.items()}
        plots.write_recall(opened(layout.recall_curve(locale)), curves)
        plots.write_labels(opened(layout.labels_plot(locale)), kinds["top10"])
        plots.write_intervals(opened(layout.intervals_plot(locale)), ends)
        plots.write_slices(opened(layout.slices_plot(locale)), kinds["slices"])
        per_query.write(opened(layout.per_query(locale)), of_queries)
        first = top.table(tops, judged.ids.queries, judged.ids.products, titles)
        pq.write_table(first, opened(layout.top(locale)), **tables.WRITE_OPTIONS)
    stage.log.info(
        "evaluate locale=%s queries=%d %s: %s",
        locale, len(judged.queries), kept[0],
        " ".join(f"{system}={each.get(kept[0])}" for system, each in means.items()),
    )  # fmt: skip
    return stage.Done(
        queries=len(judged.queries), products=len(judged.ids.products), depth=dense.depth
    )


def read_cards(locale: str, ids: Ids, cutoffs: Evaluate) -> dict[System, run_card.RunCard]:
    """Read the card of every system, and see that the runs belong together.

    Raises:
        PipelineError: as `runs.read_card` does; or the runs are of different depths, less deep than
            a cutoff, or hybrid ones of other dense or bm25 runs than these.
    """
    cards: dict[System, run_card.RunCard] = {}
    for system in SYSTEMS:
        runs, again = layout.runs(system, locale), run_card.rerun_hint(system, locale)
        card = run_card.read_card(runs, system, ids.queries, ids.products, again)
        if cutoffs.deepest() > card.depth:
            raise PipelineError(
                f"{runs.folder}: the runs are {card.depth} deep, less than the deepest cutoff "
                f"under evaluate, {cutoffs.deepest()}. {again}"
            )
        cards[system] = card
        if card.depth != cards["dense"].depth:
            raise PipelineError(
                f"{runs.folder}: the runs are {card.depth} deep, but those of dense "
                f"{cards['dense'].depth}. {again}"
            )
    for system in ("dense", "bm25"):
        key = f"{system}_catalogue_sha256"
        told, found = cards["hybrid"].of.get(key, "missing"), cards[system].catalogue_sha256
        if told != found:
            raise PipelineError(
                f"{layout.runs('hybrid', locale).folder}: {key} is {told[:12]}, but the {system} "
                f"runs are {found[:12]}. {run_card.rerun_hint('hybrid', locale)}"
            )
    return cards


def intervals(
    params: Params, measures: Mapping[str, metrics.PerQuery]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the interval of each measure kept, by system; those of no query are left out."""
    names = params.evaluate.per_query()
    # All systems at once: a measure is defined for the same queries in each, and shares its draws.
    values = np.stack([of[name] for of in measures.values() for name in names], axis=1)
    each = iter(bootstrap_intervals(values, **params.uncertainty.model_dump()))
    return {
        system: {
            name: {**slices.rounded(interval), "queries": interval.queries}
            for name, interval in zip(names, each, strict=False)
            if interval.queries
        }
        for system in measures
    }


def by_kind(
    params: Params,
    locale: str,
    judged: scoring.Judged,
    measures: Mapping[str, metrics.PerQuery],
    tops: Mapping[str, top.Top],
    brands: Collection[str] | None,
) -> dict[str, Any]:
    """Return the first headline measure by kind of query, and which labels fill the first places.

    Args:
        params: the settings.
        locale: whose queries they are.
        judged: what was evaluated.
        measures: by system, [queries] each.
        tops: the first products, of the systems that have runs.
        brands: see `slices.divide`.
    """
    name = params.evaluate.headline()[0]
    divided = slices.divide(
        judged.queries["text"].to_pylist(),
        params.language[locale],
        judged.qrels.label_counts(),
        brands,
        _read_sources(locale, judged),
    )
    values = {system: of_system[name] for system, of_system in measures.items()}
    mixes = {system: each.mix() for system, each in tops.items()}
    return {
        "measure": name,
        "small_below": slices.SMALL_BELOW,
        "top10": {**mixes, run_card.RANDOM: top.shares(scoring.random_mix(judged))},
        "slices": slices.measure(divided, values, params.uncertainty),
    }


def _read_sources(locale: str, judged: scoring.Judged) -> list[str | None] | None:
    """Return ESCI's reason for each query, or None where it is known for none."""
    path, remedy = layout.sample(locale).sources, layout.rerun_hint("sample")
    table = tables.read_table(path, tables.SAMPLE_SOURCES, remedy)
    rows = tables.rows_of(table["query_id"], judged.ids.queries, path, remedy)
    sources: list[str | None] = table["source"].take(rows).to_pylist()
    return sources if any(sources) else None


def _dropped(locale: str) -> dict[str, int]:
    """Return how many judgements, products and queries clean left out."""
    path, remedy = layout.clean(locale).counts, layout.rerun_hint("clean", locale)
    counts = files.read_json(path, remedy)
    try:
        return {
            f"{name}_dropped": int(counts[name]["in"]) - int(counts[name]["out"])
            for name in ("judgements", "products", "queries")
        }
    except (KeyError, TypeError, ValueError) as err:
        raise PipelineError(f"{path} lacks counts ({err!r}). {remedy}") from err


def _write_json(path: Path, data: Any) -> None:
    path.write_text(files.canonical_json(data), encoding="utf-8", newline="\n")
