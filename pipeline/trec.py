"""Export a locale's runs and qrels as TREC files, so that any tool can check the numbers.

`python -m pipeline.trec --locale es --out DIR` writes, for trec_eval, ir_measures, ranx and others,

    es.qrels               query_id 0 product_id grade: E 100, S 10, C 1, I 0
    es.dense.catalogue.run query_id Q0 product_id rank score dense
    es.dense.pool.run      the same for the judged list

and the same two for bm25 and hybrid.

The grades are the gains times 100: linear nDCG is the same, and the tools want integers. The score
is minus the rank, not the retrieval score: that one may tie, and tools differ in how they break
ties; this one falls from rank to rank, so that all of them see one ranking.
A query that retrieved nothing has no line in a run: average over the queries of the qrels. Judged
products without a text are in the qrels and in no run; the pool track's own numbers leave them out.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_file
from pipeline.core.params import SYSTEMS
from pipeline.core.params_file import load_params
from pipeline.core.tables import LABELS, RUN, iter_row_groups
from pipeline.runs import card as run_card
from pipeline.runs.inputs import read_judgements

GRADES = {"E": 100, "S": 10, "C": 1, "I": 0}
TRACKS = ("catalogue", "pool")


def qrels_lines(judgements: pa.Table) -> Iterator[str]:
    """Yield the lines of a qrels file, without newlines.

    Args:
        judgements: a table of schema `JUDGEMENTS`.

    Raises:
        PipelineError: a product_id that a TREC file cannot hold, or an unknown label.
    """
    grades = pa.array([GRADES[label] for label in LABELS])
    for batch in judgements.to_batches():
        codes = pc.index_in(batch["label"], value_set=pa.array(LABELS))
        if codes.null_count:
            unknown = batch["label"].filter(codes.is_null())[0]
            raise PipelineError(
                f"column label holds {unknown.as_py()!r}, which is none of {', '.join(LABELS)}; "
                "run the stage clean again"
            )
        yield from _joined(batch["query_id"], "0", _trec_ids(batch), grades.take(codes))


def run_lines(run: pa.Table, system: str) -> Iterator[str]:
    """Yield the lines of a run file, without newlines.

    Args:
        run: of a table of schema `RUN`, the columns query_id, product_id and rank.
        system: the name in the last column.

    Raises:
        PipelineError: a product_id that a TREC file cannot hold.
    """
    for batch in run.to_batches():
        rank = batch["rank"]
        yield from _joined(batch["query_id"], "Q0", _trec_ids(batch), rank, pc.negate(rank), system)


def export(locale: str, out: Path) -> None:
    """Write a locale's qrels and every system's runs into the folder `out`.

    Raises:
        PipelineError: an artefact is missing, was edited, is of other tables than these, or cannot
            be written as a TREC file.
    """
    ids, judgements, _ = read_judgements(locale)
    for system in SYSTEMS:
        again = run_card.rerun_hint(system, locale)
        run_card.read_card(layout.runs(system, locale), system, ids.queries, ids.products, again)
    _write(out / f"{locale}.qrels", qrels_lines(judgements))
    for system in SYSTEMS:
        for track in TRACKS:
            path = layout.runs(system, locale).track(track)
            columns = ("query_id", "product_id", "rank")
            pieces = iter_row_groups(path, RUN, run_card.rerun_hint(system, locale), columns)
            lines = (line for piece in pieces for line in run_lines(piece, system))
            _write(out / f"{locale}.{system}.{track}.run", lines)


def _trec_ids(batch: pa.RecordBatch) -> pa.Array:
    """Return the product ids: they must survive a split at white space."""
    ids = batch["product_id"]
    unfit = pc.match_substring_regex(ids, r"^$|[\s\p{Z}\p{Cc}]")
    if pc.any(unfit).as_py():
        raise PipelineError(
            f"product_id {ids.filter(unfit)[0].as_py()!r} is empty or holds white space, which "
            "ends a column in a TREC file; change the id in the source"
        )
    return ids


def _joined(*columns: pa.Array | str) -> Iterator[str]:
    as_strings = [part if isinstance(part, str) else part.cast(pa.string()) for part in columns]
    yield from pc.binary_join_element_wise(*as_strings, " ").to_pylist()


def _write(path: Path, lines: Iterable[str]) -> None:
    with (
        atomic_file(path) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as handle,
    ):
        handle.writelines(f"{line}\n" for line in lines)


def main() -> int:
    """Export one locale, or each; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.trec")
    parser.add_argument(
        "--locale", help="a key of `encoder` in params.yaml; all of them if left out"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    arguments = parser.parse_args()
    with stage.report_errors("trec") as outcome:
        params = load_params()
        for locale in params.locales if arguments.locale is None else (arguments.locale,):
            stage.check_locale(params, locale)
            export(locale, arguments.out)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
