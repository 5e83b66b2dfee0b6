"""What this machine's CPU computes with: it decides the last bits of vectors and indexes."""

import platform
from pathlib import Path

# The widest first: a CPU with one of them has what matters of those after it.
_VECTOR_FLAGS = ("amx_int8", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "asimddp")


def cpu_flags() -> frozenset[str]:
    """Return what instructions the CPU says that it has, nothing where it cannot be asked."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()


def widest_instructions() -> str:
    """Return the widest vector instructions of the CPU: equal ones compute equal bits."""
    return next((flag for flag in _VECTOR_FLAGS if flag in cpu_flags()), platform.machine())
