"""What MTEB asks of an encoder, on ESCI's labels: pair classification, similarity and reranking.

MTEB's tasks and main measures: Muennighoff et al., EACL 2023 (arXiv 2210.07316), section 3.2.
docs/measures.md says where these differ, and why.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Floats, Ints
from pipeline.core.params import ENCODER_MEASURES
from pipeline.core.tables import LABELS
from pipeline.encoder_scores import pooled
from pipeline.encoder_scores.pooled import Flags, Pooled
from pipeline.evaluate import metrics, random_order
from pipeline.evaluate.judged_run import E_CODE, JudgedRun

NEGATIVES = {"i": ("I",), "sci": ("S", "C", "I")}
"""The labels that E is told from, by the names in `ENCODER_MEASURES`."""


@dataclass(frozen=True)
class Measured:
    """One measure of an encoder.

    Attributes:
        value: over all pairs or, for a measure of each query, their mean; NaN where undefined.
        by_query: [queries]; their mean is `value`; NaN for queries that take no part.
        floor: what scores without any meaning give; of F1, what taking all pairs gives.
        pairs: how many take part.
        threshold: of best F1; else NaN.
    """

    value: float
    by_query: Floats
    floor: float
    pairs: int
    threshold: float = float("nan")


def measure(run: JudgedRun, scores: Floats) -> dict[str, Measured]:
    """Return every measure of `ENCODER_MEASURES`, in that order.

    Args:
        run: each query's judged products, ranked; no other product.
        scores: of each of them, as rounded as they were ranked by, [pairs].
    """
    found: dict[str, Measured] = {}
    for name, labels in NEGATIVES.items():
        codes = [LABELS.index(label) for label in labels]
        chosen = np.isin(run.label, [E_CODE, *codes])
        found |= _classification(name, run, scores, chosen)
    worth = len(LABELS) - 1 - run.label.astype(np.int64)
    found["spearman"] = _over_pairs(run, pooled.spearman(scores, worth), 0.0)
    found["query_spearman"] = _over_queries(run, query_spearman(run, scores, worth), 0.0)
    precisions, floors = reranking(run)
    found["map"] = _over_queries(run, precisions, metrics.mean(floors))
    return {name: found[name] for name in ENCODER_MEASURES}


def query_spearman(run: JudgedRun, scores: Floats, worth: Ints) -> Floats:
    """Return the rank correlation of scores and labels within each query, [queries].

    NaN where a query's labels are all equal, 0 where its scores are: whether it is defined depends
    on the judgements alone, so that two encoders are measured on the same queries.
    """
    queries = len(run.retrieved)
    x, y = (_centred_ranks(run.query, numbers) for numbers in (scores, worth))
    products, squares_x, squares_y = (
        np.bincount(run.query, weights=each, minlength=queries) for each in (x * y, x * x, y * y)
    )
    correlation = np.zeros(queries)
    spread = np.sqrt(squares_x * squares_y)
    np.divide(products, spread, out=correlation, where=spread > 0)
    return np.where(squares_y > 0, correlation, np.nan)


def reranking(run: JudgedRun) -> tuple[Floats, Floats]:
    """Return average precision of each query's judged products, and what a random order gives.

    E is relevant; both [queries]. NaN for a query without E, and for one with nothing else: every
    order of it has 1.
    """
    counts = run.label_counts
    size, exact = counts.sum(axis=1), counts[:, E_CODE]
    asked = (exact > 0) & (exact < size)
    deepest = int(size.max(initial=1))
    precisions = np.where(asked, metrics.average_precision(run, deepest), np.nan)
    floors = np.full(len(size), np.nan)
    for each in np.unique(size[asked]):
        same = asked & (size == each)
        floors[same] = random_order.average_precision(
            exact[same], exact[same], int(each), int(each)
        )
    return precisions, floors


def _classification(
    name: str, run: JudgedRun, scores: Floats, chosen: Flags
) -> dict[str, Measured]:
    """Return how well a threshold on the score tells E among the chosen pairs from the others."""
    positive = run.label[chosen] == E_CODE
    exact, size = int(positive.sum()), len(positive)
    alone = np.array([exact])
    # Any order of the pairs is equally likely; all pairs are taken as positive.
    by_luck = float(random_order.average_precision(alone, alone, size, size)[0]) if size else 0.0
    all_taken = 2 * exact / (size + exact) if exact else 0.0
    return {
        f"ap_e_vs_{name}": _over_pairs(
            run, pooled.average_precision(scores[chosen], positive), by_luck, chosen
        ),
        f"f1_e_vs_{name}": _over_pairs(
            run, pooled.best_f1(scores[chosen], positive), all_taken, chosen
        ),
    }


def _over_pairs(
    run: JudgedRun, found: Pooled, floor: float, chosen: Flags | slice = slice(None)
) -> Measured:
    query = run.query[chosen]
    values = pooled.by_query(found, query, len(run.retrieved))
    return Measured(found.value, values, floor, len(query), found.threshold)


def _over_queries(run: JudgedRun, values: Floats, floor: float) -> Measured:
    pairs = int(run.retrieved[~np.isnan(values)].sum())
    return Measured(metrics.mean(values), values, floor, pairs)


def _centred_ranks(query: Ints, numbers: NDArray[np.generic]) -> Floats:
    """Return each number's rank within its query minus the mean rank; equal ones share a rank."""
    order = np.lexsort((numbers, query))
    mine, ordered = query[order], numbers[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(mine) != 0) | (ordered[1:] != ordered[:-1])
    starts = np.flatnonzero(first)
    sizes = np.diff(np.append(starts, len(order)))
    # Places are counted through all queries; a query's own mean is taken off below.
    place = np.repeat(starts + (sizes - 1) / 2, sizes)
    per_query = np.bincount(mine)
    ends = np.cumsum(per_query)
    middle = ends - (per_query + 1) / 2
    out = np.empty(len(order))
    out[order] = place - middle[mine]
    return out
