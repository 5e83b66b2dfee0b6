"""Encode one locale: data/clean/<locale> -> data/embeddings/<locale>, shards and a manifest."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline import layout, stage, tables, vectors
from pipeline.encoders.encoder import load_encoder
from pipeline.encoders.weights import resolve_weights
from pipeline.files import atomic_directory, write_json
from pipeline.params import Embed, Encoder, Params

CHUNK_TEXTS = 1_024
"""Texts between two looks at the progress; the encoder sorts them by length."""


def encode_shards(
    folder: Path,
    kind: vectors.Kind,
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], vectors.Matrix],
    settings: Embed,
) -> tuple[vectors.Shard, ...]:
    """Encode texts into shards in `folder`; the vectors of one shard are in memory at a time."""
    shards: list[vectors.Shard] = []
    parts: list[vectors.Matrix] = []
    chunks = list(_chunks(len(texts), settings.shard_rows))
    for start, stop in stage.track(chunks, len(texts), kind, lambda chunk: chunk[1] - chunk[0]):
        parts.append(encode(texts[start:stop]))
        if stop % settings.shard_rows == 0 or stop == len(texts):
            matrix = np.concatenate(parts)
            shards.append(vectors.write_shard(folder, kind, len(shards), matrix, settings.dtype))
            parts = []
    return tuple(shards)


def embed(params: Params, locale: str) -> None:
    """Encode a locale's products and queries with its encoder."""
    name, contract = params.encoder[locale], params.encoder_of(locale)
    source, remedy = layout.clean(locale), f"run `dvc repro clean@{locale}`"
    products = tables.read_table(source / "products.parquet", tables.PRODUCTS, remedy)
    queries = tables.read_table(source / "queries.parquet", tables.QUERIES, remedy)
    _warn_of_language(name, contract, locale, params.language[locale])
    weights = resolve_weights(contract, name)
    encoder = load_encoder(contract, weights, params.runtime)
    with atomic_directory(layout.embeddings(locale)) as out:
        product_shards = encode_shards(
            out, "products", products["text"].to_pylist(), encoder.encode_passages, params.embed
        )
        query_shards = encode_shards(
            out, "queries", queries["text"].to_pylist(), encoder.encode_queries, params.embed
        )
        manifest = vectors.Manifest(
            manifest_schema=vectors.SCHEMA,
            locale=locale,
            encoder=name,
            contract=vectors.contract_of(contract),
            weights_sha256=weights.sha256,
            dimension=encoder.dimension,
            dtype=params.embed.dtype,
            products=vectors.side_of(products["product_id"], product_shards),
            queries=vectors.side_of(queries["query_id"], query_shards),
        )
        write_json(out / "manifest.json", manifest.model_dump(mode="json"))
    stage.log.info(
        "embed locale=%s encoder=%s dimension=%d products=%d queries=%d",
        locale, name, encoder.dimension, len(products), len(queries),
    )  # fmt: skip


def _chunks(rows: int, shard_rows: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each chunk; none reaches over the end of a shard."""
    for start, stop in vectors.shard_bounds(rows, shard_rows):
        for at in range(start, stop, CHUNK_TEXTS):
            yield at, min(at + CHUNK_TEXTS, stop)


def _warn_of_language(name: str, contract: Encoder, locale: str, language: str) -> None:
    if not {language, "any"} & set(contract.languages):
        stage.log.warning(
            "warning: encoder.%s: %s does not speak %s (it speaks: %s); expect poor results",
            locale, name, language, ", ".join(contract.languages),
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(stage.run_locales("embed", embed))
