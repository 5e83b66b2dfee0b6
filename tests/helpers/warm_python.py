"""A `python` whose stages start at once: forks of a process that has imported everything.

DVC starts each stage as `python -m pipeline.NAME`, and imports would take most of a stage's time.
The command here is for the front of a search path. What it runs has a folder, an environment,
arguments, output and an exit status of its own. A hash seed, a time zone and a locale are those of
the first process. So is the code: stages run this project's, not that of a copy. It is not for
stages that a test kills: they are no children of the command.
"""

import importlib
import json
import os
import shlex
import socket
import socketserver
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from tests.helpers.processes import LIBRARIES, run_here

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("python_client.py")

# The other stages of the graph, and what training and tracing a model import when they run.
ALSO = (
    "contract", "systems", "rerank", "similar", "duplicates", "clusters", "catalogue", "pairs",
    "train",
)  # fmt: skip
IMPORTED = (*LIBRARIES, "torch", *(f"pipeline.{name}.stage" for name in ALSO))

READY = "ready\n"


@contextmanager
def warm_python(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a folder with the command `python`, which is there until the `with` ends.

    Args:
        environment: that of the first process. Its variables of the Hugging Face hub are those of
            every stage: the hub's library reads them when it is imported.
    """
    with tempfile.TemporaryDirectory() as folder:
        address, command = Path(folder) / "socket", Path(folder) / "python"
        words = (sys.executable, "-IS", str(CLIENT), str(address))
        command.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.warm_python", str(address)],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == READY
                yield folder
            finally:
                process.terminate()


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks for each command, and ends where the tests that started it have ended."""

    started_by = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.started_by:
            sys.exit()


class _Command(socketserver.StreamRequestHandler):
    """Runs one command in a fork, and answers with its exit status."""

    def handle(self) -> None:
        _, streams, _, _ = socket.recv_fds(self.request, 1, 2)
        module, *arguments, folder, environment = json.loads(self.rfile.read())
        process = get_context("fork").Process(
            target=run_here, args=(module, arguments, Path(folder), environment, streams)
        )
        process.start()
        process.join()
        self.wfile.write(f"{process.exitcode}\n".encode())


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    with _Server(sys.argv[1], _Command) as server:
        sys.stdout.write(READY)
        sys.stdout.flush()
        server.serve_forever()
