"""The chart of index trade-offs: points with names that do not cover each other."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from pipeline.report import svg
from pipeline.report.axes import AXIS, RIGHT, SMALL_TEXT, TITLE, WIDTH, name_y, new_axes
from pipeline.report.inputs import LocaleResults
from pipeline.report.svg import COLOURS
from pipeline.report.tradeoff import TradeOff

_LEFT = 46.0
_LABEL = 84.0
_SHORTEST = 1e-4
"""Milliseconds: shorter times are drawn here, since a logarithm has no zero."""


def draw_tradeoff(results: LocaleResults, measured: TradeOff) -> str:
    """Draw each index: which share of exact search it finds, over how long one query takes."""
    figure = svg.drawing(WIDTH, 240)
    axes = new_axes(figure, _LEFT, RIGHT, 240, TITLE)
    name_y(figure, "overlap@100 with exact search")
    chosen = results.scores.index
    x = [max(each.p50_milliseconds, _SHORTEST) for each in measured.indexes]
    y = [each.overlap for each in measured.indexes]
    axes.set_xscale("log")
    ends = _ends(x)
    axes.set_xlim(*ends)
    margin = max((1 - min(y)) * 0.12, 0.005)
    axes.set_ylim(min(y) - 1.5 * margin, 1 + 1.5 * margin)
    ticks = _nice_ticks(*ends)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    levels = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(min(y) - margin, 1)
    axes.yaxis.set_major_locator(FixedLocator([level for level in levels if level < 1.0001]))
    axes.grid(True, color=COLOURS["grid"], linewidth=0.8)
    axes.set_xlabel("milliseconds per query, median")
    _draw_points(axes, measured, chosen, x)
    figures = "; ".join(
        f"{each.index} {each.overlap:.3f} at {each.p50_milliseconds:.3g} ms"
        for each in measured.indexes
    )
    return svg.to_markup(
        figure,
        f"chart-tradeoff-{results.locale}",
        f"Overlap with exact search over latency, {results.locale}",
        f"{figures}. Chosen: {chosen}.",
    )


def _draw_points(axes: Axes, measured: TradeOff, chosen: str, x: Sequence[float]) -> None:
    """Draw a point and a name for each index; `x` are their latencies as drawn."""
    y = [each.overlap for each in measured.indexes]
    placed: list[_Box] = []
    points = [tuple(axes.transData.transform(point)) for point in zip(x, y, strict=True)]
    blocked = [_Box(px - 5, py - 5, px + 5, py + 5) for px, py in points]
    for each, at_x, (px, py) in zip(measured.indexes, x, points, strict=True):
        here = each.index == chosen
        axes.plot(
            [at_x], [each.overlap], marker="o", linestyle="",
            markersize=8 if here else 6.5, zorder=3 if here else 2,
            markerfacecolor=COLOURS["dense"] if here else COLOURS["surface"],
            markeredgecolor=COLOURS["dense"], markeredgewidth=1.6,
        )  # fmt: skip
        words = f"{each.index}, {each.bytes_per_vector:,.0f} B"
        box, align = _free_place(px, py, words, placed, blocked)
        placed.append(box)
        at = box.left if align == "left" else box.right
        axes.annotate(
            words, (at, (box.bottom + box.top) / 2), xycoords="figure pixels",
            ha=align, va="center", size=SMALL_TEXT, color=COLOURS["ink"],
            fontweight="bold" if here else "normal", annotation_clip=False,
        )  # fmt: skip


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def _free_place(
    x: float, y: float, words: str, placed: Iterable[_Box], blocked: Iterable[_Box]
) -> tuple[_Box, str]:
    """Return where the name of a point goes: the first free place."""
    width, height = 5.6 * len(words), 13.0
    taken = [*placed, *blocked]
    candidates = []
    for distance in (0.0, 12.0, 24.0, 36.0):
        for rise in (-distance, distance):
            right = _Box(x + 8, y + rise - height / 2, x + 8 + width, y + rise + height / 2)
            left = _Box(x - 8 - width, right.bottom, x - 8, right.top)
            candidates += [(right, "left"), (left, "right")]
    inside = [
        (box, align)
        for box, align in candidates
        if box.left >= _LEFT and box.right <= WIDTH - 2 and box.bottom >= AXIS
    ]
    free = [each for each in inside if not any(each[0].meets(other) for other in taken)]
    return (free or inside or candidates)[0]


def _ends(x: Sequence[float]) -> tuple[float, float]:
    """Return where the axis begins and ends: the name of the last point fits on its right."""
    low, high = math.log10(min(x)), math.log10(max(x))
    span = max(high - low, 0.5)
    for_points = WIDTH - _LEFT - RIGHT - 12 - _LABEL
    return 10 ** (low - 12 / for_points * span), 10 ** (low + span + _LABEL / for_points * span)


def _nice_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between the ends; the powers alone if they suffice."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    between = [tick for tick in ticks if low <= tick <= high]
    whole = [tick for tick in between if math.log10(tick).is_integer()]
    return whole if len(whole) >= 3 else between
