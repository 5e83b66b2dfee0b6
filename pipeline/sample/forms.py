"""A table of a source as it is on disk: parquet, CSV or JSON Lines, streamed.

The values of CSV and JSON Lines are texts as they are written: the id 00123 keeps its zeros.
"""

import csv
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pipeline.core import tables
from pipeline.core.errors import LONGEST_CAUSE, PipelineError, one_line, shorten
from pipeline.core.files import without_repeats
from pipeline.sample.encoding import refuse_encoding, refuse_half_a_character

REMEDY = "Fetch or write it again."
READ_ERRORS = (*tables.READ_ERRORS, ValueError)

_SEPARATORS = (",", ";", "\t", "|")
_BLOCK_BYTES = 16 << 20
_LONGEST_CELL = (1 << 31) - 1


class Form(Protocol):
    """A table on disk.

    Attributes:
        path: the file.
        name: the form's name, for messages.
        has_types: whether values have types; else all are texts.
        schema: the file's own columns.
        rows: how many there are.
    """

    path: Path
    name: str
    has_types: bool
    schema: pa.Schema
    rows: int

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield some columns, by their names, in pieces of about `rows` rows."""

    def bytes_of(self, names: Collection[str]) -> int:
        """Return about how many bytes these columns have."""


def open_form(path: Path) -> Form:
    """Open a table; the file's ending says its form.

    Raises:
        PipelineError: the file is damaged, or is not UTF-8.
    """
    kind = _FORMS.get(path.suffix.lower(), Parquet)
    try:
        return kind(path)
    except READ_ERRORS as err:
        raise unreadable(path, kind.name, err) from err


class Parquet:
    """A parquet file, read by row groups."""

    name = "parquet"
    has_types = True

    def __init__(self, path: Path) -> None:
        """Read the footer and check it."""
        self.path = path
        # Arrow takes a leading ~ for the home folder.
        self._file = pq.ParquetFile(path.absolute(), **tables.READ_OPTIONS)
        tables.check_footer(self._file, path, REMEDY)
        self.schema: pa.Schema = self._file.schema_arrow
        self.rows = int(self._file.metadata.num_rows)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield some columns; raise a `PipelineError` at the end if rows are missing."""
        pieces = self._file.iter_batches(rows, columns=list(names))
        for batch in tables.check_row_count(pieces, self._file, self.path, REMEDY):
            yield pa.Table.from_batches([batch]).select(list(names))

    def bytes_of(self, names: Collection[str]) -> int:
        """Return the bytes of these columns by the footer, which counts them."""
        footer = self._file.metadata
        groups = map(footer.row_group, range(footer.num_row_groups))
        columns = (group.column(number) for group in groups for number in range(group.num_columns))
        return int(sum(c.total_uncompressed_size for c in columns if c.path_in_schema in names))


class Csv:
    """A CSV file in UTF-8 with a header, whose separator is `,`, `;`, tab or `|`."""

    name = "CSV"
    has_types = False

    def __init__(self, path: Path) -> None:
        """Read the header, and check the encoding and the quotes of the whole file."""
        refuse_encoding(path)
        self.path = path
        with path.open(encoding="utf-8-sig", newline="") as handle:
            # As Arrow has it: an empty line is none, and one of blanks is the header.
            header = next((line for line in handle if line.strip("\r\n")), "")
        self.separator = max(_SEPARATORS, key=header.count)
        names = next(csv.reader([header], delimiter=self.separator), [])
        self.schema = pa.schema([(each, pa.string()) for each in names])
        self.rows = _count_rows(path, self.separator)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield some columns as texts; an empty cell is null."""
        count = 0
        with pcsv.open_csv(
            self.path.absolute(),  # Arrow takes a leading ~ for the home folder
            read_options=pcsv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pcsv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
            convert_options=pcsv.ConvertOptions(
                include_columns=list(names),
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        ) as reader:
            for block in reader:
                count += block.num_rows
                for start in range(0, block.num_rows, rows):
                    yield pa.Table.from_batches([block.slice(start, rows)])
        if count != self.rows:
            raise PipelineError(
                f"{self.path} must have {self.rows} rows (found {count}): the file is damaged. "
                f"{REMEDY}"
            )

    def bytes_of(self, names: Collection[str]) -> int:
        """Return the share of the file that these columns have, if all are equally long."""
        return _share_of(self, names)


class JsonLines:
    """A JSON object per line; a key that a line lacks is null there."""

    name = "JSON Lines"
    has_types = False

    def __init__(self, path: Path) -> None:
        """Read every line: any may have a key that no other has."""
        refuse_encoding(path)
        self.path = path
        keys: dict[str, None] = {}
        self.rows = 0
        for number, row in self._objects():
            for key in row.keys() - keys.keys():
                refuse_half_a_character(key, f"{path}: line {number}, key {shorten(key)}")
            keys |= dict.fromkeys(row)
            self.rows += 1
        self.schema = pa.schema([(each, pa.string()) for each in keys])

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield some columns as texts; an empty text is null, a number is as it is written."""
        values: dict[str, list[str | None]] = {name: [] for name in names}
        count = 0
        for number, row in self._objects():
            for name, column in values.items():
                column.append(_text(row.get(name), f"{self.path}: line {number}, {name}"))
            count += 1
            if count % rows == 0:
                yield _text_table(values)
                values = {name: [] for name in names}
        if count % rows:
            yield _text_table(values)

    def bytes_of(self, names: Collection[str]) -> int:
        """Return the share of the file that these columns have, if all are equally long."""
        return _share_of(self, names)

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(
                        line, parse_float=str, parse_int=str, object_pairs_hook=without_repeats
                    )
                except (ValueError, RecursionError) as err:
                    raise PipelineError(
                        f"{self.path}: line {number} is not JSON ({brief(err)}). Write one object "
                        "per line, each key once: pandas does with `frame.to_json(PATH, "
                        "orient='records', lines=True)`, polars with `frame.write_ndjson(PATH)`."
                    ) from err
                if not isinstance(row, dict):
                    raise PipelineError(
                        f"{self.path}: line {number} must be an object (found {shorten(row)}). "
                        "Write one object per line."
                    )
                yield number, row


class Nothing:
    """No file: a table of some columns without a row."""

    name = "nothing"
    has_types = True
    rows = 0

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Take the place of the table that would be at `path`."""
        self.path = path
        self.schema = schema

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yield nothing."""
        yield from ()

    def bytes_of(self, names: Collection[str]) -> int:
        """Return 0."""
        return 0


_FORMS: dict[str, type[Parquet] | type[Csv] | type[JsonLines]] = {
    ".parquet": Parquet,
    ".csv": Csv,
    ".tsv": Csv,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
}

ENDINGS = tuple(_FORMS)
"""The endings of the files that a source may have."""


def _text_table(columns: dict[str, list[str | None]]) -> pa.Table:
    return pa.table({name: pa.array(each, pa.string()) for name, each in columns.items()})


def _text(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        refuse_half_a_character(value, where)
        return value
    if isinstance(value, float):  # numbers are read as texts: this is none
        raise PipelineError(
            f"{where} is {json.dumps(value)}, which JSON does not have. Write null there."
        )
    raise PipelineError(f"{where} must be a text or a number (found {shorten(value)}). Flatten it.")


def _share_of(form: Form, names: Collection[str]) -> int:
    share = len(set(names) & set(form.schema.names)) / max(len(form.schema.names), 1)
    return int(form.path.stat().st_size * share)


def _count_rows(path: Path, separator: str) -> int:
    """Return how many rows a CSV file has below its header.

    Arrow's reader takes a quote that is never closed for a cell that has all the rows after it.

    Raises:
        PipelineError: a quote is not closed, or has text behind it.
    """
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = csv.reader(handle, delimiter=separator, strict=True)
            try:
                return max(sum(1 for row in rows if row) - 1, 0)
            except csv.Error as err:
                raise PipelineError(
                    f"{path}: the quotes are not in pairs by line {rows.line_num} ({err}). Close a "
                    "cell that begins with a quote by a quote, and double a quote within it, as "
                    "pandas and polars write it."
                ) from err
    finally:
        csv.field_size_limit(limit)


def unreadable(path: Path, form: str, err: Exception) -> PipelineError:
    """Return the error that names a file of the source which cannot be read."""
    return PipelineError(f"{path} is not readable as {form} ({brief(err)}). {REMEDY}")


def brief(err: Exception) -> str:
    """Return a library's message in one line of 300 characters at most: it may quote the data."""
    text = one_line(err)
    return text if len(text) <= LONGEST_CAUSE else f"{text[: LONGEST_CAUSE - 3]}..."
