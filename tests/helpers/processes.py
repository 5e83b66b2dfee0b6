"""Python modules run as commands, in processes forked from one that has imported the libraries.

A command then starts in a tenth of a second, and not in two. It has an environment, a folder,
arguments, output and an exit status of its own, as if Python had started anew. What starts anew
all the same: processes that a test kills or limits, those whose memory it measures, and those with
other variables of the Hugging Face hub, which its library reads when it is imported.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

STAGES = (
    "demo", "sample", "clean", "embed", "index_entry", "index", "retrieve", "bm25", "hybrid",
    "rerank", "systems", "evaluate", "encoder_scores", "report",
)  # fmt: skip

# `encoders` before openvino: it turns off the telemetry that openvino would send.
LIBRARIES = (
    "pipeline.encoders", "openvino", "transformers", *(f"pipeline.{name}.stage" for name in STAGES),
    "pipeline.encoders.openvino_engine", "pipeline.compare.command",
)  # fmt: skip

IMPORTED = (
    *LIBRARIES, "pipeline.plan.command", "pipeline.leaderboard.command",
    "pipeline.repro.command", "pipeline.shop.command",
    "networkx", "pygit2", "dvc.cli.parser", "dvc.repo.index", "dvc.repo.graph", "dvc.repo.stage",
    "dvc.repo.reproduce", "dvc.repo.experiments.run", "dvc.repo.plots", "dvc.repo.metrics.diff",
    "dvc.repo.params.diff", "dvc.repo.checkout", "dvc.repo.artifacts", "dvc.repo.datasets",
    "dvc.repo.experiments.show", "dvc.repo.experiments.queue.celery", "dvc.cachemgr",
    "dvc.data_cloud", "dvc.utils.strictyaml", "dvc_data.index", "dvc.ui.table", "bench.fault_lab",
)  # fmt: skip

_HUB = {name: value for name, value in os.environ.items() if name.startswith("HF_")}


def fork_server() -> ForkServerContext:
    """Return what forks processes from one that has imported the libraries; start it if need be.

    A session has one: whoever starts it first decides what all processes of tests find imported.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    multiprocessing.forkserver.ensure_running()
    return context


def run_module(
    name: str,
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    timeout: float | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a module in a folder, as `python -m` does, and return how it ended.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    hub = {name: value for name, value in environment.items() if name.startswith("HF_")}
    if hub != _HUB and name != "dvc":  # the stages that dvc runs start anew
        command = [sys.executable, "-m", name, *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
            timeout=timeout,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as made:
        printed = Path(made) / "out", Path(made) / "err"
        process = fork_server().Process(
            target=_run, args=(name, arguments, folder, dict(environment), printed)
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([name, *arguments], timeout or 0.0)
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in printed)
    return subprocess.CompletedProcess([name, *arguments], process.exitcode, out, err)


def _run(
    name: str,
    arguments: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    printed: tuple[Path, Path],
) -> None:
    streams = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in printed]
    run_here(name, arguments, folder, environment, streams)


def run_here(
    name: str,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    streams: Sequence[int],
) -> None:
    """Run a module as `python -m` does, in this process, which is good for nothing else then.

    Args:
        name: the module.
        arguments: its arguments.
        folder: the working folder.
        environment: all environment variables.
        streams: the descriptors of its output and its errors.
    """
    for stream, descriptor in enumerate(streams, start=1):
        os.dup2(descriptor, stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, str(folder))
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
