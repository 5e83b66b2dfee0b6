"""Embedding shards and their manifest: written by embed, checked by every reader."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError, model_validator

from pipeline import files, layout, tables
from pipeline.errors import PipelineError
from pipeline.params import Count, Encoder, Params, Strict

Matrix = np.ndarray[Any, np.dtype[np.float32]]
"""Vectors as rows: float32, shape [rows, dimension]."""

Kind = Literal["products", "queries"]

SCHEMA = 1
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


class Manifest(Strict):
    """What the vectors of one locale are, and what they were made with."""

    manifest_schema: int
    locale: str
    encoder: str
    contract: dict[str, Any]
    weights_sha256: str
    dimension: Annotated[int, Field(ge=1, le=65_536)]
    dtype: Literal["float32", "float16"]
    products: Side
    queries: Side

    def side(self, kind: Kind) -> Side:
        """Return the products' or the queries' shards."""
        return self.products if kind == "products" else self.queries


def shard_bounds(rows: int, shard_rows: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each shard: in order, none empty, all of `shard_rows` but the last."""
    for start in range(0, rows, shard_rows):
        yield start, min(start + shard_rows, rows)


def write_shard(folder: Path, kind: Kind, number: int, vectors: Matrix, dtype: str) -> Shard:
    """Write one shard as .npy.

    Raises:
        PipelineError: a vector does not fit in `dtype` or is not finite.
    """
    with np.errstate(over="ignore"):  # an overflow shows as infinity, and is told below
        stored = vectors.astype(dtype)
    path = folder / f"{kind}-{number:05d}.npy"
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if len(bad):
        raise PipelineError(
            f"{path}: row {bad[0]} is not finite as {dtype} (largest component "
            f"{np.abs(vectors[bad[0]]).max():g}); use embed.dtype float32 or another encoder"
        )
    files.write_npy(path, stored)
    return Shard(file=path.name, rows=len(stored), sha256=files.sha256_file(path))


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
        where = ".".join(map(str, err.errors()[0]["loc"]))
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


def iter_vectors(manifest: Manifest, kind: Kind, locale: str) -> Iterator[Matrix]:
    """Yield the vectors shard by shard, each checked against the manifest.

    Raises:
        PipelineError: a shard is missing, truncated, edited, or of another shape or type.
    """
    for shard in manifest.side(kind).shards:
        yield np.ascontiguousarray(_open(manifest, shard, locale), dtype=np.float32)


def read_vectors(
    manifest: Manifest, kind: Kind, locale: str, rows: "np.ndarray[Any, Any] | None" = None
) -> Matrix:
    """Return all vectors, or those of `rows` in ascending order; raises as `iter_vectors` does."""
    side = manifest.side(kind)
    wanted = np.arange(side.rows) if rows is None else rows
    out = np.empty((len(wanted), manifest.dimension), dtype=np.float32)
    start = 0
    for shard in side.shards:
        first, last = np.searchsorted(wanted, [start, start + shard.rows])
        out[first:last] = _open(manifest, shard, locale)[wanted[first:last] - start]
        start += shard.rows
    return out


def unit(vectors: Matrix, what: str) -> Matrix:
    """Return the vectors at length 1, so that their inner product is their cosine.

    Raises:
        PipelineError: a vector has no direction; `what` names the vectors.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (zero := np.flatnonzero(norms[:, 0] == 0)).size:
        raise PipelineError(
            f"{what}: the vector of row {zero[0]} is zero and has no cosine; "
            "use an encoder with another similarity, or leave that text out"
        )
    return np.ascontiguousarray(vectors / norms)


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
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise PipelineError(f"{path}: row {row} is not finite; {_remedy(locale)}")
    checked: np.ndarray[Any, Any] = array
    return checked


def _remedy(locale: str) -> str:
    return f"run `dvc repro embed@{locale}`"
