"""How all stages after embed are measured at scale.

The tables are those of `bench.full_size`. Vectors and runs are made up: encoding 1.8 million
products takes hours, and only the recall of ivf-pq depends on their values. The vectors are a
mixture: a centre for every 200 products, and around it noise of the same falling spectrum in a
random basis, 384 components, at length 1, as encoders' vectors are.

index, retrieve and bm25 are measured on us, with its test queries: 22,458 in all of ESCI; the
others on all queries of all locales.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.measure import Figures, Measure, cpu_seconds, run_locales
from bench.memory import watched
from bench.project import Settings, read_settings
from bench.scale_data import need_clean, need_embed
from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix, blocks
from pipeline.core.contract import contract_of
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.files import read_json, sha256_file, write_json
from pipeline.core.params import Params
from pipeline.core.params_file import PARAMS_FILE, check_params, load_params
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.encoder_scores.stage import encoder_scores
from pipeline.evaluate import system_scores
from pipeline.evaluate.fresh import made_now
from pipeline.evaluate.stage import evaluate
from pipeline.hybrid.stage import hybrid
from pipeline.index import size as index_size
from pipeline.index.card import read_index
from pipeline.index.stage import index
from pipeline.retrieve.stage import retrieve
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs import ranking
from pipeline.runs.files import QUERIES_A_PIECE
from pipeline.runs.inputs import Inputs, read_inputs
from pipeline.vectors.lengths import at_unit_length
from pipeline.vectors.manifest import (
    MANIFEST_SCHEMA,
    Kind,
    Manifest,
    Truncation,
    read_manifest,
    side_of,
)
from pipeline.vectors.shards import PIECE_ROWS, ShardWriter, read_vectors

LOCALE = "us"
SEARCH = Path("search")
"""Where index and retrieve are measured, in the project folder: another project, of one locale."""

DIMENSION = 384
PRODUCTS_A_CENTRE = 200
NOISE = 0.8
SEED = 31

INDEXES: dict[str, dict[str, Any]] = {
    "flat": {"kind": "flat"},
    "sq8": {"kind": "sq8"},
    "pq-fastscan": {"kind": "pq-fastscan", "subvectors": 192, "rescore": 4},
    "rabitq": {"kind": "rabitq", "bits": 2, "rescore": 4},
    "ivf-pq": {"kind": "ivf-pq", "lists": 1024, "probes": 64, "subvectors": 48, "bits": 8},
    "ivf-pq-fastscan": {
        "kind": "ivf-pq-fastscan", "lists": 1024, "probes": 128, "subvectors": 192, "rescore": 2,
    },
    "ivf-pq-fine": {"kind": "ivf-pq", "lists": 1024, "probes": 64, "subvectors": 96, "bits": 8},
}  # fmt: skip
"""The indexes that are measured."""


def params_with(name: str, indexes: dict[str, dict[str, Any]] = INDEXES) -> Params:
    """Return the settings of the project with these indexes, of which all locales have one."""
    return check_params(with_index(name, indexes), str(PARAMS_FILE))


def with_index(name: str, indexes: Mapping[str, Any]) -> Settings:
    """Return the project's params.yaml with these indexes, of which all locales have one."""
    settings = read_settings()
    return settings | {"indexes": indexes, "index": dict.fromkeys(settings["index"], name)}


class Mixture:
    """Vectors as an encoder might give them, any number of them, piece by piece."""

    def __init__(self, centres: int) -> None:
        """Draw the centres."""
        rng = np.random.default_rng(SEED)
        basis, _ = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))
        spectrum = np.arange(1, DIMENSION + 1) ** -0.5
        self._colour = (spectrum[:, np.newaxis] * basis).astype(np.float32)
        self._centres = self._drawn(rng, centres)

    def _drawn(self, rng: np.random.Generator, rows: int) -> Matrix:
        drawn: Matrix = rng.standard_normal((rows, DIMENSION), dtype=np.float32)
        return np.asarray(drawn @ self._colour)

    def pieces(self, rows: int, seed: int) -> Iterator[Matrix]:
        """Yield `rows` vectors at length 1."""
        for piece in blocks(range(rows), PIECE_ROWS):
            rng = np.random.default_rng([SEED, seed, piece.start])
            centre = rng.integers(len(self._centres), size=len(piece))
            noise = NOISE * self._drawn(rng, len(piece))
            yield at_unit_length(self._centres[centre] + noise, "made up")


def need_vectors(products: int) -> None:
    """Make the project `SEARCH`: one locale with its test queries, and vectors for its tables.

    What is there stays, but for the settings, which are always those of now.
    """
    if (SEARCH / layout.embeddings(LOCALE).manifest).exists():
        shutil.copy(PARAMS_FILE, SEARCH)
        return
    need_clean(products)
    clean, target = layout.clean(LOCALE).folder, SEARCH / layout.clean(LOCALE).folder
    shutil.rmtree(SEARCH, ignore_errors=True)
    target.mkdir(parents=True)
    sampled = tables.read_table(
        layout.sample(LOCALE).queries, tables.SAMPLE_QUERIES, "sample again"
    )
    test = sampled.filter(pc.equal(sampled["split"], "test"))["query_id"]
    for name, schema in (("queries", tables.QUERIES), ("judgements", tables.JUDGEMENTS)):
        table = tables.read_table(clean / f"{name}.parquet", schema, "clean again")
        table = table.filter(pc.is_in(table["query_id"], value_set=test.combine_chunks()))
        tables.write_table(target / f"{name}.parquet", table, schema)
    (target / "products.parquet").symlink_to((clean / "products.parquet").resolve())
    shutil.copy(PARAMS_FILE, SEARCH)
    with contextlib.chdir(SEARCH):
        _write_vectors(load_params())


def _write_vectors(params: Params) -> None:
    folder, clean = layout.embeddings(LOCALE).folder, layout.clean(LOCALE)
    folder.mkdir(parents=True)
    found: dict[str, Any] = {}
    of: list[tuple[Kind, pa.Schema, str]] = [
        ("products", tables.PRODUCTS, "product_id"),
        ("queries", tables.QUERIES, "query_id"),
    ]
    mixture = None
    for seed, (kind, schema, column) in enumerate(of):
        ids = tables.read_column(clean.side(kind), schema, column, "clean again")
        mixture = mixture or Mixture(max(1, len(ids) // PRODUCTS_A_CENTRE))
        writer = ShardWriter(folder, kind, len(ids), DIMENSION, params.embed)
        for piece in mixture.pieces(len(ids), seed):
            writer.add(piece)
        found[kind] = side_of(ids, sha256_file(clean.side(kind)), writer.finish())
    write_manifest(folder / "manifest.json", params, found)


def write_manifest(path: Path, params: Params, sides: dict[str, Any]) -> None:
    """Write the manifest of made-up vectors, of which nothing was cut off."""
    none = {"texts_cut": 0, "tokens_cut": 0}
    cuts = {
        kind: {"texts": side.rows, "tokens": side.rows, "fields": {"all": none}, **none}
        for kind, side in sides.items()
    }
    manifest = Manifest(
        manifest_schema=MANIFEST_SCHEMA,
        locale=LOCALE,
        encoder=params.encoder[LOCALE],
        contract=contract_of(params.encoder_of(LOCALE)),
        weights_sha256="0" * 64,
        engine="made-up",
        dimension=DIMENSION,
        dtype=params.embed.dtype,
        truncation=Truncation.model_validate(cuts),
        **sides,
    )
    write_json(path, manifest.model_dump(mode="json"))


def measure_index(name: str, products: int) -> Figures:
    """Build an index of `INDEXES`."""
    with contextlib.chdir(SEARCH):
        params = params_with(name)
        index(params, LOCALE)
        manifest = read_manifest(params, LOCALE)
        rows, settings = manifest.products.rows, params.index_of(LOCALE)
        size = layout.index(LOCALE).index.stat().st_size
    return {
        "vectors": rows,
        "bytes_a_vector": round(size / rows, 1),
        "bytes": size,
        "bytes_predicted": index_size.disk_bytes(settings, rows, DIMENSION),
        "peak_bytes_predicted": index_size.memory_bytes(
            settings, rows, DIMENSION, params.runtime.thread_count()
        ),
    }


def need_index(name: str, products: int) -> None:
    """Build an index of `INDEXES`, unless it is the one that is there."""
    need_vectors(products)
    with contextlib.chdir(SEARCH):
        params = params_with(name)
        try:
            read_index(params, LOCALE, read_manifest(params, LOCALE))
        except PipelineError:
            index(params, LOCALE)


def measure_retrieve(name: str, products: int) -> Figures:
    """Search as the stage does; then, where the index is exact, by one bare call of FAISS.

    `seconds` and `stage_peak_*` are the stage's alone.
    """
    with contextlib.chdir(SEARCH):
        params = params_with(name)
        started, busy = time.monotonic(), time.process_time()
        with watched(os.getpid()) as peak:
            retrieve(params, LOCALE)
        seconds, busy = time.monotonic() - started, time.process_time() - busy
        card = read_json(layout.runs("dense", LOCALE).card, "")
        queries = read_vectors(read_manifest(params, LOCALE), "queries", LOCALE)
        figures = {
            "seconds": seconds,
            "cpu_seconds": round(busy, 2),
            "queries": len(queries),
            "stage_peak_bytes": peak.resident,
            "stage_peak_private_bytes": peak.private,
            run_card.INDEX_OVERLAP: card["index_overlap"],
        }
        if name == "flat":
            bare = faiss.read_index(str(layout.index(LOCALE).index))
            started, busy = time.monotonic(), time.process_time()
            bare.search(queries, params.retrieve.depth)
            figures["bare_cpu_seconds"] = round(time.process_time() - busy, 2)
            figures["bare_seconds"] = round(time.monotonic() - started, 2)
            figures["ratio"] = round(seconds / figures["bare_seconds"], 3)
    return figures


def measure_bm25(products: int) -> Figures:
    """Index the words of the products, and search for the queries."""
    # Here, lest all that it imports count as the memory of every stage.
    from pipeline.bm25.stage import bm25

    with contextlib.chdir(SEARCH):
        bm25(load_params(), LOCALE)
        return {"queries": len(read_inputs(LOCALE).queries)}


def measure_hybrid(products: int) -> Figures:
    """Fuse the runs of all locales, one after the other."""
    return _counts(run_locales(hybrid))


def measure_report(products: int) -> Figures:
    """Write the page, the table and the summary of all locales."""
    from pipeline.report.stage import report

    report(load_params())
    return {"page_bytes": layout.PAGE.stat().st_size}


def need_reports(products: int) -> None:
    """Encode and evaluate, as far as that is not done."""
    need_runs(products)
    params = load_params()
    for locale in params.locales:
        if not layout.per_query(locale).exists():
            evaluate(params, locale)
        if not layout.encoder_scores(locale).exists():
            encoder_scores(params, locale)


def need_runs(products: int) -> None:
    """Encode, and write runs of every system and locale, for all queries of the source."""
    need_embed(products)
    params = load_params()
    depth = params.retrieve.depth
    for locale in params.locales:
        if layout.runs("hybrid", locale).card.exists():
            continue
        inputs, manifest = read_inputs(locale), read_manifest(params, locale)
        cards: dict[str, run_card.RunCard] = {}
        for seed, system in enumerate(FIRST_SYSTEMS):
            of = made_now(system, params, locale, manifest, cards)
            with run_files.write_runs(locale, system, of, depth, inputs) as (catalogue, pool):
                for found, judged in random_runs(inputs, depth, seed):
                    catalogue.add(*found)
                    pool.add(*judged)
            cards |= run_card.read_cards(locale, [system], inputs)


def random_runs(
    inputs: Inputs, depth: int, seed: int
) -> Iterator[tuple[ranking.Ranked, ranking.Ranked]]:
    """Yield the catalogue run and the pool run of some queries at a time.

    A query's judged products are found, most of them, and early; the others come by a stride.
    """
    products = len(inputs.products)
    for start in range(0, len(inputs.queries), QUERIES_A_PIECE):
        rng = np.random.default_rng([SEED, seed, start])
        queries = np.arange(start, min(start + QUERIES_A_PIECE, len(inputs.queries)))
        part = slice(*np.searchsorted(inputs.pair_queries, [start, queries[-1] + 1]))
        judged = inputs.pair_queries[part], inputs.pair_products[part]
        strides = rng.integers(1, products, len(queries))
        strides[np.gcd(strides, products) > 1] = 1
        first = rng.integers(products, size=len(queries))
        codes = first[:, np.newaxis] + strides[:, np.newaxis] * np.arange(depth)
        found = np.unique(
            np.concatenate(
                [
                    (queries[:, np.newaxis] * products + codes % products).ravel(),
                    (judged[0] * products + judged[1])[rng.random(len(judged[0])) < 0.8],
                ]
            )
        )
        rows, columns = np.divmod(found, products)
        scores = rng.random(len(found))
        scores[np.isin(found, judged[0] * products + judged[1])] **= 0.02
        ranked = ranking.rank_pairs(rows, columns, scores)
        inside = np.arange(len(rows)) - np.searchsorted(ranked[0], ranked[0]) < depth
        catalogue = ranked[0][inside], ranked[1][inside], ranked[2][inside]
        yield catalogue, ranking.rank_pairs(*judged, rng.random(len(judged[0])))


def measure_evaluate(products: int) -> Figures:
    """Evaluate `FIRST_SYSTEMS`, and write every report, of all locales, one after the other."""
    return _counts(run_locales(evaluate))


def measure_score(products: int) -> Figures:
    """Evaluate one system, each query of all locales: what is in memory at the end."""
    params = load_params()
    for locale in params.locales:
        judged = system_scores.read_judged(locale)
        system_scores.score("dense", locale, judged, params.evaluate, params.retrieve.depth)
    return _counts(params)


def _counts(params: Params) -> Figures:
    queries = (
        tables.read_column(layout.clean(locale).queries, tables.QUERIES, "query_id", "clean again")
        for locale in params.locales
    )
    return {"queries": sum(map(len, queries)), "depth": params.retrieve.depth}


def _need_vectors_alone(products: int) -> None:
    """Bring the vectors, and let no earlier run of the same build help."""
    need_vectors(products)
    shutil.rmtree(SEARCH / layout.index(LOCALE).folder, ignore_errors=True)


def forget_postings(products: int) -> None:
    """Bring the vectors, and let no terms that an earlier run counted help."""
    need_vectors(products)
    shutil.rmtree(layout.postings(LOCALE).folder.parent, ignore_errors=True)


def _timed(run: Callable[[int], Figures], products: int) -> Figures:
    """Measure; CPU seconds too, to which other work on the machine adds less."""
    started = cpu_seconds()
    figures = run(products)
    return {"cpu_seconds": round(cpu_seconds() - started, 2), **figures}


MEASURES = {
    **{
        f"index ({name})": Measure(
            partial(_timed, partial(measure_index, name)), _need_vectors_alone
        )
        for name in INDEXES
    },
    **{
        f"retrieve ({name})": Measure(
            partial(_timed, partial(measure_retrieve, name)), partial(need_index, name)
        )
        for name in INDEXES
    },
    "bm25": Measure(partial(_timed, measure_bm25), forget_postings),
    "hybrid": Measure(partial(_timed, measure_hybrid), need_runs),
    "evaluate (one system)": Measure(partial(_timed, measure_score), need_runs),
    "evaluate": Measure(partial(_timed, measure_evaluate), need_runs),
    "report": Measure(partial(_timed, measure_report), need_reports),
}
