"""Read a file of a revision from DVC's cache or remote, in a process of its own.

A revision's own .dvc/config, dvc.yaml and dvc.lock lead DVC to the file, and anyone may have
written those. If they break DVC, a comparison only loses titles. Some libraries of remotes
also leave threads that abort Python's exit.
"""

import subprocess
import sys
from pathlib import Path

from pipeline.core import start

SECONDS = 300
"""How long one file may take."""


def pull(path: Path, commit: str | None, prefix: Path) -> bytes | None:
    """Return a file of a commit, or of the workspace for None; None where DVC cannot read it.

    Args:
        path: the file, from this folder.
        commit: the commit.
        prefix: the path from the repository's root to this folder.
    """
    if commit is None and path.exists() and not path.is_file():
        return None  # DVC would wait for a pipe
    # DVC takes a commit's paths from the repository's root.
    arguments = [path.as_posix()] if commit is None else [(prefix / path).as_posix(), commit]
    command = [sys.executable, "-m", __name__, *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=SECONDS).stdout
    except subprocess.SubprocessError:
        return None


def main() -> None:
    """Write the file that the arguments name to stdout: a path, and a commit if there is one."""
    from dvc.api import DVCFileSystem  # slow to import, and needed here alone

    start.end()
    path, commit = [*sys.argv[1:], None][:2]
    with DVCFileSystem(rev=commit, subrepos=True).open(path, "rb") as file:
        sys.stdout.buffer.write(file.read())


if __name__ == "__main__":
    main()
