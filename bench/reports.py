"""Where the reports of benchmarks and proofs are, and what measurements say of their making.

`layout` names those of commands.
"""

import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.measure import Figures
from pipeline import git
from pipeline.core import layout
from pipeline.core.cpu import core_count, cpu_flags

_FOLDER = layout.ENCODE_BENCH.parent

BATCHES = _FOLDER / "batches.md"
EVALUATE = _FOLDER / "evaluate.json"
FAULTS = _FOLDER / "faults.json"
FUZZ = _FOLDER / "fuzz.json"
INTERRUPTIONS = _FOLDER / "interruptions.json"
PROOFS = _FOLDER / "proofs.json"
RAY = _FOLDER / "ray.json"
RERANK = _FOLDER / "rerank.md"
SPELLING = _FOLDER / "spelling.md"
SQ8 = _FOLDER / "sq8.json"

CPU_FLAGS = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"}
LIBRARIES = ("faiss-cpu", "numpy", "pyarrow")


def indexes(products: int) -> Path:
    """Return the report of indexes of so many products."""
    return _FOLDER / f"indexes-{products}.json"


def commit() -> str:
    """Return the short name of the code's commit, with -dirty if tracked files were changed.

    Files under reports/ do not count: the figures themselves are there.
    """
    name = _git("rev-parse", "--short=7", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", ":/", ":(top,exclude)reports")
    return (name or "unknown") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    return (git.try_run("-C", str(Path(__file__).parent), *arguments) or "").strip()


def machine(libraries: Sequence[str] = LIBRARIES) -> Figures:
    """Return what decides speed on this machine, the versions of libraries among it."""
    return {
        "cores": core_count(),
        "cpu": platform.machine(),
        "cpu_flags": sorted(cpu_flags() & CPU_FLAGS),
        "versions": {name: importlib.metadata.version(name) for name in libraries},
    }


def made_by(libraries: Sequence[str] = LIBRARIES) -> Figures:
    """Return the `commit` and the `machine` of figures that are measured now."""
    return {"commit": commit(), "machine": machine(libraries)}


def origin(commits: Iterable[str], made_on: Figures) -> str:
    """Return the line under a table that says of what code and on what machine its figures are."""
    flags = ", ".join(made_on["cpu_flags"])
    names = sorted(set(commits))
    of = f"commit{'s' * (len(names) > 1)} {', '.join(names)}"
    return f"\nOf the {of}, on {made_on['cores']} cores ({flags}).\n"
