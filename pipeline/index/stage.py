"""Build one locale's FAISS index: data/embeddings/<locale> -> models/index/<locale>.

The same vectors and settings give the same bytes, for every kind, however the vectors are cut into
shards and however many threads there are:

    flat, sq8           by construction: a vector's code depends on it alone (sq8: and on each
                        component's least and greatest value)
    ivf-flat, ivf-pq    k-means is seeded, and runs on one thread; another kind of CPU, whose
                        sgemm rounds otherwise, may give other bytes
    hnsw                since it is built on one thread: on several, the graph depends on which of
                        them comes first
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from pipeline.core import files, layout, memory, stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory
from pipeline.core.mistakes import one_line
from pipeline.core.params import (
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
from pipeline.index import size as index_size
from pipeline.index.codes import Add, add_here, adds
from pipeline.vectors import vectors

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


def check_memory(params: Params, locale: str, rows: int, dimension: int) -> None:
    """Raise a `PipelineError` where building a locale's index would take more memory than allowed.

    It says which of the other indexes in params.yaml would do.
    """
    limit = memory.limit_bytes(params.runtime)
    chosen = params.index[locale]
    others = []
    for name, settings in params.indexes.items():
        needed = index_size.memory_bytes(settings, rows, dimension)
        if name == chosen or needed > limit:
            continue
        with suppress(PipelineError):
            check_fit(name, settings, rows, dimension)
            others.append(f"{name} ({memory.gigabytes(needed)})")
    remedy = (
        f"set index.{locale} to one that fits: {', '.join(others)}"
        if others
        else "no other index of params.yaml would fit: add one of kind ivf-pq of fewer subvectors"
    )
    memory.check(
        index_size.memory_bytes(params.indexes[chosen], rows, dimension),
        f"index.{locale}: building {chosen} of {rows} vectors of {dimension} components",
        params.runtime,
        remedy,
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
    rows: int | None = None,
    add: Add = add_here,
) -> faiss.Index:
    """Return an index that holds the vectors of all shards; row i has id i.

    The vectors are added `vectors.PIECE_ROWS` at a time, wherever shards end, so that the bytes of
    a graph do not depend on that. An inverted file is trained here and filled by `add`, which may
    use other machines; the others have nothing to compute that would be worth the way there, or
    cannot be built in parts (hnsw).

    Args:
        index: its settings.
        dimension: the vectors' components.
        similarity: what is compared.
        shards: float32, [any, dimension] each; gone through twice where the index is trained.
        rows: how many vectors they hold; counted, going through them once more, if left out.
        add: adds the vectors to an inverted file.
    """
    rows = sum(map(len, shards)) if rows is None else rows
    built = empty_index(index, dimension, similarity)
    threads = faiss.omp_get_max_threads()
    # Several: a graph depends on which of them is first, and no BLAS promises k-means its bits.
    faiss.omp_set_num_threads(1)
    try:
        if isinstance(index, Sq8Index):
            built.train(_extremes(_pieces(shards, similarity)))
        elif not built.is_trained:
            wanted = index_size.training_rows(index, rows)
            built.train(_sample(_pieces(shards, similarity), rows, wanted))
        _reserve(built, rows)
        if isinstance(index, IvfFlatIndex | IvfPqIndex):
            add(built, _pieces(shards, similarity))
        else:
            for piece in _pieces(shards, similarity):
                built.add(piece)
    finally:
        faiss.omp_set_num_threads(threads)
    return built


def _extremes(pieces: Iterable[vectors.Matrix]) -> vectors.Matrix:
    """Return each component's least and greatest value, [2, dimension]: all that sq8 learns."""
    ends = [(piece.min(axis=0), piece.max(axis=0)) for piece in pieces]
    least, greatest = zip(*ends, strict=True)
    return np.stack([np.min(least, axis=0), np.max(greatest, axis=0)])


def _sample(pieces: Iterable[vectors.Matrix], rows: int, wanted: int) -> vectors.Matrix:
    """Return `wanted` of all `rows` vectors, drawn by a fixed seed, in the order of their rows."""
    chosen = np.arange(rows)
    if wanted < rows:
        rng = np.random.default_rng(TRAINING_SEED)
        chosen = np.sort(rng.choice(rows, wanted, replace=False))
    sample, start = [], 0
    for piece in pieces:
        first, last = np.searchsorted(chosen, [start, start + len(piece)])
        sample.append(piece[chosen[first:last] - start])
        start += len(piece)
    return np.concatenate(sample)


def _pieces(shards: Iterable[vectors.Matrix], similarity: Similarity) -> Iterator[vectors.Matrix]:
    """Yield all vectors as they are compared, `vectors.PIECE_ROWS` of them, the rest at the end."""
    waiting: list[vectors.Matrix] = []
    held = done = 0

    def piece() -> vectors.Matrix:
        matrix = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        return as_searched(matrix, similarity, "products", done)

    for shard in shards:
        start = 0
        while start < len(shard):
            part = shard[start : start + vectors.PIECE_ROWS - held]
            waiting.append(part)
            start, held = start + len(part), held + len(part)
            if held == vectors.PIECE_ROWS:
                yield piece()
                waiting, held, done = [], 0, done + held
    if held:
        yield piece()


def _reserve(built: faiss.Index, rows: int) -> None:
    """Make room for all vectors at once; else FAISS doubles it, and holds the old and the new."""
    whole: Any = faiss.downcast_index(built)
    flat = whole
    if isinstance(whole, faiss.IndexHNSW):
        graph: Any = whole.hnsw
        _make_room(graph.neighbors, index_size.graph_links(graph.nb_neighbors(1), rows))
        _make_room(graph.offsets, rows + 1)
        _make_room(graph.levels, rows)
        flat = faiss.downcast_index(whole.storage)
    if isinstance(flat, faiss.IndexFlatCodes):
        _make_room(flat.codes, rows * flat.code_size)


def _make_room(array: Any, size: int) -> None:
    """Let one of FAISS's arrays have room for so much, and in it what it has."""
    held = array.size()
    array.resize(size)
    array.resize(held)


def as_searched(
    matrix: vectors.Matrix, similarity: Similarity, what: str, first_row: int = 0
) -> vectors.Matrix:
    """Return vectors in the form the index compares: at length 1 for cosine, else as they are.

    `what` they are and the number of the first are for the message where one has no length.
    """
    return vectors.unit(matrix, what, first_row) if similarity == "cosine" else matrix


def read_index(params: Params, locale: str, manifest: vectors.Manifest) -> faiss.Index:
    """Read a locale's index, mapped: pages come in as they are searched, and can go again.

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
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
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
    rows, dimension = manifest.products.rows, manifest.dimension
    check_fit(params.index[locale], settings, rows, dimension)
    check_memory(params, locale, rows, dimension)
    stored = vectors.Stored(manifest, "products", locale)
    built = build_index(settings, dimension, similarity, stored, rows, adds(params.runtime))
    with atomic_directory(layout.index(locale)) as out:
        _write(built, out / "index.faiss")
        digest = files.sha256_file(out / "index.faiss")
        card = _card(params, locale, manifest, index_sha256=digest)
        files.write_json(out / "index.json", card.model_dump(mode="json"))
        size = (out / "index.faiss").stat().st_size
    stage.did(
        params.index_way(locale), products=built.ntotal, dimension=built.d,
        **settings.model_dump(exclude={"kind"}),
    )  # fmt: skip
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
