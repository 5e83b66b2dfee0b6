"""The summary and the table say what the metrics say, and README's table is the report's."""

import json

import pytest

from pipeline import metrics, readme, report
from pipeline.errors import PipelineError
from tests.artefacts import ROOT, params

MEASURES = ("ndcg@10", "mrr@10")
METRICS = {
    locale: {
        "dense": {"ndcg@10": value, "mrr@10": 0.5, "map@100": 0.1},
        "encoder": encoder,
        "index": "flat",
        "queries": 1234,
        "products": 5678,
    }
    for locale, value, encoder in (
        ("us", 0.2, "minilm"),
        ("es", 0.4, "labse"),
        ("jp", 0.9, "labse"),
    )
}


def test_the_mean_counts_every_locale_the_same() -> None:
    summary = report.summarise(METRICS, MEASURES)
    assert summary["mean"] == {"ndcg@10": 0.5, "mrr@10": 0.5}
    assert summary["jp"]["ndcg@10"] == 0.9


def test_a_measure_that_one_locale_lacks_has_no_mean_and_an_empty_cell() -> None:
    lacking = {**METRICS, "jp": {**METRICS["jp"], "dense": {"mrr@10": 0.5}}}
    summary = report.summarise(lacking, MEASURES)
    assert summary["mean"] == {"mrr@10": 0.5}
    rows = report.table(summary, MEASURES).splitlines()
    assert rows[4] == "| jp | labse | flat | 1,234 | 5,678 |  | 0.5000 |"


def test_the_table_has_a_row_a_locale_with_its_choices_and_four_digits() -> None:
    rows = report.table(report.summarise(METRICS, MEASURES), MEASURES).splitlines()
    assert rows[0] == "| locale | encoder | index | queries | products | ndcg@10 | mrr@10 |"
    assert rows[2] == "| us | minilm | flat | 1,234 | 5,678 | 0.2000 | 0.5000 |"
    assert rows[5] == "| mean |  |  |  |  | 0.5000 | 0.5000 |"
    assert len({row.count("|") for row in rows}) == 1


def test_a_block_goes_between_its_markers_and_nowhere_else() -> None:
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n"
    once = readme.put_between_markers(text, "x", "new\n\n")
    assert once == "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n"
    assert readme.put_between_markers(once, "x", "new") == once


@pytest.mark.parametrize("text", ["", "<!-- x: end --><!-- x: begin -->", "<!-- x: begin -->"])
def test_missing_markers_are_told(text: str) -> None:
    with pytest.raises(PipelineError, match="x: begin"):
        readme.put_between_markers(text, "x", "new")


def test_the_committed_readme_report_and_summary_are_those_of_the_committed_metrics() -> None:
    found = {
        locale: json.loads((ROOT / f"reports/metrics/{locale}.json").read_text())
        for locale in params().locales
    }
    measures = metrics.headline(params().evaluate)
    summary = report.summarise(found, measures)
    assert json.loads((ROOT / "reports/summary.json").read_text()) == summary
    committed = (ROOT / "reports/report.md").read_text(encoding="utf-8")
    assert committed == report.table(summary, measures)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.put_between_markers(text, "results", committed) == text


def test_the_headline_follows_the_cutoffs_of_params() -> None:
    cutoffs = params({"evaluate.ndcg": [20, 5], "evaluate.mrr": 7, "evaluate.recall": [3]}).evaluate
    assert metrics.headline(cutoffs)[:3] == ("ndcg@20", "mrr@7", "recall@3")
