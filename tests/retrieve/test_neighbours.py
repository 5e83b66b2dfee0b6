"""Exact neighbours and overlap against brute force, ties and duplicates included."""

from typing import Any

import numpy as np
import pytest

from pipeline.core.arrays import Matrix
from pipeline.core.params import FlatIndex, HnswIndex, Index, IvfFlatIndex, IvfPqIndex, Similarity
from pipeline.index.build import build_index
from pipeline.retrieve import neighbours
from pipeline.retrieve.neighbours import (
    OVERLAP_DEPTH,
    exact_codes,
    index_overlap,
    overlap,
    search,
)
from pipeline.runs import ranking
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.pairs import score_pairs
from tests.helpers.artefacts import random_vectors, tie_heavy

SIMILARITIES: list[Similarity] = ["cosine", "dot", "l2"]


def in_shards(rng: np.random.Generator, products: Matrix) -> list[Matrix]:
    """Return the rows in order, cut at random places."""
    cuts = np.unique(rng.integers(1, len(products), 3))
    return np.split(products, cuts)


def brute_force(products: Matrix, query: Matrix, depth: int, similarity: Similarity) -> list[int]:
    """Return the first `depth` rows by the definition of the protocol's order."""
    scores = score_pairs(np.broadcast_to(query, products.shape), products, similarity)
    rounded = [round(float(score), ranking.SCORE_DECIMALS) for score in scores]
    return sorted(range(len(products)), key=lambda row: (-rounded[row], -row))[:depth]


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_exact_neighbours_are_those_of_brute_force_however_the_shards_are_cut(
    similarity: Similarity,
) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rows, depth = int(rng.integers(20, 400)), int(rng.integers(1, 150))
        products, queries = (
            tie_heavy(rng, count) if seed % 2 else random_vectors(rng, count, 6)
            for count in (rows, 15)
        )
        queries = to_index_form(queries, similarity, "queries")
        products[rows // 2 :] = products[: rows - rows // 2]  # every second one is a duplicate
        found = exact_codes(in_shards(rng, products), queries, depth, similarity)
        compared = to_index_form(products, similarity, "products")
        assert found.tolist() == [
            brute_force(compared, each, depth, similarity) for each in queries
        ]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("most", [1, 20_000, 300_000])
def test_where_all_products_tie_the_results_held_at_once_are_bounded_and_the_same(
    most: int, similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    products = np.tile(random_vectors(rng, 3, 6), (700, 1))
    queries = to_index_form(random_vectors(rng, 90, 6), similarity, "queries")
    flat = build_index(FlatIndex(kind="flat"), 6, similarity, [products])
    expected = search(flat, queries, 10)
    held: list[tuple[int, int]] = []
    searched, ranked = flat.search, ranking.rank_matrix

    def search_told(*given: Any) -> Any:
        scores, codes = searched(*given)
        held.append((len(scores), scores.nbytes + codes.nbytes))
        return scores, codes

    def rank_told(scores: Any, codes: Any) -> Any:
        held.append((len(scores), neighbours.RANKED_BYTES * scores.size))
        return ranked(scores, codes)

    monkeypatch.setattr(neighbours, "RESULT_BYTES", most)
    monkeypatch.setattr(flat, "search", search_told)
    monkeypatch.setattr(ranking, "rank_matrix", rank_told)
    found = search(flat, queries, 10)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(size <= most for rows, size in held if rows > 1)
    # As many as may be, not one by one.
    assert (max(rows for rows, _ in held) > 1) == (most > 1)


def test_overlap_is_the_mean_share_of_the_exact_ones_found_in_any_order() -> None:
    rng = np.random.default_rng(6)
    for _ in range(100):
        queries, depth, products = (int(n) for n in rng.integers((1, 1, 30), (8, 20, 40)))
        exact = np.array([rng.permutation(products)[:depth] for _ in range(queries)])
        found = np.array([rng.permutation(products)[:25] for _ in range(queries)])
        found[rng.random(found.shape) < 0.3] = ranking.NO_PRODUCT
        shares = [
            len(set(wanted) & set(got)) / depth
            for wanted, got in zip(exact.tolist(), found.tolist(), strict=True)
        ]
        assert overlap(found, exact) == round(float(np.mean(shares)), 5)
        assert overlap(rng.permuted(exact, axis=1), exact) == 1
        assert overlap(np.full_like(exact, ranking.NO_PRODUCT), exact) == 0


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_exact_search_overlaps_wholly_with_itself(similarity: Similarity) -> None:
    rng = np.random.default_rng(8)
    for make in (tie_heavy, lambda rng, rows: random_vectors(rng, rows, 6)):
        products, queries = make(rng, 500), to_index_form(make(rng, 40), similarity, "queries")
        flat = build_index(FlatIndex(kind="flat"), 6, similarity, [products])
        assert index_overlap(flat, queries, in_shards(rng, products), similarity) == 1


def test_fewer_products_than_100_are_all_found_by_exact_search() -> None:
    rng = np.random.default_rng(9)
    products, queries = random_vectors(rng, 60), random_vectors(rng, 5)
    flat = build_index(FlatIndex(kind="flat"), 48, "dot", [products])
    assert index_overlap(flat, queries, [products], "dot") == 1


def _overlaps(settings: list[Index], rng: np.random.Generator) -> list[float]:
    products, queries = random_vectors(rng, 1500), random_vectors(rng, 60)
    exact = exact_codes([products], queries, OVERLAP_DEPTH, "l2")
    return [
        overlap(search(build_index(each, 48, "l2", [products]), queries, OVERLAP_DEPTH)[1], exact)
        for each in settings
    ]


def test_more_probes_never_find_less_and_all_lists_find_everything() -> None:
    probes = [1, 2, 4, 8, 16]
    found = _overlaps(
        [IvfFlatIndex(kind="ivf-flat", lists=16, probes=each) for each in probes],
        np.random.default_rng(10),
    )
    assert found == sorted(set(found))
    assert found[-1] == 1


def test_a_wider_search_of_a_graph_and_finer_codes_find_more() -> None:
    narrow, wide, coarse, fine = _overlaps(
        [
            HnswIndex(kind="hnsw", m=4, ef_construction=20, ef_search=10),
            HnswIndex(kind="hnsw", m=4, ef_construction=20, ef_search=1000),
            IvfPqIndex(kind="ivf-pq", lists=4, probes=4, subvectors=12, bits=4),
            IvfPqIndex(kind="ivf-pq", lists=4, probes=4, subvectors=24, bits=8),
        ],
        np.random.default_rng(11),
    )
    assert narrow < wide
    assert coarse < fine < 1
