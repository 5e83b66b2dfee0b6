"""The command line of the slow proofs: run those named, keep their figures, fail if one fails."""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import reports
from bench.measure import Figures
from pipeline.core import stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json
from pipeline.core.log import log

Proof = Callable[[Path], Figures]
"""Runs in an empty folder and returns figures. It fails by `holds: False` or an AssertionError."""


def run_proofs(name: str, proofs: Mapping[str, Proof], path: Path) -> int:
    """Run the proofs that the command line names, or all; return the exit status.

    Args:
        name: the module in `bench`.
        proofs: all proofs, by name.
        path: the JSON file that keeps the figures of each proof's last run.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}")
    parser.add_argument("proofs", nargs="*", metavar="proof", help=f"one of {', '.join(proofs)}")
    chosen = parser.parse_args().proofs or list(proofs)
    if unknown := set(chosen) - set(proofs):
        parser.error(f"unknown proof: {', '.join(sorted(unknown))} (known: {', '.join(proofs)})")
    with stage.report_errors(name) as outcome:
        figures = read_json(path, "Delete it.") if path.exists() else {}
        made = reports.made_by()
        for each in chosen:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    figures[each] = proofs[each](Path(folder)) | made
                except AssertionError as err:
                    raise PipelineError(f"the proof {each} does not hold: {err}") from err
            log.info("%s %s", each, figures[each])
            write_json(path, figures)
        broken = [each for each in chosen if not figures[each].get("holds", True)]
        if broken:
            raise PipelineError(f"{path}: these proofs do not hold: {', '.join(broken)}")
    return outcome.status
