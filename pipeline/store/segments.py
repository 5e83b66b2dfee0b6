"""The store's files, and where in them the value of each key is.

A segment is a .npy file of one record with three arrays, which `np.load` reads too: `key`, the
texts' hashes; `check`, a checksum of each entry; `value`, the values. All keys come first, so that
opening a store reads 16 bytes per entry. The arrays end where the file ends; the header before them
is for other readers. This module checks the keys by the hash in the file's name, and each entry by
its checksum.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import write_npy
from pipeline.core.files import atomic_file

Keys = NDArray[np.uint64]
"""Hashes of texts: uint64, shape [texts, 2]."""

Rows = NDArray[np.int64]
"""Numbers of rows: int64, shape [rows]."""

Values = NDArray[Any]
"""Vectors or counts: float32 or int32, shape [rows, width]."""

_NAME = r"[0-9a-f]{32}-([1-9]\d{0,9})x([1-9]\d{0,9})\.npy"

PARTIAL = re.compile(rf"\.{_NAME}\.\d+\.partial")
"""The name of a segment while it is written."""


@dataclass(frozen=True)
class Form:
    """What the segments of one namespace have in common.

    Attributes:
        dtype: the type of the values, of 4 bytes.
        seed: 32 bytes that names and checksums start from, so that a segment of another namespace
            is found out.
    """

    dtype: np.dtype[Any]
    seed: bytes

    def name(self, keys: Keys, width: int) -> str:
        """Return the name of the segment with these keys."""
        digest = hashlib.blake2b(keys.tobytes(), digest_size=16, key=self.seed).hexdigest()
        return f"{digest}-{len(keys)}x{width}.npy"

    def checks(self, keys: Keys, values: Values) -> NDArray[np.uint32]:
        """Return the CRC-32 of each key and value; it finds every change within 32 bits."""
        start = zlib.crc32(self.seed)
        checks = (
            zlib.crc32(value.data, zlib.crc32(key.data, start))
            for key, value in zip(keys, values, strict=True)
        )
        return np.fromiter(checks, np.uint32, len(keys))


@dataclass(slots=True)
class Segment:
    """One file: what its name says, its size in bytes, and whether its use is noted."""

    folder: Path
    name: str
    entries: int
    width: int
    size: int = 0
    used: bool = False

    @classmethod
    def named(cls, folder: Path, name: str) -> "Segment | None":
        """Return the segment of a file name, or None if it is not the name of one."""
        match = re.fullmatch(_NAME, name)
        return cls(folder, name, int(match[1]), int(match[2])) if match else None

    @classmethod
    def write(cls, folder: Path, form: Form, keys: Keys, values: Values) -> "Segment":
        """Write entries as one segment, whole or not at all."""
        entries, width = values.shape
        record = np.empty(
            1,
            [
                ("key", "<u8", (entries, 2)),
                ("check", "<u4", (entries,)),
                ("value", form.dtype, (entries, width)),
            ],
        )
        record["key"], record["value"] = keys, values
        record["check"] = form.checks(record["key"][0], record["value"][0])
        segment = cls(folder, form.name(keys, width), entries, width)
        clear_place(segment.path)
        with atomic_file(segment.path) as partial:
            write_npy(partial, record)
            segment.size = partial.stat().st_size
        return segment

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    def keys(self, form: Form) -> Keys | None:
        """Return the keys, or None if their hash is not the one in the file's name."""
        found = self._keys()
        return found if form.name(found, self.width) == self.name else None

    def read(self, rows: Rows, keys: Keys, form: Form) -> Values | None:
        """Return the values of rows, or None if not all of them are intact.

        Args:
            rows: the rows of the segment.
            keys: the keys that these rows must have.
            form: the namespace's form.
        """
        values, checks = self._values(rows, form)
        return values if (checks == form.checks(keys, values)).all() else None

    def intact(self, form: Form) -> tuple[Keys, Values]:
        """Return the entries of a damaged segment that have the right checksum."""
        keys = self._keys()
        values, checks = self._values(np.arange(len(keys)), form)
        sound = checks == form.checks(keys, values)
        return keys[sound], values[sound]

    @property
    def _start(self) -> int:
        """Where in the file the keys begin; negative if the file is too short."""
        return self.size - self.entries * (16 + 4 + 4 * self.width)

    def _keys(self) -> Keys:
        with self.path.open("rb", buffering=0) as handle:
            self.size = os.fstat(handle.fileno()).st_size
            keys = np.zeros((self.entries if self._start >= 0 else 0, 2), "<u8")
            handle.seek(max(self._start, 0))
            handle.readinto(keys.data)
            return keys

    def _values(self, rows: Rows, form: Form) -> tuple[Values, NDArray[np.uint32]]:
        """Return values and checksums unchecked; what is missing at the file's end is 0.

        The file is read, not mapped: a bad sector then raises an error instead of killing the
        process.
        """
        checks = np.zeros(self.entries if len(rows) else 0, "<u4")
        values = np.zeros((len(rows), self.width), form.dtype)
        start = max(self._start, 0) + 16 * self.entries
        with self.path.open("rb", buffering=0) as handle:
            handle.seek(start)
            handle.readinto(checks.data)
            start += 4 * self.entries
            for value, row in zip(values, rows.tolist(), strict=True):
                handle.seek(start + 4 * self.width * row)
                handle.readinto(value.data)
        return values, checks[rows]


def clear_place(path: Path) -> None:
    """Remove what is not a file, before a file is written there: a write to a pipe never ends.

    Raises:
        OSError: it is a folder.
    """
    if not path.is_file():
        path.unlink(missing_ok=True)


def npy_names(folder: Path) -> set[str]:
    """Return the names of all .npy files; none if there is no such folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return {one.name for one in entries if one.name.endswith(".npy") and one.is_file()}
    return set()


class KeyMap:
    """Where each key's value is: 24 bytes per entry, sorted by the first half of the key.

    A place is the number of a segment times 2 ** 32, plus a row of it. A key may have several.
    """

    def __init__(self) -> None:
        self._first = np.empty(0, np.uint64)
        self._second = np.empty(0, np.uint64)
        self._place = np.empty(0, np.int64)
        self._new_keys = bytearray()  # one buffer, as many small arrays fragment the memory
        self._new_segments: list[tuple[int, int]] = []

    def insert(self, keys: Keys, number: int) -> None:
        """Add the keys of a segment, in the order of its rows."""
        self._new_keys += keys.tobytes()
        self._new_segments.append((number, len(keys)))

    def remove(self, numbers: Collection[int]) -> None:
        """Forget the keys of segments."""
        self._sort_in()
        kept = ~np.isin(self._place >> 32, list(numbers))
        self._first, self._second = self._first[kept], self._second[kept]
        self._place = self._place[kept]

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return a place of each key, or -1; int64, shape [keys]."""
        self._sort_in()
        places = np.full(len(keys), -1)
        rows = np.arange(len(keys))
        at = np.searchsorted(self._first, keys[:, 0])
        while rows.size:  # one round, except where keys share their first half
            going = at < len(self._first)
            rows, at = rows[going], at[going]
            going = self._first[at] == keys[rows, 0]
            rows, at = rows[going], at[going]
            found = self._second[at] == keys[rows, 1]
            places[rows[found]] = self._place[at[found]]
            rows, at = rows[~found], at[~found] + 1
        return places

    def _sort_in(self) -> None:
        if not self._new_segments:
            return
        new = np.frombuffer(self._new_keys, np.uint64).reshape(-1, 2)
        self._first = np.concatenate([self._first, new[:, 0]])
        self._second = np.concatenate([self._second, new[:, 1]])
        del new
        self._new_keys = bytearray()
        order = np.argsort(self._first, kind="stable")
        self._first = self._first[order]
        self._second = self._second[order]
        numbers, entries = np.array(self._new_segments).T
        place = np.arange(entries.sum())
        place += np.repeat((numbers << 32) - (np.cumsum(entries) - entries), entries)
        self._place = np.concatenate([self._place, place])[order]
        self._new_segments = []


def by_segment(places: NDArray[np.int64]) -> Iterator[tuple[int, Rows, Rows]]:
    """Yield for each segment its number, its rows in ascending order, and where `places` has them.

    Args:
        places: what `KeyMap.find` returned, without -1.
    """
    order = np.argsort(places, kind="stable")
    numbers, rows = places[order] >> 32, places[order] & (2**32 - 1)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    for start, stop in pairwise([*starts, len(order)]):
        yield int(numbers[start]), rows[start:stop], order[start:stop]
