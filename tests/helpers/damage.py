"""Ways to damage a file or its bytes, and the message of whoever reads it."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from pipeline.core.errors import PipelineError


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def message_of(act: Callable[[], object], what: str) -> str:
    """Do something; return the message of its `PipelineError`, one line, or "" if it succeeds.

    `what` names the damage where the error is of another class.
    """
    message = ""
    try:
        act()
    except PipelineError as err:
        message = str(err)
    except Exception as err:
        raise AssertionError(what) from err
    assert len(message.splitlines()) <= 1, (what, message)
    return message


def flip(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one bit flipped."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """Return the first bytes."""
    return data[: rng.randrange(len(data))]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with some of them replaced."""
    at = rng.randrange(len(data))
    other = rng.randbytes(rng.randrange(1, 40))
    return data[:at] + other + data[at + len(other) :]
