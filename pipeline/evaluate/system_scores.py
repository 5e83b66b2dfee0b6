"""One locale's runs joined with its judgements: every measure, query by query, of every system."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.core import layout, tables
from pipeline.core.arrays import Floats, Ints
from pipeline.core.clean_counts import read_counts
from pipeline.core.errors import PipelineError
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Evaluate, Params
from pipeline.core.systems import SYSTEMS
from pipeline.evaluate import exact_ranks, judged_run, metrics, random_order
from pipeline.evaluate.metrics import PerQuery
from pipeline.evaluate.top_products import Top
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs import ranking
from pipeline.runs.inputs import Ids, read_judgements

CURVE_CUTOFFS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Judged:
    """What a locale's runs are judged by.

    `queries` and `judgements` are the clean tables; `ids` are the ids of the rows that runs name.
    `qrels` are all judgements, `pool` those of products with a text: no system can rank the others.
    """

    queries: pa.Table
    judgements: pa.Table
    ids: Ids
    qrels: judged_run.Judgements
    pool: judged_run.Judgements


@dataclass(frozen=True)
class Scores:
    """A system's measures and its recall at each of `CURVE_CUTOFFS`, [queries] each.

    `exact` is what `exact_ranks.find` gives of a run.
    """

    measures: PerQuery
    curve: PerQuery
    exact: Ints


def read_judged(locale: str) -> Judged:
    """Read a locale's clean tables.

    A catalogue that is only searched has neither queries nor judgements.

    Raises:
        PipelineError: as `read_judgements` does; or a table is empty, though the sample had queries
            or judgements.
    """
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    queries = tables.read_table(clean.queries, tables.QUERIES, remedy)
    ids, judgements, pairs = read_judgements(locale)
    needed = {"products": ids.products}
    if len(queries) or len(judgements) or read_counts(locale).has_judgements:
        needed |= {"queries": queries, "judgements": judgements}
    for name, one in needed.items():
        if not len(one):
            raise PipelineError(f"{clean.folder}: there are no {name} to evaluate. {remedy}")
    return Judged(
        queries,
        judgements,
        ids,
        judged_run.Judgements.from_pairs(*pairs, len(queries)),
        judged_run.Judgements.of_pool(ids, pairs),
    )


def score_systems(
    params: Params, locale: str, judged: Judged, depth: int
) -> tuple[dict[str, Scores], dict[str, Top]]:
    """Score every system and the random order; return the first products of those with runs.

    Args:
        params: the cutoffs, and how many threads to use.
        locale: whose runs they are.
        judged: what they are judged by.
        depth: how deep the runs are.

    Raises:
        PipelineError: as `score` does.
    """
    cutoffs, systems = params.evaluate, params.evaluated_systems(locale)
    scored = in_parallel(
        lambda system: score(system, locale, judged, cutoffs, depth),
        systems,
        params.runtime.thread_count(),
    )
    scores: dict[str, Scores] = {}
    tops: dict[str, Top] = {}
    for system, found in zip(systems, scored, strict=True):
        scores[system], tops[system] = found
    scores[run_card.RANDOM] = score_random(judged, cutoffs, depth)
    return scores, tops


def score(
    system: str, locale: str, judged: Judged, cutoffs: Evaluate, depth: int
) -> tuple[Scores, Top]:
    """Score the runs of a system, and return the first products of its catalogue run.

    Those of another engine have no measures of the pool.

    Args:
        system: whose runs.
        locale: of which locale.
        judged: what they are judged by.
        cutoffs: those of the measures.
        depth: how deep the runs are.

    Raises:
        PipelineError: a run cannot be right; `runs.files.iter_run` says how.
    """
    runs, remedy = layout.runs(system, locale), run_card.rerun_hint(system, locale)

    def pieces(
        track: str, by: judged_run.Judgements
    ) -> Iterator[tuple[judged_run.Judgements, ranking.Ranked, judged_run.JudgedRun]]:
        path = runs.track(track)
        size = run_files.QUERIES_A_PIECE
        for queries, ranked in run_files.iter_run(path, judged.ids, size, remedy):
            judgements = by.rows(queries.start, queries.stop)
            yield judgements, ranked, judged_run.judge(ranked[0], ranked[1], judgements)

    catalogue, curve, tops, exact = [], [], [], []
    for judgements, ranked, run in pieces("catalogue", judged.qrels):
        catalogue.append(metrics.catalogue_measures(run, cutoffs))
        curve.append(recall_curve(run, depth))
        tops.append(Top.of_run(ranked, run))
        exact.append(exact_ranks.find(run, judgements))
    measures = _concatenate(catalogue)
    if system in SYSTEMS:  # another engine has ranked no pool: it would score 0
        pool, absent = [], 0
        for _, _, run in pieces("pool", judged.pool):
            pool.append(metrics.pool_measures(run))
            absent += int(run.label_counts.sum()) - run.query.size
        if absent:
            raise PipelineError(
                f"{runs.pool}: leaves out {absent:,} judged products of "
                f"{layout.clean(locale).folder}: it is of other judgements. {remedy}"
            )
        measures |= _concatenate(pool)
    return Scores(measures, _concatenate(curve), np.concatenate(exact)), Top.concatenate(tops)


def score_random(judged: Judged, cutoffs: Evaluate, depth: int) -> Scores:
    """Return what random orders of the catalogue, cut at `depth`, and of the pool would score."""
    findable, counts = judged.pool.label_counts(), judged.qrels.label_counts()
    products = len(judged.ids.products)
    return Scores(
        {
            **random_order.catalogue_measures(findable, counts, products, depth, cutoffs),
            **random_order.pool_measures(findable),
        },
        {
            str(k): random_order.recall(findable, counts, products, k)
            for k in CURVE_CUTOFFS
            if k <= depth
        },
        np.empty(0, np.int64),
    )


def random_mix(judged: Judged) -> Floats:
    """Return the share of each label and, last, of the unjudged at any rank of a random order."""
    labels = judged.pool.label_counts().mean(axis=0) / len(judged.ids.products)
    return np.append(labels, 1 - labels.sum())


def recall_curve(run: judged_run.JudgedRun, depth: int) -> PerQuery:
    """Return recall at each of `CURVE_CUTOFFS` down to the depth of the run, keyed by cutoff."""
    return {str(k): metrics.recall(run, k) for k in CURVE_CUTOFFS if k <= depth}


def _concatenate(pieces: list[PerQuery]) -> PerQuery:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
