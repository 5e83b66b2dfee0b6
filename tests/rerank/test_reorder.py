"""What is scored is above what is not, in the total order of runs."""

import numpy as np
import pytest

from pipeline.rerank.reorder import in_window, reorder
from pipeline.runs import ranking


def made(rng: np.random.Generator) -> ranking.Ranked:
    sizes = rng.integers(0, 40, 12)
    rows = np.repeat(np.arange(12), sizes)
    codes = np.concatenate([rng.permutation(60)[:size] for size in sizes])
    return ranking.rank_pairs(rows, codes, rng.integers(0, 20, len(rows)) / 4)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_window_is_strictly_above_the_tail_which_keeps_its_order(
    scale: float, weight: float
) -> None:
    rng = np.random.default_rng(5)
    for depth in (1, 7, 1000):
        run = made(rng)
        inside = in_window(run, depth)
        scores = (rng.normal(size=int(inside.sum())) * scale).astype(np.float32).astype(np.float64)
        rows, codes, found = reorder(run, inside, scores, weight)
        stored = found.astype(np.float32).astype(np.float64)  # as a run file has them
        again = ranking.rank_pairs(rows, codes, stored)
        assert np.array_equal(again[1], codes), "the scores alone give the order, ties by id"
        for query in range(12):
            mine, old = codes[rows == query], run[1][run[0] == query]
            assert sorted(mine) == sorted(old)
            assert set(mine[:depth]) == set(old[:depth])
            assert mine[depth:].tolist() == old[depth:].tolist()
            tail = stored[rows == query]
            assert (np.diff(tail[depth - 1 :]) < 0).all(), "strictly"


def test_a_window_is_in_the_order_of_its_scores_rounded_and_ties_by_id() -> None:
    run = ranking.rank_pairs(np.zeros(4, int), np.array([3, 1, 2, 0]), np.array([4.0, 3, 2, 1]))
    scores = np.array([0.5, 0.50000001, 0.9, -2.0])
    _, codes, found = reorder(run, np.ones(4, bool), scores, 1.0)
    assert codes.tolist() == [2, 3, 1, 0]
    assert found.tolist() == pytest.approx([0.9, 0.5, 0.5, -2.0])


def test_a_weight_below_1_adds_the_scores_of_the_run_both_from_0_to_1() -> None:
    run = ranking.rank_pairs(np.zeros(3, int), np.array([5, 6, 7]), np.array([10.0, 6, 2]))
    _, codes, found = reorder(run, np.ones(3, bool), np.array([-8.0, 0, 8]), 0.75)
    assert dict(zip(codes.tolist(), found.tolist(), strict=True)) == pytest.approx(
        {5: 0.25, 6: 0.75 * 0.5 + 0.25 * 0.5, 7: 0.75}
    )


def test_queries_without_products_stay_without() -> None:
    run = ranking.rank_pairs(np.array([1, 1, 4]), np.array([0, 1, 0]), np.array([1.0, 2, 3]))
    rows, _, _ = reorder(run, in_window(run, 1), np.array([0.0, 0.0]), 1.0)
    assert rows.tolist() == [1, 1, 4]
    nothing = np.empty(0, int), np.empty(0, int), np.empty(0)
    assert [len(each) for each in reorder(nothing, np.empty(0, bool), np.empty(0), 0.5)] == [0] * 3
