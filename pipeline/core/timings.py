"""What each stage took on this machine: a file per stage and locale in the cache, for `plan`.

Artefacts hold no times, so that the same inputs give the same bytes. The cache is not an artefact.
"""

import re
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from pipeline.core import files, layout
from pipeline.core.param_types import Count, Name, Number, Strict

NOT_NEGATIVE = Field(ge=0, allow_inf_nan=False)


class Record(Strict):
    """One run of a stage.

    Attributes:
        stage: its folder.
        locale: its locale; None of a stage that works on all at once.
        kind: which of several ways it went, such as an index's kind; None where there is one way.
        units: how much it worked on, by unit, as `stage.Done` has it.
        threads: how many it could use, as `Runtime.thread_count`.
        seconds: of the stage's own work, without Python's start.
        peak_bytes: the process's resident memory at its highest, without the processes that it
            started, such as those that count bm25's terms.
        ended: when, in Unix seconds.
    """

    stage: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    locale: Name | None
    kind: Name | None
    units: dict[str, Number]
    threads: Count
    seconds: Annotated[float, NOT_NEGATIVE]
    peak_bytes: Number
    ended: Annotated[float, NOT_NEGATIVE]


class Kept(Strict):
    """A file: the last run, and the one with the most units, which says the most about the rate."""

    last: Record
    largest: Record


def write_record(run: Record) -> None:
    """Keep what a run took, and the largest run beside it.

    Raises:
        OSError: the cache cannot be written.
    """
    path, largest = _path(run), run
    with suppress(OSError, ValidationError):
        before = _read(path).largest
        if sum(before.units.values()) > sum(run.units.values()):
            largest = before
    files.write_json(path, Kept(last=run, largest=largest).model_dump(mode="json"))


def read_records() -> tuple[list[Kept], str]:
    """Return the records of every stage, and a warning if files are damaged, else nothing."""
    found, damaged = [], []
    for path in sorted(layout.stage_rates().glob("*.json")):
        try:
            found.append(_read(path))
        except (OSError, ValidationError):
            damaged.append(path)
    others = f" and {len(damaged) - 1} more files there" if damaged[1:] else ""
    message = (
        f"{damaged[0]}{others}: damaged, or of an older version. Their stages have the default "
        "rate until they run again."
    ) if damaged else ""  # fmt: skip
    return found, message


def start_measuring() -> None:
    """Begin a new peak of memory, where the system can: one process may run several locales."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had since `start_measuring`."""
    status = Path("/proc/self/status")
    # Linux's ru_maxrss begins at that of the process which started this one.
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def record_run(
    stage: str, locale: str | None, kind: str | None, units: Mapping[str, int], threads: int,
    seconds: float,
) -> None:  # fmt: skip
    """Record a run of this process that ends now; raises as `write_record`."""
    run = Record(
        stage=stage, locale=locale, kind=kind, units=dict(units), threads=threads,
        seconds=round(seconds, 3), peak_bytes=peak_bytes(), ended=time.time(),
    )  # fmt: skip
    write_record(run)


def _path(run: Record) -> Path:
    # Neither sign is in the name of a stage, a locale or a kind.
    locale = f"@{run.locale}" if run.locale else ""
    kind = f".{run.kind}" if run.kind else ""
    return layout.stage_rates() / f"{run.stage}{locale}{kind}.json"


def _read(path: Path) -> Kept:
    return Kept.model_validate_json(path.read_bytes())
