"""A namespace of the store: its name, its files, and what is said when a disk refuses."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import PipelineError
from pipeline.store.segments import Keys as Keys

ABOUT = "about.json"

LOCK = ".lock"

_UNUSABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
    errno.EIO,
    errno.ENOENT,  # deleted while it is written to
}  # fmt: skip


def namespace_name(about: bytes) -> str:
    """Return the folder name of a namespace whose about.json holds these bytes."""
    return hashlib.sha256(about).hexdigest()[:16]


@contextmanager
def explain_os_errors(root: Path) -> Iterator[None]:
    """Name the store and the way out in what the system says of a disk or of permissions."""
    try:
        yield
    except OSError as err:
        if err.errno not in _UNUSABLE:
            raise
        raise PipelineError(
            f"the store of vectors in {root} cannot be used: {err}; make room for it or make it a "
            "folder that you may write, or let $PIPELINE_CACHE name another folder"
        ) from err
