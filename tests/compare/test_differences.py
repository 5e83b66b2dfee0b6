import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats

from pipeline.compare import sides
from pipeline.compare.differences import Comparison, Move, compare
from pipeline.compare.holes import Holes, judged_beside
from pipeline.core.arrays import Floats
from pipeline.core.errors import PipelineError
from pipeline.core.params import Compare
from pipeline.evaluate import uncertainty
from tests.helpers import comparisons
from tests.helpers.comparisons import DRAWS, RUNS, SETTINGS, measures, noisy, side, table

LOCALES = ("us", "es", "jp")
NAMES = ("main", "branch")
Values = dict[str, Floats]


def compared(
    a: dict[str, Values], b: dict[str, Values], settings: Compare = SETTINGS, queries: int = 3
) -> Comparison:
    sides_of = [
        {locale: side(values, locale) for locale, values in each.items()} for each in (a, b)
    ]
    return compare(sides_of[0], sides_of[1], NAMES, settings, DRAWS, queries, RUNS)


def one_move(old: Values, new: Values, metric: str = "dense.ndcg@10") -> Move:
    settings = SETTINGS.model_copy(update={"metrics": (metric,)})
    (move,) = compared({"es": old}, {"es": new}, settings).moves
    return move


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as caught:
        act()
    return str(caught.value)


def test_a_run_compared_with_itself_shows_nothing() -> None:
    rng = np.random.default_rng(1)
    values = {locale: measures(rng, 60) for locale in LOCALES}

    found = compared(values, values)

    assert [(move.locale, move.metric) for move in found.moves] == [
        (locale, metric) for locale in LOCALES for metric in SETTINGS.metrics
    ]
    for move in found.moves:
        assert move.equal
        assert (move.p, move.p_adjusted, move.difference[:3]) == (1, 1, (0, 0, 0))
        assert (move.won, move.lost, move.tied) == (0, 0, move.difference.queries)
        assert not move.significant
        assert (move.holes, move.wins, move.losses) == (None, (), ())
    assert not found.refused


def test_of_200_comparisons_by_luck_alone_no_more_raise_alarm_than_holm_allows() -> None:
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        old = {locale: measures(rng, 50) for locale in LOCALES}
        new = {locale: noisy(rng, values, 0.2) for locale, values in old.items()}
        alarms += any(move.significant for move in compared(old, new, queries=0).moves)

    # Up to this many come by luck in 999 of 1,000 suites if each alarm has the chance alpha.
    assert alarms <= scipy.stats.binom.ppf(0.999, 200, SETTINGS.alpha)
    assert alarms > 0  # the test could see one


def test_a_clear_difference_is_found_among_equal_locales_and_refused_if_it_is_a_drop() -> None:
    rng = np.random.default_rng(3)
    old = {locale: measures(rng, 80) for locale in LOCALES}
    for sign, verdict in ((-1, True), (1, False)):
        worse = np.round(old["es"]["dense.ndcg@10"] + sign * rng.uniform(0, 0.2, 80), 5)
        new = {**old, "es": {**old["es"], "dense.ndcg@10": worse}}

        found = compared(old, new)

        sure = [(move.locale, move.metric) for move in found.moves if move.significant]
        assert sure == [("es", "dense.ndcg@10")]
        assert bool(found.refused) is verdict
        (move,) = [each for each in found.moves if each.significant]
        assert move.difference.low <= move.difference.mean <= move.difference.high
        assert move.difference.mean * sign > 0
        assert all(each.equal for each in found.moves if each is not move)


def test_equal_locales_keep_their_place_among_the_adjusted() -> None:
    rng = np.random.default_rng(4)
    old = {locale: measures(rng, 40) for locale in LOCALES}
    new = {**old, "es": noisy(rng, old["es"], 0.1)}

    moves = compared(old, new).moves

    assert [each.p_adjusted for each in moves] == uncertainty.holm([each.p for each in moves])
    moved = [each for each in moves if not each.equal]
    assert len(moved) == 3
    least = min(moved, key=lambda each: each.p)
    assert least.p_adjusted == pytest.approx(min(1, 9 * least.p))


@pytest.mark.parametrize("seed", range(5))
def test_means_differences_and_counts_are_those_of_the_paired_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    old = measures(rng, int(rng.integers(20, 90)))
    new = noisy(rng, old, 0.2)

    for move in compared({"es": old}, {"es": new}).moves:
        a, b = old[move.metric], new[move.metric]
        assert move.a == pytest.approx(np.nanmean(a))
        assert move.b == pytest.approx(np.nanmean(b))
        assert move.difference.mean == pytest.approx(np.nanmean(b - a))
        assert move.difference.queries == np.isfinite(a).sum()
        assert (move.won, move.lost, move.tied) == (
            (b > a).sum(), (b < a).sum(), (b == a).sum()
        )  # fmt: skip


def test_values_of_32_bits_give_what_their_5_digits_give() -> None:
    rng = np.random.default_rng(13)
    old = {"dense.ndcg@10": np.round(rng.choice(11, 60) / 10, 5)}
    new = {"dense.ndcg@10": np.round(rng.choice(11, 60) / 10, 5)}
    short = [
        {name: values.astype(np.float32).astype(np.float64) for name, values in each.items()}
        for each in (old, new)
    ]
    assert one_move(short[0], short[1]) == one_move(old, new)


def test_a_drop_of_no_more_than_max_drop_is_let_pass() -> None:
    old = {"dense.ndcg@10": np.full(60, 0.6)}
    new = {"dense.ndcg@10": np.full(60, 0.59)}
    for max_drop, refused in ((0.0, True), (0.0099, True), (0.01, False), (0.5, False)):
        settings = SETTINGS.model_copy(update={"metrics": ("dense.ndcg@10",), "max_drop": max_drop})
        (move,) = compared({"es": old}, {"es": new}, settings).moves
        assert move.significant
        assert move.refused is refused


def test_wins_and_losses_come_by_size_then_query_id_with_text_and_labels() -> None:
    old = {"dense.ndcg@10": np.array([0.5, 0.5, np.nan, 0.5, 0.5, 0.5, 0.5])}
    new = {"dense.ndcg@10": np.array([0.7, 0.9, np.nan, 0.7, 0.1, 0.5, 0.6])}

    move = one_move(old, new)

    assert [(each.query_id, each.a, each.b) for each in move.wins] == [
        (101, 0.5, 0.9), (100, 0.5, 0.7), (103, 0.5, 0.7),
    ]  # fmt: skip
    (loss,) = move.losses
    assert (loss.query_id, loss.query, loss.b) == (104, "consulta 104", 0.1)
    assert (loss.labels_a, loss.labels_b) == ("ESC?I", "ESC?I")


@pytest.mark.parametrize(
    ("metric_by", "judged_by", "suspect"),
    [
        (0.1, 0.05, True),  # a gain, with more of what is found judged
        (-0.1, -0.05, True),  # a loss, with less of it judged
        (0.1, -0.05, False),  # a gain in spite of more holes
        (0.1, 0.0, False),
    ],
)
def test_judged_that_moves_with_the_metric_is_said(
    metric_by: float, judged_by: float, suspect: bool
) -> None:
    rng = np.random.default_rng(5)
    old = {
        "dense.ndcg@10": rng.uniform(0.2, 0.8, 60),
        "dense.judged@10": rng.uniform(0.2, 0.8, 60),
    }
    new = {
        "dense.ndcg@10": old["dense.ndcg@10"] + metric_by,
        "dense.judged@10": old["dense.judged@10"] + judged_by,
    }
    holes = one_move(old, new).holes
    assert holes is not None
    assert holes.suspect is suspect
    assert holes.b - holes.a == pytest.approx(judged_by)


def test_a_small_move_of_judged_is_said_where_it_is_significant_and_a_large_one_always() -> None:
    old = {"dense.ndcg@10": np.full(60, 0.4), "dense.judged@10": np.full(60, 0.5)}
    new = {"dense.ndcg@10": np.full(60, 0.5), "dense.judged@10": np.full(60, 0.505)}
    assert one_move(old, new).holes.suspect  # type: ignore[union-attr] # small, on every query

    for by, suspect in ((0.3, False), (1.2, True)):  # on two queries: p is 0.5
        judged = np.full(60, 0.5)
        judged[:2] += by / 2
        new["dense.judged@10"] = judged
        assert one_move(old, new).holes.suspect is suspect  # type: ignore[union-attr]


def with_holes(judged_only: Floats | None) -> Holes:
    """Return the holes of an nDCG@10 that rises by 0.1 along with judged@10.

    `judged_only` is by how much nDCG of judged products only rises, a value a query.
    """
    rng = np.random.default_rng(14)
    old = {
        "dense.ndcg@10": rng.uniform(0.2, 0.6, 60),
        "dense.judged@10": rng.uniform(0.2, 0.6, 60),
    }
    new = {name: values + 0.1 for name, values in old.items()}
    if judged_only is not None:
        old["dense.ndcg_judged_only@10"] = rng.uniform(0.2, 0.6, 60)
        new["dense.ndcg_judged_only@10"] = old["dense.ndcg_judged_only@10"] + judged_only
    holes = one_move(old, new).holes
    assert holes is not None
    return holes


@pytest.mark.parametrize(
    ("by", "suspect"),
    [
        (np.full(60, 0.1), False),  # as much among the judged: a gain like any other
        (np.full(60, 0.01), False),
        (np.full(60, 0.0), True),
        (np.full(60, -0.1), True),  # another sign
        (np.where(np.arange(60) < 3, 1.2, 0.0), True),  # enough, but luck would do: p is 0.25
    ],
)
def test_a_gain_that_judged_products_alone_confirm_is_not_suspect(
    by: Floats, suspect: bool
) -> None:
    holes = with_holes(by)
    assert holes.suspect is suspect
    assert holes.judged_only == pytest.approx(by.mean(), abs=1e-6)
    assert holes.judged_only_p is not None


def test_a_loss_is_confirmed_by_a_loss_among_judged_products_alone() -> None:
    names = ("dense.ndcg@10", "dense.judged@10", "dense.ndcg_judged_only@10")
    old = dict.fromkeys(names, np.full(60, 0.6))
    new = dict.fromkeys(names, np.full(60, 0.5))
    for only, suspect in ((0.5, False), (0.7, True)):
        holes = one_move(old, {**new, names[2]: np.full(60, only)}).holes
        assert holes is not None
        assert holes.suspect is suspect


def test_without_judged_only_and_for_other_measures_judged_alone_decides() -> None:
    holes = with_holes(None)
    assert (holes.suspect, holes.judged_only, holes.judged_only_p) == (True, None, None)
    names = ("dense.mrr@10", "dense.judged@10", "dense.ndcg_judged_only@10")
    old, new = (dict.fromkeys(names, np.full(60, value)) for value in (0.5, 0.6))
    other = one_move(old, new, "dense.mrr@10").holes
    assert other is not None
    assert (other.suspect, other.judged_only) == (True, None)
    # One side older than the column.
    old["dense.ndcg@10"], new["dense.ndcg@10"] = old["dense.mrr@10"], new["dense.mrr@10"]
    del old["dense.ndcg_judged_only@10"]
    older = one_move(old, new).holes
    assert older is not None
    assert (older.suspect, older.judged_only) == (True, None)


@pytest.mark.parametrize(
    ("metric", "beside"),
    [
        ("dense.ndcg@10", "dense.judged@10"),
        ("dense.recall@100", "dense.judged@100"),
        ("dense.recall@50", "dense.judged@10"),
        ("hybrid.mrr@10", "hybrid.judged@10"),
        ("dense.ndcg@5", None),
        ("bm25.ndcg@10", None),
        ("dense.pool_ndcg@10", None),
        ("dense.pool_ndcg", None),
        ("dense.judged@10", None),
        ("dense.ndcg_judged_only@10", None),
    ],
)
def test_the_holes_of_a_metric_are_those_of_its_own_system_and_cutoff(
    metric: str, beside: str | None
) -> None:
    known = ["dense.judged@10", "dense.judged@100", "dense.ndcg@10", "hybrid.judged@10"]
    assert judged_beside(metric, known) == beside


def test_a_metric_defined_for_no_query_moves_nothing() -> None:
    nothing = {"dense.ndcg@10": np.full(30, np.nan)}
    move = one_move(nothing, nothing)
    assert move.difference.queries == 0
    assert math.isnan(move.a)
    assert (move.p, move.significant) == (1, False)


def test_different_samples_are_refused_and_every_difference_is_named() -> None:
    values = measures(np.random.default_rng(6), 30)
    a = {locale: side(values, locale) for locale in LOCALES}
    b = {**a}
    samples: dict[str, Any] = {
        "us": {"products": 3000, "judgements_sha256": "d" * 64},
        "jp": {"depth": 500},
    }
    for locale, sample in samples.items():
        b[locale] = side(values, locale, **sample)

    said = refusal(lambda: compare(a, b, NAMES, SETTINGS, DRAWS, 3, RUNS))

    assert said.splitlines() == [
        "main and branch are of different samples, so their numbers cannot be compared:",
        "  us: products 592 and 3,000; judgements cccccccccccc and dddddddddddd",
        "  jp: depth 1,000 and 500",
    ]


def test_the_depth_of_runs_may_differ_only_where_the_encoder_alone_is_compared() -> None:
    values = {"encoder.map": np.linspace(0, 1, 30), "dense.ndcg@10": np.linspace(0, 1, 30)}
    a, b = {"es": side(values, "es")}, {"es": side(values, "es", depth=500)}
    alone, both = (
        SETTINGS.model_copy(update={"metrics": metrics})
        for metrics in (["encoder.map"], ["encoder.map", "dense.ndcg@10"])
    )
    (move,) = compare(a, b, NAMES, alone, DRAWS, 3, RUNS).moves
    assert move.equal
    said = refusal(lambda: compare(a, b, NAMES, both, DRAWS, 3, RUNS))
    assert "es: depth 1,000 and 500" in said


def test_queries_missing_on_one_side_are_counted_and_one_is_named() -> None:
    rng = np.random.default_rng(7)
    a = {"es": side(measures(rng, 30))}
    b = {"es": side(measures(rng, 28))}
    said = refusal(lambda: compare(a, b, NAMES, SETTINGS, DRAWS, 3, RUNS))
    assert "es: queries 30 and 28; 2 queries only in main, such as 128" in said


def test_a_locale_on_one_side_alone_is_said_and_the_others_are_compared() -> None:
    values = measures(np.random.default_rng(8), 30)
    found = compared({"us": values, "es": values}, {"es": values, "jp": values})
    assert {move.locale for move in found.moves} == {"es"}
    assert found.notes == (
        "us is only in main: not compared",
        "jp is only in branch: not compared",
    )
    said = refusal(lambda: compared({"us": values}, {"jp": values}))
    assert said.startswith("main has the locales us, branch has jp: none is on both sides")


def test_a_metric_that_the_new_side_lacks_is_refused_with_the_nearest() -> None:
    values = measures(np.random.default_rng(9), 30)
    settings = SETTINGS.model_copy(update={"metrics": ("dense.ndgc@10",)})
    said = refusal(lambda: compared({"es": values}, {"es": values}, settings))
    assert said.startswith("compare.metrics: es of branch has no 'dense.ndgc@10' (it has: ")
    assert "'dense.ndcg@10'?" in said


def test_a_metric_that_is_new_is_said_and_the_others_are_compared() -> None:
    new = measures(np.random.default_rng(10), 30)
    old = {name: values for name, values in new.items() if not name.startswith("hybrid")}
    found = compared({"es": old}, {"es": new})
    assert [move.metric for move in found.moves] == ["dense.ndcg@10", "dense.recall@100"]
    assert found.notes == ("es of main has no hybrid.ndcg@10: not compared",)
    only_new = SETTINGS.model_copy(update={"metrics": ("hybrid.ndcg@10",)})
    assert "main has none of compare.metrics" in refusal(
        lambda: compared({"es": old}, {"es": new}, only_new)
    )


def test_values_undefined_on_one_side_alone_are_refused() -> None:
    old = {"dense.ndcg@10": np.array([0.1, np.nan, 0.3])}
    new = {"dense.ndcg@10": np.array([0.1, 0.2, np.nan])}
    said = refusal(lambda: one_move(old, new))
    assert said.startswith("es: dense.ndcg@10 is defined for 2 queries on one side and for 2")


def test_the_helpers_write_the_form_that_is_read() -> None:
    values = comparisons.measures(np.random.default_rng(12), 9)
    assert sides.metrics(table(values)) == list(values)
