"""The tables between stages: their schemas, written sorted and whole, checked when read."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core import files
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.files import atomic_file

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)

SAMPLE_QUERIES = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("query", pa.string()),
        pa.field("product_locale", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""One row per drawn query, ESCI's columns untouched; sorted by query_id."""

SAMPLE_SOURCES = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("source", pa.string()),
    ]
)
"""Why ESCI holds a drawn query, its sources file's column; one row per drawn query, sorted by
query_id, null where that file does not have it or is not there."""

SAMPLE_PRODUCTS = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("product_title", pa.string()),
        pa.field("product_description", pa.string()),
        pa.field("product_bullet_point", pa.string()),
        pa.field("product_brand", pa.string()),
        pa.field("product_color", pa.string()),
        pa.field("product_locale", pa.string(), nullable=False),
    ]
)
"""One row per product of the catalogue, ESCI's columns untouched; sorted by product_id."""

SAMPLE_JUDGEMENTS = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("product_locale", pa.string(), nullable=False),
        pa.field("esci_label", pa.string(), nullable=False),
        pa.field("small_version", pa.int64(), nullable=False),
        pa.field("large_version", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Every judgement of the drawn queries, ESCI's columns untouched; sorted by its three ids: query,
product, example."""

QUERIES = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
"""Cleaned queries, none empty; sorted by query_id, unique."""

CORRECTIONS = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("typed", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
"""Queries whose spelling was corrected: clean as they were typed, and as `QUERIES` has them; sorted
by query_id, unique."""

VOCABULARY = pa.schema(
    [
        pa.field("word", pa.string(), nullable=False),
        pa.field("products", pa.int64(), nullable=False),
    ]
)
"""The words of the clean products in lower case, of letters alone, and how many products have each:
0 if only with marks in it, such as `levis` for "Levi's"; sorted by word, unique."""

PRODUCTS = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field(
            "field_ends",
            pa.list_(pa.field("element", pa.int32(), nullable=False)),
            nullable=False,
        ),
    ]
)
"""Cleaned products, one text each, none empty; sorted by product_id, unique. `field_ends`: where
each of clean.fields ends in the text, as `join_fields` counts."""

JUDGEMENTS = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
    ]
)
"""Labels E, S, C, I of pairs; the query has a text, the product may not; sorted by both, unique."""

PAIRS = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
"""Judged products of the queries to learn from, with clean texts; sorted by locale, query_id and
product_id, unique."""

RUN = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("product_row", pa.int32(), nullable=False),
    ]
)
"""A ranking: score rounded to 1e-6, rank from 1; sorted by query_id and rank. `product_row` is the
product's row in the clean products: stages read it and leave the ids, which are for people and
other tools, unread; a lookup of 130 million of them took longer than all else in `evaluate`."""

WRITE_OPTIONS = {"compression": "zstd", "write_page_checksum": True}
"""How parquet files are written: with a checksum of every page, since a flipped bit of a compressed
page may well decompress, to other data."""

READ_OPTIONS = {"pre_buffer": False, "buffer_size": 1 << 20, "page_checksum_verification": True}
"""How parquet files are opened: by default pyarrow keeps all that it has read in memory, and looks
at no checksum."""

READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What Arrow's reader raises of a damaged parquet file: it runs into a footer in many ways."""

_HASHED_ROWS = 1 << 18

LABELS = ("E", "S", "C", "I")
"""Exact, Substitute, Complement, Irrelevant."""


def write_table(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Write a table as parquet (zstd), atomically; it must fit `schema`."""
    with atomic_file(path) as partial:
        pq.write_table(table.cast(schema), partial, **WRITE_OPTIONS)


def read_table(path: Path, schema: pa.Schema, remedy: str) -> pa.Table:
    """Read a parquet file that an earlier stage wrote.

    Args:
        path: the file.
        schema: the columns it must have, of these types, with nulls or without.
        remedy: a sentence that says what brings the file back, such as "Run `dvc repro clean@es`."

    Raises:
        PipelineError: the file is missing, is not parquet, or does not fit the schema.
    """
    with _exactly(path, schema, remedy) as file:
        (table,) = check_row_count([file.read()], file, path, remedy)
        return table


def read_column(path: Path, schema: pa.Schema, name: str, remedy: str) -> pa.ChunkedArray:
    """Return one column of what `read_table` returns, without reading the others."""
    with _exactly(path, schema, remedy) as file:
        (found,) = check_row_count([file.read([name])], file, path, remedy)
        return found[name]


def iter_table(path: Path, schema: pa.Schema, rows: int, remedy: str) -> Iterator[pa.Table]:
    """Yield what `read_table` returns in pieces of at most `rows` rows; raises as it does."""
    with _exactly(path, schema, remedy) as file:
        for batch in check_row_count(file.iter_batches(rows), file, path, remedy):
            yield pa.Table.from_batches([batch])


def iter_row_groups(
    path: Path, schema: pa.Schema, remedy: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield what `read_table` returns in the pieces it was written in; raises as it does.

    Where `columns` are given, the others are not read.
    """
    with _exactly(path, schema, remedy) as file:
        groups = (file.read_row_group(each, columns) for each in range(file.num_row_groups))
        yield from check_row_count(groups, file, path, remedy)


@contextmanager
def _exactly(path: Path, schema: pa.Schema, remedy: str) -> Iterator[pq.ParquetFile]:
    """Open a parquet file that has exactly the columns of `schema`."""
    with open_parquet(path, remedy) as file:
        if not file.schema_arrow.equals(schema):
            raise _unlike(path, file.schema_arrow, schema, remedy)
        yield file


@contextmanager
def open_parquet(path: Path, remedy: str) -> Iterator[pq.ParquetFile]:
    """Open a parquet file of this project; damage inside shows when its rows are read.

    Args:
        path: the file.
        remedy: what brings it back; part of messages.

    Raises:
        PipelineError: the file is missing or damaged.
    """
    files.check_regular(path, remedy)
    try:
        with pq.ParquetFile(path, **READ_OPTIONS) as file:
            check_footer(file, path, remedy)
            yield file
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing. {remedy}") from err
    except READ_ERRORS as err:
        raise PipelineError(
            f"{path} is not readable as parquet ({one_line(err)}). {remedy}"
        ) from err


def check_row_count(
    pieces: Iterable[Rows], file: pq.ParquetFile, path: Path, remedy: str
) -> Iterator[Rows]:
    """Yield all pieces of a file, and then compare their rows with those of its footer.

    Where a damaged footer leads to nothing, Arrow ends early without an error.

    Raises:
        PipelineError: rows are missing.
    """
    read = 0
    for piece in pieces:
        read += piece.num_rows
        yield piece
    if read != file.metadata.num_rows:
        raise PipelineError(
            f"{path} must have {file.metadata.num_rows} rows (found {read}): the file is damaged. "
            f"{remedy}"
        )


def check_footer(file: pq.ParquetFile, path: Path, remedy: str) -> None:
    """Compare the counts of rows in the footer: no checksum covers it.

    Raises:
        PipelineError: they differ, and rows would be missing silently.
    """
    footer = file.metadata
    total = sum(footer.row_group(number).num_rows for number in range(footer.num_row_groups))
    if total != footer.num_rows:
        raise PipelineError(
            f"{path} must have the {footer.num_rows} rows of its footer (found {total}): the file "
            f"is damaged. {remedy}"
        )


def ids_sha256(ids: pa.ChunkedArray) -> str:
    """Return the hash of a table's ids in row order: what shards and indexes are bound to."""
    return columns_sha256([ids])


def columns_sha256(columns: Sequence[pa.ChunkedArray]) -> str:
    """Return `files.sha256_lines` of the rows of some columns, a space between their values."""
    digest = hashlib.sha256()
    hash_rows(digest, columns)
    return digest.hexdigest()


def hash_rows(digest: "hashlib._Hash", columns: Sequence[pa.ChunkedArray]) -> None:
    """Update a hash with the rows of some columns: a line each, a space between their values."""
    table = pa.table(dict(zip(map(str, range(len(columns))), columns, strict=True)))
    for batch in table.to_batches(max_chunksize=_HASHED_ROWS):
        values = [column.cast(pa.string()) for column in batch.columns]
        # The join with an empty text puts a newline after each line.
        rows = pc.binary_join_element_wise(*values, " ")
        lines = pc.binary_join_element_wise(rows, "", "\n")
        _, ends, text = lines.buffers()
        digest.update(memoryview(text)[: np.frombuffer(ends, np.int32)[len(lines)]])


def row_of(ids: pa.ChunkedArray, wanted: pa.ChunkedArray) -> pa.Array:
    """Return the row of each wanted value in `ids`, null where it is not among them."""
    return pc.index_in(wanted.combine_chunks(), value_set=ids.combine_chunks())


def find_sorted(ascending: pa.ChunkedArray, text: str) -> int | None:
    """Return the row of a text in an ascending column, None where it is not there.

    Only some rows are read, so a mapped column stays on the disk.
    """
    row = bisect_left(range(len(ascending)), text, key=lambda at: ascending[at].as_py())
    return row if row < len(ascending) and ascending[row].as_py() == text else None


def rows_of(
    ids: pa.ChunkedArray, wanted: pa.ChunkedArray, path: Path, remedy: str
) -> NDArray[np.int64]:
    """Return the row of each wanted value in `ids`.

    Raises:
        PipelineError: `path`, where the values come from, holds one that is not among `ids`.
    """
    rows = row_of(ids, wanted)
    if rows.null_count:
        unknown = wanted.filter(rows.is_null())[0]
        raise PipelineError(f"{path}: {unknown} is not in the clean tables. {remedy}")
    return np.asarray(rows.to_numpy(), dtype=np.int64)


def _unlike(path: Path, found: pa.Schema, schema: pa.Schema, remedy: str) -> PipelineError:
    return PipelineError(
        f"{path} has the columns {_describe(found)}, but {_describe(schema)} are expected. {remedy}"
    )


def _describe(schema: pa.Schema) -> str:
    return ", ".join(
        f"{field.name} {field.type}{'' if field.nullable else ' not null'}" for field in schema
    )
