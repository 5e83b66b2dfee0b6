"""How alike texts are: equal, or in the share of their character 5-grams (Jaccard)."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core import tables
from pipeline.core.arrays import Floats, Ints

Grams = NDArray[np.uint64]

GRAM = 5
"""Characters of a gram: a changed word changes few of them, and few texts share one by chance."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
BATCH_TEXTS = 16_384
PAIRS_AT_ONCE = 20_000
"""Pairs whose grams are in memory at once: about 6 kB a text of 800 characters."""


@dataclass(frozen=True)
class Distinct:
    """Which texts are equal: `first` [products] is the first row with the same text.

    `lengths` [products] are in characters.
    """

    first: Ints
    lengths: Ints


def find_equal(path: Path, remedy: str) -> Distinct:
    """Compare the texts of a table of clean products by a hash of 16 bytes.

    Args:
        path: the table.
        remedy: a sentence that says what brings it back.

    Raises:
        PipelineError: the table is missing or damaged.
    """
    digests: list[bytes] = []
    lengths: list[Ints] = []
    for piece in tables.iter_table(path, tables.PRODUCTS, BATCH_TEXTS, remedy):
        texts = piece["text"]
        digests.append(
            b"".join(
                hashlib.blake2b(text.encode(), digest_size=16).digest()
                for text in texts.to_pylist()
            )
        )
        lengths.append(pc.utf8_length(texts).to_numpy().astype(np.int64))
    keys = np.frombuffer(b"".join(digests), dtype=[("high", "<u8"), ("low", "<u8")])
    _, firsts, place = np.unique(keys, return_index=True, return_inverse=True)
    return Distinct(
        firsts[place].astype(np.int64), np.concatenate([*lengths, np.empty(0, np.int64)])
    )


class Texts:
    """The texts of some rows of a table of clean products."""

    def __init__(self, path: Path, rows: Ints, remedy: str) -> None:
        """Read the texts of `rows`; the arguments are otherwise those of `find_equal`."""
        self._rows = np.unique(rows)
        chunks, start = [], 0
        for piece in tables.iter_table(path, tables.PRODUCTS, BATCH_TEXTS, remedy):
            mine = slice(*np.searchsorted(self._rows, [start, start + len(piece)]))
            chunks.append(piece["text"].take(pa.array(self._rows[mine] - start)).combine_chunks())
            start += len(piece)
        self._texts = pa.chunked_array(chunks, pa.string())

    def of(self, rows: Ints) -> list[str]:
        """Return the texts of some of the rows."""
        at = np.searchsorted(self._rows, rows)
        found: list[str] = self._texts.take(pa.array(at)).to_pylist()
        return found

    def similarities(self, first: Ints, second: Ints) -> Floats:
        """Return the similarity of the texts of row i and row i, from 0 to 1, float64 [pairs]."""
        found = np.empty(len(first))
        for start in range(0, len(first), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            rows, place = np.unique(
                np.concatenate([first[part], second[part]]), return_inverse=True
            )
            grams = [grams_of(text) for text in self.of(rows)]
            one, other = np.split(place, 2)
            found[part] = [
                jaccard(grams[a], grams[b])
                for a, b in zip(one.tolist(), other.tolist(), strict=True)
            ]
        return found


def grams_of(text: str) -> Grams:
    """Return the distinct character 5-grams of a text as ascending hashes of 64 bits.

    Case is folded. A text of fewer characters is one gram.
    """
    points = np.frombuffer(text.casefold().encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    windows = max(1, len(points) - GRAM + 1)
    hashed = np.zeros(windows, dtype=np.uint64)
    for place in range(min(GRAM, len(points))):
        # Numbers that overflow wrap around, as a hash may.
        hashed = hashed * _MULTIPLIER + points[place : place + windows] + np.uint64(1)
    hashed ^= hashed >> np.uint64(29)
    hashed.sort()
    return np.asarray(hashed[np.append(True, hashed[1:] != hashed[:-1])])


def jaccard(first: Grams, second: Grams) -> float:
    """Return the share of all grams of two texts that both have."""
    merged = np.concatenate([first, second])
    merged.sort()
    both = int(np.count_nonzero(merged[1:] == merged[:-1]))
    return both / (len(first) + len(second) - both)


def unique_pairs(
    pairs: Iterator[tuple[Ints, Ints, Floats]], total: int
) -> tuple[Ints, Ints, Floats]:
    """Return pairs of different rows below `total`, each once, ascending, with their cosines.

    The lower row of a pair comes first.
    """
    keys, cosines = [np.empty(0, np.int64)], [np.empty(0)]
    for first, second, cosine in pairs:
        kept = first != second
        keys.append((np.minimum(first, second) * total + np.maximum(first, second))[kept])
        cosines.append(cosine[kept])
    key, at = np.unique(np.concatenate(keys), return_index=True)
    low, high = np.divmod(key, max(total, 1))
    return low, high, np.concatenate(cosines)[at]
