"""Find each product's nearest others: data/embeddings + models/index -> data/similar/<locale>.

`reports/similar/<locale>.json` says what they are worth by the ESCI labels (see `anchors`), beside
random products and those with the same words. DVC shows a few of its numbers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.bm25 import analysers
from pipeline.bm25.kept import open_postings
from pipeline.bm25.search import TermIndex
from pipeline.bm25.texts import terms_of_rows
from pipeline.core import files, layout, stage
from pipeline.core.arrays import Floats, Ints, sampled_rows
from pipeline.core.faiss import faiss
from pipeline.core.log import log
from pipeline.core.params import FlatIndex, Params
from pipeline.core.progress import track
from pipeline.evaluate.judged_run import Judgements
from pipeline.evaluate.uncertainty import bootstrap_intervals
from pipeline.index.card import read_index
from pipeline.retrieve import neighbours
from pipeline.retrieve.rescored import rescore_factor
from pipeline.runs import ranking
from pipeline.runs.card import OVERLAP_QUERIES
from pipeline.runs.inputs import Ids, read_judgements
from pipeline.similar import anchors as labelled
from pipeline.similar import more_like_this
from pipeline.similar.anchors import Anchors
from pipeline.similar.nearest import PROPOSED, Catalogue, nearest_products
from pipeline.similar.table import iter_neighbours, write_neighbours
from pipeline.vectors.manifest import Manifest, check_ids, read_manifest
from pipeline.vectors.pairs import score_pairs
from pipeline.vectors.shards import ShardReader, take_any

BATCH_ANCHORS = 512

KEY_MEASURES = ("concordance", f"precision@{labelled.PLACES}")
"""The measures that are columns of DVC's tables."""


def similar(params: Params, locale: str) -> stage.Done:
    """Write each product's nearest others, and what they are worth."""
    manifest, catalogue = open_catalogue(params, locale)
    ids, pool = read_pool(locale)
    check_ids(manifest, "products", ids.products, locale)
    settings, kept = params.index_of(locale), params.similar.neighbours
    threads = params.runtime.thread_count()
    faiss.omp_set_num_threads(threads)
    total, fewer = len(ids.products), 0
    with write_neighbours(params, locale, manifest, ids.products) as table:
        pieces = nearest_products(catalogue, kept, threads)
        for rows, scores, codes in track(pieces, total, "products", lambda piece: len(piece[0])):
            table.add(rows, scores, codes)
            fewer += int((codes == ranking.NO_PRODUCT).any(axis=1).sum())
    report: dict[str, Any] = {
        "encoder": params.encoder[locale],
        "index": params.index[locale],
        "products": total,
        "table_sha256": manifest.products.table_sha256,
        "vectors_sha256": manifest.products.sha256(),
        "neighbours": min(kept, total - 1),
        "products_with_fewer": fewer,
        f"index_overlap@{kept}": overlap(catalogue, locale, kept),
        **evaluate(params, locale, catalogue, labelled.draw_anchors(pool)),
    }
    files.write_json(layout.similar_key_metrics(locale), key_metrics(report))
    files.write_json(layout.similar_report(locale), report)
    log.info(
        "similar locale=%s products=%d neighbours=%d queries=%d concordance=%s",
        locale, total, min(kept, total - 1), report["queries"],
        report.get("dense", {}).get("concordance"),
    )  # fmt: skip
    return stage.Done(
        settings.kind, products=total, neighbours=kept, dimension=manifest.dimension,
        **settings.model_dump(exclude={"kind"}),
    )  # fmt: skip


def open_catalogue(params: Params, locale: str) -> tuple[Manifest, Catalogue]:
    """Open a locale's vectors and the index that holds them.

    Raises:
        PipelineError: they are missing, damaged, or of other settings.
    """
    manifest, settings = read_manifest(params, locale), params.index_of(locale)
    return manifest, Catalogue(
        read_index(params, locale, manifest),
        ShardReader(manifest, "products", locale),
        params.encoder_of(locale).similarity,
        isinstance(settings, FlatIndex),
        max(PROPOSED, rescore_factor(settings)),
    )


def read_pool(locale: str) -> tuple[Ids, Judgements]:
    """Read a locale's ids, and the judgements of products with a text; there may be none."""
    ids, _, pairs = read_judgements(locale)
    return ids, Judgements.of_pool(ids, pairs)


def overlap(catalogue: Catalogue, locale: str, kept: int) -> float | None:
    """Return the share of the exact neighbours that are in the table, of some products.

    None where there is no other product.
    """
    kept = min(kept, catalogue.index.ntotal - 1)
    if catalogue.exact or not kept:
        return 1.0 if kept else None
    rows = sampled_rows(catalogue.index.ntotal, OVERLAP_QUERIES)
    own = catalogue.take(rows)
    near = neighbours.exact_codes(catalogue.vectors, own, kept + 1, catalogue.similarity)
    exact = np.array([codes[codes != row][:kept] for row, codes in zip(rows, near, strict=True)])
    return neighbours.overlap(found_of(locale, rows, kept), exact)


def found_of(locale: str, rows: Ints, most: int) -> Ints:
    """Return the first neighbours in the table of some products, [rows, most].

    `ranking.NO_PRODUCT` fills places without one. A product may be wanted several times.
    """
    wanted, place_of = np.unique(rows, return_inverse=True)
    found = np.full((len(wanted), most), ranking.NO_PRODUCT, dtype=np.int64)
    for products, codes, _ in iter_neighbours(locale):
        rank = ranking.places(products)
        at = np.minimum(np.searchsorted(wanted, products), len(wanted) - 1)
        mine = (wanted[at] == products) & (rank < most)
        found[at[mine], rank[mine]] = codes[mine]
    return found[place_of]


def evaluate(params: Params, locale: str, catalogue: Catalogue, anchors: Anchors) -> dict[str, Any]:
    """Return the part of the report that the labels give."""
    counts = {
        "queries": anchors.queries,
        "queries_eligible": anchors.eligible,
        "anchors": len(anchors),
    }
    if not len(anchors):
        why = "no query has an Exact product and another judged one, both with a text"
        return {**counts, "not_evaluated": why}
    analyser, total = analysers.analyser_for(params.language[locale]), catalogue.vectors.rows
    digest = files.sha256_file(layout.clean(locale).products)
    postings, _ = open_postings(params, locale, analyser, total, digest, thorough=True)
    index = TermIndex.of(postings, params.bm25, params.runtime.thread_count())
    terms = terms_of_rows(locale, anchors.row, analyser)
    found = {
        "random": labelled.measure_random(anchors, catalogue.vectors.rows),
        "bm25": labelled.measure(anchors, *more_like_this.score_anchors(index, terms, anchors)),
        "dense": labelled.measure(
            anchors,
            score_others(catalogue, anchors),
            found_of(locale, anchors.row, labelled.PLACES),
        ),
    }
    return counts | {system: summarise(params, values) for system, values in found.items()}


def score_others(catalogue: Catalogue, anchors: Anchors) -> Floats:
    """Return the similarity of each anchor and each of its others, by their vectors."""
    scores = np.empty(len(anchors.others))
    for first in range(0, len(anchors), BATCH_ANCHORS):
        last = min(first + BATCH_ANCHORS, len(anchors))
        part = slice(int(anchors.starts[first]), int(anchors.starts[last]))
        own = np.repeat(anchors.row[first:last], np.diff(anchors.starts[first : last + 1]))
        both = take_any(np.concatenate([own, anchors.others[part]]), catalogue.take)
        one, other = np.split(both, 2)
        scores[part] = score_pairs(one, other, catalogue.similarity)
    return scores


def key_metrics(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a report that DVC shows."""
    shown = {
        system: {name: report[system][name] for name in KEY_MEASURES if name in report[system]}
        for system in ("bm25", "dense")
        if system in report
    }
    return {"similar": {**shown, "queries": report["queries"]}}


def summarise(params: Params, values: dict[str, Floats]) -> dict[str, float | int]:
    """Return the mean of each measure over queries, with its interval and number of queries."""
    columns = np.stack(list(values.values()), axis=1)
    intervals = bootstrap_intervals(columns, params.uncertainty)
    found: dict[str, float | int] = {}
    for name, interval in zip(values, intervals, strict=True):
        if interval.queries:
            mean, low, high, queries = interval.rounded()
            found |= {
                name: mean,
                f"{name}_low": low,
                f"{name}_high": high,
                f"{name}_queries": queries,
            }
    return found
