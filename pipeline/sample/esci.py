"""ESCI's two parquet files, opened, checked and read by streaming, and its small sources file."""

import logging
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
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
"""The columns of the examples file: a judgement per row, the query's text in each."""

_REMEDY = "Fetch or write it again."
_READ_ERRORS = (*tables.READ_ERRORS, ValueError)
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Examples:
    """The judgements of a source, and how many were left out."""

    rows: pa.Table
    """Those of the locales that pass the filters: the columns of EXAMPLES."""
    outside_filters: pa.Table
    """How many the filters left out: columns product_locale, query_id, count_all."""
    other_locales: dict[str, int]
    """How many are of a locale that params.yaml does not name."""


@dataclass(frozen=True)
class Asker:
    """Which keys of params.yaml ask for a source and for locales, as messages name them."""

    section: str
    locales: str


SAMPLE = Asker("sample", "encoder, index and language")


def open_source(path: Path, schema: pa.Schema, asker: Asker = SAMPLE) -> pq.ParquetFile:
    """Open one of ESCI's parquet files and check that it has `schema`'s columns and types.

    Raises:
        PipelineError: the file is missing, is a folder or a Git LFS pointer, is not parquet or is
            damaged, lacks columns or has some of another type.
    """
    if not _is_file(path, asker):
        raise PipelineError(
            f"{path} is missing. {asker.section}.source must be a folder with "
            f"{layout.EXAMPLES_FILE} and {layout.PRODUCTS_FILE} (`make esci` brings the official "
            "ones to data/esci)."
        )
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_LFS_POINTER))
    except OSError as err:
        raise unreadable(path, err) from err
    if start == _LFS_POINTER:
        raise PipelineError(
            f"{path} is a Git LFS pointer ({path.stat().st_size} bytes), not the data. "
            "Run `make esci`, or `git lfs pull` in the clone it came from."
        )
    try:
        file = pq.ParquetFile(path, **tables.READ_OPTIONS)
        tables.check_footer(file, path, _REMEDY)
        found = file.schema_arrow
    except _READ_ERRORS as err:
        raise unreadable(path, err) from err
    wrong = list(_wrong_columns(found, schema))
    if wrong:
        stop = "" if wrong[-1].endswith("?") else "."
        raise PipelineError(
            f"{path}: {'; '.join(wrong)}{stop} The columns and types must be those of the official "
            "files. Write the file again."
        )
    return file


def _is_file(path: Path, asker: Asker = SAMPLE) -> bool:
    """Return whether there is a regular file at `path`; False if there is nothing.

    Raises:
        PipelineError: there is something else, or `path` cannot be a path.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as err:
        raise PipelineError(
            f"{shorten(str(path))} cannot be opened ({brief(err)}). Correct {asker.section}.source "
            "in params.yaml."
        ) from err
    if stat.S_ISDIR(mode):
        parts = sum(1 for _ in path.rglob("*.parquet"))
        raise PipelineError(
            f"{path} must be one file (found a folder with {parts} parquet files). Join them with "
            f"`python -c \"import pyarrow.parquet as pq; pq.write_table(pq.read_table('{path}'), "
            f"'joined.parquet')\"`, and put the result in the folder's place."
        )
    if not stat.S_ISREG(mode):
        raise PipelineError(
            f"{path} must be a regular file (found {stat.filemode(mode)}). Put a copy of the data "
            "in its place."
        )
    return True


def _wrong_columns(found: pa.Schema, schema: pa.Schema) -> Iterator[str]:
    for field in schema:
        if found.names.count(field.name) > 1:
            yield f"column {field.name} appears {found.names.count(field.name)} times"
        elif field.name not in found.names:
            near = did_you_mean(field.name, set(found.names) - set(schema.names))
            yield f"column {field.name} is missing{near}"
        elif not _same_kind(found.field(field.name).type, field):
            yield (
                f"column {field.name} has type {found.field(field.name).type}, "
                f"but {field.type} is expected"
            )


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
    except _READ_ERRORS as err:
        raise unreadable(path, err) from err


def read_examples(
    file: pq.ParquetFile,
    path: Path,
    settings: Sample,
    locales: Collection[str],
    asker: Asker = SAMPLE,
) -> Examples:
    """Return the source's judgements of `locales` that pass the version and split filters.

    Every row of the file is checked, kept or not.

    Raises:
        PipelineError: a null, a label other than E, S, C, I, or no row left for a locale.
    """
    nothing = pa.schema([field.with_nullable(True) for field in EXAMPLES]).empty_table()
    kept, left_out = [nothing], [_rows_by_query(nothing)]
    before: Counter[str] = Counter()
    for table in read_batches(file, path, EXAMPLES):
        _refuse_unknown_values(table, path)
        before += rows_by_locale(table)
        table = table.filter(
            pc.is_in(table["product_locale"], value_set=pa.array(locales, pa.string()))
        )
        mask = pc.is_in(table["split"], value_set=pa.array(settings.splits))
        if settings.version != "all":
            mask = pc.and_(mask, pc.equal(table[f"{settings.version}_version"], 1))
        kept.append(table.filter(mask))
        left_out.append(_rows_by_query(table.filter(pc.invert(mask))))
    examples = pa.concat_tables(kept)
    others = {locale: before[locale] for locale in sorted(before.keys() - set(locales))}
    left = set(examples["product_locale"].unique().to_pylist())
    for locale in locales:
        if not before[locale]:
            found = ", ".join([*sorted(others), *sorted(left)]) or "nothing"
            raise PipelineError(
                f"{path}: column product_locale never holds {locale!r} (found: {found}). Remove "
                f"{locale} from {asker.locales} in params.yaml, or add its rows."
            )
        if locale not in left:
            raise PipelineError(
                f"{path}: no query of locale {locale!r} is left after "
                f"{asker.section}.version={settings.version} and {asker.section}.splits="
                f"{','.join(settings.splits)} (rows before: {before[locale]}). Widen them."
            )
    return Examples(examples, pa.concat_tables(left_out), others)


def rows_by_locale(table: pa.Table) -> Counter[str]:
    """Return how many rows each product_locale has."""
    counts = table["product_locale"].value_counts().to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in counts})


def warn_of_other_locales(
    rows: Mapping[str, int], path: Path, locales: Collection[str]
) -> dict[str, int]:
    """Return the rows of locales that are not among `locales`, and warn of each."""
    others = {locale: rows[locale] for locale in sorted(rows.keys() - set(locales))}
    for locale, count in others.items():
        log.warning(
            "warning: %s: %d rows of locale %s are left out; params.yaml has no such locale%s",
            path, count, shorten(locale), did_you_mean(locale, locales),
        )  # fmt: skip
    return others


def read_product_ids(
    file: pq.ParquetFile, path: Path, locales: Collection[str], asker: Asker = SAMPLE
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
                f"{path}: column product_locale never holds {locale!r}. Remove {locale} from "
                f"{asker.locales} in params.yaml, or add its rows."
            )
    return ids


def read_sources(path: Path) -> pa.Table:
    """Return why the source holds each query: the columns of `tables.SAMPLE_SOURCES`.

    The file is optional: without it there are no rows.

    Raises:
        PipelineError: the file is not CSV with these columns, or gives a query two sources.
    """
    if not _is_file(path):
        return tables.SAMPLE_SOURCES.empty_table()
    names = tables.SAMPLE_SOURCES.names
    options = pcsv.ConvertOptions(
        column_types={field.name: field.type for field in tables.SAMPLE_SOURCES},
        null_values=[""],
        strings_can_be_null=True,
    )
    try:
        rows = pcsv.read_csv(path, convert_options=options)
        if any(rows.column_names.count(name) != 1 for name in names):
            raise ValueError(f"its columns are {', '.join(rows.column_names)}")
    except _READ_ERRORS as err:
        raise PipelineError(
            f"{path} is not readable as CSV with the columns {', '.join(names)} ({brief(err)}). "
            "Fetch or write it again, or remove it: it is optional."
        ) from err
    rows = rows.select(names)
    _refuse_nulls(rows, ["query_id"], path)
    rows = rows.group_by(names, use_threads=False).aggregate([])
    counts = rows["query_id"].value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise PipelineError(
            f"{path}: query_id {twice.field('values')[0]} has two sources. Keep one row per query."
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
                f"only {', '.join(map(str, allowed))} are known. Map or remove such rows."
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
                "which is not UTF-8. Write the file again with its texts in UTF-8."
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
                f"{path}: column {column} holds an empty text. Every row needs an id: fill or "
                "remove such rows."
            )
        if table[column].null_count:
            raise PipelineError(
                f"{path}: column {column} holds {table[column].null_count} null or more. "
                "Every row needs a value there: fill or remove such rows."
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
    return PipelineError(f"{path} is not readable as parquet ({brief(err)}). {_REMEDY}")


def brief(err: Exception) -> str:
    """Return a library's message in one line of 300 characters at most: it may quote the data."""
    text = one_line(err)
    return text if len(text) <= 300 else f"{text[:297]}..."
