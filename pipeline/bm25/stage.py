"""Search one locale by words: data/clean/<locale> -> data/runs/bm25/<locale>.

BM25 as Lucene has it: a product's score is the sum, over the query's terms (a repeated term counts
twice), of

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))

where N is the number of products, n of them have the term, and this one has it f times; a length is
a number of terms.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from pipeline.bm25 import analysers as lexical
from pipeline.bm25 import postings
from pipeline.bm25.kept import postings_of
from pipeline.bm25.search import TermIndex, search
from pipeline.bm25.texts import count_products, terms_of, worker_count
from pipeline.core import layout, memory, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Params
from pipeline.core.progress import track
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Inputs, read_inputs
from pipeline.runs.ranking import Ranked

LIBRARY = "bm25s"
"""Whose scores these are, to the last bit. It does not make them any more; cards still name it, so
that runs keep their bytes until the next change of `runs.card.RUN_SCHEMA`."""
BATCH_QUERIES = 256
"""These are written together."""
QUERIES_AT_ONCE = 32
"""A thread searches for these before it asks for others."""


def bm25(params: Params, locale: str) -> stage.Done:
    """Write the catalogue run and the pool run of a locale."""
    inputs = read_inputs(locale)
    analyser = lexical.analyser_for(params.language[locale])
    if analyser.name == "words":
        stage.log.warning(
            "warning: language.%s: no stemmer knows %s; words match only as they are written",
            locale, params.language[locale],
        )  # fmt: skip
    products, threads = len(inputs.products), params.runtime.thread_count()
    digest = sha256_file(layout.clean(locale).products)
    found, reused = open_postings(
        params, locale, analyser, products, digest, len(inputs.queries), thorough=True
    )
    index = TermIndex.of(found, params.bm25, threads)
    queries = list(terms_of(locale, "queries", tables.QUERIES, analyser))
    nothing = _write_runs(params, locale, analyser, index, queries, inputs)
    stage.log.info(
        "bm25 locale=%s analyser=%s queries=%d retrieved_nothing=%d products=%d reused=%d terms=%d",
        locale, analyser.name, len(queries), nothing, products, products if reused else 0,
        len(found.vocabulary),
    )  # fmt: skip
    return stage.Done(
        analyser.name,
        products=products,
        counted=0 if reused else products,
        queries=len(queries),
        depth=params.retrieve.depth,
        threads=threads,
        workers=0 if reused else worker_count(analyser.name, products, params.runtime),
    )


def open_postings(
    params: Params,
    locale: str,
    analyser: lexical.Analyser,
    products: int,
    source_sha256: str,
    queries: int = 1,
    *,
    thorough: bool = False,
) -> tuple[postings.Postings, bool]:
    """Return the postings of a locale's products, and whether they were kept before.

    Args:
        params: for memory and threads.
        locale: whose products they are.
        analyser: what makes the terms.
        products: how many there are.
        source_sha256: the hash of the clean products.
        queries: how many will be searched for.
        thorough: that of `postings_of`.

    Raises:
        PipelineError: making or searching them would take more memory than allowed, or the clean
            products are damaged.
    """
    workers = worker_count(analyser.name, products, params.runtime)

    def make() -> postings.Postings:
        pieces = count_products(locale, analyser, products, params.runtime)
        counted = track(pieces, products, "products", lambda piece: len(piece.lengths))
        check = memory_check(params, locale, analyser, products, queries, workers)
        found = postings.collect(counted, check)
        path = layout.clean(locale).products
        if sha256_file(path) != source_sha256:
            raise PipelineError(f"{path} was replaced while it was read. Run it again.")
        return found

    found, reused = postings_of(
        locale, analyser, source_sha256, len(params.locales), make, thorough=thorough
    )
    if reused:
        check = memory_check(params, locale, analyser, products, queries, workers=0)
        check(postings.Collection(products=products, postings=len(found.products)))
    return found, reused


def memory_check(
    params: Params,
    locale: str,
    analyser: lexical.Analyser,
    products: int,
    queries: int,
    workers: int,
) -> Callable[[postings.Collection], None]:
    """Return what refuses a collection that will take more memory than allowed.

    It runs after each piece: a stage that must fail fails soon. `workers` are those of
    `postings.memory_bytes`.
    """
    threads = params.runtime.thread_count()
    results = min(queries, BATCH_QUERIES) * min(params.retrieve.depth, products)

    def check(found: postings.Collection) -> None:
        memory.check(
            found.memory_bytes(analyser.name, products, results, threads, workers),
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
    nothing, batches = 0, _ranges(range(len(queries)), BATCH_QUERIES)
    with run_files.write_runs(locale, "bm25", of, depth, inputs) as (catalogue, pool):
        found = search_all(index, queries, params, inputs)
        for batch in track(batches, len(queries), "queries", len):
            parts = list(islice(found, len(_ranges(batch, QUERIES_AT_ONCE))))
            for run, columns in zip((catalogue, pool), zip(*parts, strict=True), strict=True):
                rows, codes, scores = map(np.concatenate, zip(*columns, strict=True))
                run.add(rows, codes, scores)
            nothing += len(batch) - sum(len(np.unique(ranked[0])) for ranked, _ in parts)
    return nothing


def search_all(
    index: TermIndex, queries: list[list[str]], params: Params, inputs: Inputs
) -> Iterator[tuple[Ranked, Ranked]]:
    """Yield both runs of all queries, `QUERIES_AT_ONCE` or fewer at a time, from all threads.

    No part has queries of two batches of `BATCH_QUERIES`.
    """
    batches = _ranges(range(len(queries)), BATCH_QUERIES)
    return in_parallel(
        lambda part: search(index, queries, part, params.retrieve.depth, inputs),
        (part for batch in batches for part in _ranges(batch, QUERIES_AT_ONCE)),
        params.runtime.thread_count(),
    )


def _ranges(rows: range, size: int) -> list[range]:
    """Cut rows into ranges of at most so many."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
