import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from pipeline.core.arrays import Floats
from pipeline.core.params import Uncertainty
from pipeline.evaluate import uncertainty
from pipeline.evaluate.uncertainty import (
    bootstrap_interval,
    bootstrap_intervals,
    holm,
    paired_randomisation,
)

DRAWS = Uncertainty(samples=1000, confidence=0.95, seed=17)


def of_seed(seed: int) -> Uncertainty:
    return DRAWS.model_copy(update={"seed": seed})


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def scores(rng: np.random.Generator, *shape: int) -> Floats:
    """Return values as measures have them: many 0 and 1, the rest between."""
    between: Floats = rng.beta(0.5, 0.7, shape)
    kind = rng.integers(0, 4, shape)
    return np.where(kind == 0, 0.0, np.where(kind == 1, 1.0, between))


def test_the_bootstrap_gives_what_scipy_gives_but_for_the_draws() -> None:
    for seed in range(2):
        rng = draw(seed)
        values = scores(rng, int(rng.integers(30, 300)))
        confidence = float(rng.choice([0.8, 0.9, 0.95]))

        draws = Uncertainty(samples=20_000, confidence=confidence, seed=seed)
        ours = bootstrap_interval(values, draws)
        theirs = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=20_000, confidence_level=confidence,
            method="percentile", rng=rng,
        )  # fmt: skip

        assert ours.mean == values.mean()
        assert ours.queries == len(values)
        # An end is a quantile of 20,000 draws: its error is a few hundredths of a standard error.
        error = values.std() / math.sqrt(len(values))
        assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.15 * error)
        assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.15 * error)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = draw(3)
    truth = scores(rng, 10**6).mean()
    trials, confidence = 600, 0.9
    draws = Uncertainty(samples=500, confidence=confidence, seed=17)
    intervals = bootstrap_intervals(scores(rng, 150, trials), draws)

    covered = sum(each.low <= truth <= each.high for each in intervals)
    # Four standard deviations of a binomial, and the percent that a percentile interval is short.
    slack = 4 * math.sqrt(confidence * (1 - confidence) / trials)
    assert confidence - slack - 0.01 <= covered / trials <= confidence + slack


def test_undefined_values_are_left_out_and_columns_change_nothing_for_each_other() -> None:
    for seed in range(5):
        rng = draw(seed)
        values = scores(rng, int(rng.integers(2, 200)), 5)
        values[rng.random(len(values)) < 0.3, 1:3] = np.nan
        values[:, 4] = np.nan

        together = bootstrap_intervals(values, DRAWS)

        for column in range(4):
            defined = values[~np.isnan(values[:, column]), column]
            alone = bootstrap_interval(defined, DRAWS)
            assert together[column] == pytest.approx(alone, abs=1e-12, nan_ok=True)
            assert together[column].queries == len(defined)
        assert together[4].queries == 0
        assert np.isnan(together[4][:3]).all()


def test_a_constant_and_a_single_query_have_an_interval_of_no_width() -> None:
    assert bootstrap_interval(np.full(40, 0.25), DRAWS) == (0.25, 0.25, 0.25, 40)
    assert bootstrap_interval(np.array([0.3]), DRAWS) == (0.3, 0.3, 0.3, 1)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    values = scores(draw(1), 80)
    differences = values - scores(draw(2), 80)

    first = bootstrap_interval(values, DRAWS)
    assert bootstrap_interval(values, DRAWS) == first
    assert bootstrap_interval(values, of_seed(18)) != first
    p = paired_randomisation(differences, DRAWS)
    assert paired_randomisation(differences, DRAWS) == p
    assert len({paired_randomisation(differences, of_seed(seed)) for seed in range(9)}) > 1


def test_the_pieces_that_the_draws_come_in_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = scores(draw(1), 301)
    differences = values - scores(draw(2), 301)
    whole = bootstrap_interval(values, DRAWS), paired_randomisation(differences, DRAWS)
    every_sign = paired_randomisation(differences[:9], DRAWS)

    for cells in (1, 301, 5000):
        monkeypatch.setattr(uncertainty, "_CELLS", cells)
        pieces = bootstrap_interval(values, DRAWS), paired_randomisation(differences, DRAWS)
        assert pieces[0] == pytest.approx(whole[0], abs=1e-12)
        assert pieces[1] == whole[1]
        assert paired_randomisation(differences[:9], DRAWS) == every_sign


@pytest.mark.slow
def test_memory_does_not_grow_with_the_sign_patterns_that_are_counted() -> None:
    differences = draw(1).normal(0, 1, 20)
    tracemalloc.start()
    try:
        paired_randomisation(differences, DRAWS.model_copy(update={"samples": 2**20}))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 60e6  # all patterns at once would be 160 MB


@pytest.mark.slow
def test_memory_does_not_grow_with_samples_times_queries() -> None:
    values = scores(draw(1), 20_000)
    tracemalloc.start()
    try:
        bootstrap_intervals(np.stack([values] * 3, axis=1), DRAWS)
        paired_randomisation(values - 0.5, DRAWS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 60e6  # all draws at once would be 160 MB


def test_the_randomisation_test_gives_what_scipy_gives_but_for_the_draws() -> None:
    for seed in range(2):
        rng = draw(seed)
        queries = int(rng.integers(30, 300))
        a = scores(rng, queries)
        kept = rng.random(queries) < 0.5
        b = np.where(kept, a, np.clip(a - rng.normal(0.03, 0.3, queries), 0, 1))

        ours = paired_randomisation(a - b, Uncertainty(samples=20_000, confidence=0.95, seed=seed))
        theirs = scipy.stats.permutation_test(
            (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False,
            n_resamples=5_000, rng=rng,
        ).pvalue  # fmt: skip

        error = math.sqrt(theirs * (1 - theirs) / 5_000) + 1 / 5_000
        assert ours == pytest.approx(theirs, abs=5 * error)


def test_few_differences_are_enumerated_and_the_p_value_is_exact() -> None:
    for seed in range(10):
        rng = draw(seed)
        moved = np.round(rng.normal(0.1, 0.3, int(rng.integers(1, 9))), 1)
        differences = rng.permutation(np.concatenate([moved, np.zeros(30), [np.nan] * 3]))

        whole = np.round(moved * 10).astype(int)  # in integers: no rounding to excuse
        sums = [abs(sum(signs)) for signs in itertools.product(*((d, -d) for d in whole))]
        exact = np.mean([each >= abs(whole.sum()) for each in sums])

        assert paired_randomisation(differences, of_seed(seed)) == pytest.approx(exact)


def test_without_a_difference_p_is_1_and_it_is_never_0() -> None:
    assert paired_randomisation(np.zeros(50), DRAWS) == 1
    assert paired_randomisation(np.array([np.nan, 0.0]), DRAWS) == 1
    assert paired_randomisation(np.array([]), DRAWS) == 1
    assert paired_randomisation(np.full(50, 0.1), DRAWS) == 1 / 1001


def test_the_sign_of_the_difference_does_not_matter() -> None:
    differences = scores(draw(4), 70) - scores(draw(5), 70)
    p = paired_randomisation(differences, DRAWS)
    assert paired_randomisation(-differences, DRAWS) == p


def test_a_true_null_is_rejected_as_often_as_alpha_says() -> None:
    rng = draw(6)
    trials, alpha = 600, 0.1
    draws = [Uncertainty(samples=500, confidence=0.95, seed=trial) for trial in range(trials)]
    p = [paired_randomisation(scores(rng, 60) - scores(rng, 60), each) for each in draws]
    share = np.mean(np.array(p) <= alpha)
    assert abs(share - alpha) < 4 * math.sqrt(alpha * (1 - alpha) / trials)


def plain_holm(p_values: list[float]) -> list[float]:
    """Step down as Holm (1979) says, one hypothesis after the other."""
    left = sorted(range(len(p_values)), key=lambda each: p_values[each])
    adjusted, least = [0.0] * len(p_values), 0.0
    while left:
        least = max(least, min(1.0, p_values[left[0]] * len(left)))
        adjusted[left.pop(0)] = least
    return adjusted


def test_holm_is_what_stepping_down_gives() -> None:
    for seed in range(20):
        rng = draw(seed)
        p = np.round(rng.random(int(rng.integers(1, 30))) ** 3, 2).tolist()  # with ties

        assert holm(p) == pytest.approx(plain_holm(p))
        assert all(before <= after <= 1 for before, after in zip(p, holm(p), strict=True))
        order = rng.permutation(len(p))
        assert [holm(p)[i] for i in order] == pytest.approx(holm([p[i] for i in order]))


def test_tests_without_a_p_count_as_1_in_holms_adjustment() -> None:
    assert holm([0.01, 0.001], 3) == pytest.approx([0.02, 0.003])
    rng = np.random.default_rng(5)
    for number in range(1, 9):
        p = [float(value) for value in rng.random(number) / 50]
        adjusted = holm(p, number + 7)
        assert adjusted == pytest.approx(plain_holm([*p, *[1.0] * 7])[:number])
        assert all(mine >= own for mine, own in zip(adjusted, holm(p), strict=True))


def test_holm_of_none_is_none_and_of_one_itself() -> None:
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
