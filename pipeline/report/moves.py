"""What moved since another revision, as the page shows it; `pipeline.since` compares the two."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Changed:
    """A query on which a metric moved much, with its value on either side."""

    locale: str
    metric: str
    query_id: int
    query: str
    a: float
    b: float


@dataclass(frozen=True)
class Moves:
    """A comparison: A is the revision `since`, B the page.

    `rows` is a table with `header`, of which `numbers` are right-aligned; `settings` are key, value
    in A, value in B.
    """

    since: str
    header: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    changed: tuple[Changed, ...]
    settings: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]

    def queries(self, locale: str) -> list[int]:
        """Return the ids of a locale's queries that the page links to."""
        return [each.query_id for each in self.changed if each.locale == locale]
