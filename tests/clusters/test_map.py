"""The map: near products are similar, and it is the same each time."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.clusters.directions import Directions
from pipeline.clusters.map import draw_map, place_among
from pipeline.core.arrays import Matrix
from pipeline.vectors.shards import ShardReader
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings


def opened(vectors: Matrix) -> Directions:
    write_clean(np.random.default_rng(0), len(vectors), 1)
    manifest = write_embeddings(params(), vectors, vectors[:1])
    return Directions(ShardReader(manifest, "products", LOCALE))


@pytest.mark.slow
def test_neighbours_on_the_map_are_similar_with_and_without_tsne(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.clusters.map.LANDMARKS", 120)
    monkeypatch.setattr("pipeline.clusters.map._BLOCK_ROWS", 64)
    rng = np.random.default_rng(3)
    group = rng.integers(0, 5, 400)
    vectors = 5 * random_vectors(rng, 5)[group] + random_vectors(rng, 400)
    directions = opened(vectors)
    places, landmarks = draw_map(directions, 3, 1)
    assert places.min() >= 0
    assert places.max() <= 1
    assert len(landmarks) == 120
    far = np.linalg.norm(places[:, None] - places[landmarks], axis=2)
    far[landmarks, np.arange(120)] = np.inf
    assert (group[landmarks[far.argmin(axis=1)]] == group).mean() > 0.97
    again, _ = draw_map(directions, 3, 3)
    assert again.tobytes() == places.tobytes(), "for any number of threads"


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_a_few_different_vectors_are_apart_on_the_map(distinct: int, project: Path) -> None:
    which = np.arange(12) % distinct
    places, _ = draw_map(opened(np.eye(3, 8, dtype=np.float32)[which]), 3, 1)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == distinct
    assert len(np.unique(np.column_stack([places, which]), axis=0)) == distinct


def test_a_product_is_between_its_nearest_landmarks_and_nearer_to_the_nearer() -> None:
    landmarks = np.eye(8, dtype=np.float32)
    places = np.column_stack([np.arange(8), np.zeros(8)]).astype(np.float32)
    block = np.array([[0.9, 0.3, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]], dtype=np.float32)
    placed = place_among(block, landmarks, places)
    expected = np.array([[0.3 / 1.2, 0], [7, 0]])
    np.testing.assert_allclose(placed, expected, atol=1e-6)
    same = place_among(np.zeros((1, 8), dtype=np.float32), landmarks, places)
    np.testing.assert_allclose(same, [[2, 0]], atol=1e-6)  # of the first five, all as near
