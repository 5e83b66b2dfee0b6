"""Clean one locale: data/sample/<locale> -> data/clean/<locale>, with every drop counted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory, write_json
from pipeline.core.parallel import ahead, in_parallel
from pipeline.core.params import Clean, Params
from pipeline.text.columns import join_columns, normalise_column

BATCH_ROWS = 16_384
PIECE_ROWS = 2_048
"""So many products' texts stay in a core's cache from one kernel to the next."""
WAITING_BATCHES = 2
"""Few: a batch takes tens of megabytes, and every thread has one of its own beside them."""


@dataclass(frozen=True)
class Pairs:
    """The judgements that can be used, and how many cannot, by reason."""

    table: pa.Table
    dropped: dict[str, int]


def clean_queries(sampled: pa.Table) -> pa.Table:
    """Return the queries' normalised texts; those that are empty are left out."""
    texts = normalise_column(sampled["query"].combine_chunks())
    return _without_empty(pa.table({"query_id": sampled["query_id"], "text": texts}))


def clean_products(sampled: pa.Table, settings: Clean) -> pa.Table:
    """Return one text a product: its fields normalised and joined; empty ones are left out.

    Args:
        sampled: some products, columns as in `tables.SAMPLE_PRODUCTS`.
        settings: which fields, and what stands between them.

    Returns:
        The columns of `tables.PRODUCTS`.
    """
    rows, fields = len(sampled), settings.fields
    # All fields as one column: a kernel is set up once.
    together = pa.concat_arrays([chunk for name in fields for chunk in sampled[name].chunks])
    normalised = normalise_column(together)
    columns = [normalised.slice(place * rows, rows) for place in range(len(fields))]
    texts, ends = join_columns(columns, settings.separator)
    offsets = np.arange(0, ends.size + 1, len(fields), dtype=np.int32)
    products = {
        "product_id": sampled["product_id"],
        "text": texts,
        "field_ends": pa.ListArray.from_arrays(
            offsets, ends.ravel(), type=tables.PRODUCTS.field("field_ends").type
        ),
    }
    return _without_empty(pa.table(products, tables.PRODUCTS))


def clean_judgements(
    sampled: pa.Table,
    queries: pa.ChunkedArray,
    products: pa.ChunkedArray,
    where: Path,
) -> Pairs:
    """Keep the judgements whose query has a text and whose product has a row, once each.

    A product without text keeps its judgements: nothing can find it, and what is judged must not
    depend on which fields make up a text.

    Args:
        sampled: judgements sorted by query_id and product_id.
        queries: the query_ids that have a text.
        products: the product_ids of the sample, with or without a text.
        where: the file they come from, for messages.

    Raises:
        PipelineError: a pair is judged twice, with different labels.
    """
    frame = pd.DataFrame(
        {
            "query_id": sampled["query_id"].to_numpy(),
            "product_id": sampled["product_id"],
            "label": sampled["esci_label"].to_pylist(),
        }
    )
    repeated = frame.duplicated(["query_id", "product_id"]).to_numpy()
    conflicting = repeated & ~frame.duplicated(["query_id", "product_id", "label"]).to_numpy()
    if conflicting.any():
        row = frame.iloc[int(np.flatnonzero(conflicting)[0])]
        labels = frame[
            (frame.query_id == row.query_id) & (frame.product_id == row.product_id)
        ].label
        raise PipelineError(
            f"{where}: query_id {row.query_id} and product_id {row.product_id} are judged "
            f"{' and '.join(labels)}; keep one label a pair in the source"
        )
    no_query = tables.row_of(queries, sampled["query_id"]).is_null().to_numpy(False)
    no_row = tables.row_of(products, sampled["product_id"]).is_null().to_numpy(False)
    # One reason a row, the first that holds.
    dropped = {
        "dropped_repeated": repeated,
        "dropped_query_empty": no_query & ~repeated,
        "dropped_product_missing": no_row & ~(no_query | repeated),
    }
    kept = frame[~(repeated | no_query | no_row)]
    table = pa.Table.from_pandas(kept, tables.JUDGEMENTS, preserve_index=False)
    return Pairs(table.replace_schema_metadata(), {k: int(v.sum()) for k, v in dropped.items()})


def clean(params: Params, locale: str) -> stage.Done:
    """Read a locale's sample and write its cleaned tables and `counts.json`."""
    source, remedy = layout.sample(locale), layout.rerun_hint("sample")
    threads = params.runtime.thread_count()
    sampled_queries = tables.read_table(source.queries, tables.SAMPLE_QUERIES, remedy)
    sampled = tables.read_table(source.judgements, tables.SAMPLE_JUDGEMENTS, remedy)
    _refuse_other_locales(sampled_queries, locale, source.queries, remedy)
    _refuse_other_locales(sampled, locale, source.judgements, remedy)
    queries = clean_queries(sampled_queries)
    with atomic_directory(layout.clean(locale).folder) as folder:
        out = layout.CleanFiles(folder)
        products = _clean_product_file(
            source.products,
            out.products,
            params.clean,
            locale,
            remedy,
            threads,
        )
        pairs = clean_judgements(
            sampled, queries["query_id"], products.sampled_ids, source.judgements
        )
        without_text = tables.row_of(products.ids, pairs.table["product_id"]).null_count
        judged = tables.row_of(pairs.table["query_id"], queries["query_id"]).is_valid()
        kept_queries = queries.filter(judged)
        if not len(kept_queries):
            raise PipelineError(
                f"{source.folder}: none of its {len(sampled_queries)} queries has a text and a "
                "judged product; draw others (sample in params.yaml)"
            )
        tables.write_table(out.queries, kept_queries, tables.QUERIES)
        tables.write_table(out.judgements, pairs.table, tables.JUDGEMENTS)
        counts = {
            "judgements": {
                "in": len(sampled),
                "out": len(pairs.table),
                "product_without_text": without_text,
                **pairs.dropped,
            },
            "products": {
                "dropped_empty": len(products.sampled_ids) - len(products.ids),
                "fields": params.clean.fields,
                "in": len(products.sampled_ids),
                "out": len(products.ids),
                "sharing_a_text": products.sharing_a_text,
            },
            "queries": {
                "dropped_empty": len(sampled_queries) - len(queries),
                "dropped_without_judgement": len(queries) - len(kept_queries),
                "in": len(sampled_queries),
                "out": len(kept_queries),
            },
        }
        write_json(out.counts, counts)
    stage.log.info(
        "clean locale=%s queries=%d products=%d judgements=%d",
        locale, len(kept_queries), len(products.ids), len(pairs.table),
    )  # fmt: skip
    return stage.Done(
        products=counts["products"]["in"],
        queries=len(sampled_queries),
        judgements=len(sampled),
        threads=threads,
    )


@dataclass(frozen=True)
class _CleanedProducts:
    """The product ids before and after, and how many texts are equal to another product's."""

    sampled_ids: pa.ChunkedArray
    ids: pa.ChunkedArray
    sharing_a_text: int


def _clean_product_file(
    source: Path, target: Path, settings: Clean, locale: str, remedy: str, threads: int
) -> _CleanedProducts:
    """Clean the products of one file into another, some thousands at a time."""
    sampled_ids: list[pa.Array] = []
    ids: list[pa.Array] = []
    hashes: list[NDArray[np.int64]] = []

    def cleaned(batch: pa.Table) -> tuple[pa.Table, pa.Table, NDArray[np.int64]]:
        _refuse_other_locales(batch, locale, source, remedy)
        pieces = [
            clean_products(batch.slice(row, PIECE_ROWS), settings)
            for row in range(0, len(batch), PIECE_ROWS)
        ]
        products = pa.concat_tables(pieces)
        return batch.select(["product_id"]), products, _hashes(products["text"])

    batches = ahead(tables.iter_table(source, tables.SAMPLE_PRODUCTS, BATCH_ROWS, remedy))
    done = in_parallel(cleaned, batches, threads, WAITING_BATCHES)
    with pq.ParquetWriter(target, tables.PRODUCTS, **tables.WRITE_OPTIONS) as writer:
        for batch, products, of_texts in done:
            writer.write_table(products)
            sampled_ids.extend(batch["product_id"].chunks)
            ids.extend(products["product_id"].chunks)
            hashes.append(of_texts)
    if not any(map(len, ids)):
        raise PipelineError(
            f"{source}: none of its {sum(map(len, sampled_ids))} products has any text in "
            f"{', '.join(settings.fields)}; choose other clean.fields in params.yaml"
        )
    _, copies = np.unique(np.concatenate(hashes), return_counts=True)
    return _CleanedProducts(
        pa.chunked_array(sampled_ids, pa.string()),
        pa.chunked_array(ids, pa.string()),
        int(copies[copies > 1].sum()),
    )


def _hashes(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a number for each text, equal for equal ones within this process."""
    return np.fromiter(map(hash, texts.cast(pa.binary()).to_pylist()), np.int64, len(texts))


def _refuse_other_locales(rows: pa.Table, locale: str, path: Path, remedy: str) -> None:
    others = rows["product_locale"].filter(pc.not_equal(rows["product_locale"], locale))
    if len(others):
        raise PipelineError(f"{path} holds rows of locale {others[0].as_py()!r}. {remedy}")


def _without_empty(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["text"], ""))
