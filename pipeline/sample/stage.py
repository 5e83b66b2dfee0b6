"""Draw queries, judgements and catalogue from ESCI's files: `sample.source` -> data/sample/.

The source is read by streaming: in memory are the judgements, each with its query's text, the ids
of the products, and the texts of some products at a time: of a few batches of `source.BATCH_ROWS`,
since they are read ahead, and then of `BUCKET_ROWS`, which are sorted.
"""

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.files import atomic_directory, write_json
from pipeline.core.parallel import ahead
from pipeline.core.params import Params, Sample
from pipeline.core.progress import track
from pipeline.sample import esci as source

Id = TypeVar("Id", str, int)

BUCKET_ROWS = 50_000
"""Products sorted in memory at a time, and rows a row group of the output."""


def draw(ids: Iterable[Id], count: int | Literal["all"], seed: int, locale: str) -> list[Id]:
    """Draw `count` of `ids` without replacement, sorted.

    The draw depends on nothing but the seed, the locale and each id: a larger count holds the
    smaller one's draw, and ids that come or go leave the order of the others alone.
    """
    if count == "all":
        return sorted(ids)

    def lot(one: Id) -> bytes:
        return hashlib.blake2b(f"{seed}/{locale}/{one}".encode(), digest_size=16).digest()

    return sorted(sorted(ids, key=lot)[:count])


def sample(params: Params) -> stage.Done:
    """Read `sample.source` and write each locale's queries, judgements, products and counts."""
    settings, locales = params.sample, list(params.language)
    examples_path = Path(settings.source) / layout.EXAMPLES_FILE
    products_path = Path(settings.source) / layout.PRODUCTS_FILE
    examples_file = source.open_source(examples_path, source.EXAMPLES)
    products_file = source.open_source(products_path, tables.SAMPLE_PRODUCTS)
    examples, left_out = source.read_examples(examples_file, examples_path, settings, locales)
    ids = source.read_product_ids(products_file, products_path, locales)
    sources = source.read_sources(Path(settings.source) / layout.SOURCES_FILE)
    with atomic_directory(layout.SAMPLE) as out:
        chosen, counts = {}, {}
        for locale in locales:
            queries, judgements = draw_queries(examples, settings, locale, examples_path)
            judged = set(judgements["product_id"].to_pylist())
            distractors = draw(ids[locale] - judged, settings.distractors, settings.seed, locale)
            chosen[locale] = pd.Index(sorted(judged & ids[locale] | set(distractors)))
            if not len(chosen[locale]):
                raise PipelineError(
                    f"{products_path}: none of the {len(judged)} products judged for locale "
                    f"{locale!r} is there; add them, or raise sample.distractors"
                )
            files_of = layout.SampleFiles(out / locale)
            files_of.folder.mkdir()
            tables.write_table(files_of.queries, queries, tables.SAMPLE_QUERIES)
            tables.write_table(files_of.judgements, judgements, tables.SAMPLE_JUDGEMENTS)
            of_queries = sources_of(queries["query_id"], sources)
            tables.write_table(files_of.sources, of_queries, tables.SAMPLE_SOURCES)
            counts[locale] = {
                "judgements": len(judgements),
                "judgements_outside_filters": _of_queries(left_out, locale, queries),
                "products": len(chosen[locale]),
                "queries": len(queries),
                "queries_without_source": of_queries["source"].null_count,
            }
        repeated = _write_products(products_file, products_path, chosen, out)
        for locale in locales:
            counts[locale]["products_repeated_rows_dropped"] = repeated[locale]
            write_json(layout.SampleFiles(out / locale).counts, counts[locale])
            stage.log.info(
                "sample locale=%s queries=%d products=%d judgements=%d",
                locale, counts[locale]["queries"], counts[locale]["products"],
                counts[locale]["judgements"],
            )  # fmt: skip
    return stage.Done(
        rows=products_file.metadata.num_rows + examples_file.metadata.num_rows,
        **{
            unit: sum(count[unit] for count in counts.values())
            for unit in ("products", "queries", "judgements")
        },
    )


def draw_queries(
    examples: pa.Table, settings: Sample, locale: str, path: Path
) -> tuple[pa.Table, pa.Table]:
    """Return the drawn queries of a locale and all their judgements.

    Raises:
        PipelineError: a drawn query_id stands for two queries, or an example_id for two judgements.
    """
    examples = source.of_locale(examples, locale)
    queries = _distinct(examples.select(tables.SAMPLE_QUERIES.names))
    drawn = draw(set(queries["query_id"].to_pylist()), settings.queries, settings.seed, locale)
    of_drawn = pc.is_in(queries["query_id"], value_set=pa.array(drawn, pa.int64()))
    queries = queries.filter(of_drawn).sort_by("query_id")
    _refuse_two_meanings(queries, "query_id", ("query", "split"), locale, path)
    of_drawn = pc.is_in(examples["query_id"], value_set=pa.array(drawn, pa.int64()))
    judgements = examples.filter(of_drawn).select(tables.SAMPLE_JUDGEMENTS.names)
    _refuse_two_meanings(
        _distinct(judgements), "example_id", ("query_id", "product_id", "esci_label"), locale, path
    )
    order = [(name, "ascending") for name in ("query_id", "product_id", "example_id")]
    return queries, judgements.sort_by(order)


def sources_of(query_ids: pa.ChunkedArray, sources: pa.Table) -> pa.Table:
    """Return the sources of queries, in their order; null for one that has none."""
    found = sources["source"].take(tables.row_of(sources["query_id"], query_ids))
    return pa.table({"query_id": query_ids, "source": found})


def _of_queries(left_out: pa.Table, locale: str, queries: pa.Table) -> int:
    """Return how many judgements of the drawn queries the filters left out: 0 in a sound source."""
    rows = source.of_locale(left_out, locale)
    drawn = pc.is_in(rows["query_id"], value_set=queries["query_id"].combine_chunks())
    count: int = pc.sum(rows.filter(drawn)["count_all"]).as_py() or 0
    if count:
        stage.log.warning(
            "warning: %d judgements of the drawn %s queries are outside of sample.version and "
            "sample.splits, and left out",
            count, locale,
        )  # fmt: skip
    return count


def _distinct(table: pa.Table) -> pa.Table:
    return table.group_by(table.column_names, use_threads=False).aggregate([])


def _refuse_two_meanings(
    rows: pa.Table, key: str, shown: tuple[str, ...], locale: str, path: Path
) -> None:
    """Refuse a key that stands in two rows; the rows are distinct."""
    if pc.count_distinct(rows[key]).as_py() == len(rows):
        return
    rows = rows.sort_by([(name, "ascending") for name in (key, *shown)])
    ids = rows[key].to_numpy()
    place = int(np.flatnonzero(ids[1:] == ids[:-1])[0])
    first, second = (
        ", ".join(f"{name} {shorten(row[name])}" for name in shown)
        for row in rows.slice(place, 2).to_pylist()
    )
    raise PipelineError(
        f"{path}: {key} {ids[place]} of locale {locale} has two meanings: ({first}) and "
        f"({second}); give each its own {key}"
    )


def _write_products(
    file: pq.ParquetFile, path: Path, chosen: dict[str, pd.Index], out: Path
) -> dict[str, int]:
    """Stream the chosen products to `out`, sorted by id.

    Each row's place in the sorted output is known from its id, so rows go to buckets of
    neighbours on disk, and one bucket is sorted in memory at a time.

    Returns:
        The repeated rows that were left out, by locale.
    """
    batches = ahead(source.read_batches(file, path, tables.SAMPLE_PRODUCTS))
    schema = tables.SAMPLE_PRODUCTS.append(pa.field("place", pa.int64()))
    with ExitStack() as open_buckets:
        buckets: dict[Path, pa.RecordBatchStreamWriter] = {}
        for batch in track(batches, file.metadata.num_rows, "products", len):
            for locale, index in chosen.items():
                rows = source.of_locale(batch, locale)
                places = index.get_indexer(rows["product_id"].to_pandas())
                rows = rows.append_column("place", pa.array(places, pa.int64()))
                for bucket in np.unique(places[places >= 0] // BUCKET_ROWS).tolist():
                    spool = _spool(out / locale, bucket)
                    if spool not in buckets:
                        stream = pa.ipc.new_stream(spool, schema)
                        buckets[spool] = open_buckets.enter_context(stream)
                    of_bucket = pa.array(places // BUCKET_ROWS == bucket)
                    buckets[spool].write_table(rows.filter(of_bucket).cast(schema))
    return {
        locale: _gather_buckets(out / locale, -(-len(index) // BUCKET_ROWS), path)
        for locale, index in chosen.items()
    }


def _gather_buckets(folder: Path, count: int, path: Path) -> int:
    """Write `folder`'s buckets, sorted, to one file; return how many repeated rows are left out."""
    repeated = 0
    with pq.ParquetWriter(
        layout.SampleFiles(folder).products, tables.SAMPLE_PRODUCTS, **tables.WRITE_OPTIONS
    ) as writer:
        for bucket in range(count):
            spool = _spool(folder, bucket)
            with pa.OSFile(str(spool)) as handle, pa.ipc.open_stream(handle) as stream:
                rows = stream.read_all().sort_by("place").drop_columns("place")
            spool.unlink()
            unique = _without_repeats(rows, path)
            repeated += len(rows) - len(unique)
            writer.write_table(unique)
    return repeated


def _without_repeats(products: pa.Table, path: Path) -> pa.Table:
    """Drop rows equal to the one before, of products sorted by id.

    Raises:
        PipelineError: an id stands twice, with different contents.
    """
    ids = products["product_id"].to_numpy()
    repeats = np.flatnonzero(ids[1:] == ids[:-1]) + 1
    for row in repeats.tolist():
        before, after = products.slice(row - 1, 2).to_pylist()
        if before != after:
            column = next(name for name in products.column_names if before[name] != after[name])
            raise PipelineError(
                f"{path}: product_id {after['product_id']} of locale {after['product_locale']} "
                f"stands twice, with different {column} ({shorten(before[column])} and "
                f"{shorten(after[column])}); keep one row a product"
            )
    keep = np.ones(len(products), dtype=bool)
    keep[repeats] = False
    return products.filter(pa.array(keep))


def _spool(folder: Path, bucket: int) -> Path:
    return folder / f"products-{bucket:05d}.spool"
