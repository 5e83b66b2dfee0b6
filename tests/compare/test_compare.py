"""`python -m pipeline.compare` on a real repository: commits, experiments, the workspace, a clone.

Its one stage replaces the whole pipeline: it writes the reports of a locale as `evaluate` does,
from the name of the encoder alone (tests/helpers/comparisons.py).
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import git
from pipeline.compare.pull import pull
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from tests.graph.test_workflows import SCRIPTS, run
from tests.helpers.artefacts import ROOT
from tests.helpers.processes import run_module
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all

pytestmark = [pytest.mark.dvc, pytest.mark.slow]

ENVIRONMENT = {
    # Without what `make test` hands down: a make in here is one of its own.
    **{key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
    **GIT_IDENTITY, "PATH": PATH, "PYTHONPATH": str(ROOT),
}  # fmt: skip

MAKE = ("make", "--no-print-directory", "--old-file=setup", f"--makefile={ROOT / 'Makefile'}")
"""Takes the environment for set up, as the workflow does."""

DVC_YAML = """\
stages:
  evaluate:
    foreach: ${encoder}
    do:
      cmd: python -m tests.helpers.comparisons ${key} ${item}
      params:
      - encoder.${key}
      outs:
      - reports/top/${key}.parquet
      - reports/per_query/${key}.parquet:
          cache: false
      metrics:
      - reports/metrics/${key}.json:
          cache: false
"""


@dataclass(frozen=True)
class Outcome:
    """What a comparison printed, and its exit status."""

    status: int
    out: str
    err: str


NUMBERS_ALONE = ("--queries", "0")
"""Without titles, which compare asks of a DVC of its own for each locale and side."""


def compare(folder: Path, *arguments: str) -> Outcome:
    done = run_module("pipeline.compare", *arguments, folder=folder, environment=ENVIRONMENT)
    assert "Traceback" not in done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a commit before its first run, one after it, and the experiment `worse`."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    call(folder, ENVIRONMENT, "git", "init", "--quiet", "--initial-branch", "main")
    call(folder, ENVIRONMENT, "dvc", "init", "--quiet")
    commit_all(folder, ENVIRONMENT, "before any run")
    call(folder, ENVIRONMENT, "dvc", "repro", "--quiet")
    commit_all(folder, ENVIRONMENT, "results")
    call(
        folder, ENVIRONMENT, "dvc", "exp", "run", "--quiet", "--name", "worse",
        "--set-param", "encoder.es=minilm",
    )  # fmt: skip
    call(folder, ENVIRONMENT, "dvc", "exp", "branch", "worse", "try-minilm")
    reset(folder)
    return folder


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """A clone of the repository, without any data, with the branches main and try-minilm."""
    folder = tmp_path / "clone"
    call(tmp_path, ENVIRONMENT, "git", "clone", "--quiet", str(repository), str(folder))
    call(folder, ENVIRONMENT, "git", "branch", "--quiet", "try-minilm", "origin/try-minilm")
    assert not (folder / layout.top("es")).exists()
    return folder


def reset(folder: Path) -> None:
    call(folder, ENVIRONMENT, "git", "checkout", "--quiet", ".")
    call(folder, ENVIRONMENT, "dvc", "checkout", "--quiet")


def test_an_experiment_with_a_worse_locale_is_refused_and_the_others_are_equal(
    repository: Path, tmp_path: Path
) -> None:
    written = tmp_path / "new/moves.json", tmp_path / "new/folder/metrics.md"
    found = compare(
        repository, "HEAD", "worse", "--json", str(written[0]), "--markdown", str(written[1]),
        "--queries", "2",
    )  # fmt: skip

    assert found.status == 3
    assert "refused: es dense.ndcg@10 falls by 0." in found.err
    assert "settings that differ\n  encoder.es: e5-small-q4 → minilm\n" in found.out
    data: dict[str, Any] = json.loads(written[0].read_text(encoding="utf-8"))
    moves = {(each["locale"], each["metric"]): each for each in data["moves"]}
    assert len(moves) == 9
    worse = moves.pop(("es", "dense.ndcg@10"))
    assert worse["refused"]
    assert worse["holes"]["suspect"]
    assert "holes? judged@10 " in found.out
    assert all(each["equal"] and each["p_adjusted"] == 1 for each in moves.values())
    assert data["chosen"]["es"]["encoder"] == ["e5-small-q4", "minilm"]
    assert [each["name"] for each in data["revisions"]] == ["HEAD", "worse"]
    assert len(worse["losses"]) == 2
    # The top results of either side come out of DVC's cache.
    loss = worse["losses"][0]
    assert loss["top"][0][0] == {
        "label": "E", "title": f"de e5-small-q4 {loss['query_id']} dense 1",
    }  # fmt: skip
    assert loss["top"][1][2] == {"label": None, "title": f"de minilm {loss['query_id']} dense 3"}
    assert "? de minilm" in found.out
    text = written[1].read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "zapatos &lt;b&gt;" in text


def test_a_file_in_git_is_overwritten_only_by_its_own_kind(repository: Path) -> None:
    files = ("notes.md", "data.py", "untracked.txt")
    for name in files:
        (repository / name).write_text("old", encoding="utf-8")
    (repository / "link").symlink_to("data.py")
    call(repository, ENVIRONMENT, "git", "add", "notes.md", "data.py")
    for option, name in (("--markdown", "data.py"), ("--json", "link")):
        found = compare(repository, "main", "workspace", option, name)
        assert (found.status, found.out) == (1, "")
        assert f"{option} {name}: Git tracks this file, and its name does not end in" in found.err
        assert (repository / "data.py").read_text(encoding="utf-8") == "old"
    for name in ("notes.md", "untracked.txt"):
        assert compare(repository, "main", "workspace", "--markdown", name).status == 0
        assert (repository / name).read_text(encoding="utf-8").startswith("## Metrics")
    call(repository, ENVIRONMENT, "git", "rm", "--quiet", "--force", "notes.md", "data.py")
    for name in ("link", "untracked.txt"):
        (repository / name).unlink()


def test_the_other_way_round_it_is_better_and_passes(repository: Path) -> None:
    found = compare(repository, "worse", "HEAD", *NUMBERS_ALONE)
    assert found.status == 0
    assert "better; holes?" in found.out


def test_a_run_compared_with_itself_shows_nothing(repository: Path) -> None:
    found = compare(repository, "main", "workspace")
    assert (found.status, found.err) == (0, "")
    assert "0 of 9 moved significantly" in found.out
    assert found.out.count("  equal\n") == 9


def test_the_workspace_is_read_as_it_is_and_a_run_not_made_is_said(
    repository: Path,
) -> None:
    call(repository, ENVIRONMENT, "python", "-m", "tests.helpers.comparisons", "es", "minilm")
    try:
        found = compare(repository, "HEAD", "workspace", *NUMBERS_ALONE)
    finally:
        reset(repository)
    assert found.status == 3
    assert (
        "workspace: its numbers of es are of the encoder minilm, but its params.yaml says "
        "e5-small-q4; `dvc repro` was not run there" in found.out
    )


def test_a_clone_without_data_compares_and_says_once_that_labels_stand_for_titles(
    clone: Path,
) -> None:
    found = compare(clone, "HEAD", "origin/try-minilm")

    assert found.status == 3
    assert found.out.count("no titles for es of HEAD") == 1
    assert "A  ESC?I" in found.out
    assert not (clone / ".dvc" / "cache").exists()


@pytest.mark.parametrize(
    ("revisions", "said"),
    [
        (("", "HEAD"), "a revision's name is empty (''). Name a Git revision"),
        (("HEAD", " "), "a revision's name is empty (' '). Name a Git revision"),
        (("HEAD^{tree}", "HEAD"), "HEAD^{tree} names a tree or a file, not a commit. Name a Git"),
        (("HEAD", "HEAD:params.yaml"), "HEAD:params.yaml names a tree or a file, not a commit. "),
        (("HEAD", "wrose"), "wrose is not a revision or an experiment. Name a Git revision"),
        (
            ("HEAD@{1 year ago}", "HEAD"),
            "HEAD@{1 year ago}: git warns: log for 'HEAD' only",
        ),
        (("HEAD~1", "HEAD"), ") has no tables in reports/per_query: the commit is older"),
    ],
)
def test_a_revision_that_cannot_be_compared_is_one_message(
    repository: Path, revisions: tuple[str, str], said: str
) -> None:
    found = compare(repository, *revisions)
    assert (found.status, found.out) == (1, "")
    assert said in found.err
    assert len(found.err.splitlines()) == 1


def test_what_git_says_beside_a_revision_does_not_refuse_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setenv("GIT_TRACE", "1")
    assert git.find_commit("HEAD") == git.run("rev-parse", "HEAD").strip()


def test_a_revision_of_which_there_are_two_is_refused(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    git.run("branch", "twice")
    git.run("tag", "twice")
    with pytest.raises(PipelineError, match=r"twice: git warns: refname 'twice' is ambiguous"):
        git.find_commit("twice")


def without(folder: Path, locale: str, *, dropped: bool, deleted: bool) -> None:
    """Commit in `folder` a locale that params.yaml dropped, whose reports are deleted, or both."""
    if dropped:
        yaml = YAML()
        data = yaml.load(folder / "params.yaml")
        for section in ("encoder", "index", "language", "rerank", "spelling", "systems"):
            del data[section][locale]
        yaml.dump(data, folder / "params.yaml")
    if deleted:
        for path in (layout.per_query(locale), layout.metrics(locale)):
            call(folder, ENVIRONMENT, "git", "rm", "--quiet", str(path))
    call(folder, ENVIRONMENT, "git", "commit", "--quiet", "--all", "--message", "without")


def test_a_locale_that_vanishes_though_params_yaml_names_it_is_refused(clone: Path) -> None:
    without(clone, "es", dropped=False, deleted=True)
    found = compare(clone, "HEAD~1", "HEAD")
    assert (found.status, found.out) == (1, "")
    assert (
        "has no numbers of es, though its params.yaml names es under encoder (missing: "
        in found.err
    )
    assert "(missing: reports/per_query/es.parquet). " in found.err
    assert (
        "Run `dvc repro` there and commit reports/, or drop es from encoder, index, language, "
        "spelling, rerank, systems and, if it is there, explore." in found.err
    )
    assert len(found.err.splitlines()) == 1


def test_a_locale_that_only_params_yaml_has_is_noted(clone: Path) -> None:
    without(clone, "es", dropped=False, deleted=True)
    found = compare(clone, "HEAD", "HEAD~1")
    assert found.status == 0
    assert ") names es under encoder, but has no numbers of it: run `dvc repro` there" in found.out


@pytest.mark.parametrize("deleted", [True, False])
def test_a_locale_that_params_yaml_dropped_is_said_and_not_compared_whether_files_are_left_or_not(
    clone: Path, deleted: bool
) -> None:
    without(clone, "es", dropped=True, deleted=deleted)
    found = compare(clone, "HEAD~1", "HEAD")
    assert found.status == 0
    assert "es is only in HEAD~1" in found.out
    assert ": not compared" in found.out
    assert "of 6 moved significantly" in found.out
    assert "\nes " not in found.out.replace("\nes is only in", "")

    (clone / "note").write_text("", encoding="utf-8")
    commit_all(clone, ENVIRONMENT, "later")
    later = compare(clone, "HEAD~1", "HEAD")
    assert later.status == 0
    assert "of 6 moved significantly" in later.out
    assert "es" not in re.findall(r"^(\w+) ", later.out, re.MULTILINE)


def test_a_table_whose_name_is_no_locales_name_is_not_taken_for_one(clone: Path) -> None:
    yaml = YAML()
    data = yaml.load(clone / "params.yaml")
    for name in ("x](http:", "ES", "\x1b[31m"):
        data["encoder"][name], data["index"][name] = "minilm", "flat"
        for path in (layout.per_query, layout.metrics):
            shutil.copy(clone / path("es"), clone / path(name))
    yaml.dump(data, clone / "params.yaml")
    (clone / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    commit_all(clone, ENVIRONMENT, "names")
    call(clone, ENVIRONMENT, "git", "checkout", "--quiet", "HEAD~1", "--", "params.yaml")

    for a, b in (("HEAD", "HEAD~1"), ("HEAD~1", "HEAD"), ("HEAD", "HEAD")):
        found = compare(clone, a, b)
        assert found.status == 0, found.err
        assert "0 of 9 moved significantly" in found.out
        assert ": not compared" not in found.out


def test_a_commit_that_breaks_dvc_is_compared_all_the_same_with_labels_for_titles(
    clone: Path,
) -> None:
    call(clone, ENVIRONMENT, "git", "checkout", "--quiet", "try-minilm")
    (clone / "dvc.yaml").write_text("stages: {evaluate: 1}\n", encoding="utf-8")
    lock = (clone / "dvc.lock").read_bytes()
    (clone / "dvc.lock").write_bytes(lock[: len(lock) // 2])
    (clone / ".dvc" / "config").write_text("[core]\n    remote = ", encoding="utf-8")
    commit_all(clone, ENVIRONMENT, "broken")
    found = compare(clone, "main", "HEAD")
    assert found.status == 3
    assert "worse, refused" in found.out
    assert "no titles for es of main" in found.out
    assert len(found.err.splitlines()) == 1


def test_a_file_that_dvc_takes_too_long_for_is_not_read(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    titles = layout.top("es")
    assert pull(titles, "HEAD", Path()) == titles.read_bytes()
    monkeypatch.setattr("pipeline.compare.pull.SECONDS", 0.01)
    assert pull(titles, "HEAD", Path()) is None


@pytest.mark.parametrize("worktree", [False, True])
def test_a_project_below_its_git_root_or_in_a_worktree_compares_as_in_its_own_clone(
    clone: Path, tmp_path: Path, worktree: bool
) -> None:
    own = compare(clone, "main", "origin/try-minilm", *NUMBERS_ALONE)
    if worktree:
        project = tmp_path / "tree"
        call(clone, ENVIRONMENT, "git", "worktree", "add", "--quiet", str(project), "try-minilm")
        base = "main"
    else:
        mono = tmp_path / "mono"
        project, base = mono / "apps" / "search", "HEAD~1"
        for branch in ("main", "try-minilm"):
            call(clone, ENVIRONMENT, "git", "checkout", "--quiet", branch)
            shutil.rmtree(project, ignore_errors=True)
            shutil.copytree(clone, project, ignore=shutil.ignore_patterns(".git"))
            commit_all(mono, ENVIRONMENT, branch)
    for new in ("HEAD", "workspace"):
        found = compare(project, base, new, *NUMBERS_ALONE)
        assert found.status == own.status == 3, found.err
        assert found.out.splitlines()[3:20] == own.out.splitlines()[3:20]


def test_titles_come_out_of_the_cache_for_a_project_below_its_git_root(tmp_path: Path) -> None:
    mono = tmp_path / "mono"
    project = mono / "apps" / "search"
    project.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", project)
    (project / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    call(mono, ENVIRONMENT, "git", "init", "--quiet", "--initial-branch", "main")
    call(project, ENVIRONMENT, "dvc", "init", "--quiet", "--subdir")
    call(project, ENVIRONMENT, "dvc", "repro", "--quiet")
    commit_all(mono, ENVIRONMENT, "results")
    call(project, ENVIRONMENT, "dvc", "exp", "run", "--quiet", "--name", "worse",
         "--set-param", "encoder.es=minilm")  # fmt: skip
    found = compare(project, "HEAD", "worse")
    assert found.status == 3
    assert "E de e5-small-q4" in found.out
    assert "E de minilm" in found.out


def test_thresholds_that_make_no_sense_are_refused_before_anything_is_read(
    repository: Path,
) -> None:
    yaml = YAML()
    path = repository / "params.yaml"
    data = yaml.load(path)
    data["compare"]["max_drop"] = -0.1
    yaml.dump(data, path)
    try:
        found = compare(repository, "nowhere", "HEAD")
    finally:
        call(repository, ENVIRONMENT, "git", "checkout", "--quiet", "params.yaml")
    assert found.status == 1
    assert "compare.max_drop: must be greater than or equal to 0 (found -0.1)" in found.err


def test_a_folder_that_is_no_repository_is_one_message(project: Path) -> None:
    found = compare(project, "HEAD", "workspace")
    assert found.status == 1
    assert found.err.startswith("error in compare: HEAD: ")
    assert len(found.err.splitlines()) == 1


def test_a_number_of_queries_that_is_none_is_a_wrong_argument(project: Path) -> None:
    assert compare(project, "HEAD", "workspace", "--queries", "-1").status == 2


def test_make_diff_compares_the_merge_base_with_the_workspace(clone: Path, tmp_path: Path) -> None:
    shown = tmp_path / "diff.md"
    call(clone, ENVIRONMENT, "git", "checkout", "--quiet", "try-minilm")
    printed = call(clone, ENVIRONMENT, *MAKE, "diff", f"MARKDOWN={shown}", status=2)
    assert "worse, refused" in printed
    assert "Error 3" in printed
    assert shown.read_text(encoding="utf-8").startswith("## Metrics\n")
    assert "0 of 9 moved" in call(clone, ENVIRONMENT, *MAKE, "diff", "BASE=HEAD")


def test_lock_current_needs_no_data_and_notices_an_edited_metric_and_a_changed_setting(
    clone: Path,
) -> None:
    assert call(clone, ENVIRONMENT, *MAKE, "lock-current") == ""
    edits = (
        (layout.metrics("jp"), '"flat"', '"hnsw"'),
        (Path("params.yaml"), "jp: e5-small-q4", "jp: labse"),
    )
    for path, old, new in edits:
        whole = (clone / path).read_text(encoding="utf-8")
        assert old in whole
        (clone / path).write_text(whole.replace(old, new), encoding="utf-8")
        said = call(clone, ENVIRONMENT, *MAKE, "lock-current", status=2)
        assert "error: dvc.lock does not match these files" in said
        (clone / path).write_text(whole, encoding="utf-8")


def test_the_lock_of_this_repository_is_current_in_a_fresh_clone_of_its_last_commit(
    tmp_path: Path,
) -> None:
    """Not of the files as they are: they may be between an edit and `make repro`."""
    folder = tmp_path / "clone"
    call(tmp_path, ENVIRONMENT, "git", "clone", "--quiet", str(ROOT), str(folder))
    said = call(
        folder, ENVIRONMENT, "make", "--no-print-directory", "--old-file=setup", "lock-current"
    )
    assert said == ""
    assert not (folder / ".dvc" / "cache").exists()


@pytest.mark.parametrize(
    ("base", "status", "shown"),
    [("main", 3, "worse, refused"), ("before", 1, "There is no comparison:\n\n    error in ")],
)
def test_the_workflow_shows_the_comparison_and_then_fails_with_its_status(
    clone: Path, tmp_path: Path, base: str, status: int, shown: str
) -> None:
    call(clone, ENVIRONMENT, "git", "update-ref", "refs/remotes/origin/before", "main~1")
    call(clone, ENVIRONMENT, "git", "checkout", "--quiet", "try-minilm")
    environment = {
        **ENVIRONMENT, "GITHUB_BASE_REF": base, "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }  # fmt: skip
    assert run(SCRIPTS["compare"], clone, environment) == 0

    assert shown in (tmp_path / "summary").read_text(encoding="utf-8")
    assert (tmp_path / "output").read_text(encoding="utf-8") == f"status={status}\n"
    environment |= {"GATE": "success", "STATUS": str(status)}
    assert run(SCRIPTS["refuse"], clone, environment) == status
