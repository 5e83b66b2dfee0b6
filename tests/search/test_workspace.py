"""A locale in Python: the tables are the stages', the search is the engine's; a notebook runs."""

import ast
import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline import workspace
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.systems import FIRST_SYSTEMS
from tests.helpers.artefacts import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_small_project")]

NOTEBOOK = ROOT / "docs/notebooks/search.ipynb"


def test_the_tables_are_what_the_stages_wrote() -> None:
    es = workspace.open("es")
    clean = layout.clean("es")
    queries = pq.read_table(clean.queries).to_pandas()
    pd.testing.assert_frame_equal(es.queries, queries.assign(typed=queries["text"]))
    pd.testing.assert_frame_equal(es.judgements, pq.read_table(clean.judgements).to_pandas())
    raw = pq.read_table(layout.sample("es").products)
    shown = es.products.to_pandas()
    assert shown.product_id.tolist() == [
        each for each in raw["product_id"].to_pylist() if each in set(shown.product_id)
    ]
    for system in FIRST_SYSTEMS:
        run = pq.read_table(layout.runs(system, "es").catalogue).drop(["product_row"])
        pd.testing.assert_frame_equal(es.run(system), run.to_pandas())
    assert es.per_query["query_id"].tolist() == es.queries["query_id"].tolist()


def test_a_search_is_a_table_whose_first_rows_are_those_of_the_run() -> None:
    es = workspace.open("es")
    for row in es.queries.head(5).to_dict("records"):
        found = es.search(row["text"], k=5)
        for system in FIRST_SYSTEMS:
            run = es.run(system)
            run = run[run.query_id == row["query_id"]].head(5)
            mine = found[found.system == system]
            assert mine.product_id.tolist() == run.product_id.tolist()
            assert mine["rank"].tolist() == run["rank"].tolist()
    brand = next(filter(None, es.products["brand"].to_pylist()))
    assert set(es.search("zapatillas", brand=brand).brand) == {brand}
    similar = es.similar(es.products["product_id"][0].as_py(), k=3)
    assert similar["rank"].tolist() == [1, 2, 3]
    assert es.search("zapatillas", systems=["bm25"], k=1).columns.tolist() == [
        "system", "rank", "score", "product_id", "title", "brand", "color", "label",
    ]  # fmt: skip


def test_search_is_over_what_is_there_now_as_the_tables_are() -> None:
    es = workspace.open("es")
    before, model = es.search("zapatillas"), es._engine.query_vectors._model
    assert model is not None
    assert es._engine is es._engine
    given = layout.PARAMS.read_text()
    k1 = es.params.bm25.k1
    layout.PARAMS.write_text(re.sub(r"(?m)^  k1: .*$", f"  k1: {k1 / 2}", given))
    try:
        assert es.params.bm25.k1 == k1 / 2
        after = es.search("zapatillas")
        pd.testing.assert_frame_equal(after, workspace.open("es").search("zapatillas"))
        assert not after["score"].equals(before["score"])
        assert es._engine.query_vectors._model is model
        moved = layout.clean("es").queries.rename("moved")
        with pytest.raises(PipelineError, match=r"is missing. Run `dvc repro clean@es`"):
            es.search("zapatillas")
        with pytest.raises(PipelineError, match=r"is missing. Run `dvc repro clean@es`"):
            _ = es.queries
        moved.rename(layout.clean("es").queries)
    finally:
        layout.PARAMS.write_text(given)
    pd.testing.assert_frame_equal(es.search("zapatillas"), before)


def test_what_is_not_there_is_one_message() -> None:
    with pytest.raises(PipelineError, match=r"^locale .*: unknown locale"):
        workspace.open("xx")
    es = workspace.open("es")
    moved = layout.per_query("es").rename("moved")
    with pytest.raises(PipelineError, match=r"is missing. Run `dvc repro evaluate@es`"):
        _ = es.per_query
    moved.rename(layout.per_query("es"))
    with pytest.raises(PipelineError, match="system: must be one of dense, bm25, hybrid"):
        es.run("tfidf")


def test_a_value_of_another_type_is_one_message_that_names_it() -> None:
    es: Any = workspace.open("es")
    wrong: list[tuple[Callable[[Any], object], object, str]] = [
        (workspace.open, 5, "locale: must be text"),
        (es.search, 5, "query: must be text"),
        (lambda value: es.search("a", k=value), "3", "k: must be a whole number"),
        (lambda value: es.search("a", k=value), True, "k: must be a whole number"),
        (lambda value: es.search("a", systems=value), "bm25", "systems: must be a list of names"),
        (lambda value: es.search("a", systems=value), 7, "systems: must be a list of names"),
        (lambda value: es.search("a", systems=[value]), 3, "system: must be text"),
        (lambda value: es.search("a", brand=value), 3, "brand: must be text"),
        (lambda value: es.search("a", collapse=value), 1, "collapse: must be True or False"),
        (es.similar, 3, "product_id: must be text"),
        (es.run, 3, "system: must be text"),
    ]
    for call, value, said in wrong:
        with pytest.raises(PipelineError, match=rf"^{said} \(found {value!r}\)"):
            call(value)


def test_the_notebook_runs_from_its_own_folder_and_holds_no_output() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    place = Path("docs/notebooks")
    place.mkdir(parents=True)
    names: dict[str, object] = {}
    shown = []
    with contextlib.chdir(place):
        for cell in code:
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, NOTEBOOK.name, "exec"), names)  # noqa: S102
            if isinstance(last, ast.Expr):
                expression = compile(ast.Expression(last.value), NOTEBOOK.name, "eval")
                shown.append(eval(expression, names))  # noqa: S307
    tables = [one for one in shown if isinstance(one, pd.DataFrame)]
    assert [len(table) for table in tables] == [5, 5, 10, 5, 5]
