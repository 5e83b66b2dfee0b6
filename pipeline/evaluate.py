"""Score one locale's runs: data/runs/dense/<locale> + data/clean/<locale> -> reports/.

Writes the metrics of record (JSON, in Git), the same measures query by query, and the
recall-at-k curve for `dvc plots`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files, judging, layout, metrics, stage, tables
from pipeline.errors import PipelineError
from pipeline.params import Params

CURVE_CUTOFFS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def evaluate(params: Params, locale: str) -> None:
    """Score a locale's catalogue run and pool run."""
    source, remedy = layout.clean(locale), f"run `dvc repro clean@{locale}`"
    queries = tables.read_table(source / "queries.parquet", tables.QUERIES, remedy)["query_id"]
    products = tables.read_table(source / "products.parquet", tables.PRODUCTS, remedy)["product_id"]
    judgements_path = source / "judgements.parquet"
    judgements = tables.read_table(judgements_path, tables.JUDGEMENTS, remedy)
    rows = files.read_json(source / "counts.json", remedy)
    qrels = judging.Judgements.from_pairs(
        tables.rows_of(queries, judgements["query_id"], judgements_path, remedy),
        tables.rows_of(products, judgements["product_id"], judgements_path, remedy),
        tables.rows_of(
            pa.chunked_array([tables.LABELS]), judgements["label"], judgements_path, remedy
        ),
        len(queries),
    )

    def judged_pieces(track: str) -> Iterator[judging.JudgedRun]:
        path = layout.dense_runs(locale) / f"{track}.parquet"
        again = f"run `dvc repro --force retrieve@{locale}`"
        return judge_run(path, queries, products, qrels, again)

    catalogue = [
        (metrics.catalogue_measures(run, params.evaluate), recall_curve(run))
        for run in judged_pieces("catalogue")
    ]
    measures = {
        **_concatenate([measures for measures, _ in catalogue]),
        **_concatenate([metrics.pool_measures(run) for run in judged_pieces("pool")]),
    }
    curve = _concatenate([curve for _, curve in catalogue])
    _write_per_query(layout.per_query(locale), queries, measures)
    _write_curve(layout.recall_curve(locale), metrics.means(curve))
    result = {
        "dense": metrics.means(measures),
        **metrics.counts(qrels),
        "products": len(products),
        **{f"{name}_dropped": rows[name]["in"] - rows[name]["out"] for name in sorted(rows)},
    }
    files.write_json(layout.metrics(locale), result)
    headline = f"ndcg@{params.evaluate.ndcg[0]}"
    stage.log.info(
        "evaluate locale=%s queries=%d %s=%s",
        locale, len(queries), headline, result["dense"].get(headline),
    )  # fmt: skip


def judge_run(
    path: Path,
    queries: pa.ChunkedArray,
    products: pa.ChunkedArray,
    qrels: judging.Judgements,
    remedy: str,
) -> Iterator[judging.JudgedRun]:
    """Yield the judged products of a run file, some queries at a time, all of them in order.

    Raises:
        PipelineError: the run has a query or a product that the clean tables have not, or is not
            sorted.
    """
    done = 0
    for piece in tables.iter_row_groups(path, tables.RUN, remedy):
        rows = tables.rows_of(queries, piece["query_id"], path, remedy)
        codes = tables.rows_of(products, piece["product_id"], path, remedy)
        if not len(rows):
            continue
        if rows[0] < done or (np.diff(rows) < 0).any():
            raise PipelineError(f"{path}: the rows are not sorted by query_id; {remedy}")
        stop = int(rows[-1]) + 1
        yield judging.judge(rows, codes, qrels.rows(done, stop))
        done = stop
    nothing = np.empty(0, dtype=np.int64)
    yield judging.judge(nothing, nothing, qrels.rows(done, len(qrels)))


def recall_curve(run: judging.JudgedRun) -> metrics.PerQuery:
    """Return recall at each of `CURVE_CUTOFFS`, keyed by cutoff."""
    return {str(k): metrics.recall(run, k) for k in CURVE_CUTOFFS}


def _concatenate(pieces: list[metrics.PerQuery]) -> metrics.PerQuery:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _write_per_query(path: Path, queries: pa.ChunkedArray, measures: metrics.PerQuery) -> None:
    """Write one row a query, one float64 column a measure, null where it is undefined."""
    columns = {name: pa.array(values, from_pandas=True) for name, values in measures.items()}
    with files.atomic_file(path) as partial:
        pq.write_table(pa.table({"query_id": queries, **columns}), partial, compression="zstd")


def _write_curve(path: Path, curve: dict[str, float]) -> None:
    lines = ["k,recall", *(f"{k},{recall}" for k, recall in curve.items())]
    with files.atomic_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(stage.run_locales("evaluate", evaluate))
