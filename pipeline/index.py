"""Build one locale's FAISS index: data/embeddings/<locale> -> models/index/<locale>."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from pipeline import files, layout, stage, vectors
from pipeline.errors import PipelineError
from pipeline.files import atomic_directory
from pipeline.index_codes import Add, add_here, adds
from pipeline.mistakes import one_line
from pipeline.params import (
    FlatIndex,
    HnswIndex,
    Index,
    IvfFlatIndex,
    IvfPqIndex,
    Params,
    Similarity,
    Sq8Index,
    Strict,
)

SCHEMA = 1
"""Version of index.json; older artefacts are refused, and `dvc repro` rewrites them."""

TRAINING_SEED = 1234
"""Seed of the k-means behind the inverted lists and the product quantiser."""


class IndexCard(Strict):
    """What an index is and which vectors are in it: index.json beside index.faiss."""

    index_schema: int
    index: str
    settings: Index
    similarity: Similarity
    dimension: int
    rows: int
    ids_sha256: str
    vectors_sha256: str
    index_sha256: str


def check_fit(name: str, index: Index, rows: int, dimension: int) -> None:
    """Raise a `PipelineError` where an index of these settings cannot hold such vectors."""
    if isinstance(index, IvfFlatIndex | IvfPqIndex) and index.lists > rows:
        raise PipelineError(
            f"indexes.{name}.lists: {index.lists} lists are more than the {rows} products; "
            f"use {max(1, round(rows**0.5))} or so"
        )
    if isinstance(index, IvfPqIndex):
        if dimension % index.subvectors:
            divisors = [n for n in range(1, dimension + 1) if dimension % n == 0]
            near = sorted(divisors, key=lambda n: abs(n - index.subvectors))[:3]
            raise PipelineError(
                f"indexes.{name}.subvectors: {index.subvectors} does not divide the dimension "
                f"{dimension}; use {', '.join(map(str, sorted(near)))} or another divisor"
            )
        if 2**index.bits > rows:
            raise PipelineError(
                f"indexes.{name}.bits: {index.bits} bits need {2**index.bits} products to train "
                f"on, but there are {rows}; use {rows.bit_length() - 1} bits or fewer, or another "
                "index"
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
            # "np": no polysemous training, which takes minutes and serves a search we do not do.
            form = f"IVF{index.lists},PQ{index.subvectors}x{index.bits}np"
    built = faiss.index_factory(dimension, form, metric)
    lists: Any = faiss.downcast_index(built)
    lists.nprobe = index.probes
    # A fixed seed; and few products a list is a choice of params.yaml, not worth FAISS's warning.
    trained = [lists.cp, lists.pq.cp] if isinstance(index, IvfPqIndex) else [lists.cp]
    for clustering in trained:
        clustering.seed = TRAINING_SEED
        clustering.min_points_per_centroid = 1
    return built


def build_index(
    index: Index,
    dimension: int,
    similarity: Similarity,
    shards: Iterable[vectors.Matrix],
    add: Add = add_here,
) -> faiss.Index:
    """Return an index that holds the vectors of all shards; row i has id i.

    Built on one thread, since graphs built on several differ from run to run. An inverted file is
    trained here and filled by `add`, which may use other machines; the others have nothing to
    compute that would be worth the way there, or cannot be built in parts (hnsw).
    """
    built = empty_index(index, dimension, similarity)
    ready = (as_searched(shard, similarity, "products") for shard in shards)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        if built.is_trained:
            for shard in ready:
                built.add(shard)
        else:
            whole = np.concatenate(list(ready))
            built.train(whole)
            if isinstance(index, IvfFlatIndex | IvfPqIndex):
                add(built, [whole])
            else:
                built.add(whole)
    finally:
        faiss.omp_set_num_threads(threads)
    return built


def as_searched(matrix: vectors.Matrix, similarity: Similarity, what: str) -> vectors.Matrix:
    """Return vectors in the form the index compares: at length 1 for cosine, else as they are."""
    return vectors.unit(matrix, what) if similarity == "cosine" else matrix


def read_index(params: Params, locale: str, manifest: vectors.Manifest) -> faiss.Index:
    """Read a locale's index.

    Raises:
        PipelineError: it is missing, damaged, or was built from other vectors or settings.
    """
    folder, remedy = layout.index(locale), f"run `dvc repro index@{locale}`"
    data = files.read_json(folder / "index.json", remedy)
    expected = _card(params, locale, manifest, index_sha256="").model_dump(mode="json")
    for key in expected:
        if key == "index_sha256":
            continue
        found = data.get(key) if isinstance(data, dict) else None
        if found != expected[key]:
            raise PipelineError(
                f"{folder}/index.json: {key} is {found!r}, but the vectors and params say "
                f"{expected[key]!r}: the index was built from something else; {remedy}"
            )
    path = folder / "index.faiss"
    if not path.is_file():
        raise PipelineError(f"{path} is missing; {remedy}")
    if (found := files.sha256_file(path)) != data.get("index_sha256"):
        raise PipelineError(
            f"{path} has sha256 {found[:12]}, but index.json says "
            f"{str(data.get('index_sha256'))[:12]}: it was damaged or edited; {remedy}"
        )
    try:
        return faiss.read_index(str(path))
    except RuntimeError as err:
        raise PipelineError(f"{path} cannot be read ({one_line(err)}); {remedy}") from err


def serialised_bytes(built: faiss.Index) -> int:
    """Return how many bytes an index has on disk, without a second copy of it in memory."""
    sizes: list[int] = []

    def count(piece: bytes) -> int:
        sizes.append(len(piece))
        return len(piece)

    faiss.write_index(built, faiss.PyCallbackIOWriter(count))  # type: ignore[attr-defined]
    return sum(sizes)


def index(params: Params, locale: str) -> None:
    """Build a locale's index from its product vectors."""
    manifest = vectors.read_manifest(params, locale)
    settings, similarity = params.index_of(locale), params.encoder_of(locale).similarity
    check_fit(params.index[locale], settings, manifest.products.rows, manifest.dimension)
    shards = vectors.iter_vectors(manifest, "products", locale)
    add = adds(params.runtime)
    built = build_index(settings, manifest.dimension, similarity, shards, add)
    with atomic_directory(layout.index(locale)) as out:
        _write(built, out / "index.faiss")
        digest = files.sha256_file(out / "index.faiss")
        card = _card(params, locale, manifest, index_sha256=digest)
        files.write_json(out / "index.json", card.model_dump(mode="json"))
        size = (out / "index.faiss").stat().st_size
    stage.log.info(
        "index locale=%s index=%s products=%d bytes_a_vector=%.0f",
        locale, params.index[locale], built.ntotal, size / built.ntotal,
    )  # fmt: skip


def _write(built: faiss.Index, path: Path) -> None:
    # Through Python's own file: FAISS's only prints when the last bytes do not go out.
    with path.open("wb") as handle:
        faiss.write_index(built, faiss.PyCallbackIOWriter(handle.write))  # type: ignore[attr-defined]


def _card(
    params: Params, locale: str, manifest: vectors.Manifest, *, index_sha256: str
) -> IndexCard:
    return IndexCard(
        index_schema=SCHEMA,
        index=params.index[locale],
        settings=params.index_of(locale),
        similarity=params.encoder_of(locale).similarity,
        dimension=manifest.dimension,
        rows=manifest.products.rows,
        ids_sha256=manifest.products.ids_sha256,
        vectors_sha256=manifest.products.sha256(),
        index_sha256=index_sha256,
    )


if __name__ == "__main__":
    sys.exit(stage.run_locales("index", index))
