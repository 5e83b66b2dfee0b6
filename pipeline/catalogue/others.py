"""What `similar` and `duplicates` found, as the page reads it."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from pipeline.clusters.card import ClustersCard
from pipeline.clusters.form import ClustersReport, Estimate
from pipeline.core import layout
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.param_types import Number, Part, Sha256

MEASURES = {
    "concordance": "more similar first",
    "e_over_s": "Exact before Substitute",
    "e_over_ci": "Exact before Complement and Irrelevant",
    "precision@10": "Exact among the first 10",
    "judged@10": "judged among the first 10",
}
"""The measures of `similar` that are shown, in words."""

SYSTEMS = {
    "random": "a random order",
    "bm25": "shared words",
    "dense": "the vectors",
}

Values = dict[str, float | int]


class _Report(Part):
    """What a report is of: the hashes are of the clean products and of their vectors."""

    encoder: str
    products: Number
    table_sha256: Sha256
    vectors_sha256: Sha256


Report = TypeVar("Report", bound=_Report)


class SimilarReport(_Report):
    """What neighbours are worth; a system is None, and `not_evaluated` says why, without labels."""

    neighbours: Number
    queries: Number
    anchors: Number
    random: Values | None = None
    bm25: Values | None = None
    dense: Values | None = None
    not_evaluated: str | None = None


def similar_section(clusters: ClustersReport, card: ClustersCard) -> dict[str, Any]:
    """Return what the template shows of similar products.

    Args:
        clusters: the report of the clusters.
        card: their card.

    Raises:
        PipelineError: the report is missing or damaged, or is of another encoder, other texts or
            other vectors than the clusters.
    """
    path = layout.similar_report(clusters.locale)
    report = _read("similar", path, SimilarReport, clusters, card)
    rows = [
        (said, [_estimate(values, name) for name in MEASURES])
        for system, said in SYSTEMS.items()
        if (values := getattr(report, system)) is not None
    ]
    return {"report": report, "measures": list(MEASURES.values()), "rows": rows}


class DuplicateExample(Part):
    """A product of a group: the first one is kept."""

    product_id: str
    text: str
    cosine: float
    text_similarity: float


class DuplicateGroup(Part):
    """Some products of a group of `size`."""

    size: Number
    products: Annotated[tuple[DuplicateExample, ...], Field(min_length=1)]


class DuplicatesReport(_Report):
    """How many products repeat another, and some of them."""

    groups: Number
    duplicates: Number
    duplicates_of_equal_text: Number
    duplicates_of_near_text: Number
    largest_group: Number
    examples: tuple[DuplicateGroup, ...]


def duplicates_section(clusters: ClustersReport, card: ClustersCard) -> DuplicatesReport:
    """Return what the template shows of duplicates; raises as `similar_section` does."""
    path = layout.duplicates_report(clusters.locale)
    return _read("duplicates", path, DuplicatesReport, clusters, card)


def _read(
    stage: str, path: Path, form: type[Report], clusters: ClustersReport, card: ClustersCard
) -> Report:
    remedy = layout.rerun_hint(stage, clusters.locale)
    report = read_model(path, form, remedy)
    expected = {
        "encoder": clusters.encoder,
        "products": clusters.products,
        "table_sha256": card.table_sha256,
        "vectors_sha256": card.vectors_sha256,
    }
    found = report.model_dump(include=set(expected))
    why = "the report is of other texts or vectors than the clusters"
    refuse_differences(path, found, expected, why, remedy)
    return report


def _estimate(values: Values, name: str) -> Estimate | None:
    """Return a measure of a system, None where no query has it."""
    if name not in values:
        return None
    return Estimate(
        mean=values[name],
        low=values[f"{name}_low"],
        high=values[f"{name}_high"],
        queries=int(values[f"{name}_queries"]),
    )
