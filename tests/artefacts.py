"""Small artefacts of the back half of the pipeline, without an encoder: clean tables, shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ruamel.yaml import YAML

from pipeline import layout, tables, vectors
from pipeline.files import write_json
from pipeline.params import Params, check_params

ROOT = Path(__file__).parent.parent
LOCALE = "es"


def params(changes: Mapping[str, Any] | None = None) -> Params:
    """Return the shipped params.yaml with some keys, given as dotted paths, set otherwise."""
    data = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    for path, value in (changes or {}).items():
        *parents, leaf = path.split(".")
        section = data
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    return check_params(data, "params.yaml")


def write_clean(rng: np.random.Generator, products: int, queries: int) -> pa.Table:
    """Write clean tables of `LOCALE` with random judgements; return the judgements."""
    folder = layout.clean(LOCALE)
    product_ids = sorted(f"B{i:07d}" for i in rng.choice(10**6, products, replace=False))
    query_ids = sorted(rng.choice(10**6, queries, replace=False).tolist())
    texts = [f"texto {i}" for i in range(products)]
    pairs = [
        (query, product_ids[code])
        for query in query_ids
        for code in rng.choice(products, rng.integers(1, min(12, products)), replace=False)
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
        pa.table({"product_id": product_ids, "text": texts}),
        tables.PRODUCTS,
    )
    tables.write_table(
        folder / "queries.parquet",
        pa.table({"query_id": query_ids, "text": [f"consulta {i}" for i in range(queries)]}),
        tables.QUERIES,
    )
    tables.write_table(folder / "judgements.parquet", judgements, tables.JUDGEMENTS)
    counts = {name: {"in": 1, "out": 1} for name in ("judgements", "products", "queries")}
    write_json(folder / "counts.json", counts)
    return judgements


def write_embeddings(
    given: Params, products: vectors.Matrix, queries: vectors.Matrix, shard_rows: int = 100
) -> vectors.Manifest:
    """Write vectors for the clean tables of `LOCALE` as embed would."""
    folder = layout.embeddings(LOCALE)
    folder.mkdir(parents=True, exist_ok=True)
    clean = layout.clean(LOCALE)
    product_ids = tables.read_table(clean / "products.parquet", tables.PRODUCTS, "")["product_id"]
    query_ids = tables.read_table(clean / "queries.parquet", tables.QUERIES, "")["query_id"]

    def write(kind: vectors.Kind, matrix: vectors.Matrix) -> tuple[vectors.Shard, ...]:
        return tuple(
            vectors.write_shard(folder, kind, number, matrix[start:stop], given.embed.dtype)
            for number, (start, stop) in enumerate(vectors.shard_bounds(len(matrix), shard_rows))
        )

    manifest = vectors.Manifest(
        manifest_schema=vectors.SCHEMA,
        locale=LOCALE,
        encoder=given.encoder[LOCALE],
        contract=vectors.contract_of(given.encoder_of(LOCALE)),
        weights_sha256="0" * 64,
        dimension=products.shape[1],
        dtype=given.embed.dtype,
        products=vectors.side_of(product_ids, write("products", products)),
        queries=vectors.side_of(query_ids, write("queries", queries)),
    )
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
    return manifest


def random_vectors(rng: np.random.Generator, rows: int, dimension: int = 48) -> vectors.Matrix:
    """Return normally distributed float32 vectors, [rows, dimension]."""
    return rng.standard_normal((rows, dimension), dtype=np.float32)
