"""The first products that each system gives a query, and how they are labelled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Ints
from pipeline.core.tables import LABELS
from pipeline.evaluate.judged_run import JudgedRun
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.runs.ranking import NO_PRODUCT, Ranked

PLACES = 10
UNJUDGED = len(LABELS)
"""The label code of a product that the query has no judgement for; it follows `LABELS`."""
MARKS = np.array([*LABELS, "?"])
"""How a label is written in the strings of labels."""

TOP = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("system", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("title", pa.string(), nullable=False),
    ]
)
"""Each query's first products by system, label null where unjudged; sorted by query_id, system (in
the order of `SYSTEMS`) and rank."""


@dataclass(frozen=True)
class Top:
    """Product codes, `NO_PRODUCT` where there is none, and label codes, both [queries, PLACES]."""

    codes: Ints
    labels: NDArray[np.int8]

    @classmethod
    def of_run(cls, ranked: Ranked, run: JudgedRun) -> Self:
        """Return the first places of a run; `run` is `ranked` with its judgements."""
        shape = (run.retrieved.size, PLACES)
        found = cls(np.full(shape, NO_PRODUCT), np.full(shape, UNJUDGED, dtype=np.int8))
        query, place = np.nonzero(np.arange(PLACES) < run.retrieved[:, np.newaxis])
        starts = np.cumsum(run.retrieved) - run.retrieved
        found.codes[query, place] = ranked[1][starts[query] + place]
        shown = run.rank <= PLACES
        found.labels[run.query[shown], run.rank[shown] - 1] = run.label[shown]
        return found

    @classmethod
    def concatenate(cls, pieces: Sequence[Self]) -> Self:
        """Return consecutive queries' places as one."""
        return cls(
            np.concatenate([piece.codes for piece in pieces]),
            np.concatenate([piece.labels for piece in pieces]),
        )

    def strings(self) -> list[str]:
        """Return each query's labels in rank order as one string, such as EES?I."""
        marks = np.where(self.codes == NO_PRODUCT, "", MARKS[self.labels])
        return ["".join(row) for row in marks.tolist()]

    def mix(self) -> dict[str, float]:
        """Return the share of each label in all places that hold a product."""
        taken = self.labels[self.codes != NO_PRODUCT]
        counts = np.bincount(taken, minlength=len(MARKS))
        return shares(counts / max(taken.size, 1))


def shares(of_labels: Floats) -> dict[str, float]:
    """Name the share of each label and, last, of the unjudged; [labels + 1]."""
    names = (*LABELS, "unjudged")
    return {
        name: round(float(share), MEAN_DECIMALS)
        for name, share in zip(names, of_labels, strict=True)
    }


def shown_products(tops: Mapping[str, Top]) -> Ints:
    """Return the codes of all products in any first place, ascending."""
    codes = np.unique([top.codes for top in tops.values()])
    return np.asarray(codes[codes != NO_PRODUCT], dtype=np.int64)


def table(
    tops: Mapping[str, Top],
    query_ids: pa.ChunkedArray,
    product_ids: pa.ChunkedArray,
    titles: Mapping[int, str],
) -> pa.Table:
    """Return a table of schema `TOP`.

    Args:
        tops: the first places of each system, of the same queries.
        query_ids: of those queries.
        product_ids: of all products.
        titles: by product code, ascending, at least those of `shown_products`.
    """
    codes = np.stack([top.codes for top in tops.values()], axis=1)
    labels = np.stack([top.labels for top in tops.values()], axis=1)
    query, system, place = np.nonzero(codes != NO_PRODUCT)
    code, label = codes[query, system, place], labels[query, system, place]
    names = pa.array(list(tops))
    shown = np.fromiter(titles, np.int64, len(titles))
    return pa.table(
        [
            query_ids.take(pa.array(query)),
            names.take(pa.array(system)),
            pa.array((place + 1).astype(np.int32)),
            product_ids.take(pa.array(code)),
            pa.array(LABELS).take(pa.array(label, mask=label == UNJUDGED)),
            pa.array(titles.values(), pa.string()).take(pa.array(np.searchsorted(shown, code))),
        ],
        schema=TOP,
    )
