"""Terms counted: which of some products have a term, and how often."""

import gc
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Self

import numpy as np
import pyarrow as pa
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
            self._cut = parts.cut
            self._terms = lru_cache(REMEMBERED)(lambda part: tuple(parts.terms(part)))

    def count(self, texts: pa.Array) -> Counted:
        """Count the terms of the texts of consecutive products."""
        if self._analyser.parts is None:
            return count_terms(map(self._analyser.terms, texts.to_pylist()))
        vocabulary: dict[str, int] = {}
        numbers, cut = _Numbers(self._terms, vocabulary).__getitem__, self._cut
        texts = texts.cast(pa.binary()).to_pylist()
        return _count(vocabulary, (chain.from_iterable(map(numbers, cut(text))) for text in texts))


def count_terms(products: Iterable[Iterable[str]]) -> Counted:
    """Count the terms of consecutive products."""
    vocabulary: dict[str, int] = {}
    return _count(
        vocabulary,
        ([vocabulary.setdefault(term, len(vocabulary)) for term in terms] for terms in products),
    )


class _Numbers(dict[bytes, tuple[int, ...]]):
    """The numbers of the terms of each part of a text; those of a new part are found first."""

    def __init__(
        self, terms: Callable[[bytes], tuple[str, ...]], vocabulary: dict[str, int]
    ) -> None:
        super().__init__()
        self._terms, self._vocabulary = terms, vocabulary

    def __missing__(self, part: bytes) -> tuple[int, ...]:
        vocabulary = self._vocabulary
        numbers = [vocabulary.setdefault(term, len(vocabulary)) for term in self._terms(part)]
        self[part] = found = tuple(numbers)
        return found


def _count(vocabulary: dict[str, int], products: Iterable[Iterable[int]]) -> Counted:
    """Count terms that are numbers; `vocabulary` is filled while `products` are read."""
    numbers, lengths = array("i"), array("i")
    with _no_collection():
        for terms in products:
            before = len(numbers)
            numbers.extend(terms)
            lengths.append(len(numbers) - before)
    count = len(lengths)
    pairs = np.array(numbers, dtype=np.int64)
    pairs *= count
    pairs += np.repeat(np.arange(count), lengths)
    pairs, times = np.unique(pairs, return_counts=True)
    having = np.bincount(pairs // max(count, 1), minlength=len(vocabulary)).astype(np.int32)
    product = _small(pairs % max(count, 1))
    return Counted(
        list(vocabulary), having, product, _small(times), np.array(lengths, dtype=np.int32)
    )


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
