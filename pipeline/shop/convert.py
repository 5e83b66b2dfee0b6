"""A shop's columns to those of ESCI: pure functions of tables of text."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.errors import PipelineError, did_you_mean, shorten
from pipeline.sample.columns import EXAMPLES

PRODUCT_TEXTS = tuple(
    name for name in tables.SAMPLE_PRODUCTS.names if name not in ("product_id", "product_locale")
)
LABELS_NEEDED = ("query", "product_id", "esci_label")
LABELS_OPTIONAL = ("query_id", "split")

SPLITS = ("train", "test")

LARGEST_ID = 2**63 - 1


def rename(table: pa.Table, columns: Mapping[str, str], where: str) -> pa.Table:
    """Return a table with columns under ESCI's names.

    Args:
        table: as it was read.
        columns: the file's name of a column by ESCI's. Other columns keep theirs, and are left
            out where that is a name that is given.
        where: the file, for messages.

    Raises:
        PipelineError: a column is missing, or is given two names.
    """
    for name, theirs in columns.items():
        if theirs not in table.column_names:
            raise PipelineError(
                f"{where}: there is no column {shorten(theirs)} for {name} (found: "
                f"{', '.join(table.column_names)}){did_you_mean(theirs, table.column_names) or '.'}"
                " Correct --column."
            )
    named = {theirs: name for name, theirs in columns.items()}
    if len(named) < len(columns):
        twice = next(each for each in named if list(columns.values()).count(each) > 1)
        names = [name for name, theirs in columns.items() if theirs == twice]
        raise PipelineError(
            f"{where}: --column gives {shorten(twice)} to {' and to '.join(names)}. Give each its "
            "own column."
        )
    kept = [each for each in table.column_names if each in named or each not in columns]
    return table.select(kept).rename_columns([named.get(each, each) for each in kept])


def products(table: pa.Table, locale: str, where: str) -> pa.Table:
    """Return the products in ESCI's columns; a text column that the table lacks is empty.

    Raises:
        PipelineError: product_id is missing, or there is no column with a text.
    """
    _require(table, ("product_id",), where)
    _refuse_empty(table, "product_id", where)
    if not set(PRODUCT_TEXTS) & set(table.column_names):
        raise PipelineError(
            f"{where}: no column has a product's text (found: {', '.join(table.column_names)}). "
            "Name one, such as --column product_title=NAME."
        )
    nothing = pa.nulls(len(table), pa.string())
    columns = {
        name: table[name] if name in table.column_names else nothing
        for name in tables.SAMPLE_PRODUCTS.names
        if name != "product_locale"
    }
    columns["product_locale"] = pa.repeat(pa.scalar(locale), len(table))
    return pa.table(columns).cast(tables.SAMPLE_PRODUCTS)


def judgements(table: pa.Table, locale: str, labels: Mapping[str, str], where: str) -> pa.Table:
    """Return the judgements in ESCI's columns.

    Without query_id, queries are numbered by their text; one that is not a whole number is replaced
    likewise, so one query_id must have one text. Without split, all are of `test`.

    Args:
        table: the columns `LABELS_NEEDED`, perhaps `LABELS_OPTIONAL`.
        locale: whose they are.
        labels: ESCI's label by the shop's.
        where: the file, for messages.

    Raises:
        PipelineError: a column or a value is missing, or a label or a split is unknown.
    """
    _require(table, LABELS_NEEDED, where)
    for name in LABELS_NEEDED:
        _refuse_empty(table, name, where)
    count = len(table)
    given = table["esci_label"].to_pylist()
    known = {**dict(zip(tables.LABELS, tables.LABELS, strict=True)), **labels}
    if unknown := sorted(set(given) - known.keys()):
        listed = ", ".join(map(shorten, unknown[:6]))
        raise PipelineError(
            f"{where}: esci_label holds {listed}, which no label is known for. Map each, such as "
            f"--label {unknown[0]}=E; the labels are E, S, C and I."
        )
    ones = pa.repeat(pa.scalar(1, pa.int64()), count)
    rows = pa.table(
        {
            "query_id": _query_ids(table, where),
            "product_id": table["product_id"],
            "product_locale": pa.repeat(pa.scalar(locale), count),
            "esci_label": pa.array([known[label] for label in given]),
            "small_version": ones,
            "large_version": ones,
            "split": _splits(table, where),
            "query": table["query"],
        }
    )
    # The order of the file changes no number: an example is named by what it says.
    rows = rows.sort_by([(name, "ascending") for name in ("query_id", "product_id", "esci_label")])
    rows = rows.append_column("example_id", pa.array(range(1, count + 1), pa.int64()))
    return rows.select(EXAMPLES.names).cast(EXAMPLES)


def _splits(table: pa.Table, where: str) -> pa.ChunkedArray | pa.Array:
    if "split" not in table.column_names:
        return pa.repeat(pa.scalar("test"), len(table))
    _refuse_empty(table, "split", where)
    if unknown := sorted(set(table["split"].unique().to_pylist()) - set(SPLITS)):
        raise PipelineError(
            f"{where}: split must be train or test (found {', '.join(map(shorten, unknown[:6]))}). "
            "Correct it, or leave the column out."
        )
    return table["split"]


def _query_ids(table: pa.Table, where: str) -> pa.Array:
    texts = table["query"].to_pylist()
    if "query_id" not in table.column_names:
        number = {text: place for place, text in enumerate(sorted(set(texts)), 1)}
        return pa.array([number[text] for text in texts], pa.int64())
    _refuse_empty(table, "query_id", where)
    ids = table["query_id"].to_pylist()
    if all(_is_number(each) for each in ids):
        return pa.array([int(each) for each in ids], pa.int64())
    number = {each: place for place, each in enumerate(sorted(set(ids)), 1)}
    return pa.array([number[each] for each in ids], pa.int64())


def _is_number(text: str) -> bool:
    """Return whether a text is a whole number in the one form that reads back as itself."""
    return (
        text.isascii()
        and text.isdecimal()
        and len(text) < 20
        and (str(int(text)) == text and int(text) <= LARGEST_ID)
    )


def _require(table: pa.Table, names: tuple[str, ...], where: str) -> None:
    for name in names:
        if name not in table.column_names:
            near = did_you_mean(name, table.column_names)
            raise PipelineError(
                f"{where}: column {name} is missing (found: {', '.join(table.column_names)})"
                f"{near or '.'} Name it with --column {name}=NAME."
            )


def _refuse_empty(table: pa.Table, name: str, where: str) -> None:
    empty = pc.or_kleene(pc.is_null(table[name]), pc.equal(table[name], ""))
    count = pc.sum(empty).as_py() or 0
    if count:
        row = pc.index(empty, True).as_py() + 1
        raise PipelineError(
            f"{where}: column {name} is empty in {count} rows, the first of them row {row} of the "
            "data. Fill or remove them."
        )
