"""Fuse one locale's runs: data/runs/{dense,bm25}/<locale> -> data/runs/hybrid/<locale>.

The two catalogue runs are fused, and the two pool runs. Where one system found nothing for a query,
the other alone ranks it.
"""

from collections.abc import Iterator
from contextlib import closing

import numpy as np

from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Params
from pipeline.core.progress import track
from pipeline.core.systems import System
from pipeline.hybrid.fuse import fuse
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs import ranking
from pipeline.runs.inputs import Inputs, read_inputs
from pipeline.runs.made_of import of_hybrid

FUSED: tuple[System, System] = ("dense", "bm25")
"""The systems whose runs are fused."""

AT_ONCE = 4
"""The most pieces that are fused at once: some 200 MB each at a depth of 1,000. Reading and writing
are one thread's work, and keep no more than these busy."""

Piece = tuple[range, ranking.Ranked, ranking.Ranked]
"""Some queries, and what both systems have for them."""


def hybrid(params: Params, locale: str) -> stage.Done:
    """Write the fused catalogue run and pool run of a locale."""
    inputs = read_inputs(locale)
    depth, settings = params.retrieve.depth, params.hybrid
    of = of_hybrid(params, run_card.read_cards(locale, FUSED, inputs, depth).values())

    def fused(piece: Piece) -> tuple[range, ranking.Ranked]:
        covered, dense, bm25 = piece
        return covered, fuse(dense, bm25, settings)

    pieces = paired_pieces("catalogue", locale, inputs)
    threads = min(params.runtime.thread_count(), AT_ONCE)
    with (
        run_files.write_runs(locale, "hybrid", of, depth, inputs) as (catalogue, pool),
        closing(in_parallel(fused, pieces, threads, waiting=1)) as found,
    ):
        total = len(inputs.queries)
        for _, ranked in track(found, total, "queries", lambda piece: len(piece[0])):
            rows, codes, scores = ranked
            inside = ranking.places(rows) < depth
            catalogue.add(rows[inside], codes[inside], scores[inside])
        for covered, dense, bm25 in paired_pieces("pool", locale, inputs):
            for system, run in zip(FUSED, (dense, bm25), strict=True):
                check_pool(system, run, covered, locale, inputs)
            pool.add(*fuse(dense, bm25, settings))
    log.info(
        "hybrid locale=%s fusion=%s queries=%d products=%d",
        locale, settings.kind, len(inputs.queries), len(inputs.products),
    )  # fmt: skip
    return stage.Done(queries=len(inputs.queries), products=len(inputs.products), depth=depth)


def paired_pieces(track: str, locale: str, inputs: Inputs) -> Iterator[Piece]:
    """Read the runs of both systems together, for the same queries each time; see `iter_run`."""
    dense, bm25 = (
        run_files.iter_run(
            layout.runs(system, locale).track(track),
            inputs, run_files.QUERIES_A_PIECE, run_card.rerun_hint(system, locale),
        )
        for system in FUSED
    )  # fmt: skip
    for (covered, first), (_, second) in zip(dense, bm25, strict=True):
        yield covered, first, second


def check_pool(
    system: System, run: ranking.Ranked, covered: range, locale: str, inputs: Inputs
) -> None:
    """Raise a `PipelineError` unless a pool run ranks exactly what is judged for its queries."""
    part = slice(*np.searchsorted(inputs.pair_queries, [covered.start, covered.stop]))
    rows, codes = inputs.pair_queries[part], inputs.pair_products[part]
    # A run has no pair twice: as many as are judged, and only judged ones, are all of them.
    if len(run[0]) != len(rows) or (ranking.find_pairs(*run[:2], rows, codes) < 0).any():
        raise PipelineError(
            f"{layout.runs(system, locale).pool} does not rank the judged products of "
            f"{layout.clean(locale).folder}: it is of other judgements. "
            f"{run_card.rerun_hint(system, locale)}"
        )
