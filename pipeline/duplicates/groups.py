"""From pairs of near duplicates to groups: products of equal texts go together."""

import numpy as np

from pipeline.core.arrays import Floats, Ints
from pipeline.duplicates.stars import cut_to_stars
from pipeline.duplicates.table import Groups
from pipeline.duplicates.texts import Distinct


def form_groups(distinct: Distinct, first: Ints, second: Ints, alike: Floats) -> Groups:
    """Return the groups of products; their cosines are left at 1.

    Args:
        distinct: which texts are equal. The first product with a text speaks for the others.
        first: the rows of such products, [pairs]: each pair is of near duplicates, and comes once.
        second: the other row of each pair, the higher one.
        alike: the similarity of their texts, [pairs].
    """
    total = len(distinct.first)
    speaker_kept = np.arange(total)
    members, kept = cut_to_stars(first, second, distinct.lengths)
    speaker_kept[members] = kept
    keeps = speaker_kept[distinct.first]
    sizes = np.bincount(keeps, minlength=total)
    product = np.flatnonzero(sizes[keeps] > 1)
    of = keeps[product]
    order = np.lexsort((product, product != of, of))
    product, of = product[order], of[order]
    equal = distinct.first[product] == distinct.first[of]
    text = np.ones(len(product))
    text[~equal] = _look_up(
        first, second, alike, distinct.first[product[~equal]], of[~equal], total
    )
    return Groups(product, of, np.ones(len(product)), text, equal)


def _look_up(
    first: Ints, second: Ints, values: Floats, one: Ints, other: Ints, total: int
) -> Floats:
    """Return the values of some of the pairs, whose rows are in any order."""
    keys = first * total + second
    order = np.argsort(keys)
    wanted = np.minimum(one, other) * total + np.maximum(one, other)
    return np.asarray(values[order[np.searchsorted(keys[order], wanted)]])
