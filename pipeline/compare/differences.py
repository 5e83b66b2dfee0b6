"""Two revisions' measures, query by query: what moved, and whether luck would do for it.

Everything here is a pure function of per-query tables; `compare` fetches them, `display`
shows the outcome.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.compare import sides
from pipeline.compare.sides import Side
from pipeline.core.errors import PipelineError
from pipeline.core.params import Compare, Uncertainty
from pipeline.evaluate import uncertainty
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.uncertainty import Floats, Interval

HOLES = 0.01
"""A judged@k that moves by more than this, a place in a hundred, is told even if luck would do."""


@dataclass(frozen=True)
class Holes:
    """How judged@k moved along with a metric; `suspect` where it may be why the metric did.

    The means are over the queries that the metric itself is defined for. `judged_only` is, for
    nDCG, the difference of nDCG among judged products alone, and `judged_only_p` its p, not
    adjusted; None where the tables do not tell.
    """

    metric: str
    a: float
    b: float
    p: float
    judged_only: float | None
    judged_only_p: float | None
    suspect: bool


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
    """How one metric of one locale moved from A to B.

    The means are NaN, and `difference.queries` is 0, where the metric is defined for no query.
    """

    locale: str
    metric: str
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


@dataclass(frozen=True)
class Comparison:
    """All that was compared, in order of locale and metric; what could not be, a line each."""

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
) -> Comparison:
    """Compare two revisions, metric by metric, in every locale that both have.

    The p-values are adjusted together (Holm), over all locales and metrics compared. A locale whose
    values are equal to the last bit costs nothing and has p = 1, yet keeps its place among them:
    how many are looked at must not depend on what is seen. To leave out those that turn out equal
    would make the others look surer than they are.

    Args:
        a: the old side, a `Side` a locale.
        b: the new one.
        names: what the two revisions are called in messages.
        settings: metrics and thresholds.
        draws: of bootstrap and randomisation.
        queries: how many of the largest wins, and of the largest losses, are kept for each metric.

    Raises:
        PipelineError: no locale is on both sides, their samples differ, or there is no such metric.
    """
    notes = list(sides.in_one_alone(a, b, names))
    shared = sides.comparable(a, b, names)
    pairs = []
    for locale in shared:
        for metric in settings.metrics:
            sides.check_metric(b[locale], metric, f"{locale} of {names[1]}")
            if metric in sides.metrics(a[locale].table):
                pairs.append(_pair(locale, metric, a[locale].table, b[locale].table))
            else:
                notes.append(f"{locale} of {names[0]} has no {metric}: not compared")
    if not pairs:
        raise PipelineError(
            f"{names[0]} has none of compare.metrics ({', '.join(settings.metrics)}), so there is "
            "nothing to compare; name a metric that both sides have"
        )
    p = [_p(pair.differences, draws) for pair in pairs]
    moves = tuple(
        _move(pair, p_alone, p_together, settings, draws, queries)
        for pair, p_alone, p_together in zip(pairs, p, uncertainty.holm(p), strict=True)
    )
    return Comparison(moves, tuple(notes))


@dataclass(frozen=True)
class _Pair:
    """A metric's values on both sides, for the `rows` that it is defined for."""

    locale: str
    metric: str
    a: pa.Table
    b: pa.Table
    rows: NDArray[np.int64]
    old: Floats
    new: Floats

    @property
    def differences(self) -> Floats:
        return self.new - self.old


def _pair(locale: str, metric: str, a: pa.Table, b: pa.Table) -> _Pair:
    old, new = _values(a, metric), _values(b, metric)
    defined = ~np.isnan(old)
    if (defined != ~np.isnan(new)).any():
        raise PipelineError(
            f"{locale}: {metric} is defined for {defined.sum():,} queries on one side and for "
            f"{(~np.isnan(new)).sum():,}, or for others, on the other, though the judgements are "
            "the same: what evaluate does has changed; run `dvc repro` on both sides"
        )
    return _Pair(locale, metric, a, b, np.flatnonzero(defined), old[defined], new[defined])


def _values(table: pa.Table, column: str) -> Floats:
    # Null becomes NaN. The digits were rounded once, then cut to 32 bits: only whole again do equal
    # differences count as equal in the randomisation test.
    values: Floats = np.round(table[column].to_numpy().astype(np.float64), MEAN_DECIMALS)
    return values


def _p(differences: Floats, draws: Uncertainty) -> float:
    return uncertainty.paired_randomisation(differences, draws.samples, draws.seed)


def _move(
    pair: _Pair, p: float, p_adjusted: float, settings: Compare, draws: Uncertainty, queries: int
) -> Move:
    differences = pair.differences
    equal = not differences.any()
    # Of zeros alone the interval is known, and one of them has it.
    difference = uncertainty.bootstrap_interval(
        differences[:1] if equal else differences, draws.samples, draws.confidence, draws.seed
    )._replace(queries=len(differences))
    significant = p_adjusted < settings.alpha
    return Move(
        locale=pair.locale,
        metric=pair.metric,
        a=_mean(pair.old),
        b=_mean(pair.new),
        difference=difference,
        equal=equal,
        p=p,
        p_adjusted=p_adjusted,
        won=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        tied=int((differences == 0).sum()),
        significant=significant,
        refused=significant and round(-difference.mean, 9) > settings.max_drop,
        holes=None if equal else _holes(pair, difference.mean, settings.alpha, draws),
        wins=_changes(pair, -differences, queries),
        losses=_changes(pair, differences, queries),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _holes(pair: _Pair, moved: float, alpha: float, draws: Uncertainty) -> Holes | None:
    """Return how judged@k moved beside a catalogue metric, None where there is no such measure.

    Suspect is a move in the same direction: more of what B finds was judged, so more of it could
    earn anything at all (or less of it, where the metric fell). Its p stands alone, not adjusted: a
    warning had better come too often.

    Yet whatever finds more that is relevant finds more that is judged. For nDCG there is a second
    witness, the run without its unjudged products (condensed lists: Sakai, SIGIR 2007): the move is
    not suspect if that run moved for sure (p below alpha, not adjusted) in the same direction. By
    how much says little: a query's few judged products score high in any order. Tables older than
    that column tell nothing of it.
    """
    name = judged_beside(pair.metric, sides.metrics(pair.b))
    if name is None or name not in sides.metrics(pair.a):
        return None
    old, new = (_values(table, name)[pair.rows] for table in (pair.a, pair.b))
    change, p = _mean(new - old), _p(new - old, draws)
    suspect = change * moved > 0 and (p < alpha or abs(change) > HOLES)
    only, only_p = _judged_only(pair, draws)
    if only is not None and only_p is not None:
        borne_out = only * moved > 0 and only_p < alpha
        suspect = suspect and not borne_out
    return Holes(name, _mean(old), _mean(new), p, only, only_p, suspect)


def _judged_only(pair: _Pair, draws: Uncertainty) -> tuple[float, float] | tuple[None, None]:
    """Return how nDCG of the same cutoff moved among judged products alone, and its p."""
    system, _, measure = pair.metric.partition(".")
    column = f"{system}.{measure.replace('ndcg@', 'ndcg_judged_only@')}"
    if not measure.startswith("ndcg@") or any(
        column not in sides.metrics(table) for table in (pair.a, pair.b)
    ):
        return None, None
    old, new = (_values(table, column)[pair.rows] for table in (pair.a, pair.b))
    return _mean(new - old), _p(new - old, draws)


def judged_beside(metric: str, known: list[str]) -> str | None:
    """Return which judged@k tells of a metric's holes: its own k, or the largest below it.

    None for measures of the pool and of judged products alone, which have no holes, and for those
    without a cutoff.
    """
    system, _, measure = metric.partition(".")
    name, _, cutoff = measure.partition("@")
    if not cutoff or name.startswith(("pool", "judged", "ndcg_judged_only")):
        return None
    start = f"{system}.judged@"
    cutoffs = [int(each.removeprefix(start)) for each in known if each.startswith(start)]
    within = [k for k in cutoffs if k <= int(cutoff)]
    return f"{start}{max(within)}" if within else None


def _changes(pair: _Pair, order: Floats, most: int) -> tuple[Change, ...]:
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
