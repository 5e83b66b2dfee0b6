"""What scoring and comparing runs give."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.core.params import Evaluate, Uncertainty
from pipeline.evaluate.uncertainty import Interval
from pipeline.runs.card import Track


@dataclass(frozen=True)
class Result:
    """What a run is worth.

    Attributes:
        name: what the run is called.
        track: see `evaluate`.
        per_query: query_id (string), then a float64 column for each measure, null where it is
            undefined; one row per judged query.
        means: the mean of each measure over the queries that it is defined for, with the ends of
            its interval and the number of these queries. A measure that is defined for no query is
            left out.
        counts: what explains the means; see `evaluate`.
        cutoffs: those of the measures.
        draws: those of the intervals.
        judgements_sha256: a hash of the judgements; only results of the same ones compare.
        products_sha256: a hash of the catalogue's ids, likewise; None: none was given.
    """

    name: str
    track: Track
    per_query: pa.Table = field(repr=False)
    means: dict[str, Interval]
    counts: dict[str, int]
    cutoffs: Evaluate
    draws: Uncertainty
    judgements_sha256: str
    products_sha256: str | None

    def headline(self) -> list[str]:
        """Return the measures that are compared if none are named."""
        if self.track == "pool":
            return [name for name in ("pool_ndcg", "pool_mrr") if name in self.means]
        shown = (name for name in self.cutoffs.headline() if not name.startswith("judged"))
        return [name for name in shown if name in self.means]

    def notes(self) -> Iterator[str]:
        """Say what a reader must know beside the means."""
        counts = self.counts
        if number := counts["queries_without_results"]:
            yield f"judged queries without results, which score 0: {number:,}"
        if number := counts["queries_not_judged"]:
            yield f"queries of the run that are not judged and are left out: {number:,}"
        if number := counts.get("results_unknown", 0):
            yield f"results that are not in the catalogue and are left out: {number:,}"
        if number := counts.get("judgements_unknown", 0):
            yield f"judged products that are not in the catalogue, and score nothing: {number:,}"
        if number := counts["results_tied"]:
            yield f"results that tie with the one before, so product_ids decide: {number:,}"
        if number := counts["queries_against_rank"]:
            yield f"queries whose ranks contradict the order of scores, which decides: {number:,}"
        if self.track == "pool" and (number := counts["judgements"] - counts["results_judged"]):
            yield f"judged products that the run leaves out, which earn nothing: {number:,}"
        deepest = self.cutoffs.deepest()
        if self.track == "catalogue" and counts["depth"] < deepest:
            yield (
                f"no query has more than {counts['depth']:,} results: a measure at a larger "
                f"cutoff, up to {deepest:,}, is that of these"
            )


@dataclass(frozen=True)
class Difference:
    """How a measure differs between two runs: of `name`, against the first run.

    Attributes:
        name: of the run.
        measure: such as ndcg@10.
        a: the mean of the first run.
        b: the mean of this run.
        difference: b - a, with its interval and the number of queries.
        p: the randomisation test of the paired queries.
        p_adjusted: p, adjusted for all that is compared (Holm).
        won: in how many queries this run is better.
        lost: in how many it is worse.
        tied: in how many both are equal.
        significant: whether p_adjusted is below alpha.
        verdict: in words; `holes?` where judged@k moved too, see docs/comparing.md.
    """

    name: str
    measure: str
    a: float
    b: float
    difference: Interval
    p: float
    p_adjusted: float
    won: int
    lost: int
    tied: int
    significant: bool
    verdict: str
