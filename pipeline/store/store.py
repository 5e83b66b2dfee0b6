"""The store of vectors: each text's vector is computed once, and kept outside of DVC's outputs.

    <cache>/vectors/<namespace>/about.json                     what decides a vector: the identity
    <cache>/vectors/<namespace>/<hash>-<entries>x<width>.npy   a segment: some entries, never edited

A namespace is called after the hash of its identity. What is damaged in it is reported, dropped,
and computed again by whoever misses it. Several processes may read, add and prune at once.

`python -m pipeline.store` shows what is kept; with `--keep GB` or `--unused-for DAYS` it says what
that would free, and with `--yes` it frees it.
"""

import argparse
import errno
import hashlib
import json
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_file, canonical_json
from pipeline.store.segments import (
    PARTIAL,
    Form,
    Index,
    Rows,
    Segment,
    Values,
    by_segment,
    npy_names,
)
from pipeline.store.segments import Keys as Keys

_ABOUT = "about.json"
_LOCK = ".lock"

# Writing a segment takes milliseconds: one that is partial for longer was given up.
_ABANDONED_SECONDS = 3_600.0
# File systems round times of use, the coarsest to two seconds.
_CLOCK_SECONDS = 2.0

_UNUSABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
    errno.EIO,
    errno.ENOENT,  # deleted while it is written to
}  # fmt: skip


class Missing(Exception):  # noqa: N818 (no error: what is missing is computed)
    """Some keys are not held, or no longer, or what was held is damaged.

    Attributes:
        rows: their positions among the keys asked for, ascending; int64, shape [missing].
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


class Store:
    """The entries of one namespace. For one thread; several processes may use one namespace.

    Nothing is written, not even a folder, before the first entry is added.

    Attributes:
        folder: where the namespace lies.
        width: how many components its values have; 0 before there are any.
        dropped: how many entries were found damaged so far.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], dtype: Literal["float32", "int32"]):
        """Open a namespace.

        Args:
            root: the folder of all namespaces, `layout.store()`.
            identity: all that decides a value, but for the text; JSON.
            dtype: the type of the values.

        Raises:
            PipelineError: the folder cannot be used.
        """
        self._about = canonical_json(identity).encode()
        self._root = root
        self.folder = root / _namespace_name(self._about)
        self.width = 0
        self.dropped = 0
        seed = hashlib.sha256(self._about + dtype.encode()).digest()
        self._form = Form(np.dtype(dtype).newbyteorder("<"), seed)
        self._index = Index()
        self._segments: dict[int, Segment] = {}
        self._next_number = 0
        self.refresh()

    def holds(self, keys: Keys) -> NDArray[np.bool_]:
        """Tell for each key whether its value is held; bool, shape [keys]."""
        return self._index.find(keys) >= 0

    def read(self, keys: Keys) -> Values:
        """Return the values of `keys` in their order, each checked; shape [keys, width].

        Raises:
            Missing: some are not held.
            PipelineError: the folder cannot be used.
        """
        missing: list[Rows] = []
        waiting = np.arange(len(keys))
        with _told(self._root):
            values = np.empty((len(keys), self.width), self._form.dtype)
            while waiting.size:
                places = self._index.find(keys[waiting])
                missing.append(waiting[places < 0])
                waiting, places = waiting[places >= 0], places[places >= 0]
                again = [waiting[:0]]
                for number, rows, among in by_segment(places):
                    at = waiting[among]
                    found = self._read_segment(number, rows, keys[at])
                    if found is None:  # the segment was let go; another may hold these keys
                        again.append(at)
                    else:
                        values[at] = found
                waiting = np.concatenate(again)
        if any(rows.size for rows in missing):
            raise Missing(np.sort(np.concatenate(missing)))
        return values

    def add(self, keys: Keys, rows: Values) -> None:
        """Keep values: one segment, of less than 2 GB, that is there whole or not at all.

        Args:
            keys: of their texts; shape [rows, 2].
            rows: the values, of the namespace's dtype; shape [rows, width].

        Raises:
            ValueError: the arrays do not fit together, or hold NaN or infinity.
            PipelineError: the namespace holds values of another width, or the folder cannot be
                used.
            OSError: the file cannot be written for another reason.
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
        with _told(self._root):
            if self.width not in (0, rows.shape[1]):
                raise PipelineError(
                    f"{self.folder}: the entry has {rows.shape[1]} components, the namespace "
                    f"{self.width}; if what lies there is wrong, delete that folder"
                )
            self._write(keys, rows)

    @contextmanager
    def filling(self) -> Iterator[bool]:
        """Tell whether this process is the first of those that now fill the namespace.

        Raises:
            PipelineError: the folder cannot be used.
        """
        lock = FileLock(self._root / f".{self.folder.name}.filling", timeout=0)
        with _told(self._root):
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
        """Note that the values of `keys` will be read, so that upkeep takes others first."""
        places = self._index.find(keys)
        for number in np.unique(places[places >= 0] >> 32).tolist():
            self._note_use(self._segments[number])

    def refresh(self) -> None:
        """See the segments that other processes added, and forget those that they deleted.

        Raises:
            PipelineError: the folder cannot be used.
        """
        with _told(self._root):
            there = npy_names(self.folder)
            gone = [number for number, one in self._segments.items() if one.name not in there]
            if gone:
                self._forget(gone)
            known = {segment.name for segment in self._segments.values()}
            self._take_in(sorted(there - known))

    def _take_in(self, names: list[str]) -> None:
        """Take in the segments that belong here; mend or delete the others."""
        segments: list[Segment] = []
        for name in names:
            segment = Segment.named(self.folder, name)
            if segment is not None:
                segments.append(segment)
                continue
            (self.folder / name).unlink(missing_ok=True)
            stage.log.warning(
                "warning: %s is no segment of the store; it was deleted", self.folder / name
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
        """Return rows of a segment, or None if it was let go: deleted or damaged."""
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
        """Put a segment of the intact entries, if there are any, in the place of a damaged one."""
        with suppress(FileNotFoundError):  # another process was faster
            keys, values = segment.intact(self._form)
            self._drop(segment, segment.entries - len(keys), "is damaged")
            if len(keys):
                self._write(keys, values)

    def _drop(self, segment: Segment, entries: int, why: str) -> None:
        """Delete a segment of which some entries are lost."""
        segment.path.unlink(missing_ok=True)
        self.dropped += entries
        stage.log.warning(
            "warning: %s %s; %d of its %d entries were dropped and will be computed again",
            segment.path, why, entries, segment.entries,
        )  # fmt: skip

    def _write(self, keys: Keys, values: Values) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._root / _LOCK):  # else upkeep may remove the folder, as an empty one
            about = self.folder / _ABOUT
            if not about.is_file() or about.read_bytes() != self._about:
                with atomic_file(about) as partial:
                    partial.write_bytes(self._about)
            segment = Segment.write(self.folder, self._form, keys, values)
        self._insert(segment, keys)

    def _insert(self, segment: Segment, keys: Keys) -> None:
        self.width = segment.width
        self._segments[self._next_number] = segment
        self._index.insert(keys, self._next_number)
        self._next_number += 1

    def _forget(self, numbers: Collection[int]) -> None:
        self._index.remove(numbers)
        for number in numbers:
            del self._segments[number]


@dataclass(frozen=True)
class SegmentFile:
    """A segment as upkeep sees it: entries, size in bytes, time of last use (Unix seconds)."""

    path: Path
    entries: int
    size: int
    used: float


@dataclass(frozen=True)
class Namespace:
    """A namespace as upkeep sees it."""

    folder: Path
    identity: dict[str, Any]
    segments: tuple[SegmentFile, ...]

    @property
    def entries(self) -> int:
        """How many entries it holds."""
        return sum(segment.entries for segment in self.segments)

    @property
    def size(self) -> int:
        """The size of its segments in bytes."""
        return sum(segment.size for segment in self.segments)

    @property
    def used(self) -> float:
        """When it was last used, in Unix seconds."""
        return max((segment.used for segment in self.segments), default=0.0)


@dataclass(frozen=True)
class Freed:
    """What was deleted, or would be; `size` in bytes."""

    segments: int
    entries: int
    size: int


def usage(root: Path) -> list[Namespace]:
    """Return the namespaces under `root`, last used first; nothing else there is looked at.

    Raises:
        PipelineError: a folder cannot be read.
    """
    found: list[Namespace | None] = []
    with _told(root), suppress(FileNotFoundError):
        found = [_namespace(folder) for folder in sorted(root.iterdir())]
    return sorted((one for one in found if one is not None), key=lambda one: -one.used)


def prune(root: Path, limit_bytes: float, keep_since: float, *, delete: bool = True) -> Freed:
    """Delete the least recently used segments until all of them are within a limit.

    A segment is used when it is written, and when a `Store` first reads it or is told that it will
    be read. A namespace that
    is empty then goes too.

    Args:
        root: the folder of all namespaces.
        limit_bytes: how large all segments together may be.
        keep_since: a time in Unix seconds; what was used then or later stays, whatever the limit.
        delete: False to delete nothing, and only return what would go.

    Raises:
        PipelineError: something cannot be deleted.
    """
    namespaces = usage(root)
    segments = [segment for namespace in namespaces for segment in namespace.segments]
    excess = sum(segment.size for segment in segments) - limit_bytes
    going: list[SegmentFile] = []
    for segment in sorted(segments, key=lambda one: (one.used, one.path)):
        if excess <= 0 or segment.used >= keep_since - _CLOCK_SECONDS:
            break
        going.append(segment)
        excess -= segment.size
    if delete:
        with _told(root):
            for segment in going:
                segment.path.unlink(missing_ok=True)
            untidy = [one.folder for one in namespaces if going or _is_untidy(one.folder)]
            # Nothing is written, not even a lock, where nothing is to be done: the store may be one
            # that this process can only read.
            if untidy:
                with FileLock(root / _LOCK):
                    for folder in untidy:
                        _tidy(folder)
    return Freed(len(going), sum(one.entries for one in going), sum(one.size for one in going))


def _namespace_name(about: bytes) -> str:
    return hashlib.sha256(about).hexdigest()[:16]


def _namespace(folder: Path) -> Namespace | None:
    """Return what lies in a folder, or None if it is no namespace."""
    try:
        about = (folder / _ABOUT).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return None
    if _namespace_name(about) != folder.name:
        return None
    segments = []
    for name in npy_names(folder):
        segment = Segment.named(folder, name)
        if segment is not None:
            with suppress(FileNotFoundError):  # deleted a moment ago
                stat = segment.path.stat()
                segments.append(
                    SegmentFile(segment.path, segment.entries, stat.st_size, stat.st_mtime)
                )
    return Namespace(folder, json.loads(about), tuple(segments))


def _is_untidy(folder: Path) -> bool:
    """Tell whether `_tidy` would do something."""
    with suppress(FileNotFoundError):  # another process was faster
        return bool(_abandoned(folder)) or [path.name for path in folder.iterdir()] == [_ABOUT]
    return False


def _abandoned(folder: Path) -> list[Path]:
    """Return what killed processes left of segments that they wrote."""
    partial = [path for path in folder.iterdir() if PARTIAL.fullmatch(path.name)]
    return [path for path in partial if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS]


def _tidy(folder: Path) -> None:
    """Remove what killed processes left, and the folder if nothing but about.json is in it."""
    with suppress(FileNotFoundError):  # another process was faster
        for path in _abandoned(folder):
            path.unlink()
        if [path.name for path in folder.iterdir()] == [_ABOUT]:
            (folder / _ABOUT).unlink()
            folder.rmdir()


@contextmanager
def _told(root: Path) -> Iterator[None]:
    """Name the store and the way out in what the system says of a disk or of permissions."""
    try:
        yield
    except OSError as err:
        if err.errno not in _UNUSABLE:
            raise
        raise PipelineError(
            f"the store of vectors in {root} cannot be used: {err}; make room for it or make it a "
            "folder that you may write, or let $PIPELINE_CACHE name another folder"
        ) from err


def _table(namespaces: list[Namespace]) -> str:
    """Return a line for each namespace, with all of its identity, and one for the total."""
    keys = sorted({key for namespace in namespaces for key in namespace.identity})
    lines = [["namespace", *keys, "last used", "entries", "size"]]
    for one in namespaces:
        identity = [_short(one.identity[key]) if key in one.identity else "-" for key in keys]
        used = f"{datetime.fromtimestamp(one.used, UTC).astimezone():%Y-%m-%d %H:%M}"
        lines.append([one.folder.name, *identity, used, f"{one.entries:,}", _bytes(one.size)])
    entries, size = sum(one.entries for one in namespaces), sum(one.size for one in namespaces)
    lines.append(["total", *("" for _ in keys), "", f"{entries:,}", _bytes(size)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    for cells in padded:
        cells[-2:] = [cell.strip().rjust(len(cell)) for cell in cells[-2:]]
    return "".join("  ".join(cells) + "\n" for cells in padded)


def _short(value: object) -> str:
    text = str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:12]
    return text if text and text == text.strip() else json.dumps(text, ensure_ascii=False)


def _bytes(size: int) -> str:
    power = min(int(math.log10(max(size, 1))) // 3, 3)
    return f"{size / 1_000**power:,.{min(power, 1)}f} {('B', 'kB', 'MB', 'GB')[power]}"


def _not_negative(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return value


def main() -> int:
    """Show what is kept, and what could be freed; with --yes, free it. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.store",
        description="Show the store of vectors, and delete what was not used for longest. "
        "Nothing is deleted without --yes; what is deleted is computed again when it is needed.",
    )
    parser.add_argument(
        "--keep", type=_not_negative, metavar="GB", help="delete until no more than this is left"
    )
    parser.add_argument(
        "--unused-for",
        type=_not_negative,
        metavar="DAYS",
        help="delete what was not used for so long; together with --keep, only that",
    )
    parser.add_argument("--yes", action="store_true", help="delete it, and not only say so")
    arguments = parser.parse_args()
    keep, days = arguments.keep, arguments.unused_for
    if arguments.yes and keep is None and days is None:
        parser.error("--yes: say what to delete, with --keep or --unused-for")
    with stage.told_to_the_user("store") as outcome:
        root = layout.store()
        sys.stdout.write(f"{root}\n{_table(usage(root))}")
        if keep is not None or days is not None:
            since = math.inf if days is None else time.time() - days * 86_400
            freed = prune(root, (keep or 0) * 1e9, since, delete=arguments.yes)
            what = f"{_bytes(freed.size)}: {freed.entries:,} entries in {freed.segments:,} files"
            sys.stdout.write(
                f"freed {what}\n" if arguments.yes else f"would free {what}; --yes frees it\n"
            )
    return outcome.status
