"""What goes into the page: which queries, as safe text; one clear message where it cannot be."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.textpath import TextPath
from ruamel.yaml import YAML

from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import MOST_RESULTS, Report
from pipeline.core.systems import SYSTEMS
from pipeline.evaluate.top_products import PLACES
from pipeline.report import axes, basis, browse, charts, scale, scatter, svg, wording
from pipeline.report import stage as report
from pipeline.report.encoder import read_encoder
from pipeline.report.inputs import RUNS, LocaleResults, read_locale
from pipeline.report.tradeoff import TradeOff
from pipeline.runs.card import RANDOM, STAGE_OF
from pipeline.vectors.manifest import Manifest, Side
from tests.helpers.artefacts import ROOT, params, shipped
from tests.helpers.page_artefacts import (
    NASTY,
    ONE,
    seal,
    write_locale,
    write_slices,
    write_tradeoff,
)

RNG = np.random.default_rng(20)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> LocaleResults:
    """The results of es, with 24 queries."""
    with contextlib.chdir(tmp_path_factory.mktemp("results")):
        write_locale(params(), "es", queries=24)
        return read_locale(params(), "es")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page reads where there is one locale, with twelve queries."""
    folder = tmp_path_factory.mktemp("written")
    with contextlib.chdir(folder):
        write_locale(params(ONE), "es", queries=12)
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of that, to be changed, as the working folder."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def test_the_page_shows_every_system_that_has_runs_as_deep_as_evaluate_keeps_results() -> None:
    assert set(RUNS) == set(SYSTEMS)
    assert MOST_RESULTS == PLACES


def test_the_measures_by_query_are_of_the_headline_whatever_the_first_cutoffs(
    project: Path,
) -> None:
    given = params({"evaluate.ndcg": [10, 100], "evaluate.recall": [5, 10, 100]})
    write_locale(given, "es", queries=3)
    assert read_locale(given, "es").measures == ("ndcg@10", "mrr@10", "recall@10")


@pytest.mark.parametrize("queries", [1, 2, 7, 50, 400])
def test_all_queries_are_chosen_where_they_fit_else_half_differ_most_and_half_are_drawn(
    queries: int,
) -> None:
    differences = RNG.random(queries).round(1)
    differences[RNG.random(queries) < 0.2] = np.nan
    for asked in (1, 2, 5, 49, 400):
        settings = Report(queries=asked, results=10, seed=3, scale=False)
        chosen = browse.choose_queries(differences, settings)
        assert len(chosen) == len(set(chosen.tolist())) == min(asked, queries)
        assert (np.diff(chosen) > 0).all()
        np.testing.assert_array_equal(chosen, browse.choose_queries(differences, settings))
        if asked < queries:
            known = np.nan_to_num(differences, nan=-1.0)
            most = np.sort(known)[::-1][: (asked + 1) // 2]
            best = np.sort(known[chosen])[::-1][: (asked + 1) // 2]
            np.testing.assert_array_equal(best, most)


def test_another_seed_draws_other_queries_and_keeps_those_that_differ_most() -> None:
    differences = RNG.random(500)
    first, second = (
        set(browse.choose_queries(differences, each).tolist())
        for each in (Report(queries=40, results=10, seed=seed, scale=False) for seed in (1, 2))
    )
    assert first != second
    assert set(np.argsort(-differences)[:20].tolist()) <= first & second


def test_embedded_json_is_the_same_data_and_can_end_no_element() -> None:
    content = {"texts": list(NASTY), "number": 0.5, "nothing": None}
    text = browse.embedded_json(content)
    assert json.loads(text) == content
    assert not re.search("[<>&\u2028\u2029]", text)


def test_the_data_are_what_the_tables_hold(results: LocaleResults) -> None:
    data = browse.queries_data(results, Report(queries=100, results=4, seed=0, scale=False))
    table = results.per_query.to_pylist()
    assert [query[:2] for query in data["queries"]] == [
        [str(row["query_id"]), row["query"]] for row in table
    ]
    assert data["queries"][5][2][1][0] == round(table[5][f"{RUNS[1]}.{results.measures[0]}"], 5)
    shown = [
        (int(query_id), system, place // 2 + 1, *data["products"][ranked[place]], ranked[place + 1])
        for query_id, _, _, lists, *_ in data["queries"]
        for system, ranked in zip(RUNS, lists, strict=True)
        for place in range(0, len(ranked), 2)
    ]
    expected = [
        (row["query_id"], row["system"], row["rank"], row["product_id"], row["title"],
         row["label"] or "")
        for row in results.top.to_pylist()
        if row["rank"] <= 4
    ]  # fmt: skip
    assert sorted(shown) == sorted(expected)


def test_what_a_system_misses_in_the_shown_places_is_there_with_its_rank_in_every_system(
    results: LocaleResults,
) -> None:
    data = browse.queries_data(results, Report(queries=100, results=4, seed=0, scale=False))
    found = {
        (int(query_id), *data["products"][place], *ranks)
        for query_id, *_, missed in data["queries"]
        for place, *ranks in missed
    }
    expected = {
        (row["query_id"], row["product_id"], row["title"], *(row[s] or 0 for s in RUNS))
        for row in results.exact.to_pylist()
        if any(row[s] is None or row[s] > 4 for s in RUNS)
    }
    assert found == expected
    for *_, missed in data["queries"]:
        best = [min((rank for rank in ranks if rank), default=1000) for _, *ranks in missed]
        assert best == sorted(best)
    assert [query[5] for query in data["queries"]] == [3] * 24
    kinds = results.kinds.to_pylist()
    for row, query in zip(kinds, data["queries"], strict=True):
        named = {
            name: values[at] for (name, values), at in zip(data["kinds"], query[4], strict=True)
        }
        assert {"query_id": int(query[0]), **named} == row


def test_the_reader_is_told_which_queries_the_page_holds(results: LocaleResults) -> None:
    whole = Report(queries=24, results=10, seed=0, scale=False)
    assert browse.note(results, whole) == "All 24 queries of es."
    told = browse.note(results, Report(queries=5, results=10, seed=8, scale=False))
    assert "5 of the 24 queries" in told
    assert "the 3 on which the systems' nDCG@10 differs the most, and 2 of the others" in told
    assert "seed 8" in told


def test_charts_have_the_pages_colours_unique_ids_and_no_trace_of_their_making(
    results: LocaleResults,
) -> None:
    assert isinstance(results.tradeoff, TradeOff)
    with svg.style():
        drawn = [
            charts.draw_headline(results, "ndcg@10"), charts.draw_recall(results),
            charts.draw_labels(results), charts.draw_slices(results),
            scatter.draw_tradeoff(results, results.tradeoff),
        ]  # fmt: skip
    text = "".join(drawn)
    assert not re.search(r"#[0-9a-f]{6}", text)
    assert "atplotlib" not in text
    assert "<style" not in text
    ids = re.findall(r' id="(.+?)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#(.+?)["\)]', text)) <= set(ids)
    colours = (ROOT / "pipeline/report/assets/palette.css").read_text()
    for role in re.findall(r"var\(--(.+?)\)", text):
        assert f"--{role}:" in colours


def test_no_character_of_a_text_breaks_a_chart(results: LocaleResults) -> None:
    # All but surrogates, which no text in an artefact can hold.
    nasty = [chr(code) for code in (*range(0xA1), 0x6C34, 0xFFFD, 0xFFFE, 0xFFFF, 0x1F600)]
    nasty.remove("\r")  # XML reads it as a line break
    slices = [each.model_copy(update={"value": f"a{c}b"}) for c in nasty
              for each in results.slices.slices[:1]]  # fmt: skip
    many = results.slices.model_copy(update={"slices": tuple(slices)})
    with svg.style():
        drawn = charts.draw_slices(dataclasses.replace(results, slices=many))
        figure = svg.drawing(100, 100)
        told = "".join(nasty)
        titled = svg.to_markup(figure, "x", told, told)
    chart, empty = (ET.fromstring(text) for text in (drawn, titled))  # noqa: S314 - our own
    words = [element.text for element in chart.iter("text")]
    assert {f"a{c}b" for c in nasty if c.isprintable()} <= set(words)
    assert "a b" in words
    shown = "".join(c if c.isprintable() or c in "\t\n\xa0" else " " for c in told)
    assert [empty.findtext(tag) for tag in ("title", "desc")] == [shown, shown]


def test_a_page_without_slices_labels_or_measured_indexes_says_so(project: Path) -> None:
    given = params(ONE)
    write_locale(given, "es", queries=3, measured=False)
    write_slices("es", {}, [])
    seal("es")
    report.report(given)
    page = layout.PAGE.read_text(encoding="utf-8")
    assert page.count("is missing. Run make tradeoff.") == 1
    assert "No query of es is in any slice." in page


def test_the_table_of_indexes_says_what_each_finds_and_whether_it_is_mapped(project: Path) -> None:
    given = params(ONE)
    write_locale(given, "es", queries=3)
    report.report(given)
    page = layout.PAGE.read_text(encoding="utf-8")
    head, *rows = re.findall("<tr>(.*?)</tr>", page[page.index('id="indexes"') :])
    names = re.findall("<th.*?>(.*?)</th>", head)
    cells = {
        found[0].partition("<")[0]: dict(zip(names, found, strict=True))
        for found in (re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in rows)
        if len(found) == len(names)
    }
    assert cells["ivf-flat"]["overlap@10"] == "0.970"
    assert cells["ivf-flat"]["overlap@100"] == "0.940"
    assert {name: cells[name]["mapped"] for name in ("flat", "hnsw")} == {
        "flat": "yes", "hnsw": "no",
    }  # fmt: skip


def random_scale(stages: int) -> scale.Scale:
    """Return what stages take of some sizes."""
    sizes = sorted(RNG.choice([500, 20_000, 100_000, 400_000, 1_814_924], 3, replace=False))
    points = {
        f"stage {number} (kind)": [
            {"products": int(size), "seconds": float(10 ** RNG.uniform(-4, 4)),
             "peak_bytes": 7, "more": 1}
            for size in sizes[: RNG.integers(1, 4)]
        ]
        for number in range(stages)
    }  # fmt: skip
    return scale.Scale.model_validate_json(
        json.dumps({"machine": {"cores": 2, "cpu": "x"}, "stages": points})
    )


@pytest.mark.parametrize("stages", [1, 2, 7, 14])
def test_the_chart_of_scale_names_every_stage_none_over_another(stages: int) -> None:
    measured = random_scale(stages)
    with svg.style():
        drawn = scale.draw_scale(measured)
        assert drawn == scale.draw_scale(measured)
    assert not re.search(r"#[0-9a-f]{6}", drawn)
    height = float(re.findall(r'viewBox="0 0 340 ([0-9.]+)"', drawn)[0])
    names = re.findall(r"translate\(([0-9.]+) ([0-9.]+)\)[^>]*>(stage \d+ \(kind\))<", drawn)
    if not names:
        names = [
            (x, y, name)
            for x, y, name in re.findall(
                r'<text[^>]*x="([0-9.]+)" y="([0-9.]+)"[^>]*>(stage \d+ \(kind\))<', drawn
            )
        ]
    assert sorted(name for _, _, name in names) == sorted(measured.stages)
    places = sorted(float(y) for _, y, _ in names)
    assert all(low + 12 < high for low, high in itertools.pairwise(places))
    assert 0 < places[0] <= places[-1] < height


def test_spread_places_keep_their_order_and_distance_and_stay_where_there_is_room() -> None:
    for _ in range(300):
        count = int(RNG.integers(1, 12))
        wanted = np.sort(RNG.uniform(40, 200, count))[::-1].tolist()
        found = scale.spread(wanted, 10.0, 205.0)
        assert all(high - low >= 10 - 1e-9 for high, low in itertools.pairwise(found))
        assert found[0] <= 205
        assert found[-1] >= 40
        if all(high - low >= 10 for high, low in itertools.pairwise(wanted)):
            assert found == wanted


@pytest.mark.usefixtures("copied")
def test_the_page_has_a_section_of_scale_only_where_params_ask_for_it() -> None:
    asked = params({**ONE, "report.scale": True})
    with pytest.raises(PipelineError, match=r"scale.json.*make scale"):
        report.report(asked)
    measured = random_scale(3)
    files.write_json(layout.SCALE_BENCH, measured.model_dump(mode="json"))
    report.report(params(ONE))
    assert 'href="#scale"' not in layout.PAGE.read_text(encoding="utf-8")
    report.report(asked)
    page = layout.PAGE.read_text(encoding="utf-8")
    assert 'href="#scale"' in page
    for points in measured.stages.values():
        assert f'<td class="number">{points[0].products:,}</td>' in page
    files.write_json(layout.SCALE_BENCH, {"machine": {"cores": 2}, "stages": {"clean": [{}]}})
    with pytest.raises(PipelineError, match=r"scale.json: stages.clean.*make scale"):
        report.report(asked)


@pytest.mark.usefixtures("copied")
def test_indexes_measured_on_other_vectors_are_left_out_and_told() -> None:
    given = params(ONE)
    manifest = read_locale(given, "es").manifest
    for changed in (
        "encoder", "product_ids_sha256", "query_vectors_sha256", "weights_sha256",
        "judgements_sha256",
    ):  # fmt: skip
        write_tradeoff(RNG, given, "es", manifest, **{changed: "other"})
        told = read_locale(given, "es").tradeoff
        assert isinstance(told, str)
        assert "measured on other data ('other'" in told
    write_tradeoff(RNG, given, "es", manifest, similarity="l2")
    told = read_locale(given, "es").tradeoff
    assert isinstance(told, str)
    assert "measured on other data ('l2', now 'cosine')" in told


def test_figures_of_the_index_in_use_with_other_settings_are_left_out_and_told(
    project: Path,
) -> None:
    given = params({**ONE, "index": {"es": "hnsw"}})
    write_locale(given, "es", queries=9)
    told = "hnsw is left out: it had other settings. Run make tradeoff."
    report.report(given)
    assert told not in layout.PAGE.read_text(encoding="utf-8")
    changes = {"indexes.hnsw.ef_search": 2000, "indexes.ivf-flat.probes": 3}
    before = params({**ONE, **changes})
    write_tradeoff(RNG, before, "es", read_locale(given, "es").manifest)
    report.report(given)
    found = read_locale(given, "es").tradeoff
    assert isinstance(found, TradeOff)
    assert [each.index for each in found.indexes] == ["flat", "sq8", "ivf-flat"]
    assert layout.PAGE.read_text(encoding="utf-8").count(told) == 1
    assert "hnsw" not in layout.plot("tradeoff").read_text(encoding="utf-8")


@pytest.mark.usefixtures("copied")
def test_numbers_of_an_encoder_of_other_vectors_or_another_similarity_are_refused() -> None:
    results = read_locale(params(ONE), "es")
    read_encoder(results)

    def encoded_again(side: Side) -> Side:
        shards = tuple(each.model_copy(update={"sha256": "2" * 64}) for each in side.shards)
        return side.model_copy(update={"shards": shards})

    manifest = results.manifest
    for change, said in (
        ({"products": encoded_again(manifest.products)}, "product_vectors_sha256 must be"),
        ({"queries": encoded_again(manifest.queries)}, "query_vectors_sha256 must be"),
        ({"weights_sha256": "7" * 64}, "weights_sha256 must be 777777777777"),
        ({"contract": manifest.contract | {"similarity": "l2"}}, "similarity must be 'l2'"),
    ):
        other = dataclasses.replace(results, manifest=manifest.model_copy(update=change))
        with pytest.raises(PipelineError, match=said):
            read_encoder(other)


def _edit_json(path: Path, change: Callable[[Any], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    files.write_json(path, data)


def _encode_again(manifest: Any) -> None:
    manifest["products"]["shards"][0]["sha256"] = "2" * 64


def _without(path: Path, column: str) -> None:
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([column]), path)
    seal(path.stem)


def _of_other_runs(path: Path) -> None:
    """Give a table another value in its last row, of the same type and as possible."""
    table = pq.read_table(path)
    *rows, last = table.to_pylist()
    if "label" in last:
        last["label"] = "E" if last["label"] != "E" else "C"
    else:
        last["query"] += "x"
    pq.write_table(pa.Table.from_pylist([*rows, last], table.schema), path)


def _with_top(change: Callable[[list[dict[str, Any]]], object]) -> None:
    table = pq.read_table(layout.top("es"))
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), layout.top("es"))
    seal("es")


def _drop_one_that_is_not_exact(rows: list[dict[str, Any]]) -> None:
    rows.remove(next(row for row in rows if row["label"] != "E" and row["rank"] < 10))


def _edit_table(path: Path, column: str, rows: int | slice, value: object) -> None:
    """Set one value of a table, or those of some rows."""
    table = pq.read_table(path)
    place = table.column_names.index(column)
    values = table[column].to_pylist()
    for row in range(len(values))[rows] if isinstance(rows, slice) else [rows]:
        values[row] = value
    field = table.schema.field(column)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda: layout.metrics("es").unlink(), "metrics/es.json is missing"),
        (lambda: layout.intervals("es").unlink(), "intervals/es.json is missing"),
        (lambda: layout.slices("es").unlink(), "slices/es.json is missing"),
        (lambda: layout.per_query("es").unlink(), "per_query/es.parquet is missing"),
        (lambda: layout.top("es").unlink(), "top/es.parquet is missing"),
        (lambda: layout.recall_curve("es").unlink(), "recall/es.csv is missing"),
        (lambda: layout.clean("es").counts.unlink(), "Run `dvc repro clean@es`"),
        (lambda: layout.embeddings("es").manifest.unlink(), "manifest.json is missing"),
        (lambda: layout.metrics("es").write_text("[]"), "metrics/es.json: (top level)"),
        (lambda: layout.top("es").write_text("no"), "top/es.parquet is not readable"),
        (lambda: layout.recall_curve("es").write_text("k,recall\n1,1\n"), "recall/es.csv is not"),
        (lambda: layout.tradeoff("es").write_text("{}"), "es.json: tradeoff_schema must be 3"),
        (lambda: _edit_json(layout.tradeoff("es"), lambda data: data.pop("locale")),
         "tradeoff/es.json: locale"),
        (lambda: _edit_json(layout.metrics("es"), lambda data: data.pop("bm25")), "of bm25"),
        (lambda: _edit_json(layout.metrics("es"), lambda data: data.update(queries=7)),
         "queries must be 12 (found 7)"),
        (lambda: _edit_json(layout.metrics("es"), lambda data: data.update(index_settings={})),
         "index_settings.kind must be flat (found nothing)"),
        (lambda: _edit_json(layout.intervals("es"), lambda data: data["dense"].update(x=1)),
         "intervals/es.json: dense.x"),
        (lambda: _edit_json(layout.slices("es"), lambda data: data.pop("slices")), "slices: Field"),
        (lambda: _without(layout.per_query("es"), "hybrid.mrr@10"), "no column hybrid.mrr@10"),
        (lambda: _with_top(lambda rows: rows[0].update(system="bm52")), "system cannot be 'bm52'"),
        (lambda: _with_top(lambda rows: rows[0].update(query_id=-5)), "query_id cannot be -5"),
        (lambda: _with_top(_drop_one_that_is_not_exact), "next (found"),
        (lambda: layout.exact("es").unlink(), "exact/es.parquet is missing"),
        (lambda: _edit_table(layout.exact("es"), "product_id", 5, "B1"), "product_id must name"),
        (lambda: _edit_table(layout.exact("es"), "bm25", 5, 101), "a rank that no product"),
        (lambda: _edit_table(layout.exact("es"), "bm25", -1, 50), "a rank that no product"),
        (lambda: _edit_table(layout.exact("es"), "dense", slice(9), 7), "the ranks of dense up to"),
        (lambda: layout.kinds("es").unlink(), "kinds/es.parquet is missing"),
        (lambda: _edit_table(layout.kinds("es"), "query_id", 2, 3), "must have the query_ids"),
        (lambda: _edit_table(layout.kinds("es"), "brand in the query", slice(9), "maybe"),
         "its queries of 'brand in the query'"),
        (lambda: _of_other_runs(layout.top("es")), "top/es.parquet: the contents must have the"),
        (lambda: _of_other_runs(layout.per_query("es")), "per_query/es.parquet: the contents have"),
        (lambda: _edit_json(layout.embeddings("es").manifest, _encode_again),
         "per_query/es.parquet: product_vectors_sha256 must be"),
        (lambda: _of_other_runs(layout.clean("es").judgements),
         "per_query/es.parquet: judgements_sha256 must be"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("copied")
def test_an_artefact_that_is_missing_or_of_another_form_is_told_in_one_message(
    damage: Callable[[], None], told: str
) -> None:
    damage()
    with pytest.raises(PipelineError) as err:
        report.report(params(ONE))
    assert told in str(err.value)
    assert ". Run `" in str(err.value)
    assert "\n" not in str(err.value)
    assert not layout.PAGE.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_the_same_results_give_the_same_bytes_whatever_the_surroundings() -> None:
    report.report(params(ONE))
    first = layout.PAGE.read_bytes()
    YAML().dump({**shipped(), **ONE}, layout.PARAMS)
    Path("matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\n")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo",
        "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.report"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert layout.PAGE.read_bytes() == first


def test_what_a_matrix_of_undefined_values_differs_by_is_undefined(results: LocaleResults) -> None:
    table = results.per_query.to_pandas()
    columns = [f"{system}.{results.measures[0]}" for system in RUNS]
    expected = table[columns].max(axis=1) - table[columns].min(axis=1)
    np.testing.assert_array_equal(browse.differences(results), expected.to_numpy())


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "0%"), (0, 9, "0%"), (9, 9, "100%"), (1, 3, "33.3%"), (1, 10**6, "< 0.1%"),
     (10**6 - 1, 10**6, "> 99.9%")],
)  # fmt: skip
def test_a_share_of_something_is_never_shown_as_nothing_or_all(
    part: int, whole: int, text: str
) -> None:
    assert wording.share(part, whole) == text


def test_the_manifests_of_the_generator_are_what_embed_writes(results: LocaleResults) -> None:
    assert isinstance(results.manifest, Manifest)
    assert results.manifest.truncation.products.texts_cut == 7


@pytest.mark.usefixtures("copied")
def test_the_first_lines_say_which_data_encoders_and_indexes_the_numbers_are_of() -> None:
    changes = {"sample.source": "data/<mine>", "sample.version": "large", "sample.queries": 77}
    report.report(params({**ONE, **changes}))
    page = layout.PAGE.read_text(encoding="utf-8")
    top = re.sub("<[^>]+>", "", page[page.index("<header") : page.index("</header>")])
    manifest = json.loads(layout.embeddings("es").manifest.read_text())
    for words in (
        "data/&lt;mine&gt;, version large, split test", "queries: 77, distractors: all, seed 13",
        f"12 queries, 80 products, encoder labse (weights {manifest['weights_sha256'][:12]}), "
        f"index flat, data {basis.data_sha256('es')[:12]}",
        basis.all_sha256({"es": basis.data_sha256("es")})[:12], "By nDCG@10: in es, rerank ",
    ):  # fmt: skip
        assert words in top


@pytest.mark.usefixtures("copied")
def test_the_hash_of_the_data_changes_with_any_id_text_or_label_and_with_nothing_else() -> None:
    clean = layout.clean("es")
    hashes = {before := basis.data_sha256("es")}
    for path, schema in (
        (clean.queries, tables.QUERIES),
        (clean.products, tables.PRODUCTS),
        (clean.judgements, tables.JUDGEMENTS),
    ):
        table = tables.read_table(path, schema, "")
        pq.write_table(table, path, compression="snappy", row_group_size=3)
        assert basis.data_sha256("es") == before
        for column, name in enumerate(schema.names):
            if name == "field_ends":
                continue
            rows = table.to_pylist()
            value = rows[-1][name]
            rows[-1][name] = value + 1 if isinstance(value, int) else f"{value} "
            pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
            hashes.add(basis.data_sha256("es"))
            assert len(hashes) > 1 + column
        pq.write_table(table, path)
    assert basis.data_sha256("es") == before
    assert len(hashes) == 1 + 2 + 2 + 3


@pytest.mark.slow
def test_no_locale_has_the_id_of_another_element(project: Path) -> None:
    names = (
        "heading", "data", "of-us", "us", "us-title", "title-title",
    )  # fmt: skip
    given = params(
        {
            "encoder": dict.fromkeys(names, "minilm"),
            "index": dict.fromkeys(names, "flat"),
            "language": dict.fromkeys(names, "en"),
            "rerank": dict.fromkeys(names, "none"),
            "spelling": dict.fromkeys(names, "typed"),
            "systems": {each: {} for each in names},
            "report.scale": True,
        }
    )
    for locale in names:
        write_locale(given, locale, queries=3)
    files.write_json(layout.SCALE_BENCH, random_scale(2).model_dump(mode="json"))
    report.report(given)
    page = layout.PAGE.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for name in re.findall(r'(?:href="#|url\(#|aria-(?:labelledby|describedby)=")([^")]+)', page):
        assert name in ids
    for locale in names:
        (data,) = re.findall(
            f'<script type="application/json" id="queries-of-{locale}">(.*)<', page
        )
        assert json.loads(data)["locale"] == locale


def test_ids_that_no_javascript_number_holds_are_shown_digit_by_digit(
    results: LocaleResults,
) -> None:
    ids = [2**53 + 1 + row for row in range(23)] + [2**63 - 1]
    new = dict(zip(results.per_query["query_id"].to_pylist(), ids, strict=True))
    tables_of = {
        name: table.set_column(
            0, "query_id", pa.array([new[one] for one in table["query_id"].to_pylist()])
        )
        for name in ("per_query", "top", "exact", "kinds")
        for table in [getattr(results, name)]
    }
    changed = dataclasses.replace(results, **tables_of)
    data = browse.queries_data(changed, Report(queries=100, results=4, seed=0, scale=False))
    text = json.loads(browse.embedded_json(data), parse_int=float)
    assert [query[0] for query in text["queries"]] == [str(one) for one in ids]


def test_every_system_has_a_stage_a_mark_a_line_a_colour_and_a_description() -> None:
    assert set(RUNS) == set(SYSTEMS) == set(STAGE_OF)
    for known in (axes.MARKS, wording.SYSTEM_WORDS):
        assert set(known) == {RANDOM, *SYSTEMS}
    css = (ROOT / "pipeline/report/assets/palette.css").read_text(encoding="utf-8")
    template = (ROOT / "pipeline/report/assets/page.html.j2").read_text(encoding="utf-8")
    for system in (RANDOM, *SYSTEMS):
        assert f"--{system}:" in css
        assert f'system == "{system}"' in template


def test_a_colour_is_defined_once_for_all_pages() -> None:
    sheets = [path.read_text("utf-8") for name in ("report", "catalogue", "serve")
              for path in sorted((ROOT / "pipeline" / name / "assets").glob("*.css"))]  # fmt: skip
    defined = [name for css in sheets for name in re.findall(r"(?m)^  --([\w-]+): ", css)]
    assert len(defined) == len(set(defined)) > 15
    used = {name for css in sheets for name in re.findall(r"var\(--([\w-]+)\)", css)}
    assert used <= set(defined)


def test_another_engine_is_shown_as_the_own_systems_and_has_no_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = {"zeta": "data/systems/z", "alpha": "data/systems/a.trec"}
    given = params({**ONE, "systems": {"es": runs}})
    write_locale(given, "es", queries=20)
    for others in ({"alpha": runs["alpha"]}, {**runs, "zeta": "data/systems/new"}):
        with pytest.raises(PipelineError, match=r"metrics/es.json: .*of other runs than params"):
            report.report(params({**ONE, "systems": {"es": others}}))
    report.report(given)
    found = read_locale(given, "es")
    assert found.runs == (*RUNS, "alpha", "zeta")
    page = layout.PAGE.read_text(encoding="utf-8")
    assert (
        "es: alpha is the run data/systems/a.trec: 1,234 results of 13 queries; queries without "
        "results, which score 0: 7; results too deep, which are left out: 5; " in page
    )
    for name in runs:
        (row,) = re.findall(f'<tr data-locale="es" data-system="{name}">.*</tr>', page)
        (pool,) = re.findall('<td class="number" data-measure="pool_ndcg">(.*?)</td>', row)
        assert pool == '<span class="none">–</span>'
        assert f"<dt>{name}</dt><dd>Another engine" in page
    summary = json.loads(layout.SUMMARY.read_text())["es"]["systems"]
    assert "pool_ndcg" not in summary["zeta"]
    assert summary["zeta"].keys() | {"pool_ndcg"} == summary["bm25"].keys()
    shapes = {found.marker for found in axes.marks(["alpha", "zeta"]).values()}
    assert len(shapes) == len(axes.MARKS) + 2
    damaged = json.loads(layout.slices("es").read_text())
    damaged["top10"]["gamma"] = damaged["top10"]["bm25"]
    layout.slices("es").write_text(json.dumps(damaged))
    with pytest.raises(PipelineError, match="'gamma' is no system of"):
        read_locale(given, "es")


def test_engines_of_some_locales_alone_are_drawn_with_room_for_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "an-engine-with-a-long-name"
    engines: dict[str, list[str]] = {"es": ["elasticsearch"], "us": [long, "b", "c", "d"], "jp": []}
    of = {locale: {e: f"data/systems/{e}" for e in each} for locale, each in engines.items()}
    given = params({f"systems.{locale}": runs for locale, runs in of.items()})
    for locale in engines:
        write_locale(given, locale, queries=20)
    report.report(given)
    page = layout.PAGE.read_text(encoding="utf-8")
    for locale, names in engines.items():
        for chart in ("headline", "labels"):
            (drawn,) = re.findall(f"(?s)<svg [^>]*chart-{chart}-{locale}-title.*?</svg>", page)
            root = ET.fromstring(drawn)  # noqa: S314 - our own page
            rows = {str(each.text): float(each.attrib["x"]) for each in root.iter("text")
                    if "text-anchor: end" in each.attrib["style"]}  # fmt: skip
            for name in names:
                shown = f"{name[:15]}…" if len(name) > 16 else name
                assert rows[shown] > TextPath((0, 0), shown, size=11).get_extents().width
        (table,) = re.findall(f'(?s)aria-label="Slices, {locale}".*?</table>', page)
        for name in (each for some in engines.values() for each in some):
            assert (f'class="number">{name}</th>' in table) == (name in names)
    summary = json.loads(layout.SUMMARY.read_text())
    (means,) = re.findall('(?s)<th scope="rowgroup">mean</th>.*?</tbody>', page)
    for name in (each for some in engines.values() for each in some):
        assert name not in summary["mean"]["systems"]
        assert name not in re.findall(r"([\w-]+)</th>", means)
    _, table = layout.REPORT.read_text().split("\n| mean | ")
    assert table.splitlines()[0].startswith("random | ")
    assert "elasticsearch" not in table
    assert "elasticsearch" not in summary["us"]["systems"]
