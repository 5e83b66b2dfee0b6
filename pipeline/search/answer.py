"""What a search gives: the first products of each system, and what filters they have."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.core.systems import System


@dataclass(frozen=True)
class Product:
    """A product as it is shown; empty texts where its locale has none."""

    product_id: str
    title: str
    brand: str
    color: str


@dataclass(frozen=True)
class Hit:
    """A product that a system found.

    Attributes:
        rank: its place, from 1.
        score: as the run has it.
        product: what is shown of it.
        label: E, S, C or I where it is judged for the query, else None.
        ranks: its place in the rankings of the other systems asked, where they have it; collapsed,
            that of the first product of its group.
        variants: how many other products its group has that pass the filters; None where
            duplicates are not collapsed.
    """

    rank: int
    score: float
    product: Product
    label: str | None = None
    ranks: Mapping[System, int] = field(default_factory=dict)
    variants: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it flat, as JSON and tables have it."""
        variants = {} if self.variants is None else {"variants": self.variants}
        return {
            "rank": self.rank,
            "score": self.score,
            **asdict(self.product),
            "label": self.label,
            "ranks": dict(self.ranks),
            **variants,
        }


@dataclass(frozen=True)
class Answer:
    """What the systems found for a query.

    Attributes:
        locale: where it was searched.
        query: as the user wrote it.
        searched: as it was searched for.
        query_id: the judged query that was typed so (the first one), None where there is none.
        filters: as they were asked for.
        systems: the first k products of each system.
        found: how many products each ranked, `retrieve.depth` at most.
        facets: the most frequent values of the products that are among the first 100 of a system,
            and how many of those products have each.
        collapsed: whether of each group of duplicates only the first product is there.
        typed: the clean query as it was typed where its spelling was corrected, else None.
    """

    locale: str
    query: str
    searched: str
    query_id: int | None
    filters: Mapping[str, str]
    systems: Mapping[System, list[Hit]]
    found: Mapping[System, int]
    facets: Mapping[str, list[tuple[str, int]]]
    collapsed: bool = False
    typed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "locale": self.locale,
            "query": self.query,
            "searched": self.searched,
            "query_id": self.query_id,
            "filters": dict(self.filters),
            **({"collapsed": True} if self.collapsed else {}),
            **({} if self.typed is None else {"typed": self.typed}),
            "systems": {
                name: {"found": self.found[name], "hits": [hit.as_dict() for hit in hits]}
                for name, hits in self.systems.items()
            },
            "facets": {
                name: [{"value": value, "products": count} for value, count in values]
                for name, values in self.facets.items()
            },
        }


@dataclass(frozen=True)
class Similar:
    """The products nearest to one, by their vectors."""

    locale: str
    product: Product
    hits: list[Hit]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        hits = [
            {key: value for key, value in hit.as_dict().items() if key not in ("label", "ranks")}
            for hit in self.hits
        ]
        return {"locale": self.locale, "product": asdict(self.product), "hits": hits}
