"""Show what the experiments changed: `make experiments`.

A row for each experiment, with the key metrics and settings that are not the same in all rows, by
short names: es.dense.ndcg@10, encoder.es. `dvc exp show` shows all columns, and has other forms.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.compare.revision import WORKSPACE
from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError, did_you_mean
from pipeline.core.text_tables import aligned

Row = dict[tuple[int, str], str]
"""A text by column: a column is what it is of and its name, so that columns are sorted by both."""

CALLED, STATE = (0, "experiment"), (0, "state")
METRIC, SETTING = 1, 2

SWITCHES = ("--all-branches", "--all-tags", "--all-commits")
"""Options that DVC takes."""


def table(shown: list[dict[str, Any]], sort_by: str | None = None) -> str:
    """Return what `dvc exp show --json` prints as a table for a terminal.

    Args:
        shown: the workspace and the commits, with their experiments.
        sort_by: a column; each commit's experiments are in its order, the largest number first.

    Raises:
        PipelineError: there is no such column, or all rows have one value there.
    """
    groups = [
        [_row(commit), *map(_experiment, commit.get("experiments") or ())] for commit in shown
    ]
    rows = [row for group in groups for row in group]
    # What an experiment is called is shown even where there is one row.
    columns = [
        column
        for column in sorted({column for row in rows for column in row})
        if column == CALLED or len({row.get(column) for row in rows}) > 1
    ]
    names = [name for _, name in columns]
    if sort_by is not None:
        if sort_by not in names:
            raise PipelineError(
                f"--sort-by {sort_by}: the table has no such column (it has: {', '.join(names)}"
                f"{did_you_mean(sort_by, names)}). Name one of these."
            )
        by = columns[names.index(sort_by)]
        for group in groups:
            group[1:] = sorted(group[1:], key=lambda row: _order(row.get(by, "")))
    cells = [[row.get(column, "") for column in columns] for group in groups for row in group]
    return aligned(names, cells)


def _experiment(found: Mapping[str, Any]) -> Row:
    row = _row(found["revs"][0])
    state = (found.get("executor") or {}).get("state")  # None, or success, of what is finished
    if state in ("queued", "running", "failed"):
        row[STATE] = state
    return row | {CALLED: found.get("name") or row[CALLED]}


def _row(found: Mapping[str, Any]) -> Row:
    """Return the values of a commit or of an experiment's."""
    data, rev = found.get("data") or {}, found["rev"]
    row = {
        CALLED: found.get("name") or (rev if rev == WORKSPACE else rev[:7]),
        STATE: "unreadable" if found.get("error") else "",
    }
    metrics, params = data.get("metrics") or {}, data.get("params") or {}
    held = [file.get("data") or {} for file in (*metrics.values(), *params.values())]
    if not all(isinstance(each, dict) for each in held):
        return row | {STATE: "unreadable"}
    for path, file in metrics.items():
        start = f"{Path(path).stem}."  # the locale
        for name, value in _flat(file.get("data") or {}):
            # A commit of before has the locale in the file too.
            row[METRIC, f"{start}{name.removeprefix(start)}"] = value
    for path, file in params.items():
        start = "" if path == layout.PARAMS.as_posix() else f"{path}:"
        for name, value in _flat(file.get("data") or {}):
            row[SETTING, f"{start}{name}"] = value
    return row


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        name = f"{prefix}{_printable(key)}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, _printable(value)


def _printable(value: object) -> str:
    """Return a value as a terminal may show it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def _order(value: str) -> tuple[bool, float, str]:
    try:
        return False, -float(value), ""
    except ValueError:
        return True, 0.0, value


def main() -> int:
    """Print the table; return the exit status of DVC."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--num", type=int, metavar="N", help="those of the last N commits too")
    for switch in SWITCHES:
        parser.add_argument(
            switch, action="append_const", const=switch, dest="switches", default=[],
            help=f"those of {switch.removeprefix('--').replace('-', ' ')} too",
        )  # fmt: skip
    parser.add_argument("--sort-by", metavar="COLUMN", help="sort by it, largest number first")
    arguments = parser.parse_args()
    with stage.report_errors("experiments") as outcome:
        command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *arguments.switches]
        if arguments.num is not None:
            command.append(f"--num={arguments.num}")
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        outcome.status = done.returncode
        if done.returncode == 0:
            sys.stdout.write(table(json.loads(done.stdout), arguments.sort_by))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
