"""Take the runs that a locale's line under `systems` names."""

from pathlib import Path

import numpy as np

from pipeline.core import layout, stage
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Ids, read_judgements
from pipeline.runs.others import OtherRun
from pipeline.runs.ranking import Ranked
from pipeline.systems.read import Read, read_run


def take_runs(
    params: Params, locale: str, out: layout.OtherRunsFiles
) -> tuple[dict[str, OtherRun], stage.Done]:
    """Write each run in the form of the pipeline's own; return what was counted, and what was done.

    Raises:
        PipelineError: as `read_judgements` and `read_run`.
    """
    ids, _, _ = read_judgements(locale)
    depth, counts = params.retrieve.depth, {}
    for name, path in sorted(params.systems[locale].items()):
        read = read_run(Path(path), f"systems.{locale}.{name}", ids, depth, layout.clean(locale))
        counts[name] = read.counts
        folder = out.runs(name).folder
        folder.mkdir()
        _write(folder, name, read, depth, ids)
        _report(name, locale, read.counts, len(ids.queries), params)
    return counts, stage.Done(
        queries=len(ids.queries), products=len(ids.products), depth=depth, engines=len(counts)
    )


def _write(folder: Path, name: str, read: Read, depth: int, ids: Ids) -> None:
    with run_files.fill_runs(folder, name, read.counts.of, depth, ids) as (catalogue, _):
        for start in range(0, len(ids.queries), run_files.QUERIES_A_PIECE):
            catalogue.add(*_piece(read.ranked, start, start + run_files.QUERIES_A_PIECE))


def _piece(ranked: Ranked, start: int, stop: int) -> Ranked:
    """Return the part of a run that is of the queries from `start` to before `stop`."""
    rows, codes, scores = ranked
    first, last = np.searchsorted(rows, [start, stop])
    return rows[first:last], codes[first:last], scores[first:last]


def _report(name: str, locale: str, counts: OtherRun, queries: int, params: Params) -> None:
    log.info(
        "systems locale=%s system=%s results=%d cut=%d depth=%d",
        locale, name, counts.results, counts.results_cut, counts.depth,
    )  # fmt: skip
    if counts.queries_without_results:
        log.warning(
            "warning: %s: %d of the %d queries of %s have no results, and score 0",
            counts.path, counts.queries_without_results, queries, locale,
        )  # fmt: skip
    if counts.queries_against_rank:
        log.warning(
            "warning: %s: in %d of the %d queries of %s the scores give another order than the "
            "ranks; the scores decide", counts.path, counts.queries_against_rank, queries, locale,
        )  # fmt: skip
    if (deepest := params.evaluate.deepest()) > counts.depth:
        log.warning(
            "warning: %s: no query of %s has more than %d results: measures down to %d count these "
            "alone", counts.path, locale, counts.depth, deepest,
        )  # fmt: skip
