"""Reproduce all artefacts with the locales' branches side by side: `make repro JOBS=2`.

DVC runs the stages of one command one after the other, so there is a command for each locale. It
names the locale's own stages and goes to no other (`--single-item`): on its way to a stage DVC
takes a write lock even on what is up to date, and two branches would meet at `sample`. What comes
before the branches is brought up to date first; a last `dvc repro` makes what comes after them, and
finds nothing else to do.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from pipeline.core import layout, stage
from pipeline.core.cpu import THREADS_VARIABLE, core_count
from pipeline.core.errors import PipelineError
from pipeline.core.memory import SHARERS_VARIABLE
from pipeline.core.params import Runtime
from pipeline.core.params_file import load_params

if TYPE_CHECKING:
    Process = subprocess.Popen[str]

DVC = (sys.executable, "-m", "dvc")

_APART: Any = {"start_new_session": True, "stdin": subprocess.DEVNULL}
"""How DVC is started: as a group that is interrupted as a whole, and no reader of the terminal."""


def shared_and_branch(stages: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the stages before the locales' branches, and those of a branch, in their order.

    Args:
        stages: the `stages` of dvc.yaml, which stand there in the order in which they run.
    """
    names = list(stages)
    branch = [name for name in names if "foreach" in stages[name]]
    return names[: names.index(branch[0])], branch


def repro(locales: Sequence[str], jobs: int) -> None:
    """Bring every artefact up to date, with at most `jobs` locales at a time.

    Raises:
        PipelineError: a stage failed; the branches of the other locales were finished all the same.
    """
    if jobs == 1:
        _run("dvc repro", "repro")
        return
    shared, branch = shared_and_branch(YAML(typ="safe", pure=True).load(layout.GRAPH)["stages"])
    _run("what the locales share", "repro", *shared)
    branches = _Branches(min(jobs, len(locales)))
    failed = branches.run({one: [f"{name}@{one}" for name in branch] for one in locales})
    if failed:
        raise PipelineError(
            f"the branches of {', '.join(failed)} failed, of {', '.join(locales)}; what each said "
            "is above, behind its locale"
        )
    _run("what comes after the locales", "repro")


def check_jobs(jobs: int, runtime: Runtime) -> None:
    """Raise a `PipelineError` where branches side by side would wait for one another's workers.

    Each has workers on all of a cluster's cores. Clusters of their own have each a branch's share.
    """
    if jobs > 1 and runtime.executor == "ray" and runtime.ray_address is not None:
        raise PipelineError(
            f"--jobs {jobs}: with runtime.executor ray, the workers of one locale take the whole "
            f"cluster at runtime.ray_address ({runtime.ray_address}), and the others would wait "
            "for it in vain; run make repro JOBS=1, which uses all of it too"
        )


class _Branches:
    """DVC commands side by side, each with its share of the cores and of the memory."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        threads = str(max(1, core_count() // jobs))
        self._environment = {
            **os.environ,
            THREADS_VARIABLE: threads,
            SHARERS_VARIABLE: str(jobs),
            "OMP_NUM_THREADS": threads,  # for libraries that look for themselves
            "PYTHONUNBUFFERED": "1",
        }
        self._running: dict[str, Process] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, targets: Mapping[str, Sequence[str]]) -> list[str]:
        """Reproduce each locale's stages; return the locales that failed."""
        with ThreadPoolExecutor(self._jobs) as pool:
            done = {locale: pool.submit(self._run, locale, of) for locale, of in targets.items()}
            try:
                return [locale for locale, one in done.items() if one.result() != 0]
            except KeyboardInterrupt:
                self._stop()
                raise

    def _run(self, locale: str, targets: Sequence[str]) -> int:
        # Only the stages' commands run side by side: for the rest of its work DVC locks the
        # repository, and waits for that.
        command = [*DVC, "--wait-for-lock", "repro", "--single-item", *targets]
        with self._lock:
            if self._stopped:
                return 1
            process = subprocess.Popen(
                command, env=self._environment, text=True, encoding="utf-8", errors="replace",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_APART,
            )  # fmt: skip
            self._running[locale] = process
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(f"{locale} | {line}")
                sys.stdout.flush()
        return process.returncode

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running.values():
                _interrupt(process)


def _run(what: str, *arguments: str) -> None:
    process = subprocess.Popen([*DVC, *arguments], text=True, **_APART)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        _interrupt(process)
        process.wait()
        raise
    if status:
        raise PipelineError(f"{what} failed; why is told above")


def _interrupt(process: "Process") -> None:
    """Interrupt DVC and its stage, if they run still: a group, apart from the terminal's.

    DVC waits for the stage, then clears its locks away; killed, it would leave both behind.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)


def main() -> int:
    """Check params.yaml, then reproduce; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.repro", description=__doc__)
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N",
        help="how many locales at a time; each gets its share of the cores",
    )  # fmt: skip
    jobs = parser.parse_args().jobs
    if jobs < 1:
        parser.error(f"--jobs {jobs}: must be 1 or more")
    # Else the branches would go on without us. SIGINT too: where it is ignored, as it is for a
    # shell's background jobs, the branches would inherit that and never end.
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if end != signal.SIGHUP or signal.getsignal(end) != signal.SIG_IGN:  # nohup
            signal.signal(end, signal.default_int_handler)
    with stage.report_errors("repro") as outcome:
        params = load_params()
        check_jobs(jobs, params.runtime)
        repro(params.locales, jobs)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
