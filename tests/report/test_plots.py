"""`dvc plots` draws the locales of params.yaml, and nothing that was measured on other data."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import ConsoleMessage

from pipeline import plots as plots_command
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json
from pipeline.core.params import Params
from pipeline.report import plots
from pipeline.report import stage as report
from pipeline.report.inputs import read_locale
from tests.conftest import RunStage
from tests.helpers import artefacts
from tests.helpers.chromium import launched, needs_browser, needs_npm
from tests.helpers.page_artefacts import seal, write_locale, write_slices, write_tradeoff
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all, copy_project


def of_locales(**locales: str) -> Params:
    """Return parameters with these locales and their languages."""
    return artefacts.params(
        {
            "encoder": dict.fromkeys(locales, "minilm"),
            "index": dict.fromkeys(locales, "flat"),
            "language": locales,
            "rerank": dict.fromkeys(locales, "none"),
            "spelling": dict.fromkeys(locales, "typed"),
            "systems": {each: {} for each in locales},
        }
    )


def write_plots(given: Params) -> None:
    """Write the tables of plots as the stage does, and no page."""
    locales, *_ = report.read_results(given)
    for name, plot in plots.PLOTS.items():
        layout.plot(name).parent.mkdir(parents=True, exist_ok=True)
        layout.plot(name).write_text(plots.table(plot, locales), encoding="utf-8", newline="\n")


def drawn(name: str) -> list[dict[str, str]]:
    """Return the rows of a plot's table."""
    with layout.plot(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_locale_is_in_every_plot_and_a_removed_one_is_nowhere_though_its_files_stay(
    project: Path,
) -> None:
    before, after = of_locales(us="en", jp="ja"), of_locales(us="en", de="de")
    for locale in ("us", "jp", "de"):
        write_locale(before if locale == "jp" else after, locale, queries=9)
    report.report(before)
    assert {row["locale"] for name in plots.PLOTS for row in drawn(name)} == {"us", "jp"}
    report.report(after)
    for name in set(plots.PLOTS) - {"training"}:
        assert [*dict.fromkeys(row["locale"] for row in drawn(name))] == ["us", "de"]
    for path in (layout.PAGE, layout.REPORT, layout.SUMMARY):
        assert "jp" not in path.read_text(encoding="utf-8")


def test_trade_offs_of_other_data_are_drawn_nowhere(project: Path) -> None:
    given = of_locales(us="en", es="es")
    for locale in given.locales:
        write_locale(given, locale, queries=9)
    rng = np.random.default_rng(1)
    manifest = read_locale(given, "es").manifest
    write_tradeoff(rng, given, "es", manifest, judgements_sha256="5" * 64)
    report.report(given)
    assert {row["locale"] for row in drawn("tradeoff")} == {"us"}
    assert layout.PAGE.read_text(encoding="utf-8").count("was measured on other data") == 1


def test_the_tables_of_plots_say_what_evaluate_says(project: Path) -> None:
    given, ends = of_locales(us="en"), ("mean", "low", "high")
    write_locale(given, "us", queries=9)
    write_plots(given)
    intervals, sliced = (read_json(path("us"), "") for path in (layout.intervals, layout.slices))
    with layout.recall_curve("us").open(encoding="utf-8", newline="") as file:
        _, *recall = csv.reader(file)
    for name, expected in (
        ("recall", recall),
        ("intervals", [
            (system, measure, *(each[column] for column in (*ends, "queries")))
            for system, of in intervals.items() for measure, each in of.items()
        ]),
        ("labels", [
            (system, label, share)
            for system, of in sliced["top10"].items() for label, share in of.items()
        ]),
        ("slices", [
            (each["slice"], each["value"], system, each["queries"], *(of[end] for end in ends))
            for each in sliced["slices"] for system, of in each["systems"].items()
        ]),
    ):  # fmt: skip
        rows = [["" if value is None else str(value) for value in row] for row in expected]
        assert sorted(rows) == sorted([*row.values()][1:] for row in drawn(name))


def test_a_name_of_the_source_is_a_text_in_the_tables_and_shown_as_it_is(project: Path) -> None:
    names = ["=cmd|x", 'a,"b"\nc\rd', ""]
    given = of_locales(us="en")
    write_locale(given, "us", queries=9)
    rows = pq.read_table(layout.per_query("us"))
    values = rows[f"bm25.{given.evaluate.headline()[0]}"].to_numpy().reshape(3, 3)
    slices = [
        {
            "slice": "source", "value": name, "queries": 3, "small": True,
            "systems": {"bm25": {"mean": round(float(of.mean()), 5), "low": 0.0, "high": 1.0}},
        }
        for name, of in zip(names, values, strict=True)
    ]  # fmt: skip
    write_slices("us", {}, slices)
    kinds = pa.table({"query_id": rows["query_id"], "source": np.repeat(names, 3).tolist()})
    pq.write_table(kinds, layout.kinds("us"), **tables.WRITE_OPTIONS)
    seal("us")
    report.report(given)
    for row, name in zip(drawn("slices"), names, strict=True):
        assert row["value"] == ("'=cmd|x" if name.startswith("=") else name)
    assert [each.value for each in read_locale(given, "us").slices.slices] == names


def test_a_text_that_a_spreadsheet_could_run_gets_an_apostrophe_and_nothing_else_does() -> None:
    for cell in ("=1+1", "+1", "-1", "@sum(a1)", "＝1", "\t=1", "\r=1", " =1", "\n-1", "\tx"):
        assert plots.as_text(cell) == f"'{cell}"
    for other in ("3-5", "a=1", "'=1", -1, None):
        assert plots.as_text(other) == other


@pytest.mark.dvc
def test_dvc_draws_the_locales_of_params(project: Path) -> None:
    environment = {**os.environ, **GIT_IDENTITY, "PATH": PATH}
    copy_project(("dvc.yaml", ".dvc/config", ".dvc/plots"), project)
    commit_all(project, environment, "project")
    given = of_locales(us="en", de="de")
    for locale in given.locales:
        write_locale(given, locale, queries=9)
    write_plots(given)
    printed = call(project, environment, "dvc", "plots", "show", "--json").partition("\n")[0]
    assert "DVC_METRIC" not in printed
    found = json.loads(printed)["data"]
    assert set(found) == set(plots.PLOTS)
    assert found.pop("training") == []  # no model was trained
    for name, plot in [*plots.PLOTS.items()][:-1]:
        points = found[name][0]["content"]["data"]["values"]
        assert {point["locale"] for point in points} == {"us", "de"}
        assert set(plot.columns) <= set(points[0])


REFUSED = """async (markup) => {
    const refused = [];
    document.addEventListener('securitypolicyviolation', event => {
        refused.push(event.effectiveDirective);
    });
    document.body.insertAdjacentHTML('beforeend', markup);
    await fetch('https://example.invalid').catch(() => {});
    await new Promise(done => setTimeout(done, 100));
    return refused.sort();
}"""
"""Adds markup and asks another host; returns what the page's policy refused."""

NASTY = "</script><img src='data:,' onerror=\"document.title = 'owned'\">"


@pytest.mark.slow
@pytest.mark.dvc
@pytest.mark.weights
@needs_browser
@needs_npm
def test_the_page_of_make_plots_draws_every_plot_without_a_network_and_runs_no_text(
    project: Path, run_stage: RunStage
) -> None:
    copy_project(("dvc.yaml", ".dvc/config", ".dvc/plots"), project)
    commit_all(project, {**os.environ, **GIT_IDENTITY, "PATH": PATH}, "project")
    given = of_locales(us="en")
    write_locale(given, "us", queries=9)
    write_plots(given)
    rows = drawn("slices")
    with layout.plot("slices").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows([*rows, {**rows[0], "value": NASTY}])
    assert run_stage("plots").returncode == 0
    asked: list[str] = []
    wrong: list[str] = []

    def keep_errors(said: ConsoleMessage) -> None:
        if said.type == "error":
            wrong.append(said.text)

    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", keep_errors)
        page.context.set_offline(True)
        address = (project / "dvc_plots/index.html").as_uri()
        page.goto(address)
        page.wait_for_function(
            "count => document.querySelectorAll('.vega-embed canvas').length === count",
            arg=len(plots.PLOTS),
        )
        assert page.title() == "DVC plots"
        assert (asked, wrong) == ([address], [])
        assert page.evaluate(REFUSED, NASTY) == ["connect-src", "script-src-attr"]
        assert page.title() == "DVC plots"
    text = (project / "dvc_plots/index.html").read_text()
    for package in plots_command.PACKAGES:
        licence = text.partition(f"/*! {package.name}\n")[2].partition("*/")[0]
        assert "University of Washington Interactive Data Lab" in licence
        assert "Redistributions in binary form must reproduce" in licence


def test_options_are_of_show_and_another_template_is_refused() -> None:
    for given, words in (
        ([], ["show"]),
        (["--open"], ["show", "--open"]),
        (["--targets", "recall"], ["show", "--targets", "recall"]),
        (["diff", "HEAD", "--open"], ["diff", "HEAD", "--open"]),
    ):
        assert plots_command.dvc_words(given) == words
    for given in (["--html-template", "mine.html"], ["show", "--html-template=mine.html"]):
        with pytest.raises(PipelineError, match="a template of its own"):
            plots_command.dvc_words(given)


def test_another_vega_than_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots_command, "PACKAGES", plots_command.PACKAGES[:2])
    with pytest.raises(PipelineError, match=r"draws with .*vega-embed@.* pinned"):
        plots_command.check_versions()
