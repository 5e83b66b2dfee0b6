"""How the page names measures, systems and labels."""

from pipeline.report.inputs import UNJUDGED, Estimate
from pipeline.runs.others import OtherRun

SYSTEM_WORDS = {
    "random": "a random order: what luck alone would give, computed exactly",
    "bm25": "words shared by query and product, weighted",
    "dense": "meaning, by vectors of the encoder",
    "hybrid": "bm25 and dense combined",
    "rerank": "the first products of another system, ordered by a model that reads a "
    "query and a product together",
}

ANOTHER_ENGINE = "another engine, by a run that was made with it"

LABEL_WORDS = {
    "E": "Exact",
    "S": "Substitute",
    "C": "Complement",
    "I": "Irrelevant",
    UNJUDGED: "not judged",
}

REASONS = {
    "dropped_empty": "without text",
    "dropped_product_missing": "of a product that the catalogue lacks",
    "dropped_query_empty": "of a query without text",
    "dropped_repeated": "repeated",
    "dropped_without_judgement": "without any judgement",
    "product_without_text": "of a product without text, which no system can find",
    "sharing_a_text": "sharing their text with another",
}
"""What clean counts, in words: `dropped` rows were left out, the others are among the kept."""


def describe(measure: str) -> str:
    """Return what a measure says, for a reader who is not a search engineer."""
    name, _, k = measure.partition("@")
    words = {
        "ndcg": (
            f"How good the first {k} are, from 0 to 1. An Exact product earns 1, a Substitute 0.1, "
            "a Complement 0.01; further down, each earns less. 1 is the best order of the judged "
            "products."
        ),
        "mrr": (
            "How far down the first Exact product is: 1 for the first place, 1/2 for the second, "
            f"1/3 for the third, 0 if none is among the first {k}."
        ),
        "recall": f"The share of a query's Exact products that are among the first {k}.",
        "judged": (
            f"The share of the first {k} that people have judged. An unjudged product earns "
            "nothing, so where this share is low the other measures are low too, and a system may "
            "be better than it looks."
        ),
        "pool_ndcg": (
            "Only the judged products of a query are put in order (ESCI's task 1), and the whole "
            "order counts. Even a random order does well here: read it against the line random."
        ),
    }
    return words.get(name, "See the documentation of the project.")


def describe_run(name: str, run: OtherRun, queries: int) -> str:
    """Return what the numbers of another engine are of, and what was left out of its run."""
    facts = [f"{run.results:,} results of {queries - run.queries_without_results:,} queries"]
    if run.queries_without_results:
        facts.append(f"queries without results, which score 0: {run.queries_without_results:,}")
    if run.results_cut:
        facts.append(f"results too deep, which are left out: {run.results_cut:,}")
    if run.queries_against_rank:
        facts.append(
            "queries whose ranks are in another order than the scores, which decide: "
            f"{run.queries_against_rank:,}"
        )
    facts.append(f"most results of a query: {run.depth:,}")
    return f"{name} is the run {run.path}: {'; '.join(facts)}."


def display_name(measure: str) -> str:
    """Return a measure's name as the field writes it: "nDCG@10" for "ndcg@10"."""
    name, at, k = measure.partition("@")
    return {"ndcg": "nDCG", "mrr": "MRR", "pool_ndcg": "pool nDCG"}.get(name, name) + at + k


def format_estimate(estimate: Estimate) -> str:
    """Return an estimate as text: "0.625 [0.552, 0.697]"."""
    if estimate.mean is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def count(number: float) -> str:
    """Return a number with commas between the thousands."""
    return f"{number:,.0f}"


def share(part: float, whole: float = 1) -> str:
    """Return a share in percent: 0% only for none, 100% only for all."""
    if not whole or not part:
        return "0%"
    percent = 100 * part / whole
    if part == whole:
        return "100%"
    if percent < 0.1:
        return "< 0.1%"
    return "> 99.9%" if 99.95 <= percent < 100 else f"{percent:.1f}%"
