"""What the labels say of similarity: products that are Exact for a query, and those beside them.

Two products that are both Exact for one query answer the same need, so they are similar; a product
that is Exact and its query's Substitutes less so, its Complements and Irrelevant ones least. A
product is compared with the judged products of its query alone.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.core.arrays import Floats, Ints, sampled_rows
from pipeline.core.params import MEASURED_NEIGHBOURS
from pipeline.core.tables import LABELS
from pipeline.evaluate.judged_run import Judgements
from pipeline.runs import ranking

MOST_QUERIES = 1_000
"""How many queries are evaluated, at most: a mean of 0.5 is then known to about 0.02."""

MOST_ANCHORS = 5
"""How many Exact products of a query are compared with its others, at most."""

SEED = 31

LEVELS = np.array([2, 1, 0, 0])
"""How similar a product with each of `LABELS` is to an Exact one of the query."""

PLACES = MEASURED_NEIGHBOURS
"""The first neighbours that are counted."""

ORDERS = {"concordance": None, "e_over_s": (2, 1), "e_over_ci": (2, 0), "s_over_ci": (1, 0)}
"""The measures of order: of which two levels, None for all levels."""

COUNTS = (f"precision@{PLACES}", f"precision_judged_only@{PLACES}", f"judged@{PLACES}")
"""The measures of the first neighbours."""

MEASURES = (*ORDERS, *COUNTS)


@dataclass(frozen=True)
class Anchors:
    """Exact products, each with the other judged products of its query.

    `query` [anchors] is the position of the query among the `queries` evaluated, ascending; `row`
    [anchors] the product. `starts` [anchors + 1] bounds each anchor's part of `others` (rows) and
    `levels` (of `LEVELS`). `eligible` is how many queries could be evaluated.
    """

    query: Ints
    row: Ints
    starts: Ints
    others: Ints
    levels: Ints
    queries: int
    eligible: int

    def __len__(self) -> int:
        """Return the number of anchors."""
        return len(self.row)

    def part(self, anchor: int) -> slice:
        """Return where an anchor's part of `others` and `levels` is."""
        return slice(int(self.starts[anchor]), int(self.starts[anchor + 1]))


def draw_anchors(pool: Judgements) -> Anchors:
    """Draw queries, and Exact products of each, from the judgements of products with a text.

    A query is eligible if it has an Exact product and another judged one.
    """
    counts = pool.label_counts()
    fit = np.flatnonzero((counts[:, 0] > 0) & (counts.sum(axis=1) > 1))
    chosen = fit[sampled_rows(len(fit), MOST_QUERIES)]
    query, row, starts, others, levels = [], [], [0], [], []
    for place, position in enumerate(chosen):
        mine = slice(int(pool.starts[position]), int(pool.starts[position + 1]))
        codes, labels = pool.codes[mine], pool.labels[mine]
        exact = np.flatnonzero(labels == LABELS.index("E"))
        drawn = np.random.default_rng([SEED, int(position)]).permutation(len(exact))
        for at in exact[np.sort(drawn[:MOST_ANCHORS])]:
            query.append(place)
            row.append(codes[at])
            others.append(np.delete(codes, at))
            levels.append(LEVELS[np.delete(labels, at)])
            starts.append(starts[-1] + len(codes) - 1)
    empty = [np.empty(0, np.int64)]
    return Anchors(
        np.array(query, dtype=np.int64),
        np.array(row, dtype=np.int64),
        np.array(starts, dtype=np.int64),
        np.concatenate(others or empty),
        np.concatenate(levels or empty),
        len(chosen),
        len(fit),
    )


def measure(anchors: Anchors, scores: Floats, found: Ints) -> dict[str, Floats]:
    """Return each measure query by query, [queries]: the mean over the query's anchors.

    NaN where no anchor of the query has both levels, or a second Exact product.

    Args:
        anchors: what is compared.
        scores: the similarity of each anchor and each of its others, as `Anchors.others`.
        found: each anchor's nearest products, [anchors, any]; `ranking.NO_PRODUCT` fills.
    """
    values = np.full((len(anchors), len(MEASURES)), np.nan)
    for anchor in range(len(anchors)):
        part = anchors.part(anchor)
        levels = anchors.levels[part]
        orders = _concordances(scores[part], levels)
        values[anchor] = *orders, *_counts(found[anchor, :PLACES], anchors.others[part], levels)
    return _by_query(anchors, values)


def measure_random(anchors: Anchors, products: int) -> dict[str, Floats]:
    """Return what a random order of `products` is expected to give, exactly, as `measure` does."""
    values = np.full((len(anchors), len(MEASURES)), np.nan)
    for anchor in range(len(anchors)):
        levels = anchors.levels[anchors.part(anchor)]
        orders = _concordances(np.zeros(len(levels)), levels)  # a tie counts half
        exact, judged = int((levels == LEVELS[0]).sum()), len(levels)
        counts = [np.nan] * 3
        if exact:
            shown = min(PLACES, products - 1) / PLACES
            counts = [shown * exact / (products - 1), exact / judged, judged / (products - 1)]
        values[anchor] = *orders, *counts
    return _by_query(anchors, values)


def _concordances(scores: Floats, levels: Ints) -> list[float]:
    """Return the share of pairs of different levels that are scored in the order of their levels.

    A tie counts half (Harrell et al., 1982; for two levels it is the area under the ROC curve).
    One value for each of `ORDERS`, NaN without a pair.
    """
    rounded = np.round(scores, ranking.SCORE_DECIMALS)
    higher = levels[:, np.newaxis] > levels
    right = np.sign(rounded[:, np.newaxis] - rounded) / 2 + 0.5
    found = []
    for pair in ORDERS.values():
        counted = higher
        if pair is not None:
            counted = (levels[:, np.newaxis] == pair[0]) & (levels == pair[1])
        found.append(float(right[counted].mean()) if counted.any() else np.nan)
    return found


def _counts(found: Ints, others: Ints, levels: Ints) -> list[float]:
    """Return the values of `COUNTS` of one anchor; NaN without a second Exact product."""
    exact = others[levels == LEVELS[0]]
    if not len(exact):
        return [np.nan] * 3
    hits, judged = np.isin(found, exact).sum(), np.isin(found, others).sum()
    retrieved = max(1, int((found != ranking.NO_PRODUCT).sum()))
    return [hits / PLACES, hits / judged if judged else np.nan, judged / retrieved]


def _by_query(anchors: Anchors, values: Floats) -> dict[str, Floats]:
    """Return the mean over each query's anchors that have a value, [queries] per measure."""
    found = {}
    for name, column in zip(MEASURES, values.T, strict=True):
        has = ~np.isnan(column)
        sums = np.bincount(anchors.query[has], column[has], minlength=anchors.queries)
        counts = np.bincount(anchors.query[has], minlength=anchors.queries)
        found[name] = np.where(counts, sums / np.maximum(counts, 1), np.nan)
    return found
