"""Write the page of the workspace with what moved since a revision, as `pipeline.compare` finds it.

This is a command and not a part of the stage report, because main and HEAD name other commits
tomorrow, and DVC would not know that the page is old.
"""

import argparse
from pathlib import Path

from pipeline import git
from pipeline.compare import display
from pipeline.compare.command import compare
from pipeline.compare.display import Report
from pipeline.compare.revision import WORKSPACE, Revision
from pipeline.core import files, stage
from pipeline.core.params_file import load_params
from pipeline.report import render
from pipeline.report.moves import Changed, Moves
from pipeline.report.stage import read_results


def moves_of(report: Report) -> Moves:
    """Return what the page shows of a comparison with the workspace."""
    return Moves(
        since=report.a,
        header=display.HEADER,
        numbers=display.NUMBERS,
        rows=tuple(display.cells(move) for move in report.found.moves),
        changed=tuple(
            Changed(move.locale, move.name, change.query_id, change.query, change.a, change.b)
            for move in display.with_queries(report.found.moves)
            for change in (*move.wins, *move.losses)
        ),
        settings=tuple((key, a, b) for key, (a, b) in report.settings.items()),
        notes=(*display.closing(report), *report.notes),
    )


def main() -> int:
    """Write the page, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.since",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("revision", help="the old side: a Git revision or an experiment")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page")
    arguments = parser.parse_args()
    with stage.report_errors("since") as outcome:
        git.refuse_project_files({"--out": arguments.out})
        params = load_params()
        since, workspace = Revision(arguments.revision), Revision(WORKSPACE)
        report = compare(params, since, workspace, queries=5, with_titles=False)
        locales, encoders, scaled = read_results(params)
        page = render.render(locales, params, encoders, scaled, moves_of(report))
        files.write_text(arguments.out, page, follow_links=True)
    return outcome.status
