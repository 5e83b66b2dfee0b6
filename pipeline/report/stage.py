"""Put locales and systems side by side: reports/ + data/ -> report.html, report.md, summary.json.

The page is for a lead to open, the table for the README, the summary for other programs.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.core import files, layout, stage
from pipeline.core.params import MEAN, Params
from pipeline.evaluate import metrics
from pipeline.report import render
from pipeline.report.inputs import SHOWN, Numbers, read_locale
from pipeline.report.scale import read_scale

Summary = dict[str, dict[str, Any]]


def summarise(locales: Sequence[Numbers], measures: Sequence[str]) -> Summary:
    """Return the given measures of each locale and system and, under `mean`, the locales' means.

    A measure is {mean, low, high, queries}; one that a system lacks is left out, and the ends of an
    interval where none was computed. Each locale counts the same in a mean, however many queries it
    has; a measure that some locale lacks has none.
    """
    summary: Summary = {}
    for results in locales:
        summary[results.locale] = {
            **results.scores.model_dump(),
            "systems": {
                system: {
                    measure: estimate.model_dump(exclude_none=True)
                    for measure in measures
                    if (estimate := results.estimate(system, measure)) is not None
                }
                for system in SHOWN
            },
        }
    summary[MEAN] = {
        "systems": {
            system: {
                measure: round(sum(means) / len(means), metrics.MEAN_DECIMALS)
                for measure in measures
                if len(means := _means(locales, system, measure)) == len(locales)
            }
            for system in SHOWN
        }
    }
    return summary


def table(summary: Summary, measures: Sequence[str]) -> str:
    """Return the summary as a markdown table, a row a locale and system.

    The first measure's interval stands beside it; those of the others would make the table too wide
    to read, and stand in the page and in reports/intervals.
    """
    columns = ["locale", "system", "queries", "products", *measures]
    lines = [_row(columns), _row(["---"] * 2 + ["---:"] * (len(columns) - 2))]
    for locale, of in summary.items():
        for place, (system, values) in enumerate(of["systems"].items()):
            first = place == 0
            name = f"{system} ({of['encoder']}, {of['index']})" if _is_named(of, system) else system
            counts = [f"{of[key]:,}" if first and key in of else "" for key in columns[2:4]]
            cells = [_cell(values.get(measure), measure == measures[0]) for measure in measures]
            lines.append(_row([locale if first else "", name, *counts, *cells]))
    return "\n".join(lines) + "\n"


def report(params: Params) -> stage.Done:
    """Read what the stages found of every locale, and write page, table and summary."""
    locales = [read_locale(params, locale) for locale in params.locales]
    measures = params.evaluate.headline()
    summary = summarise(locales, measures)
    page = render.render(locales, params, read_scale())
    # The page first: it is the one that may fail.
    for path, text in (
        (layout.PAGE, page),
        (layout.REPORT, table(summary, measures)),
        (layout.SUMMARY, files.canonical_json(summary)),
    ):
        with files.atomic_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    return stage.Done(
        locales=len(locales),
        queries=sum(min(each.scores.queries, params.report.queries) for each in locales),
    )


def _means(locales: Sequence[Numbers], system: str, measure: str) -> list[float]:
    """Return the mean of each locale that has one."""
    return [
        estimate.mean
        for results in locales
        if (estimate := results.estimate(system, measure)) is not None and estimate.mean is not None
    ]


def _is_named(of: dict[str, Any], system: str) -> bool:
    return system == "dense" and "encoder" in of


def _cell(value: Any, with_interval: bool) -> str:
    """Return a measure as text: its mean, and the ends of its interval if it has and wants one."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    mean = f"{value['mean']:.3f}"
    if not with_interval or "low" not in value:
        return mean
    return f"{mean} [{value['low']:.3f}, {value['high']:.3f}]"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
