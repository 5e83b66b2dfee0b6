"""A run or judgements as somebody gives them: a TREC file, a parquet file or a frame, as columns.

Nothing is repaired here: what cannot be read in one way alone is refused with its place.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core import files, tables
from pipeline.core.errors import PipelineError, one_line, shorten

TREC_RUN = ("query_id", "iteration", "product_id", "rank", "score", "system")
TREC_QRELS = ("query_id", "iteration", "product_id", "grade")
PRODUCTS = ("product_id",)

LABEL_COLUMNS = ("label", "esci_label", "gain", "grade")
"""The columns of judgements, one of which there must be."""

READ = {"query_id", "product_id", "score", "rank", *LABEL_COLUMNS}
"""The columns of a parquet file that are read: others may be long texts."""

PARQUET = (".parquet", ".pq")
LINE = "line"
"""The column of a table from a TREC file that says where its rows come from."""

_LINES = pyarrow.csv.ParseOptions(
    delimiter="\x1f", quote_char=False, escape_char=False, ignore_empty_lines=False
)
# Text is large_string everywhere: a chunk of string ends at 2 GB.
_AS_TEXT = pyarrow.csv.ConvertOptions(
    column_types={LINE: pa.large_string()}, strings_can_be_null=False
)


class Frame(Protocol):
    """A frame of pandas, polars or Arrow: what hands its columns to Arrow."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the columns, as Arrow's PyCapsule interface has it."""


@dataclass(frozen=True)
class Given:
    """A table, the columns of its source, what messages call it, and whether it is a TREC file."""

    table: pa.Table
    columns: Sequence[str]
    where: str
    trec: bool

    def names(self, *wanted: str) -> list[str]:
        """Return which of some columns the table has."""
        return [name for name in wanted if name in self.columns]

    def wrong(self, row: int, what: str) -> PipelineError:
        """Return an error that names a row's place."""
        if self.trec:
            return PipelineError(f"{self.where}: line {self.table[LINE][row]}: {what}")
        return PipelineError(f"{self.where}: row {row} (from 0): {what}")

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, its text as large_string.

        Raises:
            PipelineError: it is missing, is there twice, has a null, or has text that is not UTF-8.
        """
        if (times := self.columns.count(name)) != 1:
            there = ", ".join(map(shorten, self.columns)) or "none"
            raise PipelineError(
                f"{self.where}: there must be one column {name} (found {times}; the columns are "
                f"{there}). Rename yours."
            )
        column = pa.chunked_array([_plain(chunk) for chunk in self.table[name].chunks])
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise self.wrong(row, f"{name} is missing (null or NaN). Fill it, or drop the row.")
        if is_text(column.type):
            self._refuse_broken_text(name, column)
        return column

    def _refuse_broken_text(self, name: str, column: pa.ChunkedArray) -> None:
        """Raise a `PipelineError` if text is not UTF-8: parquet and Arrow do not check it."""
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as err:
            for row, value in enumerate(column):
                try:
                    value.as_py()
                except UnicodeDecodeError as broken:
                    raise self.wrong(
                        row,
                        f"{name} is not UTF-8 (found {shorten(bytes(broken.object))}). Write its "
                        "texts in UTF-8.",
                    ) from err
            raise PipelineError(
                f"{self.where}: {name} is damaged ({one_line(err)}). Write it again."
            ) from err

    def ids(self, name: str) -> pa.ChunkedArray:
        """Return a column of ids as strings.

        Raises:
            PipelineError: as `column`; or it holds neither text nor integers, or an empty text.
        """
        column = self.column(name)
        if not (is_text(column.type) or pa.types.is_integer(column.type)):
            raise PipelineError(
                f"{self.where}: {name} must be text or integers (found {column.type}). Cast it."
            )
        ids = column.cast(pa.large_string())
        if (row := pc.index(ids, "").as_py()) >= 0:
            raise self.wrong(row, f"{name} is empty. Fill it, or drop the row.")
        return ids

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column of numbers, [rows].

        Raises:
            PipelineError: as `column`; or a value is no finite number.
        """
        column = self.column(name)
        kind = column.type
        fits = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not fits and not (self.trec and is_text(kind)):
            raise PipelineError(f"{self.where}: {name} must be numbers (found {kind}). Cast it.")
        try:
            found = np.asarray(column.cast(pa.float64()))
        except pa.ArrowInvalid:
            found = np.array([_number(str(value)) for value in column])
        if (unfit := np.flatnonzero(~np.isfinite(found))).size:
            row = int(unfit[0])
            raise self.wrong(
                row,
                f"{name} must be a finite number (found {shorten(column[row].as_py())}). Correct "
                "the run, or drop the row.",
            )
        return found


Source = str | os.PathLike[str] | Frame | Mapping[str, Any] | Given
"""A path of a TREC or parquet file; a frame, or a dict of columns; or what is read already."""


def read_given(source: Source, trec_columns: Sequence[str], what: str) -> Given:
    """Return what somebody gives as a table.

    Args:
        source: see `Source`. A path that ends in .parquet is parquet, any other a TREC file, also
            one that ends in .gz.
        trec_columns: the names of a TREC file's columns.
        what: what messages call a source without a path, such as "the run".

    Raises:
        PipelineError: the file or frame cannot be read, or has no rows.
    """
    if isinstance(source, Given):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        check_file(path, what)
        if path.suffix in PARQUET:
            given = _read_parquet(path)
        else:
            table = _read_lines(path, trec_columns, what)
            given = Given(table, trec_columns, str(path), trec=True)
    else:
        try:
            table = pa.table(source)
        except (TypeError, ValueError, OverflowError, pa.ArrowException) as err:
            raise PipelineError(
                f"{what} must be a path, or a frame of pandas, polars or Arrow (found "
                f"{type(source).__name__}: {one_line(err)}). Give one of them."
            ) from err
        given = Given(table, table.column_names, what, trec=False)
    if not len(given.table):
        raise _without_rows(given.where)
    return given


def check_file(path: Path, what: str) -> None:
    """Check that a file has something to read, without reading it; `what` as in `read_given`.

    Raises:
        PipelineError: it is missing, empty or no file, or cannot be reached.
    """
    if "\0" in str(path):
        raise PipelineError(f"{what}: {shorten(str(path))} is no path. Correct it.")
    if not files.check_regular(path, f"Name {what}: a TREC file or a parquet file."):
        raise _without_rows(str(path))


def _without_rows(where: str) -> PipelineError:
    return PipelineError(f"{where} has no rows. Name a file or frame that has some.")


def _read_parquet(path: Path) -> Given:
    # A file of anyone's need not have checksums, so `tables.read_table` does not fit.
    try:
        with pq.ParquetFile(path.absolute()) as file:  # Arrow takes a leading ~ for the home folder
            names = file.schema_arrow.names
            table = file.read(columns=[name for name in names if name in READ])
    except tables.READ_ERRORS as err:
        raise PipelineError(
            f"{path} is not readable as parquet ({one_line(err)}). Write it again."
        ) from err
    return Given(table, names, str(path), trec=False)


def _read_lines(path: Path, names: Sequence[str], what: str) -> pa.Table:
    """Return the columns of a file, split at white space as trec_eval splits it."""
    try:
        lines = pyarrow.csv.read_csv(
            path.absolute(),  # Arrow takes a leading ~ for the home folder
            pyarrow.csv.ReadOptions(column_names=[LINE], block_size=1 << 24),
            _LINES,
            _AS_TEXT,
        )[LINE]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
        other_bytes = isinstance(err, UnicodeDecodeError) or "UTF8" in str(err)
        remedy = "Write it again as UTF-8." if other_bytes else "Write it again."
        raise PipelineError(
            f"{path} is not readable as a TREC file ({one_line(err)}). {remedy}"
        ) from err
    trimmed = pc.ascii_trim_whitespace(lines).combine_chunks()
    filled = pc.not_equal(trimmed, "")
    numbers = pa.array(np.arange(1, len(trimmed) + 1)).filter(filled)
    parts = pc.ascii_split_whitespace(trimmed.filter(filled))
    lengths = np.asarray(pc.list_value_length(parts))
    if (wrong := np.flatnonzero(lengths != len(names))).size:
        row = int(wrong[0])
        raise PipelineError(
            f"{path}: line {numbers[row]} has {lengths[row]} columns, but a TREC file of {what} "
            f"has {len(names)}: {' '.join(names)}. Correct it, or give a frame with named columns."
        )
    values = parts.flatten()
    places = np.arange(0, len(values), len(names))
    columns = {name: values.take(pa.array(places + at)) for at, name in enumerate(names)}
    return pa.table({**columns, LINE: numbers})


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of strings."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _plain(array: pa.Array) -> pa.Array:
    """Return an array without categories, its text as large_string."""
    if pa.types.is_dictionary(array.type):  # Arrow cannot cast those of polars
        return _plain(array.dictionary).take(array.indices)
    return array.cast(pa.large_string()) if is_text(array.type) else array


def _number(text: str) -> float:
    if "_" in text or not text.isascii():  # Python reads 1_0 as 10
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return float("nan")
