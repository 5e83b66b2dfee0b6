"""A file of products cleaned into another, some thousands at a time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.clean.texts import clean_products, count_cut
from pipeline.core import tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.parallel import ahead, in_parallel
from pipeline.core.params import Clean

BATCH_ROWS = 16_384
PIECE_ROWS = 2_048
"""The texts of this many products stay in a core's cache from one kernel to the next."""
WAITING_BATCHES = 2
"""Few: a batch takes tens of megabytes, and every thread has one of its own beside them."""


@dataclass(frozen=True)
class CleanedProducts:
    """What was read and written: ids, and counts of texts."""

    sampled_ids: pa.ChunkedArray
    """The product ids before."""
    ids: pa.ChunkedArray
    """Those that have a text."""
    sharing_a_text: int
    """How many texts are equal to another product's."""
    fields_cut: int
    """How many fields were longer than is read."""


def clean_product_file(
    source: Path,
    target: Path,
    settings: Clean,
    locale: str,
    remedy: str,
    threads: int,
    given: Path | None = None,
) -> CleanedProducts:
    """Clean the products of one file into another.

    Args:
        source: a table of `tables.SAMPLE_PRODUCTS`.
        target: the table of `tables.PRODUCTS` to write.
        settings: the fields, and the separator between them.
        locale: the locale that all rows must be of.
        remedy: a sentence that says what brings `source` back.
        threads: how many threads work on it.
        given: where the texts come from, if `source` is a file that nobody sees; for a message.

    Raises:
        PipelineError: a row is of another locale, or no product has any text.
    """
    sampled_ids: list[pa.Array] = []
    ids: list[pa.Array] = []
    hashes: list[NDArray[np.int64]] = []
    fields_cut = 0

    def cleaned(batch: pa.Table) -> tuple[pa.Table, pa.Table, NDArray[np.int64]]:
        refuse_other_locales(batch, locale, source, remedy)
        pieces = [
            clean_products(batch.slice(row, PIECE_ROWS), settings)
            for row in range(0, len(batch), PIECE_ROWS)
        ]
        products = pa.concat_tables(pieces)
        return batch, products, _hashes(products["text"])

    batches = ahead(tables.iter_table(source, tables.SAMPLE_PRODUCTS, BATCH_ROWS, remedy))
    done = in_parallel(cleaned, batches, threads, WAITING_BATCHES)
    with pq.ParquetWriter(target, tables.PRODUCTS, **tables.WRITE_OPTIONS) as writer:
        for batch, products, of_texts in done:
            writer.write_table(products)
            sampled_ids.extend(batch["product_id"].chunks)
            ids.extend(products["product_id"].chunks)
            hashes.append(of_texts)
            fields_cut += count_cut(batch, settings.fields)
    if not any(map(len, ids)):
        raise PipelineError(
            f"{given or source}: none of its {sum(map(len, sampled_ids))} products has any text in "
            f"{', '.join(settings.fields)}. Choose other clean.fields in params.yaml."
        )
    _, copies = np.unique(np.concatenate(hashes), return_counts=True)
    return CleanedProducts(
        pa.chunked_array(sampled_ids, pa.string()),
        pa.chunked_array(ids, pa.string()),
        int(copies[copies > 1].sum()),
        fields_cut,
    )


def refuse_other_locales(rows: pa.Table, locale: str, path: Path, remedy: str) -> None:
    """Raise a `PipelineError` unless all rows are of `locale`."""
    others = rows["product_locale"].filter(pc.not_equal(rows["product_locale"], locale))
    if len(others):
        raise PipelineError(
            f"{path}: product_locale must be {locale!r} (found {shorten(others[0].as_py())}). "
            f"{remedy}"
        )


def _hashes(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a number per text, equal for equal ones within this process."""
    return np.fromiter(map(hash, texts.cast(pa.binary()).to_pylist()), np.int64, len(texts))
