"""The kinds of index: which vectors each can hold, and how FAISS makes an empty one."""

from typing import Any

import faiss

from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import (
    FlatIndex,
    HnswIndex,
    Index,
    IvfFlatIndex,
    IvfPqIndex,
    Similarity,
    Sq8Index,
)
from pipeline.vectors.lengths import at_unit_length

TRAINING_SEED = 1234
"""Seed of the k-means of inverted lists and product quantisers."""


def check_fit(name: str, index: Index, rows: int, dimension: int) -> None:
    """Raise a `PipelineError` where an index of these settings cannot hold such vectors."""
    if isinstance(index, IvfFlatIndex | IvfPqIndex) and index.lists > rows:
        raise PipelineError(
            f"indexes.{name}.lists must be at most {rows}, the number of products "
            f"(found {index.lists}). Use about {max(1, round(rows**0.5))}."
        )
    if isinstance(index, IvfPqIndex):
        if dimension % index.subvectors:
            divisors = [n for n in range(1, dimension + 1) if dimension % n == 0]
            near = sorted(divisors, key=lambda n: abs(n - index.subvectors))[:3]
            raise PipelineError(
                f"indexes.{name}.subvectors must divide the dimension {dimension} (found "
                f"{index.subvectors}). Use {', '.join(map(str, sorted(near)))} or another divisor."
            )
        if 2**index.bits > rows:
            raise PipelineError(
                f"indexes.{name}.bits: {index.bits} bits need {2**index.bits} products to train "
                f"on (found {rows}). Use at most {rows.bit_length() - 1} bits, or another index."
            )


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
            graph.hnsw.efSearch = index.ef_search
            return graph
        case IvfFlatIndex():
            form = f"IVF{index.lists},Flat"
        case IvfPqIndex():
            # "np": no polysemous training, which takes minutes and is for a search we do not do.
            form = f"IVF{index.lists},PQ{index.subvectors}x{index.bits}np"
    built = faiss.index_factory(dimension, form, metric)
    lists: Any = faiss.downcast_index(built)
    lists.nprobe = index.probes
    # A fixed seed. Few products per list is a choice of params.yaml: FAISS need not warn.
    trained = [lists.cp, lists.pq.cp] if isinstance(index, IvfPqIndex) else [lists.cp]
    for clustering in trained:
        clustering.seed = TRAINING_SEED
        clustering.min_points_per_centroid = 1
    return built


def to_index_form(matrix: Matrix, similarity: Similarity, what: str, first_row: int = 0) -> Matrix:
    """Return vectors in the form the index compares: at length 1 for cosine, else as they are.

    `what` they are and the number of the first are for the message about one without a length.
    """
    return at_unit_length(matrix, what, first_row) if similarity == "cosine" else matrix
