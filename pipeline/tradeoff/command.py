"""Measure what indexes find and cost on a locale's vectors: -> reports/tradeoff/<locale>.json.

    python -m pipeline.tradeoff [--locale L] [--index NAME]...

Each entry of `indexes` is built, written, and searched for the locale's queries as the stages do
it: mapped from disk where FAISS can. This is not a stage of the graph: timings differ from run to
run, and a stage's outputs must not. All else in the file is deterministic. The file is written
after each index, so a run that is stopped keeps what it has measured. Earlier figures of the same
data, settings, threads, CPU and FAISS stay.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.core import files, layout, stage
from pipeline.core.arrays import Matrix, sampled_rows
from pipeline.core.cpu import cpu_model
from pipeline.core.errors import PipelineError, did_you_mean
from pipeline.core.faiss import faiss, faiss_threads
from pipeline.core.log import log
from pipeline.core.params import FlatIndex, Index, Params
from pipeline.core.params_file import load_params
from pipeline.core.progress import track
from pipeline.evaluate import judged_run, metrics
from pipeline.index.build import build_index
from pipeline.index.card import is_mapped, open_index, write_index
from pipeline.index.kinds import check_fit
from pipeline.report.tradeoff import TRADEOFF_SCHEMA, Basis, Figures, TradeOff, hash_judgements
from pipeline.retrieve import neighbours
from pipeline.retrieve.rescored import Rescored, rescored
from pipeline.runs import ranking
from pipeline.runs.card import OVERLAP_QUERIES
from pipeline.runs.inputs import read_judgements
from pipeline.tradeoff.figures import read_figures, table
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.manifest import Manifest, check_ids, read_manifest
from pipeline.vectors.shards import ShardReader, read_vectors

DEPTH = neighbours.OVERLAP_DEPTH
NDCG_DEPTH = 10
BATCH_QUERIES = 1_024
TIMED_QUERIES = 200
"""Queries that are timed one by one, at most; the queries of the overlap are timed in a batch."""
PASSES = 3
"""How often every timed search is done, at least; the median counts."""
LEAST_SECONDS = 0.5
"""How many seconds searches in a batch are repeated for, at least: one hiccup must not count."""

Codes = NDArray[np.int64]
Search = Callable[[Matrix, int], Any]
"""Finds so many products of each query."""


@dataclass(frozen=True)
class Ground:
    """A locale's vectors and judgements, and the exact neighbours of `sample` (rows of queries)."""

    basis: Basis
    manifest: Manifest
    queries: Matrix
    judgements: judged_run.Judgements
    sample: Codes
    exact: Codes


def read_ground(params: Params, locale: str, manifest: Manifest) -> Ground:
    """Read what the indexes of a locale are measured on, and find the exact neighbours."""
    ids, _, pairs = read_judgements(locale)
    if not len(ids.queries):
        raise PipelineError(
            f"{layout.clean(locale).queries}: there are no queries to search. Use a sample with "
            "judgements."
        )
    check_ids(manifest, "queries", ids.queries, locale)
    check_ids(manifest, "products", ids.products, locale)
    similarity = params.encoder_of(locale).similarity
    basis = Basis(
        locale=locale,
        encoder=manifest.encoder,
        weights_sha256=manifest.weights_sha256,
        similarity=similarity,
        product_ids_sha256=manifest.products.ids_sha256,
        product_vectors_sha256=manifest.products.sha256(),
        query_vectors_sha256=manifest.queries.sha256(),
        judgements_sha256=hash_judgements(pairs),
        products=manifest.products.rows,
        queries=manifest.queries.rows,
        threads=params.runtime.thread_count(),
        cpu_model=cpu_model(),
        faiss_version=faiss.__version__,
    )
    queries = read_vectors(manifest, "queries", locale)
    queries = to_index_form(queries, similarity, f"{locale} queries")
    sample = sampled_rows(len(queries), OVERLAP_QUERIES)
    faiss.omp_set_num_threads(basis.threads)
    shards = ShardReader(manifest, "products", locale)
    counted = track(shards, basis.products, "products searched exactly", len)
    exact = neighbours.exact_codes(counted, queries[sample], DEPTH, similarity)
    judgements = judged_run.Judgements.from_pairs(*pairs, len(queries))
    return Ground(basis, manifest, queries, judgements, sample, exact)


def measure(name: str, settings: Index, ground: Ground) -> Figures:
    """Build an index, search it as the stages do, and return its figures."""
    basis = ground.basis
    built, seconds = _build(settings, ground)
    only, size = _on_disk(built, settings)
    del built
    vectors = ShardReader(ground.manifest, "products", basis.locale)
    searched = rescored(only, settings, basis.similarity, vectors)
    faiss.omp_set_num_threads(basis.threads)
    starts = range(0, basis.queries, BATCH_QUERIES)
    counted = track(starts, basis.queries, f"queries on {name}", lambda _: BATCH_QUERIES)
    pieces = (ground.queries[start : start + BATCH_QUERIES] for start in counted)
    codes = np.concatenate([neighbours.search(searched, piece, DEPTH)[1] for piece in pieces])
    scores = quality(codes, ground.judgements)
    singly = latencies(searcher(searched), ground.queries[timed_rows(basis.queries)]) * 1000
    return Figures.model_validate(
        {
            "index": name,
            "kind": settings.kind,
            "settings": settings,
            "mapped": is_mapped(only),
            **_overlaps(settings, codes[ground.sample], ground.exact),
            "ndcg@10": scores.get("ndcg"),
            "recall@100": scores.get("recall"),
            "bytes_per_vector": round(size / basis.products, 1),
            "build_seconds": _digits(seconds),
            "p50_milliseconds": _digits(float(np.percentile(singly, 50))),
            "p95_milliseconds": _digits(float(np.percentile(singly, 95))),
            "queries_per_second": _digits(
                throughput(searcher(searched), ground.queries[ground.sample])
            ),
        }
    )


def _on_disk(built: faiss.Index, settings: Index) -> tuple[faiss.Index, int]:
    """Return an index as the stages search it, written and read again, and its bytes on disk."""
    (cache := layout.cache()).mkdir(parents=True, exist_ok=True)
    with files.scratch_beside(cache / "tradeoff") as folder:
        path = layout.IndexFiles(folder).index
        write_index(built, path)
        # What is mapped stays though its file is then deleted.
        return open_index(path, settings), path.stat().st_size


def _overlaps(settings: Index, found: Codes, exact: Codes) -> dict[str, float]:
    """Return the share of the exact first 10 and 100 products that an index finds as its own."""
    # The others are compared with a flat index: it is exact.
    return {
        f"overlap@{depth}": 1.0
        if isinstance(settings, FlatIndex)
        else neighbours.overlap(found[:, :depth], exact[:, :depth])
        for depth in (NDCG_DEPTH, DEPTH)
    }


def quality(codes: Codes, judgements: judged_run.Judgements) -> dict[str, float]:
    """Return the mean `ndcg` at 10 and `recall` (of E) at 100 of ranked codes [queries, depth].

    A measure that is defined for no query is left out.
    """
    run = judged(codes, judgements)
    return metrics.means(
        {"ndcg": metrics.ndcg(run, NDCG_DEPTH), "recall": metrics.recall(run, DEPTH)}
    )


def judged(codes: Codes, judgements: judged_run.Judgements) -> judged_run.JudgedRun:
    """Return the judged products of ranked codes, [queries, depth], of all queries in order."""
    rows, places = np.nonzero(codes != ranking.NO_PRODUCT)
    return judged_run.judge(rows, codes[rows, places], judgements)


def timed_rows(queries: int) -> Codes:
    """Return the rows of the queries that are timed one by one."""
    return sampled_rows(queries, TIMED_QUERIES)


def searcher(index: Any) -> Search:
    """Return what finds products of queries, without ranking ties where vectors do not order."""
    if isinstance(index, Rescored):
        return partial(neighbours.search, index)
    return neighbours.finder(index)


def latencies(search: Search, queries: Matrix) -> NDArray[np.float64]:
    """Return the seconds that each query takes alone on one thread, the median of `PASSES`."""
    seconds = np.empty((PASSES, len(queries)))
    with faiss_threads(1):
        search(queries[:1], DEPTH)
        for row in seconds:
            for at in range(len(queries)):
                started = time.perf_counter()
                search(queries[at : at + 1], DEPTH)
                row[at] = time.perf_counter() - started
    return np.asarray(np.median(seconds, axis=0))


def throughput(search: Search, queries: Matrix) -> float:
    """Return the queries searched per second, all in one call, on all threads of FAISS."""
    seconds: list[float] = []
    while len(seconds) < PASSES or sum(seconds) < LEAST_SECONDS:
        started = time.perf_counter()
        search(queries, DEPTH)
        seconds.append(time.perf_counter() - started)
    return len(queries) / median(seconds)


def tradeoff(params: Params, locale: str, names: list[str]) -> None:
    """Measure the indexes `names`, or all where that is empty, and write the file."""
    manifest = read_manifest(params, locale)
    left_out = _left_out(params, manifest, names)
    ground = read_ground(params, locale, manifest)
    basis = ground.basis
    kept = read_figures(params.indexes, basis)
    measured = {name: found for name, found in kept.items() if name not in left_out}
    for name in dict.fromkeys(names or params.indexes):
        if name in left_out:
            continue
        log.info("tradeoff locale=%s index=%s: building", locale, name)
        found = measured[name] = measure(name, params.indexes[name], ground)
        log.info(
            "tradeoff locale=%s index=%s overlap@%d=%s p50_milliseconds=%s queries_per_second=%s",
            locale, name, DEPTH, found.overlap, found.p50_milliseconds, found.queries_per_second,
        )  # fmt: skip
        written = TradeOff(
            **basis.model_dump(),
            tradeoff_schema=TRADEOFF_SCHEMA,
            overlap_queries=len(ground.sample),
            timed_queries=len(timed_rows(basis.queries)),
            indexes=tuple(measured[each] for each in params.indexes if each in measured),
            left_out=left_out,
        )
        dumped = written.model_dump(mode="json", by_alias=True)
        files.write_json(layout.tradeoff(locale), dumped)
    sys.stdout.write(table(locale, measured, left_out))


def _left_out(params: Params, manifest: Manifest, asked: list[str]) -> dict[str, str]:
    """Return which indexes cannot be built on these vectors, and why.

    Raises:
        PipelineError: one of those asked for by name cannot.
    """
    left_out = {}
    for name, settings in params.indexes.items():
        try:
            check_fit(name, settings, manifest.products.rows, manifest.dimension)
        except PipelineError as err:
            if name in asked:
                raise
            left_out[name] = str(err)
    return left_out


class _Timed:
    """The vectors of a side, and how many seconds reading them took."""

    def __init__(self, stored: ShardReader) -> None:
        self._stored = stored
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Matrix]:
        source = iter(self._stored)
        while True:
            started = time.perf_counter()
            piece = next(source, None)
            self.seconds += time.perf_counter() - started
            if piece is None:
                return
            yield piece


def _build(settings: Index, ground: Ground) -> tuple[faiss.Index, float]:
    """Return an index of the locale's products, and the seconds it took without reading them."""
    basis = ground.basis
    products = _Timed(ShardReader(ground.manifest, "products", basis.locale))
    started = time.perf_counter()
    built = build_index(
        settings, ground.manifest.dimension, basis.similarity, products, basis.products
    )
    return built, time.perf_counter() - started - products.seconds


def _digits(value: float) -> float:
    """Return a timing with three significant digits."""
    return float(f"{value:.3g}")


@contextmanager
def alone() -> Iterator[None]:
    """Refuse a second run: two would slow each other, and each drop what the other has written.

    Raises:
        PipelineError: another process with the same cache measures trade-offs.
    """
    lock = FileLock(layout.tradeoff_lock(), timeout=0)
    try:
        lock.acquire()
    except Timeout as err:
        raise PipelineError(
            f"{lock.lock_file}: `make tradeoff` is running already, and two would spoil each "
            "other's times. Wait until it ends."
        ) from err
    try:
        yield
    finally:
        lock.release()


def main() -> int:
    """Measure the locales and indexes asked for; return the exit status."""
    parser = stage.locale_parser("tradeoff")
    parser.add_argument(
        "--index", action="append", default=[], metavar="NAME",
        help="a key of `indexes` in params.yaml; may be repeated; without it, every index",
    )  # fmt: skip
    options = parser.parse_args()
    with stage.report_errors("tradeoff") as outcome, alone():
        params = load_params()
        for name in options.index:
            if name not in params.indexes:
                raise PipelineError(
                    f"--index {name}: unknown index; params.yaml has {', '.join(params.indexes)} "
                    f"under indexes{did_you_mean(name, params.indexes)}"
                )
        for locale in stage.asked_locales(params, options.locale):
            tradeoff(params, locale, options.index)
    return outcome.status
