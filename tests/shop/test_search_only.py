"""A catalogue without judgements is searched by what the stages make, and nothing is measured."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.fault_lab import Workshop
from pipeline import workspace
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.evaluate.stage import evaluate
from pipeline.gate import gate
from pipeline.report.stage import read_results, report
from pipeline.shop.command import main
from tests.helpers.artefacts import ROOT
from tests.helpers.small_project import inside

STAGES = (
    "clean", "embed", "index", "retrieve", "bm25", "hybrid", "rerank", "evaluate", "encoder_scores"
)  # fmt: skip
SHOP = ROOT / "docs/shop"
NAMES = ("--column", "product_title=product_name")


@pytest.mark.slow
def test_products_alone_are_searched_and_reported_as_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Workshop(tmp_path / "project")
    with inside(tmp_path / "project"):
        command = ["shop", str(SHOP / "products.csv"), "--locale", "de", *NAMES]
        monkeypatch.setattr(sys, "argv", command)
        assert main() == 0
        printed = capsys.readouterr()
        assert "products=24 queries=0 judgements=0" in printed.err
        assert "Run `make repro`." in printed.out
        params = load_params()
        assert params.sample.queries == "none"

        import_module("pipeline.sample.stage").sample(params)
        for name in STAGES:
            getattr(import_module(f"pipeline.{name}.stage"), name)(params, "de")
        assert pq.read_metadata(layout.clean("de").queries).num_rows == 0
        found = workspace.open("de").search("Schreibtischlampe LED")
        assert "1019" in set(found["product_id"])
        report(params)
        why = "there are no judgements"
        assert json.loads(layout.metrics("de").read_bytes())["not_measured"] == why
        assert json.loads(layout.key_metrics("de").read_bytes())["de"]["not_measured"] == why
        assert layout.REPORT.read_text() == f"Nothing is measured: {why}.\n"
        page = layout.PAGE.read_text()
        assert f"Nothing is measured: {why}." in page
        assert "0 queries, 24 products" in page
        assert layout.plot("recall").read_text() == "locale,system,k,recall\n"
        for reader, said in (
            (lambda: gate(params), r"nothing is measured.*Empty index_gate"),
            (lambda: read_results(params), "nothing is measured"),
        ):
            with pytest.raises(PipelineError, match=said):
                reader()
        # Judgements that clean left out are another thing than none.
        counts = layout.clean("de").counts
        had = json.loads(counts.read_bytes())
        had["judgements"] |= {"in": 1, "dropped_query_empty": 1}
        counts.write_text(json.dumps(had))
        with pytest.raises(PipelineError, match=r"no queries to evaluate"):
            evaluate(params, "de")

        # With judgements it is evaluated again.
        judged = ("--column", "esci_label=label", "--label", "Exact=E", "--label", "Partial=S")
        more = (str(SHOP / "labels.csv"), *judged, "--label", "Irrelevant=I")
        monkeypatch.setattr(sys, "argv", [*command, *more])
        assert main() == 0
        assert load_params().sample.queries == "all"
