"""Another engine's run gets the numbers of `pipeline.score`, and no others."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from pipeline import trec, workspace
from pipeline.compare.sides import Side
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.evaluate import stage as evaluate
from pipeline.evaluate import system_scores
from pipeline.evaluate.per_query_reader import read_per_query
from pipeline.leaderboard import board
from pipeline.runs.inputs import read_inputs
from pipeline.score import evaluate as score
from pipeline.systems.read import read_run
from pipeline.systems.stage import systems
from pipeline.workspace import Workspace
from tests.helpers.artefacts import LOCALE, params, write_clean, write_runs, write_sources

SHALLOW = {"evaluate.recall": [10, 50, 100], "retrieve.depth": 150, "uncertainty.samples": 400}
VESPA = Path("data/systems/vespa.trec")
COPY = Path("data/systems/copy.trec")


def named(**systems_of: str) -> Params:
    return params({**SHALLOW, f"systems.{LOCALE}": systems_of})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with runs, the run of another engine, and a copy of our own bm25."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        rng = np.random.default_rng(5)
        write_clean(rng, 300, 60)
        write_sources({})
        write_runs(rng, 150)
        trec.export(named(), LOCALE, Path("exported"))
        VESPA.parent.mkdir(parents=True)
        Path(f"exported/{LOCALE}.bm25.catalogue.run").rename(COPY)
        VESPA.write_text(foreign(rng))
    return project


def foreign(rng: np.random.Generator) -> str:
    """Return a run with ties, scores less than 1e-6 apart, queries without results, deep ones."""
    inputs = read_inputs(LOCALE)
    lines = []
    for row, query in enumerate(inputs.queries.to_pylist()):
        judged = inputs.pair_products[inputs.pair_queries == row]
        found = 0 if row in (3, 17) else int(rng.integers(20, 200))
        codes = np.union1d(rng.choice(len(inputs.products), found, replace=False), judged[::2])
        for place, code in enumerate(rng.permutation(codes if found else [])):
            number = rng.integers(0, 60) * 1e-8
            product = inputs.products[int(code)].as_py()
            lines.append(f"{query} Q0 {product} {place + 1} {number:.10g} vespa")
    return "\n".join(lines) + "\n"


def read_foreign() -> pd.DataFrame:
    names = ["query_id", "iteration", "product_id", "rank", "score", "tag"]
    return pd.read_csv(VESPA, sep=" ", header=None, names=names)


def workspace_of(given: Params) -> Workspace:
    YAML().dump(given.model_dump(mode="json"), layout.PARAMS)
    return workspace.open(LOCALE)


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.fixture(scope="module")
def evaluated(made: Path) -> Path:
    """The project after the stages: its numbers are only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        given = named(vespa=str(VESPA), copy=str(COPY))
        systems(given, LOCALE)
        evaluate.evaluate(given, LOCALE)
    return made


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_its_numbers_are_those_of_the_command_score_to_the_last_digit(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evaluated)
    run = read_foreign()
    run["score"] = run["score"].astype(np.float32)
    run = run.sort_values(["score", "product_id"], ascending=False).groupby("query_id").head(150)
    found = score(
        run, layout.clean(LOCALE).judgements, cutoffs={"recall": [10, 50, 100]}, samples=400
    )
    given, judged = named(vespa=str(VESPA)), system_scores.read_judged(LOCALE)
    ours, _ = system_scores.score("vespa", LOCALE, judged, given.evaluate, 150)
    assert set(ours.measures) == set(found.per_query.column_names) - {"query_id"}
    for name, values in ours.measures.items():
        theirs = found.per_query[name].to_numpy(zero_copy_only=False)
        np.testing.assert_array_equal(values, theirs, name)
    reported, intervals = read(layout.metrics(LOCALE)), read(layout.intervals(LOCALE))
    assert len(reported["vespa"]) > 14
    for name in reported["vespa"]:
        assert reported["vespa"][name] == round(found.means[name].mean, 5), name
    for name, each in intervals["vespa"].items():
        mean, low, high, queries = found.means[name]
        rounded = [round(mean, 5), round(low, 5), round(high, 5), queries]
        assert [each[key] for key in ("mean", "low", "high", "queries")] == rounded, name


def test_our_own_run_named_as_a_system_has_our_own_row_except_for_the_pool(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evaluated)
    for path in (layout.metrics(LOCALE), layout.intervals(LOCALE)):
        found = read(path)
        own = {name: of for name, of in found["bm25"].items() if not name.startswith("pool_")}
        assert found["copy"] == own
        assert "pool_ndcg" in found["bm25"]
    slices = read(layout.slices(LOCALE))
    assert slices["top10"]["copy"] == slices["top10"]["bm25"]
    assert all(each["systems"]["copy"] == each["systems"]["bm25"] for each in slices["slices"])
    rows = pq.read_table(layout.per_query(LOCALE))
    for name in rows.column_names:
        if name.startswith("copy."):
            assert rows[name].equals(rows[name.replace("copy.", "bm25.")])
    assert not [name for name in rows.column_names if re.match(r"(copy|vespa)\.pool", name)]
    top = pq.read_table(layout.top(LOCALE)).to_pandas().drop(columns="title")
    of = {name: each.drop(columns="system") for name, each in top.groupby("system")}
    pd.testing.assert_frame_equal(
        of["copy"].reset_index(drop=True), of["bm25"].reset_index(drop=True)
    )


def test_the_reports_of_the_own_systems_are_the_same_with_and_without_others(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evaluated)
    paths = (layout.metrics(LOCALE), layout.intervals(LOCALE), layout.slices(LOCALE))
    tables = (layout.per_query(LOCALE), layout.exact(LOCALE), layout.top(LOCALE))
    changed = {path: path.read_bytes() for path in (*paths, *tables, layout.key_metrics(LOCALE))}
    both = [read(path) for path in paths]
    key, rows, exact, top = read(layout.key_metrics(LOCALE)), *map(pq.read_table, tables)
    evaluate.evaluate(named(), LOCALE)
    alone = [read(path) for path in paths]
    assert both[0].keys() - alone[0].keys() == {"systems", "vespa", "copy"}
    for each in (key, *both[:2], both[2]["top10"], *_of(both[2])):
        for name in ("systems", "vespa", "copy"):
            each.pop(name, None)
    assert both == alone
    assert key == read(layout.key_metrics(LOCALE))
    own = [each for each in rows.column_names if not each.startswith(("vespa.", "copy."))]
    assert rows.select(own).equals(pq.read_table(tables[0]))
    assert exact.drop_columns(["vespa", "copy"]).equals(pq.read_table(tables[1]))
    own_top = top.filter(pc.invert(pc.is_in(top["system"], pa.array(["vespa", "copy"]))))
    assert own_top.equals(pq.read_table(tables[2]))
    for path, data in changed.items():
        path.write_bytes(data)


def _of(slices: Any) -> list[dict[str, Any]]:
    return [each["systems"] for each in slices["slices"]]


def test_what_was_left_out_or_missing_is_counted(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evaluated)
    counts = read(layout.other_runs(LOCALE).card)["runs"]["vespa"]
    sizes = read_foreign().groupby("query_id").size()
    assert counts["results"] == sizes.clip(upper=150).sum()
    assert counts["results_cut"] == (sizes - 150).clip(lower=0).sum() > 0
    assert counts["queries_without_results"] == 60 - len(sizes) == 2
    assert counts["depth"] == 150
    assert counts["results_tied"] > 0
    assert counts["queries_against_rank"] == len(sizes)
    assert read(layout.metrics(LOCALE))["systems"]["vespa"] == counts
    key = read(layout.key_metrics(LOCALE))
    assert key["vespa"].keys() == key["bm25"].keys()


def test_a_path_in_another_spelling_is_the_same_file() -> None:
    every = ("./data/systems/v.trec", "data//systems/v.trec", "data/systems/v.trec/")
    for path in every:
        assert named(vespa=path).systems[LOCALE] == {"vespa": "data/systems/v.trec"}


def test_a_run_of_another_file_than_params_yaml_names_is_neither_exported_nor_shown(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(evaluated)
    moved = named(vespa=str(COPY), copy=str(COPY))
    with pytest.raises(PipelineError, match="of other files than params"):
        trec.export(moved, LOCALE, tmp_path)
    with pytest.raises(PipelineError, match="of other files than params"):
        workspace_of(moved).run("vespa")
    assert not list(tmp_path.iterdir())
    given = named(vespa=str(VESPA), copy=str(COPY))
    assert len(workspace_of(given).run("vespa"))


def test_a_run_that_was_exchanged_for_one_of_another_file_is_not_evaluated(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evaluated)
    given = named(vespa=str(VESPA), copy=str(COPY))
    path = layout.runs("vespa", LOCALE).card
    before = path.read_text()
    path.write_text(json.dumps(read(path) | {"of": {"path": str(VESPA), "sha256": "0" * 64}}))
    with pytest.raises(PipelineError, match=r"vespa/run\.json: .*of another file than the counts"):
        evaluate.evaluate(given, LOCALE)
    path.write_text(before)


def test_ranks_below_the_depth_do_not_count_as_against_the_scores(project: Path) -> None:
    inputs, number = read_inputs(LOCALE), 200
    ranks = np.arange(1, number + 1)
    ranks[[160, 161]] = ranks[[161, 160]]
    columns = {
        "query_id": [inputs.queries[0].as_py()] * number,
        "product_id": inputs.products.to_pylist()[:number],
        "rank": ranks, "score": np.arange(number, 0.0, -1),
    }  # fmt: skip
    path = Path("data/systems/deep.parquet")
    pq.write_table(pa.table(columns), path)
    found = [
        read_run(path, "x", inputs, depth, layout.clean(LOCALE)).counts for depth in (150, 170)
    ]
    assert [each.queries_against_rank for each in found] == [0, 1]


def test_trec_files_of_another_engine_are_of_the_catalogue_alone(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(evaluated)
    given = named(vespa=str(VESPA), copy=str(COPY))
    trec.export(given, LOCALE, tmp_path)
    lines = (tmp_path / f"{LOCALE}.copy.catalogue.run").read_text()
    assert lines == (tmp_path / f"{LOCALE}.bm25.catalogue.run").read_text().replace("bm25", "copy")
    assert not (tmp_path / f"{LOCALE}.copy.pool.run").exists()
    measures = (tmp_path / f"{LOCALE}.measures.csv").read_text().splitlines()
    assert not [line for line in measures if line.startswith("copy,pool")]
    assert [line for line in measures if line.startswith("bm25,pool")]


def test_a_leaderboard_gives_another_engine_neither_encoder_nor_index(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evaluated)
    path = layout.per_query(LOCALE)
    table, card = read_per_query(path.read_bytes(), str(path), LOCALE, "")
    setting = f"systems.{LOCALE}.vespa"
    own = {setting: "x", f"{setting}.sha256": "0123456789ab"}
    others = {f"{setting}-8": "y", f"spelling.{LOCALE}-mx": "corrected", "bm25.k1": "1"}
    entries = board.entries_of("now", {LOCALE: Side(table, card)}, {**own, **others}, {}, {})
    (entry,) = [each for each in entries if each.system == "vespa"]
    assert (entry.encoder, entry.index, dict(entry.settings)) == ("", "", own)
    assert "pool_ndcg" not in entry.measures


def frame(**changes: Any) -> pa.Table:
    """Return a run of three results with some columns changed, or left out where None."""
    inputs = read_inputs(LOCALE)
    query, products = inputs.queries[0].as_py(), inputs.products.to_pylist()[:3]
    columns = {"query_id": [query] * 3, "product_id": products, "score": [3.0, 2.0, 1.0]} | changes
    return pa.table({name: column for name, column in columns.items() if column is not None})


BAD: Mapping[str, tuple[Callable[[], pa.Table | str], str]] = {
    "unknown query": (
        lambda: frame(query_id=[-7, -7, -8]),
        r"row 0 .* query_id '-7' is not in .*\(2 such ids",
    ),
    "unknown product": (
        lambda: frame(product_id=["nope", *frame()["product_id"].to_pylist()[1:]]),
        "row 0 .* product_id 'nope' is not in data/clean/es/products.parquet",
    ),
    "twice": (
        lambda: frame(product_id=frame()["product_id"].to_pylist()[:1] * 3),
        r"row 1 .* twice \(2 such rows",
    ),
    "NaN": (lambda: frame(score=[1.0, float("nan"), 0.0]), "row 1 .* score must be a finite"),
    "null": (lambda: frame(score=[1.0, None, 0.0]), "row 1 .* score is missing"),
    "infinite": (lambda: frame(score=[1.0, float("inf"), 0.0]), "must be a finite number"),
    "too large": (lambda: frame(score=[1e300, 1.0, 0.0]), "too large for 32 bits"),
    "text": (lambda: frame(score=["a", "b", "c"]), "score must be numbers"),
    "no score": (lambda: frame(score=None), "must be a column score or rank"),
    "no product": (lambda: frame(product_id=None), "must be one column product_id"),
    "rank too large": (
        lambda: frame(score=None, rank=[1e39, 1.0, 2.0]),
        r"row 0 .* rank 1e\+39 is too large for 32 bits",
    ),
    "ranks equal in 32 bits": (
        lambda: frame(score=None, rank=[16777216, 16777217, 1]),
        "has rank 1.67772e.07 twice",
    ),
    "rank twice": (lambda: frame(score=None, rank=[1, 1, 2]), "has rank 1 twice"),
    "empty": (lambda: frame().slice(0, 0), "has no rows"),
    "empty file": (lambda: "", "has no rows"),
    "five columns": (lambda: "1 Q0 B1 1 0.5\n", "line 1 has 5 columns"),
    "not parquet": (lambda: b"PAR1".decode(), "line 1 has 1 columns"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_run_that_cannot_be_right_is_refused_with_its_place(project: Path, name: str) -> None:
    make, message = BAD[name]
    content = make()
    path = Path("data/systems/bad.parquet" if isinstance(content, pa.Table) else "data/systems/bad")
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_text(content)
    before = sorted(layout.other_runs(LOCALE).folder.rglob("*"))
    with pytest.raises(PipelineError, match=f"(?s)^{path}.*{message}"):
        systems(named(bad=str(path)), LOCALE)
    assert sorted(layout.other_runs(LOCALE).folder.rglob("*")) == before


def test_a_run_that_is_missing_a_folder_or_elsewhere_is_refused(
    project: Path, tmp_path: Path
) -> None:
    link = Path("data/systems/link")
    link.unlink(missing_ok=True)
    (tmp_path / "run").write_text(VESPA.read_text())
    link.symlink_to(tmp_path / "run")
    Path("data/systems/folder").mkdir(exist_ok=True)
    for path, message in (
        ("data/systems/none.trec", "none.trec is missing"),
        ("data/systems/folder", "not a regular file"),
        (str(link), r"systems\.es\.bad: data/systems/link leads out of data/systems"),
    ):
        with pytest.raises(PipelineError, match=message):
            systems(named(bad=path), LOCALE)


def test_a_run_that_dvc_links_to_its_cache_is_read(project: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache/files/md5/ab/0123456789abcdef0123456789abcd"
    cached.parent.mkdir(parents=True)
    shutil.copy(VESPA, cached)
    link = Path("data/systems/linked.trec")
    link.symlink_to(cached)
    systems(named(bad=str(link)), LOCALE)


def test_ranks_order_a_run_without_scores(project: Path) -> None:
    path = Path("data/systems/ranks.parquet")
    pq.write_table(frame(score=None, rank=[3, 1, 2]), path)
    systems(named(ranks=str(path)), LOCALE)
    run = pq.read_table(layout.runs("ranks", LOCALE).catalogue)
    assert run["product_id"].to_pylist() == [frame()["product_id"][at].as_py() for at in (1, 2, 0)]
    assert run["score"].to_pylist() == [-1.0, -2.0, -3.0]


def test_what_is_no_longer_named_is_gone_and_evaluate_refuses_what_is_not_taken(
    project: Path,
) -> None:
    given = named(vespa=str(VESPA))
    systems(named(copy=str(COPY)), LOCALE)
    for asked in (given, named(copy=str(VESPA))):
        with pytest.raises(PipelineError, match="of other files than params"):
            evaluate.evaluate(asked, LOCALE)
    systems(given, LOCALE)
    assert {path.name for path in layout.other_runs(LOCALE).folder.iterdir()} == {
        "systems.json", "vespa",
    }  # fmt: skip
    again = sorted(layout.other_runs(LOCALE).folder.rglob("*.*"))
    first = [path.read_bytes() for path in again]
    systems(given, LOCALE)
    assert [path.read_bytes() for path in again] == first
    systems(named(), LOCALE)
    assert [path.name for path in layout.other_runs(LOCALE).folder.iterdir()] == ["systems.json"]


@pytest.mark.parametrize("track", ["catalogue", "pool"])
@pytest.mark.parametrize(("system", "again"), [("dense", "retrieve"), ("vespa", "systems")])
def test_the_message_of_a_damaged_run_names_its_file_and_the_stage_that_writes_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    system: str, again: str, track: str,
) -> None:  # fmt: skip
    shutil.copytree(made / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    given = named(vespa=str(VESPA))
    systems(given, LOCALE)
    path = layout.runs(system, LOCALE).track(track)
    whole = path.read_bytes()
    places = range(0, len(whole), max(1, len(whole) // 5))
    cut = [whole[:at] for at in (*places, len(whole) - 1)]
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
    for damaged in (*cut, *flipped):
        path.write_bytes(damaged)
        with pytest.raises(
            PipelineError,
            match=rf"^{path}: sha256 must be .*\. Run `dvc repro {again}@{LOCALE}`\.$",
        ):
            evaluate.evaluate(given, LOCALE)


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("bm25", "data/systems/a", r"systems\.es\.bm25: the reports use this name already"),
        ("queries", "data/systems/a", "the reports use this name already"),
        ("vespa", "/tmp/a", "must be a file in data/systems"),  # noqa: S108
        ("vespa", "data/systems/../a", "must be a file in data/systems"),
        ("vespa", "data/systems", "must be a file in data/systems"),
        ("vespa", "data/systems/", "must be a file in data/systems"),
        ("vespa", "runs/a.trec", "must be a file in data/systems"),
        ("Vespa", "data/systems/a", r"systems\.es\.Vespa"),
        ("a.b", "data/systems/a", r"systems\.es"),
        ("8", "data/systems/a", r"systems\.es\.8: must begin with a letter"),
        ("8b", "data/systems/a", r"systems\.es\.8b: must begin with a letter"),
    ],
)
def test_a_name_or_place_that_cannot_be_is_found_before_any_work(
    name: str, path: str, message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        params({f"systems.{LOCALE}": {name: path}})


def test_compare_may_name_an_engine_that_every_locale_has() -> None:
    every = {f"systems.{locale}": {"vespa-8": "data/systems/a"} for locale in ("us", "es", "jp")}
    params({**every, "compare.metrics": ["vespa-8.ndcg@10"]})
    for changes in ({**every, "systems.jp": {}}, {}):
        with pytest.raises(PipelineError, match=r"8\.ndcg@10' is not kept query by query"):
            params({**changes, "compare.metrics": ["vespa-8.ndcg@10"]})
    with pytest.raises(PipelineError, match="another engine has no measure of the pool"):
        params({**every, "compare.metrics": ["vespa-8.pool_ndcg"]})
