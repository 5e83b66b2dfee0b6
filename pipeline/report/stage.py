"""Put locales and systems side by side: reports/ + data/ -> page, table, summary, plots.

reports/report.html is for people, reports/report.md for the README, reports/summary.json for other
programs, and reports/plots/*.csv for `dvc plots`.
"""

from pipeline.core import files, layout, stage
from pipeline.core.params import Params
from pipeline.encoder_scores.form import EncoderScores
from pipeline.report import plots, render
from pipeline.report.checks import check_results
from pipeline.report.encoder import encoder_table, read_encoder
from pipeline.report.inputs import LocaleResults, read_locale
from pipeline.report.scale import Scale, read_scale
from pipeline.report.summary import summarise, table


def report(params: Params) -> stage.Done:
    """Read what the stages found of every locale, and write page, table, summary and plots."""
    locales, encoders, scaled = read_results(params)
    measures = params.evaluate.headline()
    summary = summarise(locales, measures)
    page = render.render(locales, params, encoders, scaled)
    for path, text in (
        *((layout.plot(name), plots.table(plot, locales)) for name, plot in plots.PLOTS.items()),
        (layout.PAGE, page),
        (layout.REPORT, f"{table(summary, measures)}\n{encoder_table(encoders)}"),
        (layout.SUMMARY, files.canonical_json(summary)),
    ):
        with files.atomic_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    return stage.Done(
        locales=len(locales),
        queries=sum(min(each.scores.queries, params.report.queries) for each in locales),
    )


def read_results(
    params: Params,
) -> tuple[list[LocaleResults], dict[str, EncoderScores], Scale | None]:
    """Read and check what the page shows: every locale, its encoder by itself, and the scale."""
    locales = [read_locale(params, locale) for locale in params.locales]
    for each in locales:
        check_results(each, params)
    return locales, {each.locale: read_encoder(each) for each in locales}, read_scale()
