"""Search by ranges on a Ray cluster against this process alone: `python -m bench.ray --retrieve`.

One process of two threads and a cluster of two workers of one thread each take turns to search a
flat index of made-up vectors of length 1; then the cluster does so once more, with a worker killed
midway. The cluster's first search is not timed: its workers start meanwhile.
"""

import logging
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from statistics import median
from threading import Timer
from typing import Any

import numpy as np

from pipeline.cluster.connection import connected
from pipeline.core.arrays import Matrix, blocks
from pipeline.core.faiss import faiss
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.retrieve import neighbours, ranges
from pipeline.vectors.lengths import at_unit_length

DIMENSION, QUERIES = 384, 2_000

Figures = dict[str, Any]


def measure(
    params: Params, products: int, rounds: int, workers: int, kill_a_worker: Callable[[], bool]
) -> Figures:
    """Search by turns here and on a cluster; compare times and bytes."""
    rng, depth = np.random.default_rng(1), params.retrieve.depth
    index = faiss.IndexFlat(DIMENSION, faiss.METRIC_INNER_PRODUCT)
    index.add(_vectors(rng, products))
    queries = _vectors(rng, QUERIES)
    single = params.runtime.model_copy(update={"threads": 1, "ray_address": None})
    faiss.omp_set_num_threads(workers)
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    deaths, killed = _Deaths(), []
    with connected(single) as ray, ranges.fleet_for(ray, single, index, queries) as fleet:

        def search(side: str) -> tuple[str, float]:
            started = time.monotonic()
            first = None
            if side == "ray":
                first = ranges.search(fleet, index, QUERIES, depth)
            found = _search(index, queries, depth, first)
            return found, round(time.monotonic() - started, 2)

        hashes = {search("ray")[0]}
        for _ in range(rounds):
            for side, taken in seconds.items():
                found, took = search(side)
                hashes.add(found)
                taken.append(took)
        log.addHandler(deaths)
        timer = Timer(median(seconds["ray"]) / 2, lambda: killed.append(kill_a_worker()))
        timer.start()
        found, took = search("ray")
        timer.join()
        log.removeHandler(deaths)
    hashes.add(found)
    return {
        "products": products,
        "dimension": DIMENSION,
        "queries": QUERIES,
        "depth": depth,
        "workers": workers,
        "seconds": seconds,
        "overhead_percent": round(100 * (median(seconds["ray"]) / median(seconds["local"]) - 1), 1),
        "killed": {"seconds": took, "workers_killed": sum(killed), "deaths_told": deaths.told},
        "identical_bytes": len(hashes) == 1,
    }


class _Deaths(logging.Handler):
    """Counts what is told of workers' deaths."""

    told = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.told += "of the Ray cluster died" in record.getMessage()


def _vectors(rng: np.random.Generator, rows: int) -> Matrix:
    return at_unit_length(rng.standard_normal((rows, DIMENSION), np.float32), "made-up vectors")


def _search(index: faiss.Index, queries: Matrix, depth: int, first: Iterator[Any] | None) -> str:
    """Return a hash of what is found."""
    digest = sha256()
    for batch in blocks(np.arange(len(queries)), neighbours.SEARCHED_QUERIES):
        for found in neighbours.search(index, queries[batch], depth, first):
            digest.update(found.tobytes())
    return digest.hexdigest()
