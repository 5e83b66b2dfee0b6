"""Somebody's run joined with somebody's judgements, and what of either is left over."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError, shorten
from pipeline.evaluate import metrics
from pipeline.evaluate.judged_run import JudgedRun, Judgements, judge
from pipeline.given.order import count_against_rank, order_run, read_scores, refuse_twice
from pipeline.given.table import Given
from pipeline.score.labels import Meanings, read_labels


@dataclass(frozen=True)
class Joined:
    """What the measures need, and the counts that explain them.

    Attributes:
        queries: the query_ids of the judgements, as text: sorted as numbers if all are integers.
        run: the judged products in the run; queries by their place in `queries`.
        counts: see `score.evaluate`.
        judgements_sha256: a hash of queries, products and labels.
        products_sha256: a hash of the catalogue's ids; None: there is no catalogue.
    """

    queries: pa.Array
    run: JudgedRun
    counts: dict[str, int]
    judgements_sha256: str
    products_sha256: str | None


def join(
    run: Given, qrels: Given, meanings: Meanings | None, catalogue: Given | None = None
) -> Joined:
    """Join a run with judgements, and leave out what is not in a catalogue, if there is one.

    Raises:
        PipelineError: a column is missing or holds what it cannot hold, a query has a product
            twice or, without scores, a rank, or the run shares no query or no product with the
            others.
    """
    judged_queries, judged_products = qrels.ids("query_id"), qrels.ids("product_id")
    labels = read_labels(qrels, meanings)
    ran_queries, ran_products = run.ids("query_id"), run.ids("product_id")
    scores = read_scores(run)
    queries = _sorted_queries(judged_queries)
    for name in ("query_id", "product_id"):
        _refuse_strangers(run, qrels, name)
    known = None
    if catalogue is not None:
        _refuse_strangers(run, catalogue, "product_id")
        known = pc.unique(catalogue.ids("product_id"))

    # Codes follow the order of the ids: trec_eval breaks ties by id.
    products = pc.unique(pa.chunked_array([*ran_products.chunks, *judged_products.chunks]))
    products = products.take(pc.sort_indices(products))
    judged = _places(judged_queries, queries), _places(judged_products, products)
    ran = _places(ran_queries, queries), _places(ran_products, products)
    refuse_twice(qrels, *judged)
    order = order_run(run, *ran, scores)
    rows, codes, scores = ran[0][order], ran[1][order], scores[order]
    is_judged = rows < len(queries)
    strange = np.zeros(len(products), dtype=bool)
    if known is not None:
        strange = ~np.asarray(pc.is_in(products, value_set=known))
    unknown = is_judged & strange[codes]
    kept = is_judged & ~unknown
    judgements = Judgements.from_pairs(*judged, labels, len(queries))
    found = judge(rows[kept], codes[kept], judgements)
    tied = (np.diff(rows[kept]) == 0) & (np.diff(scores[kept]) == 0)
    counts = {
        **metrics.counts(judgements),
        "queries_without_results": int((found.retrieved == 0).sum()),
        "queries_not_judged": len(np.unique(rows[~is_judged])),
        "queries_against_rank": count_against_rank(run, order[kept], rows[kept]),
        "results": int(kept.sum()),
        "results_judged": len(found.query),
        "results_tied": int(tied.sum()),
        "depth": int(found.retrieved.max()),
    }
    products_sha256 = None
    if known is not None:
        counts["results_unknown"] = int(unknown.sum())
        counts["judgements_unknown"] = int(strange[judged[1]].sum())
        in_order = known.take(pc.sort_indices(known))
        products_sha256 = tables.ids_sha256(pa.chunked_array([in_order]))
    judgements_sha256 = _sha256(queries, products, judgements)
    return Joined(queries, found, counts, judgements_sha256, products_sha256)


def _sorted_queries(ids: pa.ChunkedArray) -> pa.Array:
    """Return each id once: in the order of the numbers if all are integers, as the stages have it.

    The order decides the draws of the intervals.
    """
    found = pc.unique(ids)
    if pc.all(pc.match_substring_regex(found, r"^(0|-?[1-9][0-9]{0,17})$")).as_py():
        return found.take(pc.sort_indices(found.cast(pa.int64())))
    return found.take(pc.sort_indices(found))


def _places(ids: pa.ChunkedArray, known: pa.Array) -> Ints:
    """Return the place of each id among the known ones; others have places after all of them."""
    inside = pc.index_in(ids, value_set=known)
    if inside.null_count:
        beyond = pc.add(pc.index_in(ids, value_set=pc.unique(ids)), len(known))
        inside = pc.coalesce(inside, beyond)
    return np.asarray(inside).astype(np.int64)


def _refuse_strangers(run: Given, other: Given, name: str) -> None:
    """Raise a `PipelineError` if a run and another table share no id: all would score 0."""
    ran, known = pc.unique(run.ids(name)), pc.unique(other.ids(name))
    if not pc.any(pc.is_in(ran, value_set=known)).as_py():
        raise PipelineError(
            f"{run.where}: none of its {len(ran):,} {name} is in {other.where} (such as "
            f"{shorten(ran[0].as_py())}; there is {shorten(known[0].as_py())}). Name tables of the "
            "same queries and products."
        )


def _sha256(queries: pa.Array, products: pa.Array, judgements: Judgements) -> str:
    """Return a hash of judgements that does not depend on their order or on the run."""
    of_queries = queries.take(pa.array(judgements.positions()))
    of_products = products.take(pa.array(judgements.codes))
    labels = pa.array(judgements.labels.astype(np.int64))
    columns = [pa.chunked_array([each]) for each in (of_queries, of_products, labels)]
    return tables.columns_sha256(columns)
