"""A namespace of the store: its name, its files, and the message when its folder cannot be used."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import PipelineError

ABOUT = "about.json"

LOCK = ".lock"

_LIMITS_OF_THE_PROCESS = {errno.EFBIG, errno.EMFILE}
"""Errors that another folder would not avoid: `stage` has the remedies."""


def namespace_name(about: bytes) -> str:
    """Return the folder name of a namespace whose about.json has these bytes."""
    return hashlib.sha256(about).hexdigest()[:16]


@contextmanager
def explain_os_errors(root: Path) -> Iterator[None]:
    """Turn an error of the disk or of permissions into a `PipelineError` that names the store."""
    try:
        yield
    except OSError as err:
        if err.errno in _LIMITS_OF_THE_PROCESS:
            raise
        raise PipelineError(
            f"the store of vectors in {root} cannot be used ({err}). Free some space, make it a "
            "folder that you can write to, or set $PIPELINE_CACHE to another folder."
        ) from err
