"""Run files: `catalogue.parquet` and `pool.parquet`, written and read piece by piece."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core import files, layout, tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.systems import System
from pipeline.runs import ranking
from pipeline.runs.card import make_card
from pipeline.runs.inputs import Ids
from pipeline.runs.ranking import Ranked

QUERIES_A_PIECE = 1_024
"""Queries whose results are written at once, and read at once by later stages."""

READ = ("query_id", "score", "rank", "product_row")
"""The columns of a run that later stages read. The card says which products the rows are of, and
has a hash of the file."""


class RunWriter:
    """Writes one run file, piece by piece.

    Attributes:
        folder: where the file is until all is written; other files there are kept with it.
    """

    def __init__(self, file: pq.ParquetWriter, ids: Ids, folder: Path) -> None:
        self._file = file
        self._ids = ids
        self.folder = folder

    def add(self, rows: Ints, codes: Ints, scores: NDArray[np.float64]) -> None:
        """Add the ranking of whole queries; they come after those added before."""
        if len(rows):
            self._file.write_table(
                run_table(self._ids, rows, codes, scores), row_group_size=len(rows)
            )


@contextmanager
def write_runs(
    locale: str,
    system: System,
    of: Mapping[str, str],
    depth: int,
    ids: Ids,
    index_overlap: float | None = None,
) -> Iterator[tuple[RunWriter, RunWriter]]:
    """Yield the writers of a locale's catalogue run and pool run of a system.

    Both runs and their card are in place when the block succeeds; else the old ones stay.

    Args:
        locale: whose runs they are.
        system: one of `SYSTEMS`.
        of: what the system was made of, for the card; read when the block ends.
        depth: the most products a query has in the catalogue run.
        ids: what the rows of the runs are of.
        index_overlap: for the card.
    """
    with (
        files.atomic_directory(layout.runs(system, locale).folder) as folder,
        fill_runs(folder, system, of, depth, ids, index_overlap) as writers,
    ):
        yield writers


@contextmanager
def fill_runs(
    folder: Path,
    system: str,
    of: Mapping[str, str],
    depth: int,
    ids: Ids,
    index_overlap: float | None = None,
) -> Iterator[tuple[RunWriter, RunWriter]]:
    """Yield the writers of both runs in a folder that is there; else as `write_runs`."""
    out = layout.RunFiles(folder)
    with (
        pq.ParquetWriter(out.catalogue, tables.RUN, **tables.WRITE_OPTIONS) as first,
        pq.ParquetWriter(out.pool, tables.RUN, **tables.WRITE_OPTIONS) as second,
    ):
        yield RunWriter(first, ids, folder), RunWriter(second, ids, folder)
    written = make_card(out, system, of, depth, ids.queries, ids.products, index_overlap)
    files.write_json(out.card, written.model_dump(mode="json"))


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
    path: Path, ids: Ids, queries_a_piece: int, remedy: str
) -> Iterator[tuple[range, Ranked]]:
    """Read a run, a fixed number of queries at a time, so that several runs can be read together.

    Args:
        path: a file as `RunWriter` writes it.
        ids: what the rows of the run are of.
        queries_a_piece: how many rows of the clean queries a piece covers.
        remedy: a sentence that says what brings the file back; messages end with it.

    Yields:
        The rows of the clean queries that the piece covers, in order and none left out, and what
        the run has for them; a query may have nothing.

    Raises:
        PipelineError: the file is missing or damaged; it has a query or product that the clean
            tables lack, a score that is not a finite number, or a product twice for a query; or it
            is not sorted by query, rank and score.
    """
    start, waiting = 0, (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def up_to(stop: int) -> tuple[range, Ranked]:
        nonlocal start, waiting
        rows, codes, scores = waiting
        mine = int(np.searchsorted(rows, stop))
        waiting = rows[mine:], codes[mine:], scores[mine:]
        done, start = start, stop
        return range(done, stop), (rows[:mine], codes[:mine], scores[:mine])

    for group in tables.iter_row_groups(path, tables.RUN, remedy, READ):
        rows, codes, scores = _checked(group, ids, path, remedy)
        last = waiting[0][-1] if len(waiting[0]) else start - 1
        if len(rows) and rows[0] <= last:
            raise PipelineError(f"{path} is not sorted by query_id. {remedy}")
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


def _checked(group: pa.Table, ids: Ids, path: Path, remedy: str) -> Ranked:
    """Return the columns `READ` of a row group as rows, codes and scores; raises as `iter_run`."""
    runs = pc.run_end_encode(group["query_id"].combine_chunks())
    queries = tables.rows_of(ids.queries, pa.chunked_array([runs.values]), path, remedy)
    starts = np.append(0, runs.run_ends)
    rows = np.repeat(queries, np.diff(starts))
    codes = group["product_row"].to_numpy().astype(np.int64)
    scores = group["score"].to_numpy().astype(np.float64)
    if (wrong := np.flatnonzero((codes < 0) | (codes >= len(ids.products)))).size:
        raise PipelineError(
            f"{path}: product_row {codes[wrong[0]]} is not among the {len(ids.products)} clean "
            f"products. {remedy}"
        )

    def refuse(at: int, what: str) -> PipelineError:
        query, product = group["query_id"][at], ids.products[int(codes[at])]
        return PipelineError(f"{path}: query {query}, product {product}: {what}. {remedy}")

    if (np.diff(queries) < 0).any():
        raise PipelineError(f"{path} is not sorted by query_id. {remedy}")
    if (wrong := np.flatnonzero(~np.isfinite(scores))).size:
        at = int(wrong[0])
        raise refuse(at, f"the score must be a finite number (found {scores[at]})")
    ranks = 1 + ranking.places(rows)
    if (wrong := np.flatnonzero(group["rank"].to_numpy() != ranks)).size:
        raise refuse(int(wrong[0]), "the rows of a query are not sorted by rank")
    if (wrong := np.flatnonzero((np.diff(scores) > 0) & (np.diff(rows) == 0))).size:
        raise refuse(int(wrong[0]) + 1, "the score is higher than that of the rank before")
    if (repeat := ranking.find_repeat(starts, codes)) is not None:
        raise refuse(repeat, "the product is repeated")
    return rows, codes, scores
