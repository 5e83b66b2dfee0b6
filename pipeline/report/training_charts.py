"""The charts of a training: the loss, and the measure that chose the epoch."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report import svg
from pipeline.report.axes import RIGHT, SMALL_TEXT, TITLE, WIDTH, name_y, new_axes
from pipeline.report.svg import COLOURS
from pipeline.report.training import LOSS, Training

WORDS = {
    LOSS: "loss",
    "dev_catalogue_ndcg@10": "dev nDCG@10 among products of both sides",
    "dev_pool_ndcg@10": "dev nDCG@10 of the judged products alone",
    "dev_mined_ndcg@10": "dev nDCG@10 of judged and mined products",
}

_COLOURS = {"encoder": "dense", "reranker": "rerank"}  # those of the system that it is for
_LEFT, _HEIGHT = 46.0, 170.0


def draw_loss(training: Training, name: str) -> str:
    """Draw the loss over the epochs; `name` is unique on the page."""
    figure, axes = _axes(WORDS[LOSS])
    axes.plot(
        *zip(*training.losses, strict=True), color=COLOURS[_COLOURS[training.kind]],
        linewidth=1.6, clip_on=False,
    )  # fmt: skip
    _over_epochs(axes, training)
    first, last = training.losses[0], training.losses[-1]
    said = f"From {first[1]:.4f} at epoch {first[0]:.2f} to {last[1]:.4f} at the end."
    return svg.to_markup(figure, name, f"Loss of {training.model}", said)


def draw_dev(training: Training, name: str) -> str:
    """Draw the measure that chose the epoch, beside the base's value; the kept epoch is filled."""
    values = training.dev[training.chooses]
    figure, axes = _axes(WORDS.get(training.chooses, training.chooses))
    colour = COLOURS[_COLOURS[training.kind]]
    axes.axhline(values[0], color=COLOURS["muted"], linestyle=":", linewidth=1.4)
    axes.annotate(
        "base", (1, values[0]), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset pixels", ha="right", color=COLOURS["muted"], size=SMALL_TEXT,
    )  # fmt: skip
    axes.plot(list(values), list(values.values()), color=colour, linewidth=1.6, clip_on=False)
    for epoch, value in values.items():
        axes.plot(
            [epoch], [value], marker="o", linestyle="", clip_on=False, markeredgecolor=colour,
            markersize=7 if epoch == training.kept else 4.5,
            markerfacecolor=colour if epoch == training.kept else COLOURS["surface"],
        )  # fmt: skip
    _over_epochs(axes, training)
    said = ", ".join(f"epoch {epoch} {value:.4f}" for epoch, value in values.items() if epoch)
    return svg.to_markup(
        figure, name, f"{WORDS.get(training.chooses, training.chooses)} of {training.model}",
        f"Base {values[0]:.4f}, {said}; epoch {training.kept} was kept.",
    )  # fmt: skip


def _axes(name: str) -> tuple[Figure, Axes]:
    figure = svg.drawing(WIDTH, _HEIGHT)
    axes = new_axes(figure, _LEFT, RIGHT, _HEIGHT, TITLE)
    name_y(figure, name)
    return figure, axes


def _over_epochs(axes: Axes, training: Training) -> None:
    axes.set_xlim(0, max(training.dev[training.chooses]))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.margins(y=0.12)
    axes.grid(True, color=COLOURS["grid"], linewidth=0.8)
    axes.set_xlabel("epoch")
