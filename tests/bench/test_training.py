"""The recipes of bench.training."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from bench.training import (
    BASE,
    GUESSES,
    MADE_OF,
    MEASURES,
    METRICS,
    RECIPES,
    Difference,
    Experiment,
    chosen,
    differences,
    evaluate,
    labels,
    origin_of,
    prepare,
    table,
)  # fmt: skip
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import PARAMS_FILE, check_params
from pipeline.evaluate.uncertainty import Interval
from tests.helpers import comparisons
from tests.helpers.artefacts import ROOT
from tests.helpers.repository import commit_all

pytestmark = pytest.mark.thorough


def load(path: Any) -> dict[str, Any]:
    data: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return data


def test_every_recipe_and_experiment_is_legal_and_changes_something() -> None:
    recipes = load(RECIPES)
    data = load(ROOT / PARAMS_FILE)
    data["sample"]["splits"] = ["test"]
    data["trained"] = recipes["trained"]
    for name, experiment in chosen(recipes["experiments"], None).items():
        changed = json.loads(json.dumps(data))
        experiment.apply(changed)
        check_params(changed, name)
        assert (changed == data) == (name == BASE), name


def test_a_tuned_share_needs_no_training_of_its_own() -> None:
    recipes, data = load(RECIPES), load(ROOT / PARAMS_FILE)
    data["trained"] = recipes["trained"]
    plain = check_params(data, "").trained["us-even"]
    shares = []
    for experiment in chosen(recipes["experiments"], None).values():
        if experiment.tuned_share is not None:
            changed = json.loads(json.dumps(data))
            experiment.apply(changed)
            entry = check_params(changed, "").trained["us-even"]
            assert entry.of_training() == plain.of_training()
            shares.append(entry.of_weights().get("tuned_share"))
    assert shares == [0.5, 0.7]


def test_what_an_experiment_is_compared_with_is_run_too_and_first() -> None:
    given = {"a": {"locales": ["us"]}, "b": {"locales": ["us"], "against": "a"}}
    assert list(chosen(given, ["b"])) == [BASE, "a", "b"]


def test_an_unknown_experiment_is_refused() -> None:
    with pytest.raises(PipelineError, match="--only c: no such experiment"):
        chosen({"a": {"locales": ["us"]}}, ["c"])


def test_differences_of_one_table_are_adjusted_together() -> None:
    def of(row: str, p: float) -> Difference:
        return Difference(row, "us", MEASURES[0], 0.5, Interval(0.1, 0.05, 0.15, 9), p, 5, 3, 1)

    sure = "| a | us | 9 | 0.5000, +0.1000 [+0.0500, +0.1500]* | 5, 3, 1 |"
    assert sure in table([of("a", 0.04)], 0.05)
    assert sure not in table([of("a", 0.04), of("b", 0.5)], 0.05)


def test_the_labels_of_a_reranker_are_a_row_for_each_guess(tmp_path: Path) -> None:
    scores = {
        f"{prefix}{kind}_f1": place / 10
        for place, prefix in enumerate(GUESSES.values())
        for kind in ("macro", "micro")
    }
    path = tmp_path / "results/mine" / METRICS / "us.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"labels": scores}))
    assert list(labels(tmp_path, "mine", "us")) == [
        ["mine", "us", guess, f"{place / 10:.4f}", f"{place / 10:.4f}"]
        for place, guess in enumerate(GUESSES)
    ]


def test_an_experiment_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Experiment.model_validate({"locales": ["us"], "encoders": "x"})


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of params.yaml alone, as the working folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(ROOT / PARAMS_FILE, folder)
    monkeypatch.chdir(folder)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@localhost")
    commit_all(folder, dict(os.environ), "params")
    return folder


def test_params_that_are_not_committed_are_refused(repository: Path, tmp_path: Path) -> None:
    with (repository / PARAMS_FILE).open("a") as file:
        file.write("# changed\n")
    with pytest.raises(PipelineError, match="changes that are not committed"):
        prepare(tmp_path / "out", tmp_path, {})
    assert not (tmp_path / "out").exists()


def test_results_are_used_again_only_if_commit_source_and_params_are_the_same(
    repository: Path, tmp_path: Path
) -> None:
    source, results = tmp_path / "source", tmp_path / "results" / BASE
    for folder in (source, results):
        folder.mkdir(parents=True)
    (source / "examples.parquet").write_bytes(b"1")
    data, nothing = load(ROOT / PARAMS_FILE), Experiment(locales=())
    origin = origin_of(repository, source)
    params = data | {"trained": {}}
    (results / MADE_OF).write_text(json.dumps({**origin, "params": params}))
    evaluate(tmp_path, BASE, nothing, data, origin)
    with pytest.raises(PipelineError, match=r"is of another params\. Delete it\."):
        evaluate(tmp_path, BASE, nothing, data | {"bm25": {"k1": 2.0, "b": 0.4}}, origin)
    (source / "examples.parquet").write_bytes(b"2")
    (repository / "README.md").touch()
    commit_all(repository, dict(os.environ), "another")
    with pytest.raises(PipelineError, match=r"is of another commit, source\. Delete it\."):
        evaluate(tmp_path, BASE, nothing, data, origin_of(repository, source))


def test_the_queries_that_won_lost_and_tied_are_counted_among_those_that_have_a_value(
    tmp_path: Path,
) -> None:
    before = {measure: np.array([0.1, 0.2, 0.3, 0.4, np.nan]) for measure in MEASURES}
    after = {measure: np.array([0.2, 0.3, 0.1, 0.4, np.nan]) for measure in MEASURES}
    for name, values in ((BASE, before), ("mine", after)):
        comparisons.write_reports(tmp_path / name, "us", comparisons.table(values, "us"))
        shutil.copytree(tmp_path / name / layout.PER_QUERY, tmp_path / "results" / name)
    judged = pa.table(
        {"query_id": range(100, 105), "product_id": ["B"] * 5, "label": ["E"] * 5},
        tables.JUDGEMENTS,
    )
    path = tmp_path / "project" / layout.clean("us").judgements
    tables.write_table(path, judged, tables.JUDGEMENTS)
    mine = Experiment(locales=("us",))
    found = list(differences(tmp_path, "mine", mine, "us", 0, comparisons.DRAWS))
    assert [(each.won, each.lost, each.tied) for each in found] == [(2, 1, 1)] * len(MEASURES)
    header, _, row = table(found, 0.05).splitlines()
    assert header.count("won, lost, tied") == row.count("| 2, 1, 1 |") == 2, "of nDCG@10"


def test_numbers_of_two_samples_are_not_compared(tmp_path: Path) -> None:
    values = comparisons.measures(np.random.default_rng(1), 5)
    for name, judgements in ((BASE, "c"), ("mine", "d")):
        rows = comparisons.table(values, "us", judgements_sha256=judgements * 64)
        comparisons.write_reports(tmp_path / name, "us", rows)
        shutil.copytree(tmp_path / name / layout.PER_QUERY, tmp_path / "results" / name)
    found = differences(tmp_path, "mine", Experiment(locales=("us",)), "us", 0, comparisons.DRAWS)
    with pytest.raises(PipelineError, match=r"mine: us is of another sample than .*base"):
        next(found)
