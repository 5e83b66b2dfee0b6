"""A catalogue without judgements is searched by what the stages make, and nothing is measured."""

import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.fault_lab import Workshop
from esci_retrieval import read_per_query
from pipeline import beir, trec, workspace
from pipeline.browser import check
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.evaluate.stage import evaluate
from pipeline.gate import gate
from pipeline.leaderboard import command as leaderboard
from pipeline.report.stage import read_results, report
from pipeline.shop.command import main
from pipeline.tradeoff.command import tradeoff
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import read_vectors
from tests.helpers.artefacts import ROOT
from tests.helpers.repository import PATH, call
from tests.helpers.small_project import inside

pytestmark = pytest.mark.slow

STAGES = (
    "clean", "embed", "index", "retrieve", "bm25", "hybrid", "rerank", "evaluate", "encoder_scores"
)  # fmt: skip
SHOP = ROOT / "docs/shop"
COMMAND = (
    "shop", str(SHOP / "products.csv"), "--locale", "de", "--column", "product_title=product_name"
)  # fmt: skip
WHY = "there are no judgements"


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Params]:
    """Return the settings of a catalogue of which all stages have run, in its folder."""
    folder = tmp_path_factory.mktemp("search-only") / "project"
    Workshop(folder)
    with inside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*COMMAND])
        assert main() == 0
        params = load_params()
        import_module("pipeline.sample.stage").sample(params)
        for name in STAGES:
            getattr(import_module(f"pipeline.{name}.stage"), name)(params, "de")
        report(params)
        yield params


def test_products_alone_are_searched_and_reported_as_not_measured(params: Params) -> None:
    assert params.sample.queries == "none"
    assert pq.read_metadata(layout.clean("de").queries).num_rows == 0
    found = workspace.open("de").search("Schreibtischlampe LED")
    assert "1019" in set(found["product_id"])
    assert json.loads(layout.metrics("de").read_bytes())["not_measured"] == WHY
    assert json.loads(layout.key_metrics("de").read_bytes())["not_measured"] == WHY
    assert layout.REPORT.read_text() == f"Nothing is measured: {WHY}.\n"
    page = layout.PAGE.read_text()
    assert f"Nothing is measured: {WHY}." in page
    assert "0 queries, 24 products" in page
    assert layout.plot("recall").read_text() == "locale,system,k,recall\n"
    summary = json.loads(layout.SUMMARY.read_bytes())
    assert (summary["de"]["not_measured"], summary["de"]["products"]) == (WHY, 24)
    assert summary["mean"] == {"systems": {}}


def test_what_needs_measures_refuses(params: Params) -> None:
    call(Path(), {**os.environ, "PATH": PATH}, "git", "init", "--quiet")
    for reader, said in (
        (lambda: gate(params), r"nothing is measured.*Empty index_gate"),
        (lambda: read_results(params), "nothing is measured"),
        (lambda: read_per_query("de"), "nothing is measured.*Use a sample with judgements there"),
        (lambda: workspace.open("de").per_query, "nothing is measured.*no judgements"),
        (lambda: tradeoff(params, "de", []), "no queries to search"),
    ):
        with pytest.raises(PipelineError, match=said):
            reader()


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (trec, ("--out", "out"), "no judgements to export"),
        (beir, ("--out", "out"), "no judgements to export"),
        (leaderboard, ("workspace",), "nothing is measured"),
    ],
)
def test_commands_that_need_measures_end_with_one_message_and_write_nothing(
    params: Params,
    command: object,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(Path(), {**os.environ, "PATH": PATH}, "git", "init", "--quiet")
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    assert command.main() == 1  # type: ignore[attr-defined]
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_an_exported_encoder_is_compared_on_products_alone(params: Params) -> None:
    held = read_manifest(params, "de")
    ours = read_vectors(held, "products", "de")
    tokenizer = Path("model/tokenizer.json").read_text(encoding="utf-8")
    least, overlap = check.compare(params, "de", held, lambda _: ours, tokenizer)  # type: ignore[arg-type]
    assert least > 0.9999
    assert overlap is None
    with pytest.raises(PipelineError, match=r"of only -1\.0000 to ours \(wanted"):
        check.compare(params, "de", held, lambda _: -np.asarray(ours), tokenizer)  # type: ignore[arg-type]


def test_counts_that_are_not_those_of_the_tables_are_refused(params: Params) -> None:
    counts = layout.clean("de").counts
    kept = counts.read_bytes()
    had = json.loads(kept)
    had["products"] |= {"in": 23, "out": 23}
    counts.write_text(json.dumps(had))
    with pytest.raises(PipelineError, match=r"products\.out must be 24 \(found 23\)"):
        report(params)
    # Judgements that clean left out are another thing than none.
    had = json.loads(kept)
    had["judgements"] |= {"in": 1, "dropped_query_empty": 1}
    counts.write_text(json.dumps(had))
    with pytest.raises(PipelineError, match=r"no queries to evaluate"):
        evaluate(params, "de")
    counts.write_bytes(kept)


def test_shop_says_what_the_reports_are_of_and_with_labels_all_queries_are_back(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [*COMMAND])
    assert main() == 0
    printed = capsys.readouterr()
    assert "products=24 queries=0 judgements=0" in printed.err
    assert "Run `make repro`.\nUntil it has run, the reports and the search are of" in printed.out
    judged = ("--column", "esci_label=label", "--label", "Exact=E", "--label", "Partial=S")
    more = (str(SHOP / "labels.csv"), *judged, "--label", "Irrelevant=I")
    monkeypatch.setattr(sys, "argv", [*COMMAND, *more])
    assert main() == 0
    assert load_params().sample.queries == "all"
