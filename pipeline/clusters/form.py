"""The form of reports/clusters/<locale>.json, as `clusters` writes and others read it."""

from typing import Annotated

import pyarrow as pa
from pydantic import Field

from pipeline.core import layout
from pipeline.core.cards import read_model
from pipeline.core.param_types import Count, Number, Strict

CLUSTERS_SCHEMA = 2

CLUSTERS = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("leaf", pa.int32(), nullable=False),
    ]
)
"""The cluster and the leaf of every clean product, in the order of the clean table."""

MAP = pa.schema(
    [
        pa.field("x", pa.float32(), nullable=False),
        pa.field("y", pa.float32(), nullable=False),
        pa.field("landmark", pa.bool_(), nullable=False),
    ]
)
"""The place of every clean product, from 0 to 1; `landmark`: t-SNE itself placed it."""

LANDMARKS = 3_000
"""How many products t-SNE itself places; the others are placed among these."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Figure = Annotated[float, Field(allow_inf_nan=False)]


class Example(Strict):
    """A product that is near the middle of its group."""

    product_id: str
    title: str


class Brand(Strict):
    """A brand of a cluster, and how many of its products have it."""

    brand: str
    products: Count


class Leaf(Strict):
    """A part of a cluster; `name` and `covered` are those of a `Cluster`."""

    leaf: Number
    name: tuple[str, ...]
    covered: Share
    products: Count
    examples: tuple[Example, ...]


class Cluster(Strict):
    """A group of products.

    Attributes:
        cluster: its number; the largest is 0.
        name: its words; empty where too few of its products have them.
        covered: the share of its products that have one of the words that set it apart.
        products: how many it has.
        nearness: the mean cosine of its products with the centroid of their leaf.
        with_brand: how many of its products have a brand; None where texts have no such field.
        brands: the most frequent of them.
        examples: those nearest to the centroids of its leaves, by turns, with different titles.
        leaves: its parts, the largest first.
    """

    cluster: Number
    name: tuple[str, ...]
    covered: Share
    products: Count
    nearness: Figure
    with_brand: Number | None
    brands: tuple[Brand, ...]
    examples: tuple[Example, ...]
    leaves: Annotated[tuple[Leaf, ...], Field(min_length=1)]


class Estimate(Strict):
    """A mean over queries with its interval."""

    mean: Figure
    low: Figure
    high: Figure
    queries: Count


class Pairs(Strict):
    """How often two judged products of a query are in one group.

    Attributes:
        chance: the share of all pairs of products that are in one group.
        exact: the share of pairs of two Exact products; None where no query has two.
        lift: that share over chance.
        exact_irrelevant: of pairs of an Exact and an Irrelevant product.
    """

    chance: Share
    exact: Estimate | None
    lift: Estimate | None
    exact_irrelevant: Estimate | None


class Measures(Strict):
    """What the clusters are worth; `missing` says why a measure is not there.

    `stability` is the agreement with the clusters of the next seed, by AMI.
    """

    clusters: Pairs | None
    leaves: Pairs | None
    stability: Figure | None
    missing: dict[str, str]


class ClustersReport(Strict):
    """The clusters of a locale."""

    clusters_schema: int
    locale: str
    encoder: str
    ids_sha256: str
    products: Count
    clusters: Count
    leaves: Count
    seed: Number
    without_direction: Number
    measures: Measures
    groups: Annotated[tuple[Cluster, ...], Field(min_length=1)]


def read_report(locale: str) -> ClustersReport:
    """Read a locale's clusters report.

    Raises:
        PipelineError: it is missing, or not of this version or form.
    """
    return read_model(
        layout.clusters_report(locale),
        ClustersReport,
        layout.rerun_hint("clusters", locale),
        ("clusters_schema", CLUSTERS_SCHEMA),
    )
