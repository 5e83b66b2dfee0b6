"""dvc.yaml keeps its promises: every module a stage imports, no speed setting, no stray path."""

import ast
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import layout
from pipeline.repro import shared_and_branch
from pipeline.search.runs import SYSTEMS
from tests.artefacts import ROOT

STAGES: dict[str, dict[str, Any]] = {
    name: body.get("do", body)
    for name, body in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"].items()
}


def _imports(path: Path) -> set[Path]:
    """Return the files of `pipeline` that a file imports, in one step."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
            module = Path(*str(node.module).split("."))
            for alias in node.names:
                for candidate in (
                    module / f"{alias.name}.py",
                    module / alias.name / "__init__.py",
                    module.with_suffix(".py"),
                ):
                    if (ROOT / candidate).is_file():
                        found.add(candidate)
                        break
            packages = [package / "__init__.py" for package in (module, *module.parents)]
            found |= {each for each in packages if (ROOT / each).is_file()}
    return found - {Path("__init__.py"), Path("pipeline/__init__.py")}


def import_closure(path: Path) -> set[str]:
    """Return every file of `pipeline` that running a module reads, itself included."""
    closure: set[Path] = set()
    waiting = {path}
    while waiting:
        closure |= waiting
        waiting = {each for one in waiting for each in _imports(one)} - closure
    return {str(one) for one in closure}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_modules_it_imports(name: str) -> None:
    module = Path(STAGES[name]["cmd"].split()[2].replace(".", "/") + ".py")
    code = {path for path in STAGES[name]["deps"] if path.startswith("pipeline/")}
    folders = {path for path in code if (ROOT / path).is_dir()}  # words, page templates
    assert folders <= {"pipeline/generator/wording", "pipeline/page/assets"}
    assert code - folders == import_closure(module)
    assert len(STAGES[name]["deps"]) == len(set(STAGES[name]["deps"]))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_one_module_named_after_it(name: str) -> None:
    assert STAGES[name]["cmd"] in (
        f"python -m pipeline.{name}",
        f"python -m pipeline.{name} --locale ${{key}}",
    )
    assert STAGES[name]["desc"]


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_depends_on_what_only_changes_speed(name: str) -> None:
    assert not [each for each in STAGES[name]["params"] if each.split(".")[0] == "runtime"]


def test_stages_stand_in_the_order_in_which_they_run_and_branches_do_not_meet() -> None:
    graph = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
    shared, branch = shared_and_branch(graph)
    assert shared == ["demo", "sample"]
    written: list[str] = []
    for name, stage in STAGES.items():
        outs = [
            str(next(iter(out)) if isinstance(out, dict) else out)
            for key in ("outs", "metrics", "plots")
            for out in stage.get(key, [])
        ]
        if name in branch:  # each locale reads and writes what is its own
            assert all("${key}" in out for out in outs)
            read = [one for one in stage["deps"] if not one.startswith("pipeline/")]
            assert all("${key}" in one for one in read)
            for one in read:
                made = [out for out in written if f"{one}/".startswith(f"{out}/")]
                assert len(made) == 1
        written += outs


def test_what_a_stage_writes_is_where_layout_says() -> None:
    written = {
        str(next(iter(out)) if isinstance(out, dict) else out)
        for stage in STAGES.values()
        for key in ("outs", "metrics", "plots")
        for out in stage.get(key, [])
    }
    key = "${key}"
    assert written == {
        str(path)
        for path in (
            layout.DEMO, layout.SAMPLE, layout.clean(key), layout.embeddings(key),
            layout.index(key), *(layout.runs(system, key) for system in SYSTEMS),
            layout.per_query(key), layout.metrics(key), layout.intervals(key), layout.slices(key),
            layout.top(key), layout.recall_curve(key), layout.labels_plot(key),
            layout.intervals_plot(key), layout.slices_plot(key), layout.PAGE, layout.REPORT,
            layout.SUMMARY,
        )
    }  # fmt: skip
