"""Nearest products among all and among some: what an exhaustive search of those would find."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.faiss import faiss
from pipeline.core.params import RabitqIndex, Similarity
from pipeline.index.build import build_index
from pipeline.index.card import write_index
from pipeline.retrieve import neighbours
from pipeline.search import parts
from pipeline.search.nearest import nearest
from pipeline.vectors.lengths import to_index_form
from tests.helpers.artefacts import params, random_vectors, tie_heavy

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")
METRICS: tuple[Similarity, ...] = ("cosine", "l2")
"""One similarity of each of FAISS's metrics."""
KINDS = ("flat", "sq8", "hnsw", "ivf-flat", "ivf-pq", "rabitq", "eden", "pq-fastscan",
         "ivf-pq-fastscan")  # fmt: skip
FITTING = {"indexes.pq-fastscan.subvectors": 24, "indexes.ivf-pq-fastscan.subvectors": 24}


@pytest.mark.parametrize("similarity", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_among_some_products_the_nearest_are_those_of_an_index_of_them_alone(
    kind: str, similarity: Similarity
) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    products = random_vectors(rng, 400)
    settings = params(FITTING).indexes[kind]
    built = build_index(settings, products.shape[1], similarity, [products])
    allowed = rng.random(len(products)) < 0.3
    for query in random_vectors(rng, 5)[:, None]:
        query = to_index_form(query, similarity, "queries")
        scores, codes = nearest(built, query, 50, allowed)
        assert allowed[codes].all()
        # The whole ranking, cut down: of an approximate index too, no product is lost.
        if isinstance(built, faiss.IndexIVF):
            built.nprobe = built.nlist
        if isinstance(built, faiss.IndexHNSW):
            built = build_index(params().indexes["flat"], 48, similarity, [products])
        every, order = neighbours.search(built, query, len(products))
        kept = np.isin(order[0], np.flatnonzero(allowed))
        np.testing.assert_array_equal(codes, order[0][kept][:50])
        close = 1e-6 if kind == "hnsw" else 0  # its vectors are compared in float32
        np.testing.assert_allclose(scores, every[0][kept][:50], rtol=close)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_ties_are_in_the_order_of_ids_also_among_some_products(similarity: Similarity) -> None:
    rng = np.random.default_rng(5)
    products, query = tie_heavy(rng, 300), tie_heavy(rng, 1)
    built = build_index(params().indexes["flat"], 6, similarity, [products])
    allowed = rng.random(300) < 0.5
    scores, codes = nearest(built, to_index_form(query, similarity, ""), 40, allowed)
    pairs = list(zip(-scores, -codes, strict=True))
    assert pairs == sorted(pairs)
    assert len(codes) == 40
    for every in (None, np.ones(300, dtype=np.bool_)):
        found = nearest(built, to_index_form(query, similarity, ""), 300, every)
        np.testing.assert_array_equal(found[1][allowed[found[1]]][:40], codes)


@pytest.mark.parametrize("similarity", METRICS)
def test_threads_change_no_byte_of_one_query(
    similarity: Similarity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LEAST_ROWS", 1)
    rng = np.random.default_rng(7)
    products = np.concatenate([random_vectors(rng, 301), np.tile(tie_heavy(rng, 200), 8)])
    given = params(FITTING).indexes
    every = {kind: given[kind] for kind in KINDS}
    every["rabitq-1"] = RabitqIndex(kind="rabitq", bits=1)
    for kind, settings in every.items():
        built = build_index(settings, 48, similarity, [products])
        write_index(built, tmp_path / kind)
        mapped = [faiss.read_index(str(tmp_path / kind), faiss.IO_FLAG_MMAP_IFC) for _ in range(3)]
        searched = [parts.on_threads(mapped[threads - 1], threads) for threads in (1, 2, 3)]
        split = kind in ("sq8", "rabitq-1") or (kind == "flat" and similarity != "l2")
        assert [isinstance(each, parts.InParts) for each in searched] == [False, split, split]
        del mapped
        allowed = rng.random(len(products)) < 0.5
        for query in (random_vectors(rng, 1), products[400:401]):
            query = to_index_form(query, similarity, "")
            for depth in (1, 10, 100, 1000):
                for chosen in (None, allowed):
                    first = nearest(built, query, depth, chosen)
                    for each in searched:
                        for mine, whole in zip(
                            nearest(each, query, depth, chosen), first, strict=True
                        ):
                            assert mine.tobytes() == whole.tobytes()


def test_fewer_products_than_asked_for_are_all_found() -> None:
    rng = np.random.default_rng(6)
    products = random_vectors(rng, 60)
    built = build_index(params().indexes["hnsw"], 48, "cosine", [products])
    allowed = np.zeros(60, dtype=bool)
    allowed[[3, 59]] = True
    _, codes = nearest(built, to_index_form(random_vectors(rng, 1), "cosine", ""), 1000, allowed)
    assert sorted(codes) == [3, 59]
