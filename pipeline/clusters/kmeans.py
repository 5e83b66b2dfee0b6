"""Spherical k-means in two levels: clusters of a catalogue, and leaves within each cluster."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.clusters.directions import Directions
from pipeline.core.arrays import Floats32, Ints, Matrix, blocks, sampled_rows
from pipeline.core.faiss import faiss, faiss_threads
from pipeline.core.parallel import in_parallel

BLOCK_ROWS = 8_192
"""How many vectors are compared at once. It is fixed, so that no rounding depends on the shards."""

SAMPLE_PER_CENTROID = 256
"""How many vectors k-means sees of each centroid, at most: FAISS's own bound."""

ITERATIONS = 25
RESTARTS = 5
"""K-means starts this many times, and the best end is kept: one start may be an unlucky one."""


@dataclass(frozen=True)
class Clustering:
    """Which cluster and which leaf each product is in.

    Clusters are numbered by size, the largest first; the leaves of all clusters are numbered in
    the order of the clusters, and within one by size. None is empty.

    Attributes:
        cluster: of each product, int64 [products].
        leaf: of each product, int64 [products].
        cluster_of_leaf: int64 [leaves], ascending.
        nearness: the cosine of each product with the centroid of its leaf, float32 [products].
        centroids: of the leaves, float32 [leaves, dimension].
        without_direction: how many vectors equal the mean; nothing decides where these are.
    """

    cluster: Ints
    leaf: Ints
    cluster_of_leaf: Ints
    nearness: Floats32
    centroids: Matrix
    without_direction: int

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return int(self.cluster_of_leaf[-1]) + 1

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return len(self.cluster_of_leaf)


def default_clusters(products: int) -> int:
    """Return twice the cube root of the number of products, at most as many as products.

    That is 17 clusters for 600 products, 42 for 9,000 and 213 for 1.2 million: few enough to read.
    """
    return min(products, round(2 * math.cbrt(products)))


def default_leaf_size(products: int) -> int:
    """Return the square root of the number of products: 24 for 600, 1,095 for 1.2 million."""
    return round(math.sqrt(products))


def cluster_products(
    vectors: Directions, clusters: int, leaf_size: int, seed: int, threads: int
) -> Clustering:
    """Cluster products by their directions.

    Spherical k-means (Dhillon, Modha: Concept decompositions for large sparse text data using
    clustering, Machine Learning 2001) is trained on a seeded sample, and every product goes to the
    centroid with the largest cosine. Then each cluster is divided in the same way, into as many
    leaves as its size holds `leaf_size`. Centroids that get no product are dropped.

    The result is the same for any number of threads: training uses one thread, and threads share
    the assignment in blocks that are always the same.

    Args:
        vectors: the products'.
        clusters: how many clusters are looked for, at most the number of products.
        leaf_size: how many products a leaf is meant to hold.
        seed: decides the samples and where k-means starts.
        threads: how many may be used.
    """
    with threadpool_limits(1):
        centroids = train_clusters(vectors, clusters, seed)
        found, nearness, zero = _assign(vectors, lambda _: centroids, None, threads)
        cluster = _by_size(found)
        leaf_centroids = [
            _train_leaves(vectors, np.flatnonzero(cluster == number), leaf_size, seed)
            for number in range(cluster.max() + 1)
        ]
        found, nearness, zero = _assign(vectors, leaf_centroids.__getitem__, cluster, threads)
    leaf = _by_size(found, cluster)
    _, first = np.unique(leaf, return_index=True)
    places = zip(cluster[first], found[first], strict=True)
    of_leaves = np.stack([leaf_centroids[number][place] for number, place in places])
    return Clustering(cluster, leaf, cluster[first], nearness, of_leaves, zero)


def train_clusters(vectors: Directions, clusters: int, seed: int) -> Matrix:
    """Return the centroids of the clusters, trained on a sample, [clusters, dimension]."""
    rows = sampled_rows(vectors.rows, SAMPLE_PER_CENTROID * clusters, seed)
    return _train(vectors.take(rows), clusters, seed)


def _train_leaves(vectors: Directions, members: Ints, leaf_size: int, seed: int) -> Matrix:
    leaves = max(1, round(len(members) / leaf_size))
    drawn = sampled_rows(len(members), SAMPLE_PER_CENTROID * leaves, seed)
    return _train(vectors.take(members[drawn]), leaves, seed)


def nearest(block: Matrix, centroids: Matrix) -> tuple[Ints, Floats32]:
    """Return the centroid of the largest cosine for each vector, the first where some tie."""
    cosines = block @ centroids.T
    found = cosines.argmax(axis=1)
    return found, cosines[np.arange(len(block)), found]


def _train(sample: Matrix, clusters: int, seed: int) -> Matrix:
    """Return the centroids of spherical k-means, [clusters, dimension]; on one thread.

    FAISS moves a centroid without vectors beside that of a large cluster (`split_clusters`).
    """
    settings: Any = faiss.ClusteringParameters()
    settings.niter, settings.nredo, settings.seed = ITERATIONS, RESTARTS, seed
    settings.spherical = True
    settings.min_points_per_centroid = 1
    settings.max_points_per_centroid = SAMPLE_PER_CENTROID
    training: Any = faiss.Clustering(sample.shape[1], clusters, settings)
    with faiss_threads(1):
        training.train(np.ascontiguousarray(sample), faiss.IndexFlatIP(sample.shape[1]))
    return np.asarray(faiss.vector_to_array(training.centroids).reshape(clusters, -1))


def _assign(
    vectors: Directions, centroids: Callable[[int], Matrix], group: Ints | None, threads: int
) -> tuple[Ints, Floats32, int]:
    """Return each product's nearest centroid and the cosine, and how many have no direction.

    Args:
        vectors: the products'.
        centroids: returns those that the products of a group are compared with.
        group: the group of each product, None where all are in group 0.
        threads: how many may be used.
    """
    found = np.empty(vectors.rows, dtype=np.int64)
    cosines = np.empty(vectors.rows, dtype=np.float32)

    def assign(part: range) -> int:
        rows = np.asarray(part)
        block = vectors.take(rows)
        for number, places in _places_of_groups(None if group is None else group[rows], len(rows)):
            found[rows[places]], cosines[rows[places]] = nearest(block[places], centroids(number))
        return int((~block.any(axis=1)).sum())

    pieces = blocks(range(vectors.rows), BLOCK_ROWS)
    return found, cosines, sum(in_parallel(assign, pieces, threads))


def _places_of_groups(group: Ints | None, rows: int) -> Iterator[tuple[int, Ints]]:
    """Yield each group that some rows are of, and their places."""
    if group is None:
        yield 0, np.arange(rows)
        return
    order = np.argsort(group, kind="stable")
    numbers, starts = np.unique(group[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)


def _by_size(found: Ints, within: Ints | None = None) -> Ints:
    """Number groups anew by size, the largest first, ties by their first row; none is empty.

    Args:
        found: the group of each row; any numbers.
        within: the larger groups that the groups are of, numbered already; they come first.
    """
    outer = np.zeros_like(found) if within is None else within
    key = outer * (found.max() + 1) + found
    keys, first, inverse, sizes = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes, keys // (found.max() + 1)))
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return number[inverse]
