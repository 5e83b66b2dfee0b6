"""Whether another machine computes the same bits: its CPU, its packages, this code."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pipeline
from pipeline.core.cpu import widest_instructions
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file, sha256_lines

CPU, CODE = "CPU instructions", "pipeline/"


def fingerprint(packages: Iterable[str], *, on_cpu: bool = True) -> dict[str, str]:
    """Return what this machine's results depend on: instructions, versions, the code of `pipeline`.

    Args:
        packages: the packages that compute, such as openvino.
        on_cpu: whether they compute on the CPU.
    """
    found = {CPU: widest_instructions()} if on_cpu else {}
    found[CODE] = code_hash(Path(pipeline.__file__).parent)
    for package in packages:
        try:
            # Builds for other devices have a local version: 2.13.0+cpu.
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def code_hash(folder: Path) -> str:
    """Return the first digits of a hash of all Python files of a folder, wherever it is."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    return sha256_lines(f"{sha256_file(folder / name)}  {name}" for name in names)[:12]


def check_fingerprint(expected: Mapping[str, str]) -> None:
    """Raise a `PipelineError` unless this machine, a worker's, has the expected fingerprint."""
    found = fingerprint(name for name in expected if name not in (CPU, CODE))
    for name, wanted in expected.items():
        if found[name] == wanted:
            continue
        remedy = (
            "Use workers with the CPU of the machine that hands out the work, or run the stage on "
            "a machine with theirs."
            if name == CPU
            else "Bring every node to the same checkout and packages."
        )
        raise PipelineError(
            f"a worker of the Ray cluster, on {platform.node()}, would compute other bits: {name} "
            f"{found[name]}, expected {wanted}. {remedy}"
        )
