"""The measures of an encoder equal those of scikit-learn, SciPy and sentence-transformers."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import ConstantInputWarning, spearmanr
from sentence_transformers.sentence_transformer.evaluation import BinaryClassificationEvaluator
from sklearn.metrics import average_precision_score, f1_score

from pipeline.core.arrays import Floats, Ints
from pipeline.core.params import ENCODER_MEASURES, Uncertainty
from pipeline.core.tables import LABELS
from pipeline.encoder_scores import form, pooled
from pipeline.encoder_scores.measures import Measured, measure
from pipeline.encoder_scores.pooled import Flags
from pipeline.evaluate.judged_run import JudgedRun, Judgements, judge
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.uncertainty import bootstrap_interval
from pipeline.runs.ranking import rank_pairs

TO = 1e-9

Pairs = tuple[JudgedRun, Floats]


def judged(query: list[int], labels: str, scores: list[float], queries: int) -> Pairs:
    """Return ranked pairs; the product of each is its place in the lists."""
    rows, codes = np.array(query), np.arange(len(query))
    of = Judgements.from_pairs(rows, codes, np.array([LABELS.index(x) for x in labels]), queries)
    ranked = rank_pairs(rows, codes, np.array(scores))
    return judge(ranked[0], ranked[1], of), ranked[2]


def draw(rng: np.random.Generator, queries: int, tied: bool) -> Pairs:
    """Return pairs of queries with 0 to 12 products each: some have one label, some one score."""
    sizes = rng.integers(0, 13, queries)
    query = np.repeat(np.arange(queries), sizes)
    shares = rng.dirichlet(np.full(4, 0.4), queries)[query]
    labels = "".join(LABELS[int(rng.choice(4, p=row))] for row in shares)
    help_ = np.array([0.9, 0.6, 0.4, 0.0])[[LABELS.index(x) for x in labels]]
    scores = 0.5 * help_ + rng.normal(0, 0.3, len(query))
    return judged(query.tolist(), labels, (scores.round(1) if tied else scores).tolist(), queries)


def cases() -> Iterator[Pairs]:
    rng = np.random.default_rng(3)
    for number in range(12):
        yield draw(rng, int(rng.integers(3, 40)), tied=number % 2 == 0)


def of_each(run: JudgedRun, scores: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield each query's labels and scores."""
    for row in range(len(run.retrieved)):
        mine = run.query == row
        yield "".join(LABELS[code] for code in run.label[mine]), scores[mine]


def known(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def test_measures_of_all_pairs_are_those_of_scikit_learn_and_scipy() -> None:
    for run, scores in cases():
        found = measure(run, scores)
        assert tuple(found) == ENCODER_MEASURES
        letters = np.array([LABELS[code] for code in run.label])
        for name, negatives in (("i", "I"), ("sci", "SCI")):
            chosen = np.isin(letters, ["E", *negatives])
            y, s = letters[chosen] == "E", scores[chosen]
            if not 0 < y.sum() < len(y):
                continue
            ap, f1 = found[f"ap_e_vs_{name}"], found[f"f1_e_vs_{name}"]
            assert ap.value == pytest.approx(average_precision_score(y, s), abs=TO)
            theirs = BinaryClassificationEvaluator.find_best_f1_and_threshold(s, y, True)
            assert f1.value == pytest.approx(theirs[0], abs=TO)
            assert f1.value == pytest.approx(f1_score(y, s >= f1.threshold), abs=TO)
            assert ap.pairs == f1.pairs == len(y)
            assert f1.floor == pytest.approx(f1_score(y, np.ones(len(y))), abs=TO)
            assert f1.value >= f1.floor - TO
        worth = 3 - run.label
        expected = spearmanr(scores, worth).statistic
        assert found["spearman"].value == pytest.approx(expected, abs=TO)


def test_the_threshold_of_the_report_gives_the_f1_of_the_report() -> None:
    rng = np.random.default_rng(11)
    draws = Uncertainty(samples=200, confidence=0.95, seed=1)
    for best in (0.800006, 0.799996, -3.000001, 1234.567891):
        rest = best - rng.uniform(0.05, 0.2, 100)
        query = np.repeat(np.arange(100), 2).tolist()
        scores = np.column_stack([np.full(100, best), rest]).ravel().tolist()
        run, ranked = judged(query, "EI" * 100, scores, 100)
        found = measure(run, ranked)["f1_e_vs_i"]
        interval = bootstrap_interval(found.by_query, draws)
        shown = form.describe(found, interval, "f1_e_vs_i")
        given = form.Measure.model_validate_json(shown.model_dump_json()).threshold
        assert given is not None
        f1 = f1_score(run.label == 0, ranked >= given)
        assert shown.value == round(f1, MEAN_DECIMALS) == 1


def test_measures_of_each_query_are_those_of_scipy_and_scikit_learn() -> None:
    for run, scores in cases():
        found = measure(run, scores)
        for row, (labels, mine) in enumerate(of_each(run, scores)):
            worth = np.array([3 - LABELS.index(x) for x in labels])
            correlation = found["query_spearman"].by_query[row]
            if len(set(labels)) < 2:
                assert np.isnan(correlation)
            elif len(set(mine)) < 2:
                assert correlation == 0
            else:
                assert correlation == pytest.approx(spearmanr(mine, worth).statistic, abs=TO)
            precision = found["map"].by_query[row]
            exact = worth == 3
            if not 0 < exact.sum() < len(exact):
                assert np.isnan(precision)
            else:
                # Ties are ordered by product_id, as everywhere here: no score is tied below.
                order = -np.arange(len(mine))
                assert precision == pytest.approx(average_precision_score(exact, order), abs=TO)
                if len(set(mine)) == len(mine):
                    assert precision == pytest.approx(average_precision_score(exact, mine), abs=TO)
        for name in ("query_spearman", "map"):
            values = known(found[name].by_query)
            assert found[name].value == pytest.approx(values.mean(), abs=TO)


def test_the_values_by_query_have_the_measure_itself_as_their_mean() -> None:
    for run, scores in cases():
        for name, each in measure(run, scores).items():
            if not np.isnan(each.value):
                assert known(each.by_query).mean() == pytest.approx(each.value, abs=TO), name
            else:
                assert not len(known(each.by_query))


def weighted_spearman(scores: Floats, worth: Floats, weights: Floats) -> float:
    """Return Pearson's correlation of weighted mid-ranks, from all pairs of pairs."""

    def places(x: Floats) -> Floats:
        above = (x[:, None] > x[None]) + 0.5 * (x[:, None] == x[None])
        return np.asarray(above @ weights)

    x, y = places(scores), places(worth)
    covariance = np.cov(x, y, aweights=weights, bias=True)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def weighted(
    scores: Floats, positive: Flags, worth: Ints, threshold: float, weights: Floats
) -> Floats:
    """Return average precision, F1 at a threshold and Spearman of weighted pairs."""
    return np.array(
        [
            average_precision_score(positive, scores, sample_weight=weights),
            f1_score(positive, scores >= threshold, sample_weight=weights),
            weighted_spearman(scores, worth.astype(np.float64), weights),
        ]
    )


def test_a_pair_changes_each_measure_as_its_weight_in_the_library_does() -> None:
    rng = np.random.default_rng(8)
    step = 1e-5
    for _ in range(3):
        size = 40
        scores, positive = rng.normal(0, 1, size).round(1), rng.random(size) < 0.5
        worth = rng.integers(0, 4, size)
        ap, f1, rank = (
            pooled.average_precision(scores, positive),
            pooled.best_f1(scores, positive),
            pooled.spearman(scores, worth),
        )
        theirs = partial(weighted, scores, positive, worth, f1.threshold)
        np.testing.assert_allclose(theirs(np.ones(size)), [ap.value, f1.value, rank.value], 0, TO)
        for place in range(0, size, 5):
            more, less = np.ones(size), np.ones(size)
            more[place], less[place] = 1 + step, 1 - step
            slopes = (theirs(more) - theirs(less)) / (2 * step)
            mine = [each.of_pair[place] for each in (ap, f1, rank)]
            np.testing.assert_allclose(mine, slopes, 0, 1e-7)


def test_an_interval_is_that_of_queries_drawn_again() -> None:
    run, scores = draw(np.random.default_rng(5), 400, tied=False)
    rng = np.random.default_rng(6)
    positive, worth = run.label == 0, 3 - run.label.astype(np.int64)
    places = [np.flatnonzero(run.query == row) for row in range(400)]
    drawn = []
    for _ in range(300):
        at = np.concatenate([places[row] for row in rng.integers(400, size=400)])
        s, y = scores[at], positive[at]
        drawn.append(
            (
                pooled.average_precision(s, y).value,
                pooled.best_f1(s, y).value,
                pooled.spearman(s, worth[at]).value,
            )
        )
    found = measure(run, scores)
    draws = Uncertainty(samples=2000, confidence=0.95, seed=1)
    for name, values in zip(
        ("ap_e_vs_sci", "f1_e_vs_sci", "spearman"), np.array(drawn).T, strict=True
    ):
        mine = bootstrap_interval(found[name].by_query, draws)
        width = np.subtract(*np.quantile(values, [0.975, 0.025]))
        assert mine.high - mine.low == pytest.approx(width, rel=0.2), name
        assert mine.mean == pytest.approx(found[name].value, abs=TO)


def test_the_floor_of_average_precision_is_its_mean_over_random_orders() -> None:
    rng = np.random.default_rng(4)
    run, scores = draw(rng, 12, tied=False)
    found = measure(run, scores)
    drawn: dict[str, list[float]] = {name: [] for name in ("ap_e_vs_i", "ap_e_vs_sci", "map")}
    for _ in range(300):
        order = np.lexsort((rng.random(len(run.query)), run.query))
        shuffled = replace(run, label=run.label[order])
        values = measure(shuffled, rng.random(len(run.query)))
        for name, each in drawn.items():
            each.append(values[name].value)
    for name, each in drawn.items():
        assert np.mean(each) == pytest.approx(found[name].floor, abs=0.1 * float(np.std(each))), (
            name
        )


def left_out(each: Measured) -> list[int]:
    return np.flatnonzero(np.isnan(each.by_query)).tolist()


def test_a_query_that_says_nothing_of_a_measure_is_left_out_of_it() -> None:
    # All E; no E; E and I; S and C; nothing at all.
    run, scores = judged(
        [0, 0, 1, 1, 2, 2, 2, 3, 3], "EEIIEIISC",
        [0.5, 0.4, 0.9, 0.1, 0.8, 0.6, 0.2, 0.3, 0.7], 5,
    )  # fmt: skip
    found = measure(run, scores)
    assert left_out(found["ap_e_vs_i"]) == [3, 4]
    assert left_out(found["ap_e_vs_sci"]) == left_out(found["spearman"]) == [4]
    assert left_out(found["query_spearman"]) == [0, 1, 4]
    assert left_out(found["map"]) == [0, 1, 3, 4]
    assert found["map"].value == 1
    assert found["map"].pairs == 3
    assert found["query_spearman"].pairs == 5


def test_a_measure_without_two_kinds_of_pairs_is_undefined() -> None:
    for labels in ("EEE", "III"):
        run, scores = judged([0, 0, 1], labels, [0.1, 0.2, 0.3], 2)
        assert all(np.isnan(each.value) for each in measure(run, scores).values())


def test_an_encoder_with_one_score_for_all_orders_nothing() -> None:
    run, scores = judged([0, 0, 1, 1], "EIES", [0.5] * 4, 2)
    found = measure(run, scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        assert np.isnan(spearmanr(scores, run.label).statistic)
    assert found["spearman"].value == found["query_spearman"].value == 0
    assert found["ap_e_vs_i"].value == average_precision_score(
        run.label[run.label != 1] == 0, scores[:3]
    )
    assert found["f1_e_vs_i"].value == found["f1_e_vs_i"].floor
