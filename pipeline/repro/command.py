"""Bring all artefacts up to date, several locales at a time: `make repro JOBS=2`.

DVC runs the stages of one command one after another, so each locale has a command of its own. It
names the locale's stages and no other (`--single-item`): on its way to a stage DVC takes a write
lock even on what is up to date, and two locales would meet at `sample`. The stages before the
locales run first, and the models that they use are made. A last `dvc repro` runs the stages after
them.
"""

import argparse
import re
import signal
from typing import Any

from pipeline.core import layout, params_text, stage
from pipeline.core.cpu import THREADS_VARIABLE, core_count
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.memory import SHARERS_VARIABLE
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.repro.inputs import check_inputs
from pipeline.repro.repair import protected
from pipeline.repro.runner import Runner


def shared_and_branch(graph: Any) -> tuple[list[str], list[str]]:
    """Return the stages before the locales, and those of every locale, each in their order.

    Stages that only the locales under `explore` have are in neither.

    Args:
        graph: the data of dvc.yaml, whose stages are in the order in which they run.

    Raises:
        PipelineError: it has no stage that every locale has.
    """
    stages = graph.get("stages") if isinstance(graph, dict) else None
    if not isinstance(stages, dict):
        stages = {}
    over = {name: each.get("foreach") for name, each in stages.items() if isinstance(each, dict)}
    branch = [name for name, keys in over.items() if keys not in (None, "${explore}")]
    if not branch:
        raise PipelineError(
            f"{layout.GRAPH}: must have `stages`, some with `foreach` (found none). Bring it back "
            f"with `git checkout {layout.GRAPH}`."
        )
    names = list(stages)
    return names[: names.index(branch[0])], branch


def models_of(params: Params) -> list[str]:
    """Return the stages that make the models which the locales use; training draws in its bases."""
    if not layout.MODELS_GRAPH.is_file():
        return []
    chosen = {"contract": params.encoder.values(), "contract-of-reranker": params.rerank.values()}
    return [
        f"{layout.MODELS_GRAPH}:{'train' if name in params.trained else contract}@{name}"
        for contract, names in chosen.items()
        for name in dict.fromkeys(names)
    ]


def repro(runner: Runner, params: Params, jobs: int) -> None:
    """Bring every artefact up to date, with at most `jobs` locales at a time.

    Raises:
        PipelineError: dvc.yaml is damaged, or a stage failed. The stages of the other locales are
            finished all the same.
    """
    if jobs == 1:
        _run(runner, "dvc repro", "repro")
        return
    shared, branch = shared_and_branch(params_text.read_data(layout.GRAPH))
    _run(runner, "what the locales share", "repro", *shared, *models_of(params))
    threads = str(max(1, core_count() // jobs))
    # Only the stages run side by side: for its other work DVC locks the repository, and waits.
    wait = ("--wait-for-lock", "repro", "--single-item")
    ended = runner.run(
        {locale: [*wait, *(f"{name}@{locale}" for name in branch)] for locale in params.locales},
        jobs,
        {
            THREADS_VARIABLE: threads,
            SHARERS_VARIABLE: str(jobs),
            "OMP_NUM_THREADS": threads,  # for libraries that do not ask us
            "PYTHONUNBUFFERED": "1",
        },
    )
    for status in ended.values():
        _refuse_killed(status)
    if failed := [locale for locale, status in ended.items() if status]:
        raise PipelineError(
            f"{len(failed)} of {len(params.locales)} locales failed: {', '.join(failed)}. The "
            "lines above that begin with the locale say why."
        )
    _run(runner, "a stage after the locales", "repro")


def count_jobs(given: str, params: Params) -> int:
    """Return how many locales run at a time, at most all of them.

    Args:
        given: the value of --jobs.
        params: the choices.

    Raises:
        PipelineError: it is not a number of 1 or more, or locales at the same time would wait for
            each other's workers: each has workers on all cores of a shared cluster.
    """
    count = len(params.locales)
    if not re.fullmatch("0*[1-9][0-9]{0,8}", given):
        raise PipelineError(
            f"JOBS={given}: must be a whole number of locales to run at a time, 1 or more. "
            f"params.yaml has {count}: {', '.join(params.locales)}."
        )
    jobs, address = int(given), params.runtime.ray_address
    if jobs > count:
        log.info("JOBS=%d: params.yaml has %d locales, so %d run at a time.", jobs, count, count)
    if jobs > 1 and params.runtime.executor == "ray" and address is not None:
        raise PipelineError(
            f"JOBS={jobs}: with runtime.executor ray, the workers of one locale take the whole "
            f"cluster at runtime.ray_address ({address}), and the other locales would wait for "
            "ever. Run `make repro JOBS=1`, which uses the whole cluster too."
        )
    return min(jobs, count)


def interruptible() -> None:
    """Let what ends this process interrupt it, so that it ends DVC first.

    SIGINT too: where it is ignored, as for the background jobs of a shell, DVC would inherit that.
    """
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if end != signal.SIGHUP or signal.getsignal(end) != signal.SIG_IGN:  # nohup
            signal.signal(end, signal.default_int_handler)


def _run(runner: Runner, what: str, *arguments: str) -> None:
    status = runner.run({what: arguments})[what]
    _refuse_killed(status)
    if status:
        raise PipelineError(f"{what} failed. The lines above say why.")


def _refuse_killed(status: int) -> None:
    if status < 0:
        raise PipelineError(
            f"DVC was killed by {signal.Signals(-status).name}. Run `make repro` again: it repairs "
            "what DVC left, and goes on from there."
        )


def main() -> int:
    """Check params.yaml and what it names, then reproduce; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.repro", description=__doc__)
    parser.add_argument(
        "--jobs", default="1", metavar="N",
        help="how many locales to run at a time; each gets its share of the cores",
    )  # fmt: skip
    jobs = parser.parse_args().jobs
    interruptible()
    with stage.report_errors("repro") as outcome:
        params = load_params()
        count = count_jobs(jobs, params)
        check_inputs(params)
        with protected() as descriptor:
            repro(Runner(descriptor), params, count)
    return outcome.status
