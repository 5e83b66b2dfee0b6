"""Build one locale's FAISS index: data/embeddings/<locale> -> models/index/<locale>.

The same vectors and settings give the same bytes, for every kind, however the vectors are cut into
shards and however many threads there are:

    flat, sq8           a vector's code depends on it alone (sq8: and on each component's least and
                        greatest value)
    rabitq, eden        and on the mean of all vectors, and on a seeded rotation
    ivf-*, pq-fastscan  k-means is seeded and runs on one thread; another kind of CPU, whose sgemm
                        rounds differently, may give other bytes
    hnsw                all threads build it where FAISS gives the same graph with any number of
                        them, else one
"""

from contextlib import suppress

from pipeline.core import files, layout, memory, stage
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.files import atomic_directory
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.index import size as index_size
from pipeline.index.build import build_index
from pipeline.index.card import make_card, write_index
from pipeline.index.codes import adder_for
from pipeline.index.kinds import check_fit
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import ShardReader


def check_memory(params: Params, locale: str, rows: int, dimension: int) -> None:
    """Raise a `PipelineError` where building a locale's index would take more memory than allowed.

    It names the other indexes in params.yaml that would fit.
    """
    limit, threads = memory.limit_bytes(params.runtime), params.runtime.thread_count()
    chosen = params.index[locale]
    others = []
    for name, settings in params.indexes.items():
        needed = index_size.memory_bytes(settings, rows, dimension, threads)
        if name == chosen or needed > limit:
            continue
        with suppress(PipelineError):
            check_fit(name, settings, rows, dimension)
            others.append(f"{name} ({memory.gigabytes(needed)})")
    remedy = (
        f"set index.{locale} to one that fits: {', '.join(others)}"
        if others
        else "no other index of params.yaml would fit: add one of kind pq-fastscan"
    )
    memory.check(
        index_size.memory_bytes(params.indexes[chosen], rows, dimension, threads),
        f"index.{locale}: building {chosen} of {rows} vectors of {dimension} components",
        params.runtime,
        remedy,
    )


def index(params: Params, locale: str) -> stage.Done:
    """Build a locale's index from its product vectors."""
    manifest = read_manifest(params, locale)
    settings, similarity = params.index_of(locale), params.encoder_of(locale).similarity
    rows, dimension = manifest.products.rows, manifest.dimension
    check_fit(params.index[locale], settings, rows, dimension)
    check_memory(params, locale, rows, dimension)
    stored = ShardReader(manifest, "products", locale)
    faiss.omp_set_num_threads(params.runtime.thread_count())
    built = build_index(settings, dimension, similarity, stored, rows, adder_for(params.runtime))
    with atomic_directory(layout.index(locale).folder) as folder:
        out = layout.IndexFiles(folder)
        write_index(built, out.index)
        digest = files.sha256_file(out.index)
        card = make_card(params, locale, manifest, index_sha256=digest)
        files.write_json(out.card, card.model_dump(mode="json"))
        size = out.index.stat().st_size
    log.info(
        "index locale=%s index=%s products=%d bytes_a_vector=%.0f",
        locale, params.index[locale], built.ntotal, size / built.ntotal,
    )  # fmt: skip
    return stage.Done(
        params.index_way(locale),
        products=built.ntotal,
        dimension=built.d,
        threads=params.runtime.thread_count(),
        **settings.model_dump(exclude={"kind"}),
    )
