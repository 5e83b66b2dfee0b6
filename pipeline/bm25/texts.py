"""The terms of clean tables: one text after another, or counted on all cores."""

from collections.abc import Generator, Iterator

import numpy as np
import pyarrow as pa

from pipeline.bm25.analysers import Analyser
from pipeline.bm25.counting import Counted, Counter
from pipeline.bm25.postings import WORKER_BYTES
from pipeline.core import layout, memory, tables
from pipeline.core.arrays import Ints
from pipeline.core.params import Runtime
from pipeline.core.workers import Workers

BATCH_TEXTS = 16_384
PIECE_PRODUCTS = 8_192
JAPANESE_PIECE_PRODUCTS = 1_024
"""Sudachi takes as long for these as the other analysers for `PIECE_PRODUCTS`: half a second."""
FEWEST_PIECES = 8
"""Fewer pieces are counted in this process: starting another one takes as long as two pieces."""
WORKERS_SHARE = 4
"""Processes that count take at most one such part of the memory."""


def terms_of_queries(locale: str, analyser: Analyser) -> list[list[str]]:
    """Return the terms of each clean query, in the order of the rows."""
    path, remedy = layout.clean(locale).queries, layout.rerun_hint("clean", locale)
    texts = tables.read_column(path, tables.QUERIES, "text", remedy)
    return list(map(analyser.terms, texts.to_pylist()))


def terms_of_rows(locale: str, rows: Ints, analyser: Analyser) -> dict[int, list[str]]:
    """Return the terms of some of the clean products, by their rows."""
    wanted, first = np.unique(rows), 0
    found: dict[int, list[str]] = {}
    for batch in _texts(locale, BATCH_TEXTS):
        here = wanted[slice(*np.searchsorted(wanted, [first, first + len(batch)]))]
        texts = batch["text"].take(pa.array(here - first)).to_pylist()
        found |= zip(here.tolist(), map(analyser.terms, texts), strict=True)
        first += len(batch)
    return found


def count_products(
    locale: str, analyser: Analyser, products: int, runtime: Runtime
) -> Generator[Counted]:
    """Yield the counted terms of the clean products, piece by piece, in the order of their rows.

    Raises:
        PipelineError: the table is missing or damaged, or a process that counted has ended.
    """
    texts = _texts(locale, _piece_products(analyser.name))
    workers = worker_count(analyser.name, products, runtime)
    if not workers:
        counter = Counter(analyser)
        yield from (counter.count(batch["text"]) for batch in texts)
        return
    name = f"bm25's terms of the {locale} products"
    with Workers("pipeline.bm25.worker", [analyser.language], workers, name) as processes:
        # All have the same work: few need to wait.
        yield from map(Counted.of_batch, processes.map(texts, waiting=workers))


def worker_count(analyser: str, products: int, runtime: Runtime) -> int:
    """Return how many other processes count the terms of so many products; 0 if this one does.

    `analyser` is its name.
    """
    pieces = _pieces(analyser, products)
    if pieces < FEWEST_PIECES:
        return 0
    room = memory.limit_bytes(runtime) // (WORKERS_SHARE * WORKER_BYTES)
    workers = min(runtime.thread_count(), pieces, room)
    return workers if workers > 1 else 0


def _pieces(analyser: str, products: int) -> int:
    return -(-products // _piece_products(analyser))


def _piece_products(analyser: str) -> int:
    return JAPANESE_PIECE_PRODUCTS if analyser.startswith("sudachi") else PIECE_PRODUCTS


def _texts(locale: str, size: int) -> Iterator[pa.RecordBatch]:
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    for piece in tables.iter_table(path, tables.PRODUCTS, size, remedy):
        yield from piece.select(["text"]).to_batches()
