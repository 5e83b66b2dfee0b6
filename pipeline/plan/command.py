"""Estimate what the chosen params on the chosen source will take: `make plan`, `make costs`.

`python -m pipeline.plan` prints time, memory and disk of every stage as if all had to run, and
keeps this sheet in the cache. --against-last-run compares it with what the stages took since.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.param_types import Strict
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import aligned, markdown
from pipeline.core.timings import read_records
from pipeline.plan import sheet
from pipeline.plan.costs import MOST_TIMES, Amount, Row

SHOWN_UNITS = (
    "rows",
    "products",
    "queries",
    "judgements",
    "encoded",
    "tokens",
    "scored",
    "locales",
    "threads",
)

_NOTES = """\
DVC and Python take about 1 s more per stage; stages run one after another (JOBS=1). DVC skips
stages that are up to date; its cache takes the same disk space again. Sizes are upper bounds: clean
leaves out rows without text, and embed encodes only texts without a stored vector (`python -m
pipeline.embed --plan` counts these).
"""
_GUESS = f"guess: the work is more than {MOST_TIMES} times that of the run that was measured.\n"


class Plan(Strict):
    """A sheet as it is kept in the cache; `made` in Unix seconds."""

    made: Amount
    rows: tuple[Row, ...]


def plan() -> None:
    """Print the cost sheet and keep it."""
    params = load_params()
    kept, damaged = read_records()
    if damaged:
        log.warning("warning: %s", damaged)
    rows = sheet.rows(params, [each.largest for each in kept])
    made = Plan(made=time.time(), rows=tuple(rows))
    files.write_json(layout.last_plan(), made.model_dump(mode="json"))
    numbers = ("seconds", "peak MB", "disk MB")
    lines = [
        [row.stage, row.locale or "", _units(row), f"{row.seconds:,.1f}",
         f"{row.peak_bytes / 1e6:,.0f}", f"{row.disk_bytes / 1e6:,.1f}", row.known]
        for row in (*rows, sheet.total(rows))
    ]  # fmt: skip
    source = Path(params.sample.source)
    sizes = "those of the demo in params.yaml" if source == layout.DEMO else f"counted in {source}"
    measured = sum("measured here" in row.known for row in rows)
    sys.stdout.write(
        f"Sizes: {sizes}. Costs: {measured} of {len(rows)} rows measured here, others by default.\n"
        + aligned(("stage", "locale", "units", *numbers, "known by"), lines, numbers) + _NOTES
        + (_GUESS if any(row.known.startswith("guess") for row in rows) else "")
    )  # fmt: skip
    for line in sheet.warnings(params, rows):
        log.warning("warning: %s", line)


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
            f"{path}: found no plan to compare with. Run `make plan repro costs`."
        ) from err
    pairs = list(_pairs(made))
    if not pairs:
        raise PipelineError(
            f"{path}: no stage of the plan has run since it was made. Run `make repro costs`; DVC "
            "skips stages that are up to date."
        )
    lines = []
    for row, ran in (*pairs, tuple(map(sheet.total, zip(*pairs, strict=True)))):
        then = "" if _units(ran) == _units(row) else f" (then: {_units(ran)})"
        seconds = [f"{each.seconds:,.1f}" for each in (row, ran)]
        peaks = [f"{each.peak_bytes / 1e6:,.0f}" for each in (row, ran)]
        lines.append([row.stage, row.locale or "", _units(row) + then, *seconds, *peaks, row.known])
    lines[-1][2] = f"{len(pairs)} of {len(made.rows)} rows ran since"
    numbers = ("seconds planned", "seconds", "MB planned", "MB")
    header = ("stage", "locale", "units", *numbers, "known by")
    sys.stdout.write(aligned(header, lines, numbers))
    files.write_text(layout.COSTS, markdown(header, lines, numbers))


def _pairs(made: Plan) -> Iterator[tuple[Row, Row]]:
    """Yield the rows of stages that ran since, each with what the stage took."""
    runs = [one.last for one in read_records()[0] if one.last.ended >= made.made]
    ran = {(run.stage, run.locale, run.kind): run for run in runs}
    for row in made.rows:
        if run := ran.get((row.stage, row.locale, row.kind)):
            units = {unit: run.units.get(unit, 0) for unit in row.units}
            took = {"units": units, "seconds": run.seconds, "peak_bytes": run.peak_bytes}
            yield row, row.model_copy(update=took)


def _units(row: Row) -> str:
    return ", ".join(f"{row.units[unit]:,} {unit}" for unit in SHOWN_UNITS if unit in row.units)


def main() -> int:
    """Make a plan, or compare the last one with what it came to; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan")
    parser.add_argument(
        "--against-last-run", action="store_true", help="compare the last plan with the runs since"
    )
    arguments = parser.parse_args()
    with stage.report_errors("plan") as outcome:
        against_last_run() if arguments.against_last_run else plan()
    return outcome.status
