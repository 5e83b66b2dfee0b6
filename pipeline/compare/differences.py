"""Two revisions' measures, query by query: what moved, and whether luck alone could move it so far.

Everything here is a pure function of per-query tables; `command` reads them, `display` shows the
outcome.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.compare import sides
from pipeline.compare.holes import Holes, find_holes
from pipeline.compare.pairs import Pair, pair
from pipeline.compare.sides import Side
from pipeline.core.arrays import Floats
from pipeline.core.errors import PipelineError
from pipeline.core.params import Compare, Uncertainty
from pipeline.evaluate import uncertainty
from pipeline.evaluate.metrics import mean
from pipeline.evaluate.uncertainty import Interval


@dataclass(frozen=True)
class Change:
    """One query on which a metric differs; the labels are those of its top 10, ? for unjudged."""

    query_id: int
    query: str
    a: float
    b: float
    labels_a: str | None
    labels_b: str | None


@dataclass(frozen=True)
class Move:
    """How one metric of one locale moved from A to B; `systems` as in `Pair`.

    The means are NaN, and `difference.queries` is 0, where the metric is defined for no query.
    """

    locale: str
    metric: str
    systems: tuple[str, str]
    a: float
    b: float
    difference: Interval
    equal: bool
    p: float
    p_adjusted: float
    won: int
    lost: int
    tied: int
    significant: bool
    refused: bool
    holes: Holes | None
    wins: tuple[Change, ...]
    losses: tuple[Change, ...]

    @property
    def system(self) -> str:
        """The system that the metric is of."""
        return self.metric.partition(".")[0]

    @property
    def name(self) -> str:
        """The metric, with the systems of both sides where these differ."""
        old, new = self.systems
        return self.metric if old == new else f"{old} → {new}.{self.metric.partition('.')[2]}"


@dataclass(frozen=True)
class Comparison:
    """All that was compared, in order of locale and metric; a line for each that could not be."""

    moves: tuple[Move, ...]
    notes: tuple[str, ...]

    @property
    def refused(self) -> tuple[Move, ...]:
        """The moves that the thresholds refuse."""
        return tuple(move for move in self.moves if move.refused)


def compare(
    a: Mapping[str, Side],
    b: Mapping[str, Side],
    names: tuple[str, str],
    settings: Compare,
    draws: Uncertainty,
    queries: int,
    runs: tuple[str, str],
) -> Comparison:
    """Compare two revisions, metric by metric, in every locale that both have.

    The p-values are adjusted together (Holm), over all locales and metrics compared. A locale whose
    values are equal to the last bit has p = 1 and keeps its place among them: how many are compared
    must not depend on what is found, or the others would look more significant than they are.

    A locale with a reranker on either side is compared by `rerank` too, in the measures that
    `settings` name of the run that it reorders. That run stands in for it on a side without one.

    Args:
        a: the old side, one `Side` per locale.
        b: the new one.
        names: what messages call the two revisions.
        settings: metrics and thresholds.
        draws: of bootstrap and randomisation.
        queries: how many of the largest wins, and of the largest losses, are kept per metric.
        runs: the run that rerankers reorder, of either side.

    Raises:
        PipelineError: no locale is on both sides, their samples differ, there is no such metric,
            or there are too few draws.
    """
    notes = list(sides.in_one_alone(a, b, names))
    shared = sides.comparable(a, b, names, settings.metrics)
    pairs = []
    for locale in shared:
        old, new = a[locale], b[locale]
        # B's, unless A alone has a reranker: then it is what B is left with.
        reordered = runs[0] if old.reranked and not new.reranked else runs[1]
        one, other = (sides.RERANK if each.reranked else reordered for each in (old, new))
        asked = list(settings.metrics)
        if sides.RERANK in (one, other):
            old, new = old.with_rerank(reordered), new.with_rerank(reordered)
            asked = _and_of_rerank(asked, reordered)
            if not any(map(_is_of_rerank, asked)):
                notes.append(
                    f"{locale}: rerank is not compared, since compare.metrics has no measure of "
                    f"{reordered}, which it reorders"
                )
        for metric in asked:
            sides.check_metric(new, metric, f"{locale} of {names[1]}")
            if metric in sides.metrics(old.table):
                systems = (one, other) if _is_of_rerank(metric) else None
                pairs.append(pair(locale, metric, old.table, new.table, systems))
            else:
                notes.append(f"{locale} of {names[0]} has no {metric}: not compared")
    if not pairs:
        raise PipelineError(
            f"{names[0]} has none of compare.metrics ({', '.join(settings.metrics)}), so there is "
            "nothing to compare. Name a metric that both sides have."
        )
    return Comparison(
        measure_moves(pairs, settings.alpha, settings.max_drop, draws, queries), tuple(notes)
    )


def _and_of_rerank(metrics: Sequence[str], reordered: str) -> list[str]:
    """Return metrics, and those of `rerank` in the measures that they name of what it reorders."""
    of_run = (metric for metric in metrics if metric.startswith(f"{reordered}."))
    own = (f"{sides.RERANK}.{metric.partition('.')[2]}" for metric in of_run)
    return list(dict.fromkeys((*metrics, *own)))


def _is_of_rerank(metric: str) -> bool:
    return metric.startswith(f"{sides.RERANK}.")


def measure_moves(
    pairs: Sequence[Pair],
    alpha: float,
    max_drop: float,
    draws: Uncertainty,
    queries: int,
    setting: str = "uncertainty.samples",
) -> tuple[Move, ...]:
    """Return how each metric moved, the p-values adjusted together.

    Args:
        pairs: what is compared.
        alpha: below which adjusted p a move is significant.
        max_drop: the largest significant fall that is not refused.
        draws: of bootstrap and randomisation.
        queries: how many of the largest wins, and of the largest losses, are kept per metric.
        setting: what decides the number of draws, for the message.

    Raises:
        PipelineError: there are so few draws that no move, however large, could be significant.
    """
    if few := draws.too_few_for(len(pairs), alpha):
        raise PipelineError(f"{setting}: {few}")
    p = [uncertainty.paired_randomisation(each.differences, draws) for each in pairs]
    return tuple(
        _move(each, p_alone, p_together, alpha, max_drop, draws, queries)
        for each, p_alone, p_together in zip(pairs, p, uncertainty.holm(p), strict=True)
    )


def _move(
    pair: Pair,
    p: float,
    p_adjusted: float,
    alpha: float,
    max_drop: float,
    draws: Uncertainty,
    queries: int,
) -> Move:
    differences = pair.differences
    equal = not differences.any()
    # The interval of zeros is known, and one zero gives it.
    difference = uncertainty.bootstrap_interval(
        differences[:1] if equal else differences, draws
    )._replace(queries=len(differences))
    significant = p_adjusted < alpha
    return Move(
        locale=pair.locale,
        metric=pair.metric,
        systems=pair.systems,
        a=mean(pair.old),
        b=mean(pair.new),
        difference=difference,
        equal=equal,
        p=p,
        p_adjusted=p_adjusted,
        won=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        tied=int((differences == 0).sum()),
        significant=significant,
        refused=significant and round(-difference.mean, 9) > max_drop,
        holes=None if equal else find_holes(pair, difference.mean, alpha, draws),
        wins=_changes(pair, -differences, queries),
        losses=_changes(pair, differences, queries),
    )


def _changes(pair: Pair, order: Floats, most: int) -> tuple[Change, ...]:
    """Return the queries with the least of `order` below 0, by query_id where they tie."""
    places = [place for place in np.argsort(order, kind="stable")[:most] if order[place] < 0]
    return tuple(
        Change(
            query_id=pair.b["query_id"][row].as_py(),
            query=pair.b["query"][row].as_py(),
            a=float(pair.old[place]),
            b=float(pair.new[place]),
            labels_a=_labels(pair.a, pair.metric, row),
            labels_b=_labels(pair.b, pair.metric, row),
        )
        for place in places
        for row in [int(pair.rows[place])]
    )


def _labels(table: pa.Table, metric: str, row: int) -> str | None:
    column = f"{metric.partition('.')[0]}.labels"
    return table[column][row].as_py() if column in table.column_names else None
