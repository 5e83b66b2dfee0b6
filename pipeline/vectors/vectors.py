"""Embedding shards and their manifest: written by embed, checked by every reader."""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError, model_validator

from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Count, Embed, Encoder, Params, Strict

Matrix = np.ndarray[Any, np.dtype[np.float32]]
"""Vectors as rows: float32, shape [rows, dimension]."""

Kind = Literal["products", "queries"]

Dtype = Literal["float32", "float16"]
Number = Annotated[int, Field(ge=0)]

PIECE_ROWS = 16_384
"""How many vectors are in memory at once where more would do nothing for speed."""

SCHEMA = 2
"""Version of the manifest; older artefacts are refused, and `dvc repro` rewrites them."""


class Shard(Strict):
    """One .npy file: rows that follow those of the shard before."""

    file: Annotated[str, Field(pattern=r"^(products|queries)-\d{5}\.npy$")]
    rows: Count
    sha256: str


class Side(Strict):
    """All shards of the products or of the queries; row i belongs to row i of the clean table."""

    rows: Count
    ids_sha256: str
    shards: tuple[Shard, ...]

    @model_validator(mode="after")
    def _shards_hold_all_rows(self) -> Self:
        if (held := sum(shard.rows for shard in self.shards)) != self.rows:
            raise ValueError(f"the shards hold {held} rows, not {self.rows}")
        return self

    def sha256(self) -> str:
        """Return the identity of the vectors: a hash of the shards' hashes, in order."""
        return files.sha256_lines(shard.sha256 for shard in self.shards)


class Cut(Strict):
    """What max_tokens cut off: tokens, and texts that lost any."""

    texts_cut: Number
    tokens_cut: Number

    @model_validator(mode="after")
    def _each_text_cut_lost_a_token(self) -> Self:
        if self.texts_cut > self.tokens_cut or (self.tokens_cut and not self.texts_cut):
            raise ValueError(f"{self.tokens_cut} tokens were cut off {self.texts_cut} texts")
        return self


class SideCut(Cut):
    """What max_tokens cut off the texts of one side, and off which of their fields.

    Attributes:
        texts: the texts, one a row.
        tokens: all their tokens, were nothing cut off; prefix and special tokens included.
        fields: by the field that a token begins in: those of clean.fields, or `query`.
    """

    texts: Number
    tokens: Number
    fields: Annotated[dict[str, Cut], Field(min_length=1)]

    @model_validator(mode="after")
    def _nothing_is_cut_twice_or_from_nowhere(self) -> Self:
        if self.texts_cut > self.texts or self.tokens_cut > self.tokens:
            raise ValueError(
                f"{self.texts_cut} of {self.texts} texts and {self.tokens_cut} of {self.tokens} "
                "tokens were cut"
            )
        lost = sum(field.tokens_cut for field in self.fields.values())
        if lost != self.tokens_cut:
            raise ValueError(f"the fields lost {lost} tokens, the texts {self.tokens_cut}")
        return self


class Truncation(Strict):
    """What max_tokens cut off a locale's texts."""

    products: SideCut
    queries: SideCut


class Manifest(Strict):
    """What the vectors of one locale are, and what they were made with.

    `engine` is what computed them and on which kind of device, such as "openvino-cpu".
    """

    manifest_schema: int
    locale: str
    encoder: str
    contract: dict[str, Any]
    weights_sha256: str
    engine: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+$")]
    dimension: Annotated[int, Field(ge=1, le=65_536)]
    dtype: Dtype
    truncation: Truncation
    products: Side
    queries: Side

    @model_validator(mode="after")
    def _truncation_is_of_all_rows(self) -> Self:
        for kind in get_args(Kind):
            texts, rows = getattr(self.truncation, kind).texts, self.side(kind).rows
            if texts != rows:
                raise ValueError(f"truncation tells of {texts} {kind}, but there are {rows}")
        return self

    def side(self, kind: Kind) -> Side:
        """Return the products' or the queries' shards."""
        return self.products if kind == "products" else self.queries


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
        path = self._folder / f"{self._kind}-{len(self._shards):05d}.npy"
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


def side_of(ids: pa.ChunkedArray, shards: tuple[Shard, ...]) -> Side:
    """Bind shards to the ids of the clean table whose rows they encode."""
    return Side(rows=len(ids), ids_sha256=tables.ids_sha256(ids), shards=shards)


def contract_of(encoder: Encoder) -> dict[str, Any]:
    """Return the entry of an encoder as a manifest tells it.

    A local folder's path is left out: the weights' hash says what lay there, on any machine.
    """
    contract = encoder.model_dump(mode="json")
    contract["weights"].pop("path", None)
    return contract


def read_manifest(params: Params, locale: str) -> Manifest:
    """Read a locale's manifest.

    Raises:
        PipelineError: it is missing, not of this version's form, or of another encoder than
            `params` says.
    """
    path, remedy = layout.embeddings(locale) / "manifest.json", _remedy(locale)
    data = files.read_json(path, remedy)
    if not isinstance(data, dict) or data.get("manifest_schema") != SCHEMA:
        found = data.get("manifest_schema") if isinstance(data, dict) else data
        raise PipelineError(f"{path} has schema {found!r}, but {SCHEMA} is expected; {remedy}")
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as err:
        where = ".".join(map(str, err.errors()[0]["loc"])) or "(top level)"
        raise PipelineError(f"{path}: {where}: {err.errors()[0]['msg']}; {remedy}") from err
    choice = {"locale": locale, "encoder": params.encoder[locale]}
    expected = {**choice, **contract_of(params.encoder_of(locale))}
    found = {"locale": manifest.locale, "encoder": manifest.encoder, **manifest.contract}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise PipelineError(
                f"{path}: {key} is {found.get(key)!r}, but {expected.get(key)!r} is expected: "
                f"the vectors are of another encoder or locale; {remedy}"
            )
    return manifest


def check_ids(manifest: Manifest, kind: Kind, ids: pa.ChunkedArray, locale: str) -> None:
    """Check that vectors belong to these ids, row by row.

    Raises:
        PipelineError: they were made from other rows, or in another order.
    """
    side = manifest.side(kind)
    found = tables.ids_sha256(ids)
    if (side.rows, side.ids_sha256) != (len(ids), found):
        raise PipelineError(
            f"{layout.embeddings(locale)}: the {kind} vectors are of {side.rows} rows with ids "
            f"{side.ids_sha256[:12]}, but {layout.clean(locale)} has {len(ids)} rows with ids "
            f"{found[:12]}; {_remedy(locale)}"
        )


class Stored:
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
            self._opened[shard.file] = _open(self._manifest, shard, self._locale)
        return self._opened[shard.file]


def read_vectors(manifest: Manifest, kind: Kind, locale: str) -> Matrix:
    """Return all vectors of one side; raises as `Stored` does."""
    stored = Stored(manifest, kind, locale)
    return stored.take(np.arange(stored.rows))


def finished(raw: Matrix, encoder: Encoder, what: Callable[[int], str]) -> Matrix:
    """Make of a model's pooled vectors those that the encoder's entry asks for.

    Each row by itself: a text's vector does not depend on its company, to the last bit.

    Args:
        raw: finite, float32, shape [rows, the model's dimension].
        encoder: tells how many leading components are kept, and whether rows are normalised.
        what: names a row, for messages.

    Returns:
        float32, C-contiguous, shape [rows, dimension].

    Raises:
        PipelineError: the model's dimension is less than asked for, or a vector that is to be
            normalised has no length.
    """
    if encoder.dimension != "model":
        if encoder.dimension > raw.shape[1]:
            raise PipelineError(
                f"an encoder's dimension is set to {encoder.dimension}, but its model's vectors "
                f"have {raw.shape[1]} components; set it to `model`, or lower"
            )
        raw = raw[:, : encoder.dimension]
    if not encoder.normalize:
        return np.ascontiguousarray(raw)
    return _at_length_one(
        raw,
        lambda row: (
            f"{what(row)}: its vector is zero and cannot be normalised; "
            "use an encoder with normalize: false, or leave that text out"
        ),
    )


def unit(vectors: Matrix, what: str, first_row: int = 0) -> Matrix:
    """Return the vectors at length 1, so that their inner product is their cosine.

    Raises:
        PipelineError: a vector has no direction; `what` names the vectors, which are numbered from
            `first_row`.
    """
    return _at_length_one(
        vectors,
        lambda row: (
            f"{what}: the vector of row {first_row + row} is zero and has no cosine; "
            "use an encoder with another similarity, or leave that text out"
        ),
    )


def _at_length_one(vectors: Matrix, zero_told: Callable[[int], str]) -> Matrix:
    out: Matrix = np.empty(vectors.shape, dtype=np.float32)
    for start, stop in shard_bounds(len(vectors), PIECE_ROWS):
        piece = vectors[start:stop]
        # In float64 no square over- or underflows. In C order each row is summed by itself, in the
        # same order however many rows there are, which no BLAS and no einsum promises.
        lengths = np.sqrt(np.square(piece, dtype=np.float64, order="C").sum(axis=1, keepdims=True))
        if (zero := np.flatnonzero(lengths == 0)).size:
            raise PipelineError(zero_told(start + int(zero[0])))
        np.divide(piece, lengths, out=out[start:stop], casting="same_kind")
    return out


def _open(manifest: Manifest, shard: Shard, locale: str) -> "np.ndarray[Any, Any]":
    path = layout.embeddings(locale) / shard.file
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found = files.sha256_file(path)
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing; {_remedy(locale)}") from err
    except (ValueError, EOFError) as err:
        raise PipelineError(f"{path} is truncated or not .npy ({err}); {_remedy(locale)}") from err
    expected = ((shard.rows, manifest.dimension), np.dtype(manifest.dtype))
    if (array.shape, array.dtype) != expected:
        raise PipelineError(
            f"{path} holds {array.dtype} {list(array.shape)}, but the manifest says "
            f"{expected[1]} {list(expected[0])}; {_remedy(locale)}"
        )
    if found != shard.sha256:
        raise PipelineError(
            f"{path} has sha256 {found[:12]}, but the manifest says {shard.sha256[:12]}: "
            f"it was edited; {_remedy(locale)}"
        )
    for start, stop in shard_bounds(shard.rows, PIECE_ROWS):
        finite = np.isfinite(array[start:stop]).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise PipelineError(f"{path}: row {row} is not finite; {_remedy(locale)}")
    checked: np.ndarray[Any, Any] = array
    return checked


def _remedy(locale: str) -> str:
    return f"run `dvc repro embed@{locale}`"
