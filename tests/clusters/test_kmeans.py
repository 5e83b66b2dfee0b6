"""Clusters and leaves: whole, nested, nearest, and the same bytes each time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from pipeline.clusters.directions import Directions
from pipeline.clusters.kmeans import (
    Clustering,
    cluster_products,
    default_clusters,
    default_leaf_size,
    train_clusters,
)
from pipeline.core.arrays import Ints, Matrix
from pipeline.vectors.shards import ShardReader
from tests.helpers.artefacts import (
    LOCALE,
    params,
    random_vectors,
    tie_heavy,
    write_clean,
    write_embeddings,
)

Open = Callable[..., Directions]


@pytest.fixture
def directions(project: Path) -> Open:
    """Write vectors as embed would, and open them."""

    def write(vectors: Matrix, shard_rows: int = 100, dtype: str = "float32") -> Directions:
        write_clean(np.random.default_rng(0), len(vectors), 2)
        given = params({"embed.dtype": dtype})
        manifest = write_embeddings(given, vectors, vectors[:1].repeat(2, axis=0), shard_rows)
        return Directions(ShardReader(manifest, "products", LOCALE))

    return write


def planted(rng: np.random.Generator, groups: int, each: int) -> tuple[Matrix, Ints]:
    """Return vectors around some far directions, in random order, and the group of each."""
    group = rng.permutation(np.repeat(np.arange(groups), each))
    centres = 6 * random_vectors(rng, groups)
    return centres[group] + random_vectors(rng, len(group)), group


def cluster(
    vectors: Directions, clusters: int, leaf_size: int = 10, threads: int = 1
) -> Clustering:
    return cluster_products(vectors, clusters, leaf_size, 3, threads)


@pytest.mark.parametrize(
    "vectors",
    [
        random_vectors(np.random.default_rng(1), 150),
        tie_heavy(np.random.default_rng(2), 150),
        np.ones((40, 4), dtype=np.float32),
        np.ones((1, 4), dtype=np.float32),
        np.zeros((5, 4), dtype=np.float32),
        np.eye(2, 4, dtype=np.float32),
    ],
    ids=["random", "ties", "all equal", "one", "all zero", "two"],
)
def test_each_product_is_in_one_leaf_of_one_cluster_and_none_is_empty(
    vectors: Matrix, directions: Open
) -> None:
    wanted = default_clusters(len(vectors))
    found = cluster(directions(vectors), wanted)
    assert len(found.cluster) == len(found.leaf) == len(vectors)
    assert (found.cluster_of_leaf[found.leaf] == found.cluster).all()
    sizes, leaf_sizes = np.bincount(found.cluster), np.bincount(found.leaf)
    assert 1 <= len(sizes) == found.clusters <= wanted
    assert (sizes > 0).all()
    assert (leaf_sizes > 0).all()
    assert (np.diff(sizes) <= 0).all(), "the largest first"
    assert (np.diff(found.cluster_of_leaf) >= 0).all()
    within = np.diff(found.cluster_of_leaf) == 0
    assert (np.diff(leaf_sizes)[within] <= 0).all()
    distinct = len(np.unique(vectors, axis=0))
    assert found.without_direction == (len(vectors) if distinct == 1 else 0)
    assert found.clusters <= distinct


def test_far_groups_are_found(directions: Open) -> None:
    vectors, group = planted(np.random.default_rng(4), 7, 40)
    found = cluster(directions(vectors), 7, leaf_size=40)
    assert adjusted_mutual_info_score(group, found.cluster) == pytest.approx(1)
    assert found.leaves == 7
    parts = cluster(directions(vectors), 1, leaf_size=40)
    assert parts.clusters == 1
    assert adjusted_mutual_info_score(group, parts.leaf) > 0.9


def test_the_same_for_any_number_of_threads_and_any_shards(
    directions: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.clusters.kmeans.BLOCK_ROWS", 64)
    vectors = random_vectors(np.random.default_rng(5), 500)
    first = cluster(directions(vectors), 9)
    for threads, shard_rows in ((2, 100), (3, 37), (1, 500)):
        again = cluster(directions(vectors, shard_rows), 9, threads=threads)
        assert again.leaf.tobytes() == first.leaf.tobytes()
        assert again.nearness.tobytes() == first.nearness.tobytes()


def test_half_precision_gives_the_clusters_of_its_numbers(directions: Open) -> None:
    vectors = random_vectors(np.random.default_rng(6), 200)
    rounded = vectors.astype(np.float16).astype(np.float32)
    half = cluster(directions(vectors, dtype="float16"), 5)
    assert (half.leaf == cluster(directions(rounded), 5).leaf).all()


def test_each_product_is_in_the_cluster_of_its_nearest_centroid(directions: Open) -> None:
    vectors = random_vectors(np.random.default_rng(7), 300)
    opened = directions(vectors)
    centroids = train_clusters(opened, 6, seed=3)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    expected = (unit.astype(np.float64) @ centroids.T).argmax(axis=1)
    assert adjusted_mutual_info_score(expected, cluster(opened, 6).cluster) == pytest.approx(1)


def test_a_direction_is_the_vector_less_the_mean_at_length_one(directions: Open) -> None:
    vectors = 1e3 + random_vectors(np.random.default_rng(8), 130)
    taken = directions(vectors).take(np.arange(130))
    exact = vectors.astype(np.float64)
    exact -= exact.mean(axis=0)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(taken, exact, atol=1e-5)
    lengths = directions(np.array([[1, 0], [3, 0], [2, 0]], dtype=np.float32))
    assert lengths.take(np.arange(3)).tolist() == [[-1, 0], [1, 0], [0, 0]]


def test_there_are_never_more_clusters_than_products_and_few_to_read() -> None:
    counts = [default_clusters(products) for products in (1, 2, 3, 8, 600, 9_190, 1_200_000)]
    assert counts == [1, 2, 3, 4, 17, 42, 213]
    sizes = [default_leaf_size(products) for products in (1, 2, 600, 1_200_000)]
    assert sizes == [1, 1, 24, 1095]
