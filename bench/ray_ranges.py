"""Search by ranges on a Ray cluster against this process alone: `python -m bench.ray`.

With `--retrieve`, a flat index of made-up vectors of length 1 is searched; with `--bm25`, the clean
products of a folder, such as `search` in a project of `bench.scale`, for its queries. Their terms
are counted before, by this process in either case.

One process of two threads and a cluster of two workers of one thread each take turns; then the
cluster searches once more, with a worker killed midway. The cluster's first search is not timed:
its workers start meanwhile.
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from statistics import median
from threading import Timer
from typing import Any

import numpy as np

from bench.measure import Figures
from pipeline.bm25 import cluster as bm25_cluster
from pipeline.bm25 import ranges as bm25_ranges
from pipeline.bm25.analysers import analyser_for
from pipeline.bm25.counting import Counted
from pipeline.bm25.postings import Collection, Statistics
from pipeline.bm25.room import MOST_SENT, RANGE_POSTINGS, SENT_POSTINGS
from pipeline.bm25.search import BATCH_QUERIES
from pipeline.bm25.texts import count_products, terms_of_queries
from pipeline.cluster.connection import connected
from pipeline.core.arrays import Matrix, blocks
from pipeline.core.faiss import faiss
from pipeline.core.log import log
from pipeline.core.params import Params, Runtime
from pipeline.retrieve import neighbours, ranges
from pipeline.runs.inputs import Inputs, read_inputs
from pipeline.vectors.lengths import at_unit_length

DIMENSION, QUERIES = 384, 2_000

RANGES_A_WORKER = 2
"""How many ranges of terms a worker gets at least, so that both end at about the same time."""

Kill = Callable[[], bool]
"""Kills a worker; says whether there was one."""


def measure(
    params: Params, products: int, rounds: int, workers: int, kill_a_worker: Kill
) -> Figures:
    """Search vectors by turns here and on a cluster; compare times and bytes."""
    rng, depth = np.random.default_rng(1), params.retrieve.depth
    index = faiss.IndexFlat(DIMENSION, faiss.METRIC_INNER_PRODUCT)
    index.add(_vectors(rng, products))
    queries = _vectors(rng, QUERIES)
    single = _single(params)
    faiss.omp_set_num_threads(workers)
    with connected(single) as ray, ranges.fleet_for(ray, single, index, queries) as fleet:
        found = by_turns(
            {
                "local": lambda: _search(index, queries, depth, None),
                "ray": lambda: _search(
                    index, queries, depth, ranges.search(fleet, index, QUERIES, depth)
                ),
            },
            rounds,
            kill_a_worker,
        )
    return {
        "products": products,
        "dimension": DIMENSION,
        "queries": QUERIES,
        "depth": depth,
        "workers": workers,
        **found,
    }


def measure_bm25(
    params: Params,
    locale: str,
    folder: Path,
    most_queries: int,
    rounds: int,
    workers: int,
    kill_a_worker: Kill,
) -> Figures:
    """Search by words, by turns here and on a cluster; compare times and bytes.

    Each side has the ranges that it would have of a larger catalogue: this process large ones, the
    cluster `RANGES_A_WORKER` or more for each worker.

    Args:
        params: for languages, k1, b and the depth.
        locale: whose products are searched.
        folder: of a project with clean tables.
        most_queries: for how many queries, at most.
        rounds: how often each side searches.
        workers: how many the cluster has; how many threads this process has.
        kill_a_worker: kills one.
    """
    started = time.monotonic()
    queries, inputs, parts = _make_ranges(params, locale, folder, most_queries, workers)
    counted = time.monotonic() - started
    depth, single = min(params.retrieve.depth, len(inputs.products)), _single(params)
    known = Statistics.of(one.postings for one in parts["local"])
    pairs = inputs.pair_queries, inputs.pair_products
    vocabulary = parts["local"][0].postings.vocabulary
    task = bm25_ranges.Task(queries, vocabulary, known, params.bm25, depth, pairs)
    together = BATCH_QUERIES * max(1, MOST_SENT // (BATCH_QUERIES * depth))

    def search(side: str, search_parts: bm25_cluster.Search) -> str:
        return _digest(
            chain(*run)
            for rows in blocks(range(len(queries)), together)
            for run in bm25_ranges.merge(search_parts(parts[side], rows), task, rows)
        )

    here = partial(task.search_all, threads=workers)
    with connected(single) as ray, bm25_cluster.searcher(ray, single, task) as on_cluster:
        sides = {
            "local": partial(search, "local", here), "ray": partial(search, "ray", on_cluster),
        }  # fmt: skip
        found = by_turns(sides, rounds, kill_a_worker)
    return {
        "locale": locale,
        "products": len(inputs.products),
        "postings": sum(len(one.postings.products) for one in parts["local"]),
        "queries": len(queries),
        "depth": depth,
        "workers": workers,
        "ranges": {side: len(own) for side, own in parts.items()},
        "counting_seconds": round(counted, 2),
        **found,
    }


def by_turns(sides: Mapping[str, Callable[[], str]], rounds: int, kill_a_worker: Kill) -> Figures:
    """Search by turns on the sides `local` and `ray`, then on `ray` with a worker killed midway.

    A side returns a hash of what it found.
    """
    hashes = {sides["ray"]()}
    seconds: dict[str, list[float]] = {side: [] for side in sides}

    def search(side: str) -> float:
        started = time.monotonic()
        hashes.add(sides[side]())
        return time.monotonic() - started

    for _ in range(rounds):
        for side, taken in seconds.items():
            taken.append(search(side))
    deaths, killed = _Deaths(), []
    log.addHandler(deaths)
    timer = Timer(median(seconds["ray"]) / 2, lambda: killed.append(kill_a_worker()))
    timer.start()
    took = search("ray")
    timer.join()
    log.removeHandler(deaths)
    return {
        "seconds": {side: [round(each, 2) for each in taken] for side, taken in seconds.items()},
        "overhead_percent": round(100 * (median(seconds["ray"]) / median(seconds["local"]) - 1), 1),
        "killed": {
            "seconds": round(took, 2), "workers_killed": sum(killed), "deaths_told": deaths.told,
        },
        "identical_bytes": len(hashes) == 1,
    }  # fmt: skip


class _Deaths(logging.Handler):
    """Counts what is told of workers' deaths."""

    told = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.told += "of the Ray cluster died" in record.getMessage()


def _single(params: Params) -> Runtime:
    """Return the settings of a cluster of this machine, with workers of one thread."""
    return params.runtime.model_copy(update={"threads": 1, "ray_address": None})


def _vectors(rng: np.random.Generator, rows: int) -> Matrix:
    return at_unit_length(rng.standard_normal((rows, DIMENSION), np.float32), "made-up vectors")


def _search(index: faiss.Index, queries: Matrix, depth: int, first: Iterator[Any] | None) -> str:
    """Return a hash of what is found."""
    return _digest(
        neighbours.search(index, queries[batch], depth, first)
        for batch in blocks(np.arange(len(queries)), neighbours.SEARCHED_QUERIES)
    )


def _digest(found: Iterable[Iterable[Any]]) -> str:
    """Return a hash of arrays."""
    digest = sha256()
    for array in chain.from_iterable(found):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _make_ranges(
    params: Params, locale: str, folder: Path, most_queries: int, workers: int
) -> tuple[list[list[str]], Inputs, dict[str, list[bm25_ranges.Range]]]:
    """Return the terms of the queries, what is ranked, and the ranges of each side."""
    analyser = analyser_for(params.language[locale])
    with contextlib.chdir(folder):
        inputs = read_inputs(locale)
        queries = terms_of_queries(locale, analyser)[:most_queries]
        products = len(inputs.products)
        pieces = list(count_products(locale, analyser, products, params.runtime))
    vocabulary = bm25_ranges.vocabulary_of(queries)

    def cut(most: int) -> list[bm25_ranges.Range]:
        def is_full(held: Collection, piece: Counted) -> bool:
            return bool(held.pieces) and held.postings + len(piece.products) > most

        with tempfile.TemporaryDirectory() as scratch:
            return bm25_ranges.make_ranges(pieces, vocabulary, is_full, Path(scratch))

    large = cut(RANGE_POSTINGS)
    postings = sum(len(one.postings.products) for one in large)
    small = cut(min(SENT_POSTINGS, postings // (RANGES_A_WORKER * workers)))
    return queries, inputs, {"local": large, "ray": small}
