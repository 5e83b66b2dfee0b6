"""Score one locale's runs: data/runs/dense/<locale> + data/clean/<locale> -> reports/.

Writes the metrics of record (JSON, in Git), the same measures query by query, and the
recall-at-k curve for `dvc plots`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import files, judging, layout, metrics, runs, stage, tables
from pipeline.errors import PipelineError
from pipeline.params import Params

CURVE_CUTOFFS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def evaluate(params: Params, locale: str) -> None:
    """Score a locale's catalogue run and pool run."""
    source, remedy = layout.clean(locale), f"run `dvc repro clean@{locale}`"
    queries = tables.read_table(source / "queries.parquet", tables.QUERIES, remedy)["query_id"]
    products = tables.read_table(source / "products.parquet", tables.PRODUCTS, remedy)["product_id"]
    dropped = _dropped(source / "counts.json", remedy)
    rows, codes, labels = read_judgements(source, queries, products, remedy)
    qrels = judging.Judgements.from_pairs(rows, codes, labels, len(queries))
    # A product without text cannot be ranked: it is no part of the pool.
    text = codes < len(products)
    pool = judging.Judgements.from_pairs(rows[text], codes[text], labels[text], len(queries))
    folder, again = layout.runs("dense", locale), runs.remedy("dense", locale)
    card = runs.read_card(folder, "dense", queries, products, again)
    if params.evaluate.deepest() > card.depth:
        raise PipelineError(
            f"{folder}: the runs are {card.depth} deep, less than the deepest cutoff under "
            f"evaluate, {params.evaluate.deepest()}; {again}"
        )

    def judged_pieces(track: str, judged: judging.Judgements) -> Iterator[judging.JudgedRun]:
        return judge_run(folder / f"{track}.parquet", queries, products, judged, again)

    catalogue = [
        (metrics.catalogue_measures(run, params.evaluate), recall_curve(run, card.depth))
        for run in judged_pieces("catalogue", qrels)
    ]
    measures = {
        **_concatenate([measures for measures, _ in catalogue]),
        **_concatenate([metrics.pool_measures(run) for run in judged_pieces("pool", pool)]),
    }
    dense = metrics.means(measures)
    result = {
        "dense": dense,
        "encoder": card.of["encoder"],
        "index": card.of["index"],
        **metrics.counts(qrels),
        "products": len(products),
        **dropped,
    }
    # The numbers of record last: with them everything else is there.
    with (
        files.atomic_file(layout.metrics(locale)) as metrics_file,
        files.atomic_file(layout.recall_curve(locale)) as curve_file,
        files.atomic_file(layout.per_query(locale)) as per_query_file,
    ):
        _write_per_query(per_query_file, queries, measures)
        _write_curve(curve_file, metrics.means(_concatenate([curve for _, curve in catalogue])))
        metrics_file.write_text(files.canonical_json(result), encoding="utf-8", newline="\n")
    headline = f"ndcg@{params.evaluate.ndcg[0]}"
    stage.log.info(
        "evaluate locale=%s queries=%d %s=%s",
        locale, len(queries), headline, dense.get(headline),
    )  # fmt: skip


def read_judgements(
    folder: Path, queries: pa.ChunkedArray, products: pa.ChunkedArray, remedy: str
) -> tuple[judging.Ints, judging.Ints, judging.Ints]:
    """Read the judgements of a locale's clean tables.

    Args:
        folder: where the tables lie.
        queries: all query_ids, in the order of their table.
        products: all product_ids, in the order of theirs.
        remedy: what brings the tables back; part of messages.

    Returns:
        What `Judgements.from_pairs` takes: query rows, product codes (those of products without
        text are beyond all others), positions in `LABELS`; int64, shape [judgements] each.

    Raises:
        PipelineError: the table is missing or damaged, or names a query or label not known.
    """
    path = folder / "judgements.parquet"
    judgements = tables.read_table(path, tables.JUDGEMENTS, remedy)
    rows = tables.rows_of(queries, judgements["query_id"], path, remedy)
    codes = _codes(products, judgements["product_id"])
    labels = tables.rows_of(pa.chunked_array([tables.LABELS]), judgements["label"], path, remedy)
    return rows, codes, labels


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
            sorted by query and rank.
    """
    done = 0
    for piece in tables.iter_row_groups(path, tables.RUN, remedy):
        rows = tables.rows_of(queries, piece["query_id"], path, remedy)
        codes = tables.rows_of(products, piece["product_id"], path, remedy)
        if not len(rows):
            continue
        if rows[0] < done or (np.diff(rows) < 0).any():
            raise PipelineError(f"{path}: the rows are not sorted by query_id; {remedy}")
        if (piece["rank"].to_numpy() != judging.ordinal(rows)).any():
            raise PipelineError(f"{path}: the rows of a query are not sorted by rank; {remedy}")
        stop = int(rows[-1]) + 1
        yield judging.judge(rows, codes, qrels.rows(done, stop))
        done = stop
    nothing = np.empty(0, dtype=np.int64)
    yield judging.judge(nothing, nothing, qrels.rows(done, len(qrels)))


def recall_curve(run: judging.JudgedRun, depth: int) -> metrics.PerQuery:
    """Return recall at each of `CURVE_CUTOFFS` down to the depth of the run, keyed by cutoff."""
    return {str(k): metrics.recall(run, k) for k in CURVE_CUTOFFS if k <= depth}


def _dropped(path: Path, remedy: str) -> dict[str, int]:
    """Return how many judgements, products and queries clean left out."""
    counts = files.read_json(path, remedy)
    try:
        return {
            f"{name}_dropped": int(counts[name]["in"]) - int(counts[name]["out"])
            for name in ("judgements", "products", "queries")
        }
    except (KeyError, TypeError, ValueError) as err:
        raise PipelineError(f"{path} lacks counts ({err!r}); {remedy}") from err


def _codes(products: pa.ChunkedArray, judged: pa.ChunkedArray) -> judging.Ints:
    """Return each judged product's row; one without text has none, and a code beyond them all."""
    known = tables.row_of(products, judged)
    beyond = pc.add(pc.index_in(judged, value_set=judged.unique()), len(products))
    return np.asarray(pc.coalesce(known, beyond.combine_chunks()), dtype=np.int64)


def _concatenate(pieces: list[metrics.PerQuery]) -> metrics.PerQuery:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _write_per_query(path: Path, queries: pa.ChunkedArray, measures: metrics.PerQuery) -> None:
    """Write one row a query, one float64 column a measure, null where it is undefined."""
    columns = {name: pa.array(values, from_pandas=True) for name, values in measures.items()}
    pq.write_table(pa.table({"query_id": queries, **columns}), path, compression="zstd")


def _write_curve(path: Path, curve: dict[str, float]) -> None:
    lines = ["k,recall", *(f"{k},{recall}" for k, recall in curve.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(stage.run_locales("evaluate", evaluate))
