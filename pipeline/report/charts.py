"""The charts of the page, each of one locale, 340 pixels wide, so that they fit a phone."""

import math
from typing import Any

from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from pipeline.core.tables import LABELS
from pipeline.report import svg
from pipeline.report.axes import (
    AXIS,
    RIGHT,
    SMALL_TEXT,
    TITLE,
    TOP,
    WIDTH,
    dot,
    marks,
    name_rows,
    name_y,
    new_axes,
    room_for,
    unit_axis,
)
from pipeline.report.inputs import RUNS, UNJUDGED, LocaleResults, Slice
from pipeline.report.svg import COLOURS
from pipeline.report.wording import display_name, format_estimate

LONGEST_NAME = 16
"""How many letters of a system's name are drawn; the tables have all of it."""


def draw_headline(results: LocaleResults, measure: str) -> str:
    """Draw one measure of every system with its interval."""
    rows = [
        (system, estimate)
        for system in results.shown
        if (estimate := results.estimate(system, measure)) is not None
    ]
    names = [_shortened(system, LONGEST_NAME) for system, _ in rows]
    height = TOP + 26 * len(rows) + AXIS
    figure = svg.drawing(WIDTH, height)
    axes = new_axes(figure, room_for(names), RIGHT, height)
    drawn = marks(results.others)
    for row, (system, estimate) in enumerate(rows):
        dot(axes, drawn[system], estimate, row)
    name_rows(axes, names)
    unit_axis(axes, display_name(measure))
    numbers = "; ".join(f"{system} {format_estimate(estimate)}" for system, estimate in rows)
    return svg.to_markup(
        figure,
        f"chart-headline-{results.locale}",
        f"{display_name(measure)}, {results.locale}",
        f"{numbers}.",
    )


def draw_recall(results: LocaleResults) -> str:
    """Draw the share of Exact products found in the first k, over k."""
    figure = svg.drawing(WIDTH, 220)
    axes = new_axes(figure, 42, RIGHT, 220, TITLE)
    name_y(figure, "recall")
    cutoffs = results.cutoffs or [1]
    drawn = marks(results.others)
    for system, curve in results.recall.items():
        axes.plot(
            [k for k, _ in curve],
            [recall for _, recall in curve],
            color=drawn[system].colour,
            linestyle=drawn[system].line,
            marker=drawn[system].marker,
            markersize=4,
            linewidth=1.6,
            clip_on=False,
        )
    axes.set_xscale("log")
    axes.set_xlim(cutoffs[0], max(cutoffs[-1], cutoffs[0] + 1))
    ticks = [k for k in cutoffs if math.log10(k).is_integer()] or cutoffs[:1]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{k:,}" for k in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("k, products looked at")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.grid(True, color=COLOURS["grid"], linewidth=0.8)
    numbers = "; ".join(
        f"{system} from {curve[0][1]:.3f} at {curve[0][0]:,} to {curve[-1][1]:.3f} at "
        f"{curve[-1][0]:,}"
        for system, curve in results.recall.items()
    )
    return svg.to_markup(
        figure, f"chart-recall-{results.locale}", f"Recall at k, {results.locale}", f"{numbers}."
    )


def draw_labels(results: LocaleResults) -> str:
    """Draw what the first ten places hold, by system: labels, and products not judged."""
    mixes = results.mixes
    names = [_shortened(system, LONGEST_NAME) for system in mixes]
    height = TOP + 30 * len(mixes) + AXIS
    figure = svg.drawing(WIDTH, height)
    axes = new_axes(figure, room_for(names), RIGHT, height)
    for row, shares in enumerate(mixes.values()):
        start = 0.0
        for label in (*LABELS, UNJUDGED):
            share = shares.get(label, 0.0)
            if share <= 0:
                continue
            judged = label != UNJUDGED
            axes.barh(
                row, share, 0.66, start,
                color=COLOURS[label] if judged else "none",
                edgecolor=COLOURS["surface" if judged else UNJUDGED],
                hatch=None if judged else "////", linewidth=0.8,
            )  # fmt: skip
            if judged and share >= 0.07:
                words = f"{label} {share:.0%}" if share >= 0.13 else label
                axes.text(
                    start + share / 2, row, words,
                    color=COLOURS[f"on-{label}"], ha="center", va="center", size=SMALL_TEXT,
                )  # fmt: skip
            start += share
    name_rows(axes, names)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_xlabel("share of the first ten places")
    numbers = "; ".join(
        f"{system}: " + ", ".join(f"{label} {share:.1%}" for label, share in shares.items())
        for system, shares in mixes.items()
    )
    return svg.to_markup(
        figure,
        f"chart-labels-{results.locale}",
        f"Labels of the top 10, {results.locale}",
        f"{numbers}.",
    )


def draw_slices(results: LocaleResults) -> str:
    """Draw one row per slice, one dot per system; the dots of small slices are hollow."""
    rows: list[Slice | str] = []  # the name of a group, then its slices
    for each in results.slices.slices:
        if not any(isinstance(row, Slice) and row.slice == each.slice for row in rows[-1:]):
            rows.append(each.slice)
        rows.append(each)
    left, right, top = 140.0, 42.0, TOP + 14
    height = top + 26 * len(rows) + AXIS
    figure = svg.drawing(WIDTH, height)
    axes = new_axes(figure, left, right, height, top)
    inside = WIDTH - left - right
    at_rows = axes.get_yaxis_transform()
    last = 1 + (right - 2) / inside
    small: dict[str, Any] = {"color": COLOURS["muted"], "fontsize": SMALL_TEXT, "ha": "right"}
    by_system = marks(results.others)
    axes.text(last, -0.9, "queries", transform=at_rows, va="center", **small)
    for place, row in enumerate(rows):
        if isinstance(row, str):  # from the left edge: it may be longer than the values
            axes.text(
                -left / inside, place, row, transform=at_rows, va="center_baseline",
                color=COLOURS["ink"], fontweight="bold",
            )  # fmt: skip
            continue
        drawn = [system for system in results.runs if system in row.systems]
        for order, system in enumerate(drawn):
            apart = 0.27 if len(drawn) <= len(RUNS) else 1.08 / len(drawn)
            shift = (order - (len(drawn) - 1) / 2) * apart
            dot(axes, by_system[system], row.systems[system], place + shift, 4.2, row.small)
        words = f"{row.queries:,}{'*' if row.small else ''}"
        axes.text(last, place, words, transform=at_rows, va="center_baseline", **small)
    name_rows(axes, ["" if isinstance(row, str) else _shortened(row.value, 23) for row in rows])
    axes.tick_params(axis="y", labelsize=SMALL_TEXT)
    unit_axis(axes, display_name(results.slices.measure))
    return svg.to_markup(
        figure,
        f"chart-slices-{results.locale}",
        f"{display_name(results.slices.measure)} by slice, {results.locale}",
        f"{len(results.slices.slices)} slices of the queries; the table below has every number.",
    )


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
