"""Each query's nearest products, among all of its locale."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.arrays import Matrix
from pipeline.runs.ranking import SCORE_DECIMALS, Ranked, rank_pairs
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


def rank_catalogue(pairs: Pairs, queries: Matrix, texts: Matrix, depth: int) -> Ranked:
    """Rank each query's first products among all of its locale, by cosine.

    Args:
        pairs: the queries and the products.
        queries: the vectors of `pairs.queries`, of length 1 or 0, float32.
        texts: those of `pairs.texts`.
        depth: how many products a query has at least, if there are so many; products that tie with
            the last of these are there too.

    Returns:
        Queries (`Pairs.group`), products (`Pairs.product`) and scores.
    """
    parts = [rank_pairs(*part) for part in _nearest(pairs, queries, texts, depth)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _nearest(pairs: Pairs, queries: Matrix, texts: Matrix, depth: int) -> Iterator[Ranked]:
    """Yield the products that may be among a query's first, as (query, product, score)."""
    for locale in np.unique(pairs.locale):
        own = pairs.locale == locale
        groups, at = np.unique(pairs.group[own], return_index=True)
        products = np.flatnonzero(pairs.locale_of == locale)
        found = texts[pairs.text_of[products]]
        asked = queries[pairs.query[own][at]]
        last = min(depth, len(products)) - 1
        at_once = max(1, _SCORES_AT_ONCE // len(products))
        for start in range(0, len(groups), at_once):
            part = slice(start, start + at_once)
            scores = _multiply(asked[part], found).astype(np.float64).round(SCORE_DECIMALS)
            least = -np.partition(-scores, last, axis=1)[:, last]
            query, product = np.nonzero(scores >= least[:, None])
            yield groups[part][query], products[product], scores[query, product]


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
