"""Search where the spelling of queries is corrected: the same text in stages, search and page."""

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from pipeline import workspace
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.search.display import draw
from pipeline.search.engine import Engine
from pipeline.search.opening import open_engine
from pipeline.search.question import Question
from pipeline.serve.app import make_app
from pipeline.serve.desk import Desks
from pipeline.serve.engines import Engines
from pipeline.text.correction import TWO_EDITS_LETTERS
from tests.helpers.small_project import STAGES, inside

pytestmark = pytest.mark.slow

LOCALE = "es"
ON = (f"  {LOCALE}: typed\n", f"  {LOCALE}: corrected\n")


@pytest.fixture(scope="module")
def folder(small_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small project whose spelling is corrected, as the working folder."""
    copied = tmp_path_factory.mktemp("corrected") / "project"
    shutil.copytree(small_project, copied)
    with inside(copied):
        path = copied / layout.PARAMS
        path.write_text(path.read_text().replace(*ON))
        for name in STAGES[STAGES.index("clean") : -1]:
            getattr(import_module(f"pipeline.{name}.stage"), name)(load_params(), LOCALE)
        yield copied


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    """The engine of that project."""
    return open_engine(LOCALE)


@pytest.fixture(scope="module")
def corrections(folder: Path) -> dict[int, tuple[str, str]]:
    """The corrected queries by their ids: as typed, and as searched for."""
    table = tables.read_table(layout.clean(LOCALE).corrections, tables.CORRECTIONS, "")
    found = {row["query_id"]: (row["typed"], row["text"]) for row in table.to_pylist()}
    assert found
    return found


def test_a_judged_query_is_known_as_it_was_typed_and_finds_the_products_of_its_run(
    engine: Engine, corrections: dict[int, tuple[str, str]]
) -> None:
    assert {engine.judged.rows[typed] for typed, _ in corrections.values()} == {
        row for row, each in enumerate(engine.judged.query_ids.tolist()) if each in corrections
    }
    for system in FIRST_SYSTEMS:
        run = pq.read_table(layout.runs(system, LOCALE).catalogue).to_pandas()
        for typed in engine.judged.rows:
            answer = engine.search(Question(typed, (system,), 10))
            assert answer.query_id is not None
            _, expected = corrections.get(answer.query_id, (typed, typed))
            assert answer.searched == expected
            assert answer.typed == (None if expected == typed else typed)
            first = run[(run["query_id"] == answer.query_id) & (run["rank"] <= 10)]
            found = [
                (hit.product.product_id, np.float32(hit.score)) for hit in answer.systems[system]
            ]
            assert found == list(zip(first["product_id"], first["score"], strict=True))


def test_as_typed_corrects_nothing_and_keeps_the_labels(
    engine: Engine, corrections: dict[int, tuple[str, str]]
) -> None:
    for query_id, (typed, text) in corrections.items():
        right, wrong = (
            engine.search(Question(typed, ("bm25",), as_typed=flag)) for flag in (False, True)
        )
        assert (wrong.searched, wrong.typed, wrong.query_id) == (typed, None, query_id)
        assert "typed" not in wrong.as_dict()
        assert right.as_dict()["typed"] == typed
        raw = engine.search(Question(f"\x1b{typed}\x1b", ("bm25",)))
        for answer in (right, raw):
            assert f"{text} ({LOCALE}, typed {typed}; judged" in draw(answer, 1000)
    table = tables.read_table(layout.clean(LOCALE).vocabulary, tables.VOCABULARY, "")
    words = [each for each in table.to_pylist() if len(each["word"]) == TWO_EDITS_LETTERS]
    word = max(words, key=lambda each: each["products"])["word"]
    misspelled = word[:2] + word[3] + word[2] + word[4:]
    found = {
        as_typed: engine.search(Question(query, ("bm25",), as_typed=as_typed)).systems["bm25"]
        for query, as_typed in ((misspelled, False), (misspelled, True))
    }
    assert found[False] == engine.search(Question(word, ("bm25",))).systems["bm25"] != []
    assert found[True] == []


def test_page_json_and_python_say_what_was_searched_for_and_lead_to_the_query_as_typed(
    folder: Path, corrections: dict[int, tuple[str, str]]
) -> None:
    typed, text = next(iter(corrections.values()))
    desks = Desks()
    client = TestClient(make_app(Engines([LOCALE]), desks), base_url="http://127.0.0.1:8000")
    page = client.get("/", params={"q": typed}).text
    assert f"{text}</b>" in page
    assert "typed=1" in page
    plain = client.get("/", params={"q": typed, "typed": "1"}).text
    assert "Searched for" not in plain
    for flag in ("0", "1"):
        given = {"q": typed, "typed": flag, "systems": "bm25"}
        found = client.get("/api/search", params=given).json()
        assert found["searched"] == (typed if flag == "1" else text)
        hits = [hit["product_id"] for hit in found["systems"]["bm25"]["hits"]]
        es = workspace.open(LOCALE)
        assert typed in es.queries["typed"].tolist()
        assert es.queries["text"].tolist() == list(es._engine.judged.texts)
        frame = es.search(typed, systems=["bm25"], as_typed=flag == "1")
        assert frame["product_id"].tolist() == hits


def test_queries_that_are_spelled_otherwise_than_params_say_are_refused(folder: Path) -> None:
    path = folder / layout.PARAMS
    before = path.read_text()
    path.write_text(before.replace(ON[1], ON[0]))
    try:
        with pytest.raises(PipelineError, match=r"the queries are spelled otherwise.*clean@es"):
            open_engine(LOCALE)
    finally:
        path.write_text(before)
    layout.clean(LOCALE).vocabulary.rename(folder / "away")
    try:
        with pytest.raises(PipelineError, match=r"vocabulary\.parquet is missing\. Run"):
            open_engine(LOCALE)
    finally:
        (folder / "away").rename(layout.clean(LOCALE).vocabulary)
