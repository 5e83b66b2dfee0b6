"""Codes that are decoded and multiplied: what is found is what FAISS finds by the codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.arrays import Matrix
from pipeline.core.faiss import faiss
from pipeline.core.params import EdenIndex, Index, Similarity, Sq8Index
from pipeline.index.build import build_index
from pipeline.index.kinds import codes_of
from pipeline.retrieve import decoded, multiply, neighbours
from pipeline.vectors.lengths import LARGEST_COMPONENT, to_index_form
from tests.helpers.artefacts import random_vectors, tie_heavy

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")
SQ8 = Sq8Index(kind="sq8")
EDEN = EdenIndex(kind="eden", bits=2)
CASES: list[tuple[Index, Similarity, str]] = [
    *((SQ8, similarity, "floats") for similarity in SIMILARITIES),
    (EDEN, "cosine", "floats"),
    (EDEN, "dot", "floats"),
    (EDEN, "l2", "by FAISS"),
    (SQ8, "cosine", "integers"),
    (SQ8, "dot", "integers"),
]
"""Settings, a similarity, and how queries and codes are multiplied."""


@contextmanager
def multiplied(way: str) -> Iterator[None]:
    """Multiply in floats or in integers, whatever is faster; check that it was done, and how."""
    ways: set[str] = set()

    class Decoded(multiply.Decoded):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            ways.add("floats")

    class Integers(multiply.Integers):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            ways.add("integers")
            assert torch.get_num_threads() == 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded, "Decoded", Decoded)
        patch.setattr(decoded, "Integers", Integers)
        if way == "integers":
            in_integers(patch)
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        yield
        assert torch.get_num_threads() == 3
        torch.set_num_threads(before)
    assert ways <= {way, "floats"}  # what integers leave unsure is found in floats
    assert (way in ways) == (way != "by FAISS")


def in_integers(patch: pytest.MonkeyPatch, dimension: int = 48) -> None:
    """Let any search multiply integers, on any CPU that does it right."""
    if not multiply._multiplies_right(dimension):
        pytest.skip("PyTorch does not multiply integers of 8 bits on this CPU")
    patch.setattr(multiply, "cpu_flags", lambda: frozenset({multiply.INSTRUCTIONS}))
    patch.setattr(multiply, "LEAST_NUMBERS", 0)


def catalogues(rng: np.random.Generator) -> list[Matrix]:
    """Vectors of any length, many that tie, some nearly equal, and some with far outliers."""
    any_length = random_vectors(rng, 1500) * rng.uniform(0.1, 9, (1500, 1)).astype("f4")
    near = random_vectors(rng, 1, 48) + 1e-4 * random_vectors(rng, 1500, 48)
    ties = np.tile(tie_heavy(rng, 150), (10, 1))
    outliers = random_vectors(rng, 1500)
    outliers[rng.integers(1500, size=40), rng.integers(48, size=40)] *= 300
    return [any_length, ties, near.astype(np.float32), outliers]


@pytest.mark.parametrize(("settings", "similarity", "way"), CASES, ids=str)
def test_many_queries_find_what_faiss_finds_by_the_codes_with_any_number_of_threads(
    settings: Index, similarity: Similarity, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "BLOCK_QUERIES", 33)  # the last part has one
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
                with multiplied(way):
                    found = neighbours.search(built, queries, depth)
                faiss.omp_set_num_threads(before)
                for mine, theirs in zip(found, expected, strict=True):
                    assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    ("settings", "similarity", "way"),
    [case for case in CASES if case[2] != "by FAISS" and case[:2] != (EDEN, "cosine")],
    ids=str,
)
def test_no_product_that_is_not_proposed_has_a_better_score_than_the_bound(
    settings: Index, similarity: Similarity, way: str
) -> None:
    for products in catalogues(np.random.default_rng(2)):
        queries = to_index_form(products[:64], similarity, "queries")
        if similarity == "dot":
            queries[0] = 0
        whole = build_index(settings, products.shape[1], similarity, [products])
        built, queries = codes_of(whole, queries)
        assert decoded.is_faster(built, queries, 40)
        longest = np.linalg.norm(products, axis=1).max()
        every, order = built.search(queries, len(products))
        every = -every if similarity == "l2" else every
        with multiplied(way):
            scores, rows, beyond = decoded.propose(built, queries, 40)
        for at in range(len(queries)):
            truth = np.empty(len(products), np.float32)
            truth[order[at]] = every[at]
            np.testing.assert_array_equal(scores[at], truth[rows[at]])
            assert np.delete(truth, rows[at]).max() <= beyond[at]
            assert beyond[at] - scores[at].min() <= 1e-4 * longest**2


@pytest.mark.parametrize(("queries", "dimension"), [(1, 2), (3, 7), (33, 48), (70, 1032)])
def test_products_of_integers_are_exact_and_what_they_lose_is_bounded(
    queries: int, dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_integers(monkeypatch, dimension)
    rng = np.random.default_rng(dimension)
    products = rng.standard_normal((500, dimension)).clip(-4, 4).astype(np.float32)
    products[0], products[1] = 4, -4  # codes of 255 and 0 alone: the largest sums
    products[:, 0] = 3  # a component without a range
    asked = rng.standard_normal((queries, dimension)).astype(np.float32)
    asked[0] = 1
    built: Any = build_index(SQ8, dimension, "dot", [products])
    multiplied = multiply.Integers(built, asked)
    ends = ((0, 301), (301, 499), (499, 500))
    found = np.concatenate([multiplied.products(*block) for block in ends], axis=1)
    longest = max(multiply.longest_code(built, *block) for block in ends)

    codes = faiss.vector_to_array(built.codes).reshape(500, dimension).astype(np.int64) - 128
    low, width = faiss.vector_to_array(built.sq.trained).reshape(2, -1).astype(np.float64)
    weights = asked * (width / 255)
    unit = np.abs(weights).max(axis=1, keepdims=True) / 127
    whole = np.rint(weights / unit).astype(np.int64)
    np.testing.assert_array_equal(found, whole @ codes.T)
    true = asked @ (low + (codes + 128.5) / 255 * width).T
    estimated = np.stack([multiplied.estimate(column) for column in found.T], axis=1)
    lost = multiplied.lost[:, np.newaxis] * longest
    assert (np.abs(true - estimated) <= lost + 1e-6 * np.abs(true).max()).all()
    assert lost.max() < 0.1 * np.abs(true).max()


def test_vectors_as_large_as_allowed_are_found_in_integers() -> None:
    products = random_vectors(np.random.default_rng(8), 800) * np.float32(LARGEST_COMPONENT / 8)
    built = build_index(SQ8, products.shape[1], "dot", [products])
    expected = neighbours.search(built, products[:40], 20)
    with multiplied("integers"):
        found = neighbours.search(built, products[:40], 20)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_only_a_long_search_multiplies_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    built = build_index(SQ8, 48, "dot", [random_vectors(rng, 400)])
    eden = build_index(EDEN, 48, "dot", [random_vectors(rng, 400)])
    far = build_index(SQ8, 48, "l2", [random_vectors(rng, 400)])
    monkeypatch.setattr(multiply, "cpu_flags", lambda: frozenset({multiply.INSTRUCTIONS}))
    monkeypatch.setattr(multiply, "_multiplies_right", lambda dimension: True)
    few = (multiply.LEAST_NUMBERS - 1) // (48 * 400)
    assert multiply.is_faster_in_integers(built, few + 1)
    assert not multiply.is_faster_in_integers(built, few)
    for other in (codes_of(eden, random_vectors(rng, 1))[0], far):
        assert not multiply.is_faster_in_integers(other, few + 1)
    with monkeypatch.context() as patched:
        patched.setattr(multiply, "_multiplies_right", lambda dimension: False)
        assert not multiply.is_faster_in_integers(built, few + 1)
    for components, fit in ((1032, True), (1033, False)):
        wide = build_index(SQ8, components, "dot", [random_vectors(rng, 40, components)])
        assert multiply.is_faster_in_integers(wide, few + 1) == fit
    others = frozenset({"avx_vnni", "amx_int8", "avx512f", "avx2"})
    monkeypatch.setattr(multiply, "cpu_flags", lambda: others)
    assert not multiply.is_faster_in_integers(built, few + 1)


def test_a_wrong_product_of_integers_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    in_integers(monkeypatch)
    right, check = multiply._multiply, multiply._multiplies_right.__wrapped__
    assert check(48)
    monkeypatch.setattr(multiply, "_multiply", lambda *lists: right(*lists) + 1)
    assert not check(48)
