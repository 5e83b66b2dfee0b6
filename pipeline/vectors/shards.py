"""Embedding shards, `.npy` files: `embed` writes them, and every reader checks them."""

import hashlib
import io
import math
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files, layout
from pipeline.core.arrays import Ints, Matrix, blocks
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import Embed
from pipeline.vectors.manifest import Dtype, Kind, Manifest, Shard

PIECE_ROWS = 16_384
"""How many vectors are in memory at once: more would not be faster."""


Take = Callable[[Ints], Matrix]
"""Returns the vectors of rows, which ascend, such as `ShardReader.take`."""


def take_any(rows: Ints, take: Take) -> Matrix:
    """Return the vectors of rows in any order, some of them repeated; each is taken once."""
    ascending, place = np.unique(rows, return_inverse=True)
    return take(ascending)[place]


class ShardWriter:
    """Writes the vectors of one side as shards, a few rows per call.

    It keeps no vectors between calls. It does not use a memory map, because a disk that fills up
    under a map kills the process.
    """

    def __init__(
        self, folder: Path, kind: Kind, rows: int, dimension: int, settings: Embed
    ) -> None:
        """Plan the shards; nothing is written yet.

        Args:
            folder: where the shards go.
            kind: the side, which their names start with.
            rows: how many vectors there will be.
            dimension: how many components a vector has.
            settings: the type of the numbers, and how many rows a shard holds.
        """
        self._folder = folder
        self._kind = kind
        self._dimension = dimension
        self._dtype = settings.dtype
        self._planned = blocks(range(rows), settings.shard_rows)
        self._rows = rows
        self._done = 0
        self._digest = hashlib.sha256()
        self._shards: list[Shard] = []

    def add(self, vectors: Matrix) -> None:
        """Write the vectors of the next rows.

        Args:
            vectors: float32, shape [rows, dimension].

        Raises:
            PipelineError: a vector is not finite, or not in the shards' type.
            ValueError: there are more rows than announced, or the dimension differs.
        """
        if vectors.shape[1:] != (self._dimension,) or self._done + len(vectors) > self._rows:
            raise ValueError(
                f"vectors of shape {vectors.shape} do not fit after {self._done} of "
                f"{self._rows} rows of {self._dimension} components"
            )
        while len(vectors):
            room = self._planned[len(self._shards)].stop - self._done
            self._write(vectors[:room])
            vectors = vectors[room:]

    def finish(self) -> tuple[Shard, ...]:
        """Return the shards as the manifest lists them.

        Raises:
            ValueError: rows are missing.
        """
        if self._done != self._rows:
            raise ValueError(f"{self._done} of {self._rows} rows were written")
        return tuple(self._shards)

    def _write(self, vectors: Matrix) -> None:
        """Append rows to the current shard; when it is full, the next one begins."""
        rows = self._planned[len(self._shards)]
        path = layout.EmbeddingFiles(self._folder).shard(self._kind, len(self._shards))
        with np.errstate(over="ignore"):  # an overflow gives infinity, which is refused below
            stored = np.ascontiguousarray(vectors, dtype=self._dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(bad):
            raise PipelineError(
                f"{path}: row {self._done - rows.start + bad[0]} is not finite as {self._dtype} "
                f"(found a component of {np.abs(vectors[bad[0]]).max():g}). "
                "Use embed.dtype float32 or another encoder."
            )
        begins = self._done == rows.start
        header = _npy_header((len(rows), self._dimension), self._dtype) if begins else b""
        # The file is opened again for each write, so that none is open between calls.
        with path.open("wb" if begins else "ab") as handle:
            for piece in (header, stored.data):
                handle.write(piece)
                self._digest.update(piece)
        self._done += len(stored)
        if self._done == rows.stop:
            digest, self._digest = self._digest.hexdigest(), hashlib.sha256()
            self._shards.append(Shard(file=path.name, rows=len(rows), sha256=digest))


def _npy_header(shape: tuple[int, int], dtype: Dtype) -> bytes:
    """Return what `np.save` writes before the numbers of an array."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


class ShardReader:
    """The vectors of one side, on disk: mapped, so that only what is read takes memory.

    Each shard is checked against the manifest when it is first read.
    """

    def __init__(self, manifest: Manifest, kind: Kind, locale: str) -> None:
        """Keep the list of shards; nothing is read yet."""
        self._manifest = manifest
        self._shards = manifest.side(kind).shards
        self._locale = locale
        self._opened: dict[str, NDArray[Any]] = {}
        self.rows = manifest.side(kind).rows

    def __iter__(self) -> Iterator[Matrix]:
        """Yield all vectors in order, at most `PIECE_ROWS` at a time and of one shard.

        Raises:
            PipelineError: a shard is missing or unreadable, or differs from the manifest.
        """
        for shard in self._shards:
            for piece in blocks(self._open(shard), PIECE_ROWS):
                yield np.ascontiguousarray(piece, dtype=np.float32)

    def take(self, rows: Ints) -> Matrix:
        """Return the vectors of `rows`, which ascend; raises as iterating does."""
        out = np.empty((len(rows), self._manifest.dimension), dtype=np.float32)
        start = 0
        for shard in self._shards:
            first, last = np.searchsorted(rows, [start, start + shard.rows])
            if last > first:
                out[first:last] = self._open(shard)[rows[first:last] - start]
            start += shard.rows
        return out

    def mapped(self) -> Iterator[NDArray[Any]]:
        """Yield the shards in order, mapped, of the type they have; raises as iterating does."""
        yield from map(self._open, self._shards)

    def check(self) -> None:
        """Check all shards; raises as iterating does."""
        for shard in self._shards:
            self._open(shard)

    def _open(self, shard: Shard) -> NDArray[Any]:
        if shard.file not in self._opened:
            self._opened[shard.file] = _open_shard(self._manifest, shard, self._locale)
        return self._opened[shard.file]


def read_vectors(manifest: Manifest, kind: Kind, locale: str) -> Matrix:
    """Return all vectors of one side; raises as iterating over a `ShardReader` does."""
    reader = ShardReader(manifest, kind, locale)
    reader.check()  # before memory is taken for as many rows as the manifest says
    return reader.take(np.arange(reader.rows))


def _open_shard(manifest: Manifest, shard: Shard, locale: str) -> NDArray[Any]:
    """Map a shard, after all checks."""
    path, again = layout.embeddings(locale).folder / shard.file, layout.rerun_hint("embed", locale)
    shape = (shard.rows, manifest.dimension)
    header = _npy_header(shape, manifest.dtype)
    try:
        _check_bytes(path, header, shape, manifest.dtype, shard.sha256, again)
        array: NDArray[Any] = np.memmap(path, manifest.dtype, "r", len(header), shape)
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing. {again}") from err
    except OSError as err:
        raise PipelineError(f"{path} cannot be read ({err.strerror}). {again}") from err
    for rows in blocks(range(shard.rows), PIECE_ROWS):
        finite = np.isfinite(array[rows.start : rows.stop]).all(axis=1)
        if not finite.all():
            row = rows.start + int(np.flatnonzero(~finite)[0])
            raise PipelineError(f"{path}: row {row} is not finite. {again}")
    return array


def _check_bytes(
    path: Path, header: bytes, shape: tuple[int, int], dtype: Dtype, sha256: str, again: str
) -> None:
    """Check that a shard has the length, the hash and the header that the manifest says.

    NumPy does not parse the header: only one is right, and `np.load` reads more than .npy.
    """
    form = f"{dtype} {list(shape)} as .npy"
    length = len(header) + math.prod(shape) * np.dtype(dtype).itemsize
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # reading a pipe or a device may never end
        raise PipelineError(f"{path} is not a file. {again}")
    if about.st_size != length:
        raise PipelineError(
            f"{path} must have {length} bytes, {form} (found {about.st_size} bytes): it is cut off "
            f"or another file. {again}"
        )
    found = files.sha256_file(path)
    if found != sha256:
        raise PipelineError(
            f"{path} must have sha256 {sha256[:12]}, as the manifest says (found {found[:12]}): it "
            f"was edited or damaged. {again}"
        )
    with path.open("rb") as handle:
        begins = handle.read(len(header))
    if begins != header:
        raise PipelineError(f"{path} must be {form} (found the header {shorten(begins)}). {again}")
