"""Exact means exact: l2 search of near-equal vectors against brute force in float64."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.arrays import Matrix
from pipeline.core.faiss import faiss
from pipeline.core.params import FlatIndex, Sq8Index
from pipeline.index.build import build_index
from pipeline.index.card import write_index
from pipeline.retrieve import exact_l2, neighbours
from pipeline.runs import ranking
from pipeline.vectors.pairs import l2_scores

FLAT = FlatIndex(kind="flat")

DIMENSION = 256
"""FAISS 1.15 sums in float32 from 128,000 components of queries on, or of 10,000 products where
one query is searched by several threads."""


def near_equal(rng: np.random.Generator, rows: int, dimension: int, apart: float) -> Matrix:
    """Return unit vectors around one of three directions, at about so much from it."""
    centres = rng.standard_normal((3, dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    noise = rng.standard_normal((rows, dimension)) * apart / dimension**0.5
    vectors: Matrix = (centres[rng.integers(3, size=rows)] + noise).astype(np.float32)
    return vectors


def brute_force(products: Matrix, queries: Matrix, depth: int) -> list[list[int]]:
    """Return the first rows by float64 distances, equal ones (to 1e-6) by row, the last first."""
    rows = np.arange(len(products))
    found = []
    for query in queries.astype(np.float64):
        distances = np.square(products.astype(np.float64) - query).sum(axis=1).round(6)
        found.append(np.lexsort((-rows, distances))[:depth].tolist())
    return found


@pytest.mark.parametrize("queries", [1, 600])
@pytest.mark.parametrize(("apart", "length"), [(1e-3, 30), (0.014, 1), (0.3, 1)])
def test_exact_l2_is_exact_for_near_equal_vectors_however_many_queries_and_threads(
    queries: int, apart: float, length: int
) -> None:
    rng = np.random.default_rng(7)
    products = length * near_equal(rng, 10_500, DIMENSION, apart)
    wanted = products[rng.choice(len(products), queries)] + np.float32(apart / 400)
    flat = build_index(FLAT, DIMENSION, "l2", [products])
    checked = slice(0, queries, max(1, queries // 6))
    expected = brute_force(products, wanted[checked], 100)
    threads = faiss.omp_get_max_threads()
    try:
        for number in (1, 2):
            faiss.omp_set_num_threads(number)
            _, codes = neighbours.search(flat, wanted, 100)
            assert codes[checked].tolist() == expected
    finally:
        faiss.omp_set_num_threads(threads)
    shards = np.split(products, [1, 5_000])
    assert neighbours.exact_codes(shards, wanted, 100, "l2")[checked].tolist() == expected


def test_what_is_not_proposed_is_never_better_than_it_says() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        length = 10.0 ** rng.integers(-3, 9)
        products = (length * near_equal(rng, 500, 24, 10.0 ** rng.integers(-6, 1))).astype("f4")
        wanted = products[:20]
        scores, codes, beyond = exact_l2.propose(products, wanted, int(rng.integers(1, 500)))
        for row, query in enumerate(wanted):
            true = l2_scores(query, products)
            np.testing.assert_array_equal(scores[row], true[codes[row]])
            assert np.delete(true, codes[row]).max() <= beyond[row]


def test_where_all_products_tie_the_highest_codes_are_found() -> None:
    products = np.tile(np.array([[0.6, 0.8]], np.float32), (900, 1))
    flat = build_index(FLAT, 2, "l2", [products])
    scores, codes = neighbours.search(flat, products[:600], 5)
    assert (scores == 0).all()
    assert (codes == [899, 898, 897, 896, 895]).all()


def test_an_index_that_was_read_from_disk_finds_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    products, path = near_equal(rng, 800, 16, 0.01), tmp_path / "index"
    built = build_index(FLAT, 16, "l2", [products])
    write_index(built, path)
    mapped = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    for one, other in zip(
        neighbours.search(mapped, products, 50), neighbours.search(built, products, 50), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert ranking.NO_PRODUCT not in neighbours.search(mapped, products, 50)[1]


def test_the_overlap_of_another_index_is_with_the_exact_neighbours() -> None:
    rng = np.random.default_rng(8)
    products = near_equal(rng, 3_000, DIMENSION, 0.014)
    queries = products[rng.choice(len(products), 600)] + np.float32(0.014 / 400)
    coded = build_index(Sq8Index(kind="sq8"), DIMENSION, "l2", [products])
    _, found = neighbours.search(coded, queries, neighbours.OVERLAP_DEPTH)
    exact = np.array(brute_force(products, queries, neighbours.OVERLAP_DEPTH))
    measured = neighbours.index_overlap(coded, queries, [products], "l2")
    assert 0.5 < measured < 1
    assert measured == neighbours.overlap(found, exact)
