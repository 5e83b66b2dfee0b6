"""The command, on a real Git repository with branches, a tag and experiments."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import files, layout
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.per_query_reader import read_per_query
from tests.helpers import comparisons
from tests.helpers.artefacts import ROOT
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


def test_branches_tags_and_experiments_are_ranked_by_sample_and_equal_ones_are_one(
    repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "board.json"
    done = leaderboard(repository, "--json", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
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
    assert "stash" not in out.read_text()
    assert any("older" in note for note in found["notes"])


def test_every_form_has_the_same_numbers(repository: Path, tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"board.{kind}" for kind in ("json", "csv", "markdown")}
    options = [part for kind, path in paths.items() for part in (f"--{kind}", str(path))]
    done = leaderboard(repository, "workspace", "worse", *options)
    assert done.returncode == 0, done.stderr
    entries = [
        each
        for board in json.loads(paths["json"].read_text())["boards"]
        for each in board["entries"]
    ]
    rows = list(csv.DictReader(paths["csv"].read_text().splitlines()))
    assert [row["ndcg@10"] for row in rows] == [str(each["ndcg@10"]) for each in entries]
    for text in (done.stdout, paths["markdown"].read_text()):
        assert all(f"{each['ndcg@10']:.4f}" in text for each in entries)


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


@pytest.mark.parametrize("locale", LOCALES)
def test_the_means_are_those_of_the_metrics_files(locale: str) -> None:
    path = ROOT / layout.per_query(locale)
    table, _ = read_per_query(path.read_bytes(), "", locale, "")
    metrics = files.read_json(ROOT / layout.metrics(locale), "")
    for name in ("ndcg@10", "mrr@10", "recall@100"):
        for system in ("dense", "bm25", "hybrid"):
            mean = np.nanmean(table[f"{system}.{name}"].to_numpy().astype(float))
            assert abs(mean - metrics[system][name]) <= 10**-MEAN_DECIMALS
