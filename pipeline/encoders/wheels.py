"""Wheels of the package index: fetched through the user's pip, and checked by their hash."""

import errno
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.core import layout
from pipeline.core.cache import check_space
from pipeline.core.errors import PipelineError
from pipeline.core.files import clear_away, scratch_beside, sha256_file
from pipeline.core.log import log
from pipeline.core.params import WheelFile

_SIZE = re.compile(r"(?:Downloading|Using cached) \S+ \(([\d.]+) (bytes|kB|MB)\)")
_UNITS = {"bytes": 1, "kB": 10**3, "MB": 10**6}
_COPIES = 2  # of a wheel while it comes; later the wheel and what is unpacked
_PIP = """
import ctypes, os, runpy, signal, sys
parent = int(sys.argv.pop(1))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends where we are killed
    if os.getppid() != parent:
        sys.exit(1)
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


def fetch_wheels(files: Sequence[WheelFile], where: str) -> list[Path]:
    """Return the paths of several wheels in order; as `fetch_wheel`."""
    return [
        fetch_wheel(file.package, file.version, file.sha256, f"{where}.{at}", alike=len(files) - at)
        for at, file in enumerate(files)
    ]


def fetch_wheel(package: str, version: str, sha256: str, where: str, alike: int = 1) -> Path:
    """Return the path of a wheel whose bytes have the hash `sha256`, downloading it if need be.

    A wheel downloaded before is hashed again; one that no longer matches is fetched anew.

    Args:
        package: its name on the package index.
        version: its version.
        sha256: the hash of the wheel file.
        where: the key that names it in params.yaml, for messages.
        alike: how many wheels of about its size are still asked for, this one included; the disk
            must have room for all.

    Raises:
        PipelineError: pip is missing, the index does not hold the wheel or cannot be reached, what
            it holds has another hash, or the disk has no room for it.
        OSError: the disk fails, or is full after all.
    """
    wheel = layout.cache() / "wheels" / f"{sha256}.whl"
    clear_away(wheel)
    if wheel.is_file():
        found = sha256_file(wheel)
        if found == sha256:
            return wheel
        log.warning("%s has the hash %s: damaged; it is downloaded again", wheel, found)
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(wheel) as scratch:
        _download(package, version, sha256, scratch, where, alike).replace(wheel)
    return wheel


def pin_wheel(package: str, version: str, where: str) -> tuple[Path, str]:
    """Return the path of the wheel that pip finds now, and its hash: `fetch_wheel` finds it again.

    Raises:
        PipelineError: pip is missing, the index does not hold the wheel or cannot be reached.
    """
    folder = layout.cache() / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_beside(folder / "new") as scratch:  # a kill leaves what the next call removes
        found = _download(package, version, None, scratch, where, 1)
        sha256 = sha256_file(found)
        return found.replace(folder / f"{sha256}.whl"), sha256


def _download(
    package: str, version: str, sha256: str | None, folder: Path, where: str, alike: int
) -> Path:
    """Let pip download the wheel into `folder`; its hash is checked by pip, and then here.

    With `sha256` None any hash will do.
    """
    if importlib.util.find_spec("pip") is None:
        raise PipelineError(
            f"{where}: pip fetches {package} {version}, but {sys.executable} has no pip. "
            "Run `python -m ensurepip`."
        )
    pinned = folder / "requirements.txt"
    checked = f" --hash=sha256:{sha256}" if sha256 else ""
    pinned.write_text(f"{package}=={version}{checked}\n", encoding="utf-8")
    command = [
        sys.executable, "-c", _PIP, str(os.getpid()), "download", "--no-input",
        "--progress-bar", "off",
        "--retries", "2", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
        # Only bytes are read, so a wheel built for another platform will do anywhere.
        "--platform", "manylinux2014_x86_64",
        *(("--require-hashes",) if sha256 else ()), "-r", str(pinned), "-d", str(folder),
    ]  # fmt: skip
    log.info("fetching the wheel %s %s", package, version)
    status, printed = _run_pip(command, folder, where, alike)
    wheels = sorted(folder.glob("*.whl"))
    found = re.search(r"Got\s+([0-9a-f]{64})", printed)
    got = found.group(1) if found else None
    if status == 0 and wheels:
        got = sha256_file(wheels[0])
        if sha256 in (None, got):
            return wheels[0]
    if got:
        raise PipelineError(
            f"{where}.sha256: {package} {version} on the package index has the hash {got}, "
            f"expected {sha256}. Pin the hash found if you trust the file there."
        )
    said = printed[max(printed.find("ERROR:"), 0) :].splitlines()
    codes = [int(code) for code in re.findall(r"\[Errno (\d+)\]", "\n".join(said))]
    for code in set(codes) & set(_OF_THE_DISK):
        raise OSError(code, os.strerror(code), str(folder.parent))
    raise PipelineError(
        f"{where}: pip cannot download the wheel {package} {version}: {_reason(said, status)}. "
        "Check the name, the version and that pip reaches its index, or name a local folder "
        "(weights.kind: folder)."
    )


def _reason(said: Sequence[str], status: int) -> str:
    """Return why pip failed, by its lines from the first error on."""
    errors = [line for line in said if line.startswith("ERROR:")]
    reason = (errors or [f"pip ended with status {status}"])[-1].removeprefix("ERROR: ")
    # Behind this one comes a traceback.
    return (said[-1] if reason == "Exception:" else reason).rstrip(".")


def _run_pip(command: list[str], folder: Path, where: str, alike: int) -> tuple[int, str]:
    """Run pip, its temporary files in `folder`; return its exit status and what it printed.

    pip names the size before it downloads: that is said, and it is ended if the disk has no room.
    """
    printed: list[str] = []
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        encoding="utf-8", errors="replace", env=environment,
    ) as pip:  # fmt: skip
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                printed.append(line)
                if size := _SIZE.search(line):
                    log.info("downloading %s %s", size[1], size[2])
                    needed = round(float(size[1]) * _UNITS[size[2]])
                    check_space(folder, _COPIES * alike * needed, where)
        except BaseException:
            pip.kill()
            raise
    return pip.returncode, "".join(printed)
