"""Ctrl-C while a command is still being imported: one line, as when it runs."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""The exit status of what Ctrl-C ends."""


@contextmanager
def quit_at_once(name: str) -> Iterator[None]:
    """End the process with one line if it is interrupted within the block.

    Nothing is written by then. An exception would not do: half-imported libraries catch it, or
    print it with a traceback.

    Args:
        name: of the command, for the line.
    """

    def end(*_: object) -> None:
        os.write(2, f"{name} was interrupted.\n".encode())
        os._exit(INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # a shell's background jobs ignore it
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
