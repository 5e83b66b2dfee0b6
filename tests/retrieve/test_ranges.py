"""Searching by ranges, here and on a real cluster: the bytes of one search of all products."""

import logging
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cluster.connection import connected
from pipeline.core import layout
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.params import FlatIndex, Index, Similarity, Sq8Index
from pipeline.index import stage as stage_index
from pipeline.index.build import build_index
from pipeline.retrieve import decoded, neighbours, ranges
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


def _by_ranges(index: Any, queries: Matrix, bounds: list[int], asked: int) -> Found:
    """Search ranges one after the other in this process, by what workers run."""
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    codes = codes.reshape(index.ntotal, index.code_size)
    part, best = decoded.empty(index), Best(len(queries), asked)
    for start, stop in pairwise(bounds):
        part.reset()
        part.add_sa_codes(codes[start:stop])
        item = Range(start, codes[start:stop], range(len(queries)), asked, best.least)
        best.add(search_range(part, queries, item))
    return best.found(slice(None))


def _same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    return [one.tobytes() for one in found] == [one.tobytes() for one in expected]


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
        cuts = rng.integers(1, rows, int(rng.integers(0, 5)))
        bounds = [0, *np.unique(cuts).tolist(), rows]
        given = _by_ranges(index, queries, bounds, neighbours.first_asked(index, depth))
        expected = neighbours.search(index, queries, depth)
        assert _same(neighbours.search(index, queries, depth, given), expected)


def test_ranges_cover_all_products_and_begin_where_a_block_of_one_machine_does() -> None:
    cases = product((1, 4_096, 4_097, 70_000, 10_000_000), (8, 384, 1_536, 10**6), (1, 2, 16))
    for products, size, workers in cases:
        found = list(cut(products, size, workers))
        assert [part.start for part in found[1:]] == [part.stop for part in found[:-1]]
        assert (found[0].start, found[-1].stop) == (0, products)
        assert all(part.start % ranges.ALIGNED_ROWS == 0 for part in found)
        rows = max(part.stop - part.start for part in found)
        assert rows < ranges.RANGE_BYTES // size + ranges.ALIGNED_ROWS
        assert len(found) <= workers * -(-products * size // (ranges.RANGE_BYTES * workers))


@pytest.mark.slow
def test_a_worker_killed_midway_changes_no_byte_and_is_told_once(
    cluster: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from bench.ray import kill_a_worker  # here, because it loads encoders

    rng = np.random.default_rng(1)
    products = random_vectors(rng, 9_000, 32)
    products[5_000:] = products[:4_000]  # equal products, in other ranges
    queries = to_index_form(random_vectors(rng, 4_500, 32), "cosine", "queries")
    index = build_index(FLAT, 32, "cosine", [products])
    monkeypatch.setattr(ranges, "GROUP_BYTES", 1)  # one batch, and one more
    batches = [queries[:4_096], queries[4_096:]]
    found = []
    there = params({"runtime.executor": "ray", "runtime.ray_address": cluster}).runtime
    with connected(there) as ray, fleet_for(ray, there, index, queries) as fleet:
        first = search(fleet, index, len(queries), 3)
        for batch in batches:
            found.append(neighbours.search(index, batch, 3, next(first)))
            if len(found) == 1:
                assert kill_a_worker()
        assert next(first, None) is None
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
    cluster: str, vectors: None, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = {"kind": kind, **({"rescore": 2} if kind == "sq8" else {})}
    settings |= {"lists": 8, "probes": 2} if kind == "ivf-flat" else {}
    changes: dict[str, Any] = {f"index.{LOCALE}": "one", "indexes.one": settings}
    stage_index.index(params(changes), LOCALE)
    written, ways = [], []
    for executor, address in (("local", None), ("ray", cluster)):
        where = {"runtime.executor": executor, "runtime.ray_address": address}
        ways.append(retrieve.retrieve(params(changes | where), LOCALE).kind)
        files = sorted(layout.runs("dense", LOCALE).folder.iterdir())
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1]
    ranged = kind != "ivf-flat"
    assert ways == [kind, f"{kind}-ray" if ranged else kind]
    assert sum("is searched on this machine" in one for one in caplog.messages) == (not ranged)


@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_is_one_message_and_leaves_no_run(vectors: None) -> None:
    pytest.importorskip("ray")
    stage_index.index(params(), LOCALE)
    where = {"runtime.executor": "ray", "runtime.ray_address": "127.0.0.1:1"}
    with pytest.raises(PipelineError, match=r"runtime.ray_address: 127.0.0.1:1: no Ray cluster"):
        retrieve.retrieve(params(where), LOCALE)
    assert not layout.runs("dense", LOCALE).folder.exists()
