"""Files that are whole or absent: atomic writes, canonical JSON, hashes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import PipelineError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a neighbour of `path` to write to; it takes `path`'s place if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_away(path)
    partial = _beside(path, "partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty neighbour of `path` to fill; it takes `path`'s place if the block succeeds.

    What stood at `path` stays untouched until the new directory is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_away(path)
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


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def _clear_away(path: Path) -> None:
    """Remove what killed processes left beside `path`.

    One that was killed between its two renames left the only copy there: that one comes back.
    """
    for left_over in path.parent.glob(f".{path.name}.*.partial"):
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
    except ProcessLookupError:
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


def write_json(path: Path, data: object) -> None:
    """Write `data` as canonical JSON, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(canonical_json(data), encoding="utf-8", newline="\n")


def write_npy(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array as .npy; unlike `np.save`, a full disk shows as the system's own error."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as handle:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(array.data)


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        remedy: what brings the file back, such as "run `dvc repro clean@es`"; part of the message.

    Raises:
        PipelineError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing. {remedy}") from err
    except OSError as err:
        raise PipelineError(f"{path} cannot be read ({err.strerror}). {remedy}") from err
    except (ValueError, RecursionError) as err:
        raise PipelineError(f"{path} is not readable as JSON ({err}). {remedy}") from err


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
