"""Runs of any engine are scored as trec_eval scores them, and as the stage does."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ir_measures import AP, RR, Judged, P, R, nDCG

from esci_retrieval import PipelineError, Result, compare, evaluate, read_per_query
from pipeline.compare import differences
from pipeline.compare.pairs import pair
from pipeline.core import layout
from pipeline.evaluate import stage
from pipeline.given.table import TREC_RUN, read_given
from pipeline.score import ALPHA, CUTOFFS, DRAWS, command
from tests.helpers.artefacts import LOCALE, ROOT, params, write_clean, write_runs, write_sources
from tests.helpers.pages import blocks_of
from tests.helpers.repository import GIT_IDENTITY, commit_all

GRADES = {"E": 100, "S": 10, "C": 1, "I": 0}
ORACLE = {
    "ndcg@10": (nDCG @ 10, "ESC"),
    "ndcg@100": (nDCG @ 100, "ESC"),
    "ndcg_judged_only@10": (nDCG(judged_only=True) @ 10, "ESC"),
    "mrr@10": (RR(rel=100) @ 10, "E"),
    "recall@10": (R(rel=100) @ 10, "E"),
    "recall@100": (R(rel=100) @ 100, "E"),
    "recall@1000": (R(rel=100) @ 1000, "E"),
    "recall_e_or_s@50": (R(rel=10) @ 50, "ES"),
    "precision@10": (P(rel=100) @ 10, "E"),
    "map@100": (AP(rel=100) @ 100, "E"),
    "judged@10": (Judged @ 10, "ESCI"),
}
"""A measure of ir_measures, and the labels of which a query needs one for it to be defined."""

ANY_ORDER_OF_TIES = ("mrr@10", "judged@10")
"""ir_measures computes these without trec_eval, and keeps tied products in the order given."""


def graded(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As TREC's deep learning track: grades of 0 to 3, deep pools, scores of 32 bits, some tied."""
    rows = [
        (f"{1_000_000 + query}", f"D{product}", int(rng.integers(0, 4)))
        for query in rng.permutation(25)
        for product in rng.permutation(900)[:60]
    ]
    run = [
        (f"{1_000_000 + query}", f"D{product}", np.float32(rng.normal()).round(1))
        for query in rng.permutation(25)
        for product in rng.permutation(900)[:300]
    ]
    return frames(rows, run)


def binary(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As Robust: names for queries, 0 and 1; the run lacks some queries and has others."""
    rows = [
        (f"q-{query}", f"LA{product:04d}-é", int(rng.random() < 0.2))
        for query in range(30)
        for product in rng.permutation(400)[: rng.integers(1, 80)]
    ]
    run = [
        (f"q-{query}", f"LA{product:04d}-é", float(rng.integers(-5, 5)))
        for query in rng.permutation(np.arange(7, 40))
        for product in rng.permutation(1000)[: rng.choice([1, 9, 500])]
    ]
    return frames(rows, run)


def positives(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As BEIR: a few relevant documents for each query and nothing else is judged."""
    rows = [
        (str(query), str(product), 1)
        for query in range(50)
        for product in rng.permutation(300)[: rng.integers(1, 3)]
    ]
    run = [
        (str(query), str(product), float(score))
        for query in range(50)
        for product, score in zip(rng.permutation(300)[:100], rng.random(100), strict=True)
    ]
    return frames(rows, run)


def frames(rows: list[Any], run: list[Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    return (
        pd.DataFrame(rows, columns=["query_id", "product_id", "label"]),
        pd.DataFrame(run, columns=["query_id", "product_id", "score"]),
    )


Shape = Callable[[np.random.Generator], tuple[pd.DataFrame, pd.DataFrame]]
SHAPES: tuple[tuple[Shape, dict[int, str]], ...] = (
    (graded, {3: "E", 2: "S", 1: "C", 0: "I"}),
    (binary, {1: "E", 0: "I"}),
    (positives, {1: "E"}),
)


def write_trec(qrels: pd.DataFrame, run: pd.DataFrame) -> tuple[Path, Path]:
    """Write both as TREC files; the ranks say nothing."""
    judged = [f"{q} 0 {p} {label}\n" for q, p, label in qrels.itertuples(index=False)]
    ranked = [f"{q}\tQ0  {p} 0 {score} x\n" for q, p, score in run.itertuples(index=False)]
    Path("a.qrels").write_text("".join(judged), encoding="utf-8")
    Path("a.run").write_text("".join(ranked), encoding="utf-8")
    return Path("a.run"), Path("a.qrels")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("shape", "labels"), SHAPES, ids=lambda each: getattr(each, "__name__", "")
)
def test_every_measure_equals_ir_measures_with_ties_holes_and_missing_queries(
    shape: Shape, labels: dict[int, str]
) -> None:
    for seed in range(2):
        qrels, run = shape(np.random.default_rng(seed))
        found = evaluate(*write_trec(qrels, run), labels=labels)
        of = qrels.label.map(labels)
        ties_broken = run.assign(wide=run.score.astype(np.float32)).sort_values(
            ["query_id", "wide", "product_id"], ascending=[True, False, False]
        )
        fallen = ties_broken.assign(score=-np.arange(len(run), dtype=float))
        for (defining, any_order), measures in groups():
            defined = set(qrels.query_id[of.isin(list(defining))])
            judged = [
                ir_measures.Qrel(query, product, GRADES[label])
                for query, product, label in zip(qrels.query_id, qrels.product_id, of, strict=True)
                if query in defined
            ]
            ranked = (fallen if any_order else run)[["query_id", "product_id", "score"]]
            docs = [ir_measures.ScoredDoc(*row) for row in ranked.itertuples(index=False)]
            theirs: dict[str, dict[str, float]] = {
                name: dict.fromkeys(defined, 0.0) for name in measures.values()
            }
            for each in ir_measures.iter_calc(list(measures), judged, docs):
                theirs[measures[each.measure]][each.query_id] = each.value
            means = ir_measures.calc_aggregate(list(measures), judged, docs)
            for measure, name in measures.items():
                values = zip(found.per_query["query_id"], found.per_query[name], strict=True)
                ours = {str(query): value.as_py() for query, value in values if value.is_valid}
                assert ours == pytest.approx(theirs[name], abs=1e-9), name
                assert found.means[name].mean == pytest.approx(means[measure], abs=1e-9), name
                assert found.means[name].queries == len(defined)


def groups() -> Iterable[tuple[tuple[str, bool], dict[Any, str]]]:
    """Return the measures that ir_measures can compute at once, with their names."""
    found: dict[tuple[str, bool], dict[Any, str]] = {}
    for name, (measure, defining) in ORACLE.items():
        found.setdefault((defining, name in ANY_ORDER_OF_TIES), {})[measure] = name
    return found.items()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which two systems were evaluated by the stage."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        rng = np.random.default_rng(5)
        write_clean(rng, 300, 60)
        write_sources({})
        write_runs(rng, 150)
        given = params({"evaluate.recall": [10, 50, 100], "retrieve.depth": 150})
        stage.evaluate(given, LOCALE)
    return project


def score_stage_runs(project: Path, system: str) -> Result:
    run = project / layout.runs(system, LOCALE).catalogue
    return evaluate(
        run, project / layout.clean(LOCALE).judgements, cutoffs={"recall": [10, 50, 100]}
    )


def score_stage_pool(project: Path, system: str) -> Result:
    run = project / layout.runs(system, LOCALE).pool
    return evaluate(run, project / layout.clean(LOCALE).judgements, track="pool")


def test_the_stages_own_runs_get_the_stages_own_means_and_intervals(evaluated: Path) -> None:
    reported = json.loads((evaluated / layout.metrics(LOCALE)).read_text())
    intervals = json.loads((evaluated / layout.intervals(LOCALE)).read_text())
    for system in ("dense", "bm25"):
        found = score_stage_runs(evaluated, system)
        shared = found.means.keys() & reported[system].keys()
        assert len(shared) > 14
        for name in shared:
            assert round(found.means[name].mean, 5) == reported[system][name], name
        for name in found.means.keys() & intervals[system].keys():
            mean, low, high, queries = found.means[name]
            ours = [round(mean, 5), round(low, 5), round(high, 5), queries]
            assert ours == [
                intervals[system][name][key] for key in ("mean", "low", "high", "queries")
            ]
        for name in found.counts.keys() & reported.keys():
            assert found.counts[name] == reported[name]
        pool = score_stage_pool(evaluated, system).means
        assert {"pool_ndcg", "pool_mrr"} < pool.keys()
        for name in pool:
            assert round(pool[name].mean, 5) == reported[system][name], name


def test_a_comparison_gives_what_comparing_revisions_gives(evaluated: Path) -> None:
    a, b = (score_stage_runs(evaluated, system) for system in ("dense", "bm25"))
    found = compare(a, b, measures=["ndcg@10", "recall@100"])

    table = pq.read_table(evaluated / layout.per_query(LOCALE))
    sides = [
        table.select([f"{system}.{name}" for name in table_measures(table)]).rename_columns(
            [f"run.{name}" for name in table_measures(table)]
        )
        for system in ("dense", "bm25")
    ]
    pairs = [pair("x", f"run.{name}", *sides) for name in ("ndcg@10", "recall@100")]
    moves = differences.measure_moves(pairs, 0.05, 0.0, params().uncertainty, 0)
    for difference, move in zip(found, moves, strict=True):
        assert difference.difference == pytest.approx(move.difference, abs=1e-12)
        for name in ("a", "b", "p", "p_adjusted", "won", "lost", "tied", "significant"):
            assert getattr(difference, name) == pytest.approx(getattr(move, name), abs=1e-12), name


def table_measures(table: pa.Table) -> list[str]:
    return [
        name.removeprefix("dense.")
        for name in table.column_names
        if name.startswith("dense.") and name != "dense.labels"
    ]


@pytest.mark.slow
def test_each_query_of_a_revision_is_read_from_git(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout.per_query(LOCALE)
    expected = pq.read_table(evaluated / path)
    folder = Path("clone")
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_bytes((evaluated / path).read_bytes())
    commit_all(folder, {**os.environ, **GIT_IDENTITY}, "reports")
    monkeypatch.chdir(folder)
    assert read_per_query(LOCALE).equals(expected)
    path.unlink()
    assert read_per_query(LOCALE, "HEAD").equals(expected)
    refused = [
        (("us", "HEAD"), r"HEAD .* has no locale 'us' .it has: es.\. Name one of these"),
        ((LOCALE, "no-such"), "no-such is not a revision or an experiment"),
        ((LOCALE, "workspace"), "workspace has no tables in reports/per_query"),
    ]
    for arguments, message in refused:
        with pytest.raises(PipelineError, match=message):
            read_per_query(*arguments)


def test_p_is_adjusted_over_all_runs_and_measures_that_are_compared() -> None:
    results = []
    for seed in range(3):
        qrels, run = graded(np.random.default_rng(seed))
        qrels, _ = graded(np.random.default_rng(0))
        results.append(evaluate(run, qrels, labels=SHAPES[0][1], name=str(seed)))
    together = compare(*results)
    assert [(each.name, each.measure) for each in together] == [
        (name, measure)
        for name in ("1", "2")
        for measure in ("ndcg@10", "mrr@10", "recall@10", "recall@100")
    ]
    least = min(together, key=lambda each: each.p)
    assert least.p_adjusted == pytest.approx(min(1, least.p * len(together)))
    alone = compare(results[0], results[1], measures=["ndcg@10"])
    assert alone[0].p_adjusted == alone[0].p == together[0].p
    same = compare(results[0], results[0])
    assert {(each.verdict, each.p) for each in same} == {("equal", 1.0)}


def test_too_few_draws_for_so_many_comparisons_are_refused_with_the_number_that_is_enough() -> None:
    qrels, run = graded(np.random.default_rng(0))
    found = evaluate(run, qrels, labels=SHAPES[0][1], samples=100)
    enough = evaluate(run, qrels, labels=SHAPES[0][1], samples=160)
    assert len(compare(found, found, measures=found.headline()[:4])) == 4
    with pytest.raises(
        PipelineError,
        match=r"^samples of evaluate\(\): 100 draws are too few.* together: 8.* Draw at least 160",
    ):
        compare(found, found, found)
    assert len(compare(enough, enough, enough)) == 8


def test_every_form_and_every_order_of_rows_gives_the_same_result() -> None:
    qrels, run = binary(np.random.default_rng(1))
    labels = SHAPES[1][1]
    paths = write_trec(qrels, run)
    expected = evaluate(*paths, labels=labels, name="x")
    for path in paths:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.write_text("\n" + path.read_text().replace("\n", "\r\n\n"))  # blank lines, CRLF
    qrels.to_parquet("qrels.parquet")
    run.to_parquet("run.parquet")
    shuffled = [each.sample(frac=1, random_state=3) for each in (run, qrels)]
    categories = [each.astype({"query_id": "category"}) for each in (run, qrels)]
    given: list[tuple[Any, Any]] = [
        paths,
        ("a.run.gz", "a.qrels.gz"),
        ("run.parquet", Path("qrels.parquet")),
        (run, qrels),
        (shuffled[0], shuffled[1]),
        (categories[0], categories[1]),
        (run.set_index("query_id"), qrels),
        (pa.Table.from_pandas(run), pa.Table.from_pandas(qrels)),
        (pl.DataFrame(run.to_dict("list")), pl.DataFrame(qrels.to_dict("list"))),
        (run.to_dict("list"), qrels.to_dict("list")),
    ]
    for one, other in given:
        found = evaluate(one, other, labels=labels, name="x")
        assert found.counts == {**expected.counts, "queries_against_rank": 0}
        assert found.means == expected.means
        assert found.per_query.equals(expected.per_query)
        assert found.judgements_sha256 == expected.judgements_sha256


def test_gains_grades_and_labels_of_esci_need_no_meanings_also_in_few_bits() -> None:
    qrels, run = graded(np.random.default_rng(2))
    letters = qrels.label.map(SHAPES[0][1])
    expected = evaluate(run, qrels.assign(label=letters))
    of_polars = pl.DataFrame(qrels.assign(label=letters).to_dict("list"))
    forms = [
        of_polars,
        of_polars.with_columns(pl.col("label").cast(pl.Categorical)),
        of_polars.with_columns(pl.col("label").cast(pl.Enum(["E", "S", "C", "I"]))),
        qrels.drop(columns="label").assign(esci_label=letters),
        *(
            qrels.drop(columns="label").assign(
                gain=letters.map({"E": 1, "S": 0.1, "C": 0.01, "I": 0}).astype(kind)
            )
            for kind in (np.float32, np.float16)
        ),
        qrels.drop(columns="label").assign(grade=letters.map(GRADES)),
        write_trec(qrels.assign(label=letters.map(GRADES)), run)[1],
    ]
    for form in forms:
        assert evaluate(run, form).means == expected.means


def test_values_of_labels_are_merged_only_if_they_are_equal_numbers() -> None:
    def labelled(first: object, second: object) -> Any:
        return {"query_id": [1, 1], "product_id": ["a", "b"], "label": [first, second]}

    cases: tuple[tuple[Any, Any, Any], ...] = (
        (16777217, 16777216, {16777217: "E", 16777216: "I"}),
        (2**53 + 1, 2**53, {str(2**53 + 1): "E", 2**53: "I"}),
        ("1_0", "10", {"1_0": "E", "10": "I"}),
        ("１", "1", {"１": "E", 1: "I"}),
        (1.0, 0.0, {"1": "E", "-0": "I"}),
        ("1e-3", "0.01", {0.001: "E", 0.01: "I"}),
    )
    for first, second, own in cases:
        assert (
            evaluate(RUN, labelled(first, second), labels=own).means == evaluate(RUN, QRELS).means
        )
    twice: tuple[Any, ...] = ({1: "E", "1": "I", 0: "I"}, {"1": "E", "1.0": "S", "0": "I"})
    for own in twice:
        with pytest.raises(PipelineError, match=r"is given twice, as 1\. Keep one"):
            evaluate(RUN, labelled(1, 0), labels=own)


def test_ranks_decide_only_where_there_are_no_scores() -> None:
    qrels = pd.DataFrame({"query_id": [1, 1], "product_id": ["a", "b"], "label": ["E", "I"]})
    ranks = pd.DataFrame({"query_id": [1, 1, 1], "product_id": ["a", "b", "c"], "rank": [3, 2, 1]})
    assert evaluate(ranks, qrels).means["mrr@10"].mean == pytest.approx(1 / 3)
    both = evaluate(ranks.assign(score=[3, 2, 1]), qrels)
    assert both.means["mrr@10"].mean == 1
    assert both.counts["queries_against_rank"] == 1
    assert any("contradict" in note for note in both.notes())
    tied = evaluate(RUN.assign(score=0, rank=[1, 2]), QRELS)  # b is first, by its id
    assert (tied.means["mrr@10"].mean, tied.counts["queries_against_rank"]) == (0.5, 1)
    assert any("tie with the one before" in note for note in tied.notes())


def test_ranks_beside_scores_need_be_no_numbers() -> None:
    Path("dash.run").write_text("1 Q0 a - 2.0 x\n1 Q0 b - 1.0 x\n")
    for run in ("dash.run", RUN.assign(rank=["first", "second"])):
        assert evaluate(run, QRELS).means == evaluate(RUN, QRELS).means


def test_scores_that_32_bits_cannot_tell_apart_tie_as_in_trec_eval() -> None:
    for scores in ([0.1234567892, 0.1234567891], [16777217, 16777216], [1e-46, 0], [0.5, 0.5]):
        judged = [ir_measures.Qrel("1", "a", 100), ir_measures.Qrel("1", "b", 0)]
        docs = [ir_measures.ScoredDoc("1", *each) for each in zip("ab", scores, strict=True)]
        theirs = ir_measures.calc_aggregate([nDCG @ 10], judged, docs)[nDCG @ 10]
        found = evaluate(RUN.assign(score=scores), QRELS)
        assert found.means["ndcg@10"].mean == pytest.approx(theirs, abs=1e-9)
        assert found.counts["results_tied"] == 1


def test_what_is_missing_unknown_or_tied_is_counted() -> None:
    qrels = pd.DataFrame(
        {
            "query_id": [1, 1, 2, 3, 10],
            "product_id": ["a", "b", "a", "c", "d"],
            "label": ["E", "I", "E", "S", "I"],
        }
    )
    run = pd.DataFrame(
        {
            "query_id": [1, 1, 1, 2, 99, 98],
            "product_id": ["a", "x", "y", "b", "a", "a"],
            "score": [1.0, 1.0, 0.5, 2, 3, 4],
        }
    )
    found = evaluate(run, qrels)
    assert found.counts == {
        "queries": 4, "judgements": 5, "queries_without_e": 2, "queries_without_e_or_s": 1,
        "queries_without_gain": 1, "queries_without_results": 2, "queries_not_judged": 2,
        "queries_against_rank": 0, "results": 4, "results_judged": 1, "results_tied": 1, "depth": 3,
    }  # fmt: skip
    assert found.per_query["query_id"].to_pylist() == ["1", "2", "3", "10"]
    assert found.per_query["mrr@10"].to_pylist() == [0.5, 0.0, None, None]  # x before a: a tie
    assert "judged queries without results, which score 0: 2" in " ".join(found.notes())


def test_results_outside_a_catalogue_are_left_out_and_counted_and_the_next_move_up() -> None:
    qrels = pd.DataFrame({"query_id": [1, 1], "product_id": ["a", "b"], "label": ["E", "I"]})
    run = pd.DataFrame(
        {"query_id": [1, 1, 1, 9], "product_id": ["x", "y", "a", "z"], "score": [3, 2, 1, 1]}
    )
    whole = evaluate(run, qrels)
    found = evaluate(run, qrels, products={"product_id": ["a", "b", "y"]})
    assert (whole.means["mrr@10"].mean, found.means["mrr@10"].mean) == (1 / 3, 1 / 2)
    new = {"results_unknown", "judgements_unknown"}
    assert whole.counts.keys() | new == found.counts.keys()
    assert (found.counts["results"], found.counts["results_unknown"]) == (2, 1)
    assert found.counts["judgements_unknown"] == 0
    assert "not in the catalogue and are left out: 1" in " ".join(found.notes())
    bare = evaluate(run, qrels, products={"product_id": ["b", "z"]})
    assert bare.counts["queries_without_results"] == bare.counts["judgements_unknown"] == 1
    assert "are not in the catalogue, and score nothing: 1" in " ".join(bare.notes())
    again = evaluate(run, qrels, products={"product_id": ["y", "b", "a", "a"]})
    assert compare(found, again)[0].verdict == "equal"
    for other in (whole, bare):
        with pytest.raises(PipelineError, match=r"different products .[0-9a-f]{12} and "):
            compare(found, other)
    with pytest.raises(PipelineError, match="none of its 4 product_id is in the products"):
        evaluate(run, qrels, products={"product_id": ["b"]})
    with pytest.raises(PipelineError, match="the products: there must be one column product_id"):
        evaluate(run, qrels, products={"sku": ["a"]})


def test_the_pool_is_scored_as_escis_first_task_is() -> None:
    qrels, _ = graded(np.random.default_rng(4))
    labelled = qrels.assign(label=qrels.label.map(SHAPES[0][1]))
    perfect = qrels.drop(columns="label").assign(score=qrels.label)
    found = evaluate(perfect, labelled, track="pool")
    assert found.means["pool_ndcg"].mean == pytest.approx(1)
    assert "ndcg@10" not in found.means
    assert [each.measure for each in compare(found, found)] == ["pool_ndcg", "pool_mrr"]
    part = evaluate(perfect[1:], labelled, track="pool")
    assert any("leaves out, which earn nothing: 1" in note for note in part.notes())
    _, run = graded(np.random.default_rng(4))
    with pytest.raises(PipelineError, match=r"ranks judged products alone .found [0-9,]+ results"):
        evaluate(run, labelled, track="pool")


QRELS = pd.DataFrame({"query_id": [1, 1], "product_id": ["a", "b"], "label": ["E", "I"]})
RUN = pd.DataFrame({"query_id": [1, 1], "product_id": ["a", "b"], "score": [2.0, 1.0]})


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (RUN.assign(score=[1, np.nan]), r"the run: row 1 .from 0.: score is missing"),
        (pa.table({**RUN, "score": [1.0, float("nan")]}), r"row 1 .* finite number .found nan"),
        (RUN.assign(score=[np.inf, 1]), r"row 0 .* finite number .found inf"),
        (RUN.assign(score=[1e60, 1]), "too large for 32 bits"),
        (RUN.assign(score=["2", "1"]), "score must be numbers .found (large_)?string"),
        ({**RUN, "score": [10**30, 1]}, "the run must be a path, or a frame .*dict: .*too"),
        (
            {"query_id": [1, 2, 2], "product_id": ["a", "a", "b"], "rank": [1, 1, 1]},
            r"row 1 .*query '2' has rank 1 twice .1 such rows",
        ),
        (RUN.assign(product_id="a"), r"row 1 .*query '1' has product 'a' twice .1 such rows"),
        (RUN.assign(product_id=["a", None]), "row 1 .*product_id is missing"),
        (RUN.assign(product_id=["a", ""]), "row 1 .*product_id is empty"),
        (RUN.assign(query_id=[1.0, 2.0]), "query_id must be text or integers .found double"),
        (RUN.assign(query_id=[7, 8]), r"none of its 2 query_id is in .*such as '7'; there is '1'"),
        (RUN.assign(product_id=["x", "y"]), r"none of its 2 product_id is in the judg"),
        (RUN.drop(columns="score"), "column score or rank .the columns are query_id, product_id"),
        (RUN.rename(columns={"query_id": "qid"}), "one column query_id .found 0; .*'qid'"),
        (RUN.iloc[:0], "has no rows"),
        (None, "must be a path, or a frame .* .found NoneType"),
        ([["a"]], "must be a path, or a frame"),
        ("none.run", "none.run is missing. Name the run: a TREC file or a parquet file."),
        (".", "not a regular file"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_right_is_refused_with_one_message(run: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        evaluate(run, QRELS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        (
            QRELS.assign(label=["E", "Exact"]),
            r"row 1 .*one of E, S, C, I .found Exact; in all: E, .*labels=\{'Exact': 'E'\}",
        ),
        (QRELS.assign(label=["E", "it's"]), r"--label 'it'\"'\"'s=E'"),
        (QRELS.assign(label=["E", "a\nlong text " * 900]), r"^.{1,500}--label VALUE=E .{1,80}$"),
        (QRELS.assign(label=[3, 1]), r"label must be one of E, S, C, I .*labels=\{'3': 'E', '1'"),
        (QRELS.assign(label=["E", None]), "row 1 .*label is missing"),
        (QRELS.rename(columns={"label": "gain"}), "row 0 .*gain must be one of 1, 0.1, 0.01, 0"),
        (QRELS.drop(columns="label").assign(grade=[1, 0]), "the grades are only 0, 1, and 1 may"),
        (QRELS.drop(columns="label").assign(grade=[0, 0]), r"labels=\{'1': 'E', '0': 'I'\}, or"),
        (QRELS.drop(columns="label").assign(grade=[2, 0]), "one of 100, 10, 1, 0 .found 2; in all"),
        (QRELS.assign(gain=[1, 0]), "one column of label, .*found label, gain"),
        (QRELS.drop(columns="label"), "one column of label, .*found none"),
        *(
            (
                {**QRELS, "label": pa.array([1, 2**62], pa.int64()).cast(kind)},
                "label must be text, integers, floats or booleans",
            )
            for kind in (pa.timestamp("s"), pa.timestamp("ns", "Mars/Base"), pa.duration("s"))
        ),
        (QRELS.assign(label=[["E"], ["I"]]), "label must be text, integers, floats or booleans"),
        (QRELS.assign(product_id="a"), "the judgements: row 1 .* has product 'a' twice"),
    ],
)
def test_judgements_that_cannot_be_read_in_one_way_are_refused(qrels: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        evaluate(RUN, qrels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.run has no rows"),
        (b"\n\n", "has no rows"),
        (b"1 Q0 a 1 2.0 x\n\n1 Q0 b 2 nan x\n", "line 3: score must be a finite number"),
        (
            b"1 Q0 a 1 2.0 x\n1 Q0 b 2 high x\n",
            "line 2: score must be a finite number .found 'high'",
        ),
        (b"1 Q0 a 1 2.0 x\n1 Q0 b 2 1_0 x\n", "line 2: score must be .* .found '1_0'"),
        ("1 Q0 a 1 ２ x\n".encode(), "line 1: score must be .* .found '２'"),
        (b"1 Q0 a 1 2.0 x\n1 Q0 a 2 1.0 x\n", "line 2: query '1' has product 'a' twice"),
        (
            b"1 Q0 a 1 2.0 x\n1 Q0 b 2 1.0\n",
            "line 2 has 5 columns, but a TREC file of the run has 6",
        ),
        (b"1 Q0 \xff 1 2.0 x\n", r"not readable as a TREC file .*again as UTF-8\.$"),
        (b"query-id\tcorpus-id\tscore\n", "line 1 has 3 columns"),
    ],
)
def test_a_trec_file_is_refused_with_the_line_that_is_wrong(content: bytes, message: str) -> None:
    Path("bad.run").write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        evaluate("bad.run", QRELS)


def test_damaged_compressed_files_are_refused() -> None:
    Path("bad.run.gz").write_bytes(gzip.compress(b"1 Q0 a 1 2.0 x\n" * 500)[:-20])
    Path("bad.parquet").write_bytes(b"PAR1")
    for name in ("bad.run.gz", "bad.parquet"):
        with pytest.raises(PipelineError, match=r"not readable as .*\. Write it again\.$"):
            evaluate(name, QRELS)


@pytest.mark.parametrize("name", ["query_id", "product_id", "label"])
def test_text_of_parquet_that_is_not_utf_8_is_refused_by_its_row_and_its_bytes(name: str) -> None:
    texts = pa.array([b"E", "ñ".encode("latin-1")])
    broken = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
    for column in (broken, broken.dictionary_encode()):
        pq.write_table(pa.table({**QRELS, name: column}), "bad.parquet")
        told = rf"^bad\.parquet: row 1 \(from 0\): {name} is not UTF-8 \(found b'\\xf1'\)\. Write"
        with pytest.raises(PipelineError, match=told):
            evaluate(RUN, "bad.parquet")


def test_settings_and_results_that_do_not_fit_are_refused() -> None:
    good = evaluate(RUN, QRELS)
    other = evaluate(RUN, QRELS.assign(label=["E", "S"]))
    drawn = evaluate(RUN, QRELS, seed=1)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: evaluate(RUN, QRELS, cutoffs={"ndgc": [1]}), "cutoffs: ndgc: unknown key; did"),
        (lambda: evaluate(RUN, QRELS, cutoffs={"mrr": 0}), "cutoffs: mrr"),
        (lambda: evaluate(RUN, QRELS, confidence=95), "intervals: confidence"),
        (lambda: evaluate(RUN, QRELS, track="all"), "track: must be one of"),  # type: ignore[arg-type]
        (lambda: evaluate(RUN, QRELS, labels={"E": "1"}), "labels: 'E' must mean one of E, S"),
        (lambda: evaluate(RUN, QRELS, labels="E"), "labels: must give each value a label"),  # type: ignore[arg-type]
        (lambda: evaluate(RUN, QRELS, labels={}), "labels: must give each value a label"),
        (lambda: evaluate(RUN, QRELS, cutoffs="mrr"), "cutoffs: must be a dict"),  # type: ignore[arg-type]
        (lambda: evaluate(RUN, QRELS, cutoffs=[]), "cutoffs: must be a dict"),  # type: ignore[arg-type]
        (lambda: evaluate(RUN, QRELS, track="pool", cutoffs={"mrr": 5}), "of the pool have none"),
        (lambda: evaluate("a\0b", QRELS), "the run: .* is no path"),
        (lambda: compare(good), "two results or more"),
        (lambda: compare(good, RUN), "DataFrame is no result"),
        (lambda: compare(good, good, measures="ndcg@10"), "list of one name or more"),
        (lambda: compare(good, good, measures=[]), "list of one name or more"),
        (lambda: compare(good, good, measures=5), "list of one name or more"),  # type: ignore[arg-type]
        (lambda: compare(good, good, measures=[["a"]]), "list of one name or more"),  # type: ignore[list-item]
        (lambda: read_per_query("es", None), "revision: must be text"),  # type: ignore[arg-type]
        (lambda: compare(good, other), "different judgements"),
        (lambda: compare(good, drawn), "different draws"),
        (lambda: compare(good, good, measures=["ndcg@11"]), "no 'ndcg@11' .*did you mean"),
        (lambda: compare(good, good, alpha=5), "alpha must be between 0 and 1"),
    ]
    for call, message in refused:
        with pytest.raises(PipelineError, match=message):
            call()


def test_the_defaults_are_those_of_the_shipped_params() -> None:
    assert params().evaluate == CUTOFFS
    assert params().uncertainty == DRAWS
    assert params().compare.alpha == ALPHA


def test_a_measure_above_1_is_never_refused_in_a_comparison() -> None:
    qrels = pd.DataFrame({"query_id": range(20), "product_id": "p0", "label": "E"})
    found = [
        evaluate(
            pd.DataFrame(
                [
                    (query, f"p{product}", -product)
                    for query in range(20)
                    for product in range(depth)
                ],
                columns=["query_id", "product_id", "score"],
            ),
            qrels,
        )
        for depth in (30, 5)
    ]
    (moved,) = compare(*found, measures=["retrieved"])
    assert (moved.difference.mean, moved.verdict) == (-25, "worse")


def test_a_parquet_file_is_read_without_the_columns_that_are_not_needed() -> None:
    RUN.assign(text=["long", "text"]).to_parquet("run.parquet")
    given = read_given("run.parquet", TREC_RUN, "the run")
    assert given.table.column_names == ["query_id", "product_id", "score"]
    RUN.rename(columns={"score": "sim"}).to_parquet("run.parquet")
    with pytest.raises(PipelineError, match="columns are query_id, product_id, sim"):
        evaluate("run.parquet", QRELS)


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["score", *arguments])
    return command.main()


def test_the_command_prints_and_writes_what_python_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qrels, run = graded(np.random.default_rng(0))
    write_trec(qrels, run)
    graded(np.random.default_rng(1))[1].to_parquet("b.parquet")
    asked = ("--label", "3=E", "--label", "2=S", "--label", "1=C", "--label", "0=I")
    files = ("--json", "new/out.json", "--csv", "new/folder/out.csv")

    assert run_command(monkeypatch, "a.qrels", "a.run", "b.parquet", *asked, *files) == 0

    a, b = (evaluate(name, "a.qrels", labels=SHAPES[0][1]) for name in ("a.run", "b.parquet"))
    shown = capsys.readouterr().out
    mean = a.means["ndcg@10"]
    assert re.search(rf"ndcg@10 +{mean.mean:.4f} \[{mean.low:.4f}, {mean.high:.4f}\]", shown)
    assert "A is a.run" in shown
    written = json.loads(Path("new/out.json").read_text())
    assert [each["name"] for each in written["runs"]] == ["a.run", "b.parquet"]
    assert written["runs"][1]["means"]["map@100"]["mean"] == round(b.means["map@100"].mean, 5)
    assert written["runs"][0]["counts"] == a.counts
    (first, *_) = compare(a, b)
    assert written["differences"][0]["p_adjusted"] == round(first.p_adjusted, 5)
    rows = pd.read_csv("new/folder/out.csv", dtype={"query_id": str})
    assert rows["ndcg@10"].tolist() == pytest.approx(
        [*a.per_query["ndcg@10"].to_pylist(), *b.per_query["ndcg@10"].to_pylist()]
    )


def test_the_command_takes_the_settings_of_the_project_it_is_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qrels, run = graded(np.random.default_rng(0))
    write_trec(qrels, run)
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("  mrr: 10\n", "  mrr: 7\n"))
    asked = ("--label", "3=E", "--label", "2=S", "--label", "1=C", "--label", "0=I")
    assert run_command(monkeypatch, "a.qrels", "a.run", *asked) == 0
    assert "mrr@7" in capsys.readouterr().out
    Path("params.yaml").write_text("evaluate: {split: 0.2}\nencoder: bert\n")
    assert run_command(monkeypatch, "a.qrels", "a.run", *asked) == 0
    said = capsys.readouterr()
    assert "mrr@10" in said.out
    assert "params.yaml is of another project" in said.err


def test_what_the_command_refuses_is_one_line_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trec(*graded(np.random.default_rng(0)))
    cases = [
        (("a.qrels", "a.run", "--json", "out.json"), "grade must be one of 100, 10, 1, 0"),
        (("a.qrels", "a.run", "--label", "3"), "--label 3: must be VALUE=LABEL"),
        (("a.qrels", "a.run", "--label", "3=E", "--label", "3=S"), "--label 3 is given twice"),
        (("a.qrels", "a.run", "--json", "a.run"), "this file is read"),
        # Before the labels are asked for, and before a run is scored.
        (("a.qrels", "a.run", "absent.run"), "absent.run is missing. Name the run"),
        (("absent.qrels", "absent.run"), "absent.qrels is missing. Name the judgements"),
        (
            ("a.qrels", "a.run", "--products", "absent.parquet"),
            "absent.parquet is missing. Name the products",
        ),
        (
            ("a.run", "a.qrels"),
            "a.run: line 1 has 6 columns, but a TREC file of the judgements has 4",
        ),
    ]
    before = {path: path.read_bytes() for path in Path().iterdir()}
    for arguments, message in cases:
        assert run_command(monkeypatch, *arguments) == 1
        said = capsys.readouterr().err
        assert said.startswith("error in score: ")
        assert message in said
        assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_path_that_begins_with_a_tilde_is_in_this_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    qrels, run = graded(np.random.default_rng(0))
    home = tmp_path / "home"
    home.mkdir()
    for folder, judged in ((home, qrels.assign(label=0)), (Path("~"), qrels)):
        folder.mkdir(exist_ok=True)
        for path in write_trec(judged, run):
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.rename(folder / path.name)
        judged.to_parquet((folder / "q.parquet").absolute())
    before = sorted(home.iterdir())
    monkeypatch.setenv("HOME", str(home))
    labels = SHAPES[0][1]
    expected = evaluate(run, qrels, labels=labels).means
    for judgements in ("~/a.qrels", "~/a.qrels.gz", "~/q.parquet"):
        assert evaluate("~/a.run.gz", judgements, labels=labels).means == expected
    asked = [f"--label={value}={label}" for value, label in labels.items()]
    assert run_command(monkeypatch, "~/a.qrels", "~/a.run", *asked, "--csv=~/out.csv") == 0
    assert Path("~/out.csv").is_file()
    assert sorted(home.iterdir()) == before


@pytest.mark.slow
def test_scoring_imports_no_model_index_or_tokenizer() -> None:
    code = "import sys, esci_retrieval, pipeline.score.command; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"torch", "faiss", "openvino", "sudachipy", "transformers", "pandas", "scipy"}
    assert not heavy & set(done.stdout.split())


def test_the_page_about_python_runs() -> None:
    blocks = [each.code for each in blocks_of(Path("docs/python.md")) if each.language == "python"]
    names: dict[str, Any] = {}
    exec(blocks[0], names)  # noqa: S102
    assert repr(names["found"].means["mrr@10"]) in blocks[0]
