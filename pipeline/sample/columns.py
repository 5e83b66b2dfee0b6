"""The columns of a source's table under ESCI's names: which it has, and what fills the others."""

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.core import tables
from pipeline.core.errors import PipelineError, did_you_mean, shorten
from pipeline.sample.asker import Asker
from pipeline.sample.encoding import separator_hint
from pipeline.sample.forms import Form

EXAMPLES = pa.schema([*tables.SAMPLE_JUDGEMENTS, tables.SAMPLE_QUERIES.field("query")])
"""The columns of the examples file: a judgement per row, the query's text in each."""

TEXTS = tuple(field.name for field in tables.SAMPLE_PRODUCTS if field.nullable)
"""The columns that a product's text is made of; a source may lack all but one."""

IDS = ("example_id", "query_id")
"""Ids that are numbers, or texts whose hash is the number."""

SHARED = ("product_id", "product_locale")
"""Columns that both tables have."""

NEEDED = ("product_id", "query", "esci_label")
"""Columns that nothing can fill."""

QUERY_ID_BITS = 53
"""As many as a number in a browser has."""
EXAMPLE_ID_BITS = 62

_NEAR = 0.9
_LISTED = 20


@dataclass(frozen=True)
class SourceFile:
    """A table of the source, open, whose columns are known.

    Attributes:
        form: the table on disk.
        theirs: its own name of a column by ESCI's, for the columns that it has.
        locale: the locale of all rows, where it has no column for it.
    """

    form: Form
    theirs: Mapping[str, str]
    locale: str | None

    @property
    def path(self) -> Path:
        """The file."""
        return self.form.path

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.form.rows

    def lacks(self, name: str) -> bool:
        """Return whether a column of ESCI's is not there, and is filled."""
        return name not in self.theirs


def match(
    form: Form,
    schema: pa.Schema,
    columns: Mapping[str, str],
    needed: Mapping[str, str],
    asker: Asker,
) -> dict[str, str]:
    """Return the table's own name of each of ESCI's columns that it has.

    Args:
        form: the table.
        schema: ESCI's columns.
        columns: the own name of some of them, from params.yaml.
        needed: which must be there, with what to do otherwise ("" if it is only to name it).
        asker: the keys of params.yaml, for messages.

    Raises:
        PipelineError: a column is missing, has another type or is there twice.
    """
    found, theirs = form.schema, dict[str, str]()
    wrong, ways = list[str](), list[str]()
    taken = set(columns.values())
    free = set(found.names) - set(schema.names) - taken
    for field in schema:
        name, own = field.name, columns.get(field.name, field.name)
        if name in SHARED and own not in found.names:
            own = name
        if own != name and name in SHARED and name in found.names:
            named = f"which {asker.columns} names for {name}"
            wrong.append(f"it has both {shorten(own)}, {named}, and {name}")
            ways.append("Rename or drop one of the two.")
        elif own in found.names and (name in columns or name not in taken):
            theirs[name] = own
            problem, way = _wrong_type(name, own, form, field)
            wrong += [problem] * bool(problem)
            ways.append(way)
        elif own != name:
            near, named = did_you_mean(own, found.names), f"{asker.columns} names"
            wrong.append(f"{named} {shorten(own)} for {name}, which is not there{near}")
        elif name in needed:
            wrong.append(f"column {name} is missing{did_you_mean(name, free)}")
            ways.append(needed[name])
        elif other := _nearly(name, free):
            wrong.append(f"column {name} is missing; did you mean {other!r}?")
            ways.append(f"If {other} is something else, give it another name.")
    if wrong:
        raise _mismatch(form, wrong, ways, asker)
    return theirs


def _mismatch(form: Form, wrong: list[str], ways: list[str], asker: Asker) -> PipelineError:
    stop = "" if wrong[-1].endswith("?") else "."
    parts = [f"{form.path}: {'; '.join(wrong)}{stop}", *filter(None, dict.fromkeys(ways))]
    if any("missing" in each or "not there" in each for each in wrong):
        names = form.schema.names
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        listed = ", ".join(map(shorten, names[:_LISTED]))
        parts.append(
            f"Name your column for each, such as `{asker.column('product_title')}` (found: "
            f"{listed}{more}). Or write the file again."
        )
    else:
        parts.append(
            "The columns and types must be those of the official files. Write the file again."
        )
    hint = separator_hint(form.path, form.schema.names) if form.name == "CSV" else ""
    return PipelineError(" ".join(parts) + hint)


def _nearly(name: str, others: Collection[str]) -> str | None:
    """Return which of the file's other columns is a column of ESCI's with an error in its name."""

    def like(first: str, second: str) -> float:
        return difflib.SequenceMatcher(None, first, second).ratio()

    def end(text: str) -> str:
        return text.removeprefix("product_").removesuffix("s")

    for other in sorted(others):
        if max(like(name, other), like(end(name), end(other))) >= _NEAR:
            return other
        if _one_error(end(name), end(other)):
            return other
    return None


def _one_error(first: str, second: str) -> bool:
    """Return whether one letter is another, as by a flipped bit, or two are swapped."""
    if len(first) != len(second):
        return False
    unlike = sum(one != other for one, other in zip(first, second, strict=True))
    return unlike <= 1 or (unlike == 2 and sorted(first) == sorted(second))


def _wrong_type(name: str, own: str, form: Form, field: pa.Field) -> tuple[str, str]:
    """Return what is wrong with a column's type, and the line that mends it; two empty texts."""
    found = form.schema
    shown = name if own == name else f"{name} ({shorten(own)})"
    if found.names.count(own) > 1:
        return f"column {shown} appears {found.names.count(own)} times", ""
    kind = found.field(own).type
    if not form.has_types or same_kind(kind, field):
        return "", ""
    wrong = f"column {shown} has type {kind}, but {field.type} is expected"
    if not pa.types.is_primitive(kind):
        return wrong, ""
    if pa.types.is_integer(field.type):
        pandas, polars = 'astype("int64")', "cast(pl.Int64)"
    elif pa.types.is_floating(kind):  # 17.0 is the number 17 with nulls beside it
        pandas, polars = 'astype("Int64").astype("string")', "cast(pl.Int64).cast(pl.String)"
    else:
        pandas, polars = 'astype("string")', "cast(pl.String)"
    return wrong, (
        f'Convert {own} before you write the file: in pandas `frame["{own}"] = '
        f'frame["{own}"].{pandas}`, in polars `frame = frame.with_columns(pl.col("{own}").'
        f"{polars})`{'; fill what is null' if not field.nullable else ''}."
    )


def same_kind(found: pa.DataType, wanted: pa.Field) -> bool:
    """Return whether a column's type can be read as the wanted one without a loss."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    is_text = found in (pa.string(), pa.large_string(), pa.string_view())
    # 64 bits without a sign may hold what the official files' type cannot.
    is_number = pa.types.is_integer(found) and found != pa.uint64()
    if pa.types.is_integer(wanted.type):
        return bool(is_number or (is_text and wanted.name in IDS))
    if wanted.nullable and pa.types.is_null(found):  # a column without a single value
        return True
    return bool(is_text or (is_number and wanted.name == "esci_label"))


def to_type(values: pa.ChunkedArray, field: pa.Field, path: Path) -> pa.ChunkedArray:
    """Return a column in ESCI's type.

    Raises:
        PipelineError: a text is no number, where a number must be.
    """
    is_text = not pa.types.is_integer(_plain(values.type)) and pa.types.is_integer(field.type)
    if not is_text:
        return values.cast(field.type)
    texts = values.cast(pa.string())
    if field.name in IDS:
        return by_value(texts, _id_of)
    for text in texts.unique().to_pylist():
        if text is not None and text not in ("0", "1"):
            raise PipelineError(
                f"{path}: column {field.name} holds {shorten(text)}; only 0, 1 are known. Map or "
                "remove such rows."
            )
    return texts.cast(field.type)


def fill(table: pa.Table, file: SourceFile, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema, of which it may lack those that can be filled.

    An example without example_id is named by the hash of what it says, which does not depend on
    the order or the other rows of the file. `spelling.ids_of` names queries.
    """
    fields = [field for field in schema if field.name not in table.column_names]
    for field in sorted(fields, key=lambda each: each.name == "example_id"):
        table = table.append_column(field.name, pa.chunked_array([_filling(field, table, file)]))
    return table.select(schema.names)


def _filling(field: pa.Field, table: pa.Table, file: SourceFile) -> pa.Array:
    count = len(table)
    match field.name:
        case "example_id":
            names = ("query_id", "product_id", "esci_label")
            rows = zip(*(table[name].cast(pa.string()).to_pylist() for name in names), strict=True)
            ids = [hashed("\n".join(row), EXAMPLE_ID_BITS) for row in rows]
            return pa.array(ids, pa.int64())
        case "product_locale":
            return pa.repeat(pa.scalar(file.locale, pa.string()), count)
        case "split":
            return pa.repeat(pa.scalar("test"), count)
        case "small_version" | "large_version":
            return pa.repeat(pa.scalar(0, pa.int64()), count)
        case _:
            return pa.nulls(count, field.type)


def by_value(texts: pa.ChunkedArray, number: Callable[[str], int]) -> pa.ChunkedArray:
    """Return the number of each text, computed once for each that is different; null stays null."""
    encoded = texts.combine_chunks().dictionary_encode()
    numbers = pa.array([number(text) for text in encoded.dictionary.to_pylist()], pa.int64())
    return pa.chunked_array([numbers.take(encoded.indices)])


def hashed(text: str, bits: int) -> int:
    """Return a number of so many bits that a text is known by."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) >> (64 - bits)


def _id_of(text: str) -> int:
    """Return the whole number that a text is, if it reads back as that text; its hash otherwise."""
    if text.isascii() and text.isdecimal() and len(text) < 20 and str(int(text)) == text:
        return int(text) if int(text) < 1 << 63 else hashed(text, QUERY_ID_BITS)
    return hashed(text, QUERY_ID_BITS)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def unused(columns: Mapping[str, str], opened: Collection[SourceFile]) -> Iterator[str]:
    """Say which names of params.yaml no table has."""
    for name, own in columns.items():
        if not any(file.theirs.get(name) == own for file in opened):
            yield f"{name}: {own}"
