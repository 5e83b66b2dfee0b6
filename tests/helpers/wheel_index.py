"""A folder of wheels as the only index that pip knows."""

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.core.files import sha256_file


def use_index(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder pip's only index, and another one the cache; return the first."""
    folder.mkdir()
    monkeypatch.setenv("PIPELINE_CACHE", str(cache))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


def write_wheel(index: Path, package: str, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write a wheel and return its package, version and sha256."""
    wheel = index / f"{package}-1.0-py3-none-any.whl"
    about = f"{package}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        for name, text in (("METADATA", metadata), ("WHEEL", tags), ("RECORD", "")):
            archive.writestr(zipfile.ZipInfo(f"{about}/{name}"), text)
    return {"package": package, "version": "1.0", "sha256": sha256_file(wheel)}


def stock(index: Path, cache: Path) -> None:
    """Put the wheels of an index into the cache, as if pip had fetched them."""
    (cache / "wheels").mkdir(parents=True, exist_ok=True)
    for wheel in index.glob("*.whl"):
        shutil.copy(wheel, cache / "wheels" / f"{sha256_file(wheel)}.whl")


def contents(folder: Path, prefix: str) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by its path in it after a prefix."""
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
