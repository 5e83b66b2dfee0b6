"""Small artefacts of the back half of the pipeline, without an encoder: clean tables, shards."""

import copy
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ruamel.yaml import YAML

from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.contract import contract_of
from pipeline.core.files import sha256_file, write_json
from pipeline.core.params import Params
from pipeline.core.params_file import check_params
from pipeline.core.systems import FIRST_SYSTEMS, System
from pipeline.evaluate.fresh import made_now
from pipeline.hybrid.stage import FUSED
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs import ranking
from pipeline.runs.inputs import read_inputs
from pipeline.vectors.manifest import (
    MANIFEST_SCHEMA,
    Cut,
    Kind,
    Manifest,
    Shard,
    SideCut,
    Truncation,
    read_manifest,
    side_of,
)
from pipeline.vectors.shards import ShardWriter

ROOT = Path(__file__).parents[2]
LOCALE = "es"


@cache
def _shipped() -> Any:
    return YAML(typ="safe", pure=True).load(ROOT / "params.yaml")


def shipped() -> Any:
    """Return the shipped params.yaml as dicts and lists, free to be changed: parsing it is slow."""
    return copy.deepcopy(_shipped())


def params(changes: Mapping[str, Any] | None = None) -> Params:
    """Return the shipped params.yaml with some keys, given as dotted paths, set otherwise."""
    data = shipped()
    for path, value in (changes or {}).items():
        *parents, leaf = path.split(".")
        section = data
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    return check_params(data, "params.yaml")


def write_clean(rng: np.random.Generator, products: int, queries: int) -> pa.Table:
    """Write clean tables of `LOCALE` with random judgements; return the judgements."""
    folder = layout.clean(LOCALE).folder
    product_ids = sorted(f"B{i:07d}" for i in rng.choice(10**6, products, replace=False))
    query_ids = sorted(rng.choice(10**6, queries, replace=False).tolist())
    texts = [f"texto {i}" for i in range(products)]
    fields = params().clean.fields
    pairs = [
        (query, product_ids[code])
        for query in query_ids
        for code in rng.choice(products, rng.integers(1, max(2, min(12, products))), replace=False)
    ]
    pairs.sort()
    judgements = pa.table(
        {
            "query_id": [query for query, _ in pairs],
            "product_id": [product for _, product in pairs],
            "label": rng.choice(tables.LABELS, len(pairs)).tolist(),
        }
    )
    tables.write_table(
        folder / "products.parquet",
        pa.table(
            {
                "product_id": product_ids,
                "text": texts,
                # All of it is the first field's.
                "field_ends": [[len(text)] * len(fields) for text in texts],
            },
            tables.PRODUCTS,
        ),
        tables.PRODUCTS,
    )
    tables.write_table(
        folder / "queries.parquet",
        pa.table({"query_id": query_ids, "text": [f"consulta {i}" for i in range(queries)]}),
        tables.QUERIES,
    )
    tables.write_table(folder / "judgements.parquet", judgements, tables.JUDGEMENTS)
    write_json(folder / "counts.json", clean_counts())
    return judgements


def clean_counts() -> dict[str, Any]:
    """Return the content of a counts.json of clean, with one row of each kind."""
    one = {"in": 1, "out": 1}
    made = params().clean.model_dump(mode="json")
    return {"judgements": one, "products": {**one, **made}, "queries": one}


def write_runs(
    rng: np.random.Generator, depth: int, systems: Iterable[System] = FIRST_SYSTEMS
) -> None:
    """Write runs of `LOCALE` for some systems: random scores, many of them tied, some queries bare.

    Every system finds some judged products among the first, so that measures have something to say.
    The cards say that the runs are made of the shipped settings and of what is there; with dense
    runs come vectors.
    """
    inputs = read_inputs(LOCALE)
    products = len(inputs.products)
    if "dense" in systems:
        own = np.random.default_rng(1)
        of_products = random_vectors(own, products, dimension=4)
        write_embeddings(params(), of_products, random_vectors(own, len(inputs.queries), 4))
    manifest = read_manifest(params(), LOCALE)
    for system in systems:
        fused = run_card.read_cards(LOCALE, FUSED, inputs) if system == "hybrid" else {}
        of = made_now(system, params(), LOCALE, manifest, fused)
        with run_files.write_runs(LOCALE, system, of, depth, inputs) as (catalogue, pool):
            for row in range(len(inputs.queries)):
                judged = inputs.pair_products[inputs.pair_queries == row]
                if rng.random() > 0.05:
                    scores = rng.integers(0, 40, products) / 10
                    scores[judged[rng.random(len(judged)) < 0.7]] += 3
                    rows, codes, scores = ranking.rank_pairs(
                        np.full(products, row), np.arange(products), scores
                    )
                    catalogue.add(rows[:depth], codes[:depth], scores[:depth])
                scores = rng.integers(0, 9, len(judged)) / 8
                pool.add(*ranking.rank_pairs(np.full(len(judged), row), judged, scores))


def write_sources(sources: Mapping[int, str]) -> None:
    """Write ESCI's reason for each query of `LOCALE`, null where none is given."""
    path = layout.clean(LOCALE).queries
    ids = tables.read_table(path, tables.QUERIES, "")["query_id"].to_pylist()
    table = pa.table({"query_id": ids, "source": [sources.get(one) for one in ids]})
    path = layout.sample(LOCALE).sources
    tables.write_table(path, table.cast(tables.SAMPLE_SOURCES), tables.SAMPLE_SOURCES)


def write_embeddings(
    given: Params, products: Matrix, queries: Matrix, shard_rows: int = 100
) -> Manifest:
    """Write vectors for the clean tables of `LOCALE` as embed would."""
    folder = layout.embeddings(LOCALE).folder
    folder.mkdir(parents=True, exist_ok=True)
    clean = layout.clean(LOCALE).folder
    product_ids = tables.read_table(clean / "products.parquet", tables.PRODUCTS, "")["product_id"]
    query_ids = tables.read_table(clean / "queries.parquet", tables.QUERIES, "")["query_id"]

    settings = given.embed.model_copy(update={"shard_rows": shard_rows})

    def write(kind: Kind, matrix: Matrix) -> tuple[Shard, ...]:
        rows, dimension = matrix.shape
        writer = ShardWriter(folder, kind, rows, dimension, settings)
        writer.add(matrix)
        return writer.finish()

    def digest(kind: Kind) -> str:
        return sha256_file(layout.clean(LOCALE).side(kind))

    manifest = Manifest(
        manifest_schema=MANIFEST_SCHEMA,
        locale=LOCALE,
        encoder=given.encoder[LOCALE],
        contract=contract_of(given.encoder_of(LOCALE)),
        weights_sha256="0" * 64,
        engine="torch-cpu",
        dimension=products.shape[1],
        dtype=given.embed.dtype,
        truncation=Truncation(
            products=nothing_cut(len(products), given.clean.fields),
            queries=nothing_cut(len(queries), ["query"]),
        ),
        products=side_of(product_ids, digest("products"), write("products", products)),
        queries=side_of(query_ids, digest("queries"), write("queries", queries)),
    )
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    return manifest


def nothing_cut(texts: int, fields: Iterable[str]) -> SideCut:
    """Return what a manifest says of texts of one token each, none of them cut."""
    whole = {"texts_cut": 0, "tokens_cut": 0}
    cuts = {field: Cut(**whole) for field in fields}
    return SideCut(texts=texts, tokens=texts, fields=cuts, **whole)


def tie_heavy(rng: np.random.Generator, rows: int) -> Matrix:
    """Return vectors of -1, 0, 1 in six dimensions, none zero: many are equal."""
    matrix = rng.integers(-1, 2, (4 * rows, 6)).astype(np.float32)
    return np.ascontiguousarray(matrix[(matrix != 0).any(axis=1)][:rows])


def random_vectors(rng: np.random.Generator, rows: int, dimension: int = 48) -> Matrix:
    """Return normally distributed float32 vectors, [rows, dimension]."""
    return rng.standard_normal((rows, dimension), dtype=np.float32)
