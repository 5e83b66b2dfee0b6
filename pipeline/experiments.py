"""Show what the experiments changed: `make experiments`.

The table of `dvc exp show`, without what all experiments share and without the hashes of inputs.
Further arguments go to DVC: `--num 5` shows the experiments of the last five commits too.
"""

import csv
import re
import subprocess
import sys

from pipeline.core import layout, stage
from pipeline.core.text_tables import aligned

# A dependency has a path for its name; so has a metric of several files, but a colon after it.
COMMAND = ("exp", "show", "--csv", "--only-changed", "--drop", "[^:]*/[^:]*$")
LEFT_OUT = ("rev", "typ", "parent")
"""Columns of DVC that the first one, the experiment's name, says already."""


def shorten(text: str) -> str:
    """Return DVC's CSV as a table for a terminal, the key metrics by locale: es.dense.ndcg@10."""
    rows = csv.DictReader(text.splitlines())
    known = rows.fieldnames or ()
    without = LEFT_OUT if "Experiment" in known else LEFT_OUT[1:]  # there are no experiments
    names = [name for name in known if name not in without]
    cells = [
        # What is no experiment, such as the workspace, has a revision alone.
        [row[name] or (row.get("rev", "") if name == "Experiment" else "") for name in names]
        for row in rows
    ]
    return aligned([_short(name) for name in names], cells)


def _short(name: str) -> str:
    return re.sub(rf"^{layout.KEY_METRICS.as_posix()}/([a-z0-9-]+)\.json:", r"\1.", name)


def main() -> int:
    """Print the table; return the exit status of DVC."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        sys.stdout.write(str(__doc__))
        return 0
    with stage.report_errors("experiments") as outcome:
        command = [sys.executable, "-m", "dvc", *COMMAND, *sys.argv[1:]]
        shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        outcome.status = shown.returncode
        if shown.returncode == 0:
            sys.stdout.write(shorten(shown.stdout))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
