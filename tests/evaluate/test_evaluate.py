"""evaluate reads runs whole, in any pieces, and refuses what does not belong together."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.bm25 import stage as bm25
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file, write_json
from pipeline.core.systems import FIRST_SYSTEMS, System
from pipeline.evaluate import exact_ranks, per_query, results, top_products
from pipeline.evaluate import stage as evaluate
from pipeline.evaluate.per_query_reader import read_per_query
from pipeline.hybrid import stage as hybrid
from pipeline.index import stage as stage_index
from pipeline.retrieve import neighbours
from pipeline.retrieve import stage as retrieve
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs.card import RunCard
from pipeline.runs.made_of import of_hybrid
from pipeline.vectors.manifest import Kind
from tests.helpers.artefacts import (
    LOCALE,
    params,
    random_vectors,
    write_clean,
    write_embeddings,
    write_runs,
    write_sources,
)

SHALLOW = {"evaluate.recall": [10, 50, 100], "retrieve.depth": 120}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """A folder with runs of 60 queries over 250 products, at a depth of 120, and their reports.

    The dense runs are searched, those of bm25 and hybrid random. Beside it, the judgements.
    """
    folder = tmp_path_factory.mktemp("evaluated")
    rng = np.random.default_rng(8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(neighbours, "SEARCHED_QUERIES", 13)
        written = write_clean(rng, 250, 60)
        write_sources({})
        write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 60))
        stage_index.index(params(), LOCALE)
        retrieve.retrieve(params(SHALLOW), LOCALE)
        write_runs(rng, 120, ["bm25", "hybrid"])
        evaluate.evaluate(params(SHALLOW), LOCALE)
    return folder, written


@pytest.fixture
def judgements(
    evaluated: tuple[Path, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pa.Table:
    """The judgements; a copy of what was evaluated is the working folder, read in small pieces."""
    folder, written = evaluated
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(run_files, "QUERIES_A_PIECE", 17)
    return written


def _metrics() -> Any:
    return json.loads(layout.metrics(LOCALE).read_text())


def _per_query() -> pd.DataFrame:
    table: pd.DataFrame = pq.read_table(layout.per_query(LOCALE)).to_pandas()
    return table.set_index("query_id")


def _card(system: str) -> Path:
    return layout.runs(system, LOCALE).card


def _fuse_again() -> None:
    """Have hybrid's card name the runs that are there now."""
    dense, lexical, fused = (
        RunCard.model_validate_json(_card(system).read_text()) for system in FIRST_SYSTEMS
    )
    of = of_hybrid(params(), (dense, lexical))
    write_json(_card("hybrid"), fused.model_copy(update={"of": of}).model_dump(mode="json"))


def test_random_is_the_mean_of_its_expectations_and_far_below_the_systems(
    judgements: pa.Table,
) -> None:
    random = _metrics()["random"]
    assert random.keys() == _metrics()["dense"].keys() - {run_card.INDEX_OVERLAP}
    # 120 of 250 products, all of them with a text.
    assert random["recall@100"] == pytest.approx(100 / 250)
    assert random["retrieved"] == 120
    assert random["pool_ndcg"] == random["pool_ndcg_floor"] == _metrics()["bm25"]["pool_ndcg_floor"]
    assert random["pool_skill"] == 0
    assert random["ndcg@10"] < _metrics()["bm25"]["ndcg@10"] / 2


def test_metrics_are_the_means_of_the_per_query_table(judgements: pa.Table) -> None:
    table = _per_query()
    assert table.index.is_monotonic_increasing
    assert len(table) == _metrics()["queries"] == 60
    columns = ["query"]
    for system in FIRST_SYSTEMS:
        for name in params(SHALLOW).evaluate.per_query():
            mean = table[f"{system}.{name}"].mean()
            assert mean == pytest.approx(_metrics()[system][name], abs=1.5e-5), name
            columns.append(f"{system}.{name}")
        columns.append(f"{system}.labels")
    assert table.columns.tolist() == columns
    texts = tables.read_table(layout.clean(LOCALE).queries, tables.QUERIES, "")["text"]
    assert table["query"].tolist() == texts.to_pylist()


def test_what_the_index_finds_of_the_exact_top_100_stands_beside_the_dense_measures(
    judgements: pa.Table,
) -> None:
    card = json.loads(_card("dense").read_text())
    _card("dense").write_text(json.dumps(card | {"index_overlap": 0.875}))
    evaluate.evaluate(params(SHALLOW), LOCALE)
    assert _metrics()["dense"]["index_overlap@100"] == 0.875
    assert "index_overlap@100" not in _metrics()["hybrid"]


def test_intervals_hold_the_mean_and_say_over_how_many_queries(judgements: pa.Table) -> None:
    found = json.loads(layout.intervals(LOCALE).read_text())
    names = params(SHALLOW).evaluate.per_query()
    assert names[-1] == "ndcg_judged_only@10"
    assert found.keys() == {*FIRST_SYSTEMS, "random"}
    without = {name: _metrics()[f"queries_without_{name}"] for name in ("e", "gain")}
    for system, of_system in found.items():
        assert set(of_system) == set(names)
        for name, each in of_system.items():
            assert each["low"] <= each["mean"] <= each["high"]
            assert each["mean"] == _metrics()[system][name]
            defined_for_all = name.startswith("judged")
            left_out = 0 if defined_for_all else without["gain" if "ndcg" in name else "e"]
            assert each["queries"] == 60 - left_out, name


def test_slices_divide_the_queries_and_hold_their_means(judgements: pa.Table) -> None:
    reasons = dict.fromkeys(_per_query().index[::3], "negations")
    write_sources({**reasons, int(_per_query().index[1]): "other"})
    evaluate.evaluate(params(SHALLOW), LOCALE)
    found = json.loads(layout.slices(LOCALE).read_text())
    assert (found["measure"], found["small_below"]) == ("ndcg@10", 30)
    names = {each["slice"] for each in found["slices"]}
    assert names == {
        "query length", "number of E", "number in query", "brand in query", "negation", "source",
    }  # fmt: skip
    for name in names:
        parts = [each for each in found["slices"] if each["slice"] == name]
        queries = [each["queries"] for each in parts]
        assert sum(queries) == 60 - _metrics()["queries_without_gain"]
        for system in (*FIRST_SYSTEMS, "random"):
            means = [each["systems"][system]["mean"] for each in parts]
            whole = np.average(means, weights=queries)
            assert whole == pytest.approx(_metrics()[system]["ndcg@10"], abs=1.1e-5)
        for each in parts:
            assert each["small"] == (each["queries"] < 30)
    values = _per_query().loc[list(reasons), "dense.ndcg@10"]
    part = next(each for each in found["slices"] if each["value"] == "negations")
    assert part["systems"]["dense"]["mean"] == pytest.approx(values.mean(), abs=1.5e-5)
    assert part["queries"] == values.notna().sum()


def _write_fields(fields: list[str]) -> None:
    path = layout.clean(LOCALE).counts
    counts = json.loads(path.read_text())
    counts["products"]["fields"] = fields
    path.write_text(json.dumps(counts))


def test_texts_of_other_fields_are_refused(judgements: pa.Table) -> None:
    fields: list[str] = [*params(SHALLOW).clean.fields]
    for other in (fields[::-1], fields[:-1]):
        _write_fields(other)
        with pytest.raises(
            PipelineError, match=r"products\.fields must be .* Run `dvc repro clean@"
        ):
            evaluate.evaluate(params(SHALLOW), LOCALE)


def test_without_sources_and_brands_those_slices_are_left_out(judgements: pa.Table) -> None:
    _write_fields(["product_title"])
    path = layout.clean(LOCALE).products
    products = pq.read_table(path)
    whole = pa.array(
        [ends[-1:] for ends in products["field_ends"].to_pylist()],
        tables.PRODUCTS.field("field_ends").type,
    )
    pq.write_table(
        products.set_column(
            products.column_names.index("field_ends"), tables.PRODUCTS.field("field_ends"), whole
        ),
        path,
    )
    write_runs(np.random.default_rng(1), 120)
    evaluate.evaluate(params({**SHALLOW, "clean.fields": ["product_title"]}), LOCALE)
    found = json.loads(layout.slices(LOCALE).read_text())
    names = {each["slice"] for each in found["slices"]}
    assert names == {"query length", "number of E", "number in query", "negation"}


def test_labels_and_top_products_are_those_of_the_runs(judgements: pa.Table) -> None:
    labels = {(row["query_id"], row["product_id"]): row["label"] for row in judgements.to_pylist()}
    table = pq.read_table(layout.top(LOCALE))
    assert table.schema.equals(top_products.TOP)
    rows = table.to_pylist()
    products = pd.read_parquet(layout.clean(LOCALE).products).set_index("product_id")
    shares = json.loads(layout.slices(LOCALE).read_text())["top10"]
    table_of_queries = _per_query()
    found = {
        system: pd.read_parquet(layout.runs(system, LOCALE).catalogue) for system in FIRST_SYSTEMS
    }
    expected = []
    for query in table_of_queries.index:
        for system, run in found.items():
            first = run[(run["query_id"] == query) & (run["rank"] <= 10)]
            of_query = [labels.get((query, product)) for product in first["product_id"]]
            assert table_of_queries.loc[query, f"{system}.labels"] == "".join(
                label or "?" for label in of_query
            )
            expected += [
                {
                    "query_id": query, "system": system, "rank": rank, "product_id": product,
                    "label": label, "title": products.loc[product, "text"],
                }
                for rank, product, label in zip(
                    first["rank"], first["product_id"], of_query, strict=True
                )
            ]  # fmt: skip
    assert rows == expected
    for system in FIRST_SYSTEMS:
        mine = [row["label"] or "unjudged" for row in rows if row["system"] == system]
        for label in (*tables.LABELS, "unjudged"):
            assert shares[system][label] == pytest.approx(mine.count(label) / len(mine), abs=6e-6)
    # Of a random order every place holds a judged product as often as the catalogue does.
    assert 1 - shares["random"]["unjudged"] == pytest.approx(len(labels) / 60 / 250, abs=3e-5)


def test_every_exact_product_is_where_each_run_ranks_it_or_without_a_rank(
    judgements: pa.Table,
) -> None:
    path = layout.clean(LOCALE).judgements
    query = judgements["query_id"][0].as_py()
    more = {"query_id": [query, query], "product_id": ["no text", "no text S"], "label": ["E", "S"]}
    rows = pa.concat_tables([judgements, pa.table(more, judgements.schema)])
    tables.write_table(path, rows.sort_by("query_id"), tables.JUDGEMENTS)
    evaluate.evaluate(params(SHALLOW), LOCALE)
    found = pq.read_table(layout.exact(LOCALE))
    assert found.column_names == [*exact_ranks.IDS.names, *FIRST_SYSTEMS]
    titles = pd.read_parquet(layout.clean(LOCALE).products).set_index("product_id")["text"]
    ranks = {
        system: pd.read_parquet(layout.runs(system, LOCALE).catalogue)
        .set_index(["query_id", "product_id"])["rank"]
        .to_dict()
        for system in FIRST_SYSTEMS
    }
    expected = [
        {**row, "title": titles.get(row["product_id"])}
        | {system: of.get((row["query_id"], row["product_id"])) for system, of in ranks.items()}
        for row in rows.to_pylist()
        if row.pop("label") == "E"
    ]

    def by_ids(row: dict[str, Any]) -> tuple[int, str]:
        return row["query_id"], row["product_id"]

    assert sorted(found.to_pylist(), key=by_ids) == sorted(expected, key=by_ids)
    assert found["title"].null_count == 1
    assert all(0 < found[system].null_count < len(found) for system in FIRST_SYSTEMS)


def test_each_query_has_a_value_of_every_slice_and_its_members_are_those_of_the_means(
    judgements: pa.Table,
) -> None:
    kinds = pq.read_table(layout.kinds(LOCALE)).to_pandas().set_index("query_id")
    values = _per_query()["dense.ndcg@10"]
    assert kinds.index.tolist() == values.index.tolist()
    slices = json.loads(layout.slices(LOCALE).read_text())["slices"]
    assert set(kinds.columns) == {each["slice"] for each in slices}
    for each in slices:
        members = values[kinds[each["slice"]] == each["value"]].dropna()
        assert len(members) == each["queries"]
        assert members.mean() == pytest.approx(each["systems"]["dense"]["mean"], abs=1.5e-5)


def test_the_recall_curve_of_each_system_rises_and_agrees_with_recall(judgements: pa.Table) -> None:
    curves = pd.read_csv(layout.recall_curve(LOCALE))
    assert curves.columns.tolist() == ["system", "k", "recall"]
    assert curves["system"].unique().tolist() == [*FIRST_SYSTEMS, "random"]
    for system, of_system in curves.groupby("system"):
        curve = of_system.set_index("k")["recall"]
        assert curve.is_monotonic_increasing
        assert curve.index[-1] == 100
        assert curve[10] == _metrics()[system]["recall@10"]


def _read_card() -> per_query.Card:
    path = layout.per_query(LOCALE)
    return read_per_query(path.read_bytes(), str(path), LOCALE, "")[1]


def _sample() -> Any:
    return _read_card().sample.model_dump()


def test_the_per_query_table_says_what_it_is_of_and_changes_with_it(judgements: pa.Table) -> None:
    before = _sample()
    assert {name: before[name] for name in ("locale", "products", "queries", "depth")} == {
        "locale": LOCALE, "products": 250, "queries": 60, "depth": 120,
    }  # fmt: skip
    assert set(before) == {
        "locale", "products", "queries", "depth", "product_ids_sha256", "query_ids_sha256",
        "judgements_sha256",
    }  # fmt: skip

    def after(depth: int = 120) -> set[str]:
        evaluate.evaluate(params({**SHALLOW, "retrieve.depth": depth}), LOCALE)
        return {name for name, value in _sample().items() if value != before[name]}

    assert after() == set()
    path = layout.clean(LOCALE).judgements
    labels = judgements["label"].to_pylist()
    labels[7] = "E" if labels[7] != "E" else "I"
    relabelled = judgements.set_column(2, "label", [labels])
    tables.write_table(path, relabelled, tables.JUDGEMENTS)
    assert after() == {"judgements_sha256"}
    write_runs(np.random.default_rng(1), 110)
    assert after(110) == {"judgements_sha256", "depth"}
    write_clean(np.random.default_rng(77), 251, 59)
    write_sources({})
    write_runs(np.random.default_rng(1), 120)
    assert after() == {
        "products", "queries", "product_ids_sha256", "query_ids_sha256", "judgements_sha256",
    }  # fmt: skip


def test_the_per_query_table_names_the_choice_and_the_first_products_beside_it(
    judgements: pa.Table,
) -> None:
    found = _read_card()
    assert (found.encoder, found.index) == (_metrics()["encoder"], _metrics()["index"])
    assert found.top_sha256 == per_query.contents_sha256(pq.read_table(layout.top(LOCALE)))
    assert found.exact_sha256 == per_query.exact_sha256(pq.read_table(layout.exact(LOCALE)))


def test_the_key_metrics_are_numbers_of_record_and_fit_in_a_table(judgements: pa.Table) -> None:
    found, record = json.loads(layout.key_metrics(LOCALE).read_text()), _metrics()
    assert found.pop("queries") == record["queries"]
    assert {name: list(of) for name, of in found.items()} == {
        "bm25": ["ndcg@10"], "dense": ["ndcg@10", "recall@100"], "hybrid": ["ndcg@10"],
    }  # fmt: skip
    for system, of in found.items():
        assert of.items() <= record[system].items()


def test_a_measure_that_no_query_has_is_no_key_metric() -> None:
    record = {"dense": {"ndcg@10": 0.5}, "bm25": {"ndcg@10": 0.4}, "queries": 3}
    found = results.key_metrics(record, ("dense", "bm25"), *params().evaluate.key_measures())
    assert found == record


def test_evaluating_twice_gives_the_same_bytes(judgements: pa.Table) -> None:
    written = [
        layout.metrics, layout.key_metrics, layout.intervals, layout.slices, layout.recall_curve,
        layout.per_query, layout.top, layout.exact, layout.kinds,
    ]  # fmt: skip
    before = [where(LOCALE).read_bytes() for where in written]
    evaluate.evaluate(params(SHALLOW), LOCALE)
    assert [where(LOCALE).read_bytes() for where in written] == before


def _rewrite(path: Path, change: "object") -> None:
    changed = change(pd.read_parquet(path))  # type: ignore[operator]
    # By column: pandas would make a null of NaN.
    columns = {name: pa.array(changed[name].to_numpy()) for name in tables.RUN.names}
    tables.write_table(path, pa.table(columns), tables.RUN)
    card = json.loads((path.parent / "run.json").read_text())
    (path.parent / "run.json").write_text(
        json.dumps(card | {f"{path.stem}_sha256": sha256_file(path)})
    )
    if "hybrid" not in path.parts:
        _fuse_again()


def _without_one_query(run: pd.DataFrame) -> pd.DataFrame:
    return run[run["query_id"] != run["query_id"].iloc[0]]


def test_a_query_that_the_run_leaves_out_scores_zero_and_stays_in_the_mean(
    judgements: pa.Table,
) -> None:
    path = layout.runs("dense", LOCALE).catalogue
    gone = int(pd.read_parquet(path)["query_id"].iloc[0])
    _rewrite(path, _without_one_query)
    evaluate.evaluate(params(SHALLOW), LOCALE)
    table = _per_query()
    assert _metrics()["queries"] == len(table) == 60
    assert table.loc[gone, "dense.judged@10"] == 0
    assert table.loc[gone, "dense.labels"] == ""
    assert table.loc[gone, "dense.recall@10"] == 0 or np.isnan(table.loc[gone, "dense.recall@10"])


def _shuffled(run: pd.DataFrame) -> pd.DataFrame:
    return run.sample(frac=1, random_state=0)


def _product_twice(run: pd.DataFrame) -> pd.DataFrame:
    before = run["product_row"].iloc[4]
    return run.assign(product_row=run["product_row"].where(run.index != 5, before))


def test_a_judged_product_without_text_counts_against_recall_and_the_ideal(
    judgements: pa.Table,
) -> None:
    before = _metrics()
    exact = judgements.filter(pc.equal(judgements["label"], "E"))
    added = exact.slice(0, 1).to_pylist()[0] | {"product_id": "ZZZ"}
    more = pa.concat_tables([judgements, pa.Table.from_pylist([added], judgements.schema)])
    path = layout.clean(LOCALE).judgements
    tables.write_table(path, more.sort_by([("query_id", "ascending")]), tables.JUDGEMENTS)
    retrieve.retrieve(params(SHALLOW), LOCALE)
    _fuse_again()
    evaluate.evaluate(params(SHALLOW), LOCALE)
    after = _metrics()
    assert after["judgements"] == before["judgements"] + 1
    for measure in ("recall@100", "map@100", "ndcg@100"):
        assert after["dense"][measure] < before["dense"][measure]
    # The pool is what can be ranked: its floor stays what a random order really gets.
    for measure in ("pool_ndcg", "pool_ndcg_floor", "pool_mrr", "pool_skill"):
        for system in ("dense", "random"):
            assert after[system][measure] == before[system][measure]
    # Nothing finds it in a random order either.
    assert after["random"]["recall@100"] < before["random"]["recall@100"]


def test_runs_of_other_products_are_refused_with_both_hashes(judgements: pa.Table) -> None:
    write_clean(np.random.default_rng(77), 250, 60)
    with pytest.raises(
        PipelineError, match=r"query_ids_sha256 must be \w+ .found \w+.: the runs are of other"
    ):
        evaluate.evaluate(params(SHALLOW), LOCALE)


@pytest.mark.parametrize("system", ["dense", "bm25"])
def test_hybrid_runs_of_other_runs_than_those_evaluated_are_refused(
    judgements: pa.Table, system: System
) -> None:
    before = layout.metrics(LOCALE).read_bytes()
    write_runs(np.random.default_rng(2), 120, [system])
    with pytest.raises(
        PipelineError,
        match=rf"hybrid/es/run.json: {system}_catalogue_sha256 must be \w+ .found \w+.: .* Run",
    ):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    assert layout.metrics(LOCALE).read_bytes() == before
    card = json.loads(_card("hybrid").read_text())
    _card("hybrid").write_text(json.dumps(card | {"of": {}}))
    with pytest.raises(PipelineError, match=r"fusion must be 'weighted' .found None.: .*hybrid@es"):
        evaluate.evaluate(params(SHALLOW), LOCALE)


def test_runs_of_another_depth_than_params_yaml_has_are_refused(judgements: pa.Table) -> None:
    with pytest.raises(
        PipelineError, match=r"120 deep, but retrieve\.depth is 1000\. Run `dvc repro retrieve@es`"
    ):
        evaluate.evaluate(params(), LOCALE)
    write_runs(np.random.default_rng(2), 110, ["bm25"])
    with pytest.raises(
        PipelineError, match=r"110 deep, but retrieve\.depth is 120\. Run `dvc repro bm25@es`"
    ):
        evaluate.evaluate(params(SHALLOW), LOCALE)


ENTRY = f"encoders.{params().encoder[LOCALE]}"


@pytest.mark.parametrize(
    ("change", "said", "again"),
    [
        ({"bm25.k1": 0.6}, r"bm25/es/run\.json: k1 must be '0\.6' .found '1\.2'.: ", "bm25"),
        ({"bm25.b": 0.5}, r"b must be '0\.5' .found '0\.75'", "bm25"),
        ({"language.es": "pt"}, "language must be 'pt' .found 'es'", "bm25"),
        ({"hybrid.dense_weight": 0.3}, r"dense_weight must be '0\.3' .found '0\.5'", "hybrid"),
        ({"hybrid": {"kind": "rrf", "rank_constant": 60}}, "fusion must be 'rrf'", "hybrid"),
        ({"index.es": "sq8"}, "index must be 'sq8' .found 'flat'", "retrieve"),
        ({f"{ENTRY}.query_prefix": "ask: "}, "query_prefix must be 'ask: '", "embed"),
        ({"encoder.es": "labse"}, "encoder must be 'labse'", "embed"),
        ({"embed.dtype": "float16"}, "dtype must be 'float16' .found 'float32'", "embed"),
        ({"spelling.es": "corrected"}, "spelling must be 'corrected' .found 'typed'", "clean"),
    ],
)
def test_runs_of_other_settings_than_params_yaml_has_are_refused_and_the_old_reports_stay(
    judgements: pa.Table, change: dict[str, Any], said: str, again: str
) -> None:
    before = layout.metrics(LOCALE).read_bytes()
    with pytest.raises(PipelineError, match=rf"{said}.* Run `dvc repro {again}@es`\.$"):
        evaluate.evaluate(params({**SHALLOW, **change}), LOCALE)
    assert layout.metrics(LOCALE).read_bytes() == before


def test_runs_of_the_same_vectors_by_another_similarity_are_refused(judgements: pa.Table) -> None:
    path = layout.embeddings(LOCALE).manifest
    manifest = json.loads(path.read_text())
    manifest["contract"]["similarity"] = "dot"
    path.write_text(json.dumps(manifest))
    changed = params({**SHALLOW, f"{ENTRY}.similarity": "dot"})
    with pytest.raises(
        PipelineError, match=r"similarity must be 'dot' .found 'cosine'.*dvc repro retrieve@es"
    ):
        evaluate.evaluate(changed, LOCALE)


def test_after_a_change_each_stage_that_has_not_run_again_is_named_until_all_have(
    judgements: pa.Table,
) -> None:
    changed = params({**SHALLOW, "bm25.k1": 0.6})
    for stage, stale in ((bm25.bm25, "bm25"), (hybrid.hybrid, "hybrid")):
        with pytest.raises(PipelineError, match=rf"Run `dvc repro {stale}@es`\.$"):
            evaluate.evaluate(changed, LOCALE)
        stage(changed, LOCALE)
    evaluate.evaluate(changed, LOCALE)


@pytest.mark.parametrize("kind", ["products", "queries"])
def test_runs_of_other_texts_with_the_same_ids_are_refused(
    judgements: pa.Table, kind: Kind
) -> None:
    path = layout.clean(LOCALE).side(kind)
    table = pq.read_table(path)
    texts = pa.array([f"otro {row}" for row in range(len(table))])
    place = table.column_names.index("text")
    pq.write_table(table.set_column(place, table.schema.field("text"), texts), path)
    with pytest.raises(PipelineError, match=rf"{kind} vectors are of other texts .*embed@es"):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    write_runs(np.random.default_rng(2), 120, ["dense"])
    key = "product_texts_sha256" if kind == "products" else "query_texts_sha256"
    with pytest.raises(PipelineError, match=rf"bm25/es/run\.json: {key} must be .*bm25@es"):
        evaluate.evaluate(params(SHALLOW), LOCALE)


def test_dense_runs_of_a_model_that_was_trained_again_under_its_name_are_refused(
    judgements: pa.Table,
) -> None:
    rng = np.random.default_rng(11)
    manifest = write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 60))
    with pytest.raises(
        PipelineError,
        match=r"dense/es/run\.json: product_vectors_sha256 must be \w+ .found \w+.: .*retrieve@es",
    ):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    stage_index.index(params(), LOCALE)
    retrieve.retrieve(params(SHALLOW), LOCALE)
    with pytest.raises(PipelineError, match=r"hybrid/es/run\.json: dense_catalogue_sha256 must be"):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    _fuse_again()
    evaluate.evaluate(params(SHALLOW), LOCALE)
    assert _read_card().vectors_sha256() == manifest.vectors_sha256()


def test_vectors_of_an_encoder_that_has_other_settings_or_was_trained_since_are_refused(
    judgements: pa.Table,
) -> None:
    rng = np.random.default_rng(12)
    name = "minilm-demo"
    changes = {**SHALLOW, "encoder.es": name}
    given = params(changes)
    of_vectors = write_embeddings(given, random_vectors(rng, 250), random_vectors(rng, 60))
    stage_index.index(given, LOCALE)
    retrieve.retrieve(given, LOCALE)
    _fuse_again()
    evaluate.evaluate(given, LOCALE)  # this machine has no card of the model
    card = layout.model("encoder", name).card
    settings = given.trained[name].of_weights()

    def hold(weights_sha256: str) -> None:
        written = {"base_sha256": "0" * 64, "weights_sha256": weights_sha256}
        write_json(card, {"settings": settings, **written})

    card.parent.mkdir(parents=True)
    hold("1" * 64)
    said = rf"manifest.json: weights_sha256 must be 1{{12}} .found 0{{12}}.: {name} was trained"
    with pytest.raises(PipelineError, match=rf"{said} again since. Run `dvc repro embed@es`\.$"):
        evaluate.evaluate(given, LOCALE)
    hold(of_vectors.weights_sha256)
    evaluate.evaluate(given, LOCALE)
    other = params({**changes, f"trained.{name}.lr": 0.5})
    with pytest.raises(PipelineError, match=rf"card.json: lr must be 0\.5 .*train@{name}`\.$"):
        evaluate.evaluate(other, LOCALE)


@pytest.mark.parametrize("name", ["queries", "products", "judgements"])
def test_an_empty_locale_is_refused(judgements: pa.Table, name: str) -> None:
    schema = {
        "queries": tables.QUERIES, "products": tables.PRODUCTS, "judgements": tables.JUDGEMENTS,
    }[name]  # fmt: skip
    tables.write_table(layout.clean(LOCALE).side(name), schema.empty_table(), schema)
    if name == "queries":  # or else the judgements are of unknown queries
        empty = tables.JUDGEMENTS.empty_table()
        tables.write_table(layout.clean(LOCALE).judgements, empty, tables.JUDGEMENTS)
    with pytest.raises(PipelineError, match=f"there are no {name} to evaluate. Run `dvc repro cl"):
        evaluate.evaluate(params(SHALLOW), LOCALE)


def _not_a_number(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(score=run["score"].where(run.index != 5, np.nan))


@pytest.mark.parametrize(
    ("system", "change", "said"),
    [
        ("dense", _shuffled, "not sorted by query_id"),
        ("bm25", _product_twice, "the product is repeated"),
        ("hybrid", _not_a_number, r"query \d+, product B\d+: the score must be a finite number"),
    ],
)
def test_a_run_that_cannot_be_right_is_refused_and_the_old_reports_stay(
    judgements: pa.Table, change: "object", said: str, system: str
) -> None:
    written = [
        layout.metrics, layout.intervals, layout.slices, layout.per_query, layout.top,
        layout.exact, layout.kinds,
    ]  # fmt: skip
    before = [where(LOCALE).read_bytes() for where in written]
    _rewrite(layout.runs(system, LOCALE).catalogue, change)
    with pytest.raises(PipelineError, match=said):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    assert [where(LOCALE).read_bytes() for where in written] == before


def test_a_pool_run_of_fewer_judgements_is_refused(judgements: pa.Table) -> None:
    _rewrite(layout.runs("bm25", LOCALE).pool, lambda run: run.iloc[:-1])
    with pytest.raises(PipelineError, match=r"leaves out 1 judged products .*dvc repro bm25@es"):
        evaluate.evaluate(params(SHALLOW), LOCALE)


@pytest.mark.parametrize("name", ["catalogue.parquet", "pool.parquet", "run.json"])
def test_an_edited_or_missing_run_is_refused(judgements: pa.Table, name: str) -> None:
    path = layout.runs("dense", LOCALE).folder / name
    data = path.read_bytes()
    if name == "run.json":
        path.write_text("{}")
    else:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PipelineError, match="Run `dvc repro retrieve@es`"):
        evaluate.evaluate(params(SHALLOW), LOCALE)
    path.unlink()
    with pytest.raises(PipelineError, match=f"{name} is missing. Run"):
        evaluate.evaluate(params(SHALLOW), LOCALE)


NINE = {"in": 9, "out": 9}
PRODUCTS = {**NINE, **params(SHALLOW).clean.model_dump(mode="json")}


def test_counts_that_are_missing_or_impossible_are_refused(judgements: pa.Table) -> None:
    of_queries = (
        {"in": 9, "out": 10},
        {"in": -1, "out": -1},
        {"in": "9", "out": 9},
        # A row that vanished, and one that came from nowhere.
        {"in": 9, "out": 8},
        {"in": 9, "out": 10, "dropped_x": -1},
    )
    wrong: list[object] = [{}, [], {"queries": 3}]
    wrong += [{"judgements": NINE, "products": PRODUCTS, "queries": each} for each in of_queries]
    for counts in wrong:
        layout.clean(LOCALE).counts.write_text(json.dumps(counts))
        with pytest.raises(PipelineError, match=r"counts.json: .*dvc repro clean@es"):
            evaluate.evaluate(params(SHALLOW), LOCALE)


def test_a_card_of_dense_runs_that_names_no_encoder_is_one_message(judgements: pa.Table) -> None:
    card = json.loads(_card("dense").read_text())
    del card["of"]["encoder"]
    _card("dense").write_text(json.dumps(card))
    with pytest.raises(
        PipelineError, match=r"run\.json: encoder must be .* .found None.: .*retrieve@es"
    ):
        evaluate.evaluate(params(SHALLOW), LOCALE)
