"""Whether a metric moved because more, or less, of what is found was judged."""

from dataclasses import dataclass

from pipeline.compare.pairs import Pair
from pipeline.compare.sides import metrics
from pipeline.core.params import Uncertainty
from pipeline.evaluate.metrics import mean
from pipeline.evaluate.uncertainty import paired_randomisation

HOLES = 0.01
"""A judged@k that moves by more than one place in a hundred is reported, significant or not."""


@dataclass(frozen=True)
class Holes:
    """How judged@k moved with a metric; `suspect` where that may be why the metric moved.

    `a` and `b` are its means over the queries that the metric itself is defined for. For nDCG,
    `judged_only` is the difference of nDCG among judged products alone, and `judged_only_p` its p,
    not adjusted; None where a table lacks that column.
    """

    metric: str
    a: float
    b: float
    p: float
    judged_only: float | None
    judged_only_p: float | None
    suspect: bool


def find_holes(pair: Pair, moved: float, alpha: float, draws: Uncertainty) -> Holes | None:
    """Return how judged@k moved beside a catalogue metric, None where there is no such measure.

    A move in the same direction is suspect: more of what B finds was judged, so more of it could
    earn anything (or less of it, where the metric fell). Its p is not adjusted: a needless warning
    is better than a missing one.

    But a system that finds more relevant products also finds more judged ones. nDCG has a second
    witness: the run without its unjudged products (condensed lists: Sakai, SIGIR 2007). The move is
    not suspect if that run moved significantly (p below alpha, not adjusted) in the same direction.
    By how much says little: a query's few judged products score high in any order.

    Args:
        pair: the metric's values.
        moved: the mean difference of the metric.
        alpha: below which p a move is significant.
        draws: of the randomisation.
    """
    name = judged_beside(pair.metric, metrics(pair.b))
    if name is None or name not in metrics(pair.a):
        return None
    old, new = pair.beside(name)
    change, p = mean(new - old), paired_randomisation(new - old, draws)
    suspect = change * moved > 0 and (p < alpha or abs(change) > HOLES)
    only, only_p = _judged_only(pair, draws)
    if only is not None and only_p is not None:
        confirmed = only * moved > 0 and only_p < alpha
        suspect = suspect and not confirmed
    return Holes(name, mean(old), mean(new), p, only, only_p, suspect)


def judged_beside(metric: str, known: list[str]) -> str | None:
    """Return the judged@k that shows a metric's holes: its own k, or the largest below it.

    None for measures without a cutoff, and for those of the pool and of judged products alone,
    which have no holes.
    """
    system, _, measure = metric.partition(".")
    name, _, cutoff = measure.partition("@")
    if not cutoff or name.startswith(("pool", "judged", "ndcg_judged_only")):
        return None
    start = f"{system}.judged@"
    cutoffs = [int(each.removeprefix(start)) for each in known if each.startswith(start)]
    within = [k for k in cutoffs if k <= int(cutoff)]
    return f"{start}{max(within)}" if within else None


def _judged_only(pair: Pair, draws: Uncertainty) -> tuple[float, float] | tuple[None, None]:
    """Return how nDCG of the same cutoff moved among judged products alone, and its p."""
    system, _, measure = pair.metric.partition(".")
    column = f"{system}.{measure.replace('ndcg@', 'ndcg_judged_only@')}"
    if not measure.startswith("ndcg@") or any(
        column not in metrics(table) for table in (pair.a, pair.b)
    ):
        return None, None
    old, new = pair.beside(column)
    return mean(new - old), paired_randomisation(new - old, draws)
