"""Search sq8 as this project does, by blocks decoded once, beside FAISS's own search.

    python -m bench.sq8 [--products 400000] [--queries 4096] [--rounds 3]

Both search the same index of made-up vectors (those of `bench.scale_search`) for the same queries,
one after the other, on all threads, for as many products as `retrieve` asks for at first; each
round begins with the other one. The figures go to reports/bench/sq8.json: seconds by round, whether
the blocks were multiplied in integers, and FAISS's seconds over this project's, more than 1 where
this project is faster.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bench import reports
from bench.measure import Figures
from bench.scale_search import DIMENSION, PRODUCTS_A_CENTRE, Mixture
from pipeline.core import stage
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.files import canonical_json, write_json
from pipeline.core.params import Sq8Index
from pipeline.core.params_file import load_params
from pipeline.index.build import build_index
from pipeline.retrieve import decoded, neighbours
from pipeline.retrieve.multiply import is_faster_in_integers
from pipeline.runs import ranking

Found = tuple[NDArray[np.float32], Ints]
"""Scores and rows, both [queries, asked]."""


def measure(products: int, queries: int, rounds: int, depth: int, threads: int) -> Figures:
    """Search by turns; return seconds and ratios, and whether both have the same first `depth`."""
    mixture = Mixture(max(1, products // PRODUCTS_A_CENTRE))
    faiss.omp_set_num_threads(threads)
    shards = list(mixture.pieces(products, seed=0))
    index = build_index(Sq8Index(kind="sq8"), DIMENSION, "cosine", shards, products)
    del shards
    searched = np.concatenate(list(mixture.pieces(queries, seed=1)))
    asked = neighbours.first_asked(index, depth)
    if not decoded.is_faster(index, searched, asked):
        raise PipelineError(
            f"--queries {queries}, --products {products}: so few are left to FAISS. Use at least "
            f"{decoded.LEAST_QUERIES} queries and {decoded.LEAST_PRODUCTS * asked} products."
        )
    sides: dict[str, Callable[[], Found]] = {
        "blocks": lambda: decoded.propose(index, searched, asked)[:2],
        "faiss": lambda: index.search(searched, asked),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Found] = {}
    same = True
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            found[name] = sides[name]()
            seconds[name].append(time.perf_counter() - started)
        same &= agree(found["blocks"], found["faiss"], depth)
    ratios = [slow / fast for fast, slow in zip(*seconds.values(), strict=True)]
    return {
        "products": products,
        "dimension": DIMENSION,
        "queries": queries,
        "asked": asked,
        "threads": threads,
        "seconds": {name: [round(each, 2) for each in of] for name, of in seconds.items()},
        "times_as_fast": {
            name: round(of(ratios), 2)
            for name, of in (("least", min), ("median", median), ("most", max))
        },
        "integers": is_faster_in_integers(index, queries),
        "same": same,
    }


def agree(one: Found, other: Found, depth: int) -> bool:
    """Say whether the first `depth` products of each query are the same, with the same scores."""
    mine, theirs = ranking.rank_matrix(*one), ranking.rank_matrix(*other)
    first = slice(depth)
    return all(np.array_equal(a[:, first], b[:, first]) for a, b in zip(mine, theirs, strict=True))


def main() -> int:
    """Measure, write the report, print it; return 1 if the results differ."""
    parser = argparse.ArgumentParser(prog="python -m bench.sq8")
    parser.add_argument("--products", type=int, default=400_000, help="default: 400000")
    parser.add_argument("--queries", type=int, default=4_096, help="default: 4096")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    with stage.report_errors("bench") as outcome:
        params, made = load_params(), reports.made_by()
        figures = measure(
            options.products, options.queries, options.rounds, params.retrieve.depth,
            params.runtime.thread_count(),
        )  # fmt: skip
        write_json(reports.SQ8, figures | made)
        sys.stdout.write(canonical_json(figures))
        if not figures["same"]:
            raise PipelineError(f"{reports.SQ8}: the two searches found other products")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
