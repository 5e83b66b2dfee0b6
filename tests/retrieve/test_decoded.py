"""Codes that are decoded and multiplied: what is found is what FAISS finds by the codes."""

import numpy as np
import pytest

from pipeline.core.arrays import Matrix
from pipeline.core.faiss import faiss
from pipeline.core.params import EdenIndex, Index, Similarity, Sq8Index
from pipeline.index.build import build_index
from pipeline.index.kinds import codes_of
from pipeline.retrieve import decoded, neighbours
from pipeline.vectors.lengths import to_index_form
from tests.helpers.artefacts import random_vectors, tie_heavy

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")
SQ8 = Sq8Index(kind="sq8")
INDEXES: tuple[Index, ...] = (SQ8, EdenIndex(kind="eden", bits=2))


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
    similarity: Similarity, settings: Index, monkeypatch: pytest.MonkeyPatch
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
    settings: Index, similarity: Similarity
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
            assert beyond[at] - scores[at].min() <= 1e-4 * longest**2
