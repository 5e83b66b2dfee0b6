"""`python -m pipeline.experiment`: checked before DVC begins, and undone where it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.experiment import Before, check_changes, check_identity
from tests.helpers.artefacts import ROOT
from tests.helpers.repository import GIT_IDENTITY, commit_all, run
from tests.repro.test_repro import GRAPH, MEET, Repository

pytestmark = pytest.mark.dvc


@pytest.fixture
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped params.yaml, in the working folder."""
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("encoder.es=labs", r"encoder\.es: 'labs' is not defined.*did you mean 'labse'"),
        ("encodr.es=labse", "params.yaml has no 'encodr'.*did you mean 'encoder'"),
        ("encoder.esp=labse", r"encoder has no 'esp'.*did you mean 'es'.*\+encoder\.esp"),
        ("encoder.es.x=1", r"encoder\.es has no 'x'"),
        ("~encoder.de", "encoder has no 'de'"),
        ("+encoder.de=labse", "index.de: missing"),
        ("sample.queries=0", r"sample.queries: .*\(found 0\)"),
        ("encoder=3", "encoder: "),
        ("encoder.es=labse,minilm", r"one experiment per value.*--queue"),
        ("sample.seed=range(1,4)", "one experiment per value"),
        ("encoder.es", "not a change of a param.*Write key=value"),
        ("encoder.es=[1", "not a change of a param"),
        ("clean.separator=${x}", "not a change of a param"),
        ("clean.separator=???", "not a change of a param"),
        ("x y=1", "not a change of a param"),
        ("", "not a change of a param"),
        ("retrieve.depth=5", "retrieve.depth: 5 is less than the deepest cutoff"),
        ("sample.source=absent", r"with sample.source=absent:\n  sample\.source: cannot be read"),
        ("+systems.es.vespa=data/systems/no.trec", r"systems\.es\.vespa: cannot be read"),
    ],
)
def test_a_change_that_cannot_be_is_one_message_before_dvc_begins(
    params_file: Path, change: str, message: str
) -> None:
    before = params_file.read_bytes()
    with pytest.raises(PipelineError, match=f"(?s){message}"):
        check_changes([change])
    assert params_file.read_bytes() == before


def test_changes_are_checked_together(params_file: Path) -> None:
    both = [
        "+encoder.de=labse",
        "+index.de=flat",
        "+rerank.de=none",
        "+spelling.de=typed",
        "+systems.de={}",
    ]
    with pytest.raises(PipelineError, match=r"language\.de: missing"):
        check_changes(both)
    check_changes([*both, "+language.de=de", "encoders.e5-small-q4.max_tokens=64"])


def test_git_is_asked_for_an_identity_only_where_dvc_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC commits edits before it runs, and then fails late where Git knows no name."""
    monkeypatch.chdir(tmp_path)
    for variable in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{variable}", os.devnull)
    for variable in GIT_IDENTITY:
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "params.yaml").write_text("a: 1\n")
    commit_all(tmp_path, {**os.environ, **GIT_IDENTITY}, "first")
    check_identity()
    (tmp_path / "params.yaml").write_text("a: 2\n")
    subprocess.run(["git", "config", "user.name", "Ann"], check=True)
    with pytest.raises(PipelineError, match=r"found 'Ann' and ''.*git config user\.email"):
        check_identity()
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "ann@example.invalid")
    check_identity()
    monkeypatch.delenv("GIT_COMMITTER_EMAIL")
    subprocess.run(["git", "config", "user.email", "ann@example.invalid"], check=True)
    check_identity()


class Shop(Repository):
    """The cheap graph, whose first stages depend on each locale's encoder, run and committed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 0)
        graph = GRAPH.replace("      outs:\n      - ${key}.clean", "      params:\n      - encoder"
                              ".${key}\n      outs:\n      - ${key}.clean")  # fmt: skip
        (self.folder / "dvc.yaml").write_text(graph)
        self.repro(1)
        commit_all(self.folder, self.environment, "run")

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.folder.iterdir() if path.is_file()]
        return {path.name: path.read_bytes() for path in paths}

    def experiment(self, *changes: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "pipeline.experiment", *changes)
        return run(self.folder, self.environment, *command)


def test_an_experiment_that_fails_changes_nothing_and_one_that_works_its_params_and_outputs(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path)
    params = shop.folder / "params.yaml"
    params.write_text(params.read_text() + "# a change that is not committed\n")
    params.chmod(0o600)
    before = shop.files()
    shop.beside("fail.es").touch()
    (shop.folder / "meet.py").write_text("import sys; sys.exit(sys.argv[1] == 'es')")
    before["meet.py"] = (shop.folder / "meet.py").read_bytes()
    done = shop.experiment("encoder.es=labse", "encoder.us=labse")
    assert done.returncode == 1, done.stderr
    assert "params.yaml, the outputs and reports/ are as before" in done.stderr
    assert shop.files() == before
    assert params.stat().st_mode & 0o777 == 0o600
    shop.beside("fail.es").unlink()
    (shop.folder / "meet.py").write_text(MEET)
    done = shop.experiment("encoder.es=labse")
    assert done.returncode == 0, done.stderr
    assert "es: labse" in params.read_text()
    assert shop.files()["dvc.lock"] != before["dvc.lock"]
    files = shop.files()
    done = shop.experiment("encoder.es=labs")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert shop.files() == files


def test_a_lock_file_and_reports_that_are_gone_come_back_committed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)
    monkeypatch.chdir(shop.folder)
    committed, changed, new = (Path("reports") / name for name in ("a.json", "b/b.json", "c.json"))
    changed.parent.mkdir(parents=True)
    for path in (committed, changed):
        path.write_text("committed")
    commit_all(shop.folder, shop.environment, "reports")
    changed.write_text("changed")
    new.write_text("new")
    files, before = shop.files(), Before.read(tmp_path / "copy", {})
    for path in (Path("dvc.lock"), changed, new):
        path.unlink()
    committed.write_text("of the experiment")
    of_a_stage, measured = layout.metrics("es"), layout.tradeoff("es")
    for path in (of_a_stage, measured):
        path.parent.mkdir(parents=True)
        path.write_text("written meanwhile")
    assert before.restore() == "params.yaml, the outputs and reports/ are as before."
    assert shop.files() == files
    texts = [path.read_text() for path in (committed, changed, new)]
    assert texts == ["committed", "changed", "new"]
    assert (of_a_stage.exists(), measured.read_text()) == (False, "written meanwhile")


def test_reports_that_cannot_be_kept_are_one_message(params_file: Path) -> None:
    Path("reports").mkdir()
    os.mkfifo("reports/pipe")
    with pytest.raises(PipelineError, match=r"^reports/pipe: must be a file that can be"):
        Before.read(params_file.with_name("copy"), {})


@pytest.mark.parametrize(
    ("added", "edited"), [("", False), ("x: 2  # tried\n", False), ("x: 3\n", True), ("[", False)]
)
def test_params_that_a_user_edits_during_an_experiment_that_fails_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: str, edited: bool
) -> None:
    shop = Shop(tmp_path)
    monkeypatch.chdir(shop.folder)
    path = Path("params.yaml")
    first = path.read_text()
    tried = {**YAML(typ="safe").load(first), "x": 2}
    before = Before.read(tmp_path / "copy", tried)
    path.write_text(first + added)
    said = before.restore()
    assert path.read_text() == (first + added if edited else first)
    kept = "params.yaml was edited meanwhile and stays as it is. The"
    assert said == f"{kept if edited else 'params.yaml, the'} outputs and reports/ are as before."
