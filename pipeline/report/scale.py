"""The chart of the stages' cost over the size of the catalogue, and what it is drawn from."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Self

from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from pydantic import Field, model_validator

from pipeline.core import layout
from pipeline.core.cards import read_model
from pipeline.core.param_types import Part
from pipeline.report import svg
from pipeline.report.axes import AXIS, SMALL_TEXT, TITLE, WIDTH, name_y, new_axes
from pipeline.report.svg import COLOURS

_LEFT, _NAMES = 46.0, 138.0
_WITHIN = WIDTH - _NAMES + 4
"""Where the lines from the curves to their names begin."""
_APART = 13.0
"""Pixels from one name to the next."""
_SHORTEST = 1e-2
"""Seconds: shorter times are drawn here, since a logarithm has no zero."""


class Point(Part):
    """What a stage took for a catalogue."""

    products: Annotated[int, Field(ge=1, le=10**12)]
    seconds: Annotated[float, Field(ge=0, le=1e9)]
    peak_bytes: Annotated[int, Field(ge=0, le=10**15)]


class Machine(Part):
    """Where it was measured."""

    cores: Annotated[int, Field(ge=1)]


class Scale(Part):
    """What `make scale` measured: some points per stage, the smallest catalogue first."""

    machine: Machine
    stages: dict[str, Annotated[tuple[Point, ...], Field(min_length=1)]]

    @model_validator(mode="after")
    def _sizes_rise(self) -> Self:
        for name, points in self.stages.items():
            if any(one.products >= two.products for one, two in pairwise(points)):
                raise ValueError(f"the points of {name} are not in the order of their products")
        return self

    @property
    def sizes(self) -> list[int]:
        """Return the sizes that anything was measured at."""
        return sorted({point.products for points in self.stages.values() for point in points})


def read_scale() -> Scale:
    """Return what was measured at scale.

    Raises:
        PipelineError: nothing was measured, or the file is damaged.
    """
    return read_model(layout.SCALE_BENCH, Scale, "Run `make scale`, or set report.scale to false.")


def draw_scale(scale: Scale) -> str:
    """Draw each stage's seconds over the products, both by powers of ten."""
    height = max(240.0, TITLE + AXIS + _APART * (len(scale.stages) + 1))
    figure = svg.drawing(WIDTH, height)
    axes = new_axes(figure, _LEFT, _NAMES, height, TITLE)
    name_y(figure, "seconds")
    axes.set_xscale("log")
    axes.set_yscale("log")
    seconds = [_drawn(point) for points in scale.stages.values() for point in points]
    _powers(axes, scale.sizes, seconds)
    # From the top: the stage that takes the longest first, as its line ends.
    stages = sorted(scale.stages.items(), key=lambda each: (-_drawn(each[1][-1]), each[0]))
    ends = [float(axes.transData.transform((1, _drawn(points[-1])))[1]) for _, points in stages]
    for (name, points), end, at in zip(
        stages, ends, spread(ends, _APART, height - TITLE), strict=True
    ):
        x, y = [point.products for point in points], [_drawn(point) for point in points]
        axes.plot(
            x, y, marker="o", markersize=4, linewidth=1.4, color=COLOURS["dense"], clip_on=False
        )
        axes.plot(
            [_WITHIN, _WITHIN + 10], [end, at], transform=None, color=COLOURS["grid"],
            linewidth=1, clip_on=False,
        )  # fmt: skip
        axes.annotate(
            name, (_WITHIN + 12, at), xycoords="figure pixels", va="center", ha="left",
            size=SMALL_TEXT, color=COLOURS["ink"], annotation_clip=False,
        )  # fmt: skip
    axes.grid(True, color=COLOURS["grid"], linewidth=0.8)
    axes.set_xlabel("products")
    figures = "; ".join(
        f"{name} "
        + ", ".join(f"{point.seconds:,.1f} s at {point.products:,}" for point in scale.stages[name])
        for name, _ in stages
    )
    return svg.to_markup(
        figure, "chart-scale", "Seconds of each stage over products", f"{figures}."
    )


def spread(wanted: Sequence[float], apart: float, most: float) -> list[float]:
    """Return places near the wanted ones, at least `apart` from each other, none above `most`.

    Args:
        wanted: the highest first.
        apart: how far they have to be from each other.
        most: the highest place of the first one.
    """
    places: list[float] = []
    for place in wanted:
        places.append(min(place, places[-1] - apart if places else most))
    # Those that were pushed below the ground lift the ones above them.
    for at in range(len(places) - 1, -1, -1):
        least = AXIS if at == len(places) - 1 else places[at + 1] + apart
        places[at] = max(places[at], least)
    return places


def _drawn(point: Point) -> float:
    return max(point.seconds, _SHORTEST)


def _powers(axes: Any, sizes: Sequence[int], seconds: Sequence[float]) -> None:
    """Let both axes hold all points, with lines at the sizes and at powers of ten."""
    axes.set_xlim(sizes[0] / 1.2, max(sizes[-1], sizes[0] * 1.1) * 1.05)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FixedFormatter([_short(size) for size in sizes]))
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)) + 0.01)
    ticks = [10.0**power for power in range(low, high + 1)]
    axes.set_ylim(ticks[0], ticks[-1])
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:,g}" for tick in ticks]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


def _short(size: int) -> str:
    if size >= 1_000_000:
        return f"{size / 1e6:.1f} M"
    return f"{size / 1e3:.0f} k" if size >= 1_000 else str(size)
