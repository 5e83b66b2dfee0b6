"""Read a per-query table as one that may be damaged, of an older form, or written by anyone."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.core import tables
from pipeline.core.arrays import Floats
from pipeline.core.errors import PipelineError, explain_first, one_line, shorten
from pipeline.core.param_types import Strict
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.per_query import (
    CARD,
    MEASURE,
    PER_QUERY_SCHEMA,
    TYPES,
    Card,
    contents_sha256,
)
from pipeline.evaluate.top_products import MARKS, PLACES

C = TypeVar("C", bound=Strict)

_METRIC = re.compile(r"[a-z0-9_-]+\.[a-z0-9_]+(@[1-9][0-9]*)?")
_LABELS = f"^[{re.escape(''.join(MARKS))}]{{0,{PLACES}}}$"


def read_per_query(data: bytes, where: str, locale: str, remedy: str) -> tuple[pa.Table, Card]:
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
    rows, card = read_sealed(data, where, Card, ("per_query_schema", PER_QUERY_SCHEMA), remedy)
    for wrong in _impossible(rows, card, locale):
        raise PipelineError(f"{where}: {wrong}: the file was edited. {remedy}")
    return rows, card


def check_measured(card: Card, where: str) -> None:
    """Raise a `PipelineError` if the sample has no judgements: then the table has no rows."""
    if not card.sample.queries:
        raise PipelineError(
            f"{where}: nothing is measured: the sample has no judgements. Use a sample with "
            "judgements there."
        )


def read_sealed(
    data: bytes, where: str, form: type[C], schema: tuple[str, int], remedy: str
) -> tuple[pa.Table, C]:
    """Read a table that `per_query.seal` has given a card, and check the hash of both.

    Args:
        data: the file.
        where: what messages call it.
        form: of its card.
        schema: the key of the card's version, and which one it must be.
        remedy: a sentence that says how to get a good table; messages end with it.

    Raises:
        PipelineError: the file is damaged, was edited, or is of another version.
    """
    rows = read_parquet(data, where, remedy)
    card = _read_card(rows, where, form, schema, remedy)
    said = card.model_dump()["contents_sha256"]
    found = contents_sha256(rows, card.model_copy(update={"contents_sha256": ""}))
    if found != said:
        raise PipelineError(
            f"{where}: the contents have the hash {found[:12]}, but the card says "
            f"{said[:12]}: the file is damaged or was edited. {remedy}"
        )
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
                if field.type not in TYPES:
                    raise PipelineError(
                        f"{where}: {shorten(field.name)} is {field.type}, which no column may be. "
                        f"{remedy}"
                    )
            return rows
    except tables.READ_ERRORS as err:
        raise PipelineError(
            f"{where} is not readable as parquet ({one_line(err)}). {remedy}"
        ) from err


def values(table: pa.Table, column: str) -> Floats:
    """Return a column as floats, NaN where null.

    The digits were rounded, then cut to 32 bits. They are rounded again, so that equal differences
    count as equal in the randomisation test.
    """
    rounded: Floats = np.round(table[column].to_numpy().astype(np.float64), MEAN_DECIMALS)
    return rounded


def _read_card(
    rows: pa.Table, where: str, form: type[C], schema: tuple[str, int], remedy: str
) -> C:
    text = (rows.schema.metadata or {}).get(CARD)
    version, expected = schema
    if text is None:
        raise PipelineError(
            f"{where} has no card: it is of an older form than {expected}. {remedy}"
        )
    try:
        card = form.model_validate_json(text)
    except ValidationError as err:
        raise PipelineError(f"{where}: the card's {explain_first(err)}. {remedy}") from err
    if (found := getattr(card, version)) != expected:
        raise PipelineError(f"{where}: {version} must be {expected} (found {found}). {remedy}")
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
    elif column.type == pa.string() and re.fullmatch(r"[a-z0-9_-]+\.labels", name):
        yield from impossible_labels(name, column)
    else:
        yield f"a column may not be called {shorten(name)}"


def impossible_labels(name: str, column: pa.ChunkedArray) -> Iterator[str]:
    """Say what is wrong with a column of labels, which reach terminals and pages as they are."""
    if column.null_count or not pc.all(pc.match_substring_regex(column, _LABELS)).as_py():
        yield f"{name} must be the labels of at most {PLACES} products"
