"""The table of measures, one row per query: small, for Git, so that revisions can be compared.

Beside the measures are the labels of each system's first products. A card in the schema's metadata
says what the numbers are of, and holds a hash of all contents: parquet has checksums of its pages,
but none of its footer, where one flipped bit can make one column read as another.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from pipeline.core import tables
from pipeline.core.param_types import Count, Name, Number, Sha256, Strict
from pipeline.core.systems import SYSTEMS
from pipeline.evaluate.metrics import MEAN_DECIMALS, PerQuery
from pipeline.runs.card import RANDOM, RunCard

PER_QUERY_SCHEMA = 2
"""Version of the table and its card; older tables are refused."""

CARD = b"card"
"""The key of the schema's metadata that holds the card."""

COMPRESSION_LEVEL = 19
"""A tenth smaller than zstd's usual level; Git keeps every version."""

MEASURE = pa.float32()
TYPES = (pa.int64(), pa.int32(), MEASURE, pa.string())
"""The types that `contents_sha256` can read."""


VECTORS = ("product_vectors_sha256", "query_vectors_sha256")
"""The keys of the hashes of the vectors, in the cards of runs too."""

ContentsHash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""The field `contents_sha256` of a card; empty while the hash is computed."""


class Sample(Strict):
    """What the numbers are of: two tables compare only if this is equal."""

    locale: Name
    products: Count
    queries: Number
    depth: Count
    product_ids_sha256: Sha256
    query_ids_sha256: Sha256
    judgements_sha256: Sha256


class Card(Strict):
    """What a table is of, what was chosen for it, and hashes of its contents and its neighbours'.

    The hashes of `VECTORS` are of what the dense runs searched. `top_sha256` is the
    `contents_sha256` of the locale's table of first products, and `exact_sha256` that of its table
    of Exact products. `intervals_sha256` and `slices_sha256` are the `json_sha256` of these
    reports. Older cards lack the vectors, or the last three too.
    """

    per_query_schema: int
    sample: Sample
    encoder: Name
    index: Name
    product_vectors_sha256: Sha256 | None = None
    query_vectors_sha256: Sha256 | None = None
    top_sha256: Sha256
    exact_sha256: Sha256 | None = None
    intervals_sha256: Sha256 | None = None
    slices_sha256: Sha256 | None = None
    contents_sha256: ContentsHash

    @model_serializer(mode="wrap")
    def _without_what_it_lacks(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return an older card as it was written: its hash is part of `contents_sha256`."""
        written: dict[str, Any] = write(self)
        return {name: each for name, each in written.items() if each is not None}

    def vectors_sha256(self) -> dict[str, str]:
        """Return the hashes of the vectors by their keys; an older card has none."""
        return {name: each for name in VECTORS if (each := getattr(self, name)) is not None}


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
    return Sample(
        locale=locale,
        products=len(products),
        queries=len(queries),
        depth=card.depth,
        product_ids_sha256=card.product_ids_sha256,
        query_ids_sha256=card.query_ids_sha256,
        judgements_sha256=judgements_sha256(judgements),
    )


def judgements_sha256(judgements: pa.Table) -> str:
    """Return the hash of a table of schema `tables.JUDGEMENTS`."""
    return tables.columns_sha256([judgements[name] for name in tables.JUDGEMENTS.names])


def table(
    queries: pa.Table,
    measures: Mapping[str, PerQuery],
    labels: Mapping[str, Sequence[str]],
    kept: Sequence[str],
) -> pa.Table:
    """Return the table without its card: query_id, query, then each system's measures and labels.

    Measures are float32, rounded to 5 digits, null where undefined: `dense.ndcg@10`; the labels
    are `dense.labels`. A measure that another engine lacks has no column.

    Args:
        queries: a table of schema `tables.QUERIES`.
        measures: by system, [queries] each.
        labels: by system, one string per query.
        kept: which measures; see `Evaluate.per_query`.
    """
    columns = {"query_id": queries["query_id"], "query": queries["text"]}
    for system, values in measures.items():
        for name in kept_of(system, values, kept):
            rounded = np.round(values[name], MEAN_DECIMALS).astype(np.float32)
            columns[f"{system}.{name}"] = pa.array(rounded, MEASURE, from_pandas=True)
        columns[f"{system}.labels"] = pa.array(labels[system], pa.string())
    return pa.table(columns)


def kept_of(system: str, values: PerQuery, kept: Sequence[str]) -> list[str]:
    """Return which measures of a system are kept: all, or those that another engine has."""
    own = system in (*SYSTEMS, RANDOM)
    return [name for name in kept if own or name in values]


class Beside(NamedTuple):
    """What evaluate writes beside the table: the card has a hash of each."""

    top: pa.Table
    """The first products of the same runs, of schema `top_products.TOP`."""
    exact: pa.Table
    """The Exact products in the same runs, as `exact_ranks.table` returns them."""
    intervals: dict[str, Any]
    """As `results.intervals` returns them."""
    slices: dict[str, Any]
    """As `results.by_kind` returns them."""


def with_card(
    rows: pa.Table, of: Sample, encoder: str, index: str, beside: Beside, **vectors: str
) -> pa.Table:
    """Return a table of `table` with its card.

    Args:
        rows: what `table` returns.
        of: what the numbers are of.
        encoder: the name of the encoder.
        index: the name of the index.
        beside: what is written beside it.
        vectors: the hashes of `VECTORS`.
    """
    open_card = Card(
        per_query_schema=PER_QUERY_SCHEMA,
        sample=of,
        encoder=encoder,
        index=index,
        **vectors,
        top_sha256=contents_sha256(beside.top),
        exact_sha256=exact_sha256(beside.exact),
        intervals_sha256=json_sha256(beside.intervals),
        slices_sha256=json_sha256(beside.slices),
        contents_sha256="",
    )
    return seal(rows, open_card)


def seal(rows: pa.Table, card: Strict) -> pa.Table:
    """Return a table with its card, which gets the hash of both as its `contents_sha256`."""
    card = card.model_copy(update={"contents_sha256": contents_sha256(rows, card)})
    return rows.replace_schema_metadata({CARD: card.model_dump_json().encode()})


def write(path: Path, rows: pa.Table) -> None:
    """Write the table, small."""
    pq.write_table(rows, path, compression_level=COMPRESSION_LEVEL, **tables.WRITE_OPTIONS)


def contents_sha256(rows: pa.Table, card: Strict | None = None) -> str:
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


def exact_sha256(exact: pa.Table) -> str:
    """Return the hash of a table of Exact products; the order of its columns is free."""
    return contents_sha256(exact.select(sorted(exact.column_names)))


def json_sha256(data: object) -> str:
    """Return the hash of what a JSON file holds; its layout is free."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


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
