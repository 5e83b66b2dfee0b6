"""A system's runs of one locale: what they are over, how they are written, and how read again.

Every system writes the same three files: `catalogue.parquet` ranks products of the whole catalogue,
`pool.parquet` each query's judged products, and `run.json`, the card, says what the runs are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import SYSTEMS as SYSTEMS
from pipeline.core.params import Strict
from pipeline.core.params import System as System
from pipeline.runs import ranking

SCHEMA = 3
"""Version of run.json; older artefacts are refused, and `dvc repro` rewrites them."""

RANDOM = "random"
"""Stands beside the systems, without a run: the exact expectation of each measure."""

STAGES: Mapping[System, str] = {"dense": "retrieve", "bm25": "bm25", "hybrid": "hybrid"}
"""The stage that writes each system's runs."""

INDEX_OVERLAP = "index_overlap@100"
"""What the metrics call `RunCard.index_overlap`."""

READ = ("query_id", "score", "rank", "product_row")
"""The columns of a run that the stages behind it read; the card says which products the rows are
of, and binds them by a hash of the file."""

Ints = NDArray[np.int64]
Ranked = tuple[Ints, Ints, NDArray[np.float64]]
"""Rows of the clean queries (ascending), of the clean products, and scores, in ranked order."""


class RunCard(Strict):
    """What runs are: their system and what it was made `of`, their depth, ids and contents.

    `index_overlap`, where the system searches an index, is the share of the exact top 100 that the
    index finds, rounded to 5 digits (see `neighbours.index_overlap`).
    """

    run_schema: int
    system: System
    of: dict[str, str]
    depth: int
    index_overlap: Annotated[float, Field(ge=0, le=1)] | None
    query_ids_sha256: str
    product_ids_sha256: str
    catalogue_sha256: str
    pool_sha256: str


@dataclass(frozen=True)
class Ids:
    """All query_ids and product_ids of a locale's clean tables, in their order."""

    queries: pa.ChunkedArray
    products: pa.ChunkedArray


@dataclass(frozen=True)
class Inputs(Ids):
    """What a locale's runs are over.

    `pair_queries` (ascending) and `pair_products` are the rows of the judged pairs, int64 [pairs].
    A judged product without a text is in no pair: no system can rank it.
    """

    pair_queries: Ints
    pair_products: Ints


def remedy(system: System, locale: str) -> str:
    """Return what brings a system's runs back, as messages say it."""
    return f"run `dvc repro {STAGES[system]}@{locale}`"


def read_judgements(locale: str) -> tuple[Ids, pa.Table, tuple[Ints, Ints, Ints]]:
    """Read the ids and the judgements of a locale's clean tables.

    Returns:
        The ids, the table of judgements, and what `Judgements.from_pairs` takes: query rows
        (ascending), product codes (those of products without a text are beyond all rows),
        positions in `LABELS`; int64, [judgements].

    Raises:
        PipelineError: a table is missing or damaged, or the judgements name a query or label not
            known, or are not sorted by query.
    """
    folder, again = layout.clean(locale), f"run `dvc repro clean@{locale}`"
    queries = tables.read_column(folder / "queries.parquet", tables.QUERIES, "query_id", again)
    products = tables.read_column(folder / "products.parquet", tables.PRODUCTS, "product_id", again)
    path = folder / "judgements.parquet"
    judgements = tables.read_table(path, tables.JUDGEMENTS, again)
    rows = tables.rows_of(queries, judgements["query_id"], path, again)
    if (np.diff(rows) < 0).any():
        raise PipelineError(f"{path} is not sorted by query_id; {again}")
    codes = _codes(products, judgements["product_id"])
    labels = tables.rows_of(pa.chunked_array([tables.LABELS]), judgements["label"], path, again)
    return Ids(queries, products), judgements, (rows, codes, labels)


def read_inputs(locale: str) -> Inputs:
    """Read what a locale's runs are over; raises as `read_judgements` does."""
    ids, _, (rows, codes, _) = read_judgements(locale)
    text = codes < len(ids.products)
    return Inputs(ids.queries, ids.products, rows[text], codes[text])


def _codes(products: pa.ChunkedArray, judged: pa.ChunkedArray) -> Ints:
    """Return each judged product's row; one without text has none, and a code beyond them all."""
    known = tables.row_of(products, judged)
    beyond = pc.add(judged.combine_chunks().dictionary_encode().indices, len(products))
    return np.asarray(pc.coalesce(known, beyond), dtype=np.int64)


class RunWriter:
    """Writes one run file, piece by piece."""

    def __init__(self, file: pq.ParquetWriter, ids: Ids) -> None:
        self._file = file
        self._ids = ids

    def add(self, rows: Ints, codes: Ints, scores: NDArray[np.float64]) -> None:
        """Add what `Ranked` holds for whole queries, all of them behind those added before."""
        if len(rows):
            self._file.write_table(
                run_table(self._ids, rows, codes, scores), row_group_size=len(rows)
            )


@contextmanager
def writing(
    locale: str,
    system: System,
    of: Mapping[str, str],
    depth: int,
    ids: Ids,
    index_overlap: float | None = None,
) -> Iterator[tuple[RunWriter, RunWriter]]:
    """Yield what a locale's catalogue run and pool run of a system are written to.

    Both runs and their card are in their place when the block succeeds; else what was there stays.

    Args:
        locale: whose runs they are.
        system: one of `SYSTEMS`.
        of: what the system was made of, for the card.
        depth: the most products a query has in the catalogue run.
        ids: what the rows of the runs are of.
        index_overlap: for the card.
    """
    with files.atomic_directory(layout.runs(system, locale)) as out:
        with (
            pq.ParquetWriter(out / "catalogue.parquet", tables.RUN, **tables.WRITING) as first,
            pq.ParquetWriter(out / "pool.parquet", tables.RUN, **tables.WRITING) as second,
        ):
            yield RunWriter(first, ids), RunWriter(second, ids)
        written = card(out, system, of, depth, ids.queries, ids.products, index_overlap)
        files.write_json(out / "run.json", written.model_dump(mode="json"))


def run_table(ids: Ids, rows: Ints, codes: Ints, scores: NDArray[np.float64]) -> pa.Table:
    """Return a run, given as `Ranked`, as a table of schema `tables.RUN`."""
    return pa.table(
        {
            "query_id": ids.queries.take(pa.array(rows)),
            "product_id": ids.products.take(pa.array(codes)),
            "score": scores.astype(np.float32),
            "rank": (ranking.places(rows) + 1).astype(np.int32),
            "product_row": codes.astype(np.int32),
        }
    ).cast(tables.RUN)


def iter_run(
    path: Path, ids: Ids, queries_a_piece: int, again: str
) -> Iterator[tuple[range, Ranked]]:
    """Read a run again, a fixed number of queries at a time, so that runs can be read in step.

    Args:
        path: a file as `RunWriter` writes it.
        ids: what the rows of the run are of.
        queries_a_piece: how many rows of the clean queries a piece covers.
        again: what brings the file back; part of messages.

    Yields:
        The rows of the clean queries that the piece covers, all of them in their order, and what
        the run has for them; a query may have nothing.

    Raises:
        PipelineError: the file is missing or damaged, holds a query or product that the clean
            tables lack, a score that is no finite number or a product twice for a query, or is not
            sorted by query, rank and score.
    """
    start, waiting = 0, (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def up_to(stop: int) -> tuple[range, Ranked]:
        nonlocal start, waiting
        rows, codes, scores = waiting
        mine = int(np.searchsorted(rows, stop))
        waiting = rows[mine:], codes[mine:], scores[mine:]
        done, start = start, stop
        return range(done, stop), (rows[:mine], codes[:mine], scores[:mine])

    for group in tables.iter_row_groups(path, tables.RUN, again, READ):
        rows, codes, scores = _checked(group, ids, path, again)
        behind = waiting[0][-1] if len(waiting[0]) else start - 1
        if len(rows) and rows[0] <= behind:
            raise PipelineError(f"{path} is not sorted by query_id; {again}")
        waiting = (
            np.concatenate([waiting[0], rows]),
            np.concatenate([waiting[1], codes]),
            np.concatenate([waiting[2], scores]),
        )
        # A query is whole in its row group: what is before the last one's is complete.
        while len(rows) and rows[-1] >= start + queries_a_piece:
            yield up_to(start + queries_a_piece)
    while start < len(ids.queries):
        yield up_to(min(start + queries_a_piece, len(ids.queries)))


def _checked(group: pa.Table, ids: Ids, path: Path, again: str) -> Ranked:
    """Return the columns `READ` of a row group as rows, codes and scores, or say what is wrong."""
    rows = tables.rows_of(ids.queries, group["query_id"], path, again)
    codes = group["product_row"].to_numpy().astype(np.int64)
    scores = group["score"].to_numpy().astype(np.float64)
    if (wrong := np.flatnonzero((codes < 0) | (codes >= len(ids.products)))).size:
        raise PipelineError(
            f"{path}: product_row {codes[wrong[0]]} is not among the {len(ids.products)} clean "
            f"products; {again}"
        )

    def refuse(at: int, what: str) -> PipelineError:
        query, product = group["query_id"][at], ids.products[int(codes[at])]
        return PipelineError(f"{path}: query {query}, product {product}: {what}; {again}")

    if (np.diff(rows) < 0).any():
        raise PipelineError(f"{path} is not sorted by query_id; {again}")
    if (wrong := np.flatnonzero(~np.isfinite(scores))).size:
        at = int(wrong[0])
        raise refuse(at, f"the score is {scores[at]}, no finite number")
    ranks = ranking.places(rows) + 1
    if (wrong := np.flatnonzero(group["rank"].to_numpy() != ranks)).size:
        raise refuse(int(wrong[0]), "the rows of a query are not sorted by rank")
    if (wrong := np.flatnonzero((np.diff(scores) > 0) & (np.diff(rows) == 0))).size:
        raise refuse(int(wrong[0]) + 1, "the score is higher than that of the rank before")
    # One number a pair, which sorts several times as fast as the two columns.
    pairs = rows * len(ids.products) + codes
    if (np.diff(np.sort(pairs)) == 0).any():
        _, firsts = np.unique(pairs, return_index=True)
        raise refuse(
            int(np.setdiff1d(np.arange(len(pairs)), firsts)[0]), "the product stands twice"
        )
    return rows, codes, scores


def card(
    folder: Path,
    system: System,
    of: Mapping[str, str],
    depth: int,
    queries: pa.ChunkedArray,
    products: pa.ChunkedArray,
    index_overlap: float | None = None,
) -> RunCard:
    """Return the card of a system's runs in `folder`, over these query and product ids."""
    return RunCard(
        run_schema=SCHEMA,
        system=system,
        of=dict(of),
        depth=depth,
        index_overlap=index_overlap,
        query_ids_sha256=tables.ids_sha256(queries),
        product_ids_sha256=tables.ids_sha256(products),
        catalogue_sha256=files.sha256_file(folder / "catalogue.parquet"),
        pool_sha256=files.sha256_file(folder / "pool.parquet"),
    )


def read_card(
    folder: Path,
    system: System,
    queries: pa.ChunkedArray,
    products: pa.ChunkedArray,
    remedy: str,
) -> RunCard:
    """Read the card of a system's runs in `folder`.

    Raises:
        PipelineError: card or run is missing, the card is not of this version's form, the runs are
            of another system or of other queries or products than these, or were edited.
    """
    path = folder / "run.json"
    data = files.read_json(path, remedy)
    version = data.get("run_schema") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise PipelineError(f"{path}: run_schema is {version}, but {SCHEMA} is expected; {remedy}")
    try:
        found = RunCard.model_validate(data)
    except ValidationError as err:
        error = err.errors()[0]
        key = ".".join(map(str, error["loc"]))
        raise PipelineError(f"{path}: {key}: {error['msg']}; {remedy}") from err
    try:
        ids = (queries, products)
        expected = card(folder, system, found.of, found.depth, *ids, found.index_overlap)
    except FileNotFoundError as err:
        raise PipelineError(f"{err.filename} is missing; {remedy}") from err
    for key, value in expected.model_dump().items():
        if (told := getattr(found, key)) != value:
            raise PipelineError(
                f"{path}: {key} is {str(told)[:12]}, but {str(value)[:12]} is found: the runs are "
                f"of other tables, or were edited; {remedy}"
            )
    return found
