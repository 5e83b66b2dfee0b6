"""Judged pairs are ranked in pieces of a few bytes, whatever the dimension."""

import tracemalloc

import numpy as np
import pytest

from pipeline.core.params import Similarity
from pipeline.runs.ranking import rank_pairs
from pipeline.vectors import pairs
from pipeline.vectors.lengths import to_index_form

MOST = 4_000_000


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dimension", [32, 512])
def test_a_piece_takes_no_more_memory_at_a_higher_dimension(
    similarity: Similarity, dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    queries, products = (
        rng.standard_normal((rows, dimension)).astype(np.float32) for rows in (400, 4_000)
    )
    query = np.repeat(np.arange(400), 20)
    product = rng.integers(0, 4_000, len(query))
    monkeypatch.setattr(pairs, "BATCH_BYTES", MOST)
    tracemalloc.start()
    ranked = list(
        pairs.rank_judged(
            query,
            product,
            lambda rows: to_index_form(queries[rows], similarity, "queries"),
            lambda rows: to_index_form(products[rows], similarity, "products"),
            similarity,
            dimension,
        )
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * MOST
    compared = (to_index_form(each, similarity, "") for each in (queries, products))
    both = [
        each[rows].astype(np.float64) for each, rows in zip(compared, (query, product), strict=True)
    ]
    scores = (
        -((both[0] - both[1]) ** 2).sum(1) if similarity == "l2" else (both[0] * both[1]).sum(1)
    )
    for found, expected in zip(
        map(np.concatenate, zip(*ranked, strict=True)),
        rank_pairs(query, product, scores),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)
