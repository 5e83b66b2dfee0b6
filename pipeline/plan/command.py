"""Estimate what the chosen params on the chosen source will take: `make plan`, `make costs`.

`python -m pipeline.plan` prints time, memory and disk of every stage as if all had to run, and
keeps this sheet in the cache. Nothing is drawn, fetched or encoded. With --against-last-run it
compares the sheet with what the stages took since; reports/report.html has no times, since the
same inputs must give the same page.
"""

import argparse
import sys
import time
from typing import Annotated

from pydantic import Field, ValidationError

from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.params import Strict
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import aligned, markdown
from pipeline.core.timings import read_records
from pipeline.plan import sheet
from pipeline.plan.rates import STAGE_SECONDS
from pipeline.plan.sheet import Amount, Row

_NOTES = f"""\
The total has {STAGE_SECONDS:.0f} s per stage for its start; stages run one after another (JOBS=1).
DVC skips what is up to date; its cache takes the disk once more. At most: clean has not run yet,
which leaves out what has no text. A guess: the work is more than 20 times what was measured.
"""


class Plan(Strict):
    """A sheet as it is kept in the cache; `made` in Unix seconds."""

    plan_schema: Annotated[int, Field(ge=2, le=2)] = 2
    made: Amount
    rows: tuple[Row, ...]


def plan() -> None:
    """Print the cost sheet and keep it."""
    params = load_params()
    kept, damaged = read_records()
    if damaged:
        stage.log.warning("warning: %s", damaged)
    rows = sheet.rows(params, [each.largest for each in kept], sheet.current_stages(params))
    made = Plan(made=time.time(), rows=tuple(rows))
    files.write_json(layout.last_plan(), made.model_dump(mode="json"))
    numbers = ("seconds", "peak MB", "disk MB")
    lines = [
        [row.stage, row.locale or "", row.shown(), f"{row.seconds:,.1f}",
         f"{row.peak_bytes / 1e6:,.0f}", f"{row.disk_bytes / 1e6:,.1f}", row.known]
        for row in (*rows, sheet.total(rows))
    ]  # fmt: skip
    sys.stdout.write(
        aligned(("stage", "locale", "units", *numbers, "known by"), lines, numbers) + _NOTES
    )
    for line in sheet.warnings(params, rows):
        stage.log.warning("warning: %s", line)


def against_last_run() -> None:
    """Print the last sheet beside what the stages took since; write that to reports/bench.

    Raises:
        PipelineError: there is no sheet, or nothing ran since.
    """
    path = layout.last_plan()
    try:
        made = Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as err:
        raise PipelineError(
            f"{path}: there is no plan to compare with. Make one before the run: "
            "`make plan repro costs`."
        ) from err
    ran = {(one.last.stage, one.last.locale, one.last.kind): one.last
           for one in read_records()[0] if one.last.ended >= made.made}  # fmt: skip
    pairs = [(row, run) for row in made.rows if (run := ran.get((row.stage, row.locale, row.kind)))]
    if not pairs:
        raise PipelineError(
            f"{path}: no stage of the plan has run since it was made. Run `make repro` (DVC skips "
            "what is up to date), then this again."
        )
    numbers = ("seconds planned", "seconds", "MB planned", "MB")
    header, lines = ("stage", "locale", "units", *numbers, "known by"), []
    for row, run in pairs:
        then = row.model_copy(update={"units": {key: run.units.get(key, 0) for key in row.units}})
        units = row.shown() + ("" if then == row else f" (then: {then.shown()})")
        amounts = _beside(row.seconds, run.seconds, row.peak_bytes, run.peak_bytes)
        lines.append([row.stage, row.locale or "", units, *amounts, row.known])
    seconds = sum(row.seconds for row, _ in pairs), sum(run.seconds for _, run in pairs)
    peaks = max(row.peak_bytes for row, _ in pairs), max(run.peak_bytes for _, run in pairs)
    shown = f"{len(pairs)} of {len(made.rows)} rows ran since"
    lines.append(["total", "", shown, *_beside(*seconds, *peaks), ""])
    sys.stdout.write(aligned(header, lines, numbers))
    with files.atomic_file(layout.COSTS) as partial:
        partial.write_text(markdown(header, lines, numbers), encoding="utf-8", newline="\n")


def _beside(*of: float) -> tuple[str, str, str, str]:
    return f"{of[0]:,.1f}", f"{of[1]:,.1f}", f"{of[2] / 1e6:,.0f}", f"{of[3] / 1e6:,.0f}"


def main() -> int:
    """Make a plan, or compare the last one with what it came to; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan")
    parser.add_argument(
        "--against-last-run", action="store_true",
        help="compare the last plan with what the stages took since it was made",
    )  # fmt: skip
    arguments = parser.parse_args()
    with stage.report_errors("plan") as outcome:
        against_last_run() if arguments.against_last_run else plan()
    return outcome.status
