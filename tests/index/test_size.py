"""What an index is predicted to take is what FAISS writes."""

import numpy as np
import pytest

from pipeline.core import memory
from pipeline.core.faiss import faiss
from pipeline.core.params import (
    EdenIndex,
    FlatIndex,
    HnswIndex,
    Index,
    IvfFlatIndex,
    IvfPqFastscanIndex,
    IvfPqIndex,
    PqFastscanIndex,
    RabitqIndex,
    Sq8Index,
)
from pipeline.index.build import build_index
from pipeline.index.size import disk_bytes, memory_bytes, training_rows
from tests.helpers.artefacts import random_vectors
from tests.helpers.peaks import numbers_told

KINDS: list[Index] = [
    FlatIndex(kind="flat"),
    Sq8Index(kind="sq8"),
    HnswIndex(kind="hnsw", m=4, ef_construction=10, ef_search=10),
    HnswIndex(kind="hnsw", m=32, ef_construction=10, ef_search=10),
    IvfFlatIndex(kind="ivf-flat", lists=30, probes=1),
    IvfPqIndex(kind="ivf-pq", lists=16, probes=1, subvectors=8, bits=6),
    IvfPqIndex(kind="ivf-pq", lists=3, probes=1, subvectors=6, bits=5),
    *(RabitqIndex(kind="rabitq", bits=bits) for bits in (1, 2, 5)),
    *(EdenIndex(kind="eden", bits=bits) for bits in (1, 3)),
    *(PqFastscanIndex(kind="pq-fastscan", subvectors=each) for each in (3, 24)),
    IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=9, probes=1, subvectors=8),
    IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=3, probes=1, subvectors=3),
]


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.kind)
def test_the_predicted_size_is_that_of_the_file_to_two_hundredths(settings: Index) -> None:
    rng = np.random.default_rng(4)
    for _ in range(2):
        rows, dimension = int(rng.integers(800, 3000)), 24 * int(rng.integers(1, 5))
        products = random_vectors(rng, rows, dimension)
        real = faiss.serialize_index(build_index(settings, dimension, "cosine", [products])).size
        assert disk_bytes(settings, rows, dimension) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.kind)
def test_building_takes_more_than_the_index_and_grows_with_it(settings: Index) -> None:
    sizes = [memory_bytes(settings, rows, 384, 2) for rows in (10**4, 10**5, 10**6, 10**7)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert sizes[0] > disk_bytes(settings, 10**4, 384)
    assert sizes[-1] > disk_bytes(settings, 10**7, 384)


BUILD = """
import sys
from pipeline.core.faiss import faiss
import numpy as np
from pydantic import TypeAdapter
from pipeline.index.build import build_index
from pipeline.core.params import Index
settings = TypeAdapter(Index).validate_json(sys.argv[1])
rows, dimension = int(sys.argv[2]), int(sys.argv[3])
shard = np.random.default_rng(1).standard_normal((16_384, dimension), dtype=np.float32)
build_index(settings, dimension, "cosine", [shard], len(shard))  # loads what there is to load
before = held("VmRSS")
shards = [shard] * (rows // len(shard)) + [shard[: rows % len(shard)]]
build_index(settings, dimension, "cosine", shards, rows)
print(held("VmHWM") - before, faiss.omp_get_max_threads())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "rows", "dimension"),
    [
        # Just past a power of two: what doubles its room has just been copied.
        (FlatIndex(kind="flat"), 2**19 + 2_000, 16),
        (Sq8Index(kind="sq8"), 2**20 + 2_000, 16),
        (HnswIndex(kind="hnsw", m=64, ef_construction=4, ef_search=4), 2**16 + 500, 4),
        (IvfFlatIndex(kind="ivf-flat", lists=1, probes=1), 2**18 + 2_000, 16),
        (IvfPqIndex(kind="ivf-pq", lists=1, probes=1, subvectors=4, bits=4), 2**20 + 9_000, 4),
        (RabitqIndex(kind="rabitq", bits=2), 2**20 + 2_000, 16),
        (PqFastscanIndex(kind="pq-fastscan", subvectors=16), 2**21 + 2_000, 16),
        (
            IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=1, probes=1, subvectors=4),
            2**20 + 9_000,
            4,
        ),
        *(
            pytest.param(*more, marks=pytest.mark.thorough)
            for more in (
                (HnswIndex(kind="hnsw", m=32, ef_construction=100, ef_search=4), 2**18 + 500, 4),
                (HnswIndex(kind="hnsw", m=2, ef_construction=2, ef_search=4), 2**18 + 2_000, 2),
                (HnswIndex(kind="hnsw", m=256, ef_construction=2, ef_search=4), 2**15 + 300, 2),
                (IvfFlatIndex(kind="ivf-flat", lists=4, probes=1), 2**18 + 2_000, 64),
            )
        ),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_building_takes_no_more_memory_than_predicted(
    settings: Index, rows: int, dimension: int
) -> None:
    taken, threads = numbers_told(BUILD, settings.model_dump_json(), str(rows), str(dimension))
    predicted = memory_bytes(settings, rows, dimension, threads)
    assert taken <= predicted - memory.PROCESS_BYTES


def test_each_thread_that_builds_a_graph_has_a_table_of_the_nodes() -> None:
    graph = HnswIndex(kind="hnsw", m=4, ef_construction=10, ef_search=10)
    few, many = (memory_bytes(graph, 10**6, 8, threads) for threads in (2, 128))
    assert many - few == 126 * 10**6


def test_k_means_is_given_256_vectors_a_centroid_or_all_there_are() -> None:
    lists = IvfFlatIndex(kind="ivf-flat", lists=100, probes=1)
    coded = IvfPqIndex(kind="ivf-pq", lists=100, probes=1, subvectors=8, bits=9)
    assert training_rows(lists, 10**6) == 25_600
    assert training_rows(coded, 10**6) == 512 * 256
    assert training_rows(coded, 1_000) == 1_000
    assert training_rows(FlatIndex(kind="flat"), 10**6) == 0
