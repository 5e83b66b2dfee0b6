"""Fusion is its formula over the union of two runs, each of the same tables and depth."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.bm25 import stage as bm25
from pipeline.clean import stage as clean
from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Fusion, RrfFusion, WeightedFusion
from pipeline.core.systems import FIRST_SYSTEMS, System
from pipeline.embed import stage as embed
from pipeline.evaluate import judged_run, metrics
from pipeline.hybrid import fuse
from pipeline.hybrid import stage as hybrid
from pipeline.index import stage as index
from pipeline.retrieve import stage as retrieve
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs import ranking
from pipeline.runs.inputs import Inputs, read_inputs
from pipeline.sample import stage as sample
from tests.helpers.artefacts import LOCALE, ROOT, params, write_clean
from tests.helpers.run_files import random_run, rewrite_run, write_given_runs

QUERIES, PRODUCTS = 30, 50
SETTINGS: list[Fusion] = [
    *(WeightedFusion(kind="weighted", dense_weight=weight) for weight in (0.0, 0.3, 0.5, 1.0)),
    *(RrfFusion(kind="rrf", rank_constant=constant) for constant in (1, 60, 1000)),
]
Lists = dict[int, list[tuple[int, float]]]


def lists(run: ranking.Ranked) -> Lists:
    """Return each query's (product, score) pairs, best first."""
    found: Lists = defaultdict(list)
    for row, code, score in zip(*run, strict=True):
        found[int(row)].append((int(code), float(score)))
    return found


def fused_plainly(dense: Lists, lexical: Lists, settings: Fusion) -> Lists:
    """The definitions of `hybrid.fuse`, product by product."""
    fused: Lists = {}
    for query in sorted({*dense, *lexical}):
        scores: dict[int, float] = defaultdict(float)
        for system, ranked in (("dense", dense.get(query, [])), ("bm25", lexical.get(query, []))):
            values = [score for _, score in ranked]
            for rank, (code, score) in enumerate(ranked, start=1):
                if isinstance(settings, RrfFusion) and system == "bm25" and score <= 0:
                    part = 0.0
                elif isinstance(settings, RrfFusion):
                    constant = settings.rank_constant
                    part = (constant + 1) / 2 / (constant + rank)
                elif system == "dense":
                    spread = max(values) - min(values)
                    part = settings.dense_weight * ((score - min(values)) / spread if spread else 1)
                else:
                    part = (1 - settings.dense_weight) * (score / max(values) if max(values) else 0)
                scores[code] += part
        rounded = {code: round(score, 6) for code, score in scores.items()}
        fused[query] = sorted(rounded.items(), key=lambda pair: (-pair[1], -pair[0]))
    return fused


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_fusion_is_its_definition(settings: Fusion) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        dense, lexical = (random_run(rng, 20, 15, most=int(rng.integers(0, 15))) for _ in range(2))
        fused = lists(fuse.fuse(dense, lexical, settings))
        expected = fused_plainly(lists(dense), lists(lexical), settings)
        assert list(fused) == list(expected)
        for query, ranked in expected.items():
            assert [code for code, _ in fused[query]] == [code for code, _ in ranked]
            np.testing.assert_allclose(
                [score for _, score in fused[query]], [score for _, score in ranked], atol=1.1e-6
            )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_products_without_a_term_of_the_query_change_no_order_of_a_pool(settings: Fusion) -> None:
    rows = np.zeros(20, np.int64)
    dense = (rows, np.arange(20), np.linspace(1, 0.05, 20))
    found = (rows[:1], np.array([10]), np.array([3.0]))
    pool = (
        rows,
        np.array([10, *range(19, 10, -1), *range(9, -1, -1)]),
        np.array([3.0] + [0.0] * 19),
    )
    for one, other in zip(
        fuse.fuse(dense, pool, settings), fuse.fuse(dense, found, settings), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_run_fused_with_itself_keeps_its_order_and_ties_go_by_id(settings: Fusion) -> None:
    run = random_run(np.random.default_rng(1), 40, 60, most=30)
    rows, codes, _ = fuse.fuse(run, run, settings)
    np.testing.assert_array_equal(rows, run[0])
    np.testing.assert_array_equal(codes, run[1])


@pytest.mark.parametrize(
    ("constant", "deep"), [(4, 1_000), (60, 1_000), (247_996, 1_000), (60, 3_844), (2_000, 5_000)]
)
def test_reciprocal_ranks_stay_apart_as_deep_as_a_run_goes(constant: int, deep: int) -> None:
    params({"hybrid": {"kind": "rrf", "rank_constant": constant}, "retrieve.depth": deep})
    run = (np.zeros(deep, np.int64), np.arange(deep), np.linspace(9, 1, deep))
    nothing = np.empty(0, np.int64)
    _, codes, scores = fuse.fuse(
        run, (nothing, nothing, np.empty(0)), RrfFusion(kind="rrf", rank_constant=constant)
    )
    np.testing.assert_array_equal(codes, run[1])
    assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_scores_are_0_to_1_and_1_is_for_the_first_of_both(settings: Fusion) -> None:
    rng = np.random.default_rng(5)
    dense, lexical = (random_run(rng, 50, 20, most=20, least=5) for _ in range(2))
    _, _, scores = fuse.fuse(dense, lexical, settings)
    assert scores.min() >= 0
    assert scores.max() <= 1
    first = (np.zeros(2, np.int64), np.array([4, 9]), np.array([0.7, 0.2]))
    assert fuse.fuse(first, first, settings)[2][0] == 1


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Clean tables and the runs of both systems, some queries missing, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    write_clean(rng, PRODUCTS, QUERIES)
    read = read_inputs(LOCALE)
    for system in hybrid.FUSED:
        pool = ranking.rank_pairs(
            read.pair_queries, read.pair_products, rng.integers(0, 3, len(read.pair_queries)) / 2
        )
        write_given_runs(system, read, random_run(rng, QUERIES, PRODUCTS, most=20), pool=pool)
    return read


def _read(system: System, track: str, inputs: Inputs) -> ranking.Ranked:
    path = layout.runs(system, LOCALE).folder / f"{track}.parquet"
    ((_, ranked),) = run_files.iter_run(path, inputs, QUERIES, "")
    return ranked


@pytest.mark.parametrize("depth", [8, 1000])
def test_the_stage_fuses_each_track_and_cuts_the_catalogue_run_at_the_depth(
    inputs: Inputs, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shallow = {f"evaluate.{key}": [5] for key in ("ndcg", "recall", "judged")} | {
        f"evaluate.{key}": 5
        for key in ("mrr", "precision", "map", "capped_recall", "ndcg_judged_only")
    }
    compared = {"compare.metrics": ["dense.ndcg@5"]}
    given = params({"retrieve.depth": depth, **shallow, **compared})
    for system in hybrid.FUSED:
        tracks = [_read(system, track, inputs) for track in ("catalogue", "pool")]
        write_given_runs(system, inputs, tracks[0], pool=tracks[1], depth=depth)
    monkeypatch.setattr(run_files, "QUERIES_A_PIECE", 11)
    hybrid.hybrid(given, LOCALE)
    for track in ("catalogue", "pool"):
        fused = lists(_read("hybrid", track, inputs))
        dense, lexical = (lists(_read(system, track, inputs)) for system in hybrid.FUSED)
        for query, ranked in fused_plainly(dense, lexical, given.hybrid).items():
            kept = ranked[:depth] if track == "catalogue" else ranked
            assert [code for code, _ in fused[query]] == [code for code, _ in kept]


def test_the_stage_writes_the_same_bytes_whatever_the_pieces_it_read_were(
    inputs: Inputs,
) -> None:
    def fingerprint() -> list[str]:
        hybrid.hybrid(params(), LOCALE)
        return [
            files.sha256_file(path)
            for path in sorted(layout.runs("hybrid", LOCALE).folder.iterdir())
        ]

    before = fingerprint()
    for system in hybrid.FUSED:
        tracks = [_read(system, track, inputs) for track in ("catalogue", "pool")]
        write_given_runs(system, inputs, tracks[0], pool=tracks[1], queries_a_group=3)
    assert fingerprint()[:2] == before[:2]  # the card, last, holds the hashes of what it read


def test_the_card_says_what_was_fused_and_how(inputs: Inputs) -> None:
    def of(changes: dict[str, Any]) -> dict[str, str]:
        hybrid.hybrid(params(changes), LOCALE)
        return run_card.read_card(
            layout.runs("hybrid", LOCALE), "hybrid", inputs.queries, inputs.products, ""
        ).of

    hashes = {
        f"{system}_{track}_sha256": files.sha256_file(layout.runs(system, LOCALE).track(track))
        for system in hybrid.FUSED
        for track in ("catalogue", "pool")
    }
    assert of({"hybrid.dense_weight": 0.3}) == {
        "fusion": "weighted", "dense_weight": "0.3", **hashes,
    }  # fmt: skip
    rrf = {"kind": "rrf", "rank_constant": 20}
    assert of({"hybrid": rrf}) == {"fusion": "rrf", "rank_constant": "20", **hashes}


@pytest.mark.parametrize("system", hybrid.FUSED)
def test_runs_of_another_depth_are_refused(inputs: Inputs, system: System) -> None:
    write_given_runs(system, inputs, _read(system, "catalogue", inputs), depth=500)
    told = f"runs are 500 deep, but retrieve.depth is 1000. {run_card.rerun_hint(system, LOCALE)}"
    with pytest.raises(PipelineError, match=told):
        hybrid.hybrid(params(), LOCALE)


@pytest.mark.parametrize("system", hybrid.FUSED)
def test_a_missing_run_and_a_run_in_the_others_place_are_refused(
    inputs: Inputs, system: System
) -> None:
    other = hybrid.FUSED[system == "dense"]
    path = layout.runs(system, LOCALE).card
    path.write_bytes(layout.runs(other, LOCALE).card.read_bytes())
    with pytest.raises(PipelineError, match=f"system must be '{system}' .found '{other}'"):
        hybrid.hybrid(params(), LOCALE)
    path.unlink()
    with pytest.raises(PipelineError, match=r"run.json is missing. Run `dvc repro"):
        hybrid.hybrid(params(), LOCALE)


def test_runs_of_other_tables_are_refused(inputs: Inputs) -> None:
    write_clean(np.random.default_rng(77), PRODUCTS, QUERIES)
    with pytest.raises(PipelineError, match=r"query_ids_sha256 must be .* the runs are of other"):
        hybrid.hybrid(params(), LOCALE)


@pytest.mark.parametrize("system", hybrid.FUSED)
def test_a_pool_run_of_other_judgements_is_refused(inputs: Inputs, system: System) -> None:
    path = layout.clean(LOCALE).judgements
    judgements = tables.read_table(path, tables.JUDGEMENTS, "")
    tables.write_table(path, judgements.slice(1), tables.JUDGEMENTS)
    other = hybrid.FUSED[system == "dense"]
    write_given_runs(other, read_inputs(LOCALE), _read(other, "catalogue", inputs))
    with pytest.raises(PipelineError, match=rf"{system}/es/pool.parquet .* of other judgements"):
        hybrid.hybrid(params(), LOCALE)


@pytest.mark.parametrize("track", ["catalogue", "pool"])
def test_a_score_that_is_no_number_is_refused_and_the_old_runs_stay(
    inputs: Inputs, track: str
) -> None:
    hybrid.hybrid(params(), LOCALE)
    before = files.sha256_file(layout.runs("hybrid", LOCALE).card)
    rewrite_run(
        layout.runs("bm25", LOCALE).folder / f"{track}.parquet",
        lambda run: run.assign(score=run["score"].where(run.index != 4, np.nan)),
    )
    with pytest.raises(PipelineError, match="the score must be a finite number"):
        hybrid.hybrid(params(), LOCALE)
    assert files.sha256_file(layout.runs("hybrid", LOCALE).card) == before


@pytest.mark.thorough
@pytest.mark.weights
@pytest.mark.skipif("ESCI_DIR" not in os.environ, reason="ESCI_DIR names no real ESCI sample")
@pytest.mark.parametrize("locale", ["us", "es", "jp"])
def test_on_real_data_hybrid_beats_the_better_system_by_a_fiftieth_of_ndcg(
    locale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", os.environ.get("PIPELINE_CACHE", str(ROOT / ".cache")))
    monkeypatch.chdir(tmp_path)
    given = params(
        {
            "sample.source": str(Path(os.environ["ESCI_DIR"]).absolute()),
            "sample.version": "all",
            "sample.splits": ["test", "train"],
            "sample.queries": 400,
        }
    )
    sample.sample(given)
    for stage in (
        clean.clean, embed.embed, index.index, retrieve.retrieve, bm25.bm25, hybrid.hybrid,
    ):  # fmt: skip
        stage(given, locale)
    means = {system: _ndcg(system, locale) for system in FIRST_SYSTEMS}
    assert means["hybrid"] > max(means["dense"], means["bm25"]) + 0.02


def _ndcg(system: System, locale: str) -> float:
    inputs = read_inputs(locale)
    judgements = tables.read_table(layout.clean(locale).judgements, tables.JUDGEMENTS, "")
    rows = tables.row_of(inputs.queries, judgements["query_id"]).to_numpy()
    codes = tables.row_of(inputs.products, judgements["product_id"]).fill_null(-2).to_numpy()
    labels = tables.row_of(pa.chunked_array([tables.LABELS]), judgements["label"]).to_numpy()
    qrels = judged_run.Judgements.from_pairs(
        rows.astype(np.int64), codes.astype(np.int64), labels, len(inputs.queries)
    )
    path = layout.runs(system, locale).catalogue
    ((_, (ranked, found, _)),) = run_files.iter_run(path, inputs, len(inputs.queries), "")
    measures = metrics.catalogue_measures(judged_run.judge(ranked, found, qrels), params().evaluate)
    return float(np.nanmean(measures["ndcg@10"]))
