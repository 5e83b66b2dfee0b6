"""What the labels say of neighbours: measures by hand, by SciPy and by chance."""

import json

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from pipeline.core import layout, tables
from pipeline.core.arrays import Floats, Ints
from pipeline.core.errors import PipelineError
from pipeline.core.params import Bm25
from pipeline.evaluate.judged_run import Judgements
from pipeline.index import stage as stage_index
from pipeline.runs.ranking import NO_PRODUCT
from pipeline.similar import anchors as labelled
from pipeline.similar import more_like_this
from pipeline.similar import stage as similar
from pipeline.similar.anchors import Anchors, draw_anchors, measure, measure_random
from pipeline.vectors.pairs import score_pairs
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings
from tests.helpers.terms import index_of

PRODUCTS = 60


def judged(rng: np.random.Generator, queries: int = 40) -> Judgements:
    """Return random judgements of some of `PRODUCTS` products; some queries have one or none."""
    rows, codes = [], []
    for query in range(queries):
        chosen = rng.choice(PRODUCTS, rng.integers(0, 14), replace=False)
        rows += [query] * len(chosen)
        codes += chosen.tolist()
    labels = rng.integers(0, 4, len(rows))
    return Judgements.from_pairs(np.array(rows), np.array(codes), labels, queries)


def scored(rng: np.random.Generator, anchors: Anchors) -> tuple[Floats, Ints]:
    """Return few different scores, so that many tie, and some neighbours of each anchor."""
    found = np.full((len(anchors), 12), NO_PRODUCT)
    for anchor, row in enumerate(anchors.row):
        near = rng.permutation(np.delete(np.arange(PRODUCTS), row))[: rng.integers(4, 13)]
        found[anchor, : len(near)] = near
    return rng.integers(0, 5, len(anchors.others)) / 4, found


def test_every_eligible_query_gives_its_exact_products_and_all_others_it_judges() -> None:
    pool = judged(np.random.default_rng(1))
    anchors = draw_anchors(pool)
    expected = []
    for query in range(len(pool)):
        part = slice(pool.starts[query], pool.starts[query + 1])
        labels = dict(zip(pool.codes[part].tolist(), pool.labels[part].tolist(), strict=True))
        exact = [code for code, label in labels.items() if label == 0]
        if exact and len(labels) > 1:
            expected.append((exact, labels))
    assert anchors.queries == anchors.eligible == len(expected)
    for anchor, query in enumerate(anchors.query):
        exact, labels = expected[query]
        row = int(anchors.row[anchor])
        assert row in exact
        others = anchors.others[anchors.part(anchor)].tolist()
        assert sorted(others) == sorted(set(labels) - {row})
        levels = anchors.levels[anchors.part(anchor)].tolist()
        assert levels == [[2, 1, 0, 0][labels[other]] for other in others]
    counts = np.bincount(anchors.query)
    assert counts.tolist() == [min(len(exact), labelled.MOST_ANCHORS) for exact, _ in expected]


def test_of_many_queries_a_sample_is_drawn_and_it_is_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = judged(np.random.default_rng(2))
    everything = draw_anchors(pool)
    monkeypatch.setattr(labelled, "MOST_QUERIES", 5)
    once, again = draw_anchors(pool), draw_anchors(pool)
    assert (once.queries, once.eligible) == (5, everything.queries)
    np.testing.assert_array_equal(once.row, again.row)


def test_order_is_the_area_under_the_roc_curve_of_two_levels_and_the_c_index_of_all() -> None:
    rng = np.random.default_rng(3)
    anchors = draw_anchors(judged(rng))
    scores, found = scored(rng, anchors)
    values = measure(anchors, scores, found)
    for name, pair in labelled.ORDERS.items():
        by_query: dict[int, list[float]] = {}
        for anchor, query in enumerate(anchors.query):
            part = anchors.part(anchor)
            levels, mine = anchors.levels[part], scores[part]
            kept = np.isin(levels, pair or (0, 1, 2))
            if len(set(levels[kept].tolist())) < 2:
                continue
            value = (
                mannwhitneyu(mine[levels == pair[0]], mine[levels == pair[1]]).statistic
                / ((levels == pair[0]).sum() * (levels == pair[1]).sum())
                if pair
                else np.mean(
                    [
                        (np.sign(a - b) + 1) / 2
                        for a, x in zip(mine, levels, strict=True)
                        for b, y in zip(mine, levels, strict=True)
                        if x > y
                    ]
                )
            )
            by_query.setdefault(int(query), []).append(float(value))
        assert by_query
        for query in range(anchors.queries):
            expected = np.mean(by_query[query]) if query in by_query else np.nan
            assert values[name][query] == pytest.approx(expected, nan_ok=True)


def test_the_first_ten_are_counted_and_a_hole_is_no_hit() -> None:
    anchors = Anchors(
        np.array([0]), np.array([7]), np.array([0, 4]), np.array([1, 2, 3, 4]),
        np.array([2, 2, 1, 0]), 1, 1,
    )  # fmt: skip
    near = np.array([[1, 30, 3, 31, 32, NO_PRODUCT, NO_PRODUCT]])
    values = measure(anchors, np.zeros(4), near)
    assert values["precision@10"].tolist() == [0.1]
    assert values["precision_judged_only@10"].tolist() == [0.5]
    assert values["judged@10"].tolist() == [0.4]
    deep = np.array([[*range(20, 30), 1, 2]])
    values = measure(anchors, np.zeros(4), deep)
    assert values["precision@10"].tolist() == values["judged@10"].tolist() == [0]
    assert np.isnan(values["precision_judged_only@10"]).all()


def test_a_random_order_gives_on_average_what_is_computed_for_it() -> None:
    rng = np.random.default_rng(4)
    anchors = draw_anchors(judged(rng, 12))
    computed = measure_random(anchors, PRODUCTS)
    drawn = []
    for _ in range(60):
        order = np.array(
            [rng.permutation(np.delete(np.arange(PRODUCTS), row)) for row in anchors.row]
        )
        drawn.append(measure(anchors, rng.random(len(anchors.others)), order))
    for name in labelled.MEASURES:
        if name == "precision_judged_only@10":
            continue  # a mean over the draws in which anything is judged
        means = np.mean([each[name] for each in drawn], axis=0)
        assert np.nanmean(means) == pytest.approx(np.nanmean(computed[name]), abs=0.03)


def test_words_rank_by_the_rarest_terms_of_the_product() -> None:
    texts = [["red", "shoe", "shoe"], ["red", "shoe"], ["red", "hat"], ["red", "boat"], []]
    index, terms = index_of(texts, Bm25(k1=1.2, b=0.75)), {0: texts[0], 4: texts[4]}
    assert more_like_this.query_terms(index, texts[0]) == ["shoe", "red"]
    anchors = Anchors(
        np.array([0, 1]), np.array([0, 4]), np.array([0, 2, 3]), np.array([2, 1, 0]),
        np.array([0, 2, 2]), 2, 2,
    )  # fmt: skip
    scores, found = more_like_this.score_anchors(index, terms, anchors)
    assert scores[1] > scores[0] > 0
    assert scores[2] == 0
    assert found[0, :4].tolist() == [1, *sorted([2, 3], reverse=True), NO_PRODUCT]
    assert (found[1] == NO_PRODUCT).all()


@pytest.fixture
def artefacts(empty_folder: None) -> np.random.Generator:
    """Clean tables, vectors and a flat index of 80 products."""
    rng = np.random.default_rng(5)
    write_clean(rng, 80, 30)
    write_embeddings(params(), random_vectors(rng, 80), random_vectors(rng, 30))
    stage_index.index(params(), LOCALE)
    return rng


def test_the_report_has_each_system_with_its_intervals(artefacts: np.random.Generator) -> None:
    similar.similar(params(), LOCALE)
    report = json.loads(layout.similar_report(LOCALE).read_text())
    assert report["queries"] > 10
    for system in ("random", "bm25", "dense"):
        for name in labelled.MEASURES:
            low, mean, high = (report[system][f"{name}{end}"] for end in ("_low", "", "_high"))
            assert 0 <= low <= mean <= high <= 1
            assert 0 < report[system][f"{name}_queries"] <= report["queries"]
    assert report["random"]["concordance"] == 0.5
    shown = json.loads(layout.similar_key_metrics(LOCALE).read_text())["similar"]
    assert shown.pop("queries") == report["queries"]
    assert set(shown) == {"bm25", "dense"}
    for system, of in shown.items():
        assert set(of) == {"concordance", "precision@10"}
        assert of.items() <= report[system].items()


def test_the_scores_of_anchors_are_those_of_their_vectors(artefacts: np.random.Generator) -> None:
    vectors = random_vectors(artefacts, 80)
    write_embeddings(params(), vectors, random_vectors(artefacts, 30))
    stage_index.index(params(), LOCALE)
    _, pool = similar.read_pool(LOCALE)
    anchors = draw_anchors(pool)
    catalogue = similar.open_catalogue(params(), LOCALE)[1]
    scores = similar.score_others(catalogue, anchors)
    own = np.repeat(anchors.row, np.diff(anchors.starts))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = score_pairs(unit[own], unit[anchors.others], "cosine")
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_without_judgements_there_are_neighbours_and_the_report_says_why_no_more(
    artefacts: np.random.Generator,
) -> None:
    path = layout.clean(LOCALE).judgements
    judgements = tables.read_table(path, tables.JUDGEMENTS, "")
    tables.write_table(path, judgements.slice(0, 0), tables.JUDGEMENTS)
    similar.similar(params(), LOCALE)
    assert layout.similar(LOCALE).neighbours.is_file()
    report = json.loads(layout.similar_report(LOCALE).read_text())
    assert report["not_evaluated"].startswith("no query has an Exact product")
    assert (report["queries"], report["anchors"]) == (0, 0)
    assert "dense" not in report
    shown = json.loads(layout.similar_key_metrics(LOCALE).read_text())
    assert shown == {"similar": {"queries": 0}}


def test_words_that_would_take_more_memory_than_allowed_are_refused(
    artefacts: np.random.Generator,
) -> None:
    with pytest.raises(PipelineError, match="bm25 of the 80 es products would take"):
        similar.similar(params({"runtime.memory_limit": 1e-4}), LOCALE)
    assert not layout.similar_report(LOCALE).exists()
