"""Locales side by side with the real DVC, in a repository whose stages only copy and wait."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from pipeline.core.cpu import THREADS_VARIABLE
from pipeline.core.errors import PipelineError
from pipeline.core.memory import SHARERS_VARIABLE
from pipeline.core.params import Params
from pipeline.repro.command import count_jobs, repro, shared_and_branch
from pipeline.repro.runner import Runner
from tests.helpers.artefacts import ROOT, params
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all

pytestmark = pytest.mark.dvc

LOCALES = ("us", "es", "jp")

# A locale's first stage goes on when another's was begun too, or its patience has run out.
MEET = """\
import os, pathlib, sys, time
locale = sys.argv[1]
for name in ('THREADS', 'MEMORY_SHARERS'):
    given = os.environ.get(f'PIPELINE_{name}', '')
    pathlib.Path(f'../{locale}.{name}').write_text(given)
met = pathlib.Path(f'../{locale}.met')
pathlib.Path(f'../{locale}.there').touch()
ends = time.monotonic() + float(pathlib.Path('../patience').read_text())
while time.monotonic() < ends and not met.exists():
    if len(list(pathlib.Path('..').glob('*.there'))) > 1:
        met.touch()
    time.sleep(0.01)
"""

SLEEP = """\
import pathlib, sys, time
pathlib.Path(f'../{sys.argv[1]}.there').touch()
time.sleep(600)
"""

GRAPH = """\
stages:
  sample:
    cmd: mkdir -p data/sample && for l in us es jp; do echo $l > data/sample/$l; done
    outs:
    - data/sample
  clean:
    foreach: ${encoder}
    do:
      cmd: python meet.py ${key} && cp data/sample/${key} ${key}.clean
      deps:
      - data/sample/${key}
      outs:
      - ${key}.clean
  evaluate:
    foreach: ${encoder}
    do:
      cmd: test ! -e ../fail.${key} && cat ${key}.clean data/sample/${key} > ${key}.score
      deps:
      - ${key}.clean
      - models/encoder/${item}
      - data/sample/${key}
      metrics:
      - ${key}.score:
          cache: false
  report:
    cmd: cat us.score es.score jp.score > report
    deps:
    - us.score
    - es.score
    - jp.score
    outs:
    - report
"""

MODELS = """\
vars:
- ../params.yaml
stages:
  contract:
    foreach: ${encoders}
    do:
      wdir: ..
      cmd: mkdir -p models/encoder && echo ${key} > models/encoder/${key}
      outs:
      - models/encoder/${key}:
          cache: false
  contract-of-reranker:
    foreach: ${rerankers}
    do:
      wdir: ..
      cmd: mkdir -p models/reranker && echo ${key} > models/reranker/${key}
      outs:
      - models/reranker/${key}:
          cache: false
  train:
    foreach: ${trained}
    do:
      wdir: ..
      cmd: cat us.clean es.clean models/encoder/${item.base} > models/encoder/${key}
      deps:
      - es.clean
      - us.clean
      - models/encoder/${item.base}
      outs:
      - models/encoder/${key}:
          cache: false
"""


class Repository:
    """A repository in `folder` with the cheap graph and the shipped params.yaml."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder = folder / "repository"
        self.folder.mkdir(parents=True)
        (folder / "patience").write_text(str(patience))
        (self.folder / "dvc.yaml").write_text(GRAPH)
        (self.folder / "models").mkdir()
        (self.folder / "models" / "dvc.yaml").write_text(MODELS)
        (self.folder / "meet.py").write_text(MEET)
        (self.folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        self.environment = {**os.environ, **GIT_IDENTITY, "PATH": PATH, "PYTHONPATH": str(ROOT)}
        for name in (THREADS_VARIABLE, SHARERS_VARIABLE):
            self.environment.pop(name, None)
        call(self.folder, self.environment, "git", "init", "--quiet")
        call(self.folder, self.environment, "dvc", "init", "--quiet")
        commit_all(self.folder, self.environment, "graph")

    def beside(self, name: str) -> Path:
        return self.folder.parent / name

    def repro(self, jobs: int, status: int = 0) -> str:
        command = (sys.executable, "-m", "pipeline.repro", "--jobs", str(jobs))
        return call(self.folder, self.environment, *command, status=status)

    def lock(self) -> Any:
        """Return the stages of dvc.lock; a first run writes them in the order in which they end."""
        return YAML(typ="safe").load(self.folder / "dvc.lock")["stages"]


def test_branches_run_side_by_side_and_leave_the_lock_of_one_after_the_other(
    tmp_path: Path,
) -> None:
    alone, together = Repository(tmp_path / "1", 0), Repository(tmp_path / "2", 60)
    alone.repro(1)
    printed = together.repro(2)
    assert together.lock() == alone.lock()
    assert all(together.beside(f"{locale}.met").exists() for locale in ("us", "es"))
    assert not alone.beside("us.met").exists()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = {together.beside(f"{locale}.THREADS").read_text() for locale in LOCALES}
    assert threads == {str(max(1, (cores or 1) // 2))}
    for repository, sharers in ((together, "2"), (alone, "")):
        given = {repository.beside(f"{one}.MEMORY_SHARERS").read_text() for one in LOCALES}
        assert given == {sharers}
    for locale in LOCALES:
        lines = [line for line in printed.splitlines() if f"'evaluate@{locale}'" in line]
        assert lines
        assert all(line.startswith(f"{locale} | ") for line in lines if "Running" in line)
    unprefixed = [line for line in printed.splitlines() if line.startswith("Running stage")]
    contracts = [f"models/dvc.yaml:contract@{name}" for name in ("minilm", "e5-small-q4")]
    contracts.append("models/dvc.yaml:contract-of-reranker@none")
    shared = [f"Running stage '{name}':" for name in ("sample", *contracts)]
    assert sorted(unprefixed[:-1]) == sorted(shared)  # DVC chooses their order
    assert unprefixed[-1] == "Running stage 'report':"


def test_a_trained_encoder_is_made_once_before_the_branches_run(tmp_path: Path) -> None:
    repository = Repository(tmp_path, 0)
    path = repository.folder / "params.yaml"
    path.write_text(path.read_text().replace("us: minilm\n", "us: minilm-demo\n"))
    printed = repository.repro(2)
    ran = re.findall("Running stage '(.+?)'", printed)
    assert ran.count("models/dvc.yaml:train@minilm-demo") == 1
    trained = (repository.folder / "models/encoder/minilm-demo").read_text()
    assert trained == "us\nes\nminilm\n"


def test_a_branch_that_fails_is_named_and_the_others_are_finished(tmp_path: Path) -> None:
    repository = Repository(tmp_path, 0)
    repository.beside("fail.es").touch()
    printed = repository.repro(2, status=1)
    assert "error in repro: 1 of 3 locales failed: es. The lines above" in printed
    assert "es | ERROR: failed to reproduce 'evaluate@es'" in printed
    assert {"evaluate@us", "evaluate@jp", "clean@es"} <= set(repository.lock())
    assert not {"evaluate@es", "report"} & set(repository.lock())


@pytest.mark.parametrize(
    ("jobs", "shared", "running"), [(1000, "", len(LOCALES)), (1, "", 1), (2, "us", 1)],
    ids=["branches", "one after the other", "what the locales share"],
)  # fmt: skip
def test_what_ends_the_command_ends_dvc_and_its_stages_and_frees_their_locks(
    tmp_path: Path, jobs: int, shared: str, running: int
) -> None:
    repository = Repository(tmp_path, 0)
    command = [sys.executable, "-m", "pipeline.repro", "--jobs", str(jobs)]
    (repository.folder / "meet.py").write_text(SLEEP)
    if shared:
        (repository.folder / "dvc.yaml").write_text(
            GRAPH.replace("cmd: mkdir", f"cmd: python meet.py {shared} && mkdir")
        )
    with subprocess.Popen(
        command, cwd=repository.folder, env=repository.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while len(list(tmp_path.glob("*.there"))) < running:  # of one, DVC chooses which
            assert process.poll() is None
            time.sleep(0.01)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)  # as Ctrl-C, which reaches only this process
        process.wait(60)
        _, orphans = psutil.wait_procs(started, timeout=10)
        for one in orphans:
            one.kill()  # else they would hold the pipe for as long as they sleep
        printed = process.stdout.read()
    assert process.returncode == 130, printed
    assert "repro was interrupted" in printed
    assert not orphans
    locks = json.loads((repository.folder / ".dvc/tmp/rwlock").read_text())
    assert not any(locks.values())


def test_stages_of_a_branch_are_those_that_every_locale_has() -> None:
    every, some = {"foreach": "${encoder}"}, {"foreach": "${explore}"}
    graph = {"a": {}, "b": {}, "c": every, "d": every, "x": some, "e": {}}
    assert shared_and_branch({"stages": graph}) == (["a", "b"], ["c", "d"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< HEAD\nstages: {}\n=======\n", "dvc.yaml is not YAML"),
        ("", "dvc.yaml: must have `stages`"),
        ("stages: {}", "dvc.yaml: must have `stages`"),
        ("stages: {sample: }", "dvc.yaml: must have `stages`"),
    ],
)
def test_a_damaged_graph_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(text)
    with pytest.raises(PipelineError, match=f"^{said}"):
        repro(Runner(0), params(), 2)


def test_locales_side_by_side_are_refused_only_where_they_share_a_cluster() -> None:
    def with_runtime(executor: str, address: str | None) -> Params:
        return params({"runtime.executor": executor, "runtime.ray_address": address})

    for jobs, given in (("1", "auto"), ("2", None)):
        assert count_jobs(jobs, with_runtime("ray", given)) == int(jobs)
    assert count_jobs("2", with_runtime("local", None)) == 2
    said = r"^JOBS=2: .*runtime\.ray_address \(auto\).* `make repro JOBS=1`"
    with pytest.raises(PipelineError, match=said):
        count_jobs("2", with_runtime("ray", "auto"))


@pytest.mark.parametrize("jobs", ["x", "0", "-1", "1.5", "", " 2", "1e3", "٣", "9" * 5_000])
def test_jobs_that_are_no_number_of_locales_give_one_message(jobs: str) -> None:
    with pytest.raises(PipelineError, match=r"JOBS=.*whole number.*params.yaml has 3: us, es, jp"):
        count_jobs(jobs, params())


def test_more_jobs_than_locales_run_all_locales_and_say_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "pipeline"):
        assert count_jobs("99", params()) == 3
        assert count_jobs("3", params()) == 3
    assert caplog.messages == ["JOBS=99: params.yaml has 3 locales, so 3 run at a time."]
