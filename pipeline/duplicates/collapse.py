"""What groups of duplicates mean for labels and for search: agreement, and nDCG when collapsed."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.core import layout
from pipeline.core.arrays import Floats, Ints
from pipeline.core.params import Params
from pipeline.core.systems import System
from pipeline.core.tables import LABELS
from pipeline.evaluate import judged_run, metrics
from pipeline.evaluate.judged_run import Judgements
from pipeline.evaluate.uncertainty import bootstrap_interval
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Ids


def agreement(pool: Judgements, group: Ints) -> tuple[Floats, Floats, int]:
    """Return how often two products of a group have the same label for a query.

    Args:
        pool: the judgements of products with a text.
        group: the group of each product, [products].

    Returns:
        The share of pairs that agree, [queries], NaN without a pair; the share among all pairs of
        products that such a query judges, [queries]; and how many pairs there are.
    """
    query = pool.positions()
    cell, place = np.unique(query * (len(group) + 1) + group[pool.codes], return_inverse=True)
    same, pairs = _pairs(place, pool.labels, len(cell))
    of = cell // (len(group) + 1)
    agreeing, all_pairs = (np.bincount(of, each, len(pool)).astype(float) for each in (same, pairs))
    chance = _pairs(query, pool.labels, len(pool))
    expected = np.where(all_pairs > 0, metrics.ratio(*chance), np.nan)
    return metrics.ratio(agreeing, all_pairs), expected, int(all_pairs.sum())


def _pairs(cell: Ints, labels: NDArray[np.int8], cells: int) -> tuple[Floats, Floats]:
    """Return how many pairs of each cell have equal labels, and how many there are."""
    width = len(LABELS)
    counts = np.bincount(cell * width + labels, minlength=cells * width).reshape(cells, width)
    total = counts.sum(axis=1)
    return (counts * (counts - 1) / 2).sum(axis=1), total * (total - 1) / 2


def summarise_agreement(params: Params, pool: Judgements, group: Ints) -> dict[str, float | int]:
    """Return the means of `agreement` with the interval of the first, as the report has them."""
    agree, chance, pairs = agreement(pool, group)
    if not pairs:
        return {"pairs": 0}
    mean, low, high, queries = bootstrap_interval(agree, params.uncertainty).rounded()
    return {
        "pairs": pairs,
        "queries": queries,
        "agreement": mean,
        "agreement_low": low,
        "agreement_high": high,
        "agreement_of_all_pairs": round(float(np.nanmean(chance)), metrics.MEAN_DECIMALS),
    }


def collapse_runs(
    params: Params, locale: str, ids: Ids, qrels: Judgements, kept: Ints
) -> Mapping[System, dict[str, float]]:
    """Return each system's headline nDCG as it is, and with duplicates collapsed.

    `collapsed` shows the first product of each group; the judgements stay as they are, so that a
    second Exact product of a group, which a system may no longer show, still counts in the ideal.
    `collapsed_labels` collapses the judgements too: a group is judged once, by its best label.
    Where no query has an ideal above 0, there is no nDCG.

    Args:
        params: the cutoff.
        locale: whose runs they are.
        ids: of the clean tables.
        qrels: all judgements; codes of products without a text are above all rows.
        kept: the product that is kept for each, [products].

    Raises:
        PipelineError: a run is missing or damaged.
    """
    k = params.evaluate.ndcg[0]
    best = collapse_judgements(qrels, kept)
    systems = params.systems_of(locale)
    run_card.read_cards(locale, systems, ids)
    found: dict[System, dict[str, float]] = {}
    for system in systems:
        path, remedy = layout.runs(system, locale).catalogue, run_card.rerun_hint(system, locale)
        values: list[Floats] = []
        size = run_files.QUERIES_A_PIECE
        for queries, (rows, codes, _) in run_files.iter_run(path, ids, size, remedy):
            first = firsts(rows, kept[codes])
            part = queries.start, queries.stop
            runs = (
                judged_run.judge(rows, codes, qrels.rows(*part)),
                judged_run.judge(rows[first], codes[first], qrels.rows(*part)),
                judged_run.judge(rows[first], kept[codes[first]], best.rows(*part)),
            )
            values.append(np.stack([metrics.ndcg(run, k) for run in runs]))
        names = (f"ndcg@{k}", f"ndcg@{k}_collapsed", f"ndcg@{k}_collapsed_labels")
        found[system] = {
            name: round(float(np.nanmean(each)), metrics.MEAN_DECIMALS)
            for name, each in zip(names, np.concatenate(values, axis=1), strict=True)
            if not np.isnan(each).all()
        }
    return found


def firsts(rows: Ints, groups: Ints) -> Ints:
    """Return the places of a ranking where a query shows a group for the first time, ascending."""
    width = 1 + int(groups.max(initial=0))
    _, first = np.unique(rows * width + groups, return_index=True)
    return np.sort(first)


def collapse_judgements(qrels: Judgements, kept: Ints) -> Judgements:
    """Return the judgements with each group judged once per query, by its best label."""
    known = qrels.codes < len(kept)
    codes = np.where(known, kept[np.where(known, qrels.codes, 0)], qrels.codes)
    query = qrels.positions()
    order = np.lexsort((qrels.labels, codes, query))  # LABELS go from the best to the worst
    query, codes, labels = query[order], codes[order], qrels.labels[order]
    first = np.append(True, (np.diff(query) != 0) | (np.diff(codes) != 0))[: len(query)]
    return Judgements.from_pairs(query[first], codes[first], labels[first], len(qrels))
