"""Run DVC commands, some side by side, and end them so that DVC finishes what it writes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import psutil

from pipeline.core.log import log

DVC = (sys.executable, "-m", "dvc")

STARTED_SECONDS = 0.3
"""A process this old is the stage itself, no longer the copy of DVC that starts it."""

END_SECONDS = 10.0
"""How long the stage of a killed DVC has to end."""


class Runner:
    """DVC commands, each a process group of its own: a terminal's Ctrl-C does not reach it.

    DVC is never interrupted: it writes dvc.lock in place. Its stage is, and DVC then ends as it
    does after a stage that failed. Only a second interruption kills DVC.
    """

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor of `protected`, which the commands inherit."""
        self._descriptor = descriptor
        self._running: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self, commands: Mapping[str, Sequence[str]], jobs: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, int]:  # fmt: skip
        """Run commands and return the exit status of each; below 0 it is a signal's number.

        Args:
            commands: the arguments of each DVC command, by the name that its lines begin with. The
                lines of a single command are printed as they are.
            jobs: how many run at a time.
            environment: environment variables beside those of this process.

        Raises:
            KeyboardInterrupt: this process was interrupted; all commands have ended.
        """
        prefixed = len(commands) > 1
        futures: dict[str, Future[int]] = {}
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for name, arguments in commands.items():
                    futures[name] = pool.submit(
                        self._run, [*DVC, *arguments], name if prefixed else None, environment or {}
                    )
                wait(futures.values())
            except KeyboardInterrupt:
                self._stop(futures.values())
                raise
        return {name: future.result() for name, future in futures.items()}

    def _run(
        self, command: Sequence[str], prefix: str | None, environment: Mapping[str, str]
    ) -> int:
        options: dict[str, Any] = {
            "start_new_session": True, "stdin": subprocess.DEVNULL, "text": True,
            "env": {**os.environ, **environment}, "pass_fds": [self._descriptor],
        }  # fmt: skip
        if prefix is not None:
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
                        "encoding": "utf-8", "errors": "replace"}  # fmt: skip
        with self._lock:
            if self._stopped:
                return 1
            process = subprocess.Popen(command, **options)
            self._running.append(process)
        reader = threading.Thread(target=_copy_lines, args=(process, prefix), daemon=True)
        reader.start()
        status = process.wait()
        if status < 0:  # nobody waits for its stage any more
            _end_group(process.pid)
        reader.join()
        return status

    def _stop(self, futures: Collection[Future[int]]) -> None:
        """Interrupt every stage until all commands have ended; kill them when asked again."""
        with self._lock:
            self._stopped = True
        log.info("Stopping: DVC finishes what it writes. Interrupt again to kill it.")
        interrupted: set[int] = set()
        while True:
            try:
                for process in self._running:
                    interrupted |= _interrupt_stages(process, interrupted)
                if not wait(futures, timeout=0.1).not_done:
                    return
            except KeyboardInterrupt:
                for process in self._running:
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)


def _copy_lines(process: subprocess.Popen[str], prefix: str | None) -> None:
    if process.stdout is None:
        return
    with process.stdout:
        for line in process.stdout:
            sys.stdout.write(f"{prefix} | {line}")
            sys.stdout.flush()


def _interrupt_stages(process: subprocess.Popen[str], before: set[int]) -> set[int]:
    """Interrupt what DVC started in its own group, once; return the process ids."""
    found: set[int] = set()
    if process.poll() is not None:
        return found
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return found
    for child in children:
        try:
            old = time.time() - child.create_time() > STARTED_SECONDS
            if old and child.pid not in before and os.getpgid(child.pid) == process.pid:
                child.send_signal(signal.SIGINT)
                found.add(child.pid)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def _end_group(group: int) -> None:
    """End what is left of a process group, and wait for it."""

    def left() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and os.getpgid(process.pid) == group:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    for ending in (signal.SIGTERM, signal.SIGKILL):
        ends = time.monotonic() + END_SECONDS
        processes = left()
        for process in processes:
            try:
                process.send_signal(ending)
            except psutil.NoSuchProcess:
                continue
        while processes and time.monotonic() < ends:
            time.sleep(0.05)
            processes = left()
        if not processes:
            return
