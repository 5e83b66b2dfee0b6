"""What the page downloads of the products: codes, 8-bit vectors, titles and brands, in tiles.

The names end in .bin: some servers unpack what ends in .gz, and the hashes would not match.
"""

import gzip
import itertools
import json
import math
import mmap
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.browser.onnx_model import to_8_bits
from pipeline.core import files
from pipeline.core.arrays import Ints, Matrix, sampled_rows
from pipeline.core.faiss import faiss, faiss_threads
from pipeline.core.params import Clean
from pipeline.evaluate.product_fields import BRAND, iter_fields
from pipeline.index.kinds import TRAINING_SEED
from pipeline.search.facets import FacetBuilder

CODE_ROWS = 100_000
VECTOR_ROWS = 2_048
SHOWN_ROWS = 1_000
"""Products in a tile of codes, of 8-bit vectors, of titles."""

BITS = 8
CODEWORDS = 2**BITS
PER_SUBVECTOR = 8
"""Components that share a code, about: 384 components become 48 bytes."""

TRAINED = 256 * CODEWORDS
"""Vectors that the codewords are trained on, at most; FAISS uses no more."""


def count_subvectors(dimension: int) -> int:
    """Return the divisor of a dimension that is nearest to one code for 8 components."""
    divisors = [each for each in range(1, dimension + 1) if dimension % each == 0]
    return min(divisors, key=lambda each: abs(each - dimension / PER_SUBVECTOR))


def training_rows(rows: int) -> Ints:
    """Return the rows to train on, ascending, drawn by a fixed seed."""
    return sampled_rows(rows, TRAINED, TRAINING_SEED)


def near_order(pieces: Callable[[], Iterable[Matrix]], sample: Matrix) -> Ints:
    """Return all rows in an order in which similar products are neighbours.

    The hits of a query so are in few parts of the tiles, and few requests fetch them. K-means on
    `sample` makes as many groups as the square root of the number of its vectors, and the groups
    are put in order in the same way.

    Args:
        pieces: gives all vectors in order, in pieces, each time that it is called.
        sample: some of them.
    """
    centroids = _centroids(sample, math.isqrt(len(sample)))
    regions = _centroids(centroids, math.isqrt(len(centroids)))
    region = _nearest(centroids, regions)
    group = np.concatenate([_nearest(piece, centroids) for piece in pieces()])
    return np.lexsort((np.arange(len(group)), group, region[group]))


def _centroids(vectors: Matrix, number: int) -> Matrix:
    kmeans: Any = faiss.Kmeans(
        vectors.shape[1], number, niter=10, seed=TRAINING_SEED, min_points_per_centroid=1
    )
    with faiss_threads(1):
        kmeans.train(np.ascontiguousarray(vectors))
    return np.asarray(kmeans.centroids)


def _nearest(vectors: Matrix, centroids: Matrix) -> Ints:
    """Return the centroid that is nearest to each vector, int64 [rows]."""
    flat: Any = faiss.IndexFlatL2(centroids.shape[1])
    flat.add(centroids)
    with faiss_threads(1):
        return np.asarray(flat.search(np.ascontiguousarray(vectors), 1)[1][:, 0])


class Quantiser:
    """A product quantiser of FAISS, trained on one thread: the same codes every time."""

    def __init__(self, sample: Matrix, seed: int = TRAINING_SEED) -> None:
        """Train on vectors, float32 [rows, dimension]; fewer than 256 are repeated."""
        dimension = sample.shape[1]
        self._quantiser: Any = faiss.ProductQuantizer(dimension, count_subvectors(dimension), BITS)
        self._quantiser.cp.seed = seed
        self._quantiser.cp.min_points_per_centroid = 1
        repeats = -(-CODEWORDS // len(sample))
        with faiss_threads(1):
            self._quantiser.train(np.ascontiguousarray(np.tile(sample, (repeats, 1))))

    @property
    def codebook(self) -> NDArray[np.float32]:
        """The codewords, float32 [subvectors, 256, dimension / subvectors]."""
        pq = self._quantiser
        words: NDArray[np.float32] = faiss.vector_to_array(pq.centroids)
        return words.reshape(pq.M, pq.ksub, pq.dsub)

    def codes(self, vectors: Matrix) -> NDArray[np.uint8]:
        """Return the codes of vectors, uint8 [rows, subvectors]."""
        with faiss_threads(1):
            found: NDArray[np.uint8] = self._quantiser.compute_codes(vectors)
        return found


def pack_vectors(vectors: Matrix) -> NDArray[np.uint8]:
    """Return vectors in 8 bits: per row the int8 components, then their scale as float32.

    Returns:
        uint8, [rows, dimension + 4]; numbers are little-endian.
    """
    codes, scales = to_8_bits(vectors, axis=1)
    return np.hstack([codes.view(np.uint8), scales.astype("<f4").view(np.uint8)])


def unpack_vectors(packed: NDArray[np.uint8]) -> Matrix:
    """Return what `pack_vectors` packed, float32 [rows, dimension], each rounded to 8 bits."""
    codes = packed[:, :-4].view(np.int8)
    scales = np.ascontiguousarray(packed[:, -4:]).view("<f4")
    return np.asarray(codes * scales, dtype=np.float32)


class TileWriter:
    """Writes rows of bytes as NAME-00000.bin and so on; only the last tile is shorter."""

    def __init__(self, folder: Path, name: str, rows: int) -> None:
        """Plan tiles of so many rows; nothing is written yet."""
        self._folder, self._name, self._rows = folder, name, rows
        self._done = 0

    def add(self, rows: NDArray[np.uint8]) -> None:
        """Append rows, uint8 [rows, width]."""
        while len(rows):
            tile, held = divmod(self._done, self._rows)
            part, rows = np.split(rows, [self._rows - held])
            with (self._folder / tile_name(self._name, tile)).open("ab") as handle:
                handle.write(np.ascontiguousarray(part).data)
            self._done += len(part)


def tile_name(name: str, number: int) -> str:
    """Return the file of a tile."""
    return f"{name}-{number:05d}.bin"


def add_hashes(folder: Path) -> None:
    """Put the start of each tile's SHA-256 at the end of its name: NAME-00000-0123456789ab.bin.

    Tiles of two folders have equal sizes, and a part of one has no hash that the page could check.
    So a page that is open while its folder is replaced finds its own tiles or none.
    """
    for path in sorted(folder.glob(f"*-{'[0-9]' * 5}.bin")):
        path.rename(path.with_stem(f"{path.stem}-{files.sha256_file(path)[:12]}"))


def write_vectors(folder: Path, pieces: Iterable[Matrix], quantiser: Quantiser) -> None:
    """Write the tiles of codes and of 8-bit vectors of products, in their order."""
    codes, vectors = (
        TileWriter(folder, name, rows)
        for name, rows in (("codes", CODE_ROWS), ("vectors", VECTOR_ROWS))
    )
    for piece in pieces:
        codes.add(quantiser.codes(piece))
        vectors.add(pack_vectors(piece))


def write_shown(folder: Path, path: Path, settings: Clean, order: Ints, remedy: str) -> int:
    """Write titles in tiles, and each product's brand; return how many brands there are.

    `order` has the rows of the table as the tiles have them.

    A tile of titles is JSON, [[product_id, title], ...]. Brands that differ only in case are one,
    named as most of its products write it. They are numbered from 1 in the order of their names;
    `brands.bin` has the names, the tiles have a number per product, uint32, 0 where a product has
    no brand. Where the products' texts have no brands, no file of them is written.
    A file in `folder` holds the titles meanwhile: a million of them are hundreds of megabytes.

    Raises:
        PipelineError: the table is missing, damaged, or of another number of fields.
    """
    facet = FacetBuilder()
    brands = [np.empty(0, np.int32)]

    def rows() -> Iterator[list[str]]:
        for batch in iter_fields(path, settings, [BRAND], remedy):
            found = map(facet.add, batch.values.get(BRAND, ()))
            brands.append(np.fromiter(found, np.int32))
            yield from map(list, zip(batch.ids.to_pylist(), batch.titles, strict=True))

    with tempfile.TemporaryFile(dir=folder) as held:
        write_titles(folder, reordered(rows(), order, held))
    names: list[str] = facet.table()["shown"].to_pylist()
    if names:
        by_name = sorted(range(len(names)), key=names.__getitem__)
        _write_packed(folder / "brands.bin", [names[code] for code in by_name])
        number = np.zeros(len(names) + 1, "<u4")  # the last is that of NO_VALUE, -1
        number[by_name] = np.arange(1, len(names) + 1)
        column = number[np.concatenate(brands)][order]
        TileWriter(folder, "brands", CODE_ROWS).add(column[:, None].view(np.uint8))
    return len(names)


def reordered(rows: Iterable[list[str]], order: Ints, held: BinaryIO) -> Iterator[list[str]]:
    """Yield rows in another order; an empty file holds them, and memory eight bytes of each."""
    ends = array("q", [0])
    for row in rows:
        ends.append(ends[-1] + held.write(json.dumps(row).encode()))
    if len(ends) == 1:
        return
    held.flush()
    bounds = np.array(ends)
    with mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, stop in zip(bounds[order].tolist(), bounds[order + 1].tolist(), strict=True):
            yield json.loads(data[start:stop])


def write_titles(folder: Path, titles: Iterable[list[str]]) -> None:
    """Write the tiles of titles; each is [product_id, title]."""
    remaining = iter(titles)
    for number in itertools.count():
        if not (tile := list(itertools.islice(remaining, SHOWN_ROWS))):
            return
        _write_packed(folder / tile_name("titles", number), tile)


def _write_packed(path: Path, data: object) -> None:
    """Write JSON, packed by gzip without a time, so that equal data give equal bytes."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_packed(path: Path) -> Any:
    """Return what `_write_packed` wrote."""
    return json.loads(gzip.decompress(path.read_bytes()))


def read_tiles(folder: Path, name: str, width: int) -> NDArray[np.uint8]:
    """Return the rows of all tiles of a name, uint8 [rows, width]."""
    held = sorted(folder.glob(f"{name}-*.bin"))
    return np.concatenate([np.fromfile(path, np.uint8).reshape(-1, width) for path in held])
