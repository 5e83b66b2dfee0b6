"""A metric's values on both sides, paired by query."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.core.arrays import Floats, Ints
from pipeline.core.errors import PipelineError
from pipeline.evaluate.per_query_reader import values


@dataclass(frozen=True)
class Pair:
    """A metric's values on both sides, `old` and `new`, for the `rows` that it is defined for.

    `systems` has the system on either side; they differ where one stands in for the metric's own.
    """

    locale: str
    metric: str
    systems: tuple[str, str]
    a: pa.Table
    b: pa.Table
    rows: Ints
    old: Floats
    new: Floats

    @property
    def differences(self) -> Floats:
        """By how much each query rose, [rows]."""
        return self.new - self.old

    def beside(self, metric: str) -> tuple[Floats, Floats]:
        """Return another metric's values on both sides, for the same rows."""
        return values(self.a, metric)[self.rows], values(self.b, metric)[self.rows]


def pair(
    locale: str, metric: str, a: pa.Table, b: pa.Table, systems: tuple[str, str] | None = None
) -> Pair:
    """Pair a metric's values.

    Args:
        locale: the locale of both tables, for messages.
        metric: a column of both.
        a: the old per-query table.
        b: the new one, of the same queries.
        systems: which system's values these are on either side; None: the metric's own.

    Raises:
        PipelineError: the metric is defined for other queries in one than in the other.
    """
    old, new = values(a, metric), values(b, metric)
    defined = ~np.isnan(old)
    if (defined != ~np.isnan(new)).any():
        raise PipelineError(
            f"{locale}: {metric} is defined for {defined.sum():,} queries on one side and for "
            f"{(~np.isnan(new)).sum():,}, or for others, on the other, though the judgements are "
            "the same: evaluate changed in between. Run `dvc repro` on both sides."
        )
    own = metric.partition(".")[0]
    rows = np.flatnonzero(defined)
    return Pair(locale, metric, systems or (own, own), a, b, rows, old[defined], new[defined])
