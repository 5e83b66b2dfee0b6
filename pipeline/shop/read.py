"""A table of somebody's own: CSV, JSON Lines or parquet, every value as text.

Nothing is guessed: an id such as 00123 keeps its zeros, and a number is written as it was.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pipeline.core import tables
from pipeline.core.errors import PipelineError, one_line, shorten

_SEPARATORS = (",", ";", "\t", "|")
_READ_ERRORS = (*tables.READ_ERRORS, ValueError)


def read_texts(path: Path) -> pa.Table:
    """Return a file's columns as text; the file's ending says what it is.

    A CSV file has a header, one of the separators `,`, `;`, tab and `|`, and is UTF-8. A line of
    JSON Lines is an object; a key that a line lacks is null there. Numbers become the text that
    JSON gives them, true and false likewise; other values than these are refused.

    Raises:
        PipelineError: the file is missing or unreadable, or has another form.
    """
    readers = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PipelineError(
            f"{path}: the name must end in {', '.join(readers)} (found {shorten(path.suffix)}). "
            "Rename the file, or write it in one of these forms."
        )
    if not path.is_file():
        raise PipelineError(f"{path} is not a file. Give the path of a table.")
    try:
        table = reader(path)
    except _READ_ERRORS as err:
        raise PipelineError(
            f"{path} is not readable as {path.suffix[1:]} ({one_line(err)}). Write it again."
        ) from err
    repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
    if repeated:
        raise PipelineError(
            f"{path}: the column {shorten(min(repeated))} appears more than once. Rename one."
        )
    if not len(table):
        raise PipelineError(f"{path} has no rows. Write it again.")
    return table


def _read_csv(path: Path) -> pa.Table:
    with path.open("rb") as handle:
        start = handle.read(1 << 16)
    try:
        header = start.decode("utf-8-sig", "strict" if len(start) < 1 << 16 else "ignore")
    except UnicodeDecodeError as err:
        raise PipelineError(
            f"{path} is not UTF-8 (byte {err.start} is {start[err.start]:#04x}). Convert it, such "
            f"as with `iconv --from-code latin1 --to-code utf-8 {path}`."
        ) from err
    separator = _separator(header)
    names = next(csv.reader(header.splitlines(), delimiter=separator), [])
    return pcsv.read_csv(
        path,
        parse_options=pcsv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pcsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


def _separator(text: str) -> str:
    """Return the separator that the header has most of; a comma where it has none."""
    first = text.partition("\n")[0]
    return max(_SEPARATORS, key=first.count)


def _read_json_lines(path: Path) -> pa.Table:
    columns: dict[str, list[str | None]] = {}
    for count, (number, row) in enumerate(_objects(path)):
        for name in row.keys() - columns.keys():
            columns[name] = [None] * count
        for name, values in columns.items():
            values.append(_text(row.get(name), f"{path}: line {number}, {name}"))
    return pa.table({name: pa.array(each, pa.string()) for name, each in columns.items()})


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_float=str, parse_int=str)
            except (ValueError, RecursionError) as err:
                raise PipelineError(
                    f"{path}: line {number} is not JSON ({one_line(err)}). Write it again."
                ) from err
            if not isinstance(row, dict):
                raise PipelineError(
                    f"{path}: line {number} must be an object (found {shorten(row)}). Write one "
                    "object per line."
                )
            yield number, row


def _text(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    raise PipelineError(f"{where} must be a text or a number (found {shorten(value)}). Flatten it.")


def _read_parquet(path: Path) -> pa.Table:
    table = pq.read_table(path, **tables.READ_OPTIONS)
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        try:
            columns.append(column.cast(pa.string()))
        except _READ_ERRORS as err:
            raise PipelineError(
                f"{path}: column {field.name} has the type {field.type}, which has no text. Write "
                f'it as text, in pandas with `frame["{field.name}"].astype("string")`, in polars '
                f'with `pl.col("{field.name}").cast(pl.String)`; or leave it out.'
            ) from err
    return pa.table(columns, names=table.column_names)
