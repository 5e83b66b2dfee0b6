"""Terms counted: which of some products have a term, and how often."""

import gc
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.bm25.analysers import REMEMBERED, Analyser

SCHEMA = pa.schema(
    [
        ("terms", pa.list_(pa.string())),
        ("having", pa.list_(pa.int32())),
        ("products", pa.list_(pa.uint32())),
        ("times", pa.list_(pa.uint32())),
        ("lengths", pa.list_(pa.int32())),
    ]
)
"""`Counted` as a batch of one row."""


@dataclass(frozen=True)
class Counted:
    """The terms of consecutive products.

    Attributes:
        terms: the different ones, in the order in which the texts have them first.
        having: how many of the products have each, int32 [terms].
        products: of each posting, by term and then ascending: the place of the product among
            these products, unsigned [postings].
        times: how often the product has the term, unsigned [postings].
        lengths: how many terms each product has, repeated ones too, int32 [products].
    """

    terms: list[str]
    having: NDArray[np.int32]
    products: NDArray[np.unsignedinteger[Any]]
    times: NDArray[np.unsignedinteger[Any]]
    lengths: NDArray[np.int32]

    def batch(self) -> pa.RecordBatch:
        """Return it in the form of `SCHEMA`."""
        columns = (self.terms, self.having, self.products, self.times, self.lengths)
        arrays = [
            pa.array(column, field.type.value_type)
            for column, field in zip(columns, SCHEMA, strict=True)
        ]
        lists = [pa.ListArray.from_arrays([0, len(array)], array) for array in arrays]
        return pa.record_batch(lists, schema=SCHEMA)

    @classmethod
    def of_batch(cls, batch: pa.RecordBatch) -> Self:
        """Return what `batch` was made of."""
        terms, *numbers = (column.values for column in batch.columns)
        having, products, times, lengths = (column.to_numpy() for column in numbers)
        return cls(terms.to_pylist(), having, _small(products), _small(times), lengths)


class Counter:
    """Counts the terms of texts, and remembers the frequent parts of them from call to call."""

    def __init__(self, analyser: Analyser) -> None:
        """Take what makes the terms."""
        self._analyser = analyser
        if (parts := analyser.parts) is not None:
            self._mark = parts.mark
            self._terms = lru_cache(REMEMBERED)(lambda part: tuple(parts.terms(part)))

    def count(self, texts: pa.StringArray) -> Counted:
        """Count the terms of the texts of consecutive products."""
        if self._analyser.parts is None or not len(texts):
            return count_terms(map(self._analyser.terms, texts.to_pylist()))
        parts = pc.ascii_split_whitespace(_apply(self._mark, texts))
        lengths = np.diff(parts.offsets.to_numpy())
        parts = parts.flatten().dictionary_encode()
        vocabulary: dict[str, int] = {}
        numbers, counts = array("i"), array("i")
        with _no_collection():
            # In the order in which the texts have them first: so terms get the same numbers.
            for part in parts.dictionary.to_pylist():
                terms = self._terms(part)
                numbers.extend([vocabulary.setdefault(term, len(vocabulary)) for term in terms])
                counts.append(len(terms))
        found, times = _expand(numbers, counts, parts.indices.to_numpy())
        ends = np.concatenate(([0], np.cumsum(times)))[np.concatenate(([0], np.cumsum(lengths)))]
        return _counted(vocabulary, found, np.diff(ends))


def count_terms(products: Iterable[Iterable[str]]) -> Counted:
    """Count the terms of consecutive products."""
    vocabulary: dict[str, int] = {}
    numbers, lengths = array("i"), array("i")
    with _no_collection():
        for terms in products:
            before = len(numbers)
            numbers.extend([vocabulary.setdefault(term, len(vocabulary)) for term in terms])
            lengths.append(len(numbers) - before)
    return _counted(
        vocabulary, np.array(numbers, dtype=np.int32), np.array(lengths, dtype=np.int64)
    )


def _apply(mark: Callable[[bytes], bytes], texts: pa.StringArray) -> pa.StringArray:
    """Return texts with `mark` applied to all at once; it keeps their lengths."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    marked = mark(bytes(memoryview(data or b"")[ends[0] : ends[-1]]))
    return pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(ends - ends[0]), pa.py_buffer(marked)
    )


def _expand(
    numbers: "array[int]", counts: "array[int]", order: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the numbers of things in an order, and how many each of them has.

    Args:
        numbers: of one thing after another.
        counts: how many each thing has.
        order: things, any number of times.
    """
    count = np.array(counts, dtype=np.int32)
    first = np.cumsum(count, dtype=np.int32) - count
    times = count[order]
    before = np.cumsum(times, dtype=np.int32) - times
    at = np.arange(times.sum(), dtype=np.int32) + np.repeat(first[order] - before, times)
    return np.array(numbers, dtype=np.int32)[at], times


def _counted(
    vocabulary: dict[str, int], numbers: NDArray[np.int32], lengths: NDArray[np.int64]
) -> Counted:
    """Count terms that are numbers, those of one product after another."""
    count = len(lengths)
    pairs = numbers.astype(np.int64)
    pairs *= count
    pairs += np.repeat(np.arange(count), lengths)
    pairs, times = np.unique(pairs, return_counts=True)
    having = np.bincount(pairs // max(count, 1), minlength=len(vocabulary)).astype(np.int32)
    products = _small(pairs % max(count, 1))
    return Counted(list(vocabulary), having, products, _small(times), lengths.astype(np.int32))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from looking for cycles: among so many small objects without any it is slow."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _small(numbers: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Return numbers, none negative, in as few bytes as hold them."""
    return numbers.astype(np.min_scalar_type(numbers.max(initial=0)))
