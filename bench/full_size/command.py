"""A made-up catalogue with the size, files, schema and shape of all of ESCI.

    python -m bench.full_size [--products N] [--out DIR]

It replaces an earlier one in data/full-size; any other DIR must be absent or empty.

Products are drawn in blocks, each from its own seed: the files are the same for any number of
threads, and memory holds a few blocks. Unlike the demo it has no deliberate errors: every judged
product has a row, and no row and no judgement is repeated.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.full_size import products as many
from bench.full_size import queries as asked
from bench.full_size import shape
from bench.full_size.vocabulary import LABELS, Bank, draw_bank
from pipeline.core import layout, stage
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory
from pipeline.core.log import log
from pipeline.core.outputs import refuse_to_lose
from pipeline.core.parallel import in_parallel
from pipeline.core.params_file import load_params
from pipeline.core.progress import track
from pipeline.demo.catalogue import Rng
from pipeline.demo.ids import product_ids
from pipeline.demo.marketplace import load_wording
from pipeline.demo.tables import EXAMPLES, LOCALES, PRODUCTS

FOLDER = Path("data/full-size")
"""Where it goes, if nobody says otherwise."""

SEED = 7
BLOCK_PRODUCTS = 20_000
WAITING_BLOCKS = 2
BLOCK_EXAMPLES = 200_000
LEAST = 20_000
"""Products below which a query would have more judgements than there are products for."""

_WRITTEN = {layout.EXAMPLES_FILE, layout.PRODUCTS_FILE, layout.SOURCES_FILE}

# What is drawn by each chance: a locale's bank, a block of its products, its queries; then what
# all locales share.
_BANK, _PRODUCTS, _QUERIES, _ORDER, _SOURCES = 0, 1, 2, 3, 5

Banks = Mapping[str, Bank]
Shapes = Mapping[str, shape.Shape]


def write(folder: Path, products: int, threads: int) -> None:
    """Write a catalogue of `products` products, and queries and judgements in proportion.

    Raises:
        PipelineError: there are too few products for ESCI's shape, or the folder has other files.
    """
    folder = folder.resolve()
    # Only in its own place: elsewhere, files of these names may be the real ones.
    refuse_to_lose(folder, _WRITTEN if folder == FOLDER.resolve() else ())
    if products < LEAST:
        raise PipelineError(
            f"--products {products}: fewer than {LEAST} cannot have as many judgements per query "
            "as ESCI. Ask for more, or use the demo (`python -m pipeline.demo`)."
        )
    shapes = shape.shapes(products)
    banks = {
        locale: draw_bank(_rng(locale, _BANK), load_wording(locale), shapes[locale])
        for locale in LOCALES
    }
    with atomic_directory(folder) as partial:
        with pq.ParquetWriter(
            partial / layout.PRODUCTS_FILE, PRODUCTS, compression="zstd", use_dictionary=False
        ) as writer:
            made = _product_blocks(banks, shapes, threads)
            for block in track(made, products, "products", len):
                writer.write_batch(block.cast(PRODUCTS))
        queries = {
            locale: asked.ask(_rng(locale, _QUERIES), banks[locale], shapes[locale])
            for locale in LOCALES
        }
        with pq.ParquetWriter(
            partial / layout.EXAMPLES_FILE, EXAMPLES, compression="zstd"
        ) as writer:
            for block in _example_blocks(queries):
                writer.write_batch(block)
        total = sum(len(each.counts) for each in queries.values())
        lines = ["query_id,source", *(f"{i},{source}" for i, source in enumerate(_sources(total)))]
        (partial / layout.SOURCES_FILE).write_text(
            "\n".join(lines) + "\n", encoding="utf-8", newline="\n"
        )


def _product_blocks(banks: Banks, shapes: Shapes, threads: int) -> Iterator[pa.RecordBatch]:
    """Yield the products, some thousands at a time, locale by locale."""
    blocks = [
        (locale, start)
        for locale in LOCALES
        for start in range(0, shapes[locale].products, BLOCK_PRODUCTS)
    ]

    def block(at: tuple[str, int]) -> pa.RecordBatch:
        locale, start = at
        numbers = np.arange(start, min(start + BLOCK_PRODUCTS, shapes[locale].products))
        return many.products(
            _rng(locale, _PRODUCTS, start), banks[locale], shapes[locale],
            numbers, _ids(locale, numbers), locale,
        )  # fmt: skip

    return in_parallel(block, blocks, threads, WAITING_BLOCKS)


def _example_blocks(queries: Mapping[str, asked.Asked]) -> Iterator[pa.RecordBatch]:
    """Yield all judgements in the order of the query_ids, which locales share at random."""
    of = list(queries.values())
    counts = np.concatenate([each.counts for each in of])
    lanes = np.repeat(np.arange(len(of)), [len(each.counts) for each in of])
    texts = pa.concat_arrays([each.texts for each in of])
    small = np.concatenate([each.small for each in of]).astype(np.int64)
    test = np.concatenate([each.test for each in of]).astype(np.int64)
    labels = np.concatenate([each.labels for each in of])
    products = np.concatenate([each.products for each in of])
    query_ids = _rng("", _ORDER).permutation(len(counts))
    order = np.argsort(query_ids)  # the query of each id
    starts = (np.cumsum(counts) - counts)[order]
    sizes = counts[order]
    ends = np.cumsum(sizes)
    done = 0
    bounds = np.searchsorted(ends, np.arange(BLOCK_EXAMPLES, ends[-1], BLOCK_EXAMPLES))
    for block in np.split(np.arange(len(order)), bounds):
        rows = np.repeat(order[block], sizes[block])
        within = np.arange(len(rows)) - np.repeat(ends[block] - sizes[block] - done, sizes[block])
        places = np.repeat(starts[block], sizes[block]) + within
        yield pa.RecordBatch.from_pydict(
            {
                "example_id": np.arange(done, done + len(rows)),
                "query": texts.take(pa.array(rows)),
                "query_id": np.repeat(block, sizes[block]),
                "product_id": _ids_by_lane(lanes[rows], products[places]),
                "product_locale": pa.array(LOCALES).take(pa.array(lanes[rows])),
                "esci_label": pa.array(list(LABELS)).take(pa.array(labels[places])),
                "small_version": small[rows],
                "large_version": np.ones(len(rows), np.int64),
                "split": pa.array(["train", "test"]).take(pa.array(test[rows])),
            },
            EXAMPLES,
        )
        done += len(rows)


def _ids_by_lane(lanes: Ints, numbers: Ints) -> pa.Array:
    ids = np.empty(len(numbers), object)
    for lane, locale in enumerate(LOCALES):
        ids[lanes == lane] = _ids(locale, numbers[lanes == lane]).to_numpy(False)
    return pa.array(ids, pa.string())


def _sources(queries: int) -> list[str]:
    """Return why each query is there, in ESCI's shares."""
    shares = np.array(list(shape.SOURCES.values()))
    drawn = _rng("", _SOURCES).choice(len(shares), size=queries, p=shares / shares.sum())
    names = list(shape.SOURCES)
    return [names[place] for place in drawn]


def _ids(locale: str, numbers: Ints) -> pa.Array:
    return product_ids(SEED, LOCALES.index(locale), len(LOCALES), numbers)


def _rng(locale: str, *purpose: int) -> Rng:
    return np.random.default_rng([SEED, *purpose, *locale.encode()])


def main() -> int:
    """Write the catalogue; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.full_size")
    parser.add_argument(
        "--products", type=int, default=shape.PRODUCTS, help="in all (default: ESCI's 1,814,924)"
    )
    parser.add_argument(
        "--out", type=Path, default=FOLDER,
        help=f"the folder, absent or empty (default: {FOLDER})",
    )  # fmt: skip
    options = parser.parse_args()
    with stage.report_errors("full-size") as outcome:
        started = time.monotonic()
        write(options.out, options.products, load_params().runtime.thread_count())
        log.info(
            "%d products in %s seconds=%.1f",
            options.products, options.out, time.monotonic() - started,
        )  # fmt: skip
    return outcome.status
