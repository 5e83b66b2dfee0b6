"""Measures over all pairs at once, and what each query adds to them.

Average precision, best F1 and Spearman of all pairs are no means over queries. But each is a smooth
function T of how much every query weighs, and does not change if all weigh twice as much. So

    v_q = T + queries * dT/dw_q        (the derivative where all queries weigh 1)

has the mean T exactly (Euler's theorem), and differs from query to query as T itself would if the
queries were drawn again. These are the pseudo-values of the infinitesimal jackknife (Jaeckel 1972;
Efron, Tibshirani: An Introduction to the Bootstrap, 1993, ch. 11 and 21). A bootstrap over them,
and a paired test of two encoders, are those of a mean, and right to first order. They cost one sort
instead of one per draw.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Ints

Flags = NDArray[np.bool_]


class Pooled(NamedTuple):
    """A measure over all pairs, NaN where it is undefined.

    `of_pair` [pairs] is dT/dw of each pair, in the order of the pairs; they add up to 0.
    `threshold`: a score from which on a pair counts as positive, where the measure has one.
    """

    value: float
    of_pair: Floats
    threshold: float = float("nan")


def by_query(pooled: Pooled, query: Ints, queries: int) -> Floats:
    """Return a value for each query whose mean is the measure; NaN for a query without pairs.

    Args:
        pooled: the measure.
        query: the query of each pair, from 0, [pairs].
        queries: how many there are.
    """
    here = np.bincount(query, minlength=queries) > 0
    change = np.bincount(query, weights=pooled.of_pair, minlength=queries)
    return np.where(here, pooled.value + here.sum() * change, np.nan)


def average_precision(scores: Floats, positive: Flags) -> Pooled:
    """Return the sum over thresholds of precision times the rise of recall.

    Pairs with equal scores share a threshold, as in scikit-learn's average_precision_score.
    Undefined without a positive and a negative.
    """
    if not 0 < positive.sum() < len(positive):
        return _undefined(scores)
    order, group, ends = _by_threshold(scores)
    y = positive[order].astype(np.float64)
    found, chosen = np.cumsum(y)[ends], ends + 1.0
    total, more = found[-1], np.diff(found, prepend=0.0)
    precision = found / chosen
    value = float((more * precision).sum() / total)
    # How the precision at this threshold and all lower ones gains by a positive, loses by a pair.
    gain = _sums_from(more / chosen)
    loss = _sums_from(more * precision / chosen)
    change = (y * (precision[group] + gain[group] - value) - loss[group]) / total
    return Pooled(value, _in_order(change, order))


def best_f1(scores: Floats, positive: Flags) -> Pooled:
    """Return the highest F1 of any threshold, and the highest threshold that has it.

    A pair is taken as positive if its score is at least the threshold. The threshold is chosen by
    the pairs that it is measured on, so expect less on others; its derivative is that of F1 at the
    threshold (the envelope theorem). Undefined without a positive and a negative.
    """
    if not 0 < positive.sum() < len(positive):
        return _undefined(scores)
    order, group, ends = _by_threshold(scores)
    y = positive[order].astype(np.float64)
    found, size = np.cumsum(y)[ends], ends + 1.0 + y.sum()
    best = int(np.argmax(2 * found / size))
    taken = (group <= best).astype(np.float64)
    change = 2 * y * taken / size[best] - 2 * found[best] * (taken + y) / size[best] ** 2
    return Pooled(
        float(2 * found[best] / size[best]),
        _in_order(change, order),
        float(scores[order[ends[best]]]),
    )


def spearman(scores: Floats, worth: Ints) -> Pooled:
    """Return the rank correlation of scores and labels, ties at the mean of their ranks.

    Undefined where all labels are equal. Scores that are all equal order nothing: 0.

    Args:
        scores: [pairs].
        worth: higher for a better label, [pairs].
    """
    if not len(worth) or (worth == worth[0]).all():
        return _undefined(scores)
    if (scores == scores[0]).all():
        return Pooled(0.0, np.zeros(len(scores)))
    x, y = _Marginal(scores), _Marginal(worth)
    # The mean of either place is 1/2 however pairs weigh: only products have to be followed.
    both, of_x, of_y = (float((a.place * b.place).mean()) for a, b in ((x, y), (x, x), (y, y)))
    rise = x.place * y.place + x.above(y.place) + y.above(x.place) - 3 * both
    rise_x = x.place**2 + 2 * x.above(x.place) - 3 * of_x
    rise_y = y.place**2 + 2 * y.above(y.place) - 3 * of_y
    spread_x, spread_y = of_x - 0.25, of_y - 0.25
    value = (both - 0.25) / np.sqrt(spread_x * spread_y)
    change = rise / np.sqrt(spread_x * spread_y) - value / 2 * (
        rise_x / spread_x + rise_y / spread_y
    )
    return Pooled(float(value), change / len(scores))


class _Marginal:
    """Where numbers are among themselves: `place` is the share below, plus half the share equal."""

    def __init__(self, numbers: NDArray[np.generic]) -> None:
        _, self._group, self._sizes = np.unique(numbers, return_inverse=True, return_counts=True)
        self._below = np.cumsum(self._sizes) - self._sizes
        self.place: Floats = ((self._below + self._sizes / 2) / len(numbers))[self._group]

    def above(self, values: Floats) -> Floats:
        """Return the mean over pairs of `values` above each number, those equal counting half."""
        sums = np.bincount(self._group, weights=values, minlength=len(self._sizes))
        above = _sums_from(np.asarray(sums, dtype=np.float64)) - sums / 2
        return np.asarray((above / len(values))[self._group])


def _by_threshold(scores: Floats) -> tuple[Ints, Ints, Ints]:
    """Return the order from the highest score, each place's threshold, and where each one ends."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    ends = np.flatnonzero(last)
    group = np.cumsum(last) - last
    return order, group, ends


def _sums_from(values: Floats) -> Floats:
    """Return the sum of each value and all after it."""
    return np.asarray(np.cumsum(values[::-1])[::-1])


def _in_order(change: Floats, order: Ints) -> Floats:
    out = np.empty_like(change)
    out[order] = change
    return out


def _undefined(scores: Floats) -> Pooled:
    return Pooled(float("nan"), np.full(len(scores), np.nan))
