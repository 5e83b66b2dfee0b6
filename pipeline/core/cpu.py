"""This machine's CPU: how many cores may be used, and which vector instructions it has.

The instructions decide the last bits of vectors and indexes.
"""

import os
import platform
import re
from pathlib import Path

from pipeline.core.errors import PipelineError, shorten

# The widest first: a CPU with one of them has what matters of those after it.
_VECTOR_FLAGS = ("amx_int8", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "asimddp")


def _cpuinfo() -> str:
    """Return what Linux says of all cores; empty on other systems. It is long on many cores."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def cpu_flags() -> frozenset[str]:
    """Return the instructions that the CPU says it has, none where it cannot be asked."""
    return frozenset(_cpuinfo().split())


def cpu_facts() -> dict[str, str]:
    """Return what the first core says of itself, such as its vendor; empty if it says nothing."""
    first, _, _ = _cpuinfo().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """Return the name that the CPU gives itself; the architecture's where it cannot be asked."""
    return cpu_facts().get("model name") or platform.machine()


def widest_instructions() -> str:
    """Return the widest vector instructions of the CPU: equal ones compute equal bits."""
    flags = cpu_flags()
    return next((flag for flag in _VECTOR_FLAGS if flag in flags), platform.machine())


def bfloat16_instructions() -> str:
    """Return the CPU's instructions for products of bfloat16, the faster ones; empty if none."""
    flags = cpu_flags()
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "")


MOST_THREADS = 4096

THREADS_VARIABLE = "PIPELINE_THREADS"
"""The environment variable that says how many cores this process may use; all if it is not set."""


def number_in(variable: str, unit: str) -> int | None:
    """Return the number that an environment variable holds, None where it is not set.

    Raises:
        PipelineError: it is not a number from 1 to `MOST_THREADS`.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    # At most 9 digits: Python refuses to read numbers of 4,300.
    number = int(value) if re.fullmatch("[0-9]{1,9}", value) else 0
    if not 1 <= number <= MOST_THREADS:
        raise PipelineError(
            f"${variable}: must be a number of {unit} from 1 to {MOST_THREADS} (found "
            f"{shorten(value)}). Correct it, or unset it to use all."
        )
    return number


def core_count() -> int:
    """Return how many cores this process may use: $PIPELINE_THREADS, or all that it may run on.

    Raises:
        PipelineError: the variable is not such a number.
    """
    return number_in(THREADS_VARIABLE, "cores") or allowed_cores()


def allowed_cores() -> int:
    """Return how many cores this process may run on, with or without $PIPELINE_THREADS."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
