"""Files that are whole or absent: atomic writes, canonical JSON, hashes."""

import glob
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.core.errors import PipelineError, one_line, shorten

MOST_LINKS = 40
"""How many links may lead to a file, as on Linux."""

MOST_BYTES = 1 << 28
"""What a JSON file may have at most; the largest of this project have a few megabytes."""

MOST_LEVELS = 64
"""How deep JSON may be nested; this project's is at most 6 levels deep."""

MOST_FOREIGN_BITS = 1_023
"""How large a whole number may be that another project wrote: float64 holds it."""


@contextmanager
def atomic_file(path: Path, *, follow_links: bool = False) -> Iterator[Path]:
    """Yield a neighbour of `path` to write to; it takes `path`'s place if the block succeeds.

    A device or a pipe is written to, once the block has succeeded.

    Args:
        path: the file.
        follow_links: whether the target of a link is replaced, as for a file that a user names. An
            artefact may be a link into DVC's cache, whose file must stay: the link is replaced.

    Raises:
        PipelineError: `path` is a folder, a disk, a socket or a link that leads to itself.
    """
    end = _end_of_links(path)
    if follow_links or _of_the_system(end):
        path = end
    replaces_link = path.is_symlink() and not _of_the_system(path)
    if not replaces_link and takes_a_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "whole"
            yield whole
            with whole.open("rb") as source, path.open("ab") as stream:
                shutil.copyfileobj(source, stream)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_away(path)
    partial = _beside(path, "partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty neighbour of `path` to fill; it takes `path`'s place if the block succeeds.

    Until the new folder is complete, the old one stays as it is. A link is followed: its target
    is replaced.

    Raises:
        PipelineError: `path` is a file, or is a link that leads to itself.
    """
    path = _end_of_links(path)
    if path.exists() and not path.is_dir():
        raise PipelineError(f"{path} must be a folder (found a file). Move it away.")
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_away(path)
    partial, replaced = _beside(path, "partial"), _beside(path, "replaced.partial")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(replaced)
        try:
            partial.rename(path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Yield an empty folder on the disk of `path`, for the time until `path` is made.

    After a kill, the next `clear_away` of `path` removes it.
    """
    clear_away(path)
    scratch = _beside(path, "partial")
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def files_into(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; its files go into `folder` if the block succeeds.

    There they replace the files of their names one by one, each whole; links to such files are
    followed. No file is replaced before all of them may be.

    Raises:
        PipelineError: a name in `folder` is of what `atomic_file` refuses.
        OSError: a file is where a subfolder should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_beside(folder / "files") as scratch:
        yield scratch
        made = sorted(each for each in scratch.rglob("*") if each.is_file())
        places = [folder / each.relative_to(scratch) for each in made]
        for place in places:
            takes_a_stream(place)
        for path, place in zip(made, places, strict=True):
            with atomic_file(place, follow_links=True) as partial:
                shutil.move(path, partial)


def _end_of_links(path: Path) -> Path:
    """Return what `path` is in the end, where it is a link.

    /dev and /proc are not followed: there, /dev/stdout is a link to a name that does not exist,
    or to a file that the shell writes to as well.
    """
    given = path
    for _ in range(MOST_LINKS):
        if _of_the_system(path) or not path.is_symlink():
            return path
        path = path.parent / path.readlink()
    raise PipelineError(f"{given} is a link that leads to itself. Remove it.")


def takes_a_stream(path: Path) -> bool:
    """Say whether bytes are written into the file at `path`, instead of replacing it.

    Raises:
        PipelineError: it can neither be written into nor be replaced, or is a link that leads to
            itself.
    """
    path = _end_of_links(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    for test, kind in (
        (stat.S_ISDIR, "a folder"), (stat.S_ISBLK, "a disk"), (stat.S_ISSOCK, "a socket"),
    ):  # fmt: skip
        if test(mode):
            raise PipelineError(f"{path} is {kind}. Name a file.")
    return _of_the_system(path) or not stat.S_ISREG(mode)


def _of_the_system(path: Path) -> bool:
    """Say whether a path is in /dev or /proc; /dev/shm is a disk in memory, of usual files."""
    top = Path(os.path.abspath(path)).parts[1:3]  # noqa: PTH100
    return top[:1] in (("dev",), ("proc",)) and top != ("dev", "shm")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def clear_away(path: Path) -> None:
    """Remove what killed processes left beside `path`.

    A process that was killed between its two renames left the only copy there: that one comes back.
    """
    for left_over in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        process = left_over.name.removeprefix(f".{path.name}.").split(".")[0]
        if not process.isdecimal() or (int(process) != os.getpid() and _runs(int(process))):
            continue
        if left_over.name.endswith(".replaced.partial") and not path.exists():
            with suppress(OSError):  # another process brought it back first
                left_over.rename(path)
        elif left_over.is_dir():
            shutil.rmtree(left_over, ignore_errors=True)
        else:
            left_over.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def canonical_json(data: object) -> str:
    """Return `data` as JSON with sorted keys, so that equal data give equal text.

    Raises:
        ValueError: for NaN or infinity, which JSON cannot hold.
    """
    return json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, data: object, *, follow_links: bool = False) -> None:
    """Write `data` as canonical JSON, atomically; `follow_links` as `atomic_file` has it."""
    write_text(path, canonical_json(data), follow_links=follow_links)


def write_text(path: Path, text: str, *, follow_links: bool = False) -> None:
    """Write text as UTF-8, atomically; `follow_links` as `atomic_file` has it."""
    with atomic_file(path, follow_links=follow_links) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def read_bytes(path: Path, remedy: str, at_most: int = MOST_BYTES) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        remedy: a sentence that says what brings the file back; the message ends with it.
        at_most: how many bytes it may have.

    Raises:
        PipelineError: the file is missing, is not a regular file, is too large or cannot be read.
    """
    size = check_regular(path, remedy)
    if size > at_most:
        raise PipelineError(f"{path} must have at most {at_most} bytes (found {size}). {remedy}")
    with _reading(path, remedy):
        return path.read_bytes()


def check_regular(path: Path, remedy: str) -> int:
    """Return the size of a file in bytes: a folder cannot be read, and a pipe may never end.

    Raises:
        PipelineError: the file is missing, cannot be reached or is not a regular file.
    """
    with _reading(path, remedy):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise PipelineError(f"{path} is not a regular file. {remedy}")
    return found.st_size


@contextmanager
def _reading(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing. {remedy}") from err
    except OSError as err:
        raise PipelineError(f"{path} cannot be read: {err.strerror or err}. {remedy}") from err


def read_json(path: Path, remedy: str, *, foreign: bool = False) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        remedy: a sentence that says what brings the file back; the message ends with it.
        foreign: as `parse_json` has it.

    Raises:
        PipelineError: the file is missing, or `parse_json` refuses it.
    """
    return parse_json(read_bytes(path, remedy), str(path), remedy, foreign=foreign)


def parse_json(data: bytes, where: str, remedy: str, *, foreign: bool = False) -> Any:
    """Return what JSON text says.

    Args:
        data: the text, in UTF-8.
        where: where it comes from; messages begin with it.
        remedy: a sentence that says what to do; messages end with it.
        foreign: whether another project wrote it, whose integers may have more than 64 bits: a
            tokenizer without a limit is one of 10^30 tokens.

    Raises:
        PipelineError: it is not JSON, repeats a key, is nested too deeply, or holds a number or a
            text that Python cannot compute with or write: NaN, 1e400, half a surrogate pair.
    """
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=without_repeats)
        _check_values(found, most_bits=MOST_FOREIGN_BITS if foreign else 64)
    except (ValueError, RecursionError) as err:
        raise PipelineError(f"{where} is not readable as JSON ({one_line(err)}). {remedy}") from err
    return found


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict; raise a ValueError for a repeated name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shorten(repeated)} is repeated")
    return found


def _check_values(data: object, most_bits: int) -> None:
    """Raise a ValueError for what JSON can spell and no artefact holds."""
    level: list[object] = [data]
    for _ in range(MOST_LEVELS + 1):
        below: list[object] = []
        for value in level:
            if isinstance(value, str):
                if not value.isascii():
                    value.encode()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, float):
                if not math.isfinite(value):
                    raise ValueError(f"{value} is not a number")
            elif isinstance(value, int) and value.bit_length() > most_bits:
                raise ValueError(f"a number has more than {most_bits} bits")
        if not below:
            return
        level = below
    raise ValueError(f"it has more than {MOST_LEVELS} levels")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of lines, each closed by a newline, in hexadecimal."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
