"""Ctrl-C while a command is still being imported: one line, as when it runs."""

import os
import signal
from dataclasses import dataclass

INTERRUPTED = 130
"""The exit status of what Ctrl-C ends."""


@dataclass(frozen=True)
class _Quit:
    """A handler that ends the process with one line, which names the command."""

    name: str

    def __call__(self, *_: object) -> None:
        try:
            os.write(2, f"{self.name} was interrupted.\n".encode())
        finally:  # also where the standard error is closed
            os._exit(INTERRUPTED)


def quit_at_once(name: str) -> None:
    """Let Ctrl-C end the process with one line, until `raise_again`.

    Nothing is written by then. An exception would not do: half-imported libraries catch it, or
    print it with a traceback.

    Args:
        name: of the command, for the line.
    """
    # A shell's background jobs ignore it.
    if _quits() or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _Quit(name))


def raise_again() -> None:
    """Let Ctrl-C be a `KeyboardInterrupt` from here on, where it ends the process at once."""
    if _quits():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _quits() -> bool:
    return isinstance(signal.getsignal(signal.SIGINT), _Quit)
