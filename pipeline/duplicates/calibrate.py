"""The threshold of cosine: above it, most pairs are the same by their texts.

Cosines of encoders are not comparable: of minilm, 0.9 is a near neighbour; of E5, most products are
nearer than that. So each encoder's threshold comes from its own pairs. The texts decide, not the
labels: for one query, ESCI's labels differ even among products of equal texts, so no threshold is
precise by them (docs/similar.md has the measurement). The report says how often labels agree.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats

CALIBRATED = 10_000
"""Products whose neighbours the threshold is calibrated on, at most."""


class Threshold(NamedTuple):
    """The least cosine of duplicates, and what it rests on.

    `cosine` is None where no threshold is precise enough. `precision` is the share of the `above`
    pairs that are the same by their texts, of `pairs` that were looked at.
    """

    cosine: float | None
    precision: float | None
    above: int
    pairs: int


def find_threshold(cosines: Floats, same: NDArray[np.bool_], precision: float) -> Threshold:
    """Return the lowest cosine for which enough of the pairs at or above it are the same.

    Args:
        cosines: [pairs], of different texts that an encoder finds near.
        same: whether their texts are nearly the same, [pairs].
        precision: the share that must be.
    """
    order = np.argsort(-cosines, kind="stable")
    ranked = cosines[order]
    right = np.cumsum(same[order])
    shares = right / np.arange(1, len(ranked) + 1)
    # A threshold lets in all pairs of its cosine.
    last_of_tie = np.append(np.diff(ranked) != 0, True)[: len(ranked)]
    fit = np.flatnonzero((shares >= precision) & last_of_tie)
    if not fit.size:
        return Threshold(None, None, 0, len(ranked))
    at = int(fit[-1])
    return Threshold(float(ranked[at]), float(shares[at]), at + 1, len(ranked))
