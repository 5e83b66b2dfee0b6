"""Write the page of each explored locale: reports of three stages + the map.

The page is for people: the map, the clusters with their names, what neighbours are worth, and
duplicates. Everything on it is in the file.
"""

import numpy as np

from pipeline.catalogue.others import duplicates_section, similar_section
from pipeline.catalogue.page import Drawn, render
from pipeline.clusters.card import check_clusters
from pipeline.clusters.form import CLUSTERS, MAP, read_report
from pipeline.core import files, layout, stage, tables
from pipeline.core.arrays import Ints
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.evaluate.product_fields import read_shown

POINTED = 3_000
"""How many products can be pointed at, at most."""


def catalogue(params: Params, locale: str) -> stage.Done:
    """Write the page of a locale's catalogue."""
    card = check_clusters(params, locale)
    report = read_report(locale)
    drawn = _read_map(params, locale)
    others = {
        "similar": similar_section(report, card),
        "duplicates": duplicates_section(report, card),
    }
    page = render(report, drawn, params, others)
    path = layout.catalogue(locale)
    files.write_text(path, page)
    log.info("catalogue locale=%s products=%d page=%s", locale, report.products, path)
    return stage.Done(products=report.products)


def _read_map(params: Params, locale: str) -> Drawn:
    """Read a locale's map, and the titles of the products that can be pointed at.

    Raises:
        PipelineError: an artefact is damaged.
    """
    clean, found = layout.clean(locale), layout.clusters(locale)
    remedy = layout.rerun_hint("clusters", locale)
    clusters = tables.read_table(found.clusters, CLUSTERS, remedy)
    drawn = tables.read_table(found.map, MAP, remedy)
    pointed: Ints = np.flatnonzero(drawn["landmark"].to_numpy())[:POINTED]
    titles, _ = read_shown(
        clean.products, pointed, params.clean, layout.rerun_hint("clean", locale)
    )
    places = np.column_stack([drawn["x"].to_numpy(), drawn["y"].to_numpy()])
    cluster = np.asarray(clusters["cluster"].to_numpy(), dtype=np.int64)
    return Drawn(places, cluster, pointed, [titles[row] for row in pointed.tolist()])
