"""The cost sheet: what the chosen params on the chosen source will take, before anything runs.

`python -m pipeline.plan` prints time, memory and disk of every stage as if none were up to date.
It reads the source's footers and ids, the texts of a few thousand products, and what the stages
took on this machine before, and asks DVC which tables are up to date. Nothing is drawn, fetched or
encoded; the sheet is kept in the cache.

`python -m pipeline.plan --against-last-run` holds that sheet to what the stages took since, and
writes it to reports/bench/costs.json and .md. That is a file of its own, written when asked for,
and no part of reports/report.html: a page that told times would differ from run to run, and the
same inputs give the same bytes here. Times are kept where those of every other measurement are.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from pydantic import ValidationError

from pipeline.core import files, layout, stage
from pipeline.core import timings as rates
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.plan import accuracy, sheet
from pipeline.plan.costs import START_SECONDS
from pipeline.plan.current import current_stages

_LEFT = {"stage", "locale", "units", "known by"}


def plan(*, as_json: bool) -> None:
    """Print the cost sheet and keep it."""
    params = load_params()
    kept, damaged = rates.read_records()
    for line in damaged:
        stage.log.warning("warning: %s", line)
    found = list(sheet.rows(params, kept, current_stages(params)))
    made = accuracy.Plan(made=time.time(), rows=tuple(found), totals=sheet.totals(found))
    files.write_json(layout.last_plan(), made.model_dump(mode="json"))
    told = list(sheet.warnings(params, found))
    if as_json:
        told_too = {**made.model_dump(mode="json", exclude={"made"}), "warnings": told}
        sys.stdout.write(files.canonical_json(told_too))
    else:
        sys.stdout.write(aligned(_cells(found, made.totals)))
        sys.stdout.write(
            f"Of the seconds, {START_SECONDS * len(found):.0f} are for starting {len(found)} "
            "stages one after another (JOBS=1). DVC skips what is up to date; its cache takes the "
            "disk once more. At most: until clean has run, which leaves out what has no text.\n"
        )
    for line in told:
        stage.log.warning("warning: %s", line)


def against_last_run() -> None:
    """Print the last sheet beside what the stages took since, and write both to reports/bench.

    Raises:
        PipelineError: there is no sheet, or nothing ran since.
    """
    path = layout.last_plan()
    try:
        made = accuracy.Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as err:
        raise PipelineError(
            f"{path} is no plan to hold a run to; make one before the run: `make plan repro costs`"
        ) from err
    kept, _ = rates.read_records()
    held = accuracy.hold(made, kept)
    if not any(each.actual for each in held):
        raise PipelineError(
            f"no stage of the plan in {path} ran since it was made; run `make repro` (DVC skips "
            "what is up to date), then this again"
        )
    table = accuracy.cells(held)
    sys.stdout.write(aligned(table))
    bare = [{"planned": each.planned.model_dump(mode="json", exclude={"times_default"}),
             "actual": each.actual and each.actual.model_dump(mode="json", exclude={"ended"})}
            for each in held]  # fmt: skip
    files.write_json(layout.COSTS, bare)
    head, *lines = table
    markdown = [head, ["---" if name in _LEFT else "---:" for name in head], *lines]
    with files.atomic_file(layout.COSTS.with_suffix(".md")) as partial:
        text = "".join(f"| {' | '.join(cells)} |\n" for cells in markdown)
        partial.write_text(text, encoding="utf-8", newline="\n")


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Return a table, its head first, with columns as wide as they need to be."""
    head = table[0]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if name in _LEFT else cell.rjust(width)
            for name, cell, width in zip(head, cells, widths, strict=True)
        )
        for cells in table
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _cells(found: Sequence[sheet.Row], totals: sheet.Totals) -> list[list[str]]:
    def amounts(of: sheet.Row | sheet.Totals) -> list[str]:
        return [
            f"{of.seconds:,.1f}", f"{of.peak_bytes / 1e6:,.0f}", f"{of.disk_bytes / 1e6:,.1f}",
        ]  # fmt: skip

    return [
        ["stage", "locale", "units", "seconds", "peak MB", "disk MB", "known by"],
        *([row.stage, row.locale or "", row.shown(), *amounts(row), row.known] for row in found),
        ["total", "", "", *amounts(totals), ""],
    ]


def main() -> int:
    """Make a plan, or hold the last one to what came of it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="print the sheet as JSON")
    what.add_argument(
        "--against-last-run", action="store_true",
        help="hold the last plan to what the stages took since it was made",
    )  # fmt: skip
    arguments = parser.parse_args()
    with stage.report_errors("plan") as outcome:
        if arguments.against_last_run:
            against_last_run()
        else:
            plan(as_json=arguments.json)
    return outcome.status
