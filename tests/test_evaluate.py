"""evaluate reads runs whole, in any pieces, and refuses what does not belong together."""

import json
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ir_measures import AP, RR, Judged, P, R, nDCG

from pipeline import evaluate, layout, retrieve, tables
from pipeline import index as stage_index
from pipeline.errors import PipelineError
from pipeline.files import sha256_file
from tests.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings

SHALLOW = {"evaluate.recall": [10, 50, 100]}
INTEGER_GAINS = {"E": 100, "S": 10, "C": 1, "I": 0}


@pytest.fixture
def judgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """Runs of 60 queries over 250 products, at a depth of 120, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    written = write_clean(rng, 250, 60)
    write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 60))
    stage_index.index(params(), LOCALE)
    monkeypatch.setattr(retrieve, "BATCH_QUERIES", 13)
    retrieve.retrieve(params({"retrieve.depth": 120, **SHALLOW}), LOCALE)
    evaluate.evaluate(params(SHALLOW), LOCALE)
    return written


def _metrics() -> Any:
    return json.loads(layout.metrics(LOCALE).read_text())


def test_the_numbers_of_record_are_those_of_ir_measures(judgements: pa.Table) -> None:
    run = pd.read_parquet(layout.runs("dense", LOCALE) / "catalogue.parquet")
    qrels = pd.DataFrame(
        {
            "query_id": judgements["query_id"].to_pandas().astype(str),
            "doc_id": judgements["product_id"].to_pandas(),
            "relevance": judgements["label"].to_pandas().map(INTEGER_GAINS),
        }
    )
    answers = pd.DataFrame(
        {
            "query_id": run["query_id"].astype(str),
            "doc_id": run["product_id"],
            "score": -run["rank"].astype(float),
        }
    )
    exact = set(qrels.query_id[qrels.relevance == 100])
    gainful = set(qrels.query_id[qrels.relevance > 0])
    everything = set(qrels.query_id)
    for key, measure, taking_part in (
        ("ndcg@10", nDCG @ 10, gainful),
        ("ndcg@100", nDCG @ 100, gainful),
        ("mrr@10", RR(rel=100) @ 10, exact),
        ("recall@10", R(rel=100) @ 10, exact),
        ("recall@100", R(rel=100) @ 100, exact),
        ("precision@10", P(rel=100) @ 10, exact),
        ("map@100", AP(rel=100) @ 100, exact),
        ("judged@10", Judged @ 10, everything),
    ):
        values = {
            each.query_id: each.value for each in ir_measures.iter_calc([measure], qrels, answers)
        }
        expected = float(np.mean([values[query] for query in taking_part]))
        assert _metrics()["dense"][key] == pytest.approx(expected, abs=5.1e-6), key


def test_metrics_are_the_means_of_the_per_query_table(judgements: pa.Table) -> None:
    per_query = pq.read_table(layout.per_query(LOCALE)).to_pandas().set_index("query_id")
    assert per_query.index.is_monotonic_increasing
    assert len(per_query) == _metrics()["queries"] == 60
    for name, value in _metrics()["dense"].items():
        if name != "pool_skill":
            assert per_query[name].mean() == pytest.approx(value, abs=5.1e-6), name


def test_the_recall_curve_rises_and_agrees_with_recall(judgements: pa.Table) -> None:
    curve = pd.read_csv(layout.recall_curve(LOCALE)).set_index("k")["recall"]
    assert curve.is_monotonic_increasing
    assert curve[10] == _metrics()["dense"]["recall@10"]


def _rewrite(path: Path, change: "object") -> None:
    frame = pd.read_parquet(path)
    table = pa.Table.from_pandas(change(frame), tables.RUN, preserve_index=False)  # type: ignore[operator]
    tables.write_table(path, table.replace_schema_metadata(), tables.RUN)
    card = json.loads((path.parent / "run.json").read_text())
    (path.parent / "run.json").write_text(
        json.dumps(card | {f"{path.stem}_sha256": sha256_file(path)})
    )


def _without_one_query(run: pd.DataFrame) -> pd.DataFrame:
    return run[run["query_id"] != run["query_id"].iloc[0]]


def test_a_query_that_the_run_leaves_out_scores_zero_and_stays_in_the_mean(
    judgements: pa.Table,
) -> None:
    path = layout.runs("dense", LOCALE) / "catalogue.parquet"
    gone = int(pd.read_parquet(path)["query_id"].iloc[0])
    _rewrite(path, _without_one_query)
    evaluate.evaluate(params(SHALLOW), LOCALE)
    per_query = pq.read_table(layout.per_query(LOCALE)).to_pandas().set_index("query_id")
    assert _metrics()["queries"] == len(per_query) == 60
    assert per_query.loc[gone, ["judged@10", "judged@100"]].tolist() == [0, 0]
    assert per_query.loc[gone, "recall@10"] in (0, None) or np.isnan(
        per_query.loc[gone, "recall@10"]
    )


def _shuffled(run: pd.DataFrame) -> pd.DataFrame:
    return run.sample(frac=1, random_state=0)


def _product_from_nowhere(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(product_id=run["product_id"].where(run.index != 5, "NOWHERE"))


def _product_twice(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(product_id=run["product_id"].where(run.index != 5, run["product_id"].iloc[4]))


def test_a_judged_product_without_text_counts_against_recall_and_the_ideal(
    judgements: pa.Table,
) -> None:
    before = _metrics()
    exact = judgements.filter(pc.equal(judgements["label"], "E"))
    added = exact.slice(0, 1).to_pylist()[0] | {"product_id": "ZZZ"}
    more = pa.concat_tables([judgements, pa.Table.from_pylist([added], judgements.schema)])
    path = layout.clean(LOCALE) / "judgements.parquet"
    tables.write_table(path, more.sort_by([("query_id", "ascending")]), tables.JUDGEMENTS)
    retrieve.retrieve(params({"retrieve.depth": 120, **SHALLOW}), LOCALE)
    evaluate.evaluate(params(SHALLOW), LOCALE)
    after = _metrics()
    assert after["judgements"] == before["judgements"] + 1
    for measure in ("recall@100", "map@100", "ndcg@100"):
        assert after["dense"][measure] < before["dense"][measure]
    # The pool is what can be ranked: its floor stays what a random order really gets.
    for measure in ("pool_ndcg", "pool_ndcg_floor", "pool_mrr", "pool_skill"):
        assert after["dense"][measure] == before["dense"][measure]


def test_runs_shallower_than_a_cutoff_are_refused(judgements: pa.Table) -> None:
    with pytest.raises(
        PipelineError, match=r"runs are 120 deep, less than .* 1000; run `dvc repro"
    ):
        evaluate.evaluate(params(), LOCALE)


def test_runs_of_other_products_are_refused_with_both_hashes(judgements: pa.Table) -> None:
    write_clean(np.random.default_rng(77), 250, 60)
    with pytest.raises(
        PipelineError, match=r"query_ids_sha256 is \w+, but \w+ is found: the runs are of other"
    ):
        evaluate.evaluate(params(SHALLOW), LOCALE)


def _ranks_exchanged(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(rank=run["rank"].where(run.index > 1, 3 - run["rank"]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_ranks_exchanged, "not sorted by rank"),
        (_shuffled, "not sorted by query_id"),
        (_product_from_nowhere, "NOWHERE is not in the clean tables"),
        (_product_twice, "twice"),
    ],
)
def test_a_run_that_cannot_be_right_is_refused_and_the_old_metrics_stay(
    judgements: pa.Table, change: "object", told: str
) -> None:
    before = layout.metrics(LOCALE).read_bytes()
    _rewrite(layout.runs("dense", LOCALE) / "catalogue.parquet", change)
    with pytest.raises(PipelineError, match=told):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    assert layout.metrics(LOCALE).read_bytes() == before


@pytest.mark.parametrize("name", ["catalogue.parquet", "pool.parquet", "run.json"])
def test_an_edited_or_missing_run_is_refused(judgements: pa.Table, name: str) -> None:
    path = layout.runs("dense", LOCALE) / name
    data = path.read_bytes()
    if name == "run.json":
        path.write_text("{}")
    else:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PipelineError, match="run `dvc repro retrieve@es`"):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    path.unlink()
    with pytest.raises(PipelineError, match=f"{name} is missing; run"):
        evaluate.evaluate(params(SHALLOW), LOCALE)


@pytest.mark.parametrize("counts", ["{}", "[]", '{"queries": 3}'])
def test_counts_that_are_not_there_are_refused(judgements: pa.Table, counts: str) -> None:
    (layout.clean(LOCALE) / "counts.json").write_text(counts)
    with pytest.raises(PipelineError, match=r"counts.json .*dvc repro clean@es"):
        evaluate.evaluate(params(SHALLOW), LOCALE)
