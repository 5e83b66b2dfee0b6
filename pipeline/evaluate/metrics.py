"""The measures of both tracks, one value per query, vectorised over queries.

They equal those of trec_eval, as ir_measures calls it: nDCG (linear gains, ideal over all judged
products), RR, R, P, AP and Judged. Two things differ. A query that a measure is undefined for
(without an E, or with an ideal of 0) has NaN here, and `counts` counts it; trec_eval scores it 0. A
query that retrieved nothing scores 0 here; trec_eval drops it.

Only judged products earn anything, and they are few: a run is reduced to them first (`judged_run`),
and every measure is a count or a sum over that short list.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Ints
from pipeline.core.errors import PipelineError
from pipeline.core.params import ESCI_GAINS, Evaluate
from pipeline.core.tables import LABELS
from pipeline.evaluate.judged_run import JudgedRun, Judgements
from pipeline.runs.ranking import places

PerQuery = dict[str, Floats]

GAINS = dict(zip(LABELS, ESCI_GAINS, strict=True))
"""The gains of the ESCI paper (arXiv 2206.06588)."""

GRADES = {label: round(100 * gain) for label, gain in GAINS.items()}
"""The gains as integers, which a TREC file has."""

SWAPPED_GAINS = {"E": 1.0, "S": 0.01, "C": 0.1, "I": 0.0}
"""What esci-data's own scoring script uses by mistake; published numbers are often in these."""

EXACT = ("E",)
EXACT_OR_SUBSTITUTE = ("E", "S")

MEAN_DECIMALS = 5


def rounded_or_none(value: float) -> float | None:
    """Return a mean as JSON has it, None for NaN."""
    return None if math.isnan(value) else round(value, MEAN_DECIMALS)


def mean(values: Floats) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def ndcg(run: JudgedRun, k: int | None = None, gains: Mapping[str, float] = GAINS) -> Floats:
    """Return nDCG over the first `k` products (None: all of them), linear gains, log2(rank + 1).

    The ideal is over all judged products of the query; where it is 0, NaN.
    """
    gain = np.array([gains[label] for label in LABELS])[run.label] / np.log2(run.rank + 1)
    return ratio(_sum(run, _within(run, k), gain), ideal_dcg(run.label_counts, k, gains))


def ndcg_floor(
    label_counts: Ints, k: int | None = None, gains: Mapping[str, float] = GAINS
) -> Floats:
    """Return the exact expectation of nDCG when each query's judged products come in random order.

    Each rank has the mean gain: mean(gain) * sum over i <= min(n, k) of 1 / log2(i + 1), over the
    ideal DCG; NaN where that is 0. `label_counts` [queries, labels] are those of a `JudgedRun`.
    """
    judged = label_counts.sum(axis=1)
    expected = total_gain(label_counts, gains) / np.maximum(judged, 1) * discounts(_cut(judged, k))
    return ratio(expected, ideal_dcg(label_counts, k, gains))


def reciprocal_rank(run: JudgedRun, k: int | None = None) -> Floats:
    """Return 1 / rank of the first E among the first `k` products, else 0; NaN without any E."""
    exact = _within(run, k) & _has(run, EXACT)
    exact[exact] = places(run.query[exact]) == 0
    best = _sum(run, exact, 1 / run.rank)
    return np.where(relevant(run.label_counts, EXACT) > 0, best, np.nan)


def recall(run: JudgedRun, k: int, labels: tuple[str, ...] = EXACT) -> Floats:
    """Return the share of the query's products with these labels found in the first `k`."""
    return ratio(_found(run, k, labels), relevant(run.label_counts, labels))


def capped_recall(run: JudgedRun, k: int) -> Floats:
    """Return the E found in the first `k` over the most that could be, min(k, number of E)."""
    return ratio(_found(run, k, EXACT), np.minimum(relevant(run.label_counts, EXACT), k))


def precision(run: JudgedRun, k: int) -> Floats:
    """Return the E found in the first `k` over `k`, also where fewer were retrieved."""
    return np.where(relevant(run.label_counts, EXACT) > 0, _found(run, k, EXACT) / k, np.nan)


def average_precision(run: JudgedRun, k: int) -> Floats:
    """Return the precision at each E in the first `k`, summed, over the query's number of E."""
    exact = _within(run, k) & _has(run, EXACT)
    precisions = np.zeros(run.rank.size)
    precisions[exact] = (places(run.query[exact]) + 1) / run.rank[exact]
    return ratio(_sum(run, exact, precisions), relevant(run.label_counts, EXACT))


def judged(run: JudgedRun, k: int) -> Floats:
    """Return the share of the first `k` products that the query has a judgement for.

    As Judged@k of ir_measures: over min(k, retrieved); 0 where nothing was retrieved.
    """
    return _found(run, k, LABELS) / np.maximum(np.minimum(run.retrieved, k), 1)


def catalogue_measures(run: JudgedRun, cutoffs: Evaluate) -> PerQuery:
    """Return the measures of a search through the whole catalogue, [queries] each.

    Keys are measure@k; `retrieved` is the number of products that a query ranks.
    """
    return {
        **{f"ndcg@{k}": ndcg(run, k) for k in cutoffs.ndcg},
        f"ndcg_judged_only@{cutoffs.ndcg_judged_only}": ndcg(
            run.judged_only(), cutoffs.ndcg_judged_only
        ),
        f"mrr@{cutoffs.mrr}": reciprocal_rank(run, cutoffs.mrr),
        **{f"recall@{k}": recall(run, k) for k in cutoffs.recall},
        **{f"recall_e_or_s@{k}": recall(run, k, EXACT_OR_SUBSTITUTE) for k in cutoffs.recall},
        f"capped_recall@{cutoffs.capped_recall}": capped_recall(run, cutoffs.capped_recall),
        f"precision@{cutoffs.precision}": precision(run, cutoffs.precision),
        f"map@{cutoffs.map}": average_precision(run, cutoffs.map),
        **{f"judged@{k}": judged(run, k) for k in cutoffs.judged},
        "retrieved": run.retrieved.astype(np.float64),
    }


def pool_measures(run: JudgedRun) -> PerQuery:
    """Return the measures of ranking each query's judged products (ESCI's task 1), [queries] each.

    A judged product that the run leaves out earns nothing.

    Raises:
        PipelineError: the run ranks a product without a judgement.
    """
    unjudged = int(run.retrieved.sum()) - run.query.size
    if unjudged:
        raise PipelineError(
            f"the pool run ranks {unjudged} products without a judgement: run and judgements are "
            "of different samples. Run the stage retrieve again."
        )
    return {
        "pool_ndcg": ndcg(run),
        "pool_ndcg@10": ndcg(run, 10),
        "pool_ndcg_floor": ndcg_floor(run.label_counts),
        "pool_ndcg_floor@10": ndcg_floor(run.label_counts, 10),
        "pool_ndcg_swapped_gains": ndcg(run, gains=SWAPPED_GAINS),
        "pool_mrr": reciprocal_rank(run),
    }


def means(per_query: PerQuery) -> dict[str, float]:
    """Return the mean of each measure over the queries it is defined for, rounded to 5 digits.

    A measure that is defined for no query is left out. With the pool's measures comes `pool_skill`,
    (nDCG - floor) / (1 - floor), of the means: a query whose products all have one gain has a floor
    of 1 and no skill of its own. It is left out where the mean floor is 1.
    """
    exact = {name: mean(values) for name, values in per_query.items() if not np.isnan(values).all()}
    floor = exact.get("pool_ndcg_floor", 1.0)
    if 1 - floor > 1e-9:  # a floor of 1 comes out a few bits off
        exact["pool_skill"] = (exact["pool_ndcg"] - floor) / (1 - floor)
    return {name: round(each, MEAN_DECIMALS) for name, each in exact.items()}


def counts(judgements: Judgements) -> dict[str, int]:
    """Return how many queries and judgements there are, and how many queries leave a measure.

    `queries_without_gain` have an ideal of 0, for which nDCG is undefined.
    """
    labels = judgements.label_counts()

    def queries_without(*names: str) -> int:
        return int((relevant(labels, names) == 0).sum())

    return {
        "queries": len(judgements),
        "judgements": judgements.codes.size,
        "queries_without_e": queries_without(*EXACT),
        "queries_without_e_or_s": queries_without(*EXACT_OR_SUBSTITUTE),
        "queries_without_gain": queries_without(*(name for name in LABELS if GAINS[name] > 0)),
    }


def ideal_dcg(label_counts: Ints, k: int | None, gains: Mapping[str, float]) -> Floats:
    """Return the DCG of all judged products in the best order: one run of ranks per label."""
    best_first = sorted(range(len(LABELS)), key=lambda code: -gains[LABELS[code]])
    last_rank = _cut(np.cumsum(label_counts[:, best_first], axis=1), k)
    of_label = np.diff(discounts(last_rank), axis=1, prepend=0.0)
    # Not a matrix product: BLAS may round a row otherwise when the number of rows changes.
    ideal: Floats = (of_label * [gains[LABELS[code]] for code in best_first]).sum(axis=1)
    return ideal


def discounts(n: Ints) -> Floats:
    """Return the sum over i = 1..n of 1 / log2(i + 1), for each n."""
    each = 1 / np.log2(np.arange(2, n.max(initial=0) + 2))
    return np.concatenate(([0.0], np.cumsum(each)))[n]


def _cut(counts: Ints, k: int | None) -> Ints:
    return counts if k is None else np.minimum(counts, k)


def _within(run: JudgedRun, k: int | None) -> NDArray[np.bool_]:
    return np.ones(run.rank.size, dtype=bool) if k is None else run.rank <= k


def _codes(labels: tuple[str, ...]) -> list[int]:
    return [LABELS.index(label) for label in labels]


def _has(run: JudgedRun, labels: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.isin(np.arange(len(LABELS)), _codes(labels))[run.label]


def _sum(run: JudgedRun, chosen: NDArray[np.bool_], values: Floats) -> Floats:
    """Return the sum of the chosen products' values for each query."""
    sums = np.bincount(run.query[chosen], values[chosen], minlength=run.retrieved.size)
    return np.asarray(sums, dtype=np.float64)


def _found(run: JudgedRun, k: int, labels: tuple[str, ...]) -> Floats:
    return _sum(run, _within(run, k) & _has(run, labels), np.ones(run.rank.size))


def relevant(label_counts: Ints, labels: tuple[str, ...]) -> Ints:
    """Return how many products of each query have one of these labels; counts [queries, labels]."""
    those: Ints = label_counts[:, _codes(labels)].sum(axis=1)
    return those


def total_gain(label_counts: Ints, gains: Mapping[str, float] = GAINS) -> Floats:
    """Return the sum of the gains of each query's products; counts [queries, labels]."""
    total: Floats = (label_counts * [gains[label] for label in LABELS]).sum(axis=1)
    return total


def ratio(numerator: Floats, denominator: NDArray[Any]) -> Floats:
    """Return numerator / denominator, NaN where the denominator is 0."""
    found = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=found, where=denominator > 0)
    return found
