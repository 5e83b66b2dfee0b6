"""The page's first sentence: who wins where, and surely only where luck is ruled out."""

import math

import numpy as np
import pytest

from pipeline.evaluate import uncertainty
from pipeline.report.verdict import Winner, describe_winners, find_winners
from tests.helpers.artefacts import params

DRAWS = params({"uncertainty.samples": 500}).uncertainty


def test_a_winner_is_sure_of_those_whose_p_is_below_the_level_after_holm_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    drawn = rng.random(80)
    noise = rng.normal(0, 0.1, (3, 80))
    locales = {
        "us": {"bm25": drawn, "dense": drawn + 0.2, "hybrid": drawn + 0.21 + noise[0]},
        "es": {"bm25": drawn, "dense": drawn + 0.03 + noise[1]},
        "jp": {"bm25": drawn + noise[2], "dense": drawn, "hybrid": drawn.copy()},
    }
    found = find_winners(locales, DRAWS)
    pairs = 3 + 1 + 3
    p = {
        (locale, other): uncertainty.paired_randomisation(
            of[best] - values, max(500, math.ceil(2 * pairs / 0.05)), DRAWS.seed
        )
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
    assert found[0].best == "hybrid"
    assert found[0].rivals == ("dense",)


def test_systems_that_differ_by_luck_alone_are_rarely_called_best() -> None:
    sure = 0
    for seed in range(40):
        drawn = np.random.default_rng(seed).random((3, 3, 50))
        locales = {
            str(place): dict(zip(("bm25", "dense", "hybrid"), of, strict=True))
            for place, of in enumerate(drawn)
        }
        found = find_winners(locales, DRAWS)
        sure += any(len(each.rivals) < 2 for each in found)
    assert sure <= 5  # at most 2 expected


def test_undefined_queries_take_no_part_and_one_system_alone_wins_nothing() -> None:
    values = np.array([0.1, np.nan, 0.3])
    nothing = np.full(3, np.nan)
    found = find_winners(
        {"us": {"bm25": values, "dense": values + 0.5}, "es": {"bm25": nothing, "dense": nothing}},
        DRAWS,
    )
    assert found == (Winner("us", "dense", ("bm25",)), Winner("es", "", ()))


@pytest.mark.parametrize(
    ("winners", "said"),
    [
        ([Winner("us", "hybrid", ())], "By nDCG@10: in us, hybrid is surely the best."),
        (
            [Winner("us", "hybrid", ()), Winner("es", "dense", ("bm25", "hybrid")),
             Winner("jp", "hybrid", ()), Winner("de", "", ())],
            "By nDCG@10: in us and jp, hybrid is surely the best; in es, dense has the highest "
            "mean, but may be no better than bm25 or hybrid; in de, there are not two systems to "
            "compare.",
        ),
    ],
)  # fmt: skip
def test_the_sentence_names_each_locale_once_with_its_certainty(
    winners: list[Winner], said: str
) -> None:
    assert describe_winners(winners, "ndcg@10") == said
