"""Search one locale: data/embeddings/<locale> + models/index/<locale> -> data/runs/dense/<locale>.

`catalogue.parquet` ranks the whole catalogue for each query, through the index. `pool.parquet`
ranks each query's judged products by the vectors themselves. `run.json` says which share of the
exact top 100 the index finds; `gate` checks it. The curve beside the vectors goes along.
"""

import shutil

import numpy as np

from pipeline.core import layout, stage
from pipeline.core.arrays import Matrix, sampled_rows
from pipeline.core.faiss import faiss
from pipeline.core.log import log
from pipeline.core.params import FlatIndex, Params, Similarity
from pipeline.core.progress import track
from pipeline.index.card import read_index
from pipeline.retrieve import neighbours
from pipeline.retrieve.ranges import first_searches
from pipeline.retrieve.rescored import rescored
from pipeline.runs import files as run_files
from pipeline.runs import ranking
from pipeline.runs.card import OVERLAP_QUERIES
from pipeline.runs.inputs import read_inputs
from pipeline.runs.made_of import of_dense
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.manifest import check_ids, read_manifest
from pipeline.vectors.pairs import rank_judged
from pipeline.vectors.shards import ShardReader, read_vectors


def retrieve(params: Params, locale: str) -> stage.Done:
    """Write the catalogue run and the pool run of a locale."""
    manifest = read_manifest(params, locale)
    inputs = read_inputs(locale)
    check_ids(manifest, "queries", inputs.queries, locale)
    check_ids(manifest, "products", inputs.products, locale)
    index = read_index(params, locale, manifest)
    similarity = params.encoder_of(locale).similarity
    products = ShardReader(manifest, "products", locale)
    settings = params.index_of(locale)
    index = rescored(index, settings, similarity, products)
    queries = to_index_form(
        read_vectors(manifest, "queries", locale), similarity, f"{locale} queries"
    )
    faiss.omp_set_num_threads(params.runtime.thread_count())
    overlap = _overlap(index, isinstance(settings, FlatIndex), queries, products, similarity)
    of = of_dense(params, locale, manifest.vectors_sha256())
    depth = params.retrieve.depth
    with (
        first_searches(params, locale, index, queries) as first,
        run_files.write_runs(locale, "dense", of, depth, inputs, overlap) as (catalogue, pool),
    ):
        size = neighbours.SEARCHED_QUERIES
        tied = followed = 0
        starts = range(0, len(queries), size)
        for start in track(starts, len(queries), "queries", lambda _: size):
            batch = queries[start : start + size]
            scores, codes = neighbours.search(index, batch, depth, first)
            follows = codes[:, 1:] != ranking.NO_PRODUCT
            followed += int(np.count_nonzero(follows))
            tied += int(np.count_nonzero(follows & (scores[:, 1:] == scores[:, :-1])))
            for begin in range(0, len(codes), run_files.QUERIES_A_PIECE):
                group = slice(begin, begin + run_files.QUERIES_A_PIECE)
                row, place = np.nonzero(codes[group] != ranking.NO_PRODUCT)
                at = row + begin
                catalogue.add(at + start, codes[at, place], scores[at, place])
        for ranked in rank_judged(
            inputs.pair_queries,
            inputs.pair_products,
            lambda rows: queries[rows],
            lambda rows: to_index_form(products.take(rows), similarity, "products"),
            similarity,
            manifest.dimension,
        ):
            pool.add(*ranked)
        if (curve := layout.embeddings(locale).curve).is_file():
            shutil.copyfile(curve, layout.RunFiles(pool.folder).curve)
    if 2 * tied > followed:
        log.warning(
            "warning: %s %s: %d of %d products have the score of the one before them, rounded to "
            "%d decimals, and product_id orders these. Their vectors are equal, too short for "
            "similarity: %s, or of a coarse index without rescore.",
            locale, manifest.encoder, tied, followed, ranking.SCORE_DECIMALS, similarity,
        )  # fmt: skip
    log.info(
        "retrieve locale=%s queries=%d products=%d depth=%d index_overlap=%s",
        locale, len(queries), index.ntotal, min(depth, index.ntotal), overlap,
    )  # fmt: skip
    return stage.Done(
        params.search_way(locale, index.ntotal * queries.size),
        queries=len(queries),
        products=index.ntotal,
        dimension=manifest.dimension,
        depth=depth,
        **settings.model_dump(exclude={"kind"}),
    )


def _overlap(
    index: faiss.Index, exact: bool, queries: Matrix, products: ShardReader, similarity: Similarity
) -> float | None:
    """Return what an index finds for some of the queries, as `RunCard.index_overlap` has it.

    None where there are no queries (sample.queries: none).
    """
    if not len(queries):
        return None
    if exact:
        return 1.0
    sample = queries[sampled_rows(len(queries), OVERLAP_QUERIES)]
    return neighbours.index_overlap(index, sample, products, similarity)
