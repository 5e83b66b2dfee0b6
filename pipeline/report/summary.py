"""Locales and systems side by side, as numbers for programs and as a Markdown table."""

from collections.abc import Sequence
from typing import Any

from pipeline.core import text_tables
from pipeline.core.params import MEAN
from pipeline.evaluate import metrics
from pipeline.report.inputs import SHOWN, Numbers

Summary = dict[str, dict[str, Any]]


def summarise(locales: Sequence[Numbers], measures: Sequence[str]) -> Summary:
    """Return the given measures of each locale and system and, under `mean`, the locales' means.

    A measure is {mean, low, high, queries}; one that a system lacks is left out, and the ends of an
    interval where none was computed. Each locale counts the same in a mean, however many queries it
    has; a measure that some locale lacks has none, and a system that has none is left out.
    """
    summary: Summary = {}
    for results in locales:
        summary[results.locale] = {
            **results.scores.model_dump(exclude={"systems"}),
            "systems": {
                system: {
                    measure: estimate.model_dump(exclude_none=True)
                    for measure in measures
                    if (estimate := results.estimate(system, measure)) is not None
                }
                for system in results.shown
            },
        }
    summary[MEAN] = {
        "systems": {
            system: means
            for system in shown(locales)
            if (means := means_of_all(locales, system, measures))
        }
    }
    return summary


def shown(locales: Sequence[Numbers]) -> list[str]:
    """Return all that is compared in any locale, in the order of `SHOWN`, then other engines."""
    others = sorted({name for each in locales for name in each.scores.systems})
    return [system for system in (*SHOWN, *others) if any(system in each.shown for each in locales)]


def table(summary: Summary, measures: Sequence[str]) -> str:
    """Return the summary as a Markdown table, one row per locale and system.

    The mean has rows where there are several locales.

    The first measure has its interval; with all of them the table would be too wide to read. They
    are on the page and in reports/intervals.
    """
    counts = ("queries", "products")
    rows = []
    alone = len(summary) == 2
    for locale, of in summary.items():
        if locale == MEAN and alone:
            continue
        for place, (system, values) in enumerate(of["systems"].items()):
            first = place == 0
            rows.append(
                [
                    locale if first else "",
                    _system_name(of, system),
                    *(f"{of[key]:,}" if first and key in of else "" for key in counts),
                    *(_cell(values.get(each), each == measures[0]) for each in measures),
                ]
            )
    header = ("locale", "system", *counts, *measures)
    return text_tables.markdown(header, rows, header[2:])


def _system_name(of: dict[str, Any], system: str) -> str:
    """Return the name of a system, with its encoder and index if it has them."""
    named = system == "dense" and "encoder" in of
    return f"{system} ({of['encoder']}, {of['index']})" if named else system


def means_of_all(
    locales: Sequence[Numbers], system: str, measures: Sequence[str]
) -> dict[str, float]:
    """Return the mean over the locales of each measure that all of them have, to 5 digits."""
    return {
        measure: round(sum(means) / len(means), metrics.MEAN_DECIMALS)
        for measure in measures
        if len(means := _means_of(locales, system, measure)) == len(locales)
    }


def _means_of(locales: Sequence[Numbers], system: str, measure: str) -> list[float]:
    """Return the mean of each locale that has one."""
    return [
        estimate.mean
        for results in locales
        if (estimate := results.estimate(system, measure)) is not None and estimate.mean is not None
    ]


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
