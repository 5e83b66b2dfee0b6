"""dvc.yaml keeps its promises: folders that stages import from, no speed setting, no stray path."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.fault_lab import OUTPUTS
from pipeline.core import layout
from pipeline.core.systems import SYSTEMS
from pipeline.report.plots import PLOTS
from pipeline.repro.command import shared_and_branch
from pipeline.train.stage import CODE
from tests.helpers.artefacts import ROOT
from tests.helpers.imports import import_closure
from tests.helpers.pages import blocks_of
from tests.helpers.repository import GIT_IDENTITY, call, commit_all


def stages_of(path: Path) -> dict[str, dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = YAML(typ="safe", pure=True).load(ROOT / path)["stages"]
    return stages


GRAPH, MODELS = stages_of(layout.GRAPH), stages_of(layout.MODELS_GRAPH)
STAGES: dict[str, dict[str, Any]] = {name: body.get("do", body) for name, body in GRAPH.items()}
BY_NAME: dict[str, dict[str, Any]] = {name: body["do"] for name, body in MODELS.items()}
ALL = STAGES | BY_NAME
EXPLORED = [name for name, body in GRAPH.items() if body.get("foreach") == "${explore}"]


def written_by(stages: dict[str, dict[str, Any]]) -> set[str]:
    return {
        str(next(iter(out)) if isinstance(out, dict) else out)
        for stage in stages.values()
        for key in ("outs", "metrics", "plots")
        for out in stage.get(key, [])
    }


def folder_of(name: str) -> str:
    """Return the folder of a stage: two stages that loop over different maps may share one."""
    return name.partition("-")[0]


def test_the_stages_that_are_killed_and_damaged_on_purpose_are_those_of_the_graph() -> None:
    assert list(OUTPUTS) == [name for name in STAGES if name not in EXPLORED]


def test_no_stage_is_in_both_files() -> None:
    assert not STAGES.keys() & BY_NAME.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_stage_depends_on_exactly_the_folders_that_its_imports_reach(name: str) -> None:
    code = [path for path in ALL[name]["deps"] if path.startswith("pipeline/")]
    closure = import_closure(Path("pipeline") / folder_of(name) / "__main__.py")
    reached = {listed for listed in code for path in closure if path.is_relative_to(listed)}
    assert set(code) == reached, "a listed folder that no import reaches"
    assert not [path for path in closure if not any(path.is_relative_to(one) for one in code)]
    assert len(code) == len(set(code))


@pytest.mark.parametrize("name", ALL)
def test_a_stage_is_a_folder_named_after_it(name: str) -> None:
    folder = folder_of(name)
    assert ALL[name]["cmd"] in (
        f"python -m pipeline.{folder}",
        f"python -m pipeline.{folder} --locale ${{key}}",
        f"python -m pipeline.{folder} --locale ${{item}}",  # of those under `explore`
        f"python -m pipeline.{folder} --name ${{key}}",
    )
    assert ("--name" in ALL[name]["cmd"]) == (name in BY_NAME)
    assert ALL[name]["desc"]
    assert (ROOT / "pipeline" / folder / "stage.py").is_file()


@pytest.mark.parametrize("name", ALL)
def test_no_stage_depends_on_what_only_changes_speed(name: str) -> None:
    assert not [each for each in ALL[name]["params"] if each.split(".")[0] == "runtime"]


def test_a_training_that_was_done_is_reused_with_the_code_that_its_stage_depends_on() -> None:
    code = [path for path in BY_NAME["train"]["deps"] if path.startswith("pipeline/")]
    assert [f"pipeline/{name}" for name in CODE] == code


def test_stages_stand_in_the_order_in_which_they_run_and_branches_do_not_meet() -> None:
    shared, branch = shared_and_branch({"stages": GRAPH})
    assert shared == ["demo", "sample"]
    written: list[str] = []
    for name, stage in STAGES.items():
        outs = [
            str(next(iter(out)) if isinstance(out, dict) else out)
            for key in ("outs", "metrics", "plots")
            for out in stage.get(key, [])
        ]
        if name in (*branch, *EXPLORED):  # each locale reads and writes what is its own
            locale = "${item}" if name in EXPLORED else "${key}"
            assert all(locale in out for out in outs)
            read = [
                one
                for one in stage["deps"]
                if not one.startswith(
                    ("pipeline/", f"{layout.MODELS}/encoder/", f"{layout.MODELS}/reranker/")
                )
                and one != str(layout.GIVEN_RUNS)  # see the comment in dvc.yaml
            ]
            assert all(locale in one for one in read)
            for one in (each.replace("${item}", "${key}") for each in read):
                one = one.replace("${reranking.run}", "hybrid")
                made = [out for out in written if f"{one}/".startswith(f"{out}/")]
                assert len(made) == 1
        written += [out.replace("${item}", "${key}") for out in outs]


def test_what_a_stage_writes_is_where_layout_says() -> None:
    written = {out.replace("${item}", "${key}") for out in written_by(STAGES)}
    key = "${key}"
    assert written == {
        str(path)
        for path in (
            layout.DEMO, layout.SAMPLE, layout.clean(key).folder, layout.embeddings(key).folder,
            layout.index_entry(key).build, layout.index_entry(key).search, layout.index(key).folder,
            *(layout.runs(system, key).folder for system in SYSTEMS),
            layout.other_runs(key).folder,
            layout.per_query(key), layout.metrics(key), layout.key_metrics(key),
            layout.intervals(key), layout.slices(key), layout.similar_key_metrics(key),
            layout.top(key), layout.exact(key), layout.kinds(key),
            layout.recall_curve(key), layout.training_plot(key),
            layout.encoder_scores(key), layout.encoder_values(key), layout.similar(key).folder,
            layout.similar_report(key), layout.duplicates(key).folder,
            layout.duplicates_report(key), layout.clusters(key).folder, layout.clusters_report(key),
            layout.catalogue(key), layout.PAGE, layout.REPORT, layout.SUMMARY,
            *map(layout.plot, PLOTS),
        )
    }  # fmt: skip


def test_a_model_has_one_folder_by_its_name_whichever_stage_makes_it() -> None:
    key = "${key}"
    assert written_by(BY_NAME) == {
        str(layout.model("encoder", key).folder),
        str(layout.model("reranker", key).folder),
        str(layout.pairs(key).folder),
        str(layout.model("${item.kind}", key).folder),
    }
    assert str(layout.model("encoder", "${item}").folder) in STAGES["embed"]["deps"]
    assert str(layout.model("reranker", "${item}").folder) in STAGES["rerank"]["deps"]
    assert str(layout.model("encoder", "${item.base}").folder) in BY_NAME["train"]["deps"]
    assert str(layout.model("reranker", "${item.teacher}").folder) in BY_NAME["train"]["deps"]
    assert {each["wdir"] for each in BY_NAME.values()} == {".."}
    # The entry itself is in that folder, so that an entry and a trained model are one to a locale.
    assert not [each for each in STAGES["embed"]["params"] if each.startswith("encoders.")]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/comparing.md"])
def test_the_way_back_leaves_git_clean_after_any_explored_locale_or_model_and_keeps_own_files(
    page: str, tmp_path: Path
) -> None:
    environment = {**os.environ, **GIT_IDENTITY}
    for name in (".gitignore", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    commit_all(tmp_path, environment, "before")
    (tmp_path / "params.yaml").write_text("explore: [us]\n")
    own = ["models/mine/model.safetensors", "notes.txt", "reports/bench/own.json", "reports/own.md"]
    added = [
        re.sub(r"\$\{.*?\}", "new", out.replace("${item.kind}", "encoder"))
        for out in written_by({name: STAGES[name] for name in EXPLORED} | BY_NAME)
    ]
    for name in (*own, *(each if Path(each).suffix else f"{each}/contract.json" for each in added)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (block,) = (each for each in blocks_of(Path(page)) if "git clean" in each.code)
    *of_git, last = block.code.splitlines()
    assert last == "dvc checkout --force"

    call(tmp_path, environment, "bash", "-e", "-c", "\n".join(of_git))

    status = call(tmp_path, environment, "git", "status", "--short", "--untracked-files=all")
    assert status.splitlines() == [f"?? {name}" for name in own]


def test_only_the_clean_texts_of_a_locale_depend_on_its_spelling() -> None:
    both = STAGES | BY_NAME
    asked = {
        name: [each for each in stage.get("params", []) if "spelling" in each]
        for name, stage in both.items()
    }
    assert {name: found for name, found in asked.items() if found} == {"clean": ["spelling.${key}"]}


def test_each_plot_is_of_the_table_that_report_writes() -> None:
    plots = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["plots"]
    definitions = {name: body for plot in plots for name, body in plot.items()}
    assert list(definitions) == list(PLOTS)
    for name, body in definitions.items():
        assert list(body["y"]) == [str(layout.plot(name))]
        assert {body["x"], *body["y"].values()} <= set(PLOTS[name].columns)
        assert (ROOT / ".dvc" / "plots" / f"{body['template']}.json").is_file()
