"""A stand-in for all of ESCI: its size, its files, its schema, its shape; made-up words.

    python -m pipeline.full_size [--products N] [--out DIR]

Products are drawn a block at a time, each block by a chance of its own: the files are the same
however many threads make them, and memory holds a few blocks.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import layout, stage
from pipeline.demo import EXAMPLES, LOCALES, PRODUCTS
from pipeline.encoders.parallel import in_parallel
from pipeline.errors import PipelineError
from pipeline.files import atomic_directory
from pipeline.generator import many, shape
from pipeline.generator.bank import LABELS, Bank, draw_bank
from pipeline.generator.catalogue import Rng
from pipeline.generator.marketplace import load_wording
from pipeline.params import load_params

SEED = 7
BLOCK_PRODUCTS = 20_000
BLOCK_EXAMPLES = 200_000
LEAST = 20_000
"""Products below which a query would have more judgements than there are products for."""


def write(folder: Path, products: int = shape.PRODUCTS, threads: int = 2) -> None:
    """Write a catalogue of `products` products, and queries and judgements in proportion.

    Raises:
        PipelineError: so few products cannot have ESCI's shape.
    """
    if products < LEAST:
        raise PipelineError(f"--products {products}: it must be at least {LEAST}")
    shapes = {locale: shape.scaled(shape.SHAPES[locale], products) for locale in LOCALES}
    banks = {
        locale: draw_bank(_rng(locale, 0), load_wording(locale), shapes[locale])
        for locale in LOCALES
    }
    with atomic_directory(folder) as partial:
        _write_products(partial / layout.PRODUCTS_FILE, banks, shapes, threads)
        _write_examples(partial, banks, shapes)


def _write_products(
    path: Path, banks: dict[str, Bank], shapes: dict[str, shape.Shape], threads: int
) -> None:
    blocks = [
        (locale, start)
        for locale in LOCALES
        for start in range(0, shapes[locale].products, BLOCK_PRODUCTS)
    ]

    def block(at: tuple[str, int]) -> pa.RecordBatch:
        locale, start = at
        stop = min(start + BLOCK_PRODUCTS, shapes[locale].products)
        numbers = np.arange(start, stop)
        rng = _rng(locale, 1, start)
        return many.products(
            rng, banks[locale], shapes[locale], numbers, _ids(locale, numbers), locale
        )

    with pq.ParquetWriter(path, PRODUCTS, compression="zstd", use_dictionary=False) as writer:
        made = in_parallel(block, blocks, threads)
        total = sum(each.products for each in shapes.values())
        for batch in stage.track(made, total, "products", len):
            writer.write_batch(batch.cast(PRODUCTS))


def _write_examples(folder: Path, banks: dict[str, Bank], shapes: dict[str, shape.Shape]) -> None:
    asked = {locale: many.ask(_rng(locale, 2), banks[locale], shapes[locale]) for locale in LOCALES}
    total = sum(each.queries for each in shapes.values())
    ids = _rng("", 3).permutation(total)
    which = np.repeat(np.arange(len(LOCALES)), [shapes[locale].queries for locale in LOCALES])
    # Query by query in the order of their ids, whatever their locale.
    number = np.empty(total, np.int64)
    number[ids] = np.arange(total)
    counts = np.concatenate([asked[locale].counts for locale in LOCALES])
    starts = np.concatenate([[0], np.cumsum(counts)])
    texts = pa.concat_arrays([asked[locale].texts for locale in LOCALES])
    small = np.concatenate([asked[locale].small for locale in LOCALES]).astype(np.int64)
    test = np.concatenate([asked[locale].test for locale in LOCALES])
    labels = np.concatenate([asked[locale].labels for locale in LOCALES])
    products = np.concatenate([asked[locale].products for locale in LOCALES])
    splits, codes = pa.array(["train", "test"]), pa.array(LOCALES)
    with pq.ParquetWriter(folder / layout.EXAMPLES_FILE, EXAMPLES, compression="zstd") as writer:
        ends = np.cumsum(counts[number])
        bounds = np.searchsorted(ends, np.arange(BLOCK_EXAMPLES, ends[-1], BLOCK_EXAMPLES))
        example = 0
        for block in np.split(np.arange(total), bounds):
            rows = number[block]
            repeated = np.repeat(rows, counts[rows])
            first = np.repeat(starts[rows] - np.cumsum(counts[rows]) + counts[rows], counts[rows])
            places = first + np.arange(len(repeated))
            product_ids = np.empty(len(places), object)
            for lane, locale in enumerate(LOCALES):
                own = which[repeated] == lane
                product_ids[own] = _ids(locale, products[places[own]]).to_numpy(False)
            writer.write_batch(
                pa.RecordBatch.from_pydict(
                    {
                        "example_id": pa.array(np.arange(example, example + len(places))),
                        "query": texts.take(pa.array(repeated)),
                        "query_id": pa.array(np.repeat(block, counts[rows])),
                        "product_id": pa.array(product_ids, pa.string()),
                        "product_locale": codes.take(pa.array(which[repeated])),
                        "esci_label": pa.array(list(LABELS)).take(pa.array(labels[places])),
                        "small_version": pa.array(small[repeated]),
                        "large_version": pa.array(np.ones(len(places), np.int64)),
                        "split": splits.take(pa.array(test[repeated].astype(np.int64))),
                    },
                    EXAMPLES,
                )
            )
            example += len(places)
    names = np.array(list(shape.SOURCES))
    shares = np.array(list(shape.SOURCES.values()))
    drawn = names[_rng("", 5).choice(len(names), size=total, p=shares / shares.sum())]
    lines = ["query_id,source", *(f"{query},{source}" for query, source in enumerate(drawn))]
    (folder / layout.SOURCES_FILE).write_text(
        "\n".join(lines) + "\n", encoding="utf-8", newline="\n"
    )


def _ids(locale: str, numbers: many.Ints) -> pa.Array:
    return many.ids_of(SEED, LOCALES.index(locale), len(LOCALES), numbers)


def _rng(locale: str, *purpose: int) -> Rng:
    return np.random.default_rng([SEED, *purpose, *locale.encode()])


def main() -> int:
    """Write the stand-in; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.full_size")
    parser.add_argument("--products", type=int, default=shape.PRODUCTS)
    parser.add_argument("--out", type=Path, default=layout.FULL_SIZE)
    options = parser.parse_args()
    with stage.told_to_the_user("full-size") as outcome:
        started = time.monotonic()
        write(options.out, options.products, load_params().runtime.thread_count())
        stage.log.info("%s seconds=%.1f", options.out, time.monotonic() - started)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
