"""A source's two tables, checked and read by streaming, and its small sources file."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from pipeline.core import tables
from pipeline.core.errors import PipelineError, did_you_mean, shorten
from pipeline.core.log import log
from pipeline.core.params import Sample
from pipeline.sample import absent, columns, spelling
from pipeline.sample.asker import SAMPLE, Asker
from pipeline.sample.columns import EXAMPLES, SourceFile
from pipeline.sample.forms import READ_ERRORS, brief, unreadable
from pipeline.sample.opening import is_file

BATCH_ROWS = 16_384
MOST_WARNINGS = 20
"""How many locales that params.yaml lacks have a line each."""


@dataclass(frozen=True)
class Examples:
    """The judgements of a source, and how many were left out."""

    rows: pa.Table
    """Those of the locales that pass the filters: the columns of EXAMPLES."""
    outside_filters: pa.Table
    """How many the filters left out: columns product_locale, query_id, count_all."""
    rows_by_locale: Mapping[str, int]
    """How many the file has of each locale, also of those that params.yaml does not name."""
    spellings_joined: Mapping[str, int]
    """How many spellings of each locale's queries gave way to another of the same text."""


def read_batches(file: SourceFile, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a table of a source, in the columns and types of `schema`.

    Raises:
        PipelineError: the file is damaged, or a column holds a null though `schema` allows none.
    """
    path, there = file.path, [field for field in schema if not file.lacks(field.name)]
    required = [field.name for field in there if not field.nullable]
    row = 0
    try:
        for found in file.form.batches([file.theirs[each.name] for each in there], BATCH_ROWS):
            table = pa.table(
                {
                    field.name: columns.to_type(column, field, path)
                    for field, column in zip(there, found.columns, strict=True)
                }
            )
            _refuse_broken_text(table, row, file)
            row += len(table)
            _refuse_nulls(table, required, path)
            if "query_id" in schema.names and file.lacks("query_id"):
                table = table.append_column("query_id", spelling.ids_of(table["query"]))
            yield columns.fill(table, file, schema)
    except READ_ERRORS as err:
        raise unreadable(path, file.form.name, err) from err


def read_examples(
    file: SourceFile,
    settings: Sample,
    locales: Collection[str],
    asker: Asker = SAMPLE,
) -> Examples:
    """Return the source's judgements of `locales` that pass the version and split filters.

    Every row of the file is checked, kept or not.

    Raises:
        PipelineError: a null, a label other than E, S, C, I, or no row left for a locale.
    """
    path = file.path
    nothing = pa.schema([field.with_nullable(True) for field in EXAMPLES]).empty_table()
    kept, left_out = [nothing], [_rows_by_query(nothing)]
    before: Counter[str] = Counter()
    for table in read_batches(file, EXAMPLES):
        table = _with_escis_labels(table, settings.labels, file, asker)
        _refuse_unknown_values(table, file)
        before += rows_by_locale(table)
        table = table.filter(
            pc.is_in(table["product_locale"], value_set=pa.array(locales, pa.string()))
        )
        mask = pc.is_in(table["split"], value_set=pa.array(settings.splits))
        if settings.version != "all":
            mask = pc.and_(mask, pc.equal(table[f"{settings.version}_version"], 1))
        kept.append(table.filter(mask))
        left_out.append(_rows_by_query(table.filter(pc.invert(mask))))
    examples, joined = pa.concat_tables(kept), Counter[str]()
    if file.lacks("query_id"):
        examples, joined = spelling.join_spellings(examples)
    left = set(examples["product_locale"].unique().to_pylist())
    for locale in locales if settings.queries != "none" else ():
        if not before[locale]:
            raise absent.no_rows(path, locale, before.keys(), asker, asker.search_only)
        if locale not in left:
            raise PipelineError(
                f"{path}: no query of locale {locale!r} is left after "
                f"{asker.section}.version={settings.version} and {asker.splits(settings.splits)} "
                f"(rows before: {before[locale]}). "
                f"{asker.without_split if file.lacks('split') else asker.widen}"
            )
    return Examples(examples, pa.concat_tables(left_out), before, joined)


def rows_by_locale(table: pa.Table) -> Counter[str]:
    """Return how many rows each product_locale has."""
    counts = table["product_locale"].value_counts().to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in counts})


def warn_of_other_locales(
    rows: Mapping[str, int], path: Path, locales: Collection[str]
) -> dict[str, int]:
    """Return the rows of locales that are not among `locales`, and warn of the first ones."""
    others = {locale: rows[locale] for locale in sorted(rows.keys() - set(locales))}
    for locale, count in itertools.islice(others.items(), MOST_WARNINGS):
        log.warning(
            "warning: %s: %d rows of locale %s are left out; params.yaml has no such locale%s",
            path, count, shorten(locale), did_you_mean(locale, locales),
        )  # fmt: skip
    if more := list(others.values())[MOST_WARNINGS:]:
        log.warning(
            "warning: %s: %d rows of %d more locales are left out", path, sum(more), len(more)
        )
    return others


def read_product_ids(
    file: SourceFile, locales: Collection[str], asker: Asker = SAMPLE
) -> dict[str, set[str]]:
    """Return the product ids of each locale.

    Raises:
        PipelineError: a null id or locale, or a locale without products.
    """
    ids: dict[str, set[str]] = {locale: set() for locale in locales}
    wanted = pa.schema(map(tables.SAMPLE_PRODUCTS.field, ("product_id", "product_locale")))
    found = set[str]()
    for table in read_batches(file, wanted):
        found.update(table["product_locale"].unique().to_pylist())
        for locale, known in ids.items():
            known.update(of_locale(table, locale)["product_id"].to_pylist())
    for locale in locales:
        if not ids[locale]:
            raise absent.no_rows(file.path, locale, found, asker)
    return ids


def read_sources(path: Path) -> pa.Table:
    """Return why the source holds each query: the columns of `tables.SAMPLE_SOURCES`.

    The file is optional: without it there are no rows.

    Raises:
        PipelineError: the file is not CSV with these columns, or gives a query two sources.
    """
    if not is_file(path):
        return tables.SAMPLE_SOURCES.empty_table()
    names = tables.SAMPLE_SOURCES.names
    options = pcsv.ConvertOptions(
        column_types={field.name: field.type for field in tables.SAMPLE_SOURCES},
        null_values=[""],
        strings_can_be_null=True,
    )
    try:
        # Arrow takes a leading ~ for the home folder.
        rows = pcsv.read_csv(path.absolute(), convert_options=options)
        if any(rows.column_names.count(name) != 1 for name in names):
            raise ValueError(f"its columns are {', '.join(rows.column_names)}")
    except READ_ERRORS as err:
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


def _with_escis_labels(
    examples: pa.Table, labels: Mapping[str, str], file: SourceFile, asker: Asker
) -> pa.Table:
    """Return judgements with ESCI's labels in place of the source's own.

    Raises:
        PipelineError: a label is not one that params.yaml names, or not one of ESCI's if it names
            none.
    """
    column = examples["esci_label"]
    known = labels or dict(zip(tables.LABELS, tables.LABELS, strict=True))
    unknown = sorted(set(column.unique().to_pylist()) - known.keys())
    if unknown:
        place = _place(examples, pc.index(column, unknown[0]).as_py(), file)
        more = f", and {', '.join(map(shorten, unknown[1:6]))}" if unknown[1:] else ""
        raise PipelineError(
            f"{file.path}: column esci_label holds {shorten(unknown[0])} ({place}){more}; only "
            f"{', '.join(known)} are known. Say what each of your labels means, such as "
            f"`{asker.label(unknown[0])}` (E exact, S substitute, C "
            "complement, I irrelevant), or remove such rows."
        )
    if not labels:
        return examples
    encoded = column.combine_chunks().dictionary_encode()
    meant = pa.array([labels[each] for each in encoded.dictionary.to_pylist()], pa.string())
    at = examples.column_names.index("esci_label")
    return examples.set_column(at, "esci_label", meant.take(encoded.indices))


def _refuse_unknown_values(examples: pa.Table, file: SourceFile) -> None:
    for column, allowed in (
        ("split", ("train", "test")),
        ("small_version", (0, 1)),
        ("large_version", (0, 1)),
    ):
        known = pc.is_in(examples[column], value_set=pa.array(allowed, EXAMPLES.field(column).type))
        if not pc.all(known).as_py():
            row = pc.index(known, False).as_py()
            raise PipelineError(
                f"{file.path}: column {column} holds {shorten(examples[column][row].as_py())} "
                f"({_place(examples, row, file)}); "
                f"only {', '.join(map(str, allowed))} are known. Map or remove such rows."
            )


def _place(examples: pa.Table, row: int, file: SourceFile) -> str:
    """Return how a judgement is found in the source."""
    if not file.lacks("example_id"):
        return f"example_id {examples['example_id'][row]}"
    query, product = (shorten(examples[name][row].as_py()) for name in ("query", "product_id"))
    return f"query {query}, product_id {product}"


def _refuse_broken_text(table: pa.Table, first_row: int, file: SourceFile) -> None:
    """Refuse text that is not UTF-8; `first_row` is where the table begins in its file."""
    for name in table.column_names:
        try:
            table[name].validate(full=True)
        except pa.ArrowInvalid as err:
            row, found = _first_broken(table[name])
            if found is None:
                raise unreadable(file.path, file.form.name, err) from err
            raise PipelineError(
                f"{file.path}: column {name} holds {shorten(found)} in row {first_row + row} "
                "(from 0), which is not UTF-8. Write the file again with its texts in UTF-8."
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
