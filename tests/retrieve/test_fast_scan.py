"""What fast scan leaves out is found, and what it finds stays as it is."""

from typing import Any

import numpy as np
import pytest

from pipeline.core.arrays import Matrix
from pipeline.core.faiss import faiss
from pipeline.core.params import Index, IvfPqFastscanIndex, PqFastscanIndex, Similarity
from pipeline.index.build import build_index
from pipeline.retrieve import neighbours
from pipeline.runs import ranking
from pipeline.search.nearest import nearest
from pipeline.vectors.lengths import to_index_form
from tests.helpers.artefacts import random_vectors

ROWS, DIMENSION = 500, 64
KINDS: list[Index] = [
    PqFastscanIndex(kind="pq-fastscan", subvectors=4),
    IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=5, probes=5, subvectors=4),
]
EACH_KIND = pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.kind)
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")


def decoded_scores(built: faiss.Index, queries: Matrix, similarity: Similarity) -> Matrix:
    """Return the scores of the decoded vectors, [queries, products]."""
    vectors = built.reconstruct_n(0, built.ntotal)
    if similarity == "l2":
        return np.asarray(-np.square(queries[:, None] - vectors).sum(axis=2))
    return np.asarray(queries @ vectors.T)


@EACH_KIND
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_where_all_products_are_asked_for_each_is_found_once_with_the_score_of_its_codes(
    settings: Index, similarity: Similarity
) -> None:
    rng = np.random.default_rng(0)
    products, queries = random_vectors(rng, ROWS, DIMENSION), random_vectors(rng, 60, DIMENSION)
    queries[::2, 8:] = 0  # sparse: many products tie at the least score
    built = build_index(settings, DIMENSION, similarity, [products])
    queries = to_index_form(queries, similarity, "queries")
    if similarity != "l2":  # FAISS leaves some out
        assert (built.search(queries, ROWS)[1] < 0).any()
    scores, codes = neighbours.search(built, queries, 1000)
    np.testing.assert_array_equal(np.sort(codes, axis=1), np.tile(np.arange(ROWS), (60, 1)))
    truth = np.take_along_axis(decoded_scores(built, queries, similarity), codes, axis=1)
    # A step of 255 for the widest table of the four; each table rounds by half a step.
    step = np.ptp(truth, axis=1, keepdims=True) / 255
    assert (np.abs(scores - truth) <= 2.5 * step + 1e-5).all()
    for at in range(60):
        pairs = list(zip(-scores[at], -codes[at], strict=True))
        assert pairs == sorted(pairs)


@EACH_KIND
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_what_is_found_among_some_products_is_the_whole_ranking_cut_down(
    settings: Index, similarity: Similarity
) -> None:
    rng = np.random.default_rng(1)
    products, queries = random_vectors(rng, ROWS, DIMENSION), random_vectors(rng, 10, DIMENSION)
    queries[::2, 8:] = 0
    built = build_index(settings, DIMENSION, similarity, [products])
    allowed = rng.random(ROWS) < 0.5
    for query in to_index_form(queries, similarity, "queries")[:, None]:
        every, order = neighbours.search(built, query, ROWS)
        scores, codes = nearest(built, query, ROWS, allowed)
        np.testing.assert_array_equal(codes, order[0][allowed[order[0]]])
        np.testing.assert_array_equal(scores, every[0][allowed[order[0]]])


@EACH_KIND
@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_where_all_products_tie_the_last_ones_are_found(
    settings: Index, similarity: Similarity
) -> None:
    rng = np.random.default_rng(2)
    products = random_vectors(rng, ROWS, DIMENSION)
    if similarity == "l2":
        products[:] = products[0]
    built = build_index(settings, DIMENSION, similarity, [products])
    query = np.zeros((1, DIMENSION), np.float32)
    scores, codes = neighbours.search(built, query, 20)
    np.testing.assert_array_equal(codes[0], np.arange(ROWS)[:-21:-1])
    expected = decoded_scores(built, query, similarity)[0, :20]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("similarity", ["dot", "l2"])
@pytest.mark.parametrize("kind", ["pq-fastscan", "ivf-pq-fastscan"])
def test_what_is_left_out_comes_last(kind: str, similarity: Similarity) -> None:
    subvectors = 257  # sums of 255 each fill 16 bits
    settings: Index = (
        PqFastscanIndex(kind="pq-fastscan", subvectors=subvectors)
        if kind == "pq-fastscan"
        else IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=1, probes=1, subvectors=subvectors)
    )
    products = np.arange(16, dtype=np.float32)[:, None] * np.ones((1, subvectors), np.float32)
    built = build_index(settings, subvectors, similarity, [products])
    query = np.full((1, subvectors), -1, np.float32)
    assert (built.search(query, 16)[1] == -1).sum() == 1
    scores, codes = neighbours.search(built, query, 16)
    np.testing.assert_array_equal(codes[0], np.arange(16))
    assert scores[0, 15] == decoded_scores(built, query, similarity)[0, 15]


def test_where_some_lists_are_searched_only_a_query_that_found_nothing_gets_others() -> None:
    rng = np.random.default_rng(3)
    products, queries = random_vectors(rng, ROWS, DIMENSION), random_vectors(rng, 9, DIMENSION)
    queries[4] = 0
    settings = IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=5, probes=1, subvectors=4)
    built: Any = build_index(settings, DIMENSION, "dot", [products])
    _, nearest_list = built.quantizer.search(products, 1)
    _, probed = built.quantizer.search(queries, 1)
    _, codes = neighbours.search(built, queries, ROWS)
    assert sorted(codes[4]) == list(range(ROWS))
    for at in np.delete(np.arange(9), 4):
        found = codes[at][codes[at] != ranking.NO_PRODUCT]
        own = np.flatnonzero(nearest_list[:, 0] == probed[at, 0])
        assert len(set(found.tolist())) == len(found)
        assert set(found.tolist()) <= set(own.tolist())
        assert len(own) - len(found) <= 1  # fast scan leaves out the least


@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_a_query_whose_lists_are_empty_finds_nothing(similarity: Similarity) -> None:
    rng = np.random.default_rng(4)
    products = random_vectors(rng, 64, DIMENSION)
    settings = IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=5, probes=1, subvectors=4)
    built: Any = build_index(settings, DIMENSION, similarity, [products])
    emptied = 2
    query = built.quantizer.reconstruct(emptied)[np.newaxis]
    own = np.flatnonzero(built.quantizer.search(products, 1)[1][:, 0] == emptied)
    assert own.size
    kept: Any = build_index(settings, DIMENSION, similarity, [products])
    kept.reset()
    kept.add(np.delete(products, own, axis=0))
    _, codes = neighbours.search(kept, query, 10)
    assert (codes == ranking.NO_PRODUCT).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_one_product_that_may_be_found_has_the_score_of_its_codes(
    similarity: Similarity,
) -> None:
    rng = np.random.default_rng(5)
    products = random_vectors(rng, ROWS, 384)
    settings = IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=5, probes=1, subvectors=192)
    built = build_index(settings, 384, similarity, [products])
    query = to_index_form(products[7:8], similarity, "queries")
    allowed = np.arange(ROWS) == 7
    every, order = neighbours.search(built, query, ROWS)
    scores, codes = nearest(built, query, 3, allowed)
    assert codes.tolist() == [7]
    assert scores[0] == every[0][order[0] == 7][0]
