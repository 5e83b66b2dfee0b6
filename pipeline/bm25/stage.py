"""Search one locale by words: data/clean/<locale> -> data/runs/bm25/<locale>.

BM25 as Lucene has it: a product's score is the sum, over the query's terms (a repeated term counts
twice), of

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))

where N is the number of products, n of them have the term, and this one has it f times; a length is
a number of terms.

Where all postings would not fit into memory, products are searched range by range, with the same
bytes; see `ranges`.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice

import numpy as np

from pipeline.bm25 import analysers, cluster, ranges
from pipeline.bm25.kept import open_postings
from pipeline.bm25.postings import Postings, Statistics
from pipeline.bm25.ranges import Found
from pipeline.bm25.room import Room
from pipeline.bm25.search import BATCH_QUERIES, QUERIES_AT_ONCE, TermIndex, joined, search
from pipeline.bm25.texts import count_products, terms_of_queries, worker_count
from pipeline.core import layout, memory, stage
from pipeline.core.arrays import blocks
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.log import log
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Params
from pipeline.core.progress import track
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Inputs, read_inputs
from pipeline.runs.made_of import of_bm25


def bm25(params: Params, locale: str) -> stage.Done:
    """Write the catalogue run and the pool run of a locale."""
    inputs = read_inputs(locale)
    clean = layout.clean(locale)
    digest, queries_digest = sha256_file(clean.products), sha256_file(clean.queries)
    analyser = analysers.analyser_for(params.language[locale])
    if analyser.name == "words":
        log.warning(
            "warning: language.%s: no stemmer knows %s; words match only as they are written",
            locale, params.language[locale],
        )  # fmt: skip
    products, threads = len(inputs.products), params.runtime.thread_count()
    queries = terms_of_queries(locale, analyser)
    whole, reused = _whole(params, locale, analyser, inputs, digest)
    way = analyser.name  # of searching, for the rates of `plan`
    if whole is not None:
        index, terms = TermIndex.of(whole, params.bm25, threads), f" terms={len(whole.vocabulary)}"
        found = _batches(search_all(index, queries, params, inputs), len(queries))
    else:
        found, terms = search_ranges(params, locale, analyser, queries, inputs, digest), ""
        way += "-ray" if params.runtime.is_on_cluster() else "-ranges"
    of = of_bm25(params, locale, digest, queries_digest) | {"analyser": analyser.name}
    with closing(found):  # of a cluster, too
        nothing = _write_runs(params, locale, of, found, inputs)
    log.info(
        "bm25 locale=%s analyser=%s queries=%d retrieved_nothing=%d products=%d reused=%d%s",
        locale, analyser.name, len(queries), nothing, products, products if reused else 0, terms,
    )  # fmt: skip
    return stage.Done(
        way,
        products=products,
        counted=0 if reused else products,
        queries=len(queries),
        depth=params.retrieve.depth,
        threads=threads,
        workers=0 if reused else worker_count(analyser.name, products, params.runtime),
    )


def _whole(
    params: Params, locale: str, analyser: analysers.Analyser, inputs: Inputs, digest: str
) -> tuple[Postings | None, bool]:
    """Return the postings of all products, and whether they were kept before.

    There are none where they would take more memory than allowed.
    """
    products = len(inputs.products)
    try:
        return open_postings(
            params, locale, analyser, products, digest, len(inputs.queries), thorough=True
        )
    except memory.MemoryLimitError as err:
        log.warning("warning: %s The products are searched range by range.", err)
        return None, False


def search_ranges(
    params: Params,
    locale: str,
    analyser: analysers.Analyser,
    queries: list[list[str]],
    inputs: Inputs,
    digest: str,
) -> Generator[Found]:
    """Yield both runs of all queries, `BATCH_QUERIES` at a time, from ranges of the products.

    Args:
        params: for memory and threads.
        locale: whose products they are.
        analyser: what makes their terms.
        queries: the terms of each.
        inputs: which products are judged.
        digest: the hash of the clean products.

    Raises:
        PipelineError: not even a small range would fit into memory; the clean products are missing,
            damaged or replaced; as `cluster.connection` and `cluster.searcher`.
    """
    with cluster.connection(params.runtime) as ray:  # before terms are counted for minutes
        task, parts, size = _make_ranges(params, locale, analyser, queries, inputs, digest)
        with cluster.searcher(ray, params.runtime, task) as search_parts:
            for rows in blocks(range(len(queries)), size):
                yield from ranges.merge(search_parts(parts, rows), task, rows)


def _make_ranges(
    params: Params,
    locale: str,
    analyser: analysers.Analyser,
    queries: list[list[str]],
    inputs: Inputs,
    digest: str,
) -> tuple[ranges.Task, list[ranges.Range], int]:
    """Return the ranges, what they are searched for, and for how many queries at once."""
    runtime, products = params.runtime, len(inputs.products)
    vocabulary, path = ranges.vocabulary_of(queries), layout.clean(locale).products
    room = Room(params, locale, analyser.name, products, len(vocabulary))
    # Closed at once where no range fits: other processes count.
    with closing(count_products(locale, analyser, products, runtime)) as pieces:
        counted = track(pieces, products, "products", lambda piece: len(piece.lengths))
        parts = ranges.make_ranges(counted, vocabulary, room.is_full, layout.cache() / "search")
    read = sum(len(one.postings.lengths) for one in parts)
    if read != products or sha256_file(path) != digest:
        raise PipelineError(f"{path} was replaced while it was read. Run it again.")
    log.info("bm25 locale=%s ranges=%d query_terms=%d", locale, len(parts), len(vocabulary))
    known = Statistics.of(one.postings for one in parts)
    pairs = inputs.pair_queries, inputs.pair_products
    depth = min(params.retrieve.depth, products)
    task = ranges.Task(queries, vocabulary, known, params.bm25, depth, pairs)
    return task, parts, room.queries


def _write_runs(
    params: Params,
    locale: str,
    of: Mapping[str, str],
    found: Iterable[Found],
    inputs: Inputs,
) -> int:
    """Write both runs, and return how many queries found nothing."""
    depth, queries = params.retrieve.depth, len(inputs.queries)
    hits = 0
    with run_files.write_runs(locale, "bm25", of, depth, inputs) as (catalogue, pool):
        for ranked, judged in track(found, queries, "queries", lambda _: BATCH_QUERIES):
            catalogue.add(*ranked)
            pool.add(*judged)
            hits += len(np.unique(ranked[0]))
    return queries - hits


def _batches(parts: Iterator[Found], queries: int) -> Generator[Found]:
    """Yield both runs of `BATCH_QUERIES` at a time, of what `search_all` yields."""
    for batch in blocks(range(queries), BATCH_QUERIES):
        catalogue, pool = zip(*islice(parts, len(blocks(batch, QUERIES_AT_ONCE))), strict=True)
        yield joined(catalogue), joined(pool)


def search_all(
    index: TermIndex, queries: list[list[str]], params: Params, inputs: Inputs
) -> Iterator[Found]:
    """Yield both runs of all queries, `QUERIES_AT_ONCE` or fewer at a time, from all threads.

    No part has queries of two batches of `BATCH_QUERIES`.
    """
    return in_parallel(
        lambda part: search(index, queries, part, params.retrieve.depth, inputs),
        (
            part
            for batch in blocks(range(len(queries)), BATCH_QUERIES)
            for part in blocks(batch, QUERIES_AT_ONCE)
        ),
        params.runtime.thread_count(),
    )
