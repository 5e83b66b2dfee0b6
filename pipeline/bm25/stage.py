"""Search one locale by words: data/clean/<locale> -> data/runs/bm25/<locale>.

BM25 as Lucene has it: a product's score is the sum, over the query's terms (a repeated term counts
twice), of

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))

where N is the number of products, n of them have the term, and this one has it f times; a length is
a number of terms.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from pipeline.bm25 import analysers as lexical
from pipeline.bm25 import postings
from pipeline.bm25.search import TermIndex, search
from pipeline.core import layout, memory, stage, tables
from pipeline.core.params import Params
from pipeline.core.progress import track
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Inputs, read_inputs

LIBRARY = "bm25s"
BATCH_TEXTS = 16_384
BATCH_QUERIES = 256


def bm25(params: Params, locale: str) -> stage.Done:
    """Write the catalogue run and the pool run of a locale."""
    inputs = read_inputs(locale)
    analyser = lexical.analyser_for(params.language[locale])
    if analyser.name == "words":
        stage.log.warning(
            "warning: language.%s: no stemmer knows %s; words match only as they are written",
            locale, params.language[locale],
        )  # fmt: skip
    products = track(
        terms_of(locale, "products", tables.PRODUCTS, analyser),
        len(inputs.products), "products", lambda _: 1,
    )  # fmt: skip
    check = memory_check(params, locale, analyser, len(inputs.products), len(inputs.queries))
    index = TermIndex.build(products, params.bm25, check)
    queries = list(terms_of(locale, "queries", tables.QUERIES, analyser))
    nothing = _write_runs(params, locale, analyser, index, queries, inputs)
    stage.log.info(
        "bm25 locale=%s analyser=%s queries=%d retrieved_nothing=%d products=%d terms=%d",
        locale, analyser.name, len(queries), nothing, index.products, len(index.vocabulary),
    )  # fmt: skip
    return stage.Done(
        analyser.name, products=index.products, queries=len(queries), depth=params.retrieve.depth
    )


def memory_check(
    params: Params, locale: str, analyser: lexical.Analyser, products: int, queries: int
) -> Callable[[postings.Collection], None]:
    """Return what refuses a collection that will take more memory than allowed.

    It runs after each piece: a stage that must fail fails soon.
    """
    results = min(queries, BATCH_QUERIES) * min(params.retrieve.depth, products)

    def check(found: postings.Collection) -> None:
        memory.check(
            found.memory_bytes(analyser.name, products, results),
            f"bm25 of the {products} {locale} products",
            params.runtime,
            "draw fewer (sample.distractors) or make their texts of fewer fields (clean.fields)",
        )

    return check


def _write_runs(
    params: Params,
    locale: str,
    analyser: lexical.Analyser,
    index: TermIndex,
    queries: list[list[str]],
    inputs: Inputs,
) -> int:
    """Search for all queries, write both runs, and return how many queries found nothing."""
    settings, depth = params.bm25, params.retrieve.depth
    of = {
        "analyser": analyser.name,
        "b": str(settings.b),
        "k1": str(settings.k1),
        "library": LIBRARY,
    }
    nothing = 0
    with run_files.write_runs(locale, "bm25", of, depth, inputs) as (catalogue, pool):
        starts = range(0, len(queries), BATCH_QUERIES)
        for start in track(starts, len(queries), "queries", lambda _: BATCH_QUERIES):
            batch = range(start, min(start + BATCH_QUERIES, len(queries)))
            found, judged = search(index, queries, batch, depth, inputs)
            catalogue.add(*found)
            pool.add(*judged)
            nothing += len(batch) - len(np.unique(found[0]))
    return nothing


def terms_of(
    locale: str, side: str, schema: pa.Schema, analyser: lexical.Analyser
) -> Iterator[list[str]]:
    """Yield the terms of each text of a clean table, in the order of its rows."""
    path = layout.clean(locale).side(side)
    pieces = tables.iter_table(path, schema, BATCH_TEXTS, layout.rerun_hint("clean", locale))
    for piece in pieces:
        yield from map(analyser.terms, piece["text"].to_pylist())
