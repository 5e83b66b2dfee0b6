"""The expectation of every measure when products come in random order: the system `random`.

Exact, one value per query; nothing is drawn. All orders of the catalogue are equally likely, so a
given product is in each of its `products` places with the same chance, and the expectation of a sum
over places is the sum of the expectations. A measure is undefined (NaN) where `metrics` says so.

Two counts go in, [queries, labels] each: `findable`, the judged products that are in the catalogue,
and `judged`, all of them; no system can find the others, but they count in ideal and recall.
"""

import numpy as np

from pipeline.core.arrays import Floats, Ints
from pipeline.core.params import Evaluate
from pipeline.evaluate import metrics
from pipeline.evaluate.metrics import EXACT, EXACT_OR_SUBSTITUTE, PerQuery


def catalogue_measures(
    findable: Ints, judged: Ints, products: int, depth: int, cutoffs: Evaluate
) -> PerQuery:
    """Return what `metrics.catalogue_measures` is expected to be for random runs.

    Args:
        findable: [queries, labels].
        judged: [queries, labels].
        products: how many the catalogue has, 1 at least.
        depth: how many of them a run keeps, the deepest cutoff at least.
        cutoffs: those of the measures.
    """
    exact = metrics.relevant(findable, EXACT)
    all_exact = metrics.relevant(judged, EXACT)
    retrieved = np.full(len(judged), float(min(depth, products)))
    capped, short = cutoffs.capped_recall, cutoffs.precision
    return {
        **{f"ndcg@{k}": ndcg(findable, judged, products, k) for k in cutoffs.ndcg},
        f"ndcg_judged_only@{cutoffs.ndcg_judged_only}": ndcg_judged_only(
            findable, judged, products, depth, cutoffs.ndcg_judged_only
        ),
        f"mrr@{cutoffs.mrr}": reciprocal_rank(exact, all_exact, products, cutoffs.mrr),
        **{f"recall@{k}": recall(findable, judged, products, k) for k in cutoffs.recall},
        **{
            f"recall_e_or_s@{k}": recall(findable, judged, products, k, EXACT_OR_SUBSTITUTE)
            for k in cutoffs.recall
        },
        f"capped_recall@{capped}": metrics.ratio(
            _found(exact, products, capped), np.minimum(all_exact, capped)
        ),
        f"precision@{short}": np.where(
            all_exact > 0, _found(exact, products, short) / short, np.nan
        ),
        f"map@{cutoffs.map}": average_precision(exact, all_exact, products, cutoffs.map),
        # Of any first k that there are: the share of the catalogue that is judged.
        **{f"judged@{k}": findable.sum(axis=1) / products for k in cutoffs.judged},
        "retrieved": retrieved,
    }


def pool_measures(pool: Ints) -> PerQuery:
    """Return what `metrics.pool_measures` is expected to be for random runs.

    Args:
        pool: [queries, labels], how many products of each label a query has to rank.
    """
    floor, floor_10 = metrics.ndcg_floor(pool), metrics.ndcg_floor(pool, 10)
    size, exact = pool.sum(axis=1), metrics.relevant(pool, EXACT)
    return {
        "pool_ndcg": floor,
        "pool_ndcg@10": floor_10,
        "pool_ndcg_floor": floor,
        "pool_ndcg_floor@10": floor_10,
        "pool_ndcg_swapped_gains": metrics.ndcg_floor(pool, gains=metrics.SWAPPED_GAINS),
        "pool_mrr": reciprocal_rank(exact, exact, size, int(size.max(initial=0))),
    }


def ndcg(findable: Ints, judged: Ints, products: int, k: int) -> Floats:
    """Return the expected nDCG@k: every place has the mean gain of the catalogue."""
    places = metrics.discounts(np.array([min(k, products)]))
    expected = metrics.total_gain(findable) / products * places
    return metrics.ratio(expected, metrics.ideal_dcg(judged, k, metrics.GAINS))


def ndcg_judged_only(findable: Ints, judged: Ints, products: int, depth: int, k: int) -> Floats:
    """Return the expected nDCG@k of a run of `depth` without its unjudged products.

    Its place j holds one of the judged products, all equally likely, if the run has as many:
    mean(gain) * sum over j <= k of P(j judged ones or more in the run) / log2(j + 1).
    """
    kinds, kind = np.unique(findable.sum(axis=1), return_inverse=True)
    k = min(k, products)  # no run has more places
    discount = 1 / np.log2(np.arange(2, k + 2))
    places = np.array(
        [(_at_least(int(n), products, min(depth, products), k) * discount).sum() for n in kinds]
    )
    mean_gain = metrics.total_gain(findable) / np.maximum(findable.sum(axis=1), 1)
    return metrics.ratio(mean_gain * places[kind], metrics.ideal_dcg(judged, k, metrics.GAINS))


def reciprocal_rank(exact: Ints, all_exact: Ints, products: int | Ints, k: int) -> Floats:
    """Return the expected RR@k, the sum over i <= k of P(the first E is at i) / i.

    `exact` of the `products` (of all queries, or [queries]) are E; NaN where `all_exact` is 0.
    """
    # P(first at i + 1) = P(first at i) * (places after i + 1 without an E) / (places after i).
    chance = exact / np.maximum(products, 1)
    expected = np.zeros(len(exact))
    for i in range(1, min(k, int(np.max(products, initial=0))) + 1):
        expected += chance / i
        chance = chance * np.maximum(products - i - exact + 1, 0) / np.maximum(products - i, 1)
    return np.where(all_exact > 0, expected, np.nan)


def recall(
    findable: Ints, judged: Ints, products: int, k: int, labels: tuple[str, ...] = EXACT
) -> Floats:
    """Return the expected recall@k: each findable product is among the first k by k / products."""
    found = _found(metrics.relevant(findable, labels), products, k)
    return metrics.ratio(found, metrics.relevant(judged, labels))


def average_precision(exact: Ints, all_exact: Ints, products: int, k: int) -> Floats:
    """Return the expected AP@k.

    Place i holds an E with the chance exact / products, and then each of the i - 1 places before it
    does with (exact - 1) / (products - 1).
    """
    last = min(k, products)
    harmonic = (1 / np.arange(1, last + 1)).sum()
    another = (exact - 1) / max(products - 1, 1)
    expected = exact / products * (harmonic + (last - harmonic) * another)
    return metrics.ratio(expected, all_exact)


def _found(count: Ints, products: int, k: int) -> Floats:
    """Return how many of `count` products are expected among the first k."""
    return np.asarray(count * (min(k, products) / products), dtype=np.float64)


def _at_least(count: int, products: int, drawn: int, most: int) -> Floats:
    """Return P(X >= 1), …, P(X >= most) for how many of `count` marked products are drawn.

    X is hypergeometric: `drawn` of `products` without replacement. Computed from the ratios of
    neighbouring probabilities: factorials of a large catalogue would lose the digits.
    """
    low, high = max(0, drawn - (products - count)), min(count, drawn)
    h = np.arange(low, high, dtype=np.float64)
    steps = np.log((count - h) * (drawn - h) / ((h + 1) * (products - count - drawn + h + 1)))
    logs = np.concatenate(([0.0], np.cumsum(steps)))
    chances = np.exp(logs - logs.max())
    tails = np.cumsum(chances[::-1])[::-1] / chances.sum()
    found = np.zeros(most + 1)
    found[: low + 1] = 1.0
    inside = tails[: max(0, most + 1 - low)]
    found[low : low + len(inside)] = inside
    return found[1:]
