"""The store of vectors: each text's vector is computed once, and kept outside DVC's outputs.

    <cache>/vectors/<namespace>/about.json                     identity: all that decides a vector
    <cache>/vectors/<namespace>/<hash>-<entries>x<width>.npy   segment: some entries, never edited

The name of a namespace is a hash of its identity. The store reports and drops damaged entries; the
run that misses them computes them again. Several processes may read, add and prune at once.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_file, canonical_json
from pipeline.core.log import log
from pipeline.store.namespace import ABOUT, LOCK, explain_os_errors, namespace_name
from pipeline.store.segments import (
    Form,
    KeyMap,
    Rows,
    Segment,
    Values,
    by_segment,
    clear_place,
    npy_names,
)
from pipeline.store.segments import Keys as Keys

R = TypeVar("R")

READ_ATTEMPTS = 5
"""How often entries are computed again that are damaged, or that other processes delete."""


class Missing(Exception):  # noqa: N818 (not an error: missing entries are computed)
    """Some keys are not held: never added, deleted, or damaged.

    Attributes:
        rows: the positions of those keys among the keys asked for, ascending; int64, shape
            [missing].
    """

    def __init__(self, rows: Rows):
        super().__init__(f"{len(rows)} entries are not held")
        self.rows = rows


def keys_of(texts: Iterable[str]) -> Keys:
    """Return the 128-bit BLAKE2b hash of each text; lone surrogates are hashed as they are."""
    digests = bytearray()
    for text in texts:
        digests += hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def read_or_fill(read: Callable[[], R], fill: Callable[[], None]) -> R:
    """Return what `read` reads; `fill` stores what is `Missing`. Raise if it is lost repeatedly."""
    for tried in range(READ_ATTEMPTS + 1):
        with suppress(Missing):
            return read()
        if tried < READ_ATTEMPTS:
            fill()
    raise PipelineError(
        f"the store of vectors in {layout.store()} lost what was just written to it, "
        f"{READ_ATTEMPTS} times: its disk may be failing, or another process deletes from it. "
        "Set $PIPELINE_CACHE to another folder."
    )


class Store:
    """The entries of one namespace. Use it from one thread; processes may share the namespace.

    Before the first entry is added, nothing is written, not even a folder.

    Attributes:
        folder: the namespace's folder.
        width: how many components a value has; 0 while there are no values.
        dropped: how many damaged entries were dropped so far.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], dtype: Literal["float32", "int32"]):
        """Open a namespace.

        Args:
            root: the folder of all namespaces, `layout.store()`.
            identity: all that decides a value, except the text; JSON.
            dtype: the type of the values.

        Raises:
            PipelineError: the folder cannot be used.
        """
        self._about = canonical_json(identity).encode()
        self._root = root
        self.folder = root / namespace_name(self._about)
        self.width = 0
        self.dropped = 0
        seed = hashlib.sha256(self._about + dtype.encode()).digest()
        self._form = Form(np.dtype(dtype).newbyteorder("<"), seed)
        self._places = KeyMap()
        self._segments: dict[int, Segment] = {}
        self._next_number = 0
        self.refresh()

    def holds(self, keys: Keys) -> NDArray[np.bool_]:
        """Return for each key whether its value is held; bool, shape [keys]."""
        return self._places.find(keys) >= 0

    def read(self, keys: Keys) -> Values:
        """Return the values of `keys`, in order and checked; shape [keys, width].

        Raises:
            Missing: some are not held.
            PipelineError: the folder cannot be used.
        """
        missing: list[Rows] = []
        waiting = np.arange(len(keys))
        with explain_os_errors(self._root):
            values = np.empty((len(keys), self.width), self._form.dtype)
            while waiting.size:
                places = self._places.find(keys[waiting])
                missing.append(waiting[places < 0])
                waiting, places = waiting[places >= 0], places[places >= 0]
                again = [waiting[:0]]
                for number, rows, among in by_segment(places):
                    at = waiting[among]
                    found = self._read_segment(number, rows, keys[at])
                    if found is None:  # the segment is gone; another may hold these keys
                        again.append(at)
                    else:
                        values[at] = found
                waiting = np.concatenate(again)
        if any(rows.size for rows in missing):
            raise Missing(np.sort(np.concatenate(missing)))
        return values

    def add(self, keys: Keys, rows: Values) -> None:
        """Keep values as one segment of less than 2 GB, written whole or not at all.

        Args:
            keys: the keys of the texts; shape [rows, 2].
            rows: the values, of the namespace's dtype; shape [rows, width].

        Raises:
            ValueError: the arrays do not fit together, or hold NaN or infinity.
            PipelineError: the namespace holds values of another width, or the folder cannot be
                used.
            OSError: the file passes a limit of the process.
        """
        if rows.ndim != 2 or keys.shape != (len(rows), 2) or rows.dtype != self._form.dtype:
            raise ValueError(
                f"keys {keys.shape} and rows {rows.dtype} {rows.shape} do not make entries of "
                f"{self._form.dtype}"
            )
        if not np.isfinite(rows).all():
            raise ValueError("an entry with NaN or infinity cannot be kept")
        if not rows.size:
            return
        with explain_os_errors(self._root):
            if self.width not in (0, rows.shape[1]):
                raise PipelineError(
                    f"{self.folder}: an entry must have {self.width} components, as the others "
                    f"there (found {rows.shape[1]}). If the others are wrong, delete that folder."
                )
            self._write(keys, rows)

    @contextmanager
    def filling(self) -> Iterator[bool]:
        """Yield whether this process is the first of those that now fill the namespace.

        Raises:
            PipelineError: the folder cannot be used.
        """
        lock = FileLock(self._root / f".{self.folder.name}.filling", timeout=0)
        with explain_os_errors(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                first = False
            else:
                first = True
        try:
            yield first
        finally:
            lock.release()

    def use(self, keys: Keys) -> None:
        """Note that the values of `keys` will be read, so that upkeep deletes others first."""
        places = self._places.find(keys)
        for number in np.unique(places[places >= 0] >> 32).tolist():
            self._note_use(self._segments[number])

    def refresh(self) -> None:
        """Find the segments that other processes added, and forget those that they deleted.

        Raises:
            PipelineError: the folder cannot be used.
        """
        with explain_os_errors(self._root):
            there = npy_names(self.folder)
            gone = [number for number, one in self._segments.items() if one.name not in there]
            if gone:
                self._forget(gone)
            known = {segment.name for segment in self._segments.values()}
            self._take_in(sorted(there - known))

    def _take_in(self, names: list[str]) -> None:
        """Open the segments that belong here; mend or delete the others."""
        segments: list[Segment] = []
        for name in names:
            segment = Segment.named(self.folder, name)
            if segment is not None:
                segments.append(segment)
                continue
            (self.folder / name).unlink(missing_ok=True)
            log.warning(
                "warning: %s is not a segment of the store; it was deleted", self.folder / name
            )
        widths = Counter(segment.width for segment in segments).most_common(1)
        for segment in segments:
            with suppress(FileNotFoundError):  # deleted a moment ago
                if segment.width != (self.width or widths[0][0]):
                    self._drop(segment, segment.entries, f"has {segment.width} components")
                elif (keys := segment.keys(self._form)) is not None:
                    self._insert(segment, keys)
                else:
                    self._mend(segment)

    def _read_segment(self, number: int, rows: Rows, keys: Keys) -> Values | None:
        """Return rows of a segment, or None if it is deleted or damaged."""
        segment = self._segments.get(number)
        if segment is None:
            return None
        try:
            values = segment.read(rows, keys, self._form)
        except FileNotFoundError:
            self.refresh()
            return None
        if values is None:
            self._forget([number])
            self._mend(segment)
            return None
        self._note_use(segment)
        return values

    def _note_use(self, segment: Segment) -> None:
        if not segment.used:
            segment.used = True
            with suppress(OSError):  # it may belong to another user
                os.utime(segment.path)

    def _mend(self, segment: Segment) -> None:
        """Replace a damaged segment by one of its intact entries, if there are any."""
        with suppress(FileNotFoundError):  # another process was faster
            keys, values = segment.intact(self._form)
            self._drop(segment, segment.entries - len(keys), "is damaged")
            if len(keys):
                self._write(keys, values)

    def _drop(self, segment: Segment, entries: int, why: str) -> None:
        """Delete a segment, and report how many of its entries are lost."""
        segment.path.unlink(missing_ok=True)
        self.dropped += entries
        log.warning(
            "warning: %s %s; %d of its %d entries were dropped and will be computed again",
            segment.path, why, entries, segment.entries,
        )  # fmt: skip

    def _write(self, keys: Keys, values: Values) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._root / LOCK):  # otherwise upkeep may remove the folder as empty
            about = self.folder / ABOUT
            if not about.is_file() or about.read_bytes() != self._about:
                clear_place(about)
                with atomic_file(about) as partial:
                    partial.write_bytes(self._about)
            segment = Segment.write(self.folder, self._form, keys, values)
        self._insert(segment, keys)

    def _insert(self, segment: Segment, keys: Keys) -> None:
        self.width = segment.width
        self._segments[self._next_number] = segment
        self._places.insert(keys, self._next_number)
        self._next_number += 1

    def _forget(self, numbers: Collection[int]) -> None:
        self._places.remove(numbers)
        for number in numbers:
            del self._segments[number]
