"""Score the runs of any engine by the measures of `evaluate`, and compare them.

    from esci_retrieval import compare, evaluate
    a = evaluate("bm25.run", "judgements.qrels")
    b = evaluate("dense.run", "judgements.qrels")
    compare(a, b)

Needs no project: no params.yaml, no catalogue, no encoder.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ValidationError

from pipeline.compare.differences import measure_moves
from pipeline.compare.display import verdict
from pipeline.compare.pairs import pair
from pipeline.core.errors import PipelineError, did_you_mean, explain, one_line, shorten
from pipeline.core.params import Evaluate, Uncertainty
from pipeline.evaluate import metrics
from pipeline.evaluate.uncertainty import bootstrap_intervals
from pipeline.given.table import PRODUCTS, TREC_QRELS, TREC_RUN, Source, read_given
from pipeline.runs.card import TRACKS, Track
from pipeline.score.joined import Joined, join
from pipeline.score.labels import Meanings
from pipeline.score.results import Difference, Result

CUTOFFS = Evaluate(
    ndcg=(10, 100), recall=(10, 50, 100, 1000), judged=(10, 100), mrr=10, precision=10, map=100,
    capped_recall=10, ndcg_judged_only=10,
)  # fmt: skip
DRAWS = Uncertainty(samples=2000, confidence=0.95, seed=17)
ALPHA = 0.05
"""The settings of the shipped params.yaml."""

_SYSTEM = "run"
"""What `compare` calls the system of a run; its measures come after it, as in run.ndcg@10."""

_Model = TypeVar("_Model", bound=BaseModel)


def evaluate(
    run: Source,
    qrels: Source,
    *,
    name: str | None = None,
    labels: Meanings | None = None,
    products: Source | None = None,
    track: Track = "catalogue",
    cutoffs: Mapping[str, Any] | None = None,
    samples: int = DRAWS.samples,
    confidence: float = DRAWS.confidence,
    seed: int = DRAWS.seed,
) -> Result:
    """Score a run by judgements, with the measures of the stage `evaluate`.

    Products are ordered by score, compared in 32 bits, descending, then by product_id, descending:
    trec_eval's order. Ranks decide only where a frame has no scores. A judged query without results
    scores 0. Results of queries that are not judged are left out, and counted.

    The counts: `queries`, `judgements` and the queries without an E, without an E or S, and without
    a gain, which leave a measure, as in the reports; `queries_without_results`;
    `queries_not_judged`, of the run; `queries_against_rank`, whose order is not that of the ranks
    beside the scores; `results` of judged queries, `results_judged` of these, `results_tied` with
    the score of the one before; `depth`, the most that a query has.

    Args:
        run: query_id, product_id, and score (higher is better) or rank; a TREC file, a parquet
            file, or a frame of pandas, polars or Arrow.
        qrels: query_id, product_id and one column label or esci_label (E, S, C, I), gain (1, 0.1,
            0.01, 0) or grade (100, 10, 1, 0); a TREC file has grades.
        name: what the run is called; None: its file's name, or "run" for a frame.
        labels: the label E, S, C or I of each value, for labels of another scale, such as
            {3: "E", 2: "S", 1: "C", 0: "I"}.
        products: the catalogue, for a run that may have others: a parquet file or a frame with
            product_id. Results outside it are left out, and counted as `results_unknown`: the next
            ones move up, as if the engine had searched this catalogue. Judgements of products
            outside it stay, and are counted as `judgements_unknown`.
        track: "catalogue", a search through all products; or "pool", an order of each query's
            judged products (ESCI's task 1).
        cutoffs: of some measures, such as {"ndcg": [5, 10], "mrr": 5}; others as in `CUTOFFS`. The
            pool's measures have none.
        samples: draws of bootstrap and randomisation.
        confidence: of the intervals.
        seed: decides the draws.

    Raises:
        PipelineError: a file or a frame cannot be read; a column is missing; a score is NaN or
            infinite; a query has a product twice, or, without scores, a rank; a label is of another
            scale; run and judgements share no query or no product; or a setting is wrong.
    """
    if track not in TRACKS:
        raise PipelineError(f"track: must be one of {', '.join(TRACKS)} (found {shorten(track)}).")
    if cutoffs is not None and not isinstance(cutoffs, Mapping):
        raise PipelineError(f"cutoffs: must be a dict (found {shorten(cutoffs)}).")
    if cutoffs is not None and track == "pool":
        raise PipelineError("cutoffs: the measures of the pool have none. Leave them out.")
    chosen = _settings(Evaluate, CUTOFFS.model_dump() | dict(cutoffs or {}), "cutoffs")
    given = {"samples": samples, "confidence": confidence, "seed": seed}
    draws = _settings(Uncertainty, given, "intervals")
    ours = read_given(run, TREC_RUN, "the run")
    theirs = read_given(qrels, TREC_QRELS, "the judgements")
    catalogue = None if products is None else read_given(products, PRODUCTS, "the products")
    joined = join(ours, theirs, labels, catalogue)
    values = _measure(joined, track, chosen, ours.where)
    columns = np.column_stack([np.asarray(each, np.float64) for each in values.values()])
    intervals = bootstrap_intervals(columns, draws)
    arrays = (pa.array(each, pa.float64(), from_pandas=True) for each in columns.T)
    return Result(
        name=name or (Path(run).name if isinstance(run, str | os.PathLike) else "run"),
        track=track,
        per_query=pa.table(
            [joined.queries.cast(pa.string()), *arrays], names=["query_id", *values]
        ),
        means={
            measure: interval
            for measure, interval in zip(values, intervals, strict=True)
            if interval.queries
        },
        counts=joined.counts,
        cutoffs=chosen,
        draws=draws,
        judgements_sha256=joined.judgements_sha256,
        products_sha256=joined.products_sha256,
    )


def compare(
    a: Result, *others: Result, measures: Iterable[str] | None = None, alpha: float = ALPHA
) -> tuple[Difference, ...]:
    """Compare runs with the first one, query by query, as `python -m pipeline.compare` does.

    Args:
        a: the first run.
        others: one or more runs, scored by the same judgements and, if one is given, catalogue.
        measures: which; None: nDCG and MRR at the first cutoff, and recall at each that nDCG has
            too (`Result.headline`). The p-values are adjusted over all of them, and over all runs.
        alpha: below which adjusted p a difference is significant.

    Returns:
        For each run its measures, in order.

    Raises:
        PipelineError: there is nothing to compare, the judgements, catalogues, tracks or draws
            differ, a result lacks a measure, or the draws are too few for so many comparisons.
    """
    return compare_as("samples of evaluate()", a, *others, measures=measures, alpha=alpha)


def compare_as(
    setting: str,
    a: Result,
    *others: Result,
    measures: Iterable[str] | None = None,
    alpha: float = ALPHA,
) -> tuple[Difference, ...]:
    """Compare as `compare` does; `setting` is what messages say decides the number of draws."""
    if not others:
        raise PipelineError("compare: there must be two results or more (found 1). Give another.")
    if not (isinstance(alpha, int | float) and 0 < alpha < 1):
        raise PipelineError(f"compare: alpha must be between 0 and 1 (found {shorten(alpha)}).")
    for other in others:
        _refuse_unlike(a, other)
    chosen = _unique_names(a.headline() if measures is None else measures)
    for result in (a, *others):
        _refuse_missing(result, chosen)
    pairs = [
        pair(result.name, f"{_SYSTEM}.{measure}", _of_system(a), _of_system(result))
        for result in others
        for measure in chosen
    ]
    moves = measure_moves(
        pairs, alpha, max_drop=math.inf, draws=a.draws, queries=0, setting=setting
    )
    return tuple(
        Difference(
            move.locale, move.metric.partition(".")[2], move.a, move.b, move.difference, move.p,
            move.p_adjusted, move.won, move.lost, move.tied, move.significant, verdict(move),
        )
        for move in moves
    )  # fmt: skip


def _measure(joined: Joined, track: Track, cutoffs: Evaluate, where: str) -> metrics.PerQuery:
    if track == "catalogue":
        return metrics.catalogue_measures(joined.run, cutoffs)
    if unjudged := joined.counts["results"] - joined.counts["results_judged"]:
        raise PipelineError(
            f"{where}: a run of the pool ranks judged products alone (found {unjudged:,} results "
            "without a judgement). Leave them out, or choose the track catalogue."
        )
    return metrics.pool_measures(joined.run)


def _settings(model: type[_Model], given: Mapping[str, Any], what: str) -> _Model:
    try:
        # Via JSON: validation stays strict, yet lists may become tuples.
        return model.model_validate_json(json.dumps(given))
    except ValidationError as err:
        raise PipelineError(f"{what}: {'; '.join(explain(err, model))}. Correct it.") from err
    except (TypeError, ValueError) as err:
        raise PipelineError(f"{what}: {one_line(err)}. Give plain numbers.") from err


def _unique_names(measures: Iterable[str]) -> list[str]:
    names = [] if isinstance(measures, str) or not isinstance(measures, Iterable) else [*measures]
    if not names or not all(isinstance(name, str) for name in names):
        raise PipelineError(
            f"compare: measures must be a list of one name or more (found {shorten(measures)})."
        )
    return list(dict.fromkeys(names))


def _refuse_unlike(a: Result, b: Result) -> None:
    """Raise a `PipelineError` if two results are not of the same judgements and settings."""
    for each in (a, b):
        if not isinstance(each, Result):
            raise PipelineError(
                f"compare: {type(each).__name__} is no result. Give what `evaluate` returns."
            )
    for what, one, other in (
        ("judgements", _short(a.judgements_sha256), _short(b.judgements_sha256)),
        ("products", _short(a.products_sha256), _short(b.products_sha256)),
        ("tracks", a.track, b.track),
        ("draws", a.draws, b.draws),
    ):
        if one != other:
            raise PipelineError(
                f"compare: {a.name} and {b.name} have different {what} ({one} and {other}). "
                f"Evaluate both with the same {what}."
            )


def _short(sha256: str | None) -> str:
    return sha256[:12] if sha256 else "none"


def _refuse_missing(result: Result, measures: Iterable[str]) -> None:
    known = [name for name in result.per_query.column_names if name in result.means]
    for name in measures:
        if name not in known:
            raise PipelineError(
                f"compare: {result.name} has no {shorten(name)} (it has: {', '.join(known)})"
                f"{did_you_mean(name, known) or '.'} Name one of these."
            )


def _of_system(result: Result) -> pa.Table:
    names = [
        name if name == "query_id" else f"{_SYSTEM}.{name}"
        for name in result.per_query.column_names
    ]
    return result.per_query.rename_columns(names)
