"""Trade-offs are of what the pipeline searches, deterministic but for times, and never mixed up."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from filelock import FileLock

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.params import Params
from pipeline.evaluate import metrics, system_scores
from pipeline.index import stage as index
from pipeline.index.build import build_index
from pipeline.report.tradeoff import Figures
from pipeline.retrieve import stage as retrieve
from pipeline.runs.card import OVERLAP_DECIMALS
from pipeline.tradeoff import command as tradeoff
from pipeline.tradeoff.figures import table
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import read_vectors
from tests.helpers.artefacts import (
    LOCALE,
    ROOT,
    params,
    random_vectors,
    write_clean,
    write_embeddings,
)

PRODUCTS, QUERIES = 300, 30
TIMINGS = {"build_seconds", "p50_milliseconds", "p95_milliseconds", "queries_per_second"}
NAMES = [
    "flat", "sq8", "hnsw", "ivf-flat", "ivf-pq", "rabitq", "eden", "pq-fastscan", "ivf-pq-fastscan",
]  # fmt: skip
FITTING = {"indexes.pq-fastscan.subvectors": 24, "indexes.ivf-pq-fastscan.subvectors": 24}
"""The entries that are shipped are for vectors of more components."""


@pytest.fixture(autouse=True)
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean tables and vectors of `LOCALE` in a folder of their own; timings take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tradeoff, "LEAST_SECONDS", 0)
    rng = np.random.default_rng(3)
    write_clean(rng, PRODUCTS, QUERIES)
    write_embeddings(params(), random_vectors(rng, PRODUCTS), random_vectors(rng, QUERIES))


def read() -> Any:
    return json.loads(layout.tradeoff(LOCALE).read_text())


def figures() -> dict[str, Any]:
    return {each["index"]: each for each in read()["indexes"]}


def measure(*names: str, given: Params | None = None) -> dict[str, Any]:
    """Measure indexes of `LOCALE`, all of them without names; return all figures in the file."""
    tradeoff.tradeoff(given or params(FITTING), LOCALE, list(names))
    return figures()


def test_all_but_the_timings_is_the_same_in_every_run_on_any_number_of_threads() -> None:
    runs = []
    for threads in (1, 2):
        layout.tradeoff(LOCALE).unlink(missing_ok=True)
        measure(given=params({**FITTING, "runtime.threads": threads}))
        told = read()
        assert told.pop("threads") == threads
        for each in told["indexes"]:
            timings = [each.pop(name) for name in sorted(TIMINGS)]
            assert all(value > 0 for value in timings)
        runs.append(told)
    assert runs[0] == runs[1]
    assert [each["index"] for each in runs[0]["indexes"]] == NAMES
    assert (runs[0]["products"], runs[0]["queries"], runs[0]["left_out"]) == (300, 30, {})


@pytest.mark.parametrize("name", NAMES)
def test_quality_and_size_are_those_of_the_pipeline_with_that_index(name: str) -> None:
    given = params({**FITTING, "index.es": name})
    found = measure(name)[name]
    for stage in (index.index, retrieve.retrieve):
        stage(given, LOCALE)
    judged = system_scores.read_judged(LOCALE)
    scores, _ = system_scores.score("dense", LOCALE, judged, given.evaluate, given.retrieve.depth)
    of_record = metrics.means(scores.measures)
    assert found["ndcg@10"] == of_record["ndcg@10"]
    assert found["recall@100"] == of_record["recall@100"]
    card = json.loads(layout.runs("dense", LOCALE).card.read_text())
    assert found["overlap@100"] == card["index_overlap"]
    assert found["overlap@10"] == share_of_exact_top_10(given)
    # FAISS 1.15 reads the others.
    assert found["mapped"] == (name not in ("eden", "pq-fastscan", "ivf-pq-fastscan"))
    size = layout.index(LOCALE).index.stat().st_size
    assert found["bytes_per_vector"] == round(size / PRODUCTS, 1)
    assert found["settings"]["kind"] == found["kind"] == name


def share_of_exact_top_10(given: Params) -> float:
    """Return the share of each query's ten nearest products that its run has first."""
    manifest, path = read_manifest(given, LOCALE), layout.runs("dense", LOCALE).catalogue
    run = tables.read_table(path, tables.RUN, "")
    first = run.filter(pc.less_equal(run["rank"], 10))
    found = first["product_row"].to_numpy().reshape(QUERIES, 10)
    products, queries = (
        to_index_form(read_vectors(manifest, side, LOCALE), "cosine", side)
        for side in ("products", "queries")
    )
    exact = np.argsort(-(queries @ products.T), axis=1)[:, :10]
    shares = [np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]
    return round(float(np.mean(shares)), OVERLAP_DECIMALS)


def test_latencies_have_one_value_a_query_and_leave_the_threads_as_they_were() -> None:
    rng = np.random.default_rng(5)
    products, queries = random_vectors(rng, 50), random_vectors(rng, 7)
    flat = build_index(params().indexes["flat"], 48, "dot", [products])
    threads = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        assert tradeoff.latencies(tradeoff.searcher(flat), queries).shape == (7,)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(threads)


TOO_LARGE = {"indexes.ivf-pq.bits": 12, "indexes.ivf-flat.lists": 301}


def test_what_cannot_be_built_is_listed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    found = measure(given=params({**TOO_LARGE}))
    assert sorted(found) == ["eden", "flat", "hnsw", "rabitq", "sq8"]
    left_out = read()["left_out"]
    assert sorted(left_out) == ["ivf-flat", "ivf-pq", "ivf-pq-fastscan", "pq-fastscan"]
    assert "lists must be at most 300, the number of products (found 301)" in left_out["ivf-flat"]
    assert "12 bits need 4096 products" in left_out["ivf-pq"]
    printed = capsys.readouterr().out
    assert all(f"{name}: {why}" in printed for name, why in left_out.items())


def test_what_cannot_be_built_is_refused_where_it_is_asked_for() -> None:
    with pytest.raises(PipelineError, match=r"indexes\.ivf-pq\.bits: 12 bits need 4096"):
        measure("flat", "ivf-pq", given=params(TOO_LARGE))
    assert not layout.tradeoff(LOCALE).exists()


def test_an_index_that_the_installed_faiss_lacks_leaves_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure("flat", "eden")
    monkeypatch.delattr(faiss, "IndexEDEN")
    assert sorted(measure("sq8")) == ["flat", "sq8"]
    assert "needs IndexEDEN" in read()["left_out"]["eden"]


def test_an_index_measured_by_itself_joins_those_of_the_same_vectors() -> None:
    before = measure("sq8", "flat")
    after = measure("ivf-flat")
    assert [each["index"] for each in read()["indexes"]] == ["flat", "sq8", "ivf-flat"]
    assert {name: after[name] for name in before} == before


def other_vectors() -> Params:
    rng = np.random.default_rng(99)
    write_embeddings(params(), random_vectors(rng, PRODUCTS), random_vectors(rng, QUERIES))
    return params()


def other_queries() -> Params:
    products = read_vectors(read_manifest(params(), LOCALE), "products", LOCALE)
    rng = np.random.default_rng(99)
    write_embeddings(params(), products, random_vectors(rng, QUERIES))
    return params()


def other_judgements() -> Params:
    path = layout.clean(LOCALE).judgements
    judged = tables.read_table(path, tables.JUDGEMENTS, "")
    swapped = pc.if_else(pc.equal(judged["label"], "E"), "I", judged["label"])
    place = judged.schema.get_field_index("label")
    judged = judged.set_column(place, judged.schema.field(place), swapped.cast("string"))
    tables.write_table(path, judged, tables.JUDGEMENTS)
    return params()


def more_threads() -> Params:
    return params({"runtime.threads": 3})


def rewrite(key: str, value: str) -> Params:
    """Change what the file says that it was measured on."""
    layout.tradeoff(LOCALE).write_text(json.dumps(read() | {key: value}))
    return params()


def another_cpu() -> Params:
    return rewrite("cpu_model", "Z80")


def another_faiss() -> Params:
    return rewrite("faiss_version", "1.12.0")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_vectors, "product_vectors_sha256"),
        (other_queries, "query_vectors_sha256"),
        (other_judgements, "judgements_sha256"),
        (more_threads, "threads"),
        (another_cpu, "cpu_model"),
        (another_faiss, "faiss_version"),
    ],
)
def test_figures_of_another_basis_do_not_stand_beside_new_ones(
    change: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    measure("flat", "sq8")
    given = change()
    with caplog.at_level("INFO", logger="pipeline"):
        assert sorted(measure("sq8", given=given)) == ["sq8"]
    assert f"ignoring {layout.tradeoff(LOCALE)}: " in caplog.text
    assert told in caplog.text


def test_figures_of_other_settings_are_left_aside_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    measure("flat", "ivf-flat")
    with caplog.at_level("INFO", logger="pipeline"):
        found = measure("sq8", given=params({"indexes.ivf-flat.probes": 2}))
    assert sorted(found) == ["flat", "sq8"]
    assert "indexes.ivf-flat had other settings" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "\udcff",
        lambda text: text.replace('"tradeoff_schema": 3', '"tradeoff_schema": 0'),
        lambda text: text.replace('"tradeoff_schema": 3', '"tradeoff_schema": 4'),
        lambda text: text.replace('"overlap@100": 1.0', '"overlap@100": NaN'),
        lambda text: text.replace('"overlap@100": 1.0', '"overlap@100": 1.5'),
        lambda text: text.replace('"overlap@100": 1.0,', ""),
        lambda text: text.replace('"locale": "es"', '"locale": "us"'),
    ],
)
def test_a_damaged_or_foreign_file_is_measured_anew(
    damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    measure("flat")
    path = layout.tradeoff(LOCALE)
    text = path.read_text()
    damaged = damage(text)
    assert damaged != text
    path.write_text(damaged, errors="surrogateescape")
    with caplog.at_level("INFO", logger="pipeline"):
        assert sorted(measure("sq8")) == ["sq8"]
    assert f"ignoring {path}" in caplog.text


def test_a_run_that_is_stopped_keeps_what_it_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    before = measure("hnsw")["hnsw"]
    real = tradeoff.measure

    def stopped(name: str, *rest: Any) -> Any:
        if name == "hnsw":
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setattr(tradeoff, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure()
    assert sorted(figures()) == ["flat", "hnsw", "sq8"]
    assert figures()["hnsw"] == before
    assert [each.name for each in layout.TRADEOFF.iterdir()] == [f"{LOCALE}.json"]


def test_vectors_of_other_tables_are_refused() -> None:
    write_clean(np.random.default_rng(77), PRODUCTS, QUERIES)
    with pytest.raises(PipelineError, match=r"the queries vectors are of 30 rows .*dvc repro"):
        measure()
    assert not layout.tradeoff(LOCALE).exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--index", "hnws"], "--index hnws: unknown index; .*did you mean 'hnsw'"),
        (["--locale", "de"], "--locale de: unknown locale"),
        (["--locale", "us"], r"data/embeddings/us/manifest.json is missing. Run `dvc repro embed"),
    ],
)
def test_what_it_cannot_do_is_told_in_one_message(
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr(sys, "argv", ["tradeoff", *arguments])
    assert tradeoff.main() == 1
    assert len(caplog.messages) == 1
    assert re.match(f"error in tradeoff: {told}", caplog.messages[0])


def test_a_second_run_is_refused_since_it_would_spoil_the_times_of_the_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr(sys, "argv", ["tradeoff", "--locale", LOCALE, "--index", "flat"])
    with FileLock(layout.tradeoff_lock()):
        assert tradeoff.main() == 1
    assert "`make tradeoff` is running already" in caplog.text
    assert not layout.tradeoff(LOCALE).exists()
    assert tradeoff.main() == 0
    assert layout.tradeoff(LOCALE).exists()


def test_queries_without_an_exact_product_leave_the_measure_empty() -> None:
    path = layout.clean(LOCALE).judgements
    judged = tables.read_table(path, tables.JUDGEMENTS, "")
    tables.write_table(path, judged.filter(pc.equal(judged["label"], "I")), tables.JUDGEMENTS)
    found = measure("flat")["flat"]
    assert (found["ndcg@10"], found["recall@100"]) == (None, None)


def test_the_table_has_a_row_an_index_best_overlap_first() -> None:
    measure()
    found = {
        each["index"]: Figures.model_validate_json(json.dumps(each)) for each in read()["indexes"]
    }
    rows = table(LOCALE, found, {}).splitlines()[2:]
    overlaps = [float(row.split("|")[4]) for row in rows]
    assert overlaps == sorted(overlaps, reverse=True)
    assert len(rows) == len(NAMES)
    assert rows[0].startswith("| es | flat | 1 |")
