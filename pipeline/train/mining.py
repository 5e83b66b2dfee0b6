"""Unjudged products near a query, which a model learns from as wrong ones.

Judged products are those that search engines found, so a model that sees no other never learns what
is far from a query. The base encoder ranks all products of a locale; those that nobody judged for
the query are taken as Irrelevant. Some of them are right. So the nearest may be left out.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS
from pipeline.core.trained import Mined
from pipeline.runs.ranking import places
from pipeline.train import streams
from pipeline.train.catalogue import rank_catalogue, units
from pipeline.train.pairs import Pairs

DEV_DEPTH = 20
"""How many of the base's first unjudged products a reranker's dev measure orders again.

All of them count as wrong, as in every measure of unjudged products. While a model learns, the
first are left out, since some are right.
"""


def draw_mined(
    pairs: Pairs, queries: Matrix, texts: Matrix, mined: Mined, seed: int, where: str
) -> tuple[Ints, Ints]:
    """Draw `mined.count` unjudged products of each query, from the places that `mined` names.

    Args:
        pairs: what there is to learn from.
        queries: the base's vectors of `pairs.queries`, float32.
        texts: those of `pairs.texts`.
        mined: how many, and from which places among the query's unjudged products; the first is 1.
        seed: decides which.
        where: the entry's key in params.yaml, for messages.

    Returns:
        Queries (`Pairs.group`), ascending, and products (`Pairs.product`).

    Raises:
        PipelineError: no query has a product at these places.
    """
    group, product = unjudged(pairs, queries, texts, mined.last)
    at = places(group)
    inside = at >= mined.first - 1
    group, product = group[inside], product[inside]
    if not len(group):
        raise PipelineError(
            f"{where}.mined.first: no query has an unjudged product at place {mined.first} "
            f"(found at most {int(at.max(initial=-1)) + 1}). Lower it."
        )
    order = np.lexsort((np.random.default_rng([seed, streams.MINED]).random(len(group)), group))
    drawn = np.sort(order[places(group[order]) < mined.count])
    return group[drawn], product[drawn]


def unjudged(pairs: Pairs, queries: Matrix, texts: Matrix, depth: int) -> tuple[Ints, Ints]:
    """Return each query's nearest `depth` products that were not judged for it.

    The same query or product under another id, and a query in other case, is the same one here.

    Returns:
        Queries (`Pairs.group`), ascending, and products (`Pairs.product`), the nearest first.
    """
    ranked = rank_catalogue(pairs, units(queries), units(texts), depth, judged=False)
    return ranked[:2]


def add_unjudged(pairs: Pairs, group: Ints, product: Ints) -> Pairs:
    """Add pairs that nobody judged, as Irrelevant; each is a query and a product of `pairs`."""
    added = len(group)
    irrelevant = np.full(added, LABELS.index("I"))
    columns = {
        "query": _first(pairs.group, pairs.query)[group],
        "text": pairs.text_of[product],
        "label": irrelevant,
        "group": group,
        "product": product,
        "locale": _first(pairs.group, pairs.locale)[group],
        "judged": np.zeros(added, np.bool_),
    }
    whole = {name: np.concatenate([getattr(pairs, name), each]) for name, each in columns.items()}
    order = np.lexsort((whole["product"], whole["group"]))
    ordered: dict[str, Any] = {name: each[order] for name, each in whole.items()}
    return replace(pairs, **ordered)


def add_as_if_mined(pairs: Pairs, mined: Mined) -> Pairs:
    """Add as many unjudged pairs as mining can, `mined.count` of every query, of any product.

    So what does not suffice then never does.
    """
    group = np.repeat(np.arange(pairs.queries_count()), mined.count)
    return add_unjudged(pairs, group, np.zeros(len(group), np.int64))


def _first(key: Ints, values: Ints) -> NDArray[np.int64]:
    """Return the value of each key, 0, 1, 2, … in its first row."""
    found: NDArray[np.int64] = values[np.unique(key, return_index=True)[1]]
    return found
