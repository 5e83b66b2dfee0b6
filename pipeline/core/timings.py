"""What each stage took on this machine: a file a stage and locale in the cache, read by `plan`.

No artefact holds a time, so that the same inputs give the same bytes; the cache is no artefact.
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
from pipeline.core.params import Name, Strict

LONG_ENOUGH_SECONDS = 1.0
"""A shorter run says nothing about a rate: opening files and importing libraries fills it."""

NOT_NEGATIVE = Field(ge=0, allow_inf_nan=False)


class Record(Strict):
    """One run of a stage.

    Attributes:
        stage: its module.
        locale: of which locale; None of a stage that works on all at once.
        kind: what of several ways it went, such as an index's kind; None where there is one way.
        units: how much it worked on, by unit, as `stage.Done` has it.
        threads: how many it might use, as `Runtime.thread_count`.
        seconds: of the stage's own work, without Python's start.
        peak_bytes: the process's resident memory at its highest.
        ended: when, in Unix seconds.
    """

    stage: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    locale: Name | None
    kind: Name | None
    units: dict[str, Annotated[int, Field(ge=0)]]
    threads: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, NOT_NEGATIVE]
    peak_bytes: Annotated[int, Field(ge=0)]
    ended: Annotated[float, NOT_NEGATIVE]


class Kept(Strict):
    """A file: the last run, and the last that was long enough to tell a rate."""

    last: Record
    telling: Record | None


def write_record(run: Record) -> None:
    """Keep what a run took; the last long one stays beside it.

    Raises:
        OSError: the cache cannot be written.
    """
    path = _path(run)
    telling = run if run.seconds >= LONG_ENOUGH_SECONDS else None
    if telling is None:
        with suppress(OSError, ValidationError):
            telling = _read(path).telling
    files.write_json(path, Kept(last=run, telling=telling).model_dump(mode="json"))


def read_records() -> tuple[list[Kept], list[str]]:
    """Return what is kept of every stage, and what to say of the files that are damaged."""
    found, damaged = [], []
    for path in sorted(layout.stage_rates().glob("*.json")):
        try:
            found.append(_read(path))
        except (OSError, ValidationError):
            damaged.append(
                f"{path} is damaged or of an older version: its stage has the default rate until "
                "it runs again"
            )
    return found, damaged


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
    """Record a run of this process that ends now; as `write_record`."""
    write_record(
        Record(
            stage=stage, locale=locale, kind=kind, units=dict(units), threads=threads,
            seconds=round(seconds, 3), peak_bytes=peak_bytes(), ended=time.time(),
        )
    )  # fmt: skip


def _path(run: Record) -> Path:
    # Neither sign is in the name of a stage, a locale or a kind.
    locale = f"@{run.locale}" if run.locale else ""
    kind = f".{run.kind}" if run.kind else ""
    return layout.stage_rates() / f"{run.stage}{locale}{kind}.json"


def _read(path: Path) -> Kept:
    return Kept.model_validate_json(path.read_bytes())
