"""The card of the clusters, `clusters.json`: of which products, vectors, texts and settings."""

from pipeline.core import layout
from pipeline.core.cards import check_hash, read_model, refuse_differences
from pipeline.core.param_types import Sha256, Strict
from pipeline.core.params import Clean, Clusters, Params
from pipeline.vectors.manifest import hash_table

CARD_SCHEMA = 2
"""Version of clusters.json; older artefacts are refused, and `dvc repro` rewrites them."""


class ClustersCard(Strict):
    """What the clusters are: by which settings, of which products and vectors."""

    card_schema: int
    encoder: str
    language: str
    settings: Clusters
    texts: Clean
    table_sha256: Sha256
    vectors_sha256: Sha256
    clusters_sha256: Sha256
    map_sha256: Sha256
    report_sha256: Sha256


def make_card(
    params: Params,
    locale: str,
    *,
    table_sha256: str,
    vectors_sha256: str,
    clusters_sha256: str,
    map_sha256: str,
    report_sha256: str,
) -> ClustersCard:
    """Return the card of a locale's clusters.

    Args:
        params: the settings.
        locale: whose products they are.
        table_sha256: of the clean products, as `hash_table` gives it.
        vectors_sha256: of the vectors.
        clusters_sha256: of the file of clusters.
        map_sha256: of the file of the map.
        report_sha256: of the file reports/clusters/<locale>.json.
    """
    return ClustersCard(
        card_schema=CARD_SCHEMA,
        encoder=params.encoder[locale],
        language=params.language[locale],
        settings=params.clusters,
        texts=params.clean,
        table_sha256=table_sha256,
        vectors_sha256=vectors_sha256,
        clusters_sha256=clusters_sha256,
        map_sha256=map_sha256,
        report_sha256=report_sha256,
    )


def check_clusters(params: Params, locale: str) -> ClustersCard:
    """Check that a locale's clusters, map and report belong together, and to these products.

    The vectors themselves are not read.

    Args:
        params: the settings that they must be of.
        locale: whose products they are.

    Returns:
        Their card.

    Raises:
        PipelineError: a file is missing or edited, or is of other products or settings.
    """
    found, report = layout.clusters(locale), layout.clusters_report(locale)
    remedy = layout.rerun_hint("clusters", locale)
    card = read_model(found.card, ClustersCard, remedy, ("card_schema", CARD_SCHEMA))
    expected = make_card(
        params,
        locale,
        table_sha256=hash_table(layout.clean(locale).products, layout.rerun_hint("clean", locale)),
        vectors_sha256=card.vectors_sha256,
        clusters_sha256=card.clusters_sha256,
        map_sha256=card.map_sha256,
        report_sha256=card.report_sha256,
    )
    why = "the clusters are of other products or settings"
    refuse_differences(found.card, card.model_dump(), expected.model_dump(), why, remedy)
    check_hash(found.clusters, card.clusters_sha256, found.card, remedy)
    check_hash(found.map, card.map_sha256, found.card, remedy)
    check_hash(report, card.report_sha256, found.card, remedy)
    return card
