"""The two sides of a locale, products and queries: their texts as the clean tables have them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import layout, tables
from pipeline.core.clean_counts import read_counts
from pipeline.core.errors import PipelineError, one_line, shorten
from pipeline.core.tables import PRODUCTS, QUERIES
from pipeline.encoders.encoder import Role
from pipeline.vectors.manifest import Kind

WINDOW_ROWS = 1_024
"""How many rows are read, tokenised and written together."""


@dataclass(frozen=True)
class Window:
    """Some rows of a table.

    Attributes:
        start: the number of the first row.
        ids: the ids, one per row.
        texts: the texts, one per row.
        field_ends: where each field of a text ends, in characters; int32, shape [rows, fields].
    """

    start: int
    ids: pa.ChunkedArray
    texts: list[str]
    field_ends: NDArray[np.int32]


@dataclass(frozen=True)
class TableSide:
    """The products or the queries of a locale.

    Attributes:
        kind: products or queries.
        role: which prefix its texts get.
        path: the clean table.
        schema: the columns of that table, the ids first.
        remedy: the sentence that says how to make the table again.
        fields: what a text is made of, in order.
        window_rows: how many rows a window has at most.
    """

    kind: Kind
    role: Role
    path: Path
    schema: pa.Schema
    remedy: str
    fields: tuple[str, ...]
    window_rows: int = WINDOW_ROWS

    def windows(self) -> Iterator[Window]:
        """Yield the rows in the order of the table.

        Raises:
            PipelineError: the table is missing or damaged, or its columns contradict each other.
        """
        start = 0
        for rows in tables.iter_table(self.path, self.schema, self.window_rows, self.remedy):
            try:
                texts = rows["text"].to_pylist()
            except UnicodeDecodeError as err:
                raise PipelineError(
                    f"{self.path}: a text is not UTF-8 ({one_line(err)}). {self.remedy}"
                ) from err
            ends = self._field_ends(rows, texts, start)
            yield Window(start, rows[self.schema.names[0]], texts, ends)
            start += len(texts)

    def _field_ends(self, rows: pa.Table, texts: list[str], start: int) -> NDArray[np.int32]:
        lengths = np.array([len(text) for text in texts], dtype=np.int32)
        if self.kind == "queries":
            return lengths[:, None]
        column, fields = rows["field_ends"].combine_chunks(), len(self.fields)
        wrong = column.value_lengths().to_numpy() != fields
        if not wrong.any():
            flat = column.flatten().to_numpy()
            ends: NDArray[np.int32] = flat.reshape(len(texts), fields)
            wrong = (np.diff(ends, axis=1, prepend=0) < 0).any(axis=1) | (ends[:, -1] != lengths)
        if wrong.any():
            row = int(wrong.argmax())
            raise PipelineError(
                f"{self.path}: field_ends of row {start + row} must be {fields} numbers that "
                f"ascend to {lengths[row]}, the length of the text (found "
                f"{shorten(column[row].as_py())}). {self.remedy}"
            )
        return ends


def read_sides(locale: str) -> tuple[TableSide, TableSide]:
    """Return a locale's products and queries, with the fields that `clean` made the texts of.

    Raises:
        PipelineError: the counts of `clean` are missing, damaged or of another version.
    """
    return sides(locale, read_counts(locale).products.fields)


def sides(locale: str, fields: tuple[str, ...]) -> tuple[TableSide, TableSide]:
    """Return a locale's products, whose texts are made of these fields, and its queries."""
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    return (
        TableSide("products", "passage", clean.products, PRODUCTS, remedy, fields),
        TableSide("queries", "query", clean.queries, QUERIES, remedy, ("query",)),
    )
