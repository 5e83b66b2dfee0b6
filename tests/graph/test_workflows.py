"""The workflows: actions pinned by commit, least permissions, nothing but what is there."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.helpers.artefacts import ROOT
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in FILES}
WORKFLOWS: dict[str, Any] = {
    name: YAML(typ="safe", pure=True).load(text) for name, text in TEXTS.items()
}
STEPS = [
    (name, step)
    for name, workflow in WORKFLOWS.items()
    for job in workflow["jobs"].values()
    for step in job["steps"]
]
SCRIPTS = {step["id"]: step["run"] for name, step in STEPS if "id" in step}
RUNS = [(name, step["run"]) for name, step in STEPS if "run" in step]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned_by_commit_with_its_version_beside_it(name: str) -> None:
    used = re.findall(r"uses: *(.+)", TEXTS[name])
    assert len(used) == sum("uses" in step for _, step in STEPS if _ == name) > 0
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)


def test_an_action_has_one_commit_everywhere() -> None:
    used = {step["uses"] for _, step in STEPS if "uses" in step}
    assert len(used) == len({each.partition("@")[0] for each in used})


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nothing_may_be_written_but_the_comment(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        allowed = {"contents": "read"} | ({"pull-requests": "write"} if name == "metrics" else {})
        assert job.get("permissions", workflow["permissions"]) == allowed
        assert job["timeout-minutes"] <= 60
    for checkout in (step for of, step in STEPS if of == name and "checkout@" in str(step)):
        assert checkout["with"]["persist-credentials"] is False


@pytest.mark.parametrize(("name", "script"), RUNS)
def test_no_script_is_made_of_what_a_pull_request_may_name(name: str, script: str) -> None:
    assert "${{" not in script


@pytest.mark.parametrize(("name", "script"), RUNS)
def test_every_make_target_that_is_called_exists(name: str, script: str) -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", made, re.MULTILINE)
    for words in re.findall(r"^\s*make (.*)$", script, re.MULTILINE):
        assert next(word for word in words.split() if not word.startswith("-")) in targets


def test_the_dev_container_that_is_built_is_the_one_that_editors_open() -> None:
    folder = ROOT / ".devcontainer"
    opened = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    assert (folder / opened["build"]["dockerfile"]).is_file()
    scripts = [step.get("run", "") for step in WORKFLOWS["checks"]["jobs"]["container"]["steps"]]
    assert any(re.search(r"docker build .* \.devcontainer$", script) for script in scripts)
    assert any(opened["postCreateCommand"] in script for script in scripts)


@pytest.mark.parametrize(("name", "script"), RUNS)
def test_every_script_is_bash(name: str, script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_comparing_installs_the_light_package_at_pinned_versions() -> None:
    install = SCRIPTS["install"]
    assert re.search(r"pip install .*--constraint constraints\.txt \.$", install, re.MULTILINE)
    assert "run" not in install.split()[-1]


def test_the_index_gate_is_asked_right_after_the_lock_whatever_the_lock_says() -> None:
    steps = WORKFLOWS["metrics"]["jobs"]["metrics"]["steps"]
    (place,) = [i for i, step in enumerate(steps) if "lock-current" in step.get("run", "")]
    gate = steps[place + 1]
    assert {key: gate[key] for key in ("id", "if", "run")} == {
        "id": "gate",
        "if": "${{ !cancelled() && steps.install.outcome == 'success' }}",
        "run": "make --old-file=setup gate",
    }


@pytest.mark.parametrize(
    ("gate", "status", "exits"),
    [("success", 0, 0), ("success", 3, 3), ("failure", 0, 1), ("failure", 3, 1), ("skipped", 0, 1)],
)
def test_the_last_step_refuses_what_the_gate_or_the_comparison_refused(
    tmp_path: Path, gate: str, status: int, exits: int
) -> None:
    (step,) = [step for _, step in STEPS if step.get("id") == "refuse"]
    assert step["env"] == {
        "GATE": "${{ steps.gate.outcome }}", "STATUS": "${{ steps.compare.outputs.status }}",
    }  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "GATE": gate, "STATUS": str(status)}
    assert run(step["run"], tmp_path, environment) == exits


# Stands in for GitHub, which a test cannot have: it keeps one comment in a file.
GH = """\
#!/bin/sh
echo "$@" >> "$RUNNER_TEMP/calls"
case "$*" in
*--jq*) [ ! -e "$RUNNER_TEMP/kept" ] || printf '7\\n8\\n' ;;
*) for last; do :; done; cp "${last#body=@}" "$RUNNER_TEMP/kept" ;;
esac
"""


def run(script: str, folder: Path, environment: dict[str, str]) -> int:
    """Run a script as a runner does, with the environment that steps before it left."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder, env=environment, check=False,
    ).returncode  # fmt: skip


def test_a_comment_is_made_once_and_edited_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "gh").write_text(GH, encoding="utf-8")
    (tmp_path / "gh").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path),
        "GITHUB_REPOSITORY": "o/r", "NUMBER": "5",
    }  # fmt: skip
    for text in ("first", "second"):
        (tmp_path / "metrics.md").write_text(f"## {text}\n", encoding="utf-8")
        assert run(SCRIPTS["comment"], tmp_path, environment) == 0
        kept = (tmp_path / "kept").read_text(encoding="utf-8")
        assert kept == f"<!-- metrics of this pull request -->\n## {text}\n"
    calls = (tmp_path / "calls").read_text(encoding="utf-8")
    sent = re.findall(r"--method (\w+) (\S+)", calls)
    assert sent == [
        ("POST", "repos/o/r/issues/5/comments"),
        ("PATCH", "repos/o/r/issues/comments/7"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"encoder: [", b"encoder: 3\n", b"- a\n", b"", b"a: &x [*x]\n"],
    ids=["not YAML", "wrong types", "a list", "empty", "an anchor inside itself"],
)  # fmt: skip
def test_params_that_cannot_be_read_are_one_message_in_the_comment(
    tmp_path: Path, content: bytes
) -> None:
    environment = {
        **os.environ, **GIT_IDENTITY, "PATH": PATH, "PYTHONPATH": str(ROOT), "RUNNER_TEMP":
        str(tmp_path), "GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }  # fmt: skip
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    commit_all(folder, environment, "base")
    call(folder, environment, "git", "update-ref", "refs/remotes/origin/main", "HEAD")
    (folder / "params.yaml").write_bytes(content)
    commit_all(folder, environment, "unreadable params")
    assert run(SCRIPTS["compare"], folder, environment) == 0
    assert (tmp_path / "output").read_text() == "status=1\n"
    shown = (tmp_path / "metrics.md").read_text()
    assert shown.startswith("## Metrics\n\nThere is no comparison:\n\n    error in compare: ")
    assert "params.yaml" in shown
    assert "Traceback" not in shown


def test_a_message_of_any_length_fits_into_a_comment(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nyes error | head -100000 >&2\nexit 1\n")
    (tmp_path / "git").write_text("#!/bin/sh\necho base\n")
    for name in ("python", "git"):
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path),
        "GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }  # fmt: skip
    assert run(SCRIPTS["compare"], tmp_path, environment) == 0
    assert (tmp_path / "output").read_text() == "status=1\n"
    assert 1_000 < (tmp_path / "metrics.md").stat().st_size < 65_536
