import math

import numpy as np
import pyarrow as pa
import pytest

from pipeline.compare.settings import ABSENT
from pipeline.core.errors import PipelineError
from pipeline.core.params import Uncertainty
from pipeline.evaluate import uncertainty
from pipeline.evaluate.metrics import mean
from pipeline.leaderboard import board
from pipeline.leaderboard.board import Board, Entry
from pipeline.leaderboard.speed import TIMED, Speed, network_of, read_machines, read_speed
from tests.helpers import comparisons

DRAWS = Uncertainty(samples=1200, confidence=0.95, seed=17)


def entry(values: "np.ndarray", name: str = "a", system: str = "dense", **sample: str) -> Entry:
    side = comparisons.side({f"{system}.ndcg@10": values}, **sample)
    recorded = {"ndcg@10": mean(values)}
    return Entry((name,), "es", system, "labse", "flat", side.card.sample, {},
                 {"ndcg@10": values}, recorded, Speed())  # fmt: skip


def rank(*entries: Entry) -> list[Board]:
    return board.rank_entries(entries, "ndcg@10", DRAWS, 0.05)


def test_the_best_comes_first_and_only_surely_worse_entries_have_a_lower_rank() -> None:
    rng = np.random.default_rng(0)
    base = np.round(rng.beta(2, 2, 200), 5)
    near = np.round(base + rng.normal(0.001, 0.1, 200), 5)
    far = np.round(base - 0.2, 5)
    (found,) = rank(entry(far, "far"), entry(near, "near"), entry(base, "base"))
    names = [placed.entry.revisions[0] for placed in found.placed]
    assert names[-1] == "far"
    assert [placed.rank for placed in found.placed] == [1, 1, 3]
    assert [placed.worse for placed in found.placed] == [False, False, True]


def test_means_and_intervals_are_those_of_evaluate_for_random_tables() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = [np.where(rng.random(40) < 0.1, np.nan, 1.0) * rng.random(40) for _ in range(1)]
        values += [np.where(np.isnan(values[0]), np.nan, rng.random(40)) for _ in range(4)]
        (found,) = rank(*(entry(each, str(place)) for place, each in enumerate(values)))
        means = [placed.interval.mean for placed in found.placed]
        assert means == sorted(means, reverse=True)
        for placed in found.placed:
            own = values[int(placed.entry.revisions[0])]
            assert placed.interval == uncertainty.bootstrap_interval(own, DRAWS)


def test_entries_that_differ_by_luck_alone_are_rarely_surely_worse_however_many_there_are() -> None:
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn = rng.random((8, 60)).round(5)
        (found,) = rank(*(entry(each, str(place)) for place, each in enumerate(drawn)))
        wrong += any(placed.worse for placed in found.placed)
    assert wrong <= 6  # at most .05 of 60 expected, and 6 has a chance below .1


def test_a_clear_difference_is_found_among_many_entries() -> None:
    rng = np.random.default_rng(1)
    drawn = [rng.random(80).round(5) / 2 for _ in range(30)]
    entries = [entry(each, str(place)) for place, each in enumerate([*drawn, drawn[0] + 0.5])]
    with pytest.raises(
        PipelineError, match=r"--samples: 1,200 draws .* 465\)\. Draw at least 9,300\.$"
    ):
        rank(*entries)
    enough = DRAWS.model_copy(update={"samples": 9300})
    (found,) = board.rank_entries(entries, "ndcg@10", enough, 0.05)
    assert found.placed[0].entry.revisions == ("30",)
    assert all(placed.worse for placed in found.placed[1:])


def test_other_samples_and_other_defined_queries_have_boards_of_their_own() -> None:
    values = np.linspace(0, 1, 20).round(5)
    holed = values.copy()
    holed[3] = np.nan
    boards = rank(
        entry(values), entry(values / 2, judgements_sha256="d" * 64), entry(holed), entry(values)
    )
    assert [len(each.placed) for each in boards] == [2, 1, 1]


def test_the_random_baseline_is_shown_but_not_compared() -> None:
    values = np.linspace(0, 1, 20).round(5)
    (found,) = rank(entry(values / 9, system="random"), entry(values))
    assert found.placed[1].entry.system == "random"
    assert math.isnan(found.placed[1].p)
    assert found.placed[1].rank == 2


def test_equal_numbers_of_several_revisions_are_one_entry_and_its_settings_those_they_share() -> (
    None
):
    values = np.linspace(0, 1, 20).round(5)
    one, two = (
        board.entries_of(
            name,
            {"es": comparisons.side({"dense.ndcg@10": values, "hybrid.ndcg@10": values / part})},
            {"clean.separator": name, "embed.dtype": "x"},
            {},
            {},
        )
        for name, part in (("one", 1), ("two", 2))
    )
    merged = board.merge_equal([*one, *two])
    assert [(each.system, each.revisions) for each in merged] == [
        ("dense", ("one", "two")), ("hybrid", ("one",)), ("hybrid", ("two",)),
    ]  # fmt: skip
    assert merged[0].settings == {"embed.dtype": "x"}


def test_the_settings_of_a_trained_encoder_are_those_of_its_training_its_base_and_teacher() -> None:
    settings = {
        "trained.labse.base": "first", "trained.labse.lr": "1", "trained.first.base": "minilm",
        "trained.labse.teacher": "judge", "trained.judge.base": "bert", "trained.judge.epochs": "2",
        "rerankers.bert.depth": "1", "trained.first.teacher": "none", "trained.other.lr": "2",
        "training.seed": "3", "encoders.minilm.pooling": "mean", "encoders.e5.pooling": "mean",
        "encoders.labse.pooling": "cls", "clean.separator": "-",
    }  # fmt: skip
    side = comparisons.side({"dense.ndcg@10": np.linspace(0, 1, 20)})
    assert side.card.encoder == "labse"
    found, *_ = board.entries_of("one", {"es": side}, settings, {}, {})
    assert found.system == "dense"
    others = {"trained.other.lr", "encoders.e5.pooling", "encoders.labse.pooling"}
    assert found.settings == {key: settings[key] for key in settings.keys() - others}


def test_query_texts_decide_an_encoders_numbers_and_a_base_those_of_a_trained_reranker() -> None:
    settings = {
        "spelling.es": "corrected", "spelling.us": "corrected", "rerank.es": "mine",
        "trained.mine.base": "minilm", "training.seed": "3", "encoders.minilm.pooling": "mean",
        "rerankers.other.labels": "1", "encoders.labse.pooling": "cls",
    }  # fmt: skip
    side = comparisons.side({"rerank.ndcg@10": np.linspace(0, 1, 20)}).beside(
        pa.table({"rerank.labels": ["EI"] * 20, "encoder.labels": ["EI"] * 20})
    )
    entries = board.entries_of("one", {"es": side}, settings, {}, {})
    alone, reranked = (
        next(each for each in entries if each.system == system) for system in ("encoder", "rerank")
    )
    assert alone.settings.keys() == {"spelling.es", "encoders.labse.pooling"}
    assert settings.keys() - reranked.settings.keys() == {"spelling.us", "rerankers.other.labels"}
    (shown,) = board.show_settings([alone], ["spelling.es"])
    assert shown.settings == {"spelling.es": "corrected"}


def test_an_index_of_other_settings_is_another_entry_though_its_numbers_are_the_same() -> None:
    side = comparisons.side({"dense.ndcg@10": np.linspace(0, 1, 20).round(5)})
    found = [
        entry
        for name, links in (("one", "16"), ("two", "32"), ("three", "16"))
        for entry in board.entries_of(name, {"es": side}, {"indexes.flat.m": links}, {}, {})
    ]
    merged = board.merge_equal(found)
    dense = [each.revisions for each in merged if each.system == "dense"]
    assert dense == [("one", "three"), ("two",)]


def test_an_empty_setting_of_an_index_is_the_same_choice_as_none() -> None:
    side = comparisons.side({"dense.ndcg@10": np.linspace(0, 1, 20).round(5)})
    found = [
        entry
        for name, rescore in (("old", ABSENT), ("empty", "null"), ("four", "4"))
        for entry in board.entries_of(name, {"es": side}, {"indexes.flat.rescore": rescore}, {}, {})
    ]
    dense = [each.revisions for each in board.merge_equal(found) if each.system == "dense"]
    assert dense == [("old", "empty"), ("four",)]


@pytest.mark.parametrize(
    "damaged", [None, b"", b"{", b"[]", b'{"encoders": [1]}', b'{"encoder":1}']
)
def test_a_missing_or_damaged_report_of_speed_says_nothing(damaged: bytes | None) -> None:
    card = comparisons.side({"dense.ndcg@10": np.ones(3)}).card
    assert read_speed(damaged, damaged, card, ("labse", "float32"), {}) == Speed()
    assert read_machines(damaged, damaged).keys() == TIMED.keys()


def test_speed_is_of_the_encoder_the_precision_the_vectors_and_the_index_of_the_numbers() -> None:
    bench = b'{"encoders": {"labse": {"sides": {"openvino cpu int8": {"tokens_per_second": 7}}}}}'
    tradeoff = (
        b'{"encoder": "labse", "product_ids_sha256": "%s", "product_vectors_sha256": "%s",'
        b' "query_vectors_sha256": "%s", "indexes": ['
        b'{"index": "hnsw", "bytes_per_vector": 1, "p50_milliseconds": 2,'
        b' "settings": {"kind": "hnsw", "ef_search": 1024}},'
        b'{"index": "flat", "bytes_per_vector": 3, "p50_milliseconds": 4,'
        b' "settings": {"kind": "flat"}}]}'
    ) % (b"a" * 64, b"1" * 64, b"2" * 64)
    settings = {
        "indexes.flat.kind": "flat", "indexes.flat.rescore": "null", "indexes.hnsw.kind": "hnsw",
        "indexes.hnsw.ef_search": "1024",
    }  # fmt: skip

    vectors = {"product_vectors_sha256": "1" * 64, "query_vectors_sha256": "2" * 64}
    card = comparisons.side({"dense.ndcg@10": np.ones(3)}).card.model_copy(update=vectors)

    def found(precision: str = "int8", **chosen: object) -> Speed:
        of = card.model_copy(update=chosen)
        return read_speed(bench, tradeoff, of, (of.encoder, precision), settings)

    assert found() == Speed(7, 3, 4)
    assert found(precision="float32") == Speed(None, 3, 4)
    assert found(encoder="minilm") == Speed()
    assert found(product_vectors_sha256="3" * 64) == Speed(7)  # such as of another dimension
    assert found(query_vectors_sha256="3" * 64) == Speed(7)
    assert found(product_vectors_sha256=None, query_vectors_sha256=None) == Speed(7, 3, 4)  # older
    other = card.sample.model_copy(update={"product_ids_sha256": "b" * 64})
    assert found(sample=other) == Speed(7)
    assert found(index="hnsw") == Speed(7, 1, 2)
    settings["indexes.hnsw.ef_search"] = "4096"
    assert found(index="hnsw") == Speed(7)


def test_a_trained_encoder_is_as_fast_as_the_one_it_started_from_at_its_own_precision() -> None:
    settings = {
        "encoders.minilm.precision": "float32", "trained.first.base": "minilm",
        "trained.second.base": "first", "trained.second.precision": "null",
        "trained.third.base": "second", "trained.third.precision": "int8",
        "trained.a.base": "b", "trained.b.base": "a",
    }  # fmt: skip
    for name, network in (
        ("minilm", ("minilm", "float32")), ("second", ("minilm", "float32")),
        ("third", ("minilm", "int8")), ("a", ("a", "")), ("unknown", ("unknown", "")),
    ):  # fmt: skip
        assert network_of(settings, name) == network
    bench = b'{"encoders": {"minilm": {"sides": {"openvino cpu int8": {"tokens_per_second": 7}}}}}'
    card = comparisons.side({"dense.ndcg@10": np.ones(3)}, encoder="third").card
    found = read_speed(bench, None, card, network_of(settings, "third"), settings)
    assert found == Speed(7)


def test_the_encoder_by_itself_is_an_entry_without_an_index() -> None:
    values = np.linspace(0, 1, 20).round(5)
    side = comparisons.side({"dense.ndcg@10": values}).beside(
        pa.table({
            "encoder.map": pa.array(values, pa.float32()),
            "encoder.spearman": pa.array(40 * values - 19.3, pa.float32()),
            "encoder.labels": ["EI"] * 20,
        })
    )  # fmt: skip
    settings = {
        "embed.dtype": "x", "evaluate.mrr": "9", "indexes.flat.kind": "flat",
        "encoders.labse.pooling": "mean",
    }  # fmt: skip
    speeds = {"es": Speed(1, 2, 3)}
    *_, found = board.entries_of("one", {"es": side}, settings, speeds, {})
    assert (found.system, found.encoder, found.index) == ("encoder", "labse", "")
    assert found.speed == Speed(1)
    assert list(found.settings) == ["embed.dtype", "encoders.labse.pooling"]
    (ranked,) = board.rank_entries([found], "spearman", DRAWS, 0.05)
    assert ranked.placed[0].interval.mean == pytest.approx(0.7)
    assert ranked.placed[0].interval.high == 1  # where single values go up to 20.7


def test_encoders_share_a_board_whatever_the_depth_of_runs_and_systems_do_not() -> None:
    values = np.linspace(0, 1, 20).round(5)
    entries = []
    for place, depth in enumerate((1000, 50, 50)):
        side = comparisons.side({"dense.ndcg@10": values}, depth=depth).beside(
            pa.table({
                "encoder.map": pa.array(values / (1 + place % 2), pa.float32()),
                "encoder.labels": ["EI"] * 20,
            })
        )  # fmt: skip
        entries += board.entries_of(str(place), {"es": side}, {}, {}, {})
    merged = board.merge_equal(entries)
    (found,) = board.rank_entries(merged, "map", DRAWS, 0.05)
    assert [placed.entry.revisions for placed in found.placed] == [("0", "2"), ("1",)]
    assert len(board.rank_entries(merged, "ndcg@10", DRAWS, 0.05)) == 2
