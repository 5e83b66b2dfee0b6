"""The queries of the sample, found by their text, and their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.spelling import typed_texts
from pipeline.runs.ranking import query_starts


@dataclass(frozen=True)
class Judged:
    """The queries of the sample and their labels.

    Attributes:
        rows: the row of each text as it was typed; of the first query where several have it.
        texts: of each row, as it is searched for: its spelling may be corrected.
        query_ids: of each row, int64 [queries].
        judgements: the clean table, sorted by query.
        starts: where the judgements of each row start, int64 [queries + 1].
    """

    rows: Mapping[str, int]
    texts: Sequence[str]
    query_ids: NDArray[np.int64]
    judgements: pa.Table
    starts: NDArray[np.int64]

    def labels(self, row: int) -> dict[str, str]:
        """Return the labels of a query's products."""
        part = self.judgements.slice(self.starts[row], self.starts[row + 1] - self.starts[row])
        return dict(zip(part["product_id"].to_pylist(), part["label"].to_pylist(), strict=True))


def read_judged(locale: str) -> Judged:
    """Read the queries and judgements of a locale.

    Raises:
        PipelineError: a table is missing or damaged.
    """
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    queries = tables.read_table(clean.queries, tables.QUERIES, remedy)
    judgements = tables.read_table(clean.judgements, tables.JUDGEMENTS, remedy)
    rows = tables.rows_of(queries["query_id"], judgements["query_id"], clean.judgements, remedy)
    if (np.diff(rows) < 0).any():
        raise PipelineError(f"{clean.judgements} is not sorted by query_id. {remedy}")
    texts = queries["text"].to_pylist()
    typed = typed_texts(queries, locale)
    first = {text: row for row, text in reversed(list(enumerate(typed)))}
    starts = query_starts(rows, 0, len(texts))
    return Judged(first, texts, queries["query_id"].to_numpy(), judgements, starts)
