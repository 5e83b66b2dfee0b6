"""The summary and the table say what the metrics say."""

import json
from pathlib import Path

import pytest

from pipeline.core import layout
from pipeline.core.params import Params
from pipeline.encoder_scores.form import read_scores
from pipeline.report import stage as report
from pipeline.report import summary as summary_of
from pipeline.report.encoder import encoder_table
from pipeline.report.inputs import SHOWN, Interval, Numbers, Scores, read_numbers
from tests.helpers.artefacts import ROOT, params
from tests.helpers.page_artefacts import write_locale

MEASURES = ("ndcg@10", "mrr@10")


def numbers(locale: str, dense: dict[str, float], intervals: bool = True) -> Numbers:
    """Return numbers of a locale: those given for dense, zeros for the others."""
    means = {system: {"ndcg@10": 0.0, "mrr@10": 0.0} for system in SHOWN} | {"dense": dense}
    of_dense = {
        name: Interval(mean=value, low=value - 0.1, high=value + 0.1, queries=7)
        for name, value in dense.items()
    }
    scores = Scores(encoder="labse", index="flat", queries=1234, products=5678)
    return Numbers(locale, scores, means, {"dense": of_dense} if intervals else {}, "")


LOCALES = [
    numbers("us", {"ndcg@10": 0.2, "mrr@10": 0.5}),
    numbers("es", {"ndcg@10": 0.4, "mrr@10": 0.5}),
    numbers("jp", {"ndcg@10": 0.9, "mrr@10": 0.5}),
]


def test_the_mean_counts_every_locale_the_same() -> None:
    summary = summary_of.summarise(LOCALES, MEASURES)
    assert summary["mean"]["systems"]["dense"] == {"ndcg@10": 0.5, "mrr@10": 0.5}
    assert summary["jp"]["systems"]["dense"]["ndcg@10"] == {
        "mean": 0.9, "low": 0.8, "high": 1.0, "queries": 7,
    }  # fmt: skip


def test_a_measure_that_one_locale_lacks_has_no_mean_and_an_empty_cell() -> None:
    lacking = [*LOCALES[:2], numbers("jp", {"mrr@10": 0.5})]
    summary = summary_of.summarise(lacking, MEASURES)
    assert summary["mean"]["systems"]["dense"] == {"mrr@10": 0.5}
    rows = summary_of.table(summary, MEASURES).splitlines()
    assert "|  | dense (labse, flat) |  |  |  | 0.500 |" in rows


def test_the_table_has_a_row_a_locale_and_system_and_the_first_measures_interval() -> None:
    rows = summary_of.table(summary_of.summarise(LOCALES, MEASURES), MEASURES).splitlines()
    assert rows[0] == "| locale | system | queries | products | ndcg@10 | mrr@10 |"
    assert rows[2] == "| us | random | 1,234 | 5,678 | 0.000 | 0.000 |"
    assert "|  | dense (labse, flat) |  |  | 0.200 [0.100, 0.300] | 0.500 |" in rows
    assert "|  | dense |  |  | 0.500 | 0.500 |" in rows
    alone = summary_of.summarise(LOCALES[:1], MEASURES)
    assert alone["mean"]["systems"]["dense"] == {"ndcg@10": 0.2, "mrr@10": 0.5}
    assert "mean" not in summary_of.table(alone, MEASURES)
    assert len(rows) == 2 + 4 * len(SHOWN)
    assert len({row.count("|") for row in rows}) == 1


def test_where_there_is_no_interval_the_mean_stands_alone() -> None:
    summary = summary_of.summarise([numbers("us", {"ndcg@10": 0.2}, intervals=False)], MEASURES)
    assert summary["us"]["systems"]["dense"] == {"ndcg@10": {"mean": 0.2, "queries": 1234}}
    assert "| 0.200 |" in summary_of.table(summary, MEASURES)


def test_the_committed_report_and_summary_are_those_of_the_committed_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    measures = params().evaluate.headline()
    summary = summary_of.summarise([read_numbers(locale) for locale in params().locales], measures)
    assert json.loads(layout.SUMMARY.read_text(encoding="utf-8")) == summary
    committed = layout.REPORT.read_text(encoding="utf-8")
    encoders = {locale: read_scores(locale) for locale in params().locales}
    assert committed == f"{summary_of.table(summary, measures)}\n{encoder_table(encoders)}"


def test_the_stage_writes_page_table_and_summary_of_the_same_numbers(
    project: Path, params: Params
) -> None:
    for locale in params.locales:
        write_locale(params, locale, queries=12)
    report.report(params)
    measures = params.evaluate.headline()
    summary = json.loads(layout.SUMMARY.read_text(encoding="utf-8"))
    found = json.loads(layout.metrics("es").read_text())
    for system in SHOWN:
        for measure in measures:
            assert summary["es"]["systems"][system][measure]["mean"] == found[system][measure]
    numbers_read = [read_numbers(locale) for locale in params.locales]
    expected = summary_of.table(summary_of.summarise(numbers_read, measures), measures)
    table, _, of_encoders = layout.REPORT.read_text(encoding="utf-8").partition("\n\n")
    assert f"{table}\n" == expected
    assert of_encoders == encoder_table({each: read_scores(each) for each in params.locales})
    assert layout.PAGE.is_file()


def test_the_headline_follows_the_cutoffs_of_params() -> None:
    changes = {"evaluate.ndcg": [20, 5], "evaluate.mrr": 7, "evaluate.recall": [3]}
    cutoffs = params({**changes, "compare.metrics": ["dense.ndcg@20"]}).evaluate
    assert cutoffs.headline()[:3] == ("ndcg@20", "mrr@7", "recall@3")
    assert cutoffs.key_measures() == ("ndcg@20", "recall@3")
    assert params().evaluate.key_measures() == ("ndcg@10", "recall@100")
    assert params().evaluate.headline() == (
        "ndcg@10", "mrr@10", "recall@10", "recall@100", "judged@10", "judged@100", "pool_ndcg",
    )  # fmt: skip
