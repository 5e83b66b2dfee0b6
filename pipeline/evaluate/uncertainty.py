"""How sure a mean over queries is, and whether two differ by more than luck.

Percentile bootstrap over queries; paired randomisation; Holm's adjustment. Every function is a pure
function of its arguments, seed included, and needs a few dozen MB for any number of queries; the
bootstrap holds every drawn mean beside.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats
from pipeline.core.params import Uncertainty
from pipeline.evaluate.metrics import MEAN_DECIMALS

_CELLS = 1 << 18
"""How many draws are held at once; the results do not depend on it. Four times as many leave the
processor's cache, and take half as long again."""


class Interval(NamedTuple):
    """A mean over `queries` queries and the ends of its confidence interval.

    NaN in all three where no query has a value; a single query is its own interval.
    """

    mean: float
    low: float
    high: float
    queries: int

    def rounded(self) -> "Interval":
        """Return the interval with its mean and ends rounded as means are."""
        mean, low, high = (round(each, MEAN_DECIMALS) for each in self[:3])
        return Interval(mean, low, high, self.queries)


def bootstrap_interval(values: Floats, draws: Uncertainty) -> Interval:
    """Return the mean of values and its percentile bootstrap interval, queries being redrawn.

    Efron, Tibshirani: An Introduction to the Bootstrap (1993), ch. 13; for IR measures Sakai
    (SIGIR 2006).

    Args:
        values: one per query, [queries]; NaN, where the measure is undefined, is left out.
        draws: how many times all queries are drawn again, with replacement; the share of the drawn
            means between the ends, such as 0.95; where the draws start.
    """
    return bootstrap_intervals(values[:, np.newaxis], draws)[0]


def bootstrap_intervals(values: Floats, draws: Uncertainty) -> list[Interval]:
    """Return what `bootstrap_interval` gives for each column of values, [queries, measures].

    Columns that are defined for the same queries share their draws, so this costs little more than
    one column does.
    """
    intervals = [Interval(np.nan, np.nan, np.nan, 0)] * values.shape[1]
    alike: dict[bytes, list[int]] = {}
    for column, defined in enumerate(~np.isnan(values.T)):
        alike.setdefault(defined.tobytes(), []).append(column)
    tails = (1 - draws.confidence) / 2
    for pattern, columns in alike.items():
        defined = np.frombuffer(pattern, dtype=bool)
        if not defined.any():
            continue
        chosen = values[np.ix_(defined, np.array(columns))]
        low, high = np.quantile(_redrawn_means(chosen, draws), [tails, 1 - tails], axis=0)
        for place, column in enumerate(columns):
            intervals[column] = Interval(
                float(chosen[:, place].mean()), float(low[place]), float(high[place]), len(chosen)
            )
    return intervals


def paired_randomisation(differences: Floats, draws: Uncertainty) -> float:
    """Return the two-sided p-value of a mean difference, by flipping the signs of differences.

    If two systems were alike, either could have had either value of a query: p is the share of
    sign patterns with a mean at least as far from 0 as the one seen (Fisher's randomisation test;
    Smucker et al., CIKM 2007). Where there are no more patterns than samples, all are counted; else
    the pattern seen counts as drawn, so that p is never 0 (Phipson, Smyth 2010).

    Args:
        differences: one per query, [queries]; NaN, where the measure is undefined, is left out.
        draws: how many sign patterns are drawn, and where the draws start.
    """
    # The sign of a tie changes nothing; without any difference p is 1.
    moved = differences[~np.isnan(differences) & (differences != 0)]
    if not len(moved):
        return 1.0
    # Sums that differ only by the order of summing must count as equal.
    far = abs(moved.sum()) - 1e-12 * np.abs(moved).sum()
    found = 0
    every: int = 2 ** len(moved)
    if every <= draws.samples:
        done = 0
        for size in _chunks(every, len(moved)):
            patterns = np.arange(done, done + size)[:, np.newaxis] >> np.arange(len(moved)) & 1
            found += int((np.abs(_flipped_sums(patterns, moved)) >= far).sum())
            done += size
        return found / every
    rng = np.random.Generator(np.random.PCG64(draws.seed))
    words = -(-len(moved) // 64)
    for size in _chunks(draws.samples, 64 * words):
        drawn = rng.integers(2**64, size=(size, words), dtype=np.uint64).astype("<u8")
        bits = np.unpackbits(drawn.view(np.uint8), axis=1, count=len(moved))
        found += int((np.abs(_flipped_sums(bits, moved)) >= far).sum())
    return (found + 1) / (draws.samples + 1)


def holm(p_values: Sequence[float], tests: int | None = None) -> list[float]:
    """Return the p-values, adjusted for being tested together.

    Whichever hypotheses are true, and however they depend on each other, the chance that any true
    one gets an adjusted p below alpha is at most alpha (Holm 1979).

    Args:
        p_values: of the hypotheses.
        tests: how many hypotheses there are, if there are more; the others count as p = 1. Who
            compares the best with all others gives the number of all pairs: which one is the best
            was seen in the same numbers. So p is never too small, whichever that is.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    together = len(p) if tests is None else tests
    stepped = p[order] * np.arange(together, together - len(p), -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in adjusted]


def _redrawn_means(values: Floats, draws: Uncertainty) -> Floats:
    """Return the means of redrawn queries, [samples, measures], values [queries, measures]."""
    rng = np.random.Generator(np.random.PCG64(draws.seed))
    rows = len(values)
    means = np.empty((draws.samples, values.shape[1]))
    done = 0
    for size in _chunks(draws.samples, rows):
        drawn = rng.integers(rows, size=(size, rows))
        drawn += np.arange(size)[:, np.newaxis] * rows
        # How often each query was drawn: one product with these gives every measure's sum.
        weights = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        means[done : done + size] = weights.astype(np.float64) @ values / rows
        done += size
    return means


def _flipped_sums(negative: NDArray[np.integer], differences: Floats) -> Floats:
    """Return the sum of the differences for each row of signs, [patterns, queries], 1 for minus."""
    sums: Floats = differences.sum() - 2 * (negative.astype(np.float64) @ differences)
    return sums


def _chunks(samples: int, cells: int) -> list[int]:
    """Split samples of `cells` cells each into pieces of `_CELLS` cells, or one sample, at most."""
    most = max(1, _CELLS // cells)
    return [min(most, samples - done) for done in range(0, samples, most)]
