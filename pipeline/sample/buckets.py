"""The chosen products streamed from the source to one sorted file per locale.

The place of a row in the sorted output is known from its id. So rows go to buckets of neighbours on
disk, and one bucket is sorted in memory at a time.
"""

import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.parallel import ahead, in_parallel
from pipeline.core.progress import track
from pipeline.sample import esci
from pipeline.sample.columns import SourceFile

BUCKET_ROWS = 50_000
"""Products sorted in memory at a time, and rows per row group of the output."""

OTHER_FILES = 256
"""Files that are open beside the buckets, at most."""


def write_products(
    file: SourceFile, chosen: dict[str, list[str]], out: Path
) -> tuple[Counter[str], dict[str, int]]:
    """Stream the chosen products to `out`, sorted by id.

    Args:
        file: the source's products.
        chosen: the ids by locale, sorted.
        out: the folder that has a folder per locale.

    Returns:
        The source's rows and the repeated rows that were left out, both by locale.

    Raises:
        PipelineError: the file is damaged, or an id has rows with different contents.
    """
    batches = ahead(esci.read_batches(file, tables.SAMPLE_PRODUCTS))
    schema = tables.SAMPLE_PRODUCTS.append(pa.field("place", pa.int64()))
    places_of = {
        locale: {each: place for place, each in enumerate(ids)} for locale, ids in chosen.items()
    }
    rows_of: Counter[str] = Counter()
    allow_open_files(sum(-(-len(ids) // BUCKET_ROWS) for ids in chosen.values()))
    with ExitStack() as open_buckets:
        buckets: dict[Path, pa.RecordBatchStreamWriter] = {}
        for batch in track(batches, file.rows, "products", len):
            rows_of += esci.rows_by_locale(batch)
            for locale, places in places_of.items():
                rows = _by_place(esci.of_locale(batch, locale), places).cast(schema)
                for bucket, of_bucket in _by_bucket(rows):
                    spool = _spool(out / locale, bucket)
                    if spool not in buckets:
                        stream = pa.ipc.new_stream(spool, schema)
                        buckets[spool] = open_buckets.enter_context(stream)
                    buckets[spool].write_table(of_bucket)
    repeated = {
        locale: _gather_buckets(out / locale, -(-len(ids) // BUCKET_ROWS), file.path)
        for locale, ids in chosen.items()
    }
    return rows_of, repeated


def allow_open_files(count: int) -> None:
    """Raise this process' limit of open files, so that so many more fit, if the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _by_place(rows: pa.Table, places: dict[str, int]) -> pa.Table:
    """Return the rows that have a place, with it as a column more, in its order."""
    ids = rows["product_id"].to_numpy().tolist()
    place = np.fromiter(map(places.get, ids, repeat(-1)), np.int64, len(ids))
    order = np.argsort(place, kind="stable")
    order = order[np.searchsorted(place, 0, sorter=order) :]
    return rows.take(pa.array(order)).append_column("place", pa.array(place[order]))


def _by_bucket(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield each bucket's number and rows; `rows` are sorted by place."""
    found, starts, counts = np.unique(
        rows["place"].to_numpy() // BUCKET_ROWS, return_index=True, return_counts=True
    )
    for bucket, start, count in zip(found, starts, counts, strict=True):
        yield int(bucket), rows.slice(start, count)


def _gather_buckets(folder: Path, count: int, path: Path) -> int:
    """Write `folder`'s buckets, sorted, to one file; return how many repeated rows are left out."""

    def sort(bucket: int) -> pa.Table:
        spool = _spool(folder, bucket)
        with pa.OSFile(str(spool)) as handle, pa.ipc.open_stream(handle) as stream:
            rows = stream.read_all().sort_by("place").drop_columns("place")
        spool.unlink()
        return rows

    repeated = 0
    with pq.ParquetWriter(
        layout.SampleFiles(folder).products, tables.SAMPLE_PRODUCTS, **tables.WRITE_OPTIONS
    ) as writer:
        # One bucket is sorted while the one before is compressed.
        for rows in in_parallel(sort, range(count), threads=1, waiting=0):
            unique = _without_repeats(rows, path)
            repeated += len(rows) - len(unique)
            writer.write_table(unique)
    return repeated


def _without_repeats(products: pa.Table, path: Path) -> pa.Table:
    """Drop rows equal to the one before, of products sorted by id.

    Raises:
        PipelineError: an id appears twice, with different contents.
    """
    ids = products["product_id"].to_numpy()
    repeats = np.flatnonzero(ids[1:] == ids[:-1]) + 1
    for row in repeats.tolist():
        before, after = products.slice(row - 1, 2).to_pylist()
        if before != after:
            column = next(name for name in products.column_names if before[name] != after[name])
            twice = f"{shorten(after['product_id'])} of locale {after['product_locale']}"
            raise PipelineError(
                f"{path}: product_id {twice} appears twice, with different {column} "
                f"({shorten(before[column])} and {shorten(after[column])}). Keep one row per "
                "product."
            )
    keep = np.ones(len(products), dtype=bool)
    keep[repeats] = False
    return products.filter(pa.array(keep))


def _spool(folder: Path, bucket: int) -> Path:
    return folder / f"products-{bucket:05d}.spool"
