"""Put locales and systems side by side: reports/ + data/ -> page, table, summary, plots.

reports/report.html is for people, reports/report.md for the README, reports/summary.json for other
programs, and reports/plots/*.csv for `dvc plots`.
"""

from collections.abc import Sequence

from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import MEAN, Params
from pipeline.encoder_scores.form import EncoderScores
from pipeline.report import plots, render, unmeasured
from pipeline.report.checks import check_results
from pipeline.report.encoder import encoder_table, read_encoder
from pipeline.report.inputs import LocaleResults, read_locale
from pipeline.report.scale import Scale, read_scale
from pipeline.report.summary import Summary, summarise, table
from pipeline.runs.card import NO_JUDGEMENTS, NOT_MEASURED


def report(params: Params) -> stage.Done:
    """Read what the stages found of every locale, and write page, table, summary and plots."""
    if params.sample.queries == "none":
        return _report_unmeasured(params)
    locales, encoders, scaled = read_results(params)
    measures = params.evaluate.headline()
    summary = summarise(locales, measures)
    page = render.render(locales, params, encoders, scaled)
    _write(locales, page, f"{table(summary, measures)}\n{encoder_table(encoders)}", summary)
    return stage.Done(
        locales=len(locales),
        queries=sum(min(each.scores.queries, params.report.queries) for each in locales),
    )


def _report_unmeasured(params: Params) -> stage.Done:
    locales = [unmeasured.read_unmeasured(params, locale) for locale in params.locales]
    summary: Summary = {
        each.locale: {
            NOT_MEASURED: NO_JUDGEMENTS, **each.scores.model_dump(), "systems": {},
        }
        for each in locales
    }  # fmt: skip
    summary[MEAN] = {"systems": {}}
    _write([], unmeasured.page(locales, params), unmeasured.TABLE, summary)
    log.info("report: %s", unmeasured.TABLE.strip())
    return stage.Done(locales=len(locales), queries=0)


def _write(locales: Sequence[LocaleResults], page: str, tables: str, summary: Summary) -> None:
    for path, text in (
        *((layout.plot(name), plots.table(plot, locales)) for name, plot in plots.PLOTS.items()),
        (layout.PAGE, page),
        (layout.REPORT, tables),
        (layout.SUMMARY, files.canonical_json(summary)),
    ):
        files.write_text(path, text)


def read_results(
    params: Params,
) -> tuple[list[LocaleResults], dict[str, EncoderScores], Scale | None]:
    """Read and check what the page shows: every locale, its encoder by itself, and the scale.

    Raises:
        PipelineError: an artefact is missing or cannot be right, or nothing was to be measured.
    """
    if params.sample.queries == "none":
        raise PipelineError(
            "sample.queries: none: nothing is measured, so no numbers can be shown. Judge products "
            "for some queries, and run `python -m pipeline.shop` with both tables."
        )
    locales = [read_locale(params, locale) for locale in params.locales]
    for each in locales:
        check_results(each, params)
    scale = read_scale() if params.report.scale else None
    return locales, {each.locale: read_encoder(each) for each in locales}, scale
