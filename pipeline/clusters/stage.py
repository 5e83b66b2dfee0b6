"""Cluster each locale's products: vectors + clean texts -> data/clusters/, reports/clusters/.

The same vectors, texts and settings give the same bytes for any number of threads; another kind of
CPU, whose sgemm rounds differently, may give others.
"""

import numpy as np
import pyarrow as pa

from pipeline.clusters.card import make_card
from pipeline.clusters.describe import describe_clusters
from pipeline.clusters.directions import Directions
from pipeline.clusters.form import (
    CLUSTERS,
    CLUSTERS_SCHEMA,
    MAP,
    ClustersReport,
    Estimate,
    Measures,
    Pairs,
)
from pipeline.clusters.kmeans import (
    Clustering,
    cluster_products,
    default_clusters,
    default_leaf_size,
)
from pipeline.clusters.map import draw_map
from pipeline.clusters.measures import chance, pair_shares, stability
from pipeline.core import files, layout, stage, tables
from pipeline.core.arrays import Floats, Ints
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Params, Uncertainty
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.uncertainty import bootstrap_interval
from pipeline.runs.inputs import Ids, read_judgements
from pipeline.vectors.manifest import check_ids, read_manifest
from pipeline.vectors.shards import ShardReader


def clusters(params: Params, locale: str) -> stage.Done:
    """Cluster the products of a locale, name and measure the clusters, and draw the map."""
    manifest = read_manifest(params, locale)
    ids, _, judged = read_judgements(locale)
    check_ids(manifest, "products", ids.products, locale)
    vectors = Directions(ShardReader(manifest, "products", locale))
    settings, threads = params.clusters, params.runtime.thread_count()
    wanted = settings.count or default_clusters(vectors.rows)
    if wanted > vectors.rows:
        raise PipelineError(
            f"clusters.count must be at most {vectors.rows}, the number of {locale} products "
            f"(found {wanted}). Use a lower number, or leave it empty."
        )
    leaf_size = settings.leaf_size or default_leaf_size(vectors.rows)
    found = cluster_products(vectors, wanted, leaf_size, settings.seed, threads)
    product_ids = ids.products.combine_chunks()
    report = ClustersReport(
        clusters_schema=CLUSTERS_SCHEMA,
        locale=locale,
        encoder=params.encoder[locale],
        ids_sha256=tables.ids_sha256(ids.products),
        products=vectors.rows,
        clusters=found.clusters,
        leaves=found.leaves,
        seed=settings.seed,
        without_direction=found.without_direction,
        measures=_measure(params, found, vectors, wanted, ids, judged),
        groups=describe_clusters(params, locale, found, product_ids),
    )
    places, landmarks = draw_map(vectors, settings.seed, threads)
    is_landmark = np.zeros(vectors.rows, dtype=np.bool_)
    is_landmark[landmarks] = True
    with files.atomic_directory(layout.clusters(locale).folder) as folder:
        out = layout.ClusterFiles(folder)
        columns = [
            product_ids,
            *(pa.array(each, pa.int32()) for each in (found.cluster, found.leaf)),
        ]
        tables.write_table(out.clusters, pa.table(columns, schema=CLUSTERS), CLUSTERS)
        drawn = pa.table([*map(pa.array, (*places.T, is_landmark))], schema=MAP)
        tables.write_table(out.map, drawn, MAP)
        files.write_json(layout.clusters_report(locale), report.model_dump(mode="json"))
        card = make_card(
            params,
            locale,
            table_sha256=manifest.products.table_sha256,
            vectors_sha256=manifest.products.sha256(),
            clusters_sha256=files.sha256_file(out.clusters),
            map_sha256=files.sha256_file(out.map),
            report_sha256=files.sha256_file(layout.clusters_report(locale)),
        )
        files.write_json(out.card, card.model_dump(mode="json"))
    log.info(
        "clusters locale=%s products=%d clusters=%d leaves=%d",
        locale, vectors.rows, found.clusters, found.leaves,
    )  # fmt: skip
    return stage.Done(products=vectors.rows, dimension=manifest.dimension)


def _measure(
    params: Params,
    found: Clustering,
    vectors: Directions,
    wanted: int,
    ids: Ids,
    judged: tuple[Ints, Ints, Ints],
) -> Measures:
    """Measure the clusters by the labels of products with a text, and by another seed."""
    missing = {}
    rows, products, positions = judged
    known = ids.has_text(products)
    labels = np.array(tables.LABELS)[positions[known]]
    of_level: dict[str, Pairs | None] = {"clusters": None, "leaves": None}
    if len(found.leaf) < 2:
        missing["pairs"] = "one product is in no pair"
    elif not (labels == "E").any():
        missing["pairs"] = "no product with a text is Exact for a query"
    else:
        for level, group in (("clusters", found.cluster), ("leaves", found.leaf)):
            shares = pair_shares(group, rows[known], products[known], labels, len(ids.queries))
            of_level[level] = _pairs(shares.exact, shares.irrelevant, chance(group), params)
    agreement = None
    if found.clusters < 2:
        missing["stability"] = "there is one cluster"
    else:
        agreement = stability(vectors, found.cluster, wanted, params.clusters.seed)
        agreement = round(agreement, MEAN_DECIMALS)
    return Measures(**of_level, stability=agreement, missing=missing)


def _pairs(exact: Floats, irrelevant: Floats, by_chance: float, params: Params) -> Pairs:
    draws = params.uncertainty
    return Pairs(
        chance=round(by_chance, MEAN_DECIMALS),
        exact=_estimate(exact, draws),
        lift=_estimate(exact / by_chance, draws) if by_chance else None,
        exact_irrelevant=_estimate(irrelevant, draws),
    )


def _estimate(values: Floats, draws: Uncertainty) -> Estimate | None:
    """Return the mean over the queries that have a value, None where none has."""
    found = bootstrap_interval(values, draws)
    if not found.queries:
        return None
    return Estimate(**found.rounded()._asdict())
