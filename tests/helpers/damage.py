"""Ways in which a disk, a person or a tool damages a file; each draws how from a generator."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.core.errors import PipelineError

Harm = Callable[[Path, np.random.Generator], None]


def flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    for at in rng.integers(len(content), size=rng.integers(1, 4)):
        content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def cut(path: Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def lengthen(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 50))))


def insert(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    at = rng.integers(len(content))
    path.write_bytes(content[:at] + rng.bytes(int(rng.integers(1, 5))) + content[at:])


def zero(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    start, stop = sorted(rng.integers(len(content) + 1, size=2))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def swap(path: Path, rng: np.random.Generator) -> None:
    others = sorted(one for one in path.parent.iterdir() if one != path)
    other = others[rng.integers(len(others))]
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def remove(path: Path, _: np.random.Generator) -> None:
    path.unlink()


def to_folder(path: Path, _: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()


def to_pipe(path: Path, _: np.random.Generator) -> None:
    path.unlink()
    os.mkfifo(path)


def to_circle(path: Path, _: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path.name)


HARMS: list[Harm] = [flip, cut, lengthen, insert, zero, swap, remove, to_folder, to_circle]
"""All but `to_pipe`, which only some readers expect."""


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
