"""Score run files of any engine by judgements, and compare them with the first one.

Runs and judgements are TREC files, as trec_eval takes them, or parquet files with named columns:
query_id, product_id, and score or rank; and label, gain or grade. The measures are those of the
reports. If this folder has a params.yaml, and of this project, its `evaluate` and `uncertainty`
are used.

    python -m pipeline.score judgements.qrels bm25.run dense.run
    python -m pipeline.score judgements.qrels bm25.run --label 2=E --label 1=S --label 0=I
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from pipeline import git
from pipeline.core import files, layout, options, params_text, stage
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.core.params_file import check_params
from pipeline.given.table import PRODUCTS, TREC_QRELS, check_file, read_given
from pipeline.runs.card import TRACKS, Track
from pipeline.score import ALPHA, CUTOFFS, DRAWS, compare_as, evaluate
from pipeline.score.display import as_json, terminal
from pipeline.score.results import Difference, Result

WRITTEN = ("csv", "json")
OWN_SECTIONS = {"encoder", "uncertainty"}
"""A params.yaml with these is this project's; DVC's other users have files of that name too."""


def score(
    qrels: Path,
    runs: Sequence[Path],
    labels: dict[str, str] | None,
    products: Path | None,
    track: Track,
    samples: int | None = None,
) -> tuple[list[Result], tuple[Difference, ...]]:
    """Score runs, and compare all others with the first one.

    `samples` replaces the number of draws of params.yaml, or of the shipped one.

    Raises:
        PipelineError: as `evaluate` and `compare` do, or params.yaml is wrong.
    """
    check_file(qrels, "the judgements")
    for run in runs:
        check_file(run, "the run")
    if products is not None:
        check_file(products, "the products")
    cutoffs, draws, alpha = CUTOFFS, DRAWS, ALPHA
    if (params := _params()) is not None:
        cutoffs, draws, alpha = params.evaluate, params.uncertainty, params.compare.alpha
    if samples is not None:
        draws = draws.model_copy(update={"samples": samples})
    judgements = read_given(qrels, TREC_QRELS, "the judgements")
    catalogue = None if products is None else read_given(products, PRODUCTS, "the products")
    results = [
        evaluate(
            run, judgements, name=name, labels=labels, products=catalogue, track=track,
            cutoffs=None if track == "pool" else cutoffs.model_dump(), **draws.model_dump(),
        )
        for run, name in zip(runs, _names(runs), strict=True)
    ]  # fmt: skip
    return results, compare_as("--samples", *results, alpha=alpha) if len(results) > 1 else ()


def _params() -> Params | None:
    """Return the params of this folder; None if it has none, or those of another DVC project."""
    if not layout.PARAMS.is_file():
        return None
    data = params_text.read_data(layout.PARAMS)
    if isinstance(data, dict) and data.keys() >= OWN_SECTIONS:
        return check_params(data, str(layout.PARAMS))
    log.info("%s is of another project: the usual settings are used", layout.PARAMS)
    return None


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the names of files, or their paths if two have one name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else list(map(str, runs))


def _refuse_inputs(named: Mapping[str, Path | None], inputs: Sequence[Path]) -> None:
    """Raise a `PipelineError` if an option names a file that is read."""
    read = {path.resolve() for path in inputs}
    for option, path in named.items():
        if path is not None and path.resolve() in read:
            raise PipelineError(f"{option} {path}: this file is read. Name another path.")


def _per_query(results: Sequence[Result]) -> pa.Table:
    """Return the measures of each query and run, one table."""
    return pa.concat_tables(
        result.per_query.add_column(0, "run", pa.array([result.name] * len(result.per_query)))
        for result in results
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("qrels", type=Path, help="the judgements")
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="a run; the first is A")
    parser.add_argument(
        "--label", action="append", default=[], metavar="VALUE=LABEL",
        help="E, S, C or I for one of your labels, such as 2=E; repeat it for each label",
    )  # fmt: skip
    parser.add_argument(
        "--products", type=Path, metavar="FILE",
        help="the catalogue; results outside it are left out, and counted",
    )  # fmt: skip
    parser.add_argument(
        "--track", choices=TRACKS, default="catalogue",
        help="pool: the runs order each query's judged products alone (default: catalogue)",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=options.number_of_draws, metavar="N",
        help="draws of intervals and tests (default: uncertainty.samples, else "
        f"{DRAWS.samples:,})",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write each query's measures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write means and differences")
    return parser.parse_args()


def main() -> int:
    """Score, write what was asked for, and return the exit status."""
    arguments = _arguments()
    with stage.report_errors("score") as outcome:
        named = {f"--{kind}": getattr(arguments, kind) for kind in WRITTEN}
        git.refuse_project_files(named)
        _refuse_inputs(
            named, (arguments.qrels, *arguments.runs, *filter(None, [arguments.products]))
        )
        form = "VALUE=LABEL, such as 2=E"
        labels = options.read_pairs(arguments.label, "--label", form, last=True)
        results, differences = score(
            arguments.qrels,
            arguments.runs,
            labels or None,
            arguments.products,
            arguments.track,
            arguments.samples,
        )
        if arguments.csv:
            with files.atomic_file(arguments.csv, follow_links=True) as partial:
                # Arrow takes a leading ~ for the home folder.
                pyarrow.csv.write_csv(_per_query(results), partial.absolute())
        if arguments.json:
            files.write_json(arguments.json, as_json(results, differences), follow_links=True)
        sys.stdout.write(terminal(results, differences))
    return outcome.status
