"""Work on several processes, for Python code that one core at a time can run.

A worker is a program that answers Arrow batches. It gets them on its standard input, and ends with
it: so none outlives the process that started it, however that one ended.
"""

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from pipeline.core import start
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.parallel import in_parallel

_ROOT = Path(__file__).parents[2]


class Workers:
    """Some processes that run the same module, which calls `answer_all`.

    `with` starts them, and ends them.
    """

    def __init__(self, module: str, arguments: list[str], count: int, name: str) -> None:
        """Keep what to start.

        Args:
            module: with its arguments, what each of them runs.
            arguments: of the module.
            count: how many processes.
            name: what they do, for messages.
        """
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._count = count
        self._name = name
        self._all: list[_Worker] = []
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        for started in range(self._count):
            try:
                worker = _Worker(self._command)
            except OSError as err:
                self._kill()
                raise PipelineError(
                    f"{self._name}: {self._count} processes for it could not be started (found "
                    f"{started}: {one_line(err)}). Use a smaller runtime.threads."
                ) from err
            self._all.append(worker)
            self._free.put(worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is not None:
            self._kill()
        for worker in self._all:
            worker.end()

    def map(self, batches: Iterable[pa.RecordBatch], waiting: int) -> Iterator[pa.RecordBatch]:
        """Yield the answer to each batch, in their order; `waiting` is that of `in_parallel`.

        Raises:
            PipelineError: a process was killed before its answer.
            RuntimeError: it failed by itself, after its own traceback, or answered something else.
        """
        return in_parallel(self._ask, batches, self._count, waiting, given_up=self._kill)

    def _ask(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        worker = self._free.get()
        try:
            return worker.ask(batch)
        except (OSError, EOFError, StopIteration, pa.ArrowException) as err:
            status = worker.status()
            if status is None or status >= 0:  # a bug, which another run would only repeat
                found = "a broken answer" if status is None else f"status {status}"
                raise RuntimeError(
                    f"{self._name}: {' '.join(self._command[3:])} failed (found {found})"
                ) from err
            raise PipelineError(
                f"{self._name}: one of {self._count} processes for it ended early (found signal "
                f"{_signal_name(-status)}). Run it again; if it had too little memory, with a "
                "smaller runtime.threads."
            ) from err
        finally:
            self._free.put(worker)

    def _kill(self) -> None:
        for worker in self._all:
            worker.kill()


class _Worker:
    def __init__(self, command: list[str]) -> None:
        # A group of its own: Ctrl-C is for the process that started it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_python_path())},
        )  # fmt: skip
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._reader: pa.ipc.RecordBatchStreamReader | None = None

    def ask(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the answer to a batch."""
        assert self._process.stdin
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._process.stdin, batch.schema)
        self._writer.write_batch(batch)
        self._process.stdin.flush()
        if self._reader is None:
            self._reader = pa.ipc.open_stream(self._process.stdout)
        return self._reader.read_next_batch()

    def status(self) -> int | None:
        """Return the exit status, -N for signal N; None of a process that has not ended."""
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()

    def end(self) -> None:
        """Let the process end, and wait for it."""
        with suppress(OSError):  # it has ended before
            self._process.communicate()
        self._process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)


def _python_path() -> list[str]:
    """Return where a new Python finds this package, also where it is not installed."""
    before = os.environ.get("PYTHONPATH")
    return [str(_ROOT), *([before] if before else [])]


def answer_all(answer: Callable[[pa.RecordBatch], pa.RecordBatch], schema: pa.Schema) -> None:
    """Be a worker: answer the batches on the standard input until it ends.

    Args:
        answer: the work.
        schema: of what it returns.
    """
    start.end()
    start.spare_pandas()
    out = sys.stdout.buffer
    try:
        writer = pa.ipc.new_stream(out, schema)
        for batch in _asked():
            writer.write_batch(answer(batch))
            out.flush()
    except BrokenPipeError:
        os._exit(1)  # an ordinary end would flush once more, and complain


def _asked() -> Iterator[pa.RecordBatch]:
    """Yield the batches on the standard input; it may end anywhere if who asks was killed."""
    with suppress(OSError, pa.ArrowInvalid), pa.ipc.open_stream(sys.stdin.buffer) as batches:
        yield from batches
