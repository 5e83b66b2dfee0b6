"""The kinds of index: which vectors each can hold, and how FAISS makes an empty one."""

from typing import Any

import numpy as np

from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.params import (
    EdenIndex,
    FlatIndex,
    HnswIndex,
    Index,
    Ivf,
    IvfFlatIndex,
    IvfPqFastscanIndex,
    IvfPqIndex,
    PqFastscanIndex,
    RabitqIndex,
    Similarity,
    Sq8Index,
)
from pipeline.index.size import FAST_SCAN_BITS, FAST_SCAN_CENTROIDS, FastScan

TRAINING_SEED = 1234
"""Seed of the k-means of inverted lists and product quantisers, and of rotations."""

ROTATED_ROWS = 4_096
"""Vectors that are rotated at once, in float64."""

FAISS_CLASSES = {
    "rabitq": "IndexRaBitQ", "eden": "IndexEDEN",
    "pq-fastscan": "IndexPQFastScan", "ivf-pq-fastscan": "IndexIVFPQFastScan",
}  # fmt: skip
"""The classes of kinds that not every FAISS has."""


def check_fit(name: str, index: Index, rows: int, dimension: int) -> None:
    """Raise a `PipelineError` where an index of these settings cannot hold such vectors."""
    if (lacking := _lacking(index, dimension)) is not None:
        raise PipelineError(
            f"indexes.{name}.kind: {index.kind} needs {lacking}, which the installed faiss "
            f"{faiss.__version__} lacks. Install a newer faiss-cpu, or choose another kind."
        )
    if isinstance(index, Ivf) and index.lists > rows:
        raise PipelineError(
            f"indexes.{name}.lists must be at most {rows}, the number of products "
            f"(found {index.lists}). Use about {max(1, round(rows**0.5))}."
        )
    if isinstance(index, IvfPqIndex | FastScan) and dimension % index.subvectors:
        divisors = [n for n in range(1, dimension + 1) if dimension % n == 0]
        near = sorted(divisors, key=lambda n: abs(n - index.subvectors))[:3]
        raise PipelineError(
            f"indexes.{name}.subvectors must divide the dimension {dimension} (found "
            f"{index.subvectors}). Use {', '.join(map(str, sorted(near)))} or another divisor."
        )
    if isinstance(index, IvfPqIndex) and 2**index.bits > rows:
        raise PipelineError(
            f"indexes.{name}.bits: {index.bits} bits need {2**index.bits} products to train "
            f"on (found {rows}). Use at most {rows.bit_length() - 1} bits, or another index."
        )
    if isinstance(index, FastScan) and rows < FAST_SCAN_CENTROIDS:
        raise PipelineError(
            f"indexes.{name}: {index.kind} needs {FAST_SCAN_CENTROIDS} products to train on (found "
            f"{rows}). Use another index."
        )


def _lacking(index: Index, dimension: int) -> str | None:
    """Return what an index of these settings needs and FAISS lacks, or None."""
    needed = FAISS_CLASSES.get(index.kind)
    if needed is None:
        return None
    if not hasattr(faiss, needed):
        return needed
    if isinstance(index, RabitqIndex | EdenIndex):
        try:
            getattr(faiss, needed)(dimension, faiss.METRIC_INNER_PRODUCT, index.bits)
        except TypeError:  # the first IndexRaBitQ had one bit and no such argument
            return f"{needed} with `bits`"
    return None


def empty_index(index: Index, dimension: int, similarity: Similarity) -> faiss.Index:
    """Return an index of these settings, untrained and empty.

    Cosine and dot product search by inner product (cosine on unit vectors), l2 by squared distance.
    """
    metric = faiss.METRIC_L2 if similarity == "l2" else faiss.METRIC_INNER_PRODUCT
    match index:
        case FlatIndex():
            return faiss.IndexFlat(dimension, metric)
        case Sq8Index():
            return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, metric)
        case HnswIndex():
            graph = faiss.IndexHNSWFlat(dimension, index.m, metric)
            graph.hnsw.efConstruction = index.ef_construction
            set_search(graph, index)
            return graph
        case RabitqIndex():
            return faiss.IndexRaBitQ(dimension, metric, index.bits)
        case EdenIndex():
            return faiss.IndexEDEN(dimension, metric, index.bits)
        case PqFastscanIndex():
            codes = faiss.IndexPQFastScan(dimension, index.subvectors, FAST_SCAN_BITS, metric)
            return _seeded(codes, codes.pq.cp)
        case IvfFlatIndex():
            form = f"IVF{index.lists},Flat"
        case IvfPqIndex():
            # "np": no polysemous training, which takes minutes and is for a search we do not do.
            form = f"IVF{index.lists},PQ{index.subvectors}x{index.bits}np"
        case IvfPqFastscanIndex():
            form = f"IVF{index.lists},PQ{index.subvectors}x{FAST_SCAN_BITS}fs"
    built = faiss.index_factory(dimension, form, metric)
    lists: Any = faiss.downcast_index(built)
    set_search(built, index)
    return _seeded(
        built, *([lists.cp] if isinstance(index, IvfFlatIndex) else [lists.cp, lists.pq.cp])
    )


def set_search(built: faiss.Index, settings: Index) -> None:
    """Make an index search as its settings say."""
    whole: Any = faiss.downcast_index(built)
    match settings:
        case HnswIndex():
            whole.hnsw.efSearch = settings.ef_search
        case IvfFlatIndex() | IvfPqIndex() | IvfPqFastscanIndex():
            whole.nprobe = settings.probes


def unset_search(built: faiss.Index) -> None:
    """Make the bytes of an index the same for all ways to search it; it finds little afterwards."""
    whole: Any = faiss.downcast_index(built)
    if isinstance(whole, faiss.IndexHNSW):
        whole.hnsw.efSearch = 1
    if isinstance(whole, faiss.IndexIVF):
        whole.nprobe = 1


def _seeded(built: faiss.Index, *clusterings: Any) -> faiss.Index:
    """Fix the seeds of k-means; few products per list are a choice of params.yaml: no warning."""
    for clustering in clusterings:
        clustering.seed = TRAINING_SEED
        clustering.min_points_per_centroid = 1
    return built


def is_rotated(index: Index) -> bool:
    """Say whether an index of these settings holds codes of rotated vectors."""
    return isinstance(index, RabitqIndex | EdenIndex)


def rotation(dimension: int) -> Any:
    """Return a random rotation, by a fixed seed.

    RaBitQ and EDEN count on components of the same spread, which an encoder's are not. Its last
    bits depend on the number of threads of FAISS's BLAS.
    """
    turned = faiss.RandomRotationMatrix(dimension, dimension)
    turned.init(TRAINING_SEED)
    return turned


def rotate(rotated: Any, vectors: Matrix) -> Matrix:
    """Return vectors that are rotated by a FAISS rotation.

    FAISS does it in float32, with other last bits for other numbers of vectors and threads. In
    float64 nearly all of these are lost in the rounding: one of about 1e8 components keeps one.
    """
    matrix = faiss.vector_to_array(rotated.A).reshape(rotated.d_out, rotated.d_in)
    turn, out = matrix.T.astype(np.float64), np.empty_like(vectors)
    for start in range(0, len(vectors), ROTATED_ROWS):
        rows = slice(start, start + ROTATED_ROWS)
        out[rows] = vectors[rows].astype(np.float64) @ turn
    return out


def codes_of(index: Any, queries: Matrix) -> tuple[Any, Matrix]:
    """Return the index that holds the codes, and the queries as it compares them.

    Both are as they were, unless the index rotates vectors first.
    """
    if not isinstance(index, faiss.IndexPreTransform):
        return index, queries
    chain: Any = index.chain
    turn = faiss.downcast_VectorTransform(chain.at(0))
    return faiss.downcast_index(index.index), rotate(turn, queries)
