"""How much memory a stage may take; work that would take more is refused."""

import os
from contextlib import suppress
from pathlib import Path

from pipeline.core.cpu import number_in
from pipeline.core.errors import PipelineError
from pipeline.core.params import Runtime

GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux says what a container may take, in its two ways."""

MARGIN = 1.1
"""How many times the predicted memory a message recommends as the limit: bm25 predicts again as it
reads on, and the recommended limit must still be enough."""

PROCESS_BYTES = 300_000_000
"""What a stage takes before it holds any data: the interpreter and its libraries."""


SHARERS_VARIABLE = "PIPELINE_MEMORY_SHARERS"
"""The environment variable that says how many processes share the memory; one if it is not set."""


class MemoryLimitError(PipelineError):
    """Work would take more memory than a stage may take."""


def limit_bytes(runtime: Runtime) -> int:
    """Return what a stage may take, in bytes.

    That is `runtime.memory_limit`, or all that the machine or the container has; stages that run
    side by side (JOBS) share it equally.

    Raises:
        PipelineError: $PIPELINE_MEMORY_SHARERS is not a number.
    """
    whole = machine_bytes()
    if runtime.memory_limit is not None:
        whole = round(runtime.memory_limit * 1e9)
    return whole // _sharers()


def machine_bytes() -> int:
    """Return the memory of the machine, or of the container where that is less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in GROUP_LIMITS:
        with suppress(OSError, ValueError):  # none of this kind, or "max"
            found = min(found, int(path.read_text()))
    return found


def check(needed: int, what: str, runtime: Runtime, remedy: str) -> None:
    """Refuse work that needs more memory than a stage may take.

    Args:
        needed: in bytes, predicted.
        what: names what needs it; the message begins with it.
        runtime: has the limit.
        remedy: other ways out than a higher limit; part of the message.

    Raises:
        MemoryLimitError: the limit is less than `needed`.
    """
    limit, sharers = limit_bytes(runtime), _sharers()
    if needed <= limit:
        return
    enough = gigabytes(round(MARGIN * needed * sharers), "ceil")
    where = "this machine has" if runtime.memory_limit is None else "runtime.memory_limit allows"
    if sharers > 1:
        where += f" for each of JOBS={sharers}"
        remedy = f"use a smaller JOBS, {remedy}"
    ways_out = f"{remedy}, or set" if remedy else "Set"
    more, less = unequal_gigabytes(needed, limit)
    raise MemoryLimitError(
        f"{what} would take {more} of memory, more than the {less} that {where}. "
        f"{ways_out[0].upper()}{ways_out[1:]} runtime.memory_limit to {enough[:-3]} where there is "
        "that much."
    )


def _sharers() -> int:
    return number_in(SHARERS_VARIABLE, "processes") or 1


def gigabytes(count: int, how: str = "round", decimals: int = 1) -> str:
    """Return a number of bytes in gigabytes, rounded or (`ceil`) rounded up."""
    unit = 10 ** (9 - decimals)
    units = -(-count // unit) if how == "ceil" else round(count / unit)
    return f"{units / 10**decimals:.{decimals}f} GB"


def unequal_gigabytes(one: int, other: int) -> tuple[str, str]:
    """Return two unequal numbers of bytes as texts that differ: in gigabytes, or else in bytes."""
    for decimals in (1, 2, 3):
        pair = gigabytes(one, decimals=decimals), gigabytes(other, decimals=decimals)
        if pair[0] != pair[1]:
            return pair
    return f"{one:,} bytes", f"{other:,} bytes"
