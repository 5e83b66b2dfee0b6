"""What is shown of experiments: DVC's numbers and settings, by short names."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.experiments import table
from tests.helpers.artefacts import ROOT
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all


def commit(name: str, metrics: dict[str, Any], encoder: str) -> dict[str, Any]:
    """Return a commit, or a revision of an experiment, as `dvc exp show --json` has it."""
    found = {str(layout.key_metrics(locale)): {"data": each} for locale, each in metrics.items()}
    params = {"params.yaml": {"data": {"encoder": {"es": encoder}, "alpha": 0.05}}}
    return {"rev": "3bcba2b" * 5, "name": name, "data": {"metrics": found, "params": params}}


def experiment(name: str, ndcg: float, state: str = "success") -> dict[str, Any]:
    revs = [commit("", {"es": {"dense": {"ndcg@10": ndcg}}}, "minilm")]
    return {"revs": revs, "name": name, "executor": {"state": state}}


def test_a_metric_has_its_locale_in_the_form_of_before_too_and_what_all_share_is_left_out() -> None:
    before = commit("main", {"es": {"es": {"dense": {"ndcg@10": 0.6}}}}, "labse")
    now = commit("", {"es": {"dense": {"ndcg@10": 0.6}}, "pt-br": {"queries": 3}}, "labse")
    workspace = now | {"rev": "workspace"}
    found = [
        workspace,
        before | {"experiments": [experiment("a", 0.5), experiment("b", 0.75, "running")]},
    ]
    assert table(found).splitlines() == [
        "experiment  state    es.dense.ndcg@10  pt-br.queries  encoder.es",
        "workspace            0.6               3              labse",
        "main                 0.6                              labse",
        "a                    0.5                              minilm",
        "b           running  0.75                             minilm",
    ]
    order = [line.split()[0] for line in table(found, "es.dense.ndcg@10").splitlines()]
    assert order == ["experiment", "workspace", "main", "b", "a"]
    with pytest.raises(PipelineError) as refused:
        table(found, "es.queris")
    assert str(refused.value) == (
        "--sort-by es.queris: the table has no such column (it has: experiment, state, "
        "es.dense.ndcg@10, pt-br.queries, encoder.es; did you mean 'pt-br.queries'?). "
        "Name one of these."
    )


@pytest.mark.parametrize("damaged", [[1, 2], "text", 5])
def test_a_revision_with_a_file_of_another_shape_is_shown_as_unreadable(damaged: Any) -> None:
    whole = commit("main", {"es": {"dense": {"ndcg@10": 0.6}}}, "labse")
    other = commit("old", {"es": {"dense": {"ndcg@10": 0.5}}}, "labse")
    for kind in ("metrics", "params"):
        held = other["data"][kind] | {f"{kind}.json": {"data": damaged}}
        shown = table([whole, other | {"data": other["data"] | {kind: held}}])
        assert [line.split() for line in shown.splitlines()[1:]] == [
            ["main", "0.6", "0.05", "labse"], ["old", "unreadable"],
        ]  # fmt: skip


def test_names_and_values_reach_the_terminal_without_control_characters() -> None:
    found = commit("main", {"es": {"a\x1b[31m": "b\x1b[0m"}}, "minilm")
    assert "\x1b" not in table([found, commit("old", {}, "labse")])


@pytest.mark.dvc
@pytest.mark.slow
def test_what_only_one_locale_has_is_named_by_it_and_other_forms_are_refused(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, **GIT_IDENTITY, "PATH": PATH, "PYTHONPATH": str(ROOT)}
    listed = {"metrics": [str(layout.key_metrics(locale)) for locale in ("es", "us")]}
    (tmp_path / "dvc.yaml").write_text(json.dumps(listed))
    (tmp_path / "params.yaml").write_text("encoder: {es: minilm, us: minilm}\n")
    folder = tmp_path / layout.KEY_METRICS
    folder.mkdir(parents=True)
    for locale, systems in (("es", ("dense", "vespa")), ("us", ("dense",))):
        numbers = {system: {"ndcg@10": 0.5} for system in systems}
        (folder / f"{locale}.json").write_text(json.dumps(numbers))
    call(tmp_path, environment, "git", "init", "--quiet")
    call(tmp_path, environment, "dvc", "init", "--quiet")
    commit_all(tmp_path, environment, "first")
    numbers["dense"]["ndcg@10"] = 0.25
    (folder / "us.json").write_text(json.dumps(numbers))
    (folder / "es.json").write_text(json.dumps({"vespa": {"ndcg@10": 0.75}}))
    command = ("python", "-m", "pipeline.experiments")
    header, *rows = call(tmp_path, environment, *command).splitlines()
    names = ["es.dense.ndcg@10", "es.vespa.ndcg@10", "us.dense.ndcg@10"]
    assert header.split() == ["experiment", *names]
    assert rows[0].split() == ["workspace", "0.75", "0.25"]
    assert rows[1].split()[1:] == ["0.5", "0.5", "0.5"]
    for option in ("--json", "--md", "--csv"):
        assert "unrecognized arguments" in call(tmp_path, environment, *command, option, status=2)
