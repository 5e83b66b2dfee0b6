"""Embedding shards, `.npy` files: written by embed, checked by every reader."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import files, layout
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import Embed
from pipeline.vectors.manifest import Dtype, Kind, Manifest, Shard, rerun_hint

PIECE_ROWS = 16_384
"""How many vectors are in memory at once where more would do nothing for speed."""


def shard_bounds(rows: int, shard_rows: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each shard: in order, none empty, all of `shard_rows` but the last."""
    for start in range(0, rows, shard_rows):
        yield start, min(start + shard_rows, rows)


class ShardWriter:
    """Writes the vectors of one side as shards, .npy files, while they come.

    It holds no vectors from one call to the next. Shards are plain writes, not a memory map: a
    disk that fills up under a map kills the process.
    """

    def __init__(
        self, folder: Path, kind: Kind, rows: int, dimension: int, settings: Embed
    ) -> None:
        """Write nothing yet.

        Args:
            folder: where the shards go.
            kind: what they are named after.
            rows: how many vectors there will be.
            dimension: their components.
            settings: their type, and how many a shard holds.
        """
        self._folder = folder
        self._kind = kind
        self._dimension = dimension
        self._dtype = settings.dtype
        self._bounds = list(shard_bounds(rows, settings.shard_rows))
        self._rows = rows
        self._done = 0
        self._digest = hashlib.sha256()
        self._shards: list[Shard] = []

    def add(self, vectors: Matrix) -> None:
        """Write the vectors of the next rows, however many.

        Args:
            vectors: float32, shape [rows, dimension].

        Raises:
            PipelineError: a vector does not fit in the shards' type or is not finite.
            ValueError: these are more rows than announced, or of another dimension.
        """
        if vectors.shape[1:] != (self._dimension,) or self._done + len(vectors) > self._rows:
            raise ValueError(
                f"vectors of shape {vectors.shape} do not fit behind {self._done} of "
                f"{self._rows} rows of {self._dimension} components"
            )
        while len(vectors):
            _, stop = self._bounds[len(self._shards)]
            room = stop - self._done
            self._write(vectors[:room])
            vectors = vectors[room:]

    def finish(self) -> tuple[Shard, ...]:
        """Return the shards.

        Raises:
            ValueError: rows are missing.
        """
        if self._done != self._rows:
            raise ValueError(f"{self._done} of {self._rows} rows were written")
        return tuple(self._shards)

    def _write(self, vectors: Matrix) -> None:
        """Append rows to the shard that is being written, and close it if they fill it."""
        start, stop = self._bounds[len(self._shards)]
        path = layout.EmbeddingFiles(self._folder).shard(self._kind, len(self._shards))
        with np.errstate(over="ignore"):  # an overflow shows as infinity, and is told below
            stored = np.ascontiguousarray(vectors, dtype=self._dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(bad):
            raise PipelineError(
                f"{path}: row {self._done - start + bad[0]} is not finite as {self._dtype} "
                f"(largest component {np.abs(vectors[bad[0]]).max():g}); "
                "use embed.dtype float32 or another encoder"
            )
        begins = self._done == start
        header = _npy_header((stop - start, self._dimension), self._dtype) if begins else b""
        # Opened anew each time, so that there is no open file to take care of between calls.
        with path.open("wb" if begins else "ab") as handle:
            for piece in (header, stored.data):
                handle.write(piece)
                self._digest.update(piece)
        self._done += len(stored)
        if self._done == stop:
            digest, self._digest = self._digest.hexdigest(), hashlib.sha256()
            self._shards.append(Shard(file=path.name, rows=stop - start, sha256=digest))


def _npy_header(shape: tuple[int, int], dtype: Dtype) -> bytes:
    """Return what `np.save` writes before the numbers of such an array."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


class ShardReader:
    """The vectors of one side, on disk: mapped, so that only what is read takes memory.

    Each shard is checked against the manifest once, when it is first read.
    """

    def __init__(self, manifest: Manifest, kind: Kind, locale: str) -> None:
        """Read nothing yet."""
        self._manifest = manifest
        self._shards = manifest.side(kind).shards
        self._locale = locale
        self._opened: dict[str, np.ndarray[Any, Any]] = {}
        self.rows = manifest.side(kind).rows

    def __iter__(self) -> Iterator[Matrix]:
        """Yield all vectors in order, at most `PIECE_ROWS` at a time and of one shard.

        Raises:
            PipelineError: a shard is missing, truncated, edited, or of another shape or type.
        """
        for shard in self._shards:
            array = self._open(shard)
            for start, stop in shard_bounds(shard.rows, PIECE_ROWS):
                yield np.ascontiguousarray(array[start:stop], dtype=np.float32)

    def take(self, rows: "np.ndarray[Any, Any]") -> Matrix:
        """Return the vectors of `rows`, which ascend; raises as iterating does."""
        out = np.empty((len(rows), self._manifest.dimension), dtype=np.float32)
        start = 0
        for shard in self._shards:
            first, last = np.searchsorted(rows, [start, start + shard.rows])
            if last > first:
                out[first:last] = self._open(shard)[rows[first:last] - start]
            start += shard.rows
        return out

    def _open(self, shard: Shard) -> "np.ndarray[Any, Any]":
        if shard.file not in self._opened:
            self._opened[shard.file] = _open_shard(self._manifest, shard, self._locale)
        return self._opened[shard.file]


def read_vectors(manifest: Manifest, kind: Kind, locale: str) -> Matrix:
    """Return all vectors of one side; raises as `Stored` does."""
    stored = ShardReader(manifest, kind, locale)
    return stored.take(np.arange(stored.rows))


def _open_shard(manifest: Manifest, shard: Shard, locale: str) -> "np.ndarray[Any, Any]":
    path = layout.embeddings(locale).folder / shard.file
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found = files.sha256_file(path)
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing. {rerun_hint(locale)}") from err
    except (ValueError, EOFError) as err:
        raise PipelineError(
            f"{path} is truncated or not .npy ({err}). {rerun_hint(locale)}"
        ) from err
    expected = ((shard.rows, manifest.dimension), np.dtype(manifest.dtype))
    if (array.shape, array.dtype) != expected:
        raise PipelineError(
            f"{path} holds {array.dtype} {list(array.shape)}, but the manifest says "
            f"{expected[1]} {list(expected[0])}. {rerun_hint(locale)}"
        )
    if found != shard.sha256:
        raise PipelineError(
            f"{path} has sha256 {found[:12]}, but the manifest says {shard.sha256[:12]}: "
            f"it was edited. {rerun_hint(locale)}"
        )
    for start, stop in shard_bounds(shard.rows, PIECE_ROWS):
        finite = np.isfinite(array[start:stop]).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise PipelineError(f"{path}: row {row} is not finite. {rerun_hint(locale)}")
    checked: np.ndarray[Any, Any] = array
    return checked
