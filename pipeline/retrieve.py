"""Search one locale: data/embeddings/<locale> + models/index/<locale> -> data/runs/dense/<locale>.

`catalogue.parquet` ranks the whole catalogue for each query, through the index. `pool.parquet`
ranks each query's judged products, by the vectors themselves, whatever the index.
"""

import sys
from collections.abc import Iterator

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline import ranking, runs, stage, vectors
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
    inputs = runs.read_inputs(locale)
    vectors.check_ids(manifest, "queries", inputs.queries, locale)
    vectors.check_ids(manifest, "products", inputs.products, locale)
    index = read_index(params, locale, manifest)
    similarity = params.encoder_of(locale).similarity
    queries = as_searched(
        vectors.read_vectors(manifest, "queries", locale), similarity, f"{locale} queries"
    )
    faiss.omp_set_num_threads(params.runtime.thread_count())
    runs.write(
        locale,
        "dense",
        {"encoder": params.encoder[locale], "index": params.index[locale]},
        params.retrieve.depth,
        inputs,
        _catalogue(index, queries, params.retrieve.depth),
        _pool(inputs.pair_queries, inputs.pair_products, queries, similarity, manifest, locale),
    )
    stage.log.info(
        "retrieve locale=%s queries=%d products=%d depth=%d",
        locale, len(queries), index.ntotal, min(params.retrieve.depth, index.ntotal),
    )  # fmt: skip


def _catalogue(index: faiss.Index, queries: vectors.Matrix, depth: int) -> Iterator[runs.Ranked]:
    """Rank the whole catalogue for every query, some queries at a time."""
    starts = range(0, len(queries), BATCH_QUERIES)
    for start in stage.track(starts, len(queries), "queries", lambda _: BATCH_QUERIES):
        scores, codes = search(index, queries[start : start + BATCH_QUERIES], depth)
        row, place = np.nonzero(codes != ranking.NO_PRODUCT)
        yield row + start, codes[row, place], scores[row, place]


def _pool(
    rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    queries: vectors.Matrix,
    similarity: Similarity,
    manifest: vectors.Manifest,
    locale: str,
) -> Iterator[runs.Ranked]:
    """Rank judged pairs, given by query row (ascending) and product code, piece by piece."""
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
