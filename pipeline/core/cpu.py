"""This machine's CPU: how many cores may be used, and which vector instructions it has.

The instructions decide the last bits of vectors and indexes.
"""

import os
import platform
from pathlib import Path

from pipeline.core.errors import PipelineError

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


MOST_THREADS = 4096

THREADS_VARIABLE = "PIPELINE_THREADS"
"""The environment variable that says how many cores this process may use, where not all."""


def number_in(variable: str, unit: str) -> int | None:
    """Return the number that an environment variable holds, None where it is not set.

    Raises:
        PipelineError: it holds none from 1 to `MOST_THREADS`.
    """
    told = os.environ.get(variable)
    if not told:
        return None
    if not (told.isascii() and told.isdecimal() and 1 <= int(told) <= MOST_THREADS):
        raise PipelineError(
            f"${variable}: {told!r} is no number of {unit} from 1 to {MOST_THREADS}; mend it, or "
            "unset it to use all"
        )
    return int(told)


def core_count() -> int:
    """Return how many cores this process may use: $PIPELINE_THREADS, or all that it may run on.

    Raises:
        PipelineError: the variable holds no such number.
    """
    if told := number_in(THREADS_VARIABLE, "cores"):
        return told
    return allowed_cores()


def allowed_cores() -> int:
    """Return how many cores this process may run on, whatever share of them it was given."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
