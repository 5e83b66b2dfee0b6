"""Render the page of a catalogue: what its template is filled with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.catalogue.colours import as_css, cluster_colours
from pipeline.catalogue.labels import NARROW_SIZE, WIDE_SIZE, fit_labels, middles
from pipeline.catalogue.raster import Frame, as_data_url, draw_raster
from pipeline.clusters.form import ClustersReport, Estimate
from pipeline.core.arrays import Ints, Matrix
from pipeline.core.params import Params
from pipeline.report import parts
from pipeline.report.browse import embedded_json
from pipeline.report.parts import trusted_markup
from pipeline.report.wording import count, share

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Drawn:
    """The map of all products, and the products that can be pointed at.

    Attributes:
        places: of all products, [products, 2].
        cluster: of all products.
        pointed: the rows of those that can be pointed at, ascending.
        titles: of these.
    """

    places: Matrix
    cluster: Ints
    pointed: Ints
    titles: Sequence[str]


def render(report: ClustersReport, drawn: Drawn, params: Params, others: dict[str, Any]) -> str:
    """Return the page of a locale's catalogue, the same text for the same artefacts.

    Args:
        report: its clusters.
        drawn: its map.
        params: what they are of.
        others: what the template shows of similar products and duplicates.
    """
    templates = parts.open_templates(_ASSETS, count=count, share=share, estimate=format_figure)
    script = parts.join_scripts(_ASSETS / "catalogue.js")
    css = parts.join_styles(parts.ASSETS / "page.css", _ASSETS / "catalogue.css")
    colours = cluster_colours(report.clusters)
    frame = Frame.around(drawn.places)
    names = [group.name for group in report.groups]
    at = middles(drawn.places, drawn.cluster, frame)
    language = params.language[report.locale]
    return templates.get_template("catalogue.html.j2").render(
        css=trusted_markup(css),
        script=trusted_markup(script),
        script_hash=parts.integrity(script),
        report=report,
        language="" if language == "any" else language,
        colours=as_css(colours),
        frame=frame,
        picture=as_data_url(draw_raster(drawn.places, drawn.cluster, colours, frame)),
        labels={
            "wide": fit_labels(names, at, frame, WIDE_SIZE),
            "narrow": fit_labels(names, at, frame, NARROW_SIZE),
        },
        pointed=len(drawn.pointed),
        confidence=params.uncertainty.confidence,
        data=trusted_markup(embedded_json(_points(drawn, frame, names))),
        **others,
    )


def format_figure(estimate: Estimate | None, decimals: int) -> str:
    """Return an estimate as text: "27.95 [26.79, 29.13]"."""
    if estimate is None:
        return "–"
    mean, low, high = (
        f"{value:.{decimals}f}" for value in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} [{low}, {high}]"


def _points(drawn: Drawn, frame: Frame, names: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what the script shows: the places in pixels, the clusters, the titles."""
    pixels = frame.pixels(drawn.places[drawn.pointed]).round(1)
    return {
        "names": [" · ".join(words) for words in names],
        "x": pixels[:, 0].tolist(),
        "y": pixels[:, 1].tolist(),
        "cluster": drawn.cluster[drawn.pointed].tolist(),
        "title": list(drawn.titles),
    }
