"""The pairs that a model learns from, as arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.core.tables import LABELS, PAIRS, read_table


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a product, sorted by locale, query_id and product_id.

    Attributes:
        queries: the distinct query texts.
        texts: the distinct product texts.
        query: the query's text, a place in `queries`; int64, shape [pairs].
        text: the product's text, a place in `texts`; int64, shape [pairs].
        label: a place in `LABELS`; int64, shape [pairs].
        group: which (locale, query_id) it is, counted from 0, ascending; int64, shape [pairs].
        product: which (locale, product_id) it is, in their order; int64, shape [pairs].
        locale: which locale it is, counted from 0, ascending; int64, shape [pairs].
        judged: whether somebody gave it its label; bool, shape [pairs].
    """

    queries: list[str]
    texts: list[str]
    query: Ints
    text: Ints
    label: Ints
    group: Ints
    product: Ints
    locale: Ints
    judged: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.label.size

    def has(self, labels: tuple[str, ...]) -> NDArray[np.bool_]:
        """Say which judged pairs have one of these labels; bool, shape [pairs]."""
        return self.judged & np.isin(self.label, [LABELS.index(label) for label in labels])

    def queries_count(self) -> int:
        """Return the number of queries by locale and query_id."""
        return int(self.group[-1]) + 1 if len(self) else 0


def read_pairs(path: Path, remedy: str) -> Pairs:
    """Read a file of the stage `pairs`.

    Args:
        path: its train or dev table.
        remedy: a sentence that says what brings it back.

    Raises:
        PipelineError: it is missing, or is no such table.
    """
    return pairs_of(read_table(path, PAIRS, remedy))


def pairs_of(table: pa.Table) -> Pairs:
    """Return the pairs of a table with the schema `PAIRS`, sorted as that has it."""
    queries, query = _distinct(table["query"])
    texts, text = _distinct(table["text"])
    _, locale = _distinct(table["locale"])
    ids = table["query_id"].to_numpy()
    begins = (np.diff(locale) != 0) | (np.diff(ids) != 0)
    keys = list(zip(locale.tolist(), table["product_id"].to_pylist(), strict=True))
    codes = {key: code for code, key in enumerate(sorted(set(keys)))}
    return Pairs(
        queries=queries,
        texts=texts,
        query=query,
        text=text,
        label=_ints(pc.index_in(table["label"], pa.array(LABELS)).to_numpy()),
        group=_ints(np.cumsum(np.append(False, begins)[: len(ids)])),
        product=np.array([codes[key] for key in keys], dtype=np.int64),
        locale=locale,
        judged=np.ones(len(ids), np.bool_),
    )


def _distinct(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Return a column's distinct values in the order of their first row, and each row's place."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), _ints(coded.indices.to_numpy())


def _ints(values: NDArray[Any]) -> Ints:
    return values.astype(np.int64)
