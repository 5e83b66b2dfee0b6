"""Codes that are decoded and multiplied: what is found is what FAISS finds by the codes."""

from typing import Any

import numpy as np
import pytest

from pipeline.core.arrays import Matrix
from pipeline.core.cpu import cpu_flags
from pipeline.core.faiss import faiss
from pipeline.core.params import EdenIndex, Index, Similarity, Sq8Index
from pipeline.index.build import build_index
from pipeline.index.kinds import codes_of
from pipeline.retrieve import decoded, multiply, neighbours
from pipeline.retrieve.multiply import Integers
from pipeline.vectors.lengths import to_index_form
from tests.helpers.artefacts import random_vectors, tie_heavy

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")
SQ8 = Sq8Index(kind="sq8")
INDEXES: tuple[Index, ...] = (SQ8, EdenIndex(kind="eden", bits=2))
HAS_INTEGERS = not multiply.INSTRUCTIONS.isdisjoint(cpu_flags())


@pytest.fixture(params=["floats", "integers"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How queries and codes are multiplied, wherever both ways can be taken."""
    if request.param == "integers":
        if not HAS_INTEGERS:
            pytest.skip("this CPU has no instructions for integers of 8 bits")
        monkeypatch.setattr(multiply, "LEAST_NUMBERS", 0)
    return str(request.param)


def catalogues(rng: np.random.Generator) -> list[Matrix]:
    """Vectors of any length, many that tie, some nearly equal, and some with far outliers."""
    any_length = random_vectors(rng, 1500) * rng.uniform(0.1, 9, (1500, 1)).astype("f4")
    near = random_vectors(rng, 1, 48) + 1e-4 * random_vectors(rng, 1500, 48)
    ties = np.tile(tie_heavy(rng, 150), (10, 1))
    outliers = random_vectors(rng, 1500)
    outliers[rng.integers(1500, size=40), rng.integers(48, size=40)] *= 300
    return [any_length, ties, near.astype(np.float32), outliers]


@pytest.mark.parametrize("settings", INDEXES, ids=lambda settings: settings.kind)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_many_queries_find_what_faiss_finds_by_the_codes_with_any_number_of_threads(
    similarity: Similarity, settings: Index, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "BLOCK_QUERIES", 30)
    monkeypatch.setattr(decoded, "BLOCK_PRODUCTS", 200)
    before = faiss.omp_get_max_threads()
    for products in catalogues(np.random.default_rng(1)):
        queries = to_index_form(products[:100] + products[100:200], similarity, "queries")
        built = build_index(settings, products.shape[1], similarity, [products])
        for depth in (1, 150):
            with monkeypatch.context() as patched:
                patched.setattr(decoded, "LEAST_QUERIES", 10**6)
                expected = neighbours.search(built, queries, depth)
            for threads in (1, 3):
                faiss.omp_set_num_threads(threads)
                found = neighbours.search(built, queries, depth)
                faiss.omp_set_num_threads(before)
                for mine, theirs in zip(found, expected, strict=True):
                    assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    ("settings", "similarity"), [*((SQ8, each) for each in SIMILARITIES), (INDEXES[1], "dot")],
    ids=str,
)  # fmt: skip
def test_no_product_that_is_not_proposed_has_a_better_score_than_the_bound(
    settings: Index, similarity: Similarity, way: str
) -> None:
    for products in catalogues(np.random.default_rng(2)):
        queries = to_index_form(products[:64], similarity, "queries")
        whole = build_index(settings, products.shape[1], similarity, [products])
        built, queries = codes_of(whole, queries)
        assert decoded.is_faster(built, queries, 40)
        longest = np.linalg.norm(products, axis=1).max()
        every, order = built.search(queries, len(products))
        every = -every if similarity == "l2" else every
        scores, rows, beyond = decoded.propose(built, queries, 40)
        for at in range(len(queries)):
            truth = np.empty(len(products), np.float32)
            truth[order[at]] = every[at]
            np.testing.assert_array_equal(scores[at], truth[rows[at]])
            assert np.delete(truth, rows[at]).max() <= beyond[at]
            slack = 1e-4 if way == "floats" else 0.1
            assert beyond[at] - scores[at].min() <= slack * longest**2


@pytest.mark.skipif(not HAS_INTEGERS, reason="this CPU has no instructions for integers of 8 bits")
@pytest.mark.parametrize(("queries", "dimension"), [(1, 2), (3, 7), (33, 48), (70, 1032)])
def test_integers_are_multiplied_without_loss_and_bound_the_products_of_floats(
    queries: int, dimension: int
) -> None:
    rng = np.random.default_rng(dimension)
    products = rng.standard_normal((500, dimension)).astype(np.float32)
    products[0], products[1] = 4, -4  # codes of 255 and 0 alone: the largest sums
    asked = rng.standard_normal((queries, dimension)).astype(np.float32)
    asked[0] = 1
    built: Any = build_index(SQ8, dimension, "dot", [products])
    multiplied = Integers(built, asked)
    found = np.concatenate([multiplied.products(0, 301), multiplied.products(301, 500)], axis=1)

    codes = faiss.vector_to_array(built.codes).reshape(500, dimension).astype(np.int64) - 128
    low, width = faiss.vector_to_array(built.sq.trained).reshape(2, -1).astype(np.float64)
    weights = asked * (width / 255)
    scale = np.abs(weights).max(axis=1, keepdims=True) / 127
    np.testing.assert_array_equal(found, np.rint(weights / scale).astype(np.int64) @ codes.T)
    true = asked @ (low + (codes + 128.5) / 255 * width).T
    most = np.stack([multiplied.most(column) for column in found.T], axis=1)
    assert (true <= most + 1e-9).all()
    assert (most - true).max() < 0.1 * np.abs(true).max()


def test_a_long_search_alone_multiplies_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    built = build_index(SQ8, 48, "dot", [random_vectors(rng, 400)])
    eden = build_index(INDEXES[1], 48, "dot", [random_vectors(rng, 400)])
    far = build_index(SQ8, 48, "l2", [random_vectors(rng, 400)])
    monkeypatch.setattr(multiply, "cpu_flags", lambda: frozenset({"avx512_vnni"}))
    monkeypatch.setattr(multiply, "_multiplies_right", lambda dimension: dimension == 48)
    few = (multiply.LEAST_NUMBERS - 1) // (48 * 400)
    assert multiply.is_faster_in_integers(built, few + 1)
    assert not multiply.is_faster_in_integers(built, few)
    for other in (codes_of(eden, random_vectors(rng, 1))[0], far):
        assert not multiply.is_faster_in_integers(other, few + 1)
    monkeypatch.setattr(multiply, "_multiplies_right", lambda dimension: False)
    assert not multiply.is_faster_in_integers(built, few + 1)
    monkeypatch.undo()
    monkeypatch.setattr(multiply, "cpu_flags", lambda: frozenset({"avx512f", "avx2"}))
    assert not multiply.is_faster_in_integers(built, few + 1)
