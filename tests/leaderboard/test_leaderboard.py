"""The command, on a real Git repository with branches, a tag and experiments."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.compare import display as compare
from pipeline.compare.differences import measure_moves
from pipeline.compare.pairs import pair
from pipeline.compare.revision import Revision, find_stale
from pipeline.compare.sides import metrics
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import ENCODER_MEASURES
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.evaluate.metrics import mean
from pipeline.evaluate.per_query_reader import values
from pipeline.leaderboard import board, display
from pipeline.leaderboard.command import Held, on_one_machine, rank_revisions
from pipeline.leaderboard.recorded import read_means
from pipeline.leaderboard.speed import Speed, read_machines
from tests.helpers import comparisons
from tests.helpers.artefacts import ROOT, params
from tests.helpers.processes import run_module
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, **GIT_IDENTITY, "PATH": PATH, "PYTHONPATH": str(ROOT)}
LOCALES = ("us", "es", "jp")


def leaderboard(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    done = run_module("pipeline.leaderboard", *arguments, folder=folder, environment=ENVIRONMENT)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def write(folder: Path, locale: str, part: float, encoder: str, **sample: str) -> None:
    drawn = comparisons.measures(np.random.default_rng(ord(locale[0])), 60)
    values = {name: np.round(each * part, 5) for name, each in drawn.items()}
    comparisons.write_reports(folder, locale, comparisons.table(values, locale, encoder, **sample))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Main, a branch that is worse in es, a tag of it, and an experiment of another sample."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / ".gitignore").write_text("/reports/top/\n")
    commit_all(folder, ENVIRONMENT, "before any run")
    call(folder, ENVIRONMENT, "git", "branch", "--quiet", "--force", "older")
    for locale, encoder in zip(LOCALES, ("minilm", "e5-small-q4", "e5-small-q4"), strict=True):
        write(folder, locale, 0.9, encoder)
    commit_all(folder, ENVIRONMENT, "results")
    git = ("git", "checkout", "--quiet")
    call(folder, ENVIRONMENT, *git, "-b", "worse")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("  es: e5-small-q4", "  es: labse", 1))
    write(folder, "es", 0.5, "labse")
    commit_all(folder, ENVIRONMENT, "worse")
    call(folder, ENVIRONMENT, "git", "tag", "v1")
    write(folder, "es", 0.9, "labse", judgements_sha256="d" * 64)
    commit_all(folder, ENVIRONMENT, "another sample")
    commit = call(folder, ENVIRONMENT, "git", "rev-parse", "HEAD").strip()
    for name in ("4b/825dc642cb6eb9a060e54bf8d69288fbee4904/other-sample", "stash"):
        call(folder, ENVIRONMENT, "git", "update-ref", f"refs/exps/{name}", commit)
    call(folder, ENVIRONMENT, "git", "reset", "--quiet", "--hard", "v1")
    call(folder, ENVIRONMENT, *git, "-")
    return folder


def test_branches_tags_and_experiments_are_ranked_by_sample_and_every_form_has_the_same_numbers(
    repository: Path, tmp_path: Path
) -> None:
    paths = {kind: tmp_path / f"new/board.{kind}" for kind in ("json", "csv", "markdown")}
    options = [part for kind, path in paths.items() for part in (f"--{kind}", str(path))]
    done = leaderboard(repository, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(paths["json"].read_text())
    boards = {(each["locale"], each["sample"]["judgements_sha256"][0]): each["entries"]
              for each in found["boards"]}  # fmt: skip
    assert set(boards) == {("us", "c"), ("es", "c"), ("jp", "c"), ("es", "d")}
    dense = {each["encoder"]: each for each in boards["es", "c"] if each["system"] == "dense"}
    assert dense["e5-small-q4"]["rank"] == 1
    assert dense["labse"]["surely_worse"]
    assert dense["labse"]["revisions"] == ["worse"]
    assert boards["es", "d"][0]["revisions"] == ["other-sample"]
    assert {name for each in boards["us", "c"] for name in each["revisions"]} >= {
        "workspace", "worse", "other-sample",
    }  # fmt: skip
    assert "stash" not in paths["json"].read_text()
    assert any("older" in note for note in found["notes"])

    entries = [each for one in found["boards"] for each in one["entries"]]
    rows = list(csv.DictReader(paths["csv"].read_text().splitlines()))
    assert [row["ndcg@10"] for row in rows] == [str(each["ndcg@10"]) for each in entries]
    shown = [
        [float(each) for each in re.findall(r"(0\.\d{4})[ |]+(?:\[|&#91;)", text)]
        for text in (done.stdout, paths["markdown"].read_text())
    ]
    assert shown[0] == shown[1]
    assert shown[0] == pytest.approx([each["ndcg@10"] for each in entries], abs=6e-5)


def test_a_tag_of_a_file_is_left_out_and_said(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    call(tmp_path, ENVIRONMENT, "git", "clone", "--quiet", str(repository), str(clone))
    call(clone, ENVIRONMENT, "git", "tag", "blob", "HEAD:params.yaml")
    done = leaderboard(clone)
    assert done.returncode == 0, done.stderr
    assert "names a tree or a file, not a commit" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere is not a revision or an experiment"),
        (("older",), "has no tables in"),
        (("--measure", "ndcg@7"), "--measure ndcg@7: no revision has it"),
        (("--csv", "params.yaml"), "--csv"),
    ],
)
def test_what_cannot_be_ranked_is_one_message(
    repository: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = leaderboard(repository, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_where_there_are_many_entries_more_is_drawn_and_a_note_says_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    few = params({"uncertainty.samples": 200})
    boards, notes = rank_revisions(few, ["workspace", "worse"], "ndcg@10")
    assert {name for one in boards for each in one.placed for name in each.entry.revisions} == {
        "workspace", "worse",
    }  # fmt: skip
    pairs = max(math.comb(sum(each.p == each.p for each in one.placed) + 1, 2) for one in boards)
    draws = math.ceil(2 * pairs / few.compare.alpha)
    assert f"{draws:,} draws, since the largest table has {pairs} pairs" in notes
    assert any(placed.worse for one in boards for placed in one.placed)
    with pytest.raises(PipelineError, match=r"^--samples: 100 draws are too few"):
        rank_revisions(few, ["workspace", "worse"], "ndcg@10", 100)


def test_numbers_of_another_setting_of_the_index_are_said_and_old_metrics_say_nothing(
    tmp_path: Path,
) -> None:
    call(tmp_path, ENVIRONMENT, "git", "init", "--quiet")
    write(tmp_path, "es", 0.9, "labse")
    path = tmp_path / layout.metrics("es")
    metrics = json.loads(path.read_text())
    chosen = {"index.es": metrics["index"], "encoder.es": "labse"}
    start = f"indexes.{metrics['index']}."
    settings = chosen | {f"{start}kind": "hnsw", f"{start}ef_search": "50", f"{start}x": "null"}
    for recorded, said in (
        ({"kind": "hnsw", "ef_search": "1000"}, "ef_search must be 50 .found 1000."),
        ({"kind": "hnsw", "ef_search": "50"}, ""),
        (None, ""),
    ):
        path.write_text(json.dumps(metrics | {"index_settings": recorded}))
        revision = Revision("workspace", tmp_path)
        notes = [*find_stale(revision, revision.sides(["es"]), settings)]
        assert len(notes) == bool(said)
        assert all(re.search(said, note) for note in notes)


def test_the_leaderboard_and_a_comparison_show_the_same_digits_of_every_mean() -> None:
    drawn = comparisons.measures(np.random.default_rng(1), 60)
    undefined = np.isnan(drawn["dense.ndcg@10"])
    twice = np.where(undefined, np.nan, 0.12345)
    twice[np.flatnonzero(~undefined)[0]] -= 0.0001  # so the mean is 0.12345, rounded: 0.1235
    side = comparisons.side(drawn | {"dense.ndcg@10": twice})
    columns = metrics(side.table)
    pairs = [pair("es", column, side.table, side.table) for column in columns]
    moves = measure_moves(pairs, 0.5, 0.0, comparisons.DRAWS, queries=0)
    compared = {move.metric: compare.cells(move)[2] for move in moves}
    of_record: dict[str, dict[str, float]] = {}
    for column in columns:
        system, _, name = column.partition(".")
        of_record.setdefault(system, {})[name] = round(mean(values(side.table, column)), 5)
    recorded = read_means(side, json.dumps(of_record).encode(), None)
    assert (f"{recorded['dense.ndcg@10']:.4f}", compared["dense.ndcg@10"]) == ("0.1235", "0.1234")
    entries = board.entries_of("now", {"es": side}, {}, {}, {"es": recorded})
    for measure in {column.partition(".")[2] for column in columns}:
        boards = board.rank_entries(entries, measure, comparisons.DRAWS, 0.5)
        page = display.markdown(display.Shown(boards, [], measure, 0.95))
        ranked = shown_means(page, measure)
        for column in (each for each in columns if each.partition(".")[2] == measure):
            assert ranked[column.partition(".")[0]] == compared[column], column


def shown_means(page: str, measure: str) -> dict[str, str]:
    """Return the cell of a measure for each system of a leaderboard in Markdown."""
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    return {row[header.index("system")]: row[header.index(measure)] for row in rows}


def measured(name: str, cpu: str, faiss: str, **figures: float) -> Held:
    """Return a revision whose us was measured on a CPU, with a version of FAISS."""
    bench = {"machine": {"cpu_model": "EPYC", "cores": 2, "versions": {"openvino": "2026.4"}}}
    tradeoff = {"cpu_model": cpu, "faiss_version": faiss, "tradeoff_schema": 2}
    machines = read_machines(*(json.dumps(each).encode() for each in (bench, tradeoff)))
    # By its name, it is of another sample or not.
    products = 8 if name.startswith("other sample") else 9
    side = comparisons.side({"dense.ndcg@10": np.linspace(0, 1, 20)}, "us", products=products)
    return Held(name, {"us": side}, {}, {"us": Speed(**figures)}, {"us": machines}, {})


def test_a_column_of_times_is_of_one_machine_and_sizes_are_of_any() -> None:
    times = {"tokens_per_second": 1.0, "p50_milliseconds": 2.0}
    size = {"bytes_per_vector": 3.0}
    held = [
        measured("without figures", "Xeon", "1.14", **size),
        measured("first", "EPYC", "1.15", **times, **size),
        measured("like it", "EPYC", "1.15", **times),
        measured("other CPU", "Xeon", "1.15", **times, **size),
        measured("also that", "Xeon", "1.15", **times),
        measured("other FAISS", "EPYC", "1.16", p50_milliseconds=4.0),
        measured("other sample, so another table", "Xeon", "1.16", **times),
    ]
    kept, notes = on_one_machine(held)
    assert [each.speeds["us"] for each in kept] == [
        Speed(**size), Speed(**times, **size), Speed(**times),
        Speed(tokens_per_second=1.0, **size), Speed(tokens_per_second=1.0), Speed(), Speed(**times),
    ]  # fmt: skip
    of_first = "but that of other rows on EPYC, FAISS 1.15, tradeoff_schema 2"
    assert notes == [
        "p50 ms of other CPU, also that is left out: measured on Xeon, FAISS 1.15, "
        f"tradeoff_schema 2, {of_first}",
        "p50 ms of other FAISS is left out: measured on EPYC, FAISS 1.16, "
        f"tradeoff_schema 2, {of_first}",
    ]


def test_the_terminal_shows_notes_and_settings_whole_and_without_what_steers_it() -> None:
    side = comparisons.side({"dense.ndcg@10": np.linspace(0, 1, 20)})
    settings = {"retrieve.separator": "s" * 99}
    boards = board.rank_entries(
        board.entries_of("now", {"es": side}, settings, {}, {}), "ndcg@10", comparisons.DRAWS, 0.5
    )
    shown = display.terminal(display.Shown(boards, ["n" * 99 + "\x1b[31m"], "ndcg@10", 0.95))
    assert f"retrieve.separator={'s' * 99}" in shown
    assert f"{'n' * 99} [31m\n" in shown


@pytest.mark.parametrize("locale", LOCALES)
def test_the_means_are_those_of_the_metrics_files(locale: str) -> None:
    given = params()
    (side,) = Revision("now", ROOT).sides([locale]).values()
    files_of = [(ROOT / of(locale)).read_bytes() for of in (layout.metrics, layout.encoder_scores)]
    found = read_means(side, *files_of)
    metrics, encoder = map(json.loads, files_of)
    for system in FIRST_SYSTEMS:
        for name in given.evaluate.per_query():
            assert found[f"{system}.{name}"] == metrics[system][name]
    for name in ENCODER_MEASURES:
        assert found[f"encoder.{name}"] == encoder["measures"][name]["value"]


def test_a_number_of_record_that_is_not_of_the_table_is_left_out() -> None:
    values = np.array([0.12345, 0.5, 0.33333])  # of which the mean is 0.318927
    side = comparisons.side({"dense.ndcg@10": values, "hybrid.ndcg@10": values})
    record = b'{"dense": {"ndcg@10": %s}, "bm25": {"ndcg@10": 0.3}}'
    assert read_means(side, record % b"0.31892", None) == {"dense.ndcg@10": 0.31892}
    far = b"9" * 400
    for said in (b"0.3189", b'"0.31893"', b"null", b"NaN", b"Infinity", far, b"{}"):
        assert read_means(side, record % said, b"[]") == {}
    entries = board.entries_of("a", {"es": side}, {}, {}, {"es": {"dense.ndcg@10": 0.31892}})
    boards = board.rank_entries(entries, "ndcg@10", params().uncertainty, 0.05)
    (found,) = display.as_json(display.Shown(boards, [], "ndcg@10", 0.95))["boards"]
    written = {each["system"]: each["ndcg@10"] for each in found["entries"]}
    assert written == {"dense": 0.31892, "hybrid": 0.31893}
