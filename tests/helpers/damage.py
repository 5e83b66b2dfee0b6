"""What may be in the place of a file, and the message of whoever reads it."""

import os
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
