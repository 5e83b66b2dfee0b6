"""The export in BEIR's form holds what encoders read, and gives other tools our numbers."""

import csv
import json
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ir_measures import RR, R, nDCG

from pipeline import beir
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.tables import JUDGEMENTS, write_table
from pipeline.evaluate.stage import evaluate
from tests.helpers.artefacts import LOCALE, ROOT, params, write_clean, write_runs, write_sources


@pytest.fixture
def judgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """Clean tables in an empty project; some judged products have no text."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    judged = write_clean(np.random.default_rng(3), 200, 40)
    queries = judged["query_id"].unique().slice(0, 9)
    more = pa.table([queries, ["ZZZ"] * 9, ["E"] * 9], schema=JUDGEMENTS)
    order = [("query_id", "ascending"), ("product_id", "ascending")]
    whole = pa.concat_tables([judged.cast(JUDGEMENTS), more]).sort_by(order)
    write_table(layout.clean(LOCALE).judgements, whole, JUDGEMENTS)
    return whole


def load(path: Path) -> dict[str, str]:
    """Return the texts of a file as BEIR's loader does: title and text, joined."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {each["_id"]: f"{each.get('title', '')} {each['text']}".strip() for each in lines}


def load_qrels(path: Path) -> list[ir_measures.Qrel]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        assert next(rows) == ["query-id", "corpus-id", "score"]
        return [ir_measures.Qrel(query, product, int(grade)) for query, product, grade in rows]


def test_texts_and_judgements_are_those_of_the_clean_tables(
    judgements: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["beir", "--locale", LOCALE, "--out", "out"])
    assert beir.main() == 0
    folder = Path("out", LOCALE)
    clean = layout.clean(LOCALE)
    for name, key, path in (
        ("corpus", "product_id", clean.products),
        ("queries", "query_id", clean.queries),
    ):
        table = pq.read_table(path)
        expected = zip(map(str, table[key].to_pylist()), table["text"].to_pylist(), strict=True)
        assert load(folder / f"{name}.jsonl") == dict(expected)
    found = {(int(each.query_id), each.doc_id): each.relevance for each in
             load_qrels(folder / "qrels/test.tsv")}  # fmt: skip
    grades = {"E": 100, "S": 10, "C": 1, "I": 0}
    whole = {
        (row["query_id"], row["product_id"]): grades[row["label"]] for row in judgements.to_pylist()
    }
    gained = {query for (query, _), grade in whole.items() if grade}
    assert found == {pair: grade for pair, grade in whole.items() if pair[0] in gained}


def test_another_tool_gets_the_reported_numbers_from_the_exported_judgements(
    judgements: pa.Table,
) -> None:
    write_sources({})
    write_runs(np.random.default_rng(4), 150)
    evaluate(params({"evaluate.recall": [10, 50, 100], "retrieve.depth": 150}), LOCALE)
    beir.export(LOCALE, Path("out"))
    reported = json.loads(layout.metrics(LOCALE).read_text())["dense"]
    run = pq.read_table(layout.runs("dense", LOCALE).catalogue).to_pylist()
    docs = [
        ir_measures.ScoredDoc(str(row["query_id"]), row["product_id"], -row["rank"]) for row in run
    ]
    for split, name, measure in (
        ("test", "ndcg@10", nDCG @ 10),
        ("exact", "mrr@10", RR @ 10),
        ("exact", "recall@100", R @ 100),
    ):
        qrels = load_qrels(Path("out/qrels", f"{split}.tsv"))
        theirs = ir_measures.calc_aggregate([measure], qrels, docs)[measure]
        assert round(theirs, 5) == pytest.approx(reported[name], abs=1.01e-5)


def test_an_id_that_a_tool_would_read_otherwise_is_refused_and_nothing_is_written(
    judgements: pa.Table,
) -> None:
    for bad, said in (('"B0', "quotation mark"), ("B 0", "white space")):
        ids = [bad, *judgements["product_id"].to_pylist()[1:]]
        changed = judgements.set_column(1, JUDGEMENTS.field(1), [ids])
        changed = changed.set_column(2, JUDGEMENTS.field(2), [["E"] * len(ids)])
        write_table(layout.clean(LOCALE).judgements, changed, JUDGEMENTS)
        with pytest.raises(PipelineError, match=said):
            beir.export(LOCALE, Path("out"))
        assert not list(Path("out").iterdir())


def test_an_export_that_is_refused_leaves_the_export_before(judgements: pa.Table) -> None:
    beir.export(LOCALE, Path("out"))
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    for path in files:
        path.write_text("old")

    last = max(files)
    last.unlink()
    last.mkdir()
    with pytest.raises(PipelineError, match=f"^{last} is a folder"):
        beir.export(LOCALE, Path("out"))
    assert {path.read_text() for path in files if path != last} == {"old"}

    last.rmdir()
    last.write_text("old")
    ids = ["B 0", *judgements["product_id"].to_pylist()[1:]]
    changed = judgements.set_column(1, JUDGEMENTS.field(1), [ids])
    changed = changed.set_column(2, JUDGEMENTS.field(2), [["E"] * len(ids)])
    write_table(layout.clean(LOCALE).judgements, changed, JUDGEMENTS)
    with pytest.raises(PipelineError, match="white space"):
        beir.export(LOCALE, Path("out"))
    assert {path.read_text() for path in files} == {"old"}
    assert sorted(path for path in Path("out").rglob("*") if path.is_file()) == sorted(files)
