"""Read the run of another engine: checked, in its final order, in rows of the clean tables."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import files, layout, tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError, shorten
from pipeline.given.order import count_against_rank, order_run, read_scores
from pipeline.given.table import TREC_RUN, Given, read_given
from pipeline.runs.inputs import Ids
from pipeline.runs.others import OtherRun
from pipeline.runs.ranking import Ranked, places

IN_DVCS_CACHE = r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$"
"""Where DVC keeps a file, in whichever folder its cache is."""


@dataclass(frozen=True)
class Read:
    """A run down to the depth, and what was counted."""

    ranked: Ranked
    counts: OtherRun


def read_run(path: Path, where: str, ids: Ids, depth: int, clean: layout.CleanFiles) -> Read:
    """Read a run.

    Products are ordered as `score.evaluate` orders them: by score, compared in 32 bits, descending,
    then by product_id, descending. The scores are not rounded: those of another engine may be
    small, and no machine computes them again.

    Args:
        path: the file.
        where: the key in params.yaml that names it.
        ids: of the clean tables.
        depth: the most products of a query that are kept.
        clean: the files of the clean tables, for messages.

    Raises:
        PipelineError: the file is missing, is a link out of the project, or cannot be read; a
            column is missing; it has a query or a product that the clean tables lack, a query has a
            product twice, or a score is not a finite number.
    """
    _refuse_outside(path, where)
    given = read_given(path, TREC_RUN, f"the run of {where}")
    sha256 = files.sha256_file(path)
    rows = _rows_in(given, "query_id", ids.queries, clean.queries)
    codes = _rows_in(given, "product_id", ids.products, clean.products)
    scores = read_scores(given)
    order = order_run(given, rows, codes, scores)
    rows, codes, scores = rows[order], codes[order], scores[order]
    kept = places(rows) < depth
    ranked = rows[kept], codes[kept], scores[kept]
    tied = (np.diff(ranked[0]) == 0) & (np.diff(ranked[2]) == 0)
    per_query = np.bincount(ranked[0], minlength=len(ids.queries))
    return Read(
        ranked,
        OtherRun(
            path=path.as_posix(),
            sha256=sha256,
            results=int(kept.sum()),
            results_cut=int((~kept).sum()),
            results_tied=int(tied.sum()),
            queries_without_results=int((per_query == 0).sum()),
            queries_against_rank=count_against_rank(given, order[kept], ranked[0]),
            depth=int(per_query.max()),
        ),
    )


def _refuse_outside(path: Path, where: str) -> None:
    """Raise a `PipelineError` if links lead out of the folder: the stage would see no change.

    A link to where DVC keeps contents, by their hash, stays: what it leads to never changes.
    """
    found = path.resolve()
    if found.is_relative_to(layout.GIVEN_RUNS.resolve()):
        return
    if not re.search(IN_DVCS_CACHE, found.as_posix()):
        raise PipelineError(
            f"{where}: {path} leads out of {layout.GIVEN_RUNS} (to {found}). Copy the run "
            f"into {layout.GIVEN_RUNS}."
        )


def _rows_in(given: Given, name: str, ids: pa.ChunkedArray, table: Path) -> Ints:
    """Return the row of each id in a clean table."""
    asked = given.ids(name)
    rows = tables.row_of(ids.cast(pa.large_string()), asked)
    if rows.null_count:
        at = pc.index(rows.is_null(), True).as_py()
        unknown = len(pc.unique(asked.filter(rows.is_null())))
        raise given.wrong(
            at,
            f"{name} {shorten(asked[at].as_py())} is not in {table} ({unknown:,} such ids in all). "
            "Let the engine index and answer what is in the clean tables, or leave out other rows.",
        )
    return np.asarray(rows.to_numpy(), dtype=np.int64)
