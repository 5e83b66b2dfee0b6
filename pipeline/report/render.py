"""Render the page: what the template is filled with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from pipeline.core.clean_counts import CleanCounts
from pipeline.core.params import Params
from pipeline.core.tables import LABELS
from pipeline.encoder_scores.form import EncoderScores
from pipeline.report import browse, charts, parts, scale, scatter, svg
from pipeline.report.basis import all_sha256
from pipeline.report.encoder import MEASURE_WORDS
from pipeline.report.inputs import UNJUDGED, LocaleResults
from pipeline.report.moves import Moves
from pipeline.report.parts import trusted_markup
from pipeline.report.summary import means_of_all, shown
from pipeline.report.tradeoff import TradeOff
from pipeline.report.training import users
from pipeline.report.training_charts import WORDS, draw_dev, draw_loss
from pipeline.report.verdict import verdict
from pipeline.report.wording import (
    ANOTHER_ENGINE,
    LABEL_WORDS,
    REASONS,
    SYSTEM_WORDS,
    count,
    describe,
    describe_run,
    display_name,
    format_estimate,
    share,
)
from pipeline.vectors.manifest import Manifest


@dataclass(frozen=True)
class Cell:
    """A measure of a system: its number, its interval, whether it is the best of its locale."""

    mean: str = ""
    interval: str = ""
    queries: str = ""
    best: bool = False


def render(
    locales: Sequence[LocaleResults],
    params: Params,
    encoders: Mapping[str, EncoderScores],
    scaled: scale.Scale | None = None,
    moves: Moves | None = None,
) -> str:
    """Return the page of these locales' results, the same text for the same results.

    Args:
        locales: the results.
        params: what they are of.
        encoders: what each locale's encoder is worth by itself.
        scaled: what the stages take for large catalogues, if params ask for it.
        moves: what moved since another revision, if that is asked for.
    """
    script = parts.join_scripts(parts.ASSETS / "queries.js", parts.ASSETS / "page.js")
    measures, compared = params.evaluate.headline(), shown(locales)
    with svg.style():
        sections = [_locale(results, measures, params, moves) for results in locales]
        trainings = _trainings(locales)
        scale_chart = trusted_markup(scale.draw_scale(scaled)) if scaled and scaled.stages else ""
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            css=trusted_markup(parts.join_styles(parts.ASSETS / "page.css")),
            script=trusted_markup(script),
            script_hash=parts.integrity(script),
            measures=measures,
            moves=moves,
            verdict=verdict(locales, params.uncertainty, params.compare.alpha),
            explained=describe,
            locales=sections,
            sample=params.sample,
            data_sha256=all_sha256({each.locale: each.data_sha256 for each in locales}),
            encoders=encoders,
            encoder_words=MEASURE_WORDS,
            trainings=trainings,
            training_words=WORDS,
            scale=scaled,
            scale_chart=scale_chart,
            means=_means(locales, measures) if len(locales) > 1 else [],
            systems={system: SYSTEM_WORDS.get(system, ANOTHER_ENGINE) for system in compared},
            others=locales[0].others,
            with_runs=compared[1:],
            labels=LABEL_WORDS,
            label_order=(*LABELS, UNJUDGED),
            uncertainty=params.uncertainty,
            alpha=params.compare.alpha,
        )
    )


def environment() -> Environment:
    """Return what finds the templates of the report."""
    return parts.open_templates(
        parts.ASSETS, count=count, share=share, said=format_estimate, named=display_name
    )


def _locale(
    results: LocaleResults, measures: Sequence[str], params: Params, moves: Moves | None
) -> dict[str, Any]:
    """Return what the template shows of a locale."""
    linked = () if moves is None else moves.queries(results.locale)
    queries = browse.queries_data(results, params.report, linked)
    tradeoff = results.tradeoff if isinstance(results.tradeoff, TradeOff) else None
    numbers = _query_numbers(results, measures)
    return {
        "name": results.locale,
        "results": results,
        "headline_chart": trusted_markup(charts.draw_headline(results, measures[0])),
        "recall_chart": trusted_markup(charts.draw_recall(results)),
        "cutoffs": results.cutoffs,
        "recall": {system: dict(curve) for system, curve in results.recall.items()},
        "mix_chart": trusted_markup(charts.draw_labels(results)) if results.slices.top10 else "",
        "mix": results.mixes,
        "slices_chart": trusted_markup(charts.draw_slices(results))
        if results.slices.slices
        else "",
        "tradeoff_chart": trusted_markup(scatter.draw_tradeoff(results, tradeoff))
        if tradeoff and tradeoff.indexes
        else "",
        "tradeoff_measured": tradeoff is not None,
        "query_numbers": numbers,
        "rows": [(system, _cells(results, system, measures, numbers)) for system in results.shown],
        "others": [
            describe_run(name, run, results.scores.queries)
            for name, run in results.scores.systems.items()
        ],
        **describe_data(results.counts, results.manifest),
        "data": trusted_markup(browse.embedded_json(queries)),
    }


def _trainings(locales: Sequence[LocaleResults]) -> list[dict[str, Any]]:
    """Return what the template shows of each trained model that a locale uses."""
    used = users({each.locale: each.trainings for each in locales})
    return [
        {
            "of": each,
            "locales": by,
            "loss_chart": trusted_markup(draw_loss(each, f"chart-loss-{number}")),
            "dev_chart": trusted_markup(draw_dev(each, f"chart-dev-{number}")),
        }
        for number, (each, by) in enumerate(used.items())
    ]


def _query_numbers(results: LocaleResults, measures: Sequence[str]) -> list[int | None]:
    """Return for how many queries each measure is defined; None where the systems differ in it."""
    numbers = []
    for measure in measures:
        found = {
            estimate.queries
            for system in results.runs
            if (estimate := results.estimate(system, measure)) is not None
        }
        numbers.append(found.pop() if len(found) == 1 else None)
    return numbers


def _cells(
    results: LocaleResults, system: str, measures: Sequence[str], numbers: Sequence[int | None]
) -> list[Cell]:
    """Return the headline of a system; the number of queries where it differs from the others'.

    `numbers` is what `_query_numbers` gives.
    """
    cells = []
    for measure, number in zip(measures, numbers, strict=True):
        estimate = results.estimate(system, measure)
        if estimate is None or estimate.mean is None:
            cells.append(Cell())
            continue
        mean, _, interval = format_estimate(estimate).partition(" ")
        own = "" if estimate.queries == number else f"{estimate.queries:,} queries"
        cells.append(
            Cell(mean, interval, own, mean in _best(results, measure) and system in results.runs)
        )
    return cells


def _best(results: LocaleResults, measure: str) -> set[str]:
    """Return the highest mean of a measure as it is shown; nothing where all systems have it.

    More judged products are not a better result: that measure has no best.
    """
    estimates = (results.estimate(system, measure) for system in results.runs)
    means = {format_estimate(each).partition(" ")[0] for each in estimates if each is not None}
    return set() if len(means) < 2 or measure.startswith("judged") else {max(means)}


def _means(
    locales: Sequence[LocaleResults], measures: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Return the mean over the locales of each system's measures, as `summary.table` has it."""
    return [
        (system, [f"{means[name]:.3f}" if name in means else "" for name in measures])
        for system in shown(locales)
        if (means := means_of_all(locales, system, measures))
    ]


def describe_data(counts: CleanCounts, manifest: Manifest) -> dict[str, Any]:
    """Return what the template shows of a locale's tables and of the texts that were cut."""
    return {
        "counts": list(_counts(counts)),
        "cuts": [(kind, getattr(manifest.truncation, kind)) for kind in ("queries", "products")],
        "max_tokens": manifest.contract["max_tokens"],
    }


def _counts(of: CleanCounts) -> Iterable[tuple[str, int, int, str, str]]:
    """Yield by kind how many rows clean read and kept, what it left out, what it noticed."""
    for kind, counts in of.kinds().items():
        reasons: dict[bool, list[str]] = {True: [], False: []}
        for reason, number in sorted(counts.reasons.items()):
            if number:
                words = REASONS.get(reason, reason.replace("_", " "))
                reasons[reason.startswith("dropped")].append(f"{number:,} {words}")
        yield kind, counts.read, counts.kept, "; ".join(reasons[True]), "; ".join(reasons[False])
