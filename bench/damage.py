"""Damage to files, drawn at random: by bytes, and within JSON and parquet."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.tables import WRITE_OPTIONS

Random = np.random.Generator


@dataclass(frozen=True)
class Damage:
    """What is done to a file.

    `may_mean_more`: the file may then say something else that is as good, such as another digit
    in a JSON file, which a person may edit.
    """

    name: str
    apply: Callable[[Random, Path], None]
    may_mean_more: bool = False


def flip_bits(rng: Random, path: Path) -> None:
    """Flip one bit, or up to eight."""
    data = bytearray(path.read_bytes())
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def cut(rng: Random, path: Path) -> None:
    """Cut the end off."""
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(len(data)))])


def splice(rng: Random, path: Path) -> None:
    """Take a piece out, put a random piece in, or move one."""
    data = path.read_bytes()
    first, last = sorted(int(each) for each in rng.integers(len(data) + 1, size=2))
    last = min(last, first + int(rng.integers(1, 200)))
    piece = data[first:last]
    at = int(rng.integers(len(data) + 1))
    match int(rng.integers(4)):
        case 0:
            data = data[:first] + data[last:]
        case 1:
            data = data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]
        case 2:
            data = data[:at] + piece + data[at:]
        case _:
            data = data[:first] + bytes(last - first) + data[last:]
    path.write_bytes(data)


def exchange(rng: Random, path: Path, others: Sequence[Path]) -> None:
    """Put another file of the project in its place."""
    path.write_bytes(others[int(rng.integers(len(others)))].read_bytes())


def misplace(rng: Random, path: Path) -> None:
    """Put something else in its place: nothing, a folder, a pipe, a link in a circle, zeros."""
    path.unlink()
    match int(rng.integers(5)):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path.name)
        case 2:
            path.write_bytes(bytes(int(rng.integers(0, 1000))))
        case 3:
            path.symlink_to("/dev/null")
        case _:
            pass


_JSON_VALUES = (
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"1" + b"0" * 30, b"1" + b"0" * 400, b"9" * 5_000,
    b"[" * 100_000, b"[" * 100 + b"]" * 100, b'"\\ud800"', b"'x'", b"tru", b"", b"{", b"0x1f",
    b'{"\\udfff": 1}', b"{} {}", b"\xff", b"-", b"\x00",
)  # fmt: skip
_JSON_TYPES: tuple[Any, ...] = (
    None, True, "text", "", [], {}, [None], {"a": [1]}, -1, 7.5, -0.5, 2**62, 1e300,
)  # fmt: skip


def break_json_value(rng: Random, path: Path) -> None:
    """Replace one value by what JSON cannot hold, or no artefact."""
    _replace_json_value(rng, path, _JSON_VALUES[int(rng.integers(len(_JSON_VALUES)))])


def change_json_type(rng: Random, path: Path) -> None:
    """Replace one value by one of another type or range."""
    value = _JSON_TYPES[int(rng.integers(len(_JSON_TYPES)))]
    _replace_json_value(rng, path, json.dumps(value).encode())


def _replace_json_value(rng: Random, path: Path, by: bytes) -> None:
    data = json.loads(path.read_bytes())
    places = list(_places(data))
    if not places:
        path.write_bytes(by)
        return
    inside, key = places[int(rng.integers(len(places)))]
    inside[key] = mark = "here it goes"
    path.write_bytes(json.dumps(data).encode().replace(json.dumps(mark).encode(), by))


def change_json_keys(rng: Random, path: Path) -> None:
    """Remove a key, rename it, repeat it or add one."""
    data = json.loads(path.read_bytes())
    places = [(inside, key) for inside, key in _places(data) if isinstance(inside, dict)]
    if not places:
        path.write_bytes(b"{}")
        return
    inside, key = places[int(rng.integers(len(places)))]
    match int(rng.integers(4)):
        case 0:
            del inside[key]
        case 1:
            inside[key[:-1] + "x"] = inside.pop(key)
        case 2:
            inside["one more"] = 1
        case _:
            inside["again"] = 1
            text = json.dumps(data).encode()
            path.write_bytes(text.replace(b'"again"', json.dumps(key).encode()))
            return
    path.write_bytes(json.dumps(data).encode())


def _places(data: Any) -> Any:
    """Yield every container and key in it."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield data, key
            yield from _places(value)


def change_columns(rng: Random, path: Path) -> None:
    """Write a parquet file again with a column of another type, name or place, or without it."""
    table = pq.read_table(path)
    at = int(rng.integers(table.num_columns))
    name = table.column_names[at]
    match int(rng.integers(6)):
        case 0:
            table = table.drop_columns([name])
        case 1:
            names = [f"{each}x" if each == name else each for each in table.column_names]
            table = table.rename_columns(names)
        case 2:
            table = table.set_column(at, name, pa.array([[1]] * len(table)))
        case 3:
            table = table.select([*table.column_names[1:], table.column_names[0]])
        case 4:
            table = table.append_column("one_more", pa.array([1] * len(table), pa.int64()))
        case _:
            kind = pa.int64() if pa.types.is_string(table[name].type) else pa.string()
            table = table.set_column(at, name, pa.array([None] * len(table), kind))
    pq.write_table(table, path, **WRITE_OPTIONS)


def change_cells(rng: Random, path: Path) -> None:
    """Write a parquet file again with a null, NaN, number out of range or text in some cells."""
    table = pq.read_table(path)
    at = int(rng.integers(table.num_columns))
    field = table.schema.field(at)
    values = table.column(at).to_pylist()
    odd: tuple[Any, ...] = (None,)
    if pa.types.is_floating(field.type):
        odd = (None, float("nan"), float("inf"), -1e30, 7.5)
    elif pa.types.is_integer(field.type):
        odd = (None, -1, 2**31 - 1, -(2**31))
    elif pa.types.is_string(field.type):
        odd = (None, "", "\x00", "no such")
    for _ in range(int(rng.integers(1, 4)) if values else 0):  # the pool of another engine is empty
        values[int(rng.integers(len(values)))] = odd[int(rng.integers(len(odd)))]
    field = field.with_nullable(True)
    table = table.set_column(at, field, pa.array(values, field.type))
    pq.write_table(table, path, **WRITE_OPTIONS)


def of_file(path: Path, others: Sequence[Path]) -> list[Damage]:
    """Return the damage that may be done to a file.

    Args:
        path: the file.
        others: files of the same ending, whose contents it may get.
    """
    text = path.suffix in (".json", ".csv", ".yaml")
    found = [
        Damage("bits", flip_bits, text),
        Damage("cut", cut, path.suffix in (".csv", ".yaml")),
        Damage("splice", splice, text),
        Damage("misplace", misplace),
    ]
    if others:
        found.append(Damage("exchange", lambda rng, path: exchange(rng, path, others), text))
    if path.suffix == ".json":
        found += [
            Damage("JSON value", break_json_value),
            Damage("JSON type", change_json_type, True),
            Damage("JSON keys", change_json_keys, True),
        ]
    if path.suffix == ".parquet":
        found += [
            Damage("columns", change_columns),
            Damage("cells", change_cells, True),
        ]
    return found
