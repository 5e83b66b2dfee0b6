"""Search one locale by its words: data/clean/<locale> -> data/runs/bm25/<locale>.

BM25 as Lucene has it: a product's score is the sum, over the query's terms (one that stands twice
counts twice), of

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))

of N products, n with the term, f times in this one; length in terms.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import bm25s
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.bm25 import analysers as lexical
from pipeline.bm25 import postings
from pipeline.core import layout, memory, stage, tables
from pipeline.core.params import Bm25, Params
from pipeline.runs import ranking, runs

LIBRARY = "bm25s"
BATCH_TEXTS = 16_384
BATCH_QUERIES = 256
ROUNDED_OFF = 1e-6
"""More than rounding can move a score; see `ranking.SCORE_DECIMALS`."""


@dataclass(frozen=True)
class Index:
    """The terms of all products, weighted.

    Memory: 12 bytes for each pair of a product and one of its terms, 17 while it is being built
    (`postings`): with the 106 terms a product of ESCI's us, 1.2 million take 2.2 GB, then 1.6 GB.
    Scores are float64, so that the rounding of `ranking` hides what the logarithms of different
    machines differ by.
    """

    retriever: bm25s.BM25
    vocabulary: dict[str, int]
    products: int

    @classmethod
    def build(
        cls,
        products: Iterable[list[str]],
        settings: Bm25,
        taken: Callable[[postings.Collection], None] = lambda _: None,
    ) -> "Index":
        """Index the terms of products, in the order of their rows; `taken` as `collect` has it."""
        found = postings.collect(products, taken)
        retriever = bm25s.BM25(
            k1=settings.k1, b=settings.b, method="lucene", dtype="float64",
            backend="numpy", csc_backend="numpy",
        )  # fmt: skip
        if found.vocabulary:
            retriever.scores = found.score(settings)
            retriever.nonoccurrence_array = None  # Lucene's form gives nothing for absent terms
        return cls(retriever, found.vocabulary, found.products)

    def scores(self, terms: Iterable[str]) -> NDArray[np.float64]:
        """Return every product's score for the terms of a query, float64 [products], 0 or more."""
        known = [self.vocabulary[term] for term in terms if term in self.vocabulary]
        if not known:
            return np.zeros(self.products)
        return np.asarray(self.retriever.get_scores_from_ids(known), dtype=np.float64)


def search(
    index: Index, queries: Sequence[list[str]], batch: range, depth: int, inputs: runs.Inputs
) -> tuple[runs.Ranked, runs.Ranked]:
    """Search for the queries of some rows.

    Args:
        index: all products.
        queries: the terms of all queries.
        batch: the rows of those searched for.
        depth: the most products found for a query.
        inputs: which products are judged.

    Returns:
        The catalogue run: products that share a term with the query, ties at the last place
        decided as `ranking` does. The pool run: every judged product, at score 0 where it shares
        none.
    """
    found = []
    pairs = np.searchsorted(inputs.pair_queries, [batch.start, batch.stop])
    judged_queries, judged = (
        column[slice(*pairs)] for column in (inputs.pair_queries, inputs.pair_products)
    )
    judged_scores = np.zeros(len(judged))
    for row in batch:
        scores = index.scores(queries[row])
        found.append(_top(row, scores, depth))
        mine = slice(*np.searchsorted(judged_queries, [row, row + 1]))
        judged_scores[mine] = scores[judged[mine]]
    rows, codes, ranked = map(np.concatenate, zip(*found, strict=True))
    return (rows, codes, ranked), ranking.rank_pairs(judged_queries, judged, judged_scores)


def _top(row: int, scores: NDArray[np.float64], depth: int) -> runs.Ranked:
    """Return the first `depth` of one query's products, of those that have a score above 0.

    Those that tie at the last place are let go here, query by query: they may be all products.
    """
    found = np.flatnonzero(scores)
    if len(found) > depth:
        last = np.partition(scores[found], -depth)[-depth]
        found = found[scores[found] >= last - ROUNDED_OFF]
    rows, codes, ranked = ranking.rank_pairs(np.full(len(found), row), found, scores[found])
    # Copies: a slice would keep the whole alive.
    return rows[:depth].copy(), codes[:depth].copy(), ranked[:depth].copy()


def bm25(params: Params, locale: str) -> None:
    """Write the catalogue run and the pool run of a locale."""
    inputs = runs.read_inputs(locale)
    language = params.language[locale]
    analyser = lexical.analyser_for(language)
    if analyser.name == "words":
        stage.log.warning(
            "warning: language.%s: no stemmer knows %s; words match only as they are written",
            locale, language,
        )  # fmt: skip
    products = stage.track(
        _terms(locale, "products", tables.PRODUCTS, analyser),
        len(inputs.products), "products", lambda _: 1,
    )  # fmt: skip

    deepest = min(params.retrieve.depth, len(inputs.products))
    results = min(len(inputs.queries), BATCH_QUERIES) * deepest

    def check(found: postings.Collection) -> None:
        # After each piece, so that what cannot end well ends soon.
        memory.check(
            found.memory_bytes(analyser.name, len(inputs.products), results),
            f"bm25 of the {len(inputs.products)} {locale} products",
            params.runtime,
            "draw fewer (sample.distractors) or make their texts of fewer fields (clean.fields)",
        )

    index = Index.build(products, params.bm25, check)
    queries = list(_terms(locale, "queries", tables.QUERIES, analyser))
    of = {
        "analyser": analyser.name,
        "b": str(params.bm25.b),
        "k1": str(params.bm25.k1),
        "library": LIBRARY,
    }
    nothing = 0
    with runs.writing(locale, "bm25", of, params.retrieve.depth, inputs) as (catalogue, pool):
        starts = range(0, len(queries), BATCH_QUERIES)
        for start in stage.track(starts, len(queries), "queries", lambda _: BATCH_QUERIES):
            batch = range(start, min(start + BATCH_QUERIES, len(queries)))
            found, judged = search(index, queries, batch, params.retrieve.depth, inputs)
            catalogue.add(*found)
            pool.add(*judged)
            nothing += len(batch) - len(np.unique(found[0]))
    stage.did(
        analyser.name, products=index.products, queries=len(queries), depth=params.retrieve.depth
    )
    stage.log.info(
        "bm25 locale=%s analyser=%s queries=%d retrieved_nothing=%d products=%d terms=%d",
        locale, analyser.name, len(queries), nothing, index.products, len(index.vocabulary),
    )  # fmt: skip


def _terms(
    locale: str, side: str, schema: pa.Schema, analyser: lexical.Analyser
) -> Iterator[list[str]]:
    """Yield the terms of each text of a clean table, in the order of its rows."""
    path = layout.clean(locale) / f"{side}.parquet"
    pieces = tables.iter_table(path, schema, BATCH_TEXTS, f"run `dvc repro clean@{locale}`")
    for piece in pieces:
        yield from map(analyser.terms, piece["text"].to_pylist())
