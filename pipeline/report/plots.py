"""The numbers of all locales as flat tables for `dvc plots`: CSV, one row per mark.

One table per plot, written anew with every report: so `dvc plots` draws the locales of params.yaml,
no other, and no trade-off that was measured on other data.

Names come from the source's texts. A spreadsheet takes a cell that begins with =, +, - or @ for a
formula, and some drop a tab or line break before it: an apostrophe goes before such a text, which
spreadsheets read as "this is text" (https://owasp.org/www-community/attacks/CSV_Injection).
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.evaluate.plots import RECALL, TRAINING
from pipeline.report.inputs import LocaleResults
from pipeline.report.tradeoff import FIGURES, TradeOff
from pipeline.report.training import LOSS

ENDS = ("mean", "low", "high")

FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a formula begins with, in either width."""

Rows = Iterable[tuple[object, ...]]


def recall(results: LocaleResults) -> Rows:
    """Yield recall by system and k."""
    for system, curve in results.recall.items():
        for k, found in curve:
            yield system, k, found


def intervals(results: LocaleResults) -> Rows:
    """Yield each mean that has an interval, the measures of the table by query first."""
    for system, of_system in results.intervals.items():
        first = [name for name in results.measures if name in of_system]
        for measure in dict.fromkeys([*first, *of_system]):
            each = of_system[measure]
            yield system, measure, each.mean, each.low, each.high, each.queries


def labels(results: LocaleResults) -> Rows:
    """Yield the share of the first ten places that each label has, by system."""
    for system, shares in results.slices.top10.items():
        for label, share in shares.items():
            yield system, label, share


def slices(results: LocaleResults) -> Rows:
    """Yield the mean of each slice of the queries, by system."""
    for each in results.slices.slices:
        for system, ends in each.systems.items():
            yield each.slice, each.value, system, each.queries, ends.mean, ends.low, ends.high


def tradeoff(results: LocaleResults) -> Rows:
    """Yield the figures of each index; nothing where none were measured on these data."""
    if isinstance(results.tradeoff, TradeOff):
        for each in results.tradeoff.indexes:
            figures = each.model_dump(by_alias=True)
            yield each.index, *(figures[name] for name in FIGURES)


def training(results: LocaleResults) -> Rows:
    """Yield loss and dev measures of the trained models in use; nothing where none is."""
    for each in results.trainings:
        for measure, curve in each.curves:
            for epoch, value in curve:
                kept = int(measure != LOSS and epoch == each.kept)
                yield each.kind, each.model, epoch, measure, value, kept


@dataclass(frozen=True)
class Plot:
    """The table of a plot: its columns after `locale`, and the rows of one locale."""

    columns: tuple[str, ...]
    rows: Callable[[LocaleResults], Rows]


PLOTS = {
    "recall": Plot(RECALL, recall),
    "intervals": Plot(("system", "measure", *ENDS, "queries"), intervals),
    "labels": Plot(("system", "label", "share"), labels),
    "slices": Plot(("slice", "value", "system", "queries", *ENDS), slices),
    "tradeoff": Plot(("index", *FIGURES), tradeoff),
    "training": Plot(TRAINING, training),
}
"""All plots, by their names in dvc.yaml."""


def table(plot: Plot, locales: Sequence[LocaleResults]) -> str:
    """Return a plot's table of all locales, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["locale", *plot.columns])
    for results in locales:
        rows = ((results.locale, *row) for row in plot.rows(results))
        writer.writerows([as_text(cell) for cell in row] for row in rows)
    return text.getvalue()


def as_text(cell: object) -> object:
    """Return a cell of a CSV file; a text that could run as a formula gets an apostrophe."""
    if isinstance(cell, str) and (
        cell.startswith(("\t", "\r", "\n")) or cell.lstrip().startswith(FORMULAS)
    ):
        return f"'{cell}"
    return cell
