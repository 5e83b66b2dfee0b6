"""The expectations of a random order are what the real measures give, over all orders or many."""

import itertools
import math

import numpy as np
import pytest

from pipeline.core.params import Evaluate
from pipeline.core.tables import LABELS
from pipeline.evaluate import metrics, random_order
from pipeline.evaluate.judged_run import Judgements, judge
from pipeline.evaluate.metrics import PerQuery

E, S, C, I = range(4)  # noqa: E741 - the label's own name


def cutoffs(rng: np.random.Generator, deepest: int) -> Evaluate:
    """Random cutoffs, none beyond `deepest`."""

    def some() -> tuple[int, ...]:
        return tuple(sorted(set(rng.integers(1, deepest + 1, 2).tolist())))

    single = rng.integers(1, deepest + 1, 5).tolist()
    return Evaluate(
        ndcg=some(), recall=some(), judged=some(), mrr=single[0], precision=single[1],
        map=single[2], capped_recall=single[3], ndcg_judged_only=single[4],
    )  # fmt: skip


def counts(labels: list[int]) -> np.ndarray:
    """The label counts of one query, [1, labels]."""
    return np.bincount(np.array(labels, dtype=np.int64), minlength=len(LABELS))[np.newaxis]


def over_all_orders(
    findable: list[int], unfindable: list[int], products: int, depth: int, at: Evaluate
) -> PerQuery:
    """The mean of the real measures over every order of a catalogue: one query an order."""
    orders = np.array(list(itertools.permutations(range(products))))
    queries = len(orders)
    # The judged products are the first ones of the catalogue; others are beyond its end.
    judged = [*range(len(findable)), *range(products, products + len(unfindable))]
    judgements = Judgements.from_pairs(
        np.repeat(np.arange(queries), len(judged)),
        np.tile(np.array(judged, dtype=np.int64), queries),
        np.tile(np.array(findable + unfindable, dtype=np.int64), queries),
        queries,
    )
    run = orders[:, :depth]
    rows = np.repeat(np.arange(queries), run.shape[1])
    per_query = metrics.catalogue_measures(judge(rows, run.ravel(), judgements), at)
    return {name: values.mean() for name, values in per_query.items()}


def test_each_expectation_is_the_mean_over_all_orders_of_a_tiny_catalogue() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        products = int(rng.integers(1, 8))
        findable = rng.integers(0, 4, rng.integers(0, products + 1)).tolist()
        unfindable = rng.integers(0, 4, rng.integers(0, 3)).tolist()
        depth = int(rng.integers(1, products + 3))
        at = cutoffs(rng, depth)

        expected = over_all_orders(findable, unfindable, products, depth, at)
        ours = random_order.catalogue_measures(
            counts(findable), counts(findable + unfindable), products, depth, at
        )

        assert ours.keys() == expected.keys()
        for name, values in ours.items():
            np.testing.assert_allclose(values[0], expected[name], rtol=0, atol=1e-12, err_msg=name)


def test_the_expectations_of_the_pool_are_the_means_over_all_orders() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 4, rng.integers(1, 8)).tolist()
        orders = np.array(list(itertools.permutations(range(len(labels)))))
        rows = np.repeat(np.arange(len(orders)), len(labels))
        judgements = Judgements.from_pairs(
            rows, np.tile(np.arange(len(labels)), len(orders)), np.tile(labels, len(orders)),
            len(orders),
        )  # fmt: skip
        expected = metrics.pool_measures(judge(rows, orders.ravel(), judgements))

        ours = random_order.pool_measures(counts(labels))

        assert ours.keys() == expected.keys()
        for name, values in ours.items():
            np.testing.assert_allclose(
                values[0], expected[name].mean(), rtol=0, atol=1e-12, err_msg=name
            )


def test_drawn_orders_of_a_catalogue_come_near_the_expectations() -> None:
    rng = np.random.default_rng(11)
    products, depth, draws = 400, 120, 4_000
    findable = [E] * 9 + [S] * 5 + [C] * 2 + [I] * 6
    unfindable = [E, S, I]
    at = Evaluate(
        ndcg=(10, 100), recall=(10, 100), judged=(10, 100), mrr=10, precision=10, map=100,
        capped_recall=10, ndcg_judged_only=10,
    )  # fmt: skip
    judged = np.array([*range(len(findable)), products, products + 1, products + 2])
    judgements = Judgements.from_pairs(
        np.repeat(np.arange(draws), len(judged)),
        np.tile(judged, draws),
        np.tile(np.array(findable + unfindable), draws),
        draws,
    )
    run = np.argsort(rng.random((draws, products)), axis=1)[:, :depth]
    rows = np.repeat(np.arange(draws), depth)
    drawn = metrics.catalogue_measures(judge(rows, run.ravel(), judgements), at)

    ours = random_order.catalogue_measures(
        counts(findable), counts(findable + unfindable), products, depth, at
    )

    for name, values in drawn.items():
        error = values.std() / math.sqrt(draws)
        assert abs(values.mean() - ours[name][0]) <= 4.5 * error + 1e-12, name


def test_a_query_is_left_out_where_the_real_measure_leaves_it_out() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, (50, 4)) * (rng.random((50, 4)) < 0.4)
    extra = rng.integers(0, 2, (50, 4))
    at = cutoffs(rng, 20)
    pairs = [
        (row, number, label)
        for row, of_query in enumerate(labels)
        for number, label in enumerate(np.repeat(np.arange(4), of_query))
    ]
    pairs += [
        (row, 100 + number, label)
        for row, of_query in enumerate(extra)
        for number, label in enumerate(np.repeat(np.arange(4), of_query))
    ]
    rows, codes, drawn = np.array(pairs).T
    nothing = np.empty(0, dtype=np.int64)
    judgements = Judgements.from_pairs(rows, codes, drawn, 50)
    real = metrics.catalogue_measures(judge(nothing, nothing, judgements), at)

    ours = random_order.catalogue_measures(labels, labels + extra, 100, 20, at)

    for name, values in real.items():
        assert (np.isnan(values) == np.isnan(ours[name])).all(), name


def test_a_catalogue_as_large_as_escis_keeps_its_digits() -> None:
    products, depth = 1_215_851, 1_000
    findable = counts([E] * 20 + [S] * 15 + [I] * 5)
    at = Evaluate(
        ndcg=(10,), recall=(1_000,), judged=(10,), mrr=10, precision=10, map=100,
        capped_recall=10, ndcg_judged_only=10,
    )  # fmt: skip
    ours = random_order.catalogue_measures(findable, findable, products, depth, at)
    assert ours["recall@1000"][0] == pytest.approx(depth / products, rel=1e-12)
    # P(none of the 40 in the first 1,000), by whole numbers.
    none = math.comb(products - 40, depth) / math.comb(products, depth)
    first = random_order.ndcg_judged_only(findable, findable, products, depth, 1)[0]
    assert first == pytest.approx((1 - none) * (20 + 15 * 0.1) / 40, rel=1e-9)


def test_a_cutoff_beyond_the_catalogue_costs_and_says_what_that_of_its_size_does() -> None:
    findable = np.array([[1, 2, 0, 1], [3, 0, 0, 0]])
    small, huge = (
        (
            random_order.ndcg_judged_only(findable, findable, 9, 10**12, k),
            random_order.ndcg(findable, findable, 9, k),
        )
        for k in (9, 10**12)
    )
    np.testing.assert_array_equal(small, huge)
