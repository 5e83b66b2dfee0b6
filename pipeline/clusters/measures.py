"""What clusters are worth: by the labels, and by another seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score
from threadpoolctl import threadpool_limits

from pipeline.clusters.directions import Directions
from pipeline.clusters.kmeans import nearest, train_clusters
from pipeline.core.arrays import Floats, Ints, sampled_rows
from pipeline.runs.ranking import find_pairs

STABILITY_SAMPLE = 8_192


@dataclass(frozen=True)
class PairShares:
    """By query, the share of its pairs of products that are in one group; NaN where it has none.

    Attributes:
        exact: of pairs of two Exact products.
        irrelevant: of pairs of an Exact and an Irrelevant product.
    """

    exact: Floats
    irrelevant: Floats


def chance(group: Ints) -> float:
    """Return the share of all pairs of products that are in one group.

    That is sum n (n - 1) / N (N - 1), about sum p^2: what pairs drawn at random give. NaN for a
    single product, which is in no pair.
    """
    sizes = np.bincount(group).astype(np.float64)
    total = len(group)
    return float((sizes * (sizes - 1)).sum() / (total * (total - 1))) if total > 1 else float("nan")


def pair_shares(
    group: Ints, queries: Ints, products: Ints, labels: NDArray[np.str_], number: int
) -> PairShares:
    """Return how often judged products of a query are in one group.

    Args:
        group: of each product, int64 [products].
        queries: the query of each judgement, from 0 to `number`.
        products: the product's row of each judgement.
        labels: E, S, C or I of each judgement.
        number: how many queries there are.
    """
    groups = int(group.max()) + 1
    exact, irrelevant = (
        _counts(queries[labels == label] * groups + group[products[labels == label]])
        for label in ("E", "I")
    )
    keys, of_exact = exact
    query = keys // groups
    exacts = np.bincount(query, of_exact, minlength=number)
    together = np.bincount(query, of_exact * (of_exact - 1), minlength=number)
    # Irrelevant products in the groups of the Exact ones.
    others, of_irrelevant = irrelevant
    place = find_pairs(query, keys % groups, others // groups, others % groups)
    here = np.zeros(len(keys))
    here[place >= 0] = of_irrelevant[place[place >= 0]]
    irrelevants = np.bincount(others // groups, of_irrelevant, minlength=number)
    mixed = np.bincount(query, of_exact * here, minlength=number)
    with np.errstate(invalid="ignore", divide="ignore"):
        return PairShares(together / (exacts * (exacts - 1)), mixed / (exacts * irrelevants))


def stability(vectors: Directions, cluster: Ints, clusters: int, seed: int) -> float:
    """Return how much the clusters agree with those of the next seed, by AMI.

    Adjusted mutual information (Vinh, Epps, Bailey, JMLR 2010): 1 for the same clusters, about 0
    for independent ones. It is over `STABILITY_SAMPLE` products, or all if there are fewer.

    Args:
        vectors: the products'.
        cluster: of each product.
        clusters: how many were looked for.
        seed: that of the clusters.
    """
    rows = sampled_rows(vectors.rows, STABILITY_SAMPLE, seed)
    with threadpool_limits(1):
        other, _ = nearest(vectors.take(rows), train_clusters(vectors, clusters, seed + 1))
        return float(adjusted_mutual_info_score(cluster[rows], other))


def _counts(keys: Ints) -> tuple[Ints, Ints]:
    return np.unique(keys, return_counts=True)
