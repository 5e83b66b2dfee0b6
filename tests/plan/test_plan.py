"""The cost sheet: sizes as the stages then find them, costs that follow records, what is said."""

import json
import os
import shutil
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.fault_lab import LOCALE, OUTPUTS, Workshop
from pipeline.clean.stage import clean
from pipeline.core import layout
from pipeline.core import timings as rates
from pipeline.core.errors import PipelineError
from pipeline.core.params import FEWEST_ON_CLUSTER, Params
from pipeline.core.params_file import load_params
from pipeline.core.timings import Record
from pipeline.embed.fill import SideEncoder
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.embed.sides import read_sides
from pipeline.pairs.stage import pairs
from pipeline.plan import command as plan
from pipeline.plan import sheet, sizes
from pipeline.plan.costs import MOST_TIMES, Row, default_cost, fit
from pipeline.plan.costs import row as costs_row
from pipeline.plan.encoding import ASSUMED_DIMENSION
from pipeline.plan.training import training_rows
from pipeline.sample.stage import sample
from tests.conftest import RunStage
from tests.helpers import artefacts
from tests.helpers.esci_files import random_source, write_source

ESCI = os.environ.get("ESCI_DIR")

THREADS = 1
"""As the workshop's."""

SIZES = {"rows", "products", "counted", "queries", "judgements", "encoded", "characters", "tokens"}
SETTINGS = {"lists", "probes", "bits", "m", "rescore", "subvectors"}
VECTORS = {"products": 5_000, "queries": 300, "dimension": 64}
SEARCHED = {"products": 5_000, "queries": 300, "depth": 100}
UNITS: dict[tuple[str, str | None], dict[str, int]] = {
    ("demo", None): {"products": 5_000, "queries": 300},
    ("sample", None): {"rows": 90_000, "products": 5_000, "queries": 300, "judgements": 6_000},
    ("clean", None): {"products": 5_000, "queries": 300, "judgements": 6_000, "threads": 2},
    ("pairs", None): {"rows": 90_000, "products": 5_000, "judgements": 6_000},
    ("train", "minilm"): {"tokens": 900_000, "threads": 2},
    ("embed", None): {**VECTORS, "encoded": 700, "characters": 700_000},
    ("index", "flat"): VECTORS,
    ("index", "sq8"): VECTORS,
    ("index", "hnsw"): {**VECTORS, "m": 32, "ef_construction": 200, "ef_search": 1_000},
    ("index", "ivf-flat"): {**VECTORS, "lists": 64, "probes": 8},
    ("index", "ivf-flat-ray"): {**VECTORS, "lists": 64, "probes": 8},
    ("index", "ivf-pq"): {**VECTORS, "lists": 64, "probes": 8, "subvectors": 16, "bits": 8},
    ("index", "rabitq"): {**VECTORS, "bits": 2, "rescore": 4},
    ("index", "eden"): {**VECTORS, "bits": 2},
    ("index", "pq-fastscan"): {**VECTORS, "subvectors": 16, "rescore": 4},
    ("index", "ivf-pq-fastscan"): {
        **VECTORS,
        "lists": 64,
        "probes": 8,
        "subvectors": 16,
        "rescore": 4,
    },
    ("bm25", "snowball-es"): {**SEARCHED, "counted": 5_000, "threads": 2, "workers": 2},
    ("bm25", "sudachi-bigrams"): {**SEARCHED, "counted": 5_000, "threads": 2},
    ("hybrid", None): SEARCHED,
    ("systems", None): {**SEARCHED, "engines": 2},
    ("evaluate", None): SEARCHED,
    ("encoder_scores", None): {**VECTORS, "judgements": 6_000},
    ("similar", "flat"): {"products": 5_000, "dimension": 64, "neighbours": 20},
    ("duplicates", None): {"products": 5_000, "neighbours": 20},
    ("clusters", None): {"products": 5_000, "dimension": 64},
    ("catalogue", None): {"products": 5_000},
    ("report", None): {"locales": 3, "queries": 900},
}
UNITS |= {
    ("retrieve", kind): {**units, "depth": 100}
    for (stage, kind), units in UNITS.items()
    if stage == "index" and kind != "ivf-flat-ray"
}


@pytest.fixture
def shop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The workshop, as the working folder and with its cache."""
    monkeypatch.chdir(workshop.folder)
    monkeypatch.setenv("PIPELINE_CACHE", str(workshop.cache))
    return workshop


def record(
    stage: str, kind: str | None, units: dict[str, int], seconds: float,
    locale: str | None = None, threads: int = THREADS,
) -> Record:  # fmt: skip
    """Return a run."""
    return Record(
        stage=stage, locale=locale, kind=kind, units=units, threads=threads, seconds=seconds,
        peak_bytes=1, ended=time.time(),
    )  # fmt: skip


def counted(shop: Workshop) -> Params:
    """Return params whose source is the workshop's demo by another name, so that it is counted."""
    params = load_params()
    sample = params.sample.model_copy(update={"source": str(shop.folder / layout.DEMO)})
    return params.model_copy(update={"sample": sample})


@pytest.mark.slow  # all stages run
def test_the_planned_units_are_at_least_those_that_every_stage_then_counts(shop: Workshop) -> None:
    shop.forget_kept()
    planned = {row.stage: row.units for row in sheet.rows(counted(shop), [])}
    unplanned = "demo", "index_entry", "rerank"
    assert list(planned) == [name for name in OUTPUTS if name not in unplanned]
    planned = {row.stage: row.units for row in sheet.rows(load_params(), [])[:1]} | planned
    for name in OUTPUTS:
        assert shop.run(name).status == 0
    found = {one.last.stage: one.last.units for one in rates.read_records()[0]}
    assert planned.keys() == found.keys()
    # The store knows how wide the model's vectors are once it has some.
    width = sheet.rows(load_params(), [])[3].units["dimension"]
    for name, units in planned.items():
        assert units.keys() == found[name].keys()
        # After `clean`, rows without text are gone; and equal texts are encoded once.
        room = 1 if name in ("demo", "sample", "clean") else 1.2
        for unit, count in units.items():
            if unit == "dimension":
                assert (count, found[name][unit]) == (ASSUMED_DIMENSION, width)
                continue
            most = (2 if unit == "characters" else room) * found[name][unit]
            assert found[name][unit] <= count <= most


@pytest.mark.parametrize("seed", range(4))
def test_what_would_be_drawn_is_what_sample_draws(
    shop: Workshop, tmp_path: Path, seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    monkeypatch.chdir(tmp_path)
    params = artefacts.params({
        "sample.source": str(shop.folder / layout.DEMO),
        "sample.version": str(rng.choice(["small", "large", "all"])),
        "sample.splits": [["train"], ["test"], ["train", "test"]][int(rng.integers(3))],
        "sample.queries": "all" if seed == 0 else int(rng.integers(1, 24)),
        "sample.distractors": "all" if seed == 1 else int(rng.integers(0, 90)),
        "sample.seed": seed,
    })  # fmt: skip
    foreseen = sizes.measure(params)[1]
    sample(params)
    for locale in params.locales:
        counts = json.loads(layout.sample(locale).counts.read_text())
        size = foreseen[locale]
        found = {name: counts[name] for name in ("products", "queries", "judgements")}
        assert found == {name: getattr(size, name) for name in found}


@pytest.mark.parametrize("seed", range(3))
def test_what_would_be_learned_is_what_pairs_reads(project: Path, seed: int) -> None:
    examples, products = random_source(seed, queries=90)
    write_source(project / "source", examples, products)
    name = "minilm-demo"
    params = artefacts.params({
        "sample.source": "source", "training.source": "source", "training.dev_share": 0.3,
        "training.version": ["small", "large", "all"][seed % 3], "encoder.es": name,
        "training.queries": "all" if seed else 60, f"trained.{name}.locales": ["us", "jp"],
        f"trained.{name}.hard_negatives": seed, f"trained.{name}.negatives": ["I"] if seed else [],
    })  # fmt: skip
    planned = list(training_rows(params, partial(costs_row, [])))
    assert [(row.stage, row.locale, row.kind) for row in planned] == [
        ("pairs", name, None), ("train", name, "minilm"),
    ]  # fmt: skip
    sample(params)
    for locale in params.locales:
        clean(params, locale)
    counted = pairs(params, name).units
    assert planned[0].units["rows"] == counted["rows"]
    assert planned[0].units["judgements"] == counted["judgements"]
    assert planned[0].units["products"] >= counted["products"]
    learned = Counter(row["esci_label"] for row in examples if row["split"] == "train")
    assert planned[1].units["tokens"] <= 2 * learned.total() * (8 + 64 * (1 + seed))
    assert not list(training_rows(artefacts.params({}), partial(costs_row, [])))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_cap_of_positives_counts_for_each_query(project: Path, most: int) -> None:
    examples, products = random_source(4, queries=90)
    write_source(project / "source", examples, products)
    name = "minilm-demo"

    def tokens(most: int | None) -> int:
        params = artefacts.params({
            "sample.source": "source", "training.source": "source", "training.version": "all",
            "training.dev_share": 0.25, "training.queries": "all", "encoder.us": name,
            f"trained.{name}.epochs": 4, f"trained.{name}.negatives": [],
            f"trained.{name}.max_tokens": 16, f"trained.{name}.positives_per_query": most,
        })  # fmt: skip
        return int(list(training_rows(params, partial(costs_row, [])))[1].units["tokens"])

    positives = Counter(
        row["query_id"] for row in examples
        if (row["split"], row["product_locale"], row["esci_label"]) == ("train", "us", "E")
    )  # fmt: skip
    assert len(set(positives.values())) > 1
    left_out = sum(max(0, count - most) for count in positives.values())
    step = 4 * 0.75 * (8 + 16)  # epochs, the share that is not dev, a query and its positive
    assert tokens(None) - tokens(most) == pytest.approx(left_out * step, abs=1)
    assert tokens(999) == tokens(None)


def test_a_source_to_learn_from_without_products_is_refused_as_by_pairs(project: Path) -> None:
    examples, products = random_source(0, queries=90)
    write_source(project / "source", examples, products)
    table = project / "source" / layout.PRODUCTS_FILE
    pq.write_table(pq.read_table(table).slice(0, 0), table)
    params = artefacts.params({"training.source": "source", "encoder.es": "minilm-demo"})
    with pytest.raises(PipelineError, match=r"products\.parquet has no rows\. Write it"):
        list(training_rows(params, partial(costs_row, [])))


def test_a_teacher_reads_the_pairs_that_are_learned_and_none_of_dev() -> None:
    name = "minilm-demo"
    settings = {"encoder.us": name, f"trained.{name}.negatives": ["I"], "training.dev_share": 0.25,
                f"trained.{name}.hard_negatives": 1, f"trained.{name}.loss": "triplet"}  # fmt: skip
    taught = settings | {
        f"trained.{name}.loss": "distill-kl-div", f"trained.{name}.teacher": "msmarco-minilm",
        "rerankers.msmarco-minilm.max_tokens": 12,
    }  # fmt: skip
    (drawn, alone), (_, with_teacher) = (
        training_rows(artefacts.params(each), partial(costs_row, [])) for each in (settings, taught)
    )
    assert (alone.kind, with_teacher.kind) == ("minilm", "minilm-msmarco-minilm")
    more = with_teacher.units["tokens"] - alone.units["tokens"]
    assert more == pytest.approx(drawn.units["judgements"] * 0.75 * 12 / 3, abs=1)


def test_settings_of_a_training_change_what_it_is_expected_to_take() -> None:
    def tokens(**changes: Any) -> float:
        entry = {f"trained.minilm-demo.{key}": value for key, value in changes.items()}
        params = artefacts.params({"encoder.us": "minilm-demo", **entry})
        _, trained = training_rows(params, partial(costs_row, []))
        return trained.units["tokens"]

    assert tokens(tuned_share=0.5) > tokens(tuned_share=1.0) == tokens()  # measured once more
    fewer = [tokens(positives_per_query=most) for most in (1, 2, 999)]
    assert fewer[0] < fewer[1] < fewer[2] == tokens()


def test_a_demo_that_is_not_made_yet_is_known_by_its_params(
    project: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    done = run_stage("plan")
    assert done.returncode == 0, done.stderr
    rows = json.loads((project / ".cache/rates/plan.json").read_text())["rows"]
    assert rows[0]["stage"] == "demo"
    assert rows[0]["units"] == {"products": 1_800, "queries": 450}
    clean = [row for row in rows if row["stage"] == "clean"]
    assert [row["locale"] for row in clean] == ["us", "es", "jp"]
    assert {row["known"] for row in rows} == {"default rate"}
    assert done.stdout.splitlines()[0] == (
        "Sizes: those of the demo in params.yaml. Costs: 0 of 27 rows measured here, others by "
        "default."
    )
    # Nothing was drawn, fetched or encoded.
    assert [path for path in sorted(project.rglob("*")) if path.is_file()] == [
        project / ".cache/rates/plan.json", project / "params.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize("stage_and_kind", UNITS, ids=str)
def test_a_cost_never_falls_when_a_size_grows(stage_and_kind: tuple[str, str | None]) -> None:
    rng = np.random.default_rng(1)
    units = UNITS[stage_and_kind]
    for _ in range(30):
        grown = {name: int(value * rng.uniform(0.01, 300)) + 1 for name, value in units.items()}
        grown |= {name: units[name] for name in units.keys() & SETTINGS}
        before = default_cost(*stage_and_kind, grown)
        # With more threads, these take less.
        fixed = {"threads"} if stage_and_kind[0] in ("train", "bm25") else set()
        for name in units.keys() - SETTINGS - fixed:
            more = {**grown, name: grown[name] * 2}
            after = default_cost(*stage_and_kind, more)
            assert after.work_seconds >= before.work_seconds > 0
            assert after.work_bytes >= before.work_bytes > 0
            assert after.disk_bytes >= before.disk_bytes > 0


def test_the_memory_of_clean_grows_with_the_threads_up_to_that_of_all_products() -> None:
    def peak(products: int, threads: int) -> float:
        units = UNITS["clean", None] | {"products": products, "threads": threads}
        return default_cost("clean", None, units).work_bytes

    assert peak(1_000_000, 2) < peak(1_000_000, 3) < peak(1_000_000, 16)
    assert peak(30_000, 2) == peak(30_000, 16)


def cost(stage: str, locale: str | None, kind: str | None, units: dict[str, int],
         records: list[Record]) -> Row:  # fmt: skip
    return costs_row(records, stage, locale, units, kind)


def seconds(stage: str, kind: str | None, units: dict[str, int], *records: Record,
            locale: str | None = None) -> float:  # fmt: skip
    return cost(stage, locale, kind, units, list(records)).seconds


def grow(units: dict[str, int], times: float) -> dict[str, int]:
    """Return units of more work, the settings as they are."""
    return {name: int(value * times) if name in SIZES else value for name, value in units.items()}


@pytest.mark.parametrize("stage_and_kind", UNITS, ids=str)
def test_a_stage_takes_as_long_again_as_its_largest_run(
    stage_and_kind: tuple[str, str | None],
) -> None:
    for times in (1, 50):
        units = grow(UNITS[stage_and_kind], times)
        took = 3 * seconds(*stage_and_kind, units) + 2
        run = record(*stage_and_kind, units, took)
        assert seconds(*stage_and_kind, units, run) == pytest.approx(took)
        assert cost(stage_and_kind[0], None, stage_and_kind[1], units, [run]).known.startswith(
            "measured here"
        )
    of_another = [record("other", None, units, 9.0), record(stage_and_kind[0], "other", units, 9.0)]
    older = record(*stage_and_kind, {"lost": 3}, 9.0)
    alone = cost(stage_and_kind[0], None, stage_and_kind[1], units, [*of_another, older])
    assert alone == cost(stage_and_kind[0], None, stage_and_kind[1], units, [])
    assert alone.known == "default rate"


@pytest.mark.parametrize("stage_and_kind", UNITS, ids=str)
def test_a_slow_run_of_next_to_nothing_says_nothing_about_a_rate(
    stage_and_kind: tuple[str, str | None],
) -> None:
    tiny = record(*stage_and_kind, grow(UNITS[stage_and_kind], 1 / 150), 5.0)
    for times in (0.1, 1, 50, 300):
        units = grow(UNITS[stage_and_kind], times)
        default = seconds(*stage_and_kind, units)
        assert seconds(*stage_and_kind, units, tiny) < 2 * default + 5


def test_a_rate_is_that_of_the_largest_run_however_slow_the_others_were() -> None:
    units = grow(UNITS["clean", None], 400)
    work = default_cost("clean", None, units).work_seconds
    large = record("clean", None, units, 2 * work, "us")
    small = record("clean", None, grow(units, 1 / 300), 30.0, "us")
    for given in ((large, small), (small, large)):
        assert seconds("clean", None, grow(units, 3), *given) == pytest.approx(6 * work, rel=0.1)


def test_what_is_more_than_twenty_times_the_largest_run_is_called_a_guess() -> None:
    units = UNITS["clean", None]
    run = record("clean", None, units, 2.0)
    for times, guess in ((1, False), (MOST_TIMES - 1, False), (MOST_TIMES + 1, True)):
        known = cost("clean", None, None, grow(units, times), [run]).known
        assert known.startswith("guess: ") == guess
        assert "measured here on 5,000 products" in known
    assert cost("clean", None, None, units, []).known == "default rate"
    huge = {**units, "products": 9_000_000}
    assert cost("clean", None, None, huge, []).known == "guess: default rate"


def test_a_start_and_a_rate_make_up_what_was_measured() -> None:
    for start, work, measured in ((0.3, 0.001, 5.0), (0.3, 2.0, 5.0), (0.3, 90.0, 300.0)):
        found, rate = fit(start, work, measured, 1.0)
        assert found + rate * work == pytest.approx(measured)
        assert rate >= 1
    assert fit(0.3, 0.001, 5.0, 1.0)[1] == pytest.approx(1, abs=0.01)
    assert fit(0.3, 900.0, 300.0, 1.0)[1] == pytest.approx(1 / 3, rel=0.01)


def test_a_rate_of_encoding_is_scaled_to_the_threads(shop: Workshop) -> None:
    shop.forget_kept()
    assert shop.run("embed").status == 0
    params = load_params()
    both: list[float] = []
    for threads in (1, 2):
        runtime = params.runtime.model_copy(update={"threads": threads})
        now = params.model_copy(update={"runtime": runtime})
        encoder = LocaleEncoder(now, LOCALE, convert=False)
        seconds = SideEncoder(encoder, read_sides(LOCALE)[0]).seconds(1_000)
        assert seconds
        both.append(seconds)
        row = next(row for row in sheet.rows(now, []) if row.stage == "embed")
        assert ("rate measured here, scaled from 1 thread" in row.known) == (threads == 2)
    assert both[0] == pytest.approx(2 * both[1])


def test_a_locales_own_run_counts_before_a_larger_one_of_another_while_it_is_large_enough() -> None:
    units = grow(UNITS["clean", None], 100)
    own, other = (record("clean", None, units, took, locale)
                  for took, locale in ((20.0, "es"), (90.0, "us")))  # fmt: skip
    assert seconds("clean", None, units, other, own, locale="es") == pytest.approx(20)
    assert seconds("clean", None, units, other, own, locale="us") == pytest.approx(90)
    small = record("clean", None, grow(units, 1 / 50), 1.0, "es")
    found = cost("clean", "es", None, units, [small, other])
    assert found.known == "measured here of us on 500,000 products"


def test_memory_is_never_less_than_by_the_table() -> None:
    units = UNITS["clean", None]
    default = default_cost("clean", None, units)
    for peak, expected in ((1, 1), (10 * (default.start_bytes + default.work_bytes), 10)):
        run = record("clean", None, units, 2.0).model_copy(update={"peak_bytes": int(peak)})
        found = cost("clean", None, None, units, [run])
        assert found.peak_bytes == pytest.approx(
            expected * (default.start_bytes + default.work_bytes)
        )


def test_a_sheet_follows_the_records_of_this_machine(shop: Workshop) -> None:
    before = {row.stage: row for row in sheet.rows(load_params(), [])}
    kept = [record(row.stage, row.kind, row.units, 7.0, row.locale) for row in before.values()]
    after = {row.stage: row for row in sheet.rows(load_params(), kept)}
    for name, row in after.items():
        if name != "embed":
            assert row.seconds == pytest.approx(7.0)
            assert row.known.startswith("measured here")
    assert sheet.total(list(after.values())).seconds > 7 * (len(after) - 1)


def test_an_index_that_a_cluster_fills_has_rates_of_its_own(shop: Workshop) -> None:
    given = load_params()
    flat = next(name for name, one in given.indexes.items() if one.kind == "ivf-flat")
    given = given.model_copy(update={"index": {LOCALE: flat}})
    ray = given.runtime.model_copy(update={"executor": "ray"})
    on_cluster = given.model_copy(update={"runtime": ray})
    of_index = [row for row in sheet.rows(given, []) if row.stage == "index"]
    kept = [record(row.stage, row.kind, row.units, 9.0, row.locale) for row in of_index]
    for params, known in ((given, "measured here"), (on_cluster, "default rate")):
        (row,) = (row for row in sheet.rows(params, kept) if row.stage == "index")
        assert row.known.startswith(known)
    assert on_cluster.index_way(LOCALE) == "ivf-flat-ray"


def test_a_search_by_a_cluster_has_rates_of_its_own_from_those_of_one_machine() -> None:
    ways = {"flat": "flat-ray", "sq8": "sq8-ray", "hnsw": "hnsw"}
    for kind, way in ways.items():
        given = {"index.es": kind, "runtime.executor": "ray"}
        there = artefacts.params({**given, "runtime.ray_address": "auto"})
        assert there.search_way("es", FEWEST_ON_CLUSTER) == way
        assert there.search_way("es", FEWEST_ON_CLUSTER - 1) == kind
        assert artefacts.params(given).search_way("es", FEWEST_ON_CLUSTER) == kind
        units = UNITS["retrieve", kind]
        here, theirs = (default_cost("retrieve", one, units) for one in (kind, way))
        assert theirs.work_seconds == here.work_seconds
        # The best products of each query, and those of a range.
        held = 28 * units["queries"] * 200 if kind != way else 0
        assert theirs.work_bytes == here.work_bytes + held


def test_half_as_wide_shards_take_half_the_room(shop: Workshop) -> None:
    both = []
    for dtype in ("float32", "float16"):
        params = load_params()
        params = params.model_copy(
            update={"embed": params.embed.model_copy(update={"dtype": dtype})}
        )
        (row,) = (row for row in sheet.rows(params, []) if row.stage == "embed")
        both.append(row)
    vectors = both[0].units["products"] + both[0].units["queries"]
    assert both[0].disk_bytes - both[1].disk_bytes == 2 * both[0].units["dimension"] * vectors


@pytest.mark.skipif(not ESCI, reason="ESCI_DIR names no real ESCI sample")
def test_real_data_are_counted_and_cost_what_the_records_say(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    assert ESCI
    params = artefacts.params(
        {"sample.source": str(Path(ESCI).absolute()), "sample.version": "all",
         "sample.splits": ["train", "test"]}
    )  # fmt: skip
    first = [row for row in sheet.rows(params, []) if row.stage != "embed"]
    kept = [record(row.stage, row.kind, row.units, 5.0, row.locale) for row in first]
    again = [row for row in sheet.rows(params, kept) if row.stage != "embed"]
    assert [row.units for row in again] == [row.units for row in first]
    assert {round(row.seconds, 6) for row in again} == {5.0}
    sample(params)
    (sampled,) = (row for row in first if row.stage == "sample")
    written = sum(each.stat().st_size for each in layout.SAMPLE.rglob("*.parquet"))
    assert written / 3 < sampled.disk_bytes < written * 3


def test_an_unknown_source_is_one_message(run_stage: RunStage, project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("source: data/demo", "source: nowhere"))
    done = run_stage("plan")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "nowhere/shopping_queries_dataset_examples.parquet is missing" in line


def test_the_stages_of_explored_locales_are_planned(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    params = counted(shop).model_copy(update={"explore": (LOCALE,)})
    rows = {row.stage: row for row in sheet.rows(params, []) if row.locale == LOCALE}
    assert list(rows)[-4:] == ["similar", "duplicates", "clusters", "catalogue"]
    for stage in ("similar", "duplicates", "clusters", "catalogue"):
        assert set(rows[stage].units) == set(UNITS[stage, "flat" if stage == "similar" else None])
        assert rows[stage].units["products"] == rows["clean"].units["products"]


@pytest.mark.parametrize("damage", ["{", '{"last": {}, "largest": null}'])
def test_a_damaged_record_gives_the_default_rate_and_a_warning(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], damage: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    layout.stage_rates().mkdir(parents=True)
    path = layout.stage_rates() / f"clean@{LOCALE}.json"
    path.write_text(damage)
    monkeypatch.setattr("sys.argv", ["plan"])
    assert plan.main() == 0
    printed = capsys.readouterr()
    assert f"warning: {path}: damaged" in printed.err
    (clean,) = (line for line in printed.out.splitlines() if line.startswith("clean"))
    assert "default rate" in clean


def test_what_will_not_fit_is_said_with_the_way_out(shop: Workshop) -> None:
    rows = list(sheet.rows(load_params(), []))
    assert list(sheet.warnings(load_params(), rows)) == []
    huge = [
        row.model_copy(update={"peak_bytes": 1e15, "disk_bytes": 1e18})
        if row.stage == "index" else row
        for row in rows
    ]  # fmt: skip
    memory, disk = sheet.warnings(load_params(), huge)
    params = load_params()
    tight = params.runtime.model_copy(update={"memory_limit": 0.001})
    found = list(sheet.warnings(params.model_copy(update={"runtime": tight}), rows))
    assert len(found) == len(rows)
    assert all("runtime.memory_limit is 0.0 GB" in each for each in found)
    assert "index of es needs 1000000.0 GB of memory" in memory
    assert "ivf-pq" in memory
    assert "are free" in disk
    assert "dvc gc" in disk


def test_a_plan_is_held_to_the_runs_that_came_after_it(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["plan", *arguments])
        status = plan.main()
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    layout.last_plan().unlink(missing_ok=True)
    status, _, message = planned("--against-last-run")
    assert (status, "make plan repro costs" in message) == (1, True)
    assert planned()[0] == 0
    status, _, message = planned("--against-last-run")
    assert (status, "no stage of the plan" in message) == (1, True)
    for name in ("clean", "bm25"):
        assert shop.run(name).status == 0
    status, printed, _ = planned("--against-last-run")
    assert status == 0
    ran = [line.split()[0] for line in printed.splitlines()[1:]]
    assert ran == ["clean", "bm25", "total"]
    assert "2 of 12 rows ran since" in printed
    assert layout.COSTS.read_text().count("\n") == 5
    layout.last_plan().write_text("{}")
    assert planned("--against-last-run")[0] == 1
    shutil.rmtree(layout.COSTS.parent)


def test_units_that_came_out_otherwise_are_shown_beside_those_planned(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["plan"])
    assert plan.main() == 0
    rows = sheet.rows(load_params(), [])
    (row,) = (row for row in rows if row.stage == "bm25")
    rates.write_record(record("bm25", row.kind, {**row.units, "products": 7}, 2.0, LOCALE))
    monkeypatch.setattr("sys.argv", ["plan", "--against-last-run"])
    assert plan.main() == 0
    assert "(then: 7 products" in capsys.readouterr().out


def test_a_smaller_run_does_not_take_the_place_of_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    large, small, again = (
        record("clean", None, {"products": products}, 5.0, "es").model_copy(
            update={"ended": float(ended)}
        )
        for ended, products in enumerate((10, 3, 10))
    )
    for run in (large, small):
        rates.write_record(run)
    (kept,), damaged = rates.read_records()
    assert (kept.last, kept.largest, damaged) == (small, large, "")
    rates.write_record(again)
    assert rates.read_records()[0][0].largest == again
