"""The page's first sentence: who wins where, and surely only where luck is ruled out."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from pipeline.evaluate import uncertainty
from pipeline.evaluate.per_query_reader import values
from pipeline.report.inputs import LocaleResults, read_locale
from pipeline.report.verdict import Winner, describe_winners, find_winners, verdict
from tests.helpers.artefacts import params
from tests.helpers.page_artefacts import write_locale

DRAWS = params({"uncertainty.samples": 500}).uncertainty
ALPHA = 0.05


def test_a_winner_is_sure_of_those_whose_p_is_below_the_level_after_holm_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    drawn = rng.random(80)
    noise = rng.normal(0, 0.1, (3, 80))
    locales = {
        "us": {"bm25": drawn, "dense": drawn + 0.2, "hybrid": drawn + 0.21 + noise[0]},
        "es": {"bm25": drawn, "dense": drawn + 0.03 + noise[1]},
        "jp": {"bm25": drawn + noise[2], "dense": drawn, "hybrid": drawn.copy()},
    }
    found = find_winners(locales, DRAWS, ALPHA)
    pairs = 3 + 1 + 3
    p = {
        (locale, other): uncertainty.paired_randomisation(of[best] - values, DRAWS)
        for locale, of in locales.items()
        for best in [max(of, key=lambda system: of[system].mean())]
        for other, values in of.items()
        if other != best
    }
    adjusted = dict(
        zip(p, uncertainty.holm([*p.values(), *[1.0] * (pairs - len(p))]), strict=False)
    )
    assert [each.locale for each in found] == ["us", "es", "jp"]
    for each in found:
        doubtful = [
            o for (locale, o), one in adjusted.items() if locale == each.locale and one >= 0.05
        ]
        assert each.rivals == tuple(doubtful)
    assert found[0].best == ("hybrid",)
    assert found[0].rivals == ("dense",)


def test_systems_that_differ_by_luck_alone_are_rarely_called_best() -> None:
    sure = 0
    for seed in range(40):
        drawn = np.random.default_rng(seed).random((3, 3, 50))
        locales = {
            str(place): dict(zip(("bm25", "dense", "hybrid"), of, strict=True))
            for place, of in enumerate(drawn)
        }
        found = find_winners(locales, DRAWS, ALPHA)
        sure += any(len(each.rivals) < 2 for each in found)
    assert sure <= 5  # at most 2 expected


def test_undefined_queries_take_no_part_and_one_system_alone_wins_nothing() -> None:
    values = np.array([0.1, np.nan, 0.3])
    nothing = np.full(3, np.nan)
    found = find_winners(
        {"us": {"bm25": values, "dense": values + 0.5}, "es": {"bm25": nothing, "dense": nothing}},
        DRAWS,
        ALPHA,
    )
    assert found == (Winner("us", ("dense",), ("bm25",)), Winner("es", (), ()))


def test_equal_means_have_no_winner() -> None:
    values = np.array([0.1, 0.5, 0.3])
    of = {"bm25": values, "dense": values[::-1].copy(), "hybrid": values - 0.1}
    assert find_winners({"us": of}, DRAWS, ALPHA) == (Winner("us", ("bm25", "dense"), ()),)


def _of_two_systems(a: Sequence[float], b: Sequence[float]) -> LocaleResults:
    """Return results in es of a query for each value of bm25 and of dense, as evaluate keeps it."""
    write_locale(params(), "es", queries=len(a))
    results = read_locale(params(), "es")
    measure = results.measures[0]
    kept = (np.array(each, np.float32).astype(np.float64) for each in (a, b))
    names = (f"bm25.{measure}", f"dense.{measure}")
    return dataclasses.replace(
        results,
        means={system: results.means[system] for system in ("bm25", "dense")},
        per_query=pa.table(dict(zip(names, kept, strict=True))),
    )


@pytest.mark.usefixtures("project")
def test_differences_that_are_equal_but_for_the_rounding_of_the_table_tie() -> None:
    a, b = [.5, .5, .7, .8, .2, .3, .7, .6], [.4, .4, .6, .7, .1, .2, .6, .7]  # fmt: skip
    # 18 of the 256 sign patterns have a mean as far from 0: all but one of a sign, or all of one.
    assert uncertainty.paired_randomisation(np.array(a) - b, DRAWS) == 18 / 256
    assert verdict([_of_two_systems(a, b)], DRAWS, ALPHA) == (
        "By nDCG@10: in es, bm25 has the highest mean, but may be no better than dense."
    )


@pytest.mark.usefixtures("project")
def test_where_the_draws_can_make_nothing_sure_the_page_says_how_many_can() -> None:
    results = [_of_two_systems([0.9] * 40, [0.1] * 40)]
    assert verdict(results, DRAWS, 0.001) == (
        "By nDCG@10: no verdict. uncertainty.samples: 500 draws are too few: no p that is adjusted "
        "by Holm can be below 0.001 (tests together: 1). Draw at least 1,000."
    )
    enough = DRAWS.model_copy(update={"samples": 1000})
    assert verdict(results, enough, 0.001) == "By nDCG@10: in es, bm25 is surely the best."


@pytest.mark.usefixtures("project")
def test_the_level_of_the_comparison_decides_and_not_the_confidence_of_intervals() -> None:
    rng = np.random.default_rng(4)
    b = rng.random(40)
    a = b + 0.02 + rng.normal(0, 0.08, 40)
    results = [_of_two_systems(a.tolist(), b.tolist())]
    differences = values(results[0].per_query, "bm25.ndcg@10") - values(
        results[0].per_query, "dense.ndcg@10"
    )
    p = uncertainty.paired_randomisation(differences, DRAWS)
    assert 0.01 < p < 0.05 == pytest.approx(1 - DRAWS.confidence)
    assert verdict(results, DRAWS, 0.01).endswith("but may be no better than dense.")
    assert verdict(results, DRAWS, 0.05).endswith("bm25 is surely the best.")


@pytest.mark.parametrize(
    ("winners", "said"),
    [
        ([Winner("us", ("hybrid",), ())], "By nDCG@10: in us, hybrid is surely the best."),
        (
            [Winner("us", ("hybrid",), ()), Winner("es", ("dense",), ("bm25", "hybrid")),
             Winner("jp", ("hybrid",), ()), Winner("de", (), ()),
             Winner("fr", ("bm25", "dense"), ())],
            "By nDCG@10: in us and jp, hybrid is surely the best; in es, dense has the highest "
            "mean, but may be no better than bm25 or hybrid; in de, there are not two systems to "
            "compare; in fr, bm25 and dense have the same highest mean.",
        ),
    ],
)  # fmt: skip
def test_the_sentence_names_each_locale_once_with_its_certainty(
    winners: list[Winner], said: str
) -> None:
    assert describe_winners(winners, "ndcg@10") == said
