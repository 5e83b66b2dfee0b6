"""ESCI's two parquet files, opened, checked and read by streaming, and its small sources file."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError, did_you_mean, one_line, shorten
from pipeline.core.params import Sample

log = logging.getLogger("pipeline")

BATCH_ROWS = 16_384

EXAMPLES = pa.schema([*tables.SAMPLE_JUDGEMENTS, tables.SAMPLE_QUERIES.field("query")])
"""The columns of the examples file: a judgement a row, the query's text in each."""

_REMEDY = "Fetch or write it again."
_LFS_POINTER = b"version https://git-lfs"


def open_source(path: Path, schema: pa.Schema) -> pq.ParquetFile:
    """Open one of ESCI's parquet files and check that it has `schema`'s columns and types.

    Raises:
        PipelineError: the file is missing, is a Git LFS pointer, is not parquet or damaged, lacks
            columns or has some of another type.
    """
    if not path.is_file():
        raise PipelineError(
            f"{path} is missing; sample.source must be a folder with {layout.EXAMPLES_FILE} and "
            f"{layout.PRODUCTS_FILE} (`make esci` brings the official ones to data/esci)"
        )
    with path.open("rb") as handle:
        if handle.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise PipelineError(
                f"{path} is a Git LFS pointer ({path.stat().st_size} bytes), not the data; "
                "run `make esci`, or `git lfs pull` in the clone it came from"
            )
    try:
        file = pq.ParquetFile(path, **tables.READ_OPTIONS)
        tables.check_footer(file, path, _REMEDY)
    except tables.READ_ERRORS as err:
        raise unreadable(path, err) from err
    found = file.schema_arrow
    wrong = []
    for field in schema:
        if found.names.count(field.name) > 1:
            wrong.append(f"column {field.name} stands {found.names.count(field.name)} times")
        elif field.name not in found.names:
            near = did_you_mean(field.name, set(found.names) - set(schema.names))
            wrong.append(f"column {field.name} is missing{near}")
        elif not _same_kind(found.field(field.name).type, field):
            wrong.append(
                f"column {field.name} has type {found.field(field.name).type}, "
                f"but {field.type} is expected"
            )
    if wrong:
        raise PipelineError(
            f"{path}: {'; '.join(wrong)}; the columns and types must be those of the official files"
        )
    return file


def read_batches(file: pq.ParquetFile, path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a file that `open_source` opened, in the columns and types of `schema`.

    Raises:
        PipelineError: the file is damaged, or a column holds a null though `schema` allows none.
    """
    nullable = pa.schema([field.with_nullable(True) for field in schema])
    required = [field.name for field in schema if not field.nullable]
    row = 0
    try:
        batches = file.iter_batches(BATCH_ROWS, columns=schema.names)
        for batch in tables.check_row_count(batches, file, path, _REMEDY):
            table = pa.Table.from_batches([batch]).select(schema.names).cast(nullable)
            _refuse_broken_text(table, row, path)
            row += len(table)
            _refuse_nulls(table, required, path)
            yield table
    except tables.READ_ERRORS as err:
        raise unreadable(path, err) from err


def read_examples(
    file: pq.ParquetFile, path: Path, settings: Sample, locales: Collection[str]
) -> tuple[pa.Table, pa.Table]:
    """Return the source's judgements of `locales` that pass the version and split filters.

    Every row of the file is checked, kept or not. Rows of other locales are told and left.

    Returns:
        The judgements, and how many the filters left out: columns product_locale, query_id,
        count_all.

    Raises:
        PipelineError: a null, a label other than E, S, C, I, or no row left for a locale.
    """
    nothing = pa.schema([field.with_nullable(True) for field in EXAMPLES]).empty_table()
    kept, left_out = [nothing], [_rows_by_query(nothing)]
    before: Counter[str] = Counter()
    for table in read_batches(file, path, EXAMPLES):
        _refuse_unknown_values(table, path)
        for entry in table["product_locale"].value_counts().to_pylist():
            before[entry["values"]] += entry["counts"]
        table = table.filter(
            pc.is_in(table["product_locale"], value_set=pa.array(locales, pa.string()))
        )
        mask = pc.is_in(table["split"], value_set=pa.array(settings.splits))
        if settings.version != "all":
            mask = pc.and_(mask, pc.equal(table[f"{settings.version}_version"], 1))
        kept.append(table.filter(mask))
        left_out.append(_rows_by_query(table.filter(pc.invert(mask))))
    examples = pa.concat_tables(kept)
    for locale in sorted(before.keys() - set(locales)):
        log.warning(
            "warning: %s: %d rows of locale %r are left out; params.yaml has no such locale%s",
            path, before[locale], locale, did_you_mean(locale, locales),
        )  # fmt: skip
    left = set(examples["product_locale"].unique().to_pylist())
    for locale in locales:
        if not before[locale]:
            found = ", ".join(sorted(before.keys() - set(locales)) + sorted(left)) or "nothing"
            raise PipelineError(
                f"{path}: column product_locale never holds {locale!r} (found: {found}); take "
                f"{locale} out of encoder, index and language in params.yaml, or add its rows"
            )
        if locale not in left:
            raise PipelineError(
                f"{path}: no query of locale {locale!r} is left after "
                f"sample.version={settings.version} and sample.splits={','.join(settings.splits)} "
                f"(rows before: {before[locale]}); widen them"
            )
    return examples, pa.concat_tables(left_out)


def read_product_ids(
    file: pq.ParquetFile, path: Path, locales: Collection[str]
) -> dict[str, set[str]]:
    """Return the product ids of each locale.

    Raises:
        PipelineError: a null id or locale, or a locale without products.
    """
    ids: dict[str, set[str]] = {locale: set() for locale in locales}
    columns = pa.schema(map(tables.SAMPLE_PRODUCTS.field, ("product_id", "product_locale")))
    for table in read_batches(file, path, columns):
        for locale, known in ids.items():
            known.update(of_locale(table, locale)["product_id"].to_pylist())
    for locale in locales:
        if not ids[locale]:
            raise PipelineError(
                f"{path}: column product_locale never holds {locale!r}; take {locale} out of "
                "encoder, index and language in params.yaml, or add its rows"
            )
    return ids


def read_sources(path: Path) -> pa.Table:
    """Return why the source holds each query: the columns of `tables.SAMPLE_SOURCES`.

    The file is optional: without it there are no rows.

    Raises:
        PipelineError: the file is not CSV with these columns, or gives a query two sources.
    """
    if not path.is_file():
        return tables.SAMPLE_SOURCES.empty_table()
    names = tables.SAMPLE_SOURCES.names
    types = {field.name: field.type for field in tables.SAMPLE_SOURCES}
    try:
        rows = pcsv.read_csv(
            path,
            convert_options=pcsv.ConvertOptions(
                column_types=types,
                include_columns=names,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as err:
        raise PipelineError(
            f"{path} is not readable as CSV with the columns {', '.join(names)} ({one_line(err)}); "
            "fetch or write it again, or remove it: it is optional"
        ) from err
    _refuse_nulls(rows, ["query_id"], path)
    rows = rows.group_by(names, use_threads=False).aggregate([])
    counts = rows["query_id"].value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise PipelineError(
            f"{path}: query_id {twice.field('values')[0]} has two sources; keep one row a query"
        )
    return rows.cast(tables.SAMPLE_SOURCES)


def of_locale(table: pa.Table, locale: str) -> pa.Table:
    """Return the rows of one locale."""
    return table.filter(pc.equal(table["product_locale"], locale))


def _rows_by_query(examples: pa.Table) -> pa.Table:
    keys = ["product_locale", "query_id"]
    return examples.select(keys).group_by(keys, use_threads=False).aggregate([([], "count_all")])


def _refuse_unknown_values(examples: pa.Table, path: Path) -> None:
    for column, allowed in (
        ("esci_label", tables.LABELS),
        ("split", ("train", "test")),
        ("small_version", (0, 1)),
        ("large_version", (0, 1)),
    ):
        known = pc.is_in(examples[column], value_set=pa.array(allowed, EXAMPLES.field(column).type))
        unknown = examples.filter(pc.invert(known))
        if len(unknown):
            raise PipelineError(
                f"{path}: column {column} holds {unknown[column][0].as_py()!r} "
                f"(example_id {unknown['example_id'][0]}); "
                f"only {', '.join(map(str, allowed))} are known: map or remove such rows"
            )


def _refuse_broken_text(table: pa.Table, first_row: int, path: Path) -> None:
    """Refuse text that is not UTF-8; `first_row` is where the table begins in its file."""
    for name in table.column_names:
        try:
            table[name].validate(full=True)
        except pa.ArrowInvalid as err:
            row, found = _first_broken(table[name])
            if found is None:
                raise unreadable(path, err) from err
            raise PipelineError(
                f"{path}: column {name} holds {shorten(found)} in row {first_row + row} (from 0), "
                "which is no text in UTF-8; write the file again with its texts in UTF-8"
            ) from err


def _first_broken(column: pa.ChunkedArray) -> tuple[int, bytes | None]:
    """Return the first row whose text is not UTF-8, and its bytes; None if there is none."""
    for row, value in enumerate(column):
        try:
            value.as_py()
        except UnicodeDecodeError as err:
            return row, bytes(err.object)
    return len(column), None


def _refuse_nulls(table: pa.Table, columns: Iterable[str], path: Path) -> None:
    for column in columns:
        if column.endswith("_id") and pc.any(pc.equal(table[column].cast(pa.string()), "")).as_py():
            raise PipelineError(
                f"{path}: column {column} holds an empty text; every row needs an id: fill or "
                "remove such rows"
            )
        if table[column].null_count:
            raise PipelineError(
                f"{path}: column {column} holds {table[column].null_count} null or more; "
                "every row needs a value there: fill or remove such rows"
            )


def _same_kind(found: pa.DataType, wanted: pa.Field) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_integer(wanted.type):
        # 64 bits without a sign may hold what the official files' type cannot.
        return bool(pa.types.is_integer(found) and found != pa.uint64())
    if wanted.nullable and pa.types.is_null(found):  # a column without a single value
        return True
    return found in (pa.string(), pa.large_string(), pa.string_view())


def unreadable(path: Path, err: Exception) -> PipelineError:
    """Return the error that names a file of the source which cannot be read."""
    return PipelineError(f"{path} is not readable as parquet ({one_line(err)}). {_REMEDY}")
