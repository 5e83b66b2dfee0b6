"""What the charts share: their size, plain axes at fixed places, rows, marks with intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedFormatter, FixedLocator

from pipeline.report.inputs import Estimate
from pipeline.report.svg import COLOURS

WIDTH = 340.0
LEFT, RIGHT, TOP, AXIS = 58.0, 18.0, 8.0, 40.0
TITLE = 26.0
SMALL_TEXT, ROW_TEXT = 10.0, 11.0

Line = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Mark:
    """How a system is drawn. Never by colour alone: each has its own marker and line.

    Of other engines, those of four are their own; further ones share them, in turn.
    """

    colour: str
    marker: str
    line: Line


MARKS = {
    "random": Mark(COLOURS["random"], "x", ":"),
    "bm25": Mark(COLOURS["bm25"], "s", "--"),
    "dense": Mark(COLOURS["dense"], "o", "-"),
    "hybrid": Mark(COLOURS["hybrid"], "D", "-."),
    "rerank": Mark(COLOURS["rerank"], "^", (0, (4, 1))),
}
OTHER_MARKS = (
    Mark(COLOURS["other"], "v", (0, (1, 1))),
    Mark(COLOURS["other"], "<", (0, (6, 1, 1, 1, 1, 1))),
    Mark(COLOURS["other"], ">", (0, (8, 3))),
    Mark(COLOURS["other"], "p", (0, (3, 1, 1, 1))),
)
"""Those of other engines, in turn."""


def marks(others: Sequence[str]) -> Mapping[str, Mark]:
    """Return the mark of each system; `others` are the other engines of the page, in order."""
    return {**MARKS, **dict(zip(others, cycle(OTHER_MARKS), strict=False))}


def new_axes(figure: Figure, left: float, right: float, height: float, top: float = TOP) -> Axes:
    """Return axes without a frame, at these distances in pixels from the edges of the figure."""
    axes = figure.add_axes((0, 0, 1, 1))
    place(axes, left, right, height, top)
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["grid"])
    axes.tick_params(length=0, colors=COLOURS["muted"], labelsize=SMALL_TEXT, pad=5)
    axes.xaxis.label.set_color(COLOURS["muted"])
    axes.xaxis.label.set_fontsize(SMALL_TEXT)
    axes.set_axisbelow(True)
    return axes


def place(axes: Axes, left: float, right: float, height: float, top: float) -> None:
    """Put the axes at these distances in pixels from the edges of a figure of that height."""
    axes.set_position(
        (left / WIDTH, AXIS / height, 1 - (left + right) / WIDTH, 1 - (AXIS + top) / height)
    )


def name_y(figure: Figure, name: str) -> None:
    """Name the vertical axis at the top left, where it is read first."""
    width, height = figure.get_size_inches() * 72
    figure.text(4 / width, 1 - 12 / height, name, color=COLOURS["muted"], size=SMALL_TEXT)


def room_for(names: Iterable[str]) -> float:
    """Return how many pixels the names of rows need to the left of the axes, `LEFT` at least."""
    drawn = (TextPath((0, 0), name, size=ROW_TEXT).get_extents().width for name in names)
    return max(LEFT, 10.0 + math.ceil(max(drawn, default=0)))


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label rows from the top down."""
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(len(labels))))
    axes.yaxis.set_major_formatter(FixedFormatter(labels))
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"], labelsize=ROW_TEXT)


def unit_axis(axes: Axes, label: str) -> None:
    """Let an axis from 0 to 1 go to the right, with lines at the quarters."""
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.grid(True, axis="x", color=COLOURS["grid"], linewidth=0.8)
    axes.set_xlabel(label)


def dot(
    axes: Axes, mark: Mark, estimate: Estimate, row: float, size: float = 6.5, hollow: bool = False
) -> None:
    """Draw a mean and, if it has one, its interval."""
    if estimate.mean is None:
        return
    colour = mark.colour
    if estimate.low is not None and estimate.high is not None:
        axes.plot(
            [estimate.low, estimate.high], [row, row],
            color=colour, linewidth=1.6, solid_capstyle="round", clip_on=False,
        )  # fmt: skip
    axes.plot(
        [estimate.mean], [row], marker=mark.marker, linestyle="", markersize=size,
        markerfacecolor=COLOURS["surface"] if hollow else colour,
        markeredgecolor=colour, markeredgewidth=1.4, clip_on=False,
    )  # fmt: skip
