"""Groups of duplicates, cut to stars: each member is a near duplicate of the one that is kept.

Groups of all that is connected would chain: A is like B, B is like C, and A and C differ. A greedy
cover by stars has no chains (Aslam, Pelekhov, Rus: The star clustering algorithm, 2004).
"""

import numpy as np

from pipeline.core.arrays import Ints


def cut_to_stars(first: Ints, second: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Return the members of all stars and the one that is kept for each, both [members].

    The node with the most near duplicates is the first centre, then the one with the longest text,
    then the first; its near duplicates that are in no star yet are its members. Where several nodes
    of a star are near duplicates of all others in it, the one with the longest text is kept, then
    the first. The order of the pairs does not matter.

    Args:
        first: nodes, [pairs]: each pair is of near duplicates, once, and of different nodes.
        second: the other node of each pair.
        lengths: how long the text of every node is, [nodes].

    Returns:
        Members, ascending by the kept one and then by themselves, the kept one among them.
    """
    nodes, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    near: list[set[int]] = [set() for _ in nodes]
    one, other = np.split(place, 2)
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    degrees = np.array([len(each) for each in near], dtype=np.int64)
    long = lengths[nodes]
    taken = np.zeros(len(nodes), dtype=bool)
    members: list[int] = []
    kept: list[int] = []
    for centre in np.lexsort((nodes, -long, -degrees)).tolist():
        star = [] if taken[centre] else [each for each in near[centre] if not taken[each]]
        if not star:
            continue
        star.append(centre)
        taken[star] = True
        whole = set(star)
        # Few nodes have as many near duplicates: only these are compared with the whole star.
        fit = [each for each in star if degrees[each] >= len(star) - 1]
        best = min(
            (each for each in fit if near[each].issuperset(whole - {each})),
            key=lambda each: (-long[each], each),
        )
        members += star
        kept += [best] * len(star)
    found, of = nodes[np.array(members, dtype=np.int64)], nodes[np.array(kept, dtype=np.int64)]
    order = np.lexsort((found, of))
    return found[order], of[order]
