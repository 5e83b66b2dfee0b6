"""Kill `make repro` again and again, and check that the next one ends with the same bytes.

    python -m bench.interruptions [--kills 20]

A small DVC project of copying stages is run with one seed, then with another, and is killed on the
way: the whole tree, DVC alone, or the command by an interruption. Half of the kills wait until DVC
writes dvc.lock or its rwlock. The figures go to reports/bench/interruptions.json.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from bench import reports
from bench.project import ROOT
from pipeline.core import stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.layout import LOCK
from pipeline.core.log import log
from pipeline.core.params_file import PARAMS_FILE

LOCALES = ("us", "es", "jp")
BRANCH = ("clean", "embed", "evaluate")
SEEDS = (1, 2)
SECONDS = 120
BULK = {f"setting-{number}": number for number in range(60)}
"""Params of every stage, which make dvc.lock as long as the project's own."""

JOIN = """\
import pathlib, sys, time
*sources, target = map(pathlib.Path, sys.argv[1:])
time.sleep(0.05)
text = ''.join(source.read_text() for source in sources)
target.parent.mkdir(exist_ok=True)
partial = target.with_suffix('.partial')
partial.write_text(f'{target}\\n{text}')
partial.replace(target)
"""

Kill = Callable[[subprocess.Popen[str]], None]


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kill the command and everything that it started, at once."""
    for each in [psutil.Process(process.pid), *_children(process)]:
        _send(each, signal.SIGKILL)


def kill_dvc(process: subprocess.Popen[str]) -> None:
    """Kill DVC alone, one of them where there are several."""
    for each in _children(process):
        if each.ppid() == process.pid:
            _send(each, random.choice((signal.SIGKILL, signal.SIGTERM)))  # noqa: S311
            return


def interrupt(process: subprocess.Popen[str]) -> None:
    """Interrupt the command as Ctrl-C or a system's stop does."""
    process.send_signal(random.choice((signal.SIGINT, signal.SIGTERM)))  # noqa: S311


KILLS: dict[str, Kill] = {"tree": kill_tree, "dvc": kill_dvc, "interrupt": interrupt}


@dataclass
class Project:
    """A DVC repository whose stages copy, in a folder."""

    folder: Path
    jobs: int

    @classmethod
    def make(cls, folder: Path, jobs: int) -> "Project":
        """Make one, with the outputs of the first seed."""
        one = cls(folder, jobs)
        (folder / "join.py").write_text(JOIN, encoding="utf-8")
        shutil.copyfile(ROOT / PARAMS_FILE, folder / PARAMS_FILE)
        YAML().dump({"stages": _stages()}, folder / "dvc.yaml")
        one.seed(SEEDS[0])
        for command in ("git init --quiet", "dvc init --quiet"):
            done = one.call(*command.split())
            if done.returncode:
                raise PipelineError(f"{command} failed: {done.stdout}")
        return one

    def seed(self, seed: int) -> None:
        """Choose the seed, on which every stage depends."""
        YAML().dump({"seed": seed, **BULK}, self.folder / "seed.yaml")

    def environment(self) -> dict[str, str]:
        """Return the environment variables of its commands."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment(), text=True, timeout=SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip

    def repro(self) -> subprocess.CompletedProcess[str]:
        """Run what `make repro` runs."""
        return self.call(sys.executable, "-m", "pipeline.repro", "--jobs", str(self.jobs))

    def killed(self, kill: Kill, *, when: Path | None, seconds: float) -> str:
        """Run it, kill it on the way, and return what it printed.

        Args:
            kill: how.
            when: the file whose writing is waited for; None where only time counts.
            seconds: how long to wait first.
        """
        forget_runs = self.folder / ".dvc/cache/runs"  # else DVC would not run the stages again
        shutil.rmtree(forget_runs, ignore_errors=True)
        command = (sys.executable, "-m", "pipeline.repro", "--jobs", str(self.jobs))
        with tempfile.TemporaryFile("w+") as printed:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment(), stdout=printed, text=True,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            _wait(process, self.folder / when if when else None, seconds)
            if process.poll() is None:
                kill(process)
            process.wait(SECONDS)
            printed.seek(0)
            return printed.read()

    def state(self) -> dict[str, bytes]:
        """Return dvc.lock and every output."""
        paths = [self.folder / LOCK, *(self.folder / "data").iterdir()]
        return {path.name: path.read_bytes() for path in sorted(paths) if path.is_file()}


def _stages() -> dict[str, Any]:
    def one(output: str, *sources: str) -> dict[str, Any]:
        return {
            "cmd": f"python join.py {' '.join(sources)} {output}", "deps": list(sources),
            "params": [{"seed.yaml": ["seed", *BULK]}], "outs": [output],
        }  # fmt: skip

    found: dict[str, Any] = {"sample": one("data/sample", "seed.yaml")}
    before = "data/sample"
    for name in BRANCH:
        after = f"data/{name}-${{key}}"
        found[name] = {"foreach": "${encoder}", "do": one(after, before)}
        before = after
    last = [f"data/{BRANCH[-1]}-{locale}" for locale in LOCALES]
    return {**found, "report": one("data/report", *last)}


def _wait(process: subprocess.Popen[str], path: Path | None, seconds: float) -> None:
    """Wait some seconds, and then until a file is written, which begins by emptying it."""
    ends = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < ends:
        time.sleep(0.005)
    size = 0
    while path is not None and process.poll() is None:
        try:
            now = path.stat().st_size
        except FileNotFoundError:
            continue
        if now < size or (now == 0 and size == 0):
            return
        size = now


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, which: signal.Signals) -> None:
    try:
        process.send_signal(which)
    except psutil.NoSuchProcess:
        return


def prove(folder: Path, kinds: tuple[str, ...], kills: int, jobs: int) -> dict[str, Any]:
    """Kill a project's runs, and return how each kind went.

    Args:
        folder: an empty folder for the project.
        kinds: keys of `KILLS`.
        kills: how many of each kind.
        jobs: how many locales run at a time.

    Raises:
        PipelineError: a run after a kill ended with other bytes, or not at all.
    """
    project = Project.make(folder, jobs)
    expected = {}
    # Of several locales at a time, the order in dvc.lock is the final one the second time.
    for seed in SEEDS if jobs == 1 else (*SEEDS, *SEEDS):
        project.seed(seed)
        done = project.repro()
        if done.returncode:
            raise PipelineError(f"a run without a kill failed: {done.stdout}")
        expected[seed] = project.state()
    started = time.monotonic()
    project.seed(SEEDS[0])
    project.repro()
    whole = time.monotonic() - started
    figures: dict[str, Any] = {}
    places = (None, LOCK, None, Path(".dvc/tmp/rwlock"))
    for kind in kinds:
        counts: Counter[str] = Counter()
        for number in range(kills):
            seed = SEEDS[(number + 1) % 2]
            project.seed(seed)
            seconds = random.uniform(0.1, 0.8) * whole  # noqa: S311
            said = project.killed(KILLS[kind], when=places[number % 4], seconds=seconds)
            counts += _look(project, expected[seed], said)
        figures[kind] = {"kills": kills, **counts}
        log.info("%s: %s", kind, dict(figures[kind]))
    return {"jobs": jobs, **figures}


def _look(project: Project, expected: dict[str, bytes], said: str) -> Counter[str]:
    """Run again after a kill and return what was seen."""
    counts: Counter[str] = Counter()
    counts["repaired at once"] = "A killed DVC left" in said
    again = project.repro()
    counts["repaired by the next run"] = "A killed DVC left" in again.stdout
    if again.returncode:
        counts["refused first"] = 1
        again = project.repro()
    if again.returncode or project.state() != expected:
        raise PipelineError(
            f"the run after a kill gave {again.returncode} and other bytes:\n{said}\n{again.stdout}"
        )
    counts["same bytes"] = 1
    return counts


def main() -> int:
    """Kill and look; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.interruptions")
    parser.add_argument(
        "--kills",
        type=int,
        default=20,
        help="how many of each kind; half of them with two locales at a time",
    )
    arguments = parser.parse_args()
    with stage.report_errors("interruptions") as outcome:
        figures = []
        for jobs in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                half = (arguments.kills + 1) // 2
                figures.append(prove(Path(folder), tuple(KILLS), half, jobs))
        write_json(reports.INTERRUPTIONS, figures)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
