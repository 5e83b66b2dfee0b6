"""Our evaluation against pytrec_eval, from the same run file, in one run, with the same numbers.

    python -m bench.evaluate [--queries N] [--depth N] [--rounds N]

The run is made up: 20,000 queries by 1,000 results of 100,000 products, about 20 judgements for
each. Both sides read the file piece by piece and give every measure of the catalogue track for each
query. Ours does as the stage does, its checks included; pytrec_eval gets dictionaries, built as
fast as Python can. The bench fails unless both agree to 1e-9. The figures go to
reports/bench/evaluate.json, and as a table to evaluate.md.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytrec_eval

from bench import reports
from bench.measure import Figures
from pipeline.core import stage, tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json, write_text
from pipeline.core.log import log
from pipeline.core.params import Evaluate
from pipeline.core.params_file import load_params
from pipeline.evaluate import judged_run, metrics
from pipeline.evaluate.metrics import GRADES, PerQuery
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Inputs

PRODUCTS = 99_991
"""A prime, so that every stride through the catalogue comes to every product."""
QUERIES_A_PIECE = 1_000
SEED = 3
TOLERANCE = 1e-9

LIBRARIES = ("numpy", "pyarrow", "pytrec_eval-terrier")

Grades = dict[str, dict[str, int]]
Clock = dict[str, float]


@dataclass(frozen=True)
class Task:
    """A run file, what it is over, and the judgements: rows, codes and labels, [pairs] each."""

    path: Path
    inputs: Inputs
    labels: Ints


def make_task(folder: Path, queries: int, depth: int) -> Task:
    """Write a random run, and judgements that it finds a part of, more of them near the top."""
    rng = np.random.default_rng(SEED)
    ids = pa.array(f"B0{number:08d}" for number in range(PRODUCTS))
    first, stride = rng.integers(1, PRODUCTS, (2, queries))
    judged = rng.poisson(18, queries) + 2
    rows = np.repeat(np.arange(queries), judged)
    # Ranks beyond the depth are judged products that the run does not find.
    ranks = np.unique(
        np.stack([rows, (rng.random(rows.size) ** 3 * 3 * depth).astype(np.int64)]), axis=1
    )
    rows, places = ranks
    codes = (first[rows] + stride[rows] * places) % PRODUCTS
    labels = rng.choice(len(tables.LABELS), rows.size, p=[0.44, 0.34, 0.05, 0.17])
    query_ids = pa.chunked_array([np.arange(queries)])
    inputs = Inputs(query_ids, pa.chunked_array([ids]), rows, codes)
    path = folder / "catalogue.parquet"
    with pq.ParquetWriter(path, tables.RUN, compression="zstd") as writer:
        for start in range(0, queries, QUERIES_A_PIECE):
            piece = np.arange(start, min(start + QUERIES_A_PIECE, queries))
            found = first[piece, np.newaxis] + stride[piece, np.newaxis] * np.arange(depth)
            scores = np.broadcast_to(1 - np.arange(depth) / (2 * depth), found.shape)
            table = run_files.run_table(
                inputs, np.repeat(piece, depth), (found % PRODUCTS).ravel(), scores.ravel()
            )
            writer.write_table(table, row_group_size=len(table))
    return Task(path, inputs, labels)


def ours(task: Task, cutoffs: Evaluate, clock: Clock) -> PerQuery:
    """Evaluate as the stage does."""
    started = time.perf_counter()
    inputs = task.inputs
    judgements = judged_run.Judgements.from_pairs(
        inputs.pair_queries, inputs.pair_products, task.labels, len(inputs.queries)
    )
    pieces = []
    for queries, (rows, codes, _) in run_files.iter_run(task.path, inputs, QUERIES_A_PIECE, ""):
        run = judged_run.judge(rows, codes, judgements.rows(queries.start, queries.stop))
        pieces.append(metrics.catalogue_measures(run, cutoffs))
    found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    clock["all"] = time.perf_counter() - started
    return found


def theirs(task: Task, cutoffs: Evaluate, clock: Clock) -> PerQuery:
    """Evaluate with pytrec_eval: what trec_eval lacks is derived from what it has."""
    started = time.perf_counter()
    converting = 0.0
    queries = len(task.inputs.queries)
    judged = _qrels(task)
    # trec_eval takes one level of relevance at a time. Judged at all is one more grade for each.
    levels: list[tuple[Grades, dict[str, Any], set[str]]] = [
        (judged, {}, {f"ndcg_cut.{k}" for k in cutoffs.ndcg}),
        (judged, {"judged_docs_only_flag": True}, {f"ndcg_cut.{cutoffs.ndcg_judged_only}"}),
        (judged, {"relevance_level": GRADES["E"]}, _of_exact(cutoffs)),
        (judged, {"relevance_level": GRADES["S"]}, {f"recall.{k}" for k in cutoffs.recall}),
        (_graded_up(judged), {}, {f"P.{k}" for k in cutoffs.judged}),
    ]
    columns = [{name: np.zeros(queries) for name in _given(wanted)} for *_, wanted in levels]
    with pq.ParquetFile(task.path) as file:
        for number in range(file.num_row_groups):
            before = time.perf_counter()
            run = _dictionaries(file.read_row_group(number))
            converting += time.perf_counter() - before
            for (qrels, settings, wanted), of_level in zip(levels, columns, strict=True):
                of_run = {query: qrels[query] for query in run}
                evaluator = pytrec_eval.RelevanceEvaluator(of_run, wanted, **settings)
                for query, values in evaluator.evaluate(run).items():
                    for name, column in of_level.items():
                        column[int(query)] = values[name]
    found = _named(columns, task, cutoffs)
    clock |= {"all": time.perf_counter() - started, "conversion": converting}
    return found


def _qrels(task: Task) -> Grades:
    rows, codes = task.inputs.pair_queries, task.inputs.pair_products
    grades = np.array([GRADES[label] for label in tables.LABELS])[task.labels].tolist()
    products = task.inputs.products.take(pa.array(codes)).to_pylist()
    found: Grades = {str(query): {} for query in range(len(task.inputs.queries))}
    for row, product, grade in zip(rows.tolist(), products, grades, strict=True):
        found[str(row)][product] = grade
    return found


def _graded_up(qrels: Grades) -> Grades:
    return {
        query: {product: grade + 1 for product, grade in of_query.items()}
        for query, of_query in qrels.items()
    }


def _dictionaries(run: pa.Table) -> dict[str, dict[str, float]]:
    """Return a run, sorted by query, as pytrec_eval takes it."""
    ids, firsts = np.unique(run["query_id"].to_numpy(), return_index=True)
    products, scores = run["product_id"].to_pylist(), run["score"].to_pylist()
    bounds = itertools.pairwise([*firsts.tolist(), len(run)])
    return {
        str(query): dict(zip(products[start:stop], scores[start:stop], strict=True))
        for query, (start, stop) in zip(ids.tolist(), bounds, strict=True)
    }


def _of_exact(cutoffs: Evaluate) -> set[str]:
    return {
        "recip_rank",
        f"map_cut.{cutoffs.map}",
        *(f"P.{k}" for k in (cutoffs.precision, cutoffs.capped_recall)),
        *(f"recall.{k}" for k in cutoffs.recall),
    }


def _given(wanted: set[str]) -> list[str]:
    return [name.replace(".", "_") for name in sorted(wanted)]


def _named(columns: list[PerQuery], task: Task, cutoffs: Evaluate) -> PerQuery:
    """Return pytrec_eval's values under our names."""
    graded, judged_only, exact, exact_or_s, judged = columns
    k = cutoffs.capped_recall
    of_queries = task.inputs.pair_queries[task.labels == tables.LABELS.index("E")]
    relevant = np.bincount(of_queries, minlength=len(task.inputs.queries))
    # It knows no RR at a cutoff: an E beyond has a rank of its own.
    first = exact["recip_rank"]
    return {
        **{f"ndcg@{k}": graded[f"ndcg_cut_{k}"] for k in cutoffs.ndcg},
        **{
            f"ndcg_judged_only@{k}": judged_only[f"ndcg_cut_{k}"]
            for k in (cutoffs.ndcg_judged_only,)
        },
        f"mrr@{cutoffs.mrr}": np.where(first > 1 / (cutoffs.mrr + 0.5), first, 0),
        **{f"recall@{k}": exact[f"recall_{k}"] for k in cutoffs.recall},
        **{f"recall_e_or_s@{k}": exact_or_s[f"recall_{k}"] for k in cutoffs.recall},
        f"capped_recall@{k}": exact[f"P_{k}"] * k / np.maximum(np.minimum(relevant, k), 1),
        f"precision@{cutoffs.precision}": exact[f"P_{cutoffs.precision}"],
        f"map@{cutoffs.map}": exact[f"map_cut_{cutoffs.map}"],
        **{f"judged@{k}": judged[f"P_{k}"] for k in cutoffs.judged},
    }


def largest_difference(mine: PerQuery, other: PerQuery) -> float:
    """Return by how much two evaluations differ at most; where we have no value, trec_eval has 0.

    Raises:
        PipelineError: they lack measures of one another, or differ by more than `TOLERANCE`.
    """
    # trec_eval does not report how many products a query ranks.
    if missing := (mine.keys() ^ other.keys()) - {"retrieved"}:
        raise PipelineError(f"only one side has {', '.join(sorted(missing))}. Correct the bench.")
    found = {name: np.abs(np.nan_to_num(mine[name]) - other[name]).max() for name in other}
    worst = max(found, key=lambda name: found[name])
    if found[worst] > TOLERANCE:
        raise PipelineError(
            f"{worst} differs by {found[worst]:.3g} from pytrec_eval, more than {TOLERANCE}. "
            "Correct the measure or the bench."
        )
    return float(found[worst])


def compare(task: Task, cutoffs: Evaluate, rounds: int) -> Figures:
    """Let the sides take turns, in another order each round, and check the numbers."""
    clocks: dict[str, list[Clock]] = {name: [] for name in SIDES}
    difference = 0.0
    for number in range(rounds):
        found = {}
        for name in list(SIDES)[:: -1 if number % 2 else 1]:
            clock: Clock = {}
            found[name] = SIDES[name](task, cutoffs, clock)
            clocks[name].append(clock)
            log.info("round %d: %s %.1f s", number + 1, name, clock["all"])
        difference = max(difference, largest_difference(*(found[name] for name in SIDES)))
    seconds = {name: [each["all"] for each in clocks[name]] for name in SIDES}
    mine, other = (seconds[name] for name in SIDES)
    ratios = [slow / fast for fast, slow in zip(mine, other, strict=True)]
    return {
        "conversion_share": round(
            median(each["conversion"] / each["all"] for each in clocks["pytrec_eval"]), 3
        ),
        "largest_difference": float(f"{difference:.2g}"),
        "measures": sorted(found["pytrec_eval"]),
        "ratio": {
            name: round(of(ratios), 2)
            for name, of in (("max", max), ("median", median), ("min", min))
        },
        "seconds": {name: [round(each, 2) for each in of] for name, of in seconds.items()},
    }


SIDES: dict[str, Callable[[Task, Evaluate, Clock], PerQuery]] = {
    "pipeline": ours, "pytrec_eval": theirs,
}  # fmt: skip


def table(figures: Figures) -> str:
    """Return the figures as a Markdown table."""
    ratio, size = figures["ratio"], f"{figures['queries']:,} × {figures['depth']:,}"
    shown = {
        "pipeline": f"{ratio['median']:.1f} [{ratio['min']:.1f}, {ratio['max']:.1f}]",
        "pytrec_eval": "1",
    }
    lines = [
        "| queries × results | measures | side | seconds | × pytrec_eval [least, most] "
        "| largest difference |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name, seconds in figures["seconds"].items():
        cells = (
            size, len(figures["measures"]), name, f"{median(seconds):.1f}", shown[name],
            figures["largest_difference"],
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluate")
    for name, default, about in (
        ("queries", 20_000, "how many queries (default: 20000)"),
        ("depth", 1_000, "results per query, at least the deepest cutoff (default: 1000)"),
        ("rounds", 3, "how many rounds (default: 3)"),
    ):
        parser.add_argument(f"--{name}", default=default, type=int, help=about)
    options = parser.parse_args()
    if min(options.queries, options.depth, options.rounds) < 1:
        parser.error("--queries, --depth and --rounds must be at least 1")
    return options


def main() -> int:
    """Measure, write the report, print the table; return the exit status."""
    options = _options()
    with stage.report_errors("bench") as outcome:
        params = load_params()
        made = reports.made_by(LIBRARIES)
        if options.depth < params.evaluate.deepest():
            raise PipelineError(
                f"--depth {options.depth} is less than the deepest cutoff under evaluate in "
                f"params.yaml, {params.evaluate.deepest()}, and trec_eval counts missing results "
                "as unjudged. Raise --depth."
            )
        with TemporaryDirectory() as scratch:
            task = make_task(Path(scratch), options.queries, options.depth)
            figures = compare(task, params.evaluate, options.rounds)
        figures |= {
            "depth": options.depth,
            **made,
            "products": PRODUCTS,
            "queries": options.queries,
        }
        write_json(reports.EVALUATE, figures)
        text = table(figures) + reports.origin([made["commit"]], made["machine"])
        write_text(reports.EVALUATE.with_suffix(".md"), text)
        sys.stdout.write(text)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
