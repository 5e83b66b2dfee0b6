"""Each query's nearest products, among all of its locale."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.runs.ranking import SCORE_DECIMALS, Ranked, places, rank_pairs
from pipeline.train import streams
from pipeline.train.pairs import Pairs

OTHERS = 5_000
"""How many products without a dev query the dev queries of a locale are searched among, at most.

The model reads them after each epoch, which costs a third of learning from as many. So with many
pairs an epoch costs little more, and with few these are all products that there are.
"""

_SCORES_AT_ONCE = 2**24


def draw_others(dev: pa.Table, among: pa.Table, seed: int) -> pa.Table:
    """Draw other products of the locales of the dev pairs, at most `OTHERS` of each.

    Args:
        dev: the dev pairs.
        among: pairs of both sides.
        seed: decides which.

    Returns:
        A row of `among` for each product.
    """
    drawn = np.zeros(len(among), np.bool_)
    ids = among["product_id"].to_numpy()
    for locale in dev["locale"].unique():
        known = dev.filter(pc.equal(dev["locale"], locale))["product_id"].unique()
        is_other = pc.invert(pc.is_in(among["product_id"], value_set=known))
        rows = np.flatnonzero(pc.and_(pc.equal(among["locale"], locale), is_other).to_numpy())
        _, first = np.unique(ids[rows], return_index=True)
        draw = np.random.default_rng([seed, streams.OTHERS])
        drawn[rows[draw.permutation(first)[:OTHERS]]] = True
    return among.filter(pa.array(drawn))


def rank_catalogue(
    pairs: Pairs, queries: Matrix, texts: Matrix, depth: int, *, judged: bool = True
) -> Ranked:
    """Rank each query's first products among all of its locale, by cosine.

    Args:
        pairs: the queries and the products.
        queries: the vectors of `pairs.queries`, of length 1 or 0, float32.
        texts: those of `pairs.texts`.
        depth: how many products a query has, if there are so many.
        judged: whether those are ranked too whose text was judged for the query.

    Returns:
        Queries (`Pairs.group`), products (`Pairs.product`) and scores.
    """
    parts = []
    for part in _nearest(pairs, queries, texts, depth, judged=judged):
        ranked = rank_pairs(*part)
        first = places(ranked[0]) < depth  # without those that tie with the last
        parts.append([column[first] for column in ranked])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _nearest(
    pairs: Pairs, queries: Matrix, texts: Matrix, depth: int, *, judged: bool
) -> Iterator[Ranked]:
    """Yield the products that may be among a query's first, as (query, product, score)."""
    left_out = None if judged else _judged_texts(pairs)
    for locale in np.unique(pairs.locale):
        own = pairs.locale == locale
        groups, at = np.unique(pairs.group[own], return_index=True)
        products = np.flatnonzero(pairs.locale_of == locale)
        found = texts[pairs.text_of[products]]
        vectors = queries[pairs.query[own][at]]
        last = min(depth, len(products)) - 1
        at_once = max(1, _SCORES_AT_ONCE // len(products))
        for start in range(0, len(groups), at_once):
            part = slice(start, start + at_once)
            scores = _multiply(vectors[part], found).astype(np.float64).round(SCORE_DECIMALS)
            if left_out is not None:
                of_query = [left_out[group] for group in groups[part].tolist()]
                _leave_out(scores, of_query, pairs.text_of[products], len(pairs.texts))
            least = -np.partition(-scores, last, axis=1)[:, last]
            least = np.maximum(least, np.finfo(np.float64).min)  # none that is left out
            query, product = np.nonzero(scores >= least[:, None])
            yield groups[part][query], products[product], scores[query, product]


def _judged_texts(pairs: Pairs) -> list[Ints]:
    """Return the texts that were judged for each query (`Pairs.group`), under any of its ids."""
    asked = pairs.asked()
    order = np.argsort(asked, kind="stable")
    of_asked = np.split(pairs.text[order], np.cumsum(np.bincount(asked))[:-1])
    first = np.unique(pairs.group, return_index=True)[1]
    return [of_asked[each] for each in asked[first].tolist()]


def _leave_out(
    scores: NDArray[np.float64], judged: Sequence[Ints], text_of: Ints, texts: int
) -> None:
    """Give products whose text was judged for a query the score -inf.

    Args:
        scores: shape [queries, products].
        judged: the texts that were judged for each query.
        text_of: the text of each product; shape [products].
        texts: how many texts there are.
    """
    is_judged = np.zeros(texts, np.bool_)
    for row, known in zip(scores, judged, strict=True):
        is_judged[known] = True
        row[is_judged[text_of]] = -np.inf
        is_judged[known] = False


def _multiply(queries: Matrix, products: Matrix) -> Matrix:
    """Return all products of two sets of vectors, [queries, products].

    By torch, on the threads of the training: numpy's last bits would depend on this machine's
    cores, and so might the epoch that is kept.
    """
    import torch

    found: Matrix = (torch.from_numpy(queries) @ torch.from_numpy(products).T).numpy()
    return found


def units(vectors: Matrix) -> Matrix:
    """Return vectors with length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Matrix = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found
