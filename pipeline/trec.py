"""Export a locale's runs and judgements as TREC files, so that any tool can check the numbers.

`python -m pipeline.trec --locale es --out DIR` writes into DIR, for every system,

    es.dense.catalogue.run   the ranking of the whole catalogue: query_id Q0 product_id rank score dense
    es.dense.pool.run        the ranking of each query's judged products (none of other engines)

and the judgements once for each set of queries that a measure is averaged over:

    file                grades                   queries                      for
    es.gain.qrels       E 100, S 10, C 1, I 0    with an E, S or C            nDCG
    es.e.qrels          E 1, others 0            with an E                    RR, R, P, AP
    es.e-or-s.qrels     E 1, S 1, others 0       with an E or S               R of both labels
    es.judged.qrels     E 100, S 10, C 1, I 0    all                          Judged
    es.pool-gain.qrels  E 100, S 10, C 1, I 0    with an E, S or C to rank    nDCG of the pool
    es.pool-e.qrels     E 1, others 0            with an E to rank            RR of the pool

The grades 100, 10, 1, 0 are the gains times 100: tools want integers, and linear nDCG is the same.
The pool's files leave out judged products without a text, which no system can rank.
es.measures.csv names the run and the judgements of each measure of reports/metrics/es.json that
ir_measures has. These five lines, run in DIR, give the numbers of the report:

    import csv, pathlib, ir_measures
    for row in csv.DictReader(pathlib.Path("es.measures.csv").read_text().splitlines()):
        qrels, run = ir_measures.read_trec_qrels(row["qrels"]), ir_measures.read_trec_run(row["run"])
        measure = ir_measures.parse_measure(row["ir_measures"])
        print(row["system"], row["measure"], round(ir_measures.calc_aggregate([measure], qrels, run)[measure], 5))

The scores are those of the run. Tools break ties in different ways, so a score that would not fall
from one rank to the next is lowered to the next smaller 32-bit number: every tool sees our order.
A query that retrieved nothing has no line in a run and counts as 0, as ir_measures does (for
trec_eval: -c).
"""  # noqa: E501 (the lines of the script stay whole)

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core import layout, stage
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.files import files_into
from pipeline.core.log import log
from pipeline.core.outputs import refuse_artefacts
from pipeline.core.params import Evaluate, Params
from pipeline.core.params_file import load_params
from pipeline.core.systems import SYSTEMS
from pipeline.core.tables import LABELS, RUN, iter_row_groups
from pipeline.evaluate.fresh import refuse_stale
from pipeline.evaluate.metrics import GRADES
from pipeline.runs import card as run_card
from pipeline.runs.card import TRACKS, Track
from pipeline.runs.inputs import Ids, read_judgements
from pipeline.runs.others import read_others

EXACT_GRADES = {"E": 1, "S": 0, "C": 0, "I": 0}
EXACT_OR_SUBSTITUTE_GRADES = {"E": 1, "S": 1, "C": 0, "I": 0}


@dataclass(frozen=True)
class Qrels:
    """Judgements as the measures of some queries need them.

    Only queries with a grade above 0 are in the file, or `all_queries`; `pool` leaves out judged
    products without a text.
    """

    name: str
    grades: Mapping[str, int]
    all_queries: bool = False
    pool: bool = False

    def kept(self, rows: Ints, codes: Ints, labels: Ints, ids: Ids) -> NDArray[np.bool_]:
        """Return which judgements are in the file; the arrays as `read_judgements` gives them."""
        kept = ids.has_text(codes) if self.pool else np.ones(len(codes), dtype=bool)
        if self.all_queries:
            return kept
        gain = np.array([self.grades[label] for label in LABELS])[labels]
        best = np.bincount(rows[kept], weights=gain[kept], minlength=len(ids.queries))
        return np.asarray(kept & (best[rows] > 0))


QRELS_GAIN = Qrels("gain", GRADES)
QRELS_E = Qrels("e", EXACT_GRADES)
QRELS_E_OR_S = Qrels("e-or-s", EXACT_OR_SUBSTITUTE_GRADES)
QRELS_JUDGED = Qrels("judged", GRADES, all_queries=True)
QRELS_POOL_GAIN = Qrels("pool-gain", GRADES, pool=True)
QRELS_POOL_E = Qrels("pool-e", EXACT_GRADES, pool=True)
QRELS = (QRELS_GAIN, QRELS_E, QRELS_E_OR_S, QRELS_JUDGED, QRELS_POOL_GAIN, QRELS_POOL_E)


def measures(cutoffs: Evaluate) -> Iterator[tuple[str, str, Track, Qrels]]:
    """Yield a measure's name in the reports and in ir_measures, its track and its judgements."""
    for k in cutoffs.ndcg:
        yield f"ndcg@{k}", f"nDCG@{k}", "catalogue", QRELS_GAIN
    k = cutoffs.ndcg_judged_only
    yield f"ndcg_judged_only@{k}", f"nDCG(judged_only=True)@{k}", "catalogue", QRELS_GAIN
    yield f"mrr@{cutoffs.mrr}", f"RR@{cutoffs.mrr}", "catalogue", QRELS_E
    for k in cutoffs.recall:
        yield f"recall@{k}", f"R@{k}", "catalogue", QRELS_E
        yield f"recall_e_or_s@{k}", f"R@{k}", "catalogue", QRELS_E_OR_S
    yield f"precision@{cutoffs.precision}", f"P@{cutoffs.precision}", "catalogue", QRELS_E
    yield f"map@{cutoffs.map}", f"AP@{cutoffs.map}", "catalogue", QRELS_E
    for k in cutoffs.judged:
        yield f"judged@{k}", f"Judged@{k}", "catalogue", QRELS_JUDGED
    yield "pool_ndcg", "nDCG", "pool", QRELS_POOL_GAIN
    yield "pool_ndcg@10", "nDCG@10", "pool", QRELS_POOL_GAIN
    yield "pool_mrr", "RR", "pool", QRELS_POOL_E


def tracks_of(system: str) -> tuple[Track, ...]:
    """Return the tracks that a system has runs of: another engine ranks the catalogue alone."""
    return TRACKS if system in SYSTEMS else TRACKS[:1]


def qrels_lines(judgements: pa.Table, grades: Mapping[str, int]) -> Iterator[str]:
    """Yield the lines of a qrels file, without newlines.

    Args:
        judgements: a table of schema `JUDGEMENTS`.
        grades: of each label.

    Raises:
        PipelineError: a product_id that a TREC file cannot hold, or an unknown label.
    """
    graded = pa.array([grades[label] for label in LABELS])
    for batch in judgements.to_batches():
        codes = pc.index_in(batch["label"], value_set=pa.array(LABELS))
        if codes.null_count:
            unknown = batch["label"].filter(codes.is_null())[0]
            raise PipelineError(
                f"column label: expected one of {', '.join(LABELS)} (found {unknown.as_py()!r}). "
                "Run the stage clean again."
            )
        yield from _joined(batch["query_id"], "0", _trec_ids(batch), graded.take(codes))


def run_lines(run: pa.Table, system: str) -> Iterator[str]:
    """Yield the lines of a run file, without newlines.

    Args:
        run: whole queries of a table of schema `RUN`, its columns query_id, product_id, rank and
            score.
        system: the name in the last column.

    Raises:
        PipelineError: a product_id that a TREC file cannot hold.
    """
    scores = falling(run["rank"].to_numpy(), run["score"].to_numpy())
    falls = run.set_column(run.schema.get_field_index("score"), "score", pa.array(scores))
    for batch in falls.combine_chunks().to_batches():
        yield from _joined(
            batch["query_id"], "Q0", _trec_ids(batch), batch["rank"], batch["score"], system
        )


def falling(ranks: NDArray[np.int32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return scores that fall from rank to rank, each as near below the given one as possible.

    Args:
        ranks: [n], from 1 within each query.
        scores: [n], never rising from one rank to the next.
    """
    # As integers in the order of the floats, neighbours are one apart. A query's place times a
    # number larger than their range keeps the running minimum from reaching the next query.
    bits = scores.view(np.int32).astype(np.int64)
    keys = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    place = ranks.astype(np.int64)
    apart = np.cumsum(ranks == 1) << 33
    keys = np.minimum.accumulate(keys + place - apart) + apart - place
    bits = np.where(keys < 0, -keys + (1 << 31), keys)
    return np.asarray(bits.astype(np.uint32).view(np.float32))


def export(params: Params, locale: str, out: Path) -> None:
    """Write a locale's judgements, the runs of every system and the list of measures into a folder.

    Raises:
        PipelineError: an artefact is missing, was edited, is of other tables or settings than
            these, or cannot be written as a TREC file.
    """
    read_others(params, locale)  # else a run could be of another file than params.yaml names
    ids, judgements, (rows, codes, labels) = read_judged(locale)
    systems = params.evaluated_systems(locale)
    refuse_stale(params, locale, run_card.read_cards(locale, systems, ids, params.retrieve.depth))
    if bare := len(ids.queries) - len(np.unique(rows)):
        log.warning(
            "warning: %s: %d queries have no judgement; no qrels file can name them, but judged@k "
            "counts them as 0", locale, bare,
        )  # fmt: skip
    with files_into(out) as folder:
        for qrels in QRELS:
            kept = judgements.filter(pa.array(qrels.kept(rows, codes, labels, ids)))
            write_lines(folder / _qrels_name(locale, qrels), qrels_lines(kept, qrels.grades))
        columns = ("query_id", "product_id", "rank", "score")
        for system in systems:
            for track in tracks_of(system):
                path = layout.runs(system, locale).track(track)
                pieces = iter_row_groups(path, RUN, run_card.rerun_hint(system, locale), columns)
                lines = (line for piece in pieces for line in run_lines(piece, system))
                write_lines(folder / _run_name(locale, system, track), lines)
        with (folder / f"{locale}.measures.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("system", "measure", "ir_measures", "run", "qrels"))
            for system in systems:
                for ours, theirs, track, qrels in measures(params.evaluate):
                    if track not in tracks_of(system):
                        continue
                    run = _run_name(locale, system, track)
                    writer.writerow((system, ours, theirs, run, _qrels_name(locale, qrels)))


def read_judged(locale: str) -> tuple[Ids, pa.Table, tuple[Ints, Ints, Ints]]:
    """Return what `read_judgements` does.

    Raises:
        PipelineError: as there, or nothing is judged: tools would get empty files.
    """
    found = read_judgements(locale)
    if not len(found[1]):
        raise PipelineError(
            f"{layout.clean(locale).judgements}: there are no judgements to export. Use a sample "
            "with judgements."
        )
    return found


def _qrels_name(locale: str, qrels: Qrels) -> str:
    return f"{locale}.{qrels.name}.qrels"


def _run_name(locale: str, system: str, track: str) -> str:
    return f"{locale}.{system}.{track}.run"


def _trec_ids(batch: pa.RecordBatch) -> pa.Array:
    """Return the product ids: they must survive a split at white space."""
    ids = batch["product_id"]
    unfit = pc.match_substring_regex(ids, r"^$|[\s\p{Z}\p{Cc}]")
    if pc.any(unfit).as_py():
        raise PipelineError(
            f"product_id {ids.filter(unfit)[0].as_py()!r} is empty or holds white space, which "
            "ends a column in a TREC file. Change the id in the source."
        )
    return ids


def _joined(*columns: pa.Array | str) -> Iterator[str]:
    as_strings = [part if isinstance(part, str) else part.cast(pa.string()) for part in columns]
    yield from pc.binary_join_element_wise(*as_strings, " ").to_pylist()


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file into a folder that `files_into` gives."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(f"{line}\n" for line in lines)


def export_locales(
    name: str, about: str | None, export_one: Callable[[Params, str, Path], None]
) -> int:
    """Export one locale, or each, to the folder that --out names; return the exit status.

    Args:
        name: the command's module.
        about: what it says of itself.
        export_one: writes a locale's files.
    """
    parser = stage.locale_parser(name)
    parser.description = about
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    arguments = parser.parse_args()
    with stage.report_errors(name) as outcome:
        refuse_artefacts({"--out": arguments.out}, folders=True)
        params = load_params()
        for locale in stage.asked_locales(params, arguments.locale):
            export_one(params, locale, arguments.out)
    return outcome.status


def main() -> int:
    """Export the locales; return the exit status."""
    return export_locales("trec", __doc__, export)


if __name__ == "__main__":
    sys.exit(main())
