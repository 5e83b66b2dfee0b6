"""Fuse one locale's runs: data/runs/{dense,bm25}/<locale> -> data/runs/hybrid/<locale>.

Each track is fused from its own two runs: the catalogue runs, and the pool runs. A query that one
system retrieved nothing for is ranked by the other alone.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.params import Fusion, Params, WeightedFusion
from pipeline.runs import ranking, runs

BATCH_QUERIES = 1_024

FUSED: tuple[runs.System, runs.System] = ("dense", "bm25")
"""The systems whose runs are fused."""


def fuse(dense: runs.Ranked, bm25: runs.Ranked, settings: Fusion) -> runs.Ranked:
    """Return the union of two runs of the same queries, in the order of its fused scores.

    Weighted fusion adds the normalised scores, each times its system's weight. BM25's is the score
    over the query's highest, since 0 is what a product without a shared term has; the dense one
    is the score's place between the lowest and the highest of the query's run, since a similarity
    has no floor that products reach (Bruch, Gai, Ingber: An Analysis of Fusion Functions for
    Hybrid Retrieval, 2023, compare such normalisations). A product that a run lacks has 0 in it.

    Reciprocal-rank fusion adds 1 / (rank_constant + rank) over the runs that have the product
    (Cormack, Clarke, Büttcher, 2009), times (rank_constant + 1) / 2: the first of both runs has 1.
    The rounding of `ranking` would tie deep ranks where the constant is very large or, for deep
    runs, very small; `params` refuses such constants.
    """
    width = 1 + max(dense[1].max(initial=0), bm25[1].max(initial=0))
    pairs = np.concatenate([dense[0] * width + dense[1], bm25[0] * width + bm25[1]])
    if isinstance(settings, WeightedFusion):
        first = settings.dense_weight * between_extremes(dense)
        second = (1 - settings.dense_weight) * of_highest(bm25)
    else:
        scale = (settings.rank_constant + 1) / 2
        first = scale / (settings.rank_constant + ranks(dense))
        second = scale / (settings.rank_constant + ranks(bm25))
    union, place = np.unique(pairs, return_inverse=True)
    scores = np.zeros(len(union))
    np.add.at(scores, place, np.concatenate([first, second]))
    return ranking.rank_pairs(union // width, union % width, scores)


def ranks(run: runs.Ranked) -> NDArray[np.int64]:
    """Return each product's rank, from 1."""
    return ranking.places(run[0]) + 1


def of_highest(run: runs.Ranked) -> NDArray[np.float64]:
    """Return scores of 0 or more over their query's highest; all 0 where that is 0."""
    rows, _, scores = run
    highest = scores[np.searchsorted(rows, rows)]
    return np.divide(scores, highest, out=np.zeros_like(scores), where=highest > 0)


def between_extremes(run: runs.Ranked) -> NDArray[np.float64]:
    """Return scores as their place from their query's lowest, 0, to its highest, 1.

    Where both are the same, all have 1: the run holds them, and lacks others.
    """
    rows, _, scores = run
    highest = scores[np.searchsorted(rows, rows)]
    lowest = scores[np.searchsorted(rows, rows, side="right") - 1]
    spread = highest - lowest
    return np.divide(scores - lowest, spread, out=np.ones_like(scores), where=spread > 0)


def hybrid(params: Params, locale: str) -> None:
    """Write the fused catalogue run and pool run of a locale."""
    inputs = runs.read_inputs(locale)
    depth, settings = params.retrieve.depth, params.hybrid
    of: dict[str, str] = {"fusion": settings.kind}
    of |= {key: str(value) for key, value in settings.model_dump(exclude={"kind"}).items()}
    for system in FUSED:
        card = read_card(system, locale, inputs, depth)
        of[f"{system}_catalogue_sha256"] = card.catalogue_sha256
    with runs.writing(locale, "hybrid", of, depth, inputs) as (catalogue, pool):
        pieces = in_step("catalogue", locale, inputs)
        total = len(inputs.queries)
        for _, dense, bm25 in stage.track(pieces, total, "queries", lambda piece: len(piece[0])):
            fused = fuse(dense, bm25, settings)
            inside = ranks(fused) <= depth
            rows, codes, scores = fused
            catalogue.add(rows[inside], codes[inside], scores[inside])
        for covered, dense, bm25 in in_step("pool", locale, inputs):
            for system, run in zip(FUSED, (dense, bm25), strict=True):
                check_pool(system, run, covered, locale, inputs)
            pool.add(*fuse(dense, bm25, settings))
    stage.did(queries=len(inputs.queries), products=len(inputs.products), depth=depth)
    stage.log.info(
        "hybrid locale=%s fusion=%s queries=%d products=%d",
        locale, settings.kind, len(inputs.queries), len(inputs.products),
    )  # fmt: skip


def read_card(system: runs.System, locale: str, inputs: runs.Inputs, depth: int) -> runs.RunCard:
    """Read the card of a system's runs.

    Raises:
        PipelineError: as `runs.read_card`, and where the runs are of another depth.
    """
    folder, again = layout.runs(system, locale), runs.remedy(system, locale)
    card = runs.read_card(folder, system, inputs.queries, inputs.products, again)
    if card.depth != depth:
        raise PipelineError(
            f"{folder}/run.json: the runs are {card.depth} deep, but retrieve.depth is {depth}; "
            f"{again}"
        )
    return card


def in_step(
    track: str, locale: str, inputs: runs.Inputs
) -> Iterator[tuple[range, runs.Ranked, runs.Ranked]]:
    """Read the runs of both systems, each time for the same queries; see `runs.iter_run`."""
    dense, bm25 = (
        runs.iter_run(
            layout.runs(system, locale) / f"{track}.parquet",
            inputs, BATCH_QUERIES, runs.remedy(system, locale),
        )
        for system in FUSED
    )  # fmt: skip
    for (covered, first), (_, second) in zip(dense, bm25, strict=True):
        yield covered, first, second


def check_pool(
    system: runs.System, run: runs.Ranked, covered: range, locale: str, inputs: runs.Inputs
) -> None:
    """Raise a `PipelineError` unless a pool run ranks what is judged for the queries it covers."""
    part = slice(*np.searchsorted(inputs.pair_queries, [covered.start, covered.stop]))
    width = len(inputs.products)
    judged = inputs.pair_queries[part] * width + inputs.pair_products[part]
    if not np.array_equal(np.sort(run[0] * width + run[1]), np.sort(judged)):
        raise PipelineError(
            f"{layout.runs(system, locale)}/pool.parquet does not rank what is judged in "
            f"{layout.clean(locale)}: it is of other judgements; {runs.remedy(system, locale)}"
        )
