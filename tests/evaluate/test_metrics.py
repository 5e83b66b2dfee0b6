import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, Judged, P, R, nDCG

from pipeline.core.errors import PipelineError
from pipeline.core.params import Evaluate
from pipeline.evaluate.judged_run import JudgedRun, Judgements, judge
from pipeline.evaluate.metrics import (
    GAINS,
    SWAPPED_GAINS,
    PerQuery,
    catalogue_measures,
    counts,
    means,
    ndcg,
    ndcg_floor,
    pool_measures,
)
from pipeline.runs.ranking import rank_pairs

SEEDS = range(20)
CUTOFFS = Evaluate(
    ndcg=(10, 100),
    recall=(10, 50, 100, 1000),
    judged=(10, 100),
    mrr=10,
    precision=10,
    map=100,
    capped_recall=10,
    ndcg_judged_only=10,
)
GRADES = np.array([100, 10, 1, 0])
SWAPPED_GRADES = np.array([100, 1, 10, 0])
E, S, C, I = range(4)  # noqa: E741 - the label's own name
NOTHING = np.array([], dtype=np.int64)

CATALOGUE_ORACLE = {
    "ndcg@10": nDCG @ 10,
    "ndcg@100": nDCG @ 100,
    "ndcg_judged_only@10": nDCG(judged_only=True) @ 10,
    "mrr@10": RR(rel=100) @ 10,
    "recall@10": R(rel=100) @ 10,
    "recall@50": R(rel=100) @ 50,
    "recall@100": R(rel=100) @ 100,
    "recall@1000": R(rel=100) @ 1000,
    "recall_e_or_s@10": R(rel=10) @ 10,
    "recall_e_or_s@50": R(rel=10) @ 50,
    "recall_e_or_s@100": R(rel=10) @ 100,
    "recall_e_or_s@1000": R(rel=10) @ 1000,
    "precision@10": P(rel=100) @ 10,
    "map@100": AP(rel=100) @ 100,
    "judged@10": Judged @ 10,
    "judged@100": Judged @ 100,
}
POOL_ORACLE = {"pool_ndcg": nDCG, "pool_ndcg@10": nDCG @ 10, "pool_mrr": RR(rel=100)}
UNTIED = {"mrr@10", "judged@10", "judged@100"}
"""Not of trec_eval: their tools order ties otherwise."""


@dataclass
class Case:
    """A run and judgements, ranked by us, with ids and tied scores for the oracle."""

    ids: list[str]
    query_rows: np.ndarray
    codes: np.ndarray
    scores: np.ndarray
    judged_rows: np.ndarray
    judged_codes: np.ndarray
    labels: np.ndarray
    queries: int

    def judgements(self) -> Judgements:
        return Judgements.from_pairs(self.judged_rows, self.judged_codes, self.labels, self.queries)

    def run(self) -> JudgedRun:
        return judge(self.query_rows, self.codes, self.judgements())

    def oracle(
        self, measures: Mapping[str, ir_measures.Measure], grades: np.ndarray, tied: bool
    ) -> dict[str, np.ndarray]:
        """Return the authority's values by name; a query that it drops from its output scores 0.

        With `tied` it sees the tied scores in shuffled order, else only the rank.
        """
        scores = self.scores if tied else -np.arange(len(self.scores), dtype=float)
        shuffled = np.random.default_rng(0).permutation(len(scores))
        qrels = [
            ir_measures.Qrel(str(row), self.ids[code], int(grades[label]))
            for row, code, label in zip(
                self.judged_rows, self.judged_codes, self.labels, strict=True
            )
        ]
        run = [
            ir_measures.ScoredDoc(str(self.query_rows[i]), self.ids[self.codes[i]], scores[i])
            for i in shuffled
        ]
        values = {name: np.zeros(self.queries) for name in measures}
        names = {measure: name for name, measure in measures.items()}
        for metric in ir_measures.iter_calc(list(names), qrels, run):
            values[names[metric.measure]][int(metric.query_id)] = metric.value
        return values


def random_case(seed: int, pool: bool) -> Case:
    rng = np.random.default_rng(seed)
    queries = int(rng.integers(1, 25))
    alphabet = [*"ABab019zZ_é", "商", "😀"]
    drawn = {"".join(rng.choice(alphabet, rng.integers(1, 6))) for _ in range(300)}
    ids = sorted(drawn)
    # Some seeds have hardly any E, some nothing but I.
    label_shares = rng.dirichlet([0.3, 0.3, 0.3, 0.3])
    ranked, judged = [], []
    for row in range(queries):
        its_judged = rng.permutation(len(ids))[: rng.integers(0, 60)]
        drawn_labels = rng.choice(4, size=len(its_judged), p=label_shares)
        judged += [(row, *pair) for pair in zip(its_judged, drawn_labels, strict=True)]
        if pool:
            retrieved = its_judged
        else:
            retrieved = rng.permutation(len(ids))[: rng.choice([0, 1, 5, 30, 150, len(ids)])]
        if rng.random() < 0.8:
            levels = rng.integers(1, 40)
            ranked += [(row, int(c), rng.integers(0, levels) / 8) for c in retrieved]
    shuffled_run = [ranked[i] for i in rng.permutation(len(ranked))]
    shuffled_judgements = [judged[i] for i in rng.permutation(len(judged))]
    run_columns = np.array(shuffled_run, dtype=float).reshape(-1, 3).T
    judged_rows, judged_codes, labels = (
        np.array(shuffled_judgements, dtype=np.int64).reshape(-1, 3).T
    )
    rows, codes, scores = rank_pairs(
        run_columns[0].astype(np.int64), run_columns[1].astype(np.int64), run_columns[2]
    )
    return Case(ids, rows, codes, scores, judged_rows, judged_codes, labels, queries)


def values_or_zero(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), 0.0, values)


def check_equal(ours: PerQuery, theirs: Mapping[str, np.ndarray]) -> None:
    for name, values in theirs.items():
        np.testing.assert_allclose(
            values_or_zero(ours[name]), values, rtol=0, atol=1e-9, err_msg=name
        )


def test_catalogue_measures_equal_ir_measures() -> None:
    for seed in SEEDS:
        case = random_case(seed, pool=False)
        ours = catalogue_measures(case.run(), CUTOFFS)

        check_equal(ours, case.oracle(CATALOGUE_ORACLE, GRADES, tied=False))
        of_ties = {each: CATALOGUE_ORACLE[each] for each in CATALOGUE_ORACLE.keys() - UNTIED}
        check_equal(ours, case.oracle(of_ties, GRADES, tied=True))


def test_pool_measures_equal_ir_measures() -> None:
    for seed in SEEDS:
        case = random_case(seed, pool=True)
        ours = pool_measures(case.run())

        for tied in (False, True):
            check_equal(ours, case.oracle(POOL_ORACLE, GRADES, tied))
        swapped = {"pool_ndcg_swapped_gains": nDCG}
        check_equal(ours, case.oracle(swapped, SWAPPED_GRADES, tied=True))


def test_each_measure_is_undefined_exactly_where_its_labels_are_missing() -> None:
    for seed in SEEDS:
        needs = {
            "ndcg": "ESC",
            "pool_ndcg": "ESC",
            "recall_e_or_s": "ES",
            **dict.fromkeys(
                ("mrr", "recall", "capped_recall", "precision", "map", "pool_mrr"), "E"
            ),
            **dict.fromkeys(("judged", "retrieved"), ""),
        }
        for pool in (False, True):
            case = random_case(seed, pool)
            run = case.run()
            counts = run.label_counts
            measures = pool_measures(run) if pool else catalogue_measures(run, CUTOFFS)
            for name, values in measures.items():
                measure = max((n for n in needs if name.startswith(n)), key=len)
                needed = needs[measure]
                defined = (
                    counts[:, ["ESCI".index(label) for label in needed]].sum(axis=1) > 0
                    if needed
                    else np.ones(case.queries, dtype=bool)
                )
                np.testing.assert_array_equal(~np.isnan(values), defined, err_msg=name)
                bounded = values[defined & (name != "retrieved")]
                assert ((bounded >= 0) & (bounded <= 1 + 1e-12)).all(), name


def test_capped_recall_is_found_over_what_could_be() -> None:
    for seed in SEEDS:
        case = random_case(seed, pool=False)
        ours = catalogue_measures(case.run(), CUTOFFS)["capped_recall@10"]

        for row in range(case.queries):
            exact = set(case.judged_codes[(case.judged_rows == row) & (case.labels == E)].tolist())
            first = case.codes[case.query_rows == row][:10].tolist()
            expected = len(exact & set(first)) / min(10, len(exact)) if exact else math.nan
            assert ours[row] == pytest.approx(expected, nan_ok=True)


def test_a_small_query_by_hand() -> None:
    # Ranked: 7 (unjudged), 3 (S), 5 (E), 1 (I); judged but not retrieved: 0 (E), 2 (C).
    judgements = Judgements.from_pairs(
        np.zeros(5, dtype=np.int64), np.array([0, 1, 2, 3, 5]), np.array([E, I, C, S, E]), 1
    )
    run = judge(np.zeros(4, dtype=np.int64), np.array([7, 3, 5, 1]), judgements)

    values = {name: float(each[0]) for name, each in catalogue_measures(run, CUTOFFS).items()}

    ideal = 1 + 1 / math.log2(3) + 0.1 / 2 + 0.01 / math.log2(5)
    assert values["ndcg@10"] == pytest.approx((0.1 / math.log2(3) + 1 / 2) / ideal)
    assert values["ndcg_judged_only@10"] == pytest.approx((0.1 + 1 / math.log2(3)) / ideal)
    assert values["mrr@10"] == pytest.approx(1 / 3)
    assert values["recall@10"] == pytest.approx(1 / 2)
    assert values["recall_e_or_s@10"] == pytest.approx(2 / 3)
    assert values["capped_recall@10"] == pytest.approx(1 / 2)
    assert values["precision@10"] == pytest.approx(1 / 10)
    assert values["map@100"] == pytest.approx(1 / 3 / 2)
    assert values["judged@10"] == pytest.approx(3 / 4)
    assert values["retrieved"] == 4


@pytest.mark.parametrize("gains", [GAINS, SWAPPED_GAINS], ids=["gains", "swapped"])
def test_swapping_the_gains_swaps_substitute_and_complement(gains: dict[str, float]) -> None:
    # Ranked: C, S.
    judgements = Judgements.from_pairs(
        np.zeros(2, dtype=np.int64), np.array([0, 1]), np.array([C, S]), 1
    )
    run = judge(np.zeros(2, dtype=np.int64), np.array([0, 1]), judgements)
    best, worst = max(gains["S"], gains["C"]), min(gains["S"], gains["C"])

    expected = (gains["C"] + gains["S"] / math.log2(3)) / (best + worst / math.log2(3))

    assert ndcg(run, gains=gains)[0] == pytest.approx(expected)
    assert ndcg(run, gains=SWAPPED_GAINS)[0] == pytest.approx(1)
    assert ndcg(run)[0] < 1


@pytest.mark.parametrize("k", [None, 1, 3, 10])
@pytest.mark.parametrize(
    "labels", [(E,), (E, I), (I, I, E), (E, S, C, I), (S, S, S), (E, E, S, C, I, I), (C, I, I, I)]
)
def test_the_floor_is_the_mean_over_all_orders(labels: tuple[int, ...], k: int | None) -> None:
    orders = np.array(list(itertools.permutations(range(len(labels)))))
    queries, n = orders.shape
    rows = np.repeat(np.arange(queries), n)
    judgements = Judgements.from_pairs(
        rows, np.tile(np.arange(n), queries), np.tile(labels, queries), queries
    )

    run = judge(rows, orders.ravel(), judgements)

    np.testing.assert_allclose(
        ndcg_floor(run.label_counts, k), ndcg(run, k).mean(), rtol=0, atol=1e-12
    )


def test_a_constant_scorer_gets_the_value_of_the_id_order_not_a_perfect_one() -> None:
    # The only E has the smallest id, so among equal scores it comes last.
    labels = np.array([E, I, I, I, I])
    codes = np.arange(5)
    rows = np.zeros(5, dtype=np.int64)
    judgements = Judgements.from_pairs(rows, codes, labels, 1)
    for order in itertools.permutations(range(5)):
        ranked_rows, ranked_codes, _ = rank_pairs(rows, codes[list(order)], np.full(5, 0.5))
        measures = pool_measures(judge(ranked_rows, ranked_codes, judgements))
        assert measures["pool_ndcg"][0] == pytest.approx(1 / math.log2(6))
        assert measures["pool_mrr"][0] == pytest.approx(1 / 5)


@pytest.mark.parametrize("pool", [False, True])
def test_queries_evaluated_in_pieces_give_the_same_bits(pool: bool) -> None:
    for seed in SEEDS:
        case = random_case(seed, pool)
        judgements = case.judgements()

        def measures(
            start: int, stop: int, case: Case = case, judgements: Judgements = judgements
        ) -> PerQuery:
            part = slice(*np.searchsorted(case.query_rows, [start, stop]))
            run = judge(case.query_rows[part], case.codes[part], judgements.rows(start, stop))
            return pool_measures(run) if pool else catalogue_measures(run, CUTOFFS)

        whole = measures(0, case.queries)
        step = int(np.random.default_rng(seed).integers(1, case.queries + 1))
        pieces = [measures(at, min(at + step, case.queries)) for at in range(0, case.queries, step)]
        for name, values in whole.items():
            assert np.concatenate([piece[name] for piece in pieces]).tobytes() == values.tobytes()


def test_a_query_that_retrieved_nothing_scores_zero_and_counts() -> None:
    judgements = Judgements.from_pairs(
        np.array([0, 1]), np.array([0, 0]), np.array([E, E]), queries=2
    )

    measures = catalogue_measures(judge(np.array([1]), np.array([0]), judgements), CUTOFFS)

    assert all(values[0] == 0 for values in measures.values())
    assert {means(measures)[name] for name in ("ndcg@10", "mrr@10", "judged@10")} == {0.5}


def test_an_empty_run_scores_zero_everywhere() -> None:
    judgements = Judgements.from_pairs(np.array([0]), np.array([3]), np.array([E]), queries=1)

    run = judge(NOTHING, NOTHING, judgements)

    for measures in (catalogue_measures(run, CUTOFFS), pool_measures(run)):
        for name, values in measures.items():
            assert values.tolist() == [1.0 if "floor" in name else 0.0]


def test_who_leaves_a_measure_is_counted_and_the_rest_averaged() -> None:
    # One query a row: E and I; S; C; I; no judgement at all.
    judgements = Judgements.from_pairs(
        np.array([0, 0, 1, 2, 3]), np.array([0, 1, 2, 3, 4]), np.array([E, I, S, C, I]), queries=5
    )
    run = judge(np.array([0, 0, 1, 2, 3]), np.array([1, 0, 2, 3, 4]), judgements)

    mean = means(catalogue_measures(run, CUTOFFS) | pool_measures(run))

    assert counts(judgements) == {
        "queries": 5,
        "judgements": 5,
        "queries_without_e": 4,
        "queries_without_e_or_s": 3,
        "queries_without_gain": 2,
    }
    assert mean["mrr@10"] == 0.5
    assert mean["recall_e_or_s@10"] == 1
    assert mean["judged@10"] == 0.8
    assert mean["retrieved"] == 1
    ndcg_mean = (1 / math.log2(3) + 1 + 1) / 3
    floor_mean = ((1 + 1 / math.log2(3)) / 2 + 1 + 1) / 3
    assert mean["ndcg@10"] == mean["pool_ndcg"] == round(ndcg_mean, 5)
    assert mean["pool_ndcg_floor"] == round(floor_mean, 5)
    assert mean["pool_skill"] == round((ndcg_mean - floor_mean) / (1 - floor_mean), 5)


def test_the_ideal_order_has_skill_one() -> None:
    labels = np.array([E, S, C, I])
    judgements = Judgements.from_pairs(np.zeros(4, dtype=np.int64), np.arange(4), labels, 1)
    run = judge(np.zeros(4, dtype=np.int64), np.arange(4), judgements)

    assert means(pool_measures(run))["pool_skill"] == 1


def test_a_measure_defined_for_no_query_is_left_out() -> None:
    all_irrelevant = Judgements.from_pairs(np.array([0]), np.array([0]), np.array([I]), queries=1)
    run = judge(np.array([0]), np.array([0]), all_irrelevant)

    defined = means(catalogue_measures(run, CUTOFFS) | pool_measures(run))

    assert set(defined) == {"judged@10", "judged@100", "retrieved"}


def test_skill_is_left_out_where_every_order_is_ideal() -> None:
    for n, label in itertools.product(range(1, 30), (E, S, C)):
        rows = np.zeros(n, dtype=np.int64)
        judgements = Judgements.from_pairs(rows, np.arange(n), np.full(n, label), queries=1)
        mean = means(pool_measures(judge(rows, np.arange(n), judgements)))
        assert mean["pool_ndcg_floor"] == 1
        assert "pool_skill" not in mean


def test_a_pair_judged_twice_is_refused() -> None:
    with pytest.raises(PipelineError, match="row 3 of the clean products, row 1 of the clean quer"):
        Judgements.from_pairs(
            np.array([1, 0, 1, 1]), np.array([3, 3, 5, 3]), np.array([E, E, E, I]), 2
        )


@pytest.mark.parametrize("rows", [[1, 0], [-1, 0], [0, 2]])
def test_a_run_out_of_order_or_range_is_refused(rows: list[int]) -> None:
    judgements = Judgements.from_pairs(NOTHING, NOTHING, NOTHING, queries=2)

    with pytest.raises(ValueError, match="must ascend"):
        judge(np.array(rows), np.array([0, 1]), judgements)


def test_an_unjudged_product_in_the_pool_is_refused() -> None:
    judgements = Judgements.from_pairs(np.array([0]), np.array([0]), np.array([E]), queries=1)

    with pytest.raises(PipelineError, match="1 products without a judgement"):
        pool_measures(judge(np.array([0, 0]), np.array([0, 1]), judgements))
