"""The stage reorders a run by the scores of its pairs, and no pair is scored twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.encoders.pairs import load_scorer, scores_of
from pipeline.evaluate import stage as evaluate
from pipeline.report.inputs import read_numbers
from pipeline.rerank import scores as pair_scores
from pipeline.rerank import stage as rerank
from pipeline.store.store import Store
from tests.helpers.artefacts import LOCALE, params, write_clean, write_runs, write_sources
from tests.helpers.tiny_rerankers import build_reranker, reranker, reranker_weights
from tests.helpers.training import write_model_card

pytestmark = pytest.mark.slow  # models are loaded

QUERIES, PRODUCTS, DEPTH = 25, 60, 7
TINY = "rerankers.tiny"
CUTOFFS = {
    "evaluate.ndcg": [10, 20], "evaluate.recall": [10, 20], "evaluate.judged": [10, 20],
    "evaluate.map": 20, "retrieve.depth": 20, "compare.metrics": ["dense.ndcg@10"],
}  # fmt: skip


def given(folder: Path, labels: int = 1, **changes: Any) -> Params:
    """Return settings that rerank `LOCALE` with the model of a folder."""
    entry = reranker(folder, labels=labels).model_dump(mode="json")
    return params(
        {
            **CUTOFFS, f"rerank.{LOCALE}": "tiny", TINY: entry,
            "reranking.depth": DEPTH, "runtime.engine": "torch", "runtime.threads": 1,
        } | changes
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a model, in a project with clean tables and three systems' runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(layout.CACHE_VARIABLE, str(tmp_path / ".cache"))
    rng = np.random.default_rng(3)
    write_clean(rng, PRODUCTS, QUERIES)
    write_runs(rng, 20)
    write_sources({})
    return build_reranker(tmp_path / "model", labels=4)


def written() -> dict[str, bytes]:
    found = layout.runs("rerank", LOCALE).folder
    return {path.name: path.read_bytes() for path in sorted(found.iterdir())}


def plainly(folder: Path, track: str) -> dict[int, list[str]]:
    """Return each query's products, reordered one query at a time."""
    spec = reranker(folder, labels=4)
    texts = pd.read_parquet(layout.clean(LOCALE).products).set_index("product_id")["text"]
    queries = pd.read_parquet(layout.clean(LOCALE).queries).set_index("query_id")["text"]
    run = pd.read_parquet(layout.runs("hybrid", LOCALE).track(track))
    scorer = load_scorer(spec, reranker_weights(folder, labels=4), given(folder, 4).runtime)
    found = {}
    for query, mine in run.groupby("query_id"):
        ids = mine.sort_values("rank")["product_id"].tolist()
        window = ids[:DEPTH] if track == "catalogue" else ids
        pairs = [(queries[query], texts[product]) for product in window]
        values = np.round(scores_of(scorer.logits(pairs), spec), 6)
        best = sorted(zip(values, window, strict=True), reverse=True)
        found[int(query)] = [product for _, product in best] + ids[len(window) :]
    return found


def test_the_runs_are_reordered_as_one_query_at_a_time_gives_it(folder: Path) -> None:
    rerank.rerank(given(folder, 4), LOCALE)
    for track in ("catalogue", "pool"):
        run = pd.read_parquet(layout.runs("rerank", LOCALE).track(track))
        found = {
            int(query): mine.sort_values("rank")["product_id"].tolist()
            for query, mine in run.groupby("query_id")
        }
        assert found == plainly(folder, track)


def test_no_pair_is_scored_twice_and_a_stopped_run_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "pipeline")
    settings = given(folder, 4)
    monkeypatch.setattr(pair_scores, "GROUP_PAIRS", 16)
    add, groups = Store.add, []

    def stop_at_the_third(self: Any, keys: Any, rows: Any) -> None:
        groups.append(len(keys))
        if len(groups) == 3:
            raise KeyboardInterrupt
        add(self, keys, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            rerank.rerank(settings, LOCALE)
    assert not layout.runs("rerank", LOCALE).folder.exists()
    rerank.rerank(settings, LOCALE)
    kept = sum(groups[:2])
    assert kept > 0
    assert f"reused={kept} " in caplog.text
    first = written()
    caplog.clear()
    rerank.rerank(settings, LOCALE)
    assert " scored=0 " in caplog.text
    assert written() == first

    layout.runs("rerank", LOCALE).folder.rename("elsewhere")
    monkeypatch.setenv(layout.CACHE_VARIABLE, str(folder.parent / "other"))
    rerank.rerank(settings, LOCALE)
    assert written() == first, "an undisturbed run has these bytes"
    caplog.clear()
    rerank.rerank(given(folder, 4, **{"reranking.depth": DEPTH + 2}), LOCALE)
    assert " scored=0 " not in caplog.text
    card = json.loads(first["run.json"])
    assert int(card["of"]["pairs_cut"]) == 0 < int(card["of"]["pairs"])


def test_none_writes_a_card_alone_and_evaluate_has_no_row(folder: Path) -> None:
    rerank.rerank(params(CUTOFFS), LOCALE)
    assert list(written()) == ["run.json"]
    evaluate.evaluate(params(CUTOFFS), LOCALE)
    without = layout.metrics(LOCALE).read_text()
    assert read_numbers(LOCALE).runs == ("bm25", "dense", "hybrid")

    rerank.rerank(given(folder, 4), LOCALE)
    evaluate.evaluate(given(folder, 4), LOCALE)
    found = json.loads(layout.metrics(LOCALE).read_text())
    assert read_numbers(LOCALE).runs == ("bm25", "dense", "hybrid", "rerank")
    labels = found.pop("labels")
    assert labels["pairs"] == sum(sum(row.values()) for row in labels["confusion"].values())
    del found["rerank"]
    assert found == json.loads(without), "the other systems keep their numbers"


def test_what_cannot_be_reranked_is_one_message(folder: Path) -> None:
    settings = given(folder, 4)
    deep = given(folder, 4, **{"retrieve.depth": 30})
    with pytest.raises(PipelineError, match=r"are 20 deep, but retrieve\.depth is 30"):
        rerank.rerank(deep, LOCALE)
    rerank.rerank(settings, LOCALE)
    path = layout.runs("hybrid", LOCALE).catalogue
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(PipelineError, match=r"was edited\. Run `dvc repro hybrid@es`"):
        rerank.rerank(settings, LOCALE)
    path.unlink()
    with pytest.raises(PipelineError, match=r"hybrid/es/catalogue\.parquet is missing"):
        rerank.rerank(settings, LOCALE)


def test_evaluate_refuses_runs_that_were_reranked_by_other_settings(folder: Path) -> None:
    rerank.rerank(given(folder, 4), LOCALE)
    for changes, said in (
        ({"reranking.depth": DEPTH + 1}, f"depth must be '{DEPTH + 1}' .found '{DEPTH}'"),
        ({"reranking.weight": 0.5}, "weight must be '0.5'"),
        ({"reranking.run": "bm25"}, "run must be 'bm25'"),
        ({f"rerank.{LOCALE}": "mmarco-minilm"}, "reranker must be 'mmarco-minilm'"),
        ({f"{TINY}.gains": [1.0, 0.5, 0.0, 0.0]}, r"reranker\.gains must be '\[1\.0, 0\.5"),
        ({f"{TINY}.fields": ["product_title"]}, "fields must be .*product_title.* .found 'all'"),
        ({f"{TINY}.max_tokens": 50}, "max_tokens must be '50' .found '96'"),
        ({f"{TINY}.precision": "bfloat16"}, "precision must be 'bfloat16' .found 'float32'"),
        ({f"{TINY}.weights.sha256": "7" * 64}, r"reranker\.weights\.sha256 must be 7{12}"),
    ):
        with pytest.raises(PipelineError, match=rf"{said}.*Run `dvc repro rerank@es`"):
            evaluate.evaluate(given(folder, 4, **changes), LOCALE)


def test_texts_of_other_fields_than_params_has_are_not_reranked(folder: Path) -> None:
    settings = given(folder, 4, **{"clean.separator": " | "})
    with pytest.raises(PipelineError, match=r"separator must be ' \| '.*Run `dvc repro clean@es`"):
        rerank.rerank(settings, LOCALE)


def test_the_curve_of_a_reranker_that_was_trained_goes_with_its_runs(
    folder: Path, tmp_path: Path
) -> None:
    settings = given(folder, 4, **{f"rerank.{LOCALE}": "reranker-demo"})
    files = layout.model("reranker", "reranker-demo")
    build_reranker(files.weights, labels=4)
    files.curve.write_text("epoch\n")
    with pytest.raises(PipelineError, match=r"card.json is missing. Run `dvc repro models/dvc"):
        rerank.rerank(settings, LOCALE)
    trained = settings.trained["reranker-demo"].of_weights()
    write_model_card(settings, "reranker-demo", settings={**trained, "lr": 1.0})
    with pytest.raises(
        PipelineError, match=r"lr must be 2e-05 .found 1\.0.: the model was trained"
    ):
        rerank.rerank(settings, LOCALE)
    assert not layout.runs("rerank", LOCALE).folder.exists()
    write_model_card(settings, "reranker-demo")
    rerank.rerank(settings, LOCALE)
    assert written()["curve.csv"] == files.curve.read_bytes()


def test_evaluate_refuses_runs_of_a_reranker_with_other_settings_or_that_was_trained_since(
    folder: Path,
) -> None:
    chosen = {f"rerank.{LOCALE}": "reranker-demo"}
    settings = given(folder, 4, **chosen)
    files = layout.model("reranker", "reranker-demo")
    build_reranker(files.weights, labels=4)
    write_model_card(settings, "reranker-demo")
    rerank.rerank(settings, LOCALE)
    evaluate.evaluate(settings, LOCALE)
    other = given(folder, 4, **chosen, **{"trained.reranker-demo.lr": 0.5})
    with pytest.raises(PipelineError, match=r"card.json: lr must be 0\.5 .*train@reranker-demo`"):
        evaluate.evaluate(other, LOCALE)
    shutil.rmtree(files.folder)
    evaluate.evaluate(settings, LOCALE)  # as in a clone: DVC brings the runs, and no model
    build_reranker(files.weights, labels=4, seed=1)
    write_model_card(settings, "reranker-demo")
    said = r"rerank/es/run\.json: weights_sha256 must be \w+ .found \w+.: reranker-demo was trained"
    with pytest.raises(PipelineError, match=rf"{said} again since. Run `dvc repro rerank@es`"):
        evaluate.evaluate(settings, LOCALE)


def test_a_reranker_is_not_used_on_queries_that_its_pairs_were_not_kept_apart_from(
    folder: Path,
) -> None:
    settings = given(folder, 4, **{f"rerank.{LOCALE}": "reranker-demo"})
    model, pairs = layout.model("reranker", "reranker-demo"), layout.pairs("reranker-demo")
    build_reranker(model.weights, labels=4)
    write_model_card(settings, "reranker-demo")
    training = settings.training.model_dump(mode="json")
    pairs.folder.mkdir(parents=True)
    pairs.card.write_text(json.dumps({"evaluated": {}, "pairs": {}, "training": training}))
    with pytest.raises(PipelineError, match="reranker-demo was kept apart from other queries"):
        rerank.rerank(settings, LOCALE)
    assert not layout.runs("rerank", LOCALE).folder.exists()


def test_evaluate_refuses_reranked_runs_of_another_run_and_edited_labels(folder: Path) -> None:
    settings = given(folder, 4)
    rerank.rerank(settings, LOCALE)
    path = layout.runs("rerank", LOCALE).labels
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(PipelineError, match=r"labels\.parquet: sha256 must be"):
        evaluate.evaluate(settings, LOCALE)
    path.unlink()
    with pytest.raises(PipelineError, match=r"labels\.parquet is missing"):
        evaluate.evaluate(settings, LOCALE)
    path.write_bytes(whole)
    write_runs(np.random.default_rng(8), 20)
    with pytest.raises(PipelineError, match=r"hybrid_catalogue_sha256 must be .*rerank@es"):
        evaluate.evaluate(settings, LOCALE)


def test_without_a_judged_product_that_has_a_text_there_are_no_label_scores(folder: Path) -> None:
    path = layout.clean(LOCALE).judgements
    table = pd.read_parquet(path)
    table["product_id"] = "Z" + table["product_id"]
    judgements = pa.Table.from_pandas(table, tables.JUDGEMENTS, preserve_index=False)
    tables.write_table(path, judgements, tables.JUDGEMENTS)
    write_runs(np.random.default_rng(4), 20)
    rerank.rerank(given(folder, 4), LOCALE)
    evaluate.evaluate(given(folder, 4), LOCALE)
    found = json.loads(layout.metrics(LOCALE).read_text())
    assert found["rerank"]["recall@20"] == 0
    assert "labels" not in found


def test_a_document_is_the_chosen_fields_in_their_order(folder: Path) -> None:
    from pipeline.rerank.documents import read_documents

    path = layout.clean(LOCALE).products
    text = "Zapatilla - Marca - azul"
    table = pa.table(
        {
            "product_id": ["A", "B"],
            "text": [text, "Marca"],
            "field_ends": [[9, 17, 24, 24, 24], [0, 5, 5, 5, 5]],
        }
    )
    tables.write_table(path, table.cast(tables.PRODUCTS), tables.PRODUCTS)
    clean = params({"clean.separator": " - "}).clean
    for fields, expected in (
        ("all", {0: text, 1: "Marca"}),
        (("product_color", "product_title"), {0: "azul - Zapatilla", 1: ""}),
        (("product_brand",), {0: "Marca", 1: "Marca"}),
    ):
        spec = reranker(folder, fields=fields)
        assert read_documents(path, np.array([0, 1]), spec, clean, "") == expected
    assert read_documents(path, np.array([1]), reranker(folder), clean, "") == {1: "Marca"}


def test_without_queries_the_runs_and_labels_are_empty(folder: Path) -> None:
    rng = np.random.default_rng(5)
    write_clean(rng, PRODUCTS, 0)
    write_runs(rng, 20)
    rerank.rerank(given(folder, 4), LOCALE)
    files = layout.runs("rerank", LOCALE)
    for path in (files.track("catalogue"), files.track("pool"), files.labels):
        assert len(pd.read_parquet(path)) == 0
