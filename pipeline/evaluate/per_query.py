"""The table of measures, one row per query: small, for Git, so that revisions can be compared.

Beside the measures are the labels of each system's first products. A card in the schema's metadata
says what the numbers are of, and holds a hash of all contents: parquet has checksums of its pages,
but none of its footer, where one flipped bit can make one column read as another.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from pipeline.core import tables
from pipeline.core.errors import PipelineError, one_line, shorten
from pipeline.core.params import Count, Name, Sha256, Strict
from pipeline.evaluate.metrics import MEAN_DECIMALS, PerQuery
from pipeline.evaluate.top_products import MARKS, PLACES
from pipeline.runs.card import RunCard

PER_QUERY_SCHEMA = 2
"""Version of the table and its card; older tables are refused."""

CARD = b"card"
"""The key of the schema's metadata that holds the card."""

COMPRESSION_LEVEL = 19
"""A tenth smaller than zstd's usual level; Git keeps every version."""

MEASURE = pa.float32()
_TYPES = (pa.int64(), pa.int32(), MEASURE, pa.string())
"""The types that `contents_sha256` can read."""

_METRIC = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+(@[1-9][0-9]*)?")
_LABELS = f"^[{re.escape(''.join(MARKS))}]{{0,{PLACES}}}$"


class Sample(Strict):
    """What the numbers are of: two tables compare only if this is equal."""

    locale: Name
    products: Count
    queries: Count
    depth: Count
    product_ids_sha256: Sha256
    query_ids_sha256: Sha256
    judgements_sha256: Sha256


class Card(Strict):
    """What a table is of, what was chosen for it, and hashes of its contents and its neighbour's.

    `top_sha256` is the `contents_sha256` of the locale's table of first products.
    """

    per_query_schema: int
    sample: Sample
    encoder: Name
    index: Name
    top_sha256: Sha256
    contents_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


def sample(
    locale: str, card: RunCard, queries: pa.Table, products: pa.ChunkedArray, judgements: pa.Table
) -> Sample:
    """Return what the numbers are of.

    Args:
        locale: the locale.
        card: the card of any system's runs; all have the same depth, queries and products.
        queries: a table of schema `tables.QUERIES`.
        products: all product_ids.
        judgements: a table of schema `tables.JUDGEMENTS`.
    """
    columns = [judgements[name] for name in ("query_id", "product_id", "label")]
    return Sample(
        locale=locale,
        products=len(products),
        queries=len(queries),
        depth=card.depth,
        product_ids_sha256=card.product_ids_sha256,
        query_ids_sha256=card.query_ids_sha256,
        judgements_sha256=tables.columns_sha256(columns),
    )


def table(
    queries: pa.Table,
    measures: Mapping[str, PerQuery],
    labels: Mapping[str, Sequence[str]],
    kept: Sequence[str],
) -> pa.Table:
    """Return the table without its card: query_id, query, then each system's measures and labels.

    Measures are float32, rounded to 5 digits, null where undefined: `dense.ndcg@10`; the labels
    are `dense.labels`.

    Args:
        queries: a table of schema `tables.QUERIES`.
        measures: by system, [queries] each.
        labels: by system, one string per query.
        kept: which measures; see `Evaluate.per_query`.
    """
    columns = {"query_id": queries["query_id"], "query": queries["text"]}
    for system, values in measures.items():
        for name in kept:
            rounded = np.round(values[name], MEAN_DECIMALS).astype(np.float32)
            columns[f"{system}.{name}"] = pa.array(rounded, MEASURE, from_pandas=True)
        columns[f"{system}.labels"] = pa.array(labels[system], pa.string())
    return pa.table(columns)


def with_card(rows: pa.Table, of: Sample, encoder: str, index: str, top: pa.Table) -> pa.Table:
    """Return a table of `table` with its card.

    Args:
        rows: what `table` returns.
        of: what the numbers are of.
        encoder: the name of the encoder.
        index: the name of the index.
        top: the first products of the same runs, of schema `top.TOP`.
    """
    open_card = Card(
        per_query_schema=PER_QUERY_SCHEMA,
        sample=of,
        encoder=encoder,
        index=index,
        top_sha256=contents_sha256(top),
        contents_sha256="",
    )
    card = open_card.model_copy(update={"contents_sha256": contents_sha256(rows, open_card)})
    return rows.replace_schema_metadata({CARD: card.model_dump_json().encode()})


def write(path: Path, rows: pa.Table) -> None:
    """Write the table, small."""
    pq.write_table(rows, path, compression_level=COMPRESSION_LEVEL, **tables.WRITE_OPTIONS)


def read(data: bytes, where: str, locale: str, remedy: str) -> tuple[pa.Table, Card]:
    """Read a table and its card, and check all that either says.

    Args:
        data: the file.
        where: what messages call it, such as "reports/per_query/es.parquet of HEAD".
        locale: whose table it must be.
        remedy: a sentence that says how to get a good table; messages end with it.

    Raises:
        PipelineError: the file is damaged, is of another version or locale, or holds a value that
            its column cannot have.
    """
    rows = read_parquet(data, where, remedy)
    card = _read_card(rows, where, remedy)
    found = contents_sha256(rows, card.model_copy(update={"contents_sha256": ""}))
    if found != card.contents_sha256:
        raise PipelineError(
            f"{where}: the contents have the hash {found[:12]}, but the card says "
            f"{card.contents_sha256[:12]}: the file is damaged or was edited. {remedy}"
        )
    for wrong in _impossible(rows, card, locale):
        raise PipelineError(f"{where}: {wrong}: the file was edited. {remedy}")
    return rows, card


def read_parquet(data: bytes, where: str, remedy: str) -> pa.Table:
    """Read a parquet file that is small enough for Git; its checksums are verified.

    Raises:
        PipelineError: the file is damaged, or has a type that no table here has.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data), **tables.READ_OPTIONS) as file:
            # Every row has a text: more rows than bytes come from a damaged footer.
            if file.metadata.num_rows > len(data):
                raise PipelineError(
                    f"{where}: the footer names {file.metadata.num_rows:,} rows in "
                    f"{len(data):,} bytes: the file is damaged. {remedy}"
                )
            rows = file.read()
            rows.validate(full=True)
            for field in rows.schema:
                if field.type not in _TYPES:
                    raise PipelineError(
                        f"{where}: {shorten(field.name)} is {field.type}, which no column may be. "
                        f"{remedy}"
                    )
            return rows
    except tables.READ_ERRORS as err:
        raise PipelineError(
            f"{where} is not readable as parquet ({one_line(err)}). {remedy}"
        ) from err


def contents_sha256(rows: pa.Table, card: Card | None = None) -> str:
    """Return a hash of a table's columns, their names, types, order, values and nulls.

    How the table is divided into chunks, and what wrote it, do not matter.

    Args:
        rows: columns of int64, int32, float32 and string.
        card: is hashed too, where the table has one.
    """
    digest = hashlib.sha256(card.model_dump_json().encode() if card else b"")
    for field, column in zip(rows.schema, rows.columns, strict=True):
        parts = [hashlib.sha256() for _ in range(3)]
        for chunk in column.chunks:
            for part, content in zip(parts, _contents(chunk), strict=True):
                part.update(content)
        name = repr((field.name, str(field.type)))
        digest.update(" ".join([name, *(part.hexdigest() for part in parts)]).encode() + b"\n")
    return digest.hexdigest()


def _contents(chunk: pa.Array) -> tuple[bytes | memoryview, ...]:
    """Return which values are there, how long they are, and the values themselves."""
    present = np.asarray(chunk.is_valid()).tobytes()
    if chunk.type != pa.string():
        return present, b"", np.asarray(chunk.fill_null(0)).tobytes()
    filled = chunk.fill_null("")
    _, offsets, text = filled.buffers()
    lengths = np.asarray(pc.binary_length(filled)).tobytes()
    if text is None:
        return present, lengths, b""
    ends = np.frombuffer(offsets, np.int32)[filled.offset :][: len(filled) + 1]
    return present, lengths, memoryview(text)[ends[0] : ends[-1]]


def _read_card(rows: pa.Table, where: str, remedy: str) -> Card:
    text = (rows.schema.metadata or {}).get(CARD)
    if text is None:
        raise PipelineError(
            f"{where} has no card: it is of an older form than {PER_QUERY_SCHEMA}. {remedy}"
        )
    try:
        card = Card.model_validate_json(text)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(top level)"
        raise PipelineError(
            f"{where}: the card's {key}: {first['msg']} (found {shorten(first['input'])}). {remedy}"
        ) from err
    if card.per_query_schema != PER_QUERY_SCHEMA:
        raise PipelineError(
            f"{where}: per_query_schema must be {PER_QUERY_SCHEMA} (found "
            f"{card.per_query_schema}). {remedy}"
        )
    return card


def _impossible(rows: pa.Table, card: Card, locale: str) -> Iterator[str]:
    """Say what no evaluation can give: a wrong hash is damage, but this was edited."""
    names = rows.column_names
    if card.sample.locale != locale:
        yield f"the table is of the locale {card.sample.locale}"
    if len(rows) != card.sample.queries:
        yield f"{len(rows):,} rows for the {card.sample.queries:,} queries of the sample"
    if rows.schema.types[:2] != [pa.int64(), pa.string()] or names[:2] != ["query_id", "query"]:
        yield "the first columns must be query_id and query"
        return
    if len(set(names)) < len(names):
        yield "two columns have one name"
        return
    ids = rows["query_id"].to_pylist()
    if None in ids or any(one >= other for one, other in pairwise(ids)):
        yield "the rows are not in order of query_id"
    if rows["query"].null_count:
        yield "a query has no text"
    for name in names[2:]:
        yield from _impossible_column(name, rows[name])


def _impossible_column(name: str, column: pa.ChunkedArray) -> Iterator[str]:
    if column.type == MEASURE and _METRIC.fullmatch(name):
        # NaN is outside too.
        inside = pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, 1))
        if len(outside := column.filter(pc.invert(inside))):
            yield f"{name} must be from 0 to 1 (found {outside[0].as_py():g})"
    elif column.type == pa.string() and re.fullmatch(r"[a-z0-9_]+\.labels", name):
        if column.null_count or not pc.all(pc.match_substring_regex(column, _LABELS)).as_py():
            yield f"{name} must be the labels of at most {PLACES} products"
    else:
        yield f"a column may not be called {shorten(name)}"
