"""What the search keeps in the cache: folders that are whole, checked, and mapped when read.

A folder is named after the hash of what it was made from, so it is never out of date. Its card has
the hash of every file.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from pipeline.core import files
from pipeline.core.cards import read_model
from pipeline.core.errors import PipelineError

CARD = "card.json"

KEPT_FOLDERS = 6
"""The fewest folders that stay; two for each locale, before and after a change, if these are more.
"""


def keep(folder: Path, make: Callable[[Path], None], locales: int) -> None:
    """Fill a folder of the cache, unless it is there whole; make room for it by the oldest.

    Args:
        folder: the folder.
        make: writes the files into the folder that it gets.
        locales: how many locales there are, each with folders of its own.
    """
    with suppress(PipelineError):
        check(folder)
        return
    with files.atomic_directory(folder) as partial:
        make(partial)
        hashes = {path.name: files.sha256_file(path) for path in sorted(partial.iterdir())}
        files.write_json(partial / CARD, hashes)
    others = [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]
    others = [path for path in others if not path.name.startswith(".")]
    for old in sorted(others, key=_age, reverse=True)[max(KEPT_FOLDERS, 2 * locales) - 1 :]:
        shutil.rmtree(old, ignore_errors=True)  # who has mapped a file keeps it


def check(folder: Path) -> None:
    """Check every file of a folder against its card.

    Raises:
        PipelineError: one is missing or damaged.
    """
    remedy = f"Delete {folder}; the next search makes it again."
    hashes = read_model(folder / CARD, dict[str, str], remedy)
    for name, expected in hashes.items():
        files.check_regular(folder / name, remedy)
        if files.sha256_file(folder / name) != expected:
            raise PipelineError(f"{folder / name} is damaged. {remedy}")


def map_table(path: Path) -> pa.Table:
    """Return an Arrow file as a table whose rows are read from the disk as they are needed."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as file:
        return file.read_all()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow file that can be mapped."""
    with path.open("wb") as handle, pa.ipc.new_file(handle, table.schema) as writer:
        writer.write_table(table)


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
