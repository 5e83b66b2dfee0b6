"""A typed query is reranked as the stage reranks judged ones; else one line says why not."""

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from starlette.testclient import TestClient

from pipeline import workspace
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.core.systems import FIRST_SYSTEMS, SYSTEMS
from pipeline.encoders.pairs import PairScorer, load_scorer, scores_of
from pipeline.rerank.stage import rerank
from pipeline.search import command
from pipeline.search.engine import Engine
from pipeline.search.freshness import signature
from pipeline.search.opening import open_engine
from pipeline.search.question import Question
from pipeline.search.reranking import Reordering
from pipeline.serve.app import make_app
from pipeline.serve.desk import Desks
from pipeline.serve.engines import Engines
from tests.helpers.small_project import inside
from tests.helpers.tiny_rerankers import build_reranker, reranker, reranker_weights

pytestmark = pytest.mark.slow

LOCALE, DEPTH = "es", 12
ENTRY: dict[str, Any] = {"labels": 4, "fields": ("product_title", "product_brand")}


@pytest.fixture
def folder(small_project: Path) -> Iterator[Path]:
    """A small project whose locale has a reranker, as the working folder; left as it was."""
    with inside(small_project):
        before = layout.PARAMS.read_bytes()
        model = build_reranker(small_project / "reranker", labels=4)
        entry = reranker(model, **ENTRY).model_dump(mode="json")
        choose({"rerank.es": "tiny", "rerankers.tiny": entry, "reranking.depth": DEPTH})
        yield model
        layout.PARAMS.write_bytes(before)
        shutil.rmtree(layout.runs("rerank", LOCALE).folder, ignore_errors=True)


def choose(values: dict[str, Any]) -> None:
    """Set values of params.yaml."""
    data = YAML(typ="safe", pure=True).load(layout.PARAMS)
    for key, value in values.items():
        section, _, last = key.partition(".")
        data[section][last] = value
    YAML().dump(data, layout.PARAMS)


def found(engine: Engine, question: Question) -> list[tuple[str, np.float32]]:
    """Return the products and scores of `rerank`."""
    hits = engine.search(question).systems["rerank"]
    return [(hit.product.product_id, np.float32(hit.score)) for hit in hits]


def test_the_first_products_of_every_judged_query_are_those_of_the_stage(folder: Path) -> None:
    for run, weight in (("hybrid", 1.0), ("bm25", 0.4), ("dense", 0.7)):
        choose({"reranking.run": run, "reranking.weight": weight})
        rerank(load_params(), LOCALE)
        expected: dict[int, list[tuple[str, np.float32]]] = {}
        for row in pq.read_table(layout.runs("rerank", LOCALE).catalogue).to_pylist():
            hit = row["product_id"], np.float32(row["score"])
            expected.setdefault(row["query_id"], []).append(hit)
        engine = open_engine(LOCALE)
        for text, row in engine.judged.rows.items():
            ranked = found(engine, Question(text, ("rerank",), DEPTH + 8))
            assert ranked == expected[int(engine.judged.query_ids[row])][: DEPTH + 8]


def test_any_query_and_filter_is_reranked_by_the_scores_of_its_pairs(folder: Path) -> None:
    engine = open_engine(LOCALE)
    spec = reranker(folder, **ENTRY)
    scorer = load_scorer(spec, reranker_weights(folder, **ENTRY), engine.params.runtime)
    brand = engine.shown.facets["brand"].shown[0].as_py()
    for filters in ({}, {"brand": brand}):
        answer = engine.search(Question("zapatos rojos", ("hybrid", "rerank"), 100, filters))
        first, second = answer.systems["hybrid"], answer.systems["rerank"]
        assert len(first) == len(second)
        window = [hit.product for hit in first[:DEPTH]]
        pairs = [
            ("zapatos rojos", " ".join(filter(None, (whole_title(each.product_id), each.brand))))
            for each in window
        ]
        values = np.round(scores_of(scorer.logits(pairs), spec), 6)
        best = sorted(zip(values, [each.product_id for each in window], strict=True), reverse=True)
        rest = [hit.product.product_id for hit in first[DEPTH:]]
        assert [hit.product.product_id for hit in second] == [name for _, name in best] + rest
        assert {hit.product.brand for hit in second} == {brand} or not filters
    assert engine.search(Question("zzqqx", ("bm25",))).found["bm25"] == 0
    choose({"reranking.run": "bm25"})
    assert open_engine(LOCALE).search(Question("zzqqx", ("rerank",))).systems["rerank"] == []


def whole_title(product_id: str) -> str:
    """Return the title of a clean product."""
    table = pq.read_table(layout.clean(LOCALE).products)
    row = table["product_id"].to_pylist().index(product_id)
    return str(table["text"][row].as_py()[: table["field_ends"][row][0].as_py()])


def test_it_answers_wherever_it_is_asked_for_and_its_model_is_loaded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engines, desks = Engines([LOCALE]), Desks()
    client = TestClient(make_app(engines, desks), base_url="http://127.0.0.1")
    asked = "/api/search?q=zapatos&k=3"
    assert list(client.get(asked).json()["systems"]) == list(FIRST_SYSTEMS)
    systems = client.get(f"{asked}&systems={','.join(SYSTEMS)}").json()["systems"]
    assert list(systems) == list(SYSTEMS)
    page = client.get("/?q=zapatos&left=rerank&right=hybrid")
    assert page.status_code == 200
    assert '<option value="rerank" selected>' in page.text
    assert 'id="heading-rerank"' in page.text
    es = workspace.open(LOCALE)
    for given, shown in ((None, FIRST_SYSTEMS), (SYSTEMS, SYSTEMS)):
        found = es.search("zapatos", systems=given, k=2)
        assert found["system"].unique().tolist() == list(shown)
        named = [] if given is None else ["--system", ",".join(given)]
        monkeypatch.setattr("sys.argv", ["search", "zapatos", "-k", "1", *named])
        assert command.main() == 0
        said = capsys.readouterr().out
        assert [line.split("\t")[1] for line in said.splitlines()] == list(shown)

    old, before = engines.get(LOCALE), signature(LOCALE)
    rerank(load_params(), LOCALE)
    assert signature(LOCALE) != before
    engines.look(LOCALE)
    engines.look(LOCALE)
    new = engines.get(LOCALE)
    assert new is not old
    assert new.reranker().load() is old.reranker().load()


def look_twice(engines: Engines) -> None:
    """Let a server take up the artefacts that are there."""
    for _ in range(2):
        engines.look(LOCALE)


def test_a_reranker_that_cannot_be_loaded_does_not_replace_the_engine_that_works(
    folder: Path,
) -> None:
    rerank(load_params(), LOCALE)
    engines = Engines([LOCALE])
    old = engines.get(LOCALE)
    question = Question("zapatos", ("hybrid", "rerank"), 5)
    before = old.search(question)
    choose({"rerank.es": "reranker-demo"})  # which DVC is about to train
    look_twice(engines)
    assert engines.get(LOCALE) is old
    assert "not trained yet. Run `dvc repro" in engines.states[LOCALE].problem
    assert engines.get(LOCALE).search(question) == before
    choose({"rerank.es": "tiny", "reranking.depth": DEPTH + 1})
    look_twice(engines)
    new = engines.get(LOCALE)
    assert new is not old
    assert engines.states[LOCALE].problem == ""
    assert new.reranker().load() is old.reranker().load()


def test_the_server_fetches_no_model_and_says_what_does(folder: Path) -> None:
    weights = {"kind": "hub", "model": "no/model", "revision": "0" * 40}
    entry = reranker(folder, **ENTRY).model_dump(mode="json") | {"weights": weights}
    said = (
        "rerankers.far: its weights are not on this machine, and a server fetches none. "
        "Run `python -m pipeline.search a --locale es --system rerank`"
    )
    engines = Engines([LOCALE])
    old = engines.get(LOCALE)
    choose({"rerank.es": "far", "rerankers.far": entry})
    look_twice(engines)
    assert engines.get(LOCALE) is old
    assert said in engines.states[LOCALE].problem
    client = TestClient(make_app(Engines([LOCALE]), Desks()), base_url="http://127.0.0.1")
    refused = client.get("/api/search?q=zapatos&systems=rerank")
    assert refused.status_code == 400
    assert said in refused.json()["error"]
    assert client.get("/api/search?q=zapatos").status_code == 200


def test_an_engine_answers_while_the_models_of_the_next_one_are_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines([LOCALE])
    old = engines.get(LOCALE)
    old.warm()
    question = Question("unos zapatos", ("hybrid", "rerank"), 5)
    before = old.search(question)
    loading, go_on, load = threading.Event(), threading.Event(), Reordering._load_model

    def wait_and_load(self: Reordering) -> PairScorer:
        loading.set()
        assert go_on.wait(60)
        return load(self)

    monkeypatch.setattr(Reordering, "_load_model", wait_and_load)
    choose({"reranking.depth": DEPTH + 1})
    opening = threading.Thread(target=look_twice, args=[engines], daemon=True)
    opening.start()
    assert loading.wait(60)
    assert engines.get(LOCALE) is old
    with ThreadPoolExecutor(1) as pool:
        try:
            assert pool.submit(old.search, question).result(60) == before
        finally:
            go_on.set()
    opening.join(60)
    assert engines.get(LOCALE) is not old


def test_a_model_is_kept_over_an_engine_that_never_loaded_it(folder: Path) -> None:
    first, second, third = (open_engine(LOCALE) for _ in range(3))
    model = weakref.ref(first.reranker().load())
    second.keep_models(first)
    third.keep_models(second)
    del first, second
    gc.collect()
    assert model() is not None
    assert third.reranker().load() is model()


def test_without_a_reranker_or_its_model_one_line_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choose({"rerank.es": "none"})
    engine = open_engine(LOCALE)
    none = r"^system: es has no rerank: rerank\.es is none in params.yaml\. .*`make try SET="
    with pytest.raises(PipelineError, match=none):
        engine.search(Question("a", ("rerank",)))
    with pytest.raises(PipelineError, match=none):
        workspace.open(LOCALE).search("a", systems=["rerank"])
    desks = Desks()
    client = TestClient(make_app(Engines([LOCALE]), desks), base_url="http://127.0.0.1")
    assert list(client.get("/api/search?q=a").json()["systems"]) == list(FIRST_SYSTEMS)
    for address in ("/api/search?q=a&systems=rerank", "/?q=a&left=rerank"):
        answered = client.get(address)
        assert answered.status_code == 400
        assert "es has no rerank" in answered.text
    assert 'value="rerank"' not in client.get("/?q=a").text

    choose({"rerank.es": "reranker-demo"})
    monkeypatch.setattr("sys.argv", ["search", "a", "--system", "rerank"])
    assert command.main() == 1
    assert "not trained yet. Run `dvc repro models/dvc.yaml:train@reranker-demo`" in caplog.text
    engine = open_engine(LOCALE)
    assert engine.search(Question("a", ("hybrid",))).found["hybrid"]
