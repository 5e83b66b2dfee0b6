"""Runs and judgements joined: what the measures need of a run, as a few flat arrays.

Queries and products are rows of the clean tables; a product's row is its code (see `ranking`).
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS
from pipeline.runs.inputs import Ids
from pipeline.runs.ranking import look_up, places, query_starts

E_CODE = LABELS.index("E")
"""The position of Exact, as judgements have labels."""


@dataclass(frozen=True)
class Judgements:
    """The judged products of consecutive queries, sorted by query and product, each pair once.

    `starts` [queries + 1] bounds each query's part of `codes` (product codes) and `labels`
    (positions in `LABELS`); `first_query` is the row of the first query.
    """

    starts: Ints
    codes: Ints
    labels: NDArray[np.int8]
    first_query: int = 0

    @classmethod
    def from_pairs(
        cls, query_rows: Ints, codes: Ints, labels: NDArray[np.integer[Any]], queries: int
    ) -> Self:
        """Group (query row, product code, position in `LABELS`) triples, in any order, by query.

        Raises:
            PipelineError: a pair is judged twice.
        """
        order = np.lexsort((codes, query_rows))
        query_rows, codes = query_rows[order], codes[order]
        twice = np.flatnonzero((np.diff(query_rows) == 0) & (np.diff(codes) == 0))
        if twice.size:
            raise PipelineError(
                f"the judgements hold one product twice for one query: row {codes[twice[0]]} of "
                f"the clean products, row {query_rows[twice[0]]} of the clean queries (from 0). "
                "Run the stages from clean again."
            )
        starts = query_starts(query_rows, 0, queries)
        return cls(starts, codes, labels[order].astype(np.int8))

    @classmethod
    def of_pool(cls, ids: Ids, pairs: tuple[Ints, Ints, Ints]) -> Self:
        """Group the judgements of products with a text; no system can rank the others.

        `ids` and `pairs` are as `read_judgements` gives them.
        """
        rows, codes, labels = pairs
        text = ids.has_text(codes)
        return cls.from_pairs(rows[text], codes[text], labels[text], len(ids.queries))

    def __len__(self) -> int:
        """Return the number of queries, those without judgements too."""
        return self.starts.size - 1

    def rows(self, start: int, stop: int) -> "Judgements":
        """Return the part for the queries in positions `start` to `stop`, to evaluate in pieces."""
        bounds = self.starts[start : stop + 1]
        part = slice(int(bounds[0]), int(bounds[-1]))
        return Judgements(
            bounds - bounds[0], self.codes[part], self.labels[part], self.first_query + start
        )

    def positions(self) -> Ints:
        """Return the position of each judgement's query, counted from `first_query`."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def label_counts(self) -> Ints:
        """Return how often each query has each label, [queries, labels]."""
        cells = self.positions() * len(LABELS) + self.labels
        counts = np.bincount(cells, minlength=len(self) * len(LABELS))
        return counts.reshape(len(self), len(LABELS))


@dataclass(frozen=True)
class JudgedRun:
    """What measures need of a run: the judged products in it, sorted by query and rank.

    `query` (counted from the first), `code` (of the product), `rank` (from 1) and `label` (position
    in `LABELS`) have one entry per judged product; `retrieved` [queries] is how many products each
    query ranks, and `label_counts` [queries, labels] how many are judged, retrieved or not.
    """

    query: Ints
    code: Ints
    rank: Ints
    label: NDArray[np.int8]
    retrieved: Ints
    label_counts: Ints

    def judged_only(self) -> "JudgedRun":
        """Return the run without its unjudged products: the others move up."""
        retrieved = np.bincount(self.query, minlength=self.retrieved.size)
        return replace(self, rank=places(self.query) + 1, retrieved=retrieved)


def judge(query_rows: Ints, codes: Ints, judgements: Judgements) -> JudgedRun:
    """Find the judged products of a run.

    Args:
        query_rows: [n], the row of each ranked product's query, ascending.
        codes: [n], the product codes, each query's in rank order, each once.
        judgements: those of all queries that take part; a query that the run leaves out has
            retrieved nothing.

    Raises:
        ValueError: `query_rows` is not ascending, or leaves the range of `judgements`.
    """
    query = query_rows - judgements.first_query
    if query.size and (query[0] < 0 or query[-1] >= len(judgements) or (np.diff(query) < 0).any()):
        raise ValueError("the query rows of a run must ascend, within those of the judgements")
    starts = query_starts(query, 0, len(judgements))
    place = look_up(starts, codes, judgements.starts, judgements.codes)
    at = np.flatnonzero(place >= 0)
    return JudgedRun(
        query[at],
        codes[at],
        at - starts[query[at]] + 1,
        judgements.labels[place[at]],
        np.diff(starts),
        judgements.label_counts(),
    )
