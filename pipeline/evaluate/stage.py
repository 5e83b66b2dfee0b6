"""Score one locale's runs, system by system, and write every report of it under reports/.

The means of every measure (the numbers of record), the few of them that DVC shows, intervals of the
measures that are kept query by query, the first of them by kind of query, all of them query by
query, the first products of each query, and curves for the page and `dvc plots`.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import files, layout, stage, tables
from pipeline.core.clean_counts import check_text_settings, read_counts
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.evaluate import per_query, plots, product_fields, results, system_scores, unmeasured
from pipeline.evaluate.fresh import refuse_stale
from pipeline.evaluate.label_scores import measure_labels
from pipeline.evaluate.results import Results
from pipeline.evaluate.system_scores import Judged
from pipeline.evaluate.training import Row, read_training
from pipeline.runs import card as run_card
from pipeline.runs.card import RunCard
from pipeline.runs.inputs import Ids
from pipeline.runs.others import read_others

Outputs = list[tuple[Path, Callable[[Path], object]]]
"""Files and what writes each of them."""


def evaluate(params: Params, locale: str) -> stage.Done:
    """Score a locale's runs and the random order, and write every report of the locale."""
    judged = system_scores.read_judged(locale)
    check_text_settings(locale, params.clean)
    kinds = read_counts(locale).kinds()
    dropped = {f"{kind}_dropped": counts.read - counts.kept for kind, counts in kinds.items()}
    others = read_others(params, locale)
    systems, depth = params.evaluated_systems(locale), params.retrieve.depth
    cards = run_card.read_cards(locale, systems, judged.ids, depth)
    refuse_stale(params, locale, cards)
    measured = len(judged.queries) > 0
    found = (_measure if measured else unmeasured.describe)(params, locale, judged, cards, dropped)
    if others:
        found.record["systems"] = {name: run.model_dump() for name, run in others.items()}
    reranker = cards["rerank"].of["reranker"] if "rerank" in cards else None
    training = read_training(locale, cards["dense"].of["encoder"], reranker)
    _write_all(_outputs(locale, found, training))
    headline = params.evaluate.headline()[0]
    means = {system: found.record[system].get(headline) for system in found.curves}
    log.info(
        "evaluate locale=%s queries=%d %s: %s",
        locale, len(judged.queries), headline,
        " ".join(f"{system}={mean}" for system, mean in means.items()) if measured
        else f"not measured, {run_card.NO_JUDGEMENTS}",
    )  # fmt: skip
    return stage.Done(
        queries=len(judged.queries),
        products=len(judged.ids.products),
        depth=depth,
    )


def _measure(
    params: Params,
    locale: str,
    judged: Judged,
    cards: Mapping[str, RunCard],
    dropped: Mapping[str, int],
) -> Results:
    sources = read_sources(locale, judged.ids)
    scores, tops = system_scores.score_systems(params, locale, judged, params.retrieve.depth)
    titles, brands = product_fields.read_shown(
        layout.clean(locale).products,
        results.shown_products(judged, tops),
        params.clean,
        layout.rerun_hint("clean", locale),
    )
    found = results.summarise(
        params, locale, judged, scores, tops, cards["dense"], dropped, brands, sources, titles
    )
    if "rerank" in cards and (labels := measure_labels(locale, judged, cards["rerank"])):
        found.record["labels"] = labels
    return found


def read_sources(locale: str, ids: Ids) -> list[str | None] | None:
    """Return ESCI's reason for each query, or None where no query has one."""
    path, remedy = layout.sample(locale).sources, layout.rerun_hint("sample")
    table = tables.read_table(path, tables.SAMPLE_SOURCES, remedy)
    rows = tables.rows_of(table["query_id"], ids.queries, path, remedy)
    sources: list[str | None] = table["source"].take(rows).to_pylist()
    return sources if any(sources) else None


def _outputs(locale: str, found: Results, trained: list[Row]) -> Outputs:
    """Return a locale's reports in the order in which they are put in place."""
    return [
        (layout.kinds(locale), partial(_write_parquet, found.kinds)),
        (layout.exact(locale), partial(_write_parquet, found.exact)),
        (layout.top(locale), partial(_write_parquet, found.top)),
        (layout.per_query(locale), partial(per_query.write, rows=found.per_query)),
        (layout.training_plot(locale), partial(plots.write_training, rows=trained)),
        (layout.recall_curve(locale), partial(plots.write_recall, curves=found.curves)),
        (layout.slices(locale), partial(_write_json, found.slices)),
        (layout.intervals(locale), partial(_write_json, found.intervals)),
        (layout.key_metrics(locale), partial(_write_json, found.key_metrics)),
        # The numbers of record come last, when all else is there.
        (layout.metrics(locale), partial(_write_json, found.record)),
    ]


def _write_all(outputs: Outputs) -> None:
    """Write every file beside its place; only when all are written, move them there in order."""
    with ExitStack() as moves:
        for path, write in reversed(outputs):  # a stack undoes the last entry first
            write(moves.enter_context(files.atomic_file(path)))


def _write_json(data: Any, path: Path) -> None:
    path.write_text(files.canonical_json(data), encoding="utf-8", newline="\n")


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, **tables.WRITE_OPTIONS)
