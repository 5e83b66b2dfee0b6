"""Searching by ranges, here and on a real cluster: the bytes of one search of all products."""

import logging
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cluster.connection import connected
from pipeline.core import layout
from pipeline.core import params as core_params
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.params import FlatIndex, Index, Similarity, Sq8Index
from pipeline.index import stage as stage_index
from pipeline.index.build import build_index
from pipeline.retrieve import decoded, exact_l2, neighbours, ranges
from pipeline.retrieve import stage as retrieve
from pipeline.retrieve.neighbours import Found
from pipeline.retrieve.ranges import Best, Range, cut, fleet_for, search, search_range
from pipeline.vectors.lengths import to_index_form
from tests.helpers.artefacts import (
    LOCALE,
    params,
    random_vectors,
    tie_heavy,
    write_clean,
    write_embeddings,
)

FLAT, SQ8 = FlatIndex(kind="flat"), Sq8Index(kind="sq8")
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")


BLOCK = 64


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Let FAISS multiply with fewer vectors at once, as ranges begin where a block does.

    Not for tests with a cluster: its workers would multiply with more.
    """
    before = faiss.cvar.distance_compute_blas_database_bs
    faiss.cvar.distance_compute_blas_database_bs = BLOCK
    yield
    faiss.cvar.distance_compute_blas_database_bs = before


def _by_ranges(index: Any, queries: Matrix, bounds: list[int], asked: int) -> Found:
    """Search ranges one after the other in this process, by what workers run."""
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    codes = codes.reshape(index.ntotal, index.code_size)
    part, best = decoded.empty(index), Best(len(queries), asked)
    for start, stop in pairwise(bounds):
        part.reset()
        part.add_sa_codes(codes[start:stop])
        item = Range(start, codes[start:stop], [slice(0, len(queries))], asked, best.least)
        best.add(search_range(part, queries, item))
    return best.found(slice(None))


def _same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    return [one.tobytes() for one in found] == [one.tobytes() for one in expected]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("settings", [FLAT, SQ8], ids=lambda settings: settings.kind)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_any_ranges_give_the_bytes_of_one_search_though_scores_tie(
    settings: Index, similarity: Similarity
) -> None:
    rng = np.random.default_rng(8)
    for at in range(12):
        rows, depth = int(rng.integers(2, 700)), int(rng.integers(1, 300))
        make = tie_heavy if at % 2 else random_vectors
        products = np.concatenate([make(rng, rows), make(rng, 1)])[rng.integers(0, rows, rows)]
        queries = to_index_form(make(rng, int(rng.integers(1, 60))), similarity, "queries")
        index = build_index(settings, products.shape[1], similarity, [products])
        cuts = np.unique(rng.integers(0, rows, int(rng.integers(0, 5))) // BLOCK * BLOCK)
        bounds = [0, *cuts[cuts > 0].tolist(), rows]
        given = _by_ranges(index, queries, bounds, neighbours.first_asked(index, depth))
        expected = neighbours.search(index, queries, depth)
        assert _same(neighbours.search(index, queries, depth, iter([given])), expected)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("settings", [FLAT, SQ8], ids=lambda settings: settings.kind)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_products_that_are_nearly_equal_are_found_though_a_range_proposes_others(
    settings: Index, similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "EXTRA_RESULTS", 2)  # more would hide what is not proposed
    proposed = []
    for module in (decoded, exact_l2):
        propose = module.propose

        def told(*given: Any, propose: Any = propose) -> Any:
            proposed.append(propose.__module__)
            return propose(*given)

        monkeypatch.setattr(module, "propose", told)
    rng = np.random.default_rng(3)
    near = 100 * random_vectors(rng, 1, 48) + 0.1 * random_vectors(rng, 1_500, 48)
    products, between = near.astype(np.float32), (near[:40] + near[40:80]) / 2
    queries = to_index_form(between.astype(np.float32), similarity, "queries")
    index = build_index(settings, 48, similarity, [products])
    for depth in (1, 20):
        expected = neighbours.search(index, queries, depth)
        proposed.clear()
        given = _by_ranges(index, queries, [0, 768, 1_500], neighbours.first_asked(index, depth))
        assert (len(proposed) > 0) == (settings == SQ8 or similarity == "l2")
        assert _same(neighbours.search(index, queries, depth, iter([given])), expected)


def test_ranges_cover_all_products_and_begin_where_a_block_of_one_machine_does() -> None:
    assert list(cut(10, 8, 0)) == [slice(0, 10)]  # all workers died
    cases = product((1, 4_096, 4_097, 70_000, 10_000_000), (8, 384, 1_536, 10**6), (1, 2, 16))
    for products, size, workers in cases:
        found = list(cut(products, size, workers))
        assert [part.start for part in found[1:]] == [part.stop for part in found[:-1]]
        assert (found[0].start, found[-1].stop) == (0, products)
        assert all(part.start % ranges.ALIGNED_ROWS == 0 for part in found)
        rows = max(part.stop - part.start for part in found)
        assert rows < ranges.RANGE_BYTES // size + ranges.ALIGNED_ROWS
        rounds = max(2, -(-products * size // (ranges.RANGE_BYTES * workers)))
        assert len(found) <= workers * rounds


def on(cluster: str) -> dict[str, Any]:
    """Return the changes of parameters for workers of one thread each, as the cluster's nodes."""
    return {
        "runtime.threads": 1, "runtime.executor": "ray", "runtime.ray_address": cluster,
    }  # fmt: skip


@pytest.mark.slow
def test_a_worker_killed_midway_changes_no_byte_and_is_told_once(
    cluster: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from bench.ray import kill_a_worker  # here, because it loads encoders

    rng = np.random.default_rng(1)
    products = random_vectors(rng, 36_000, 32)
    products[20_000:] = products[:16_000]  # equal products, in other ranges
    queries = to_index_form(random_vectors(rng, 4_500, 32), "cosine", "queries")
    index = build_index(FLAT, 32, "cosine", [products])
    monkeypatch.setattr(ranges, "GROUP_BYTES", 1)  # one batch, and one more
    monkeypatch.setattr(ranges, "RANGE_BYTES", 4 * 32 * ranges.ALIGNED_ROWS)  # nine
    batches = [queries[:4_096], queries[4_096:]]
    killed: list[bool] = []
    found, add = [], Best.add

    def add_and_kill(best: Best, part: ranges.Part) -> None:
        if not killed:  # the first part is here: the workers have the next ones
            killed.append(kill_a_worker())
        add(best, part)

    monkeypatch.setattr(Best, "add", add_and_kill)
    there = params(on(cluster)).runtime
    faiss.omp_set_num_threads(1)  # as the stage does, and as a worker
    with connected(there) as ray, fleet_for(ray, there, index, queries) as fleet:
        first = search(fleet, index, len(queries), 3)
        for batch in batches:
            found.append(neighbours.search(index, batch, 3, first))
        assert next(first, None) is None
    assert killed == [True]
    for mine, batch in zip(found, batches, strict=True):
        assert _same(mine, neighbours.search(index, batch, 3))
    assert sum("of the Ray cluster died" in line for line in caplog.messages) == 1


@pytest.fixture
def vectors(project: Path) -> None:
    """Clean tables and embeddings in the project."""
    rng = np.random.default_rng(4)
    write_clean(rng, 5_000, 40)
    write_embeddings(params(), random_vectors(rng, 5_000), random_vectors(rng, 40))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "sq8", "ivf-flat"])
def test_the_stage_writes_the_same_bytes_where_a_cluster_searches_or_says_that_it_does_not(
    cluster: str, vectors: None, kind: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(core_params, "FEWEST_ON_CLUSTER", 1)
    asked = params().retrieve.depth + neighbours.EXTRA_RESULTS
    # A batch has three calls of flat, and more of sq8; a group has two or more.
    monkeypatch.setattr(neighbours, "RESULT_BYTES", 15 * asked * neighbours.FOUND_BYTES)
    monkeypatch.setattr(ranges, "GROUP_BYTES", 2 * 15 * asked * ranges.BEST_BYTES)
    settings = {"kind": kind, **({"rescore": 2} if kind == "sq8" else {})}
    settings |= {"lists": 8, "probes": 2} if kind == "ivf-flat" else {}
    changes: dict[str, Any] = {f"index.{LOCALE}": "one", "indexes.one": settings}
    stage_index.index(params(changes), LOCALE)
    written, ways = [], []
    for where in ({"runtime.threads": 1}, on(cluster)):
        ways.append(retrieve.retrieve(params(changes | where), LOCALE).kind)
        files = sorted(layout.runs("dense", LOCALE).folder.iterdir())
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1]
    ranged = kind != "ivf-flat"
    assert ways == [kind, f"{kind}-ray" if ranged else kind]
    assert sum("is searched on this machine" in one for one in caplog.messages) == (not ranged)


@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_is_one_message_and_leaves_no_run_if_it_is_needed(
    vectors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    stage_index.index(params(), LOCALE)
    where = params(on("127.0.0.1:1"))
    with monkeypatch.context() as patched:
        patched.setattr(core_params, "FEWEST_ON_CLUSTER", 1)
        with pytest.raises(
            PipelineError, match=r"runtime.ray_address: 127.0.0.1:1: no Ray cluster"
        ):
            retrieve.retrieve(where, LOCALE)
    assert not layout.runs("dense", LOCALE).folder.exists()
    assert retrieve.retrieve(where, LOCALE).kind == "flat"  # so little is searched here
