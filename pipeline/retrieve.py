"""Search one locale: data/embeddings/<locale> + models/index/<locale> -> data/runs/dense/<locale>.

`catalogue.parquet` ranks the whole catalogue for each query, through the index. `pool.parquet`
ranks each query's judged products, by the vectors themselves, whatever the index.
"""

import sys
from collections.abc import Iterator

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import layout, ranking, runs, stage, tables, vectors
from pipeline.errors import PipelineError
from pipeline.files import atomic_directory
from pipeline.index import as_searched, read_index
from pipeline.params import Params, Similarity

BATCH_QUERIES = 1_024
BATCH_PAIRS = 65_536
EXTRA_RESULTS = 100
"""Results asked for beyond the depth, so that most ties at the last place need no second search."""


def search(
    index: faiss.Index, queries: vectors.Matrix, depth: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the first `depth` products of each query in the order of `ranking`.

    Where products with equal scores stand on both sides of the last place, more are asked for
    until the tie is whole: the ids decide who is in, not the order of FAISS.

    Returns:
        Scores and product codes, both [queries, min(depth, products)]; `ranking.NO_PRODUCT` fills
        places that an approximate index found nothing for.
    """
    depth = min(depth, index.ntotal)
    scores = np.empty((len(queries), depth))
    codes = np.empty((len(queries), depth), dtype=np.int64)
    open_rows = np.arange(len(queries))
    asked = min(depth + EXTRA_RESULTS, index.ntotal)
    while open_rows.size:
        raw, found = index.search(queries[open_rows], asked)
        if index.metric_type == faiss.METRIC_L2:
            raw = -raw
        ranked, found = ranking.rank_matrix(raw, found)
        scores[open_rows], codes[open_rows] = ranked[:, :depth], found[:, :depth]
        tied = (ranked[:, -1] == ranked[:, depth - 1]) & (found[:, -1] != ranking.NO_PRODUCT)
        open_rows = open_rows[tied] if asked < index.ntotal else open_rows[:0]
        asked = min(2 * asked, index.ntotal)
    return scores, codes


def score_pairs(
    queries: vectors.Matrix, products: vectors.Matrix, similarity: Similarity
) -> NDArray[np.float64]:
    """Return the similarity of query row i and product row i, higher is better, float64 [rows]."""
    if similarity == "l2":
        scores = -np.square(queries.astype(np.float64) - products).sum(axis=1)
    else:
        scores = np.einsum("ij,ij->i", queries, products, dtype=np.float64)
    return np.asarray(scores, dtype=np.float64)


def retrieve(params: Params, locale: str) -> None:
    """Write the catalogue run and the pool run of a locale."""
    manifest = vectors.read_manifest(params, locale)
    source, remedy = layout.clean(locale), f"run `dvc repro clean@{locale}`"
    query_ids = tables.read_table(source / "queries.parquet", tables.QUERIES, remedy)["query_id"]
    products = tables.read_table(source / "products.parquet", tables.PRODUCTS, remedy)
    product_ids = products["product_id"]
    judgements = tables.read_table(source / "judgements.parquet", tables.JUDGEMENTS, remedy)
    vectors.check_ids(manifest, "queries", query_ids, locale)
    vectors.check_ids(manifest, "products", product_ids, locale)
    if (np.diff(judgements["query_id"].to_numpy()) < 0).any():
        raise PipelineError(f"{source}/judgements.parquet is not sorted by query_id; {remedy}")
    index = read_index(params, locale, manifest)
    similarity = params.encoder_of(locale).similarity
    queries = as_searched(
        vectors.read_vectors(manifest, "queries", locale), similarity, f"{locale} queries"
    )
    faiss.omp_set_num_threads(params.runtime.thread_count())
    ids = (query_ids, product_ids)
    # A judged product without text has no vector: no run can hold it.
    judgements = judgements.filter(tables.row_of(product_ids, judgements["product_id"]).is_valid())
    judged_rows, judged_codes = (
        tables.rows_of(known, judgements[column], source / "judgements.parquet", remedy)
        for known, column in zip(ids, ("query_id", "product_id"), strict=True)
    )
    with atomic_directory(layout.dense_runs(locale)) as out:
        with pq.ParquetWriter(out / "catalogue.parquet", tables.RUN, compression="zstd") as run:
            starts = range(0, len(queries), BATCH_QUERIES)
            for start in stage.track(starts, len(queries), "queries", lambda _: BATCH_QUERIES):
                scores, codes = search(
                    index, queries[start : start + BATCH_QUERIES], params.retrieve.depth
                )
                row, place = np.nonzero(codes != ranking.NO_PRODUCT)
                found = _run_table(ids, row + start, codes[row, place], scores[row, place])
                if len(found):
                    run.write_table(found, row_group_size=len(found))
        with pq.ParquetWriter(out / "pool.parquet", tables.RUN, compression="zstd") as run:
            for rows, codes, scores in _pool(
                judged_rows, judged_codes, queries, similarity, manifest, locale
            ):
                run.write_table(_run_table(ids, rows, codes, scores), row_group_size=len(rows))
        names = (params.encoder[locale], params.index[locale])
        runs.write_card(out, runs.card(out, *names, params.retrieve.depth, *ids))
    stage.log.info(
        "retrieve locale=%s queries=%d products=%d depth=%d",
        locale, len(queries), index.ntotal, min(params.retrieve.depth, index.ntotal),
    )  # fmt: skip


def _run_table(
    ids: tuple[pa.ChunkedArray, pa.ChunkedArray],
    rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> pa.Table:
    """Return a run of query rows (ascending) and product codes in ranked order.

    `ids` are those of all queries and of all products.
    """
    queries, products = ids
    first = np.searchsorted(rows, rows, side="left")
    return pa.table(
        {
            "query_id": queries.take(pa.array(rows)),
            "product_id": products.take(pa.array(codes)),
            "score": scores.astype(np.float32),
            "rank": (np.arange(len(rows)) - first + 1).astype(np.int32),
        }
    ).cast(tables.RUN)


def _pool(
    rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    queries: vectors.Matrix,
    similarity: Similarity,
    manifest: vectors.Manifest,
    locale: str,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Rank judged pairs, given by query row (ascending) and product code, some queries at a time.

    Yields query rows, product codes and scores in ranked order.
    """
    start = 0
    while start < len(rows):
        # A piece ends where a query does.
        stop = int(np.searchsorted(rows, rows[min(start + BATCH_PAIRS, len(rows)) - 1], "right"))
        judged, place = np.unique(codes[start:stop], return_inverse=True)
        products = as_searched(
            vectors.read_vectors(manifest, "products", locale, judged),
            similarity,
            f"{locale} products",
        )
        scores = score_pairs(queries[rows[start:stop]], products[place], similarity)
        yield ranking.rank_pairs(rows[start:stop], codes[start:stop], scores)
        start = stop


if __name__ == "__main__":
    sys.exit(stage.run_locales("retrieve", retrieve))
