"""Texts to vectors, each computed once: what the store lacks is encoded into it, then all is read.

The store is shared by locales, branches and experiments and is no output of DVC, so a larger
sample, another experiment or one edited product encodes only texts that were never encoded. What a
killed run had put into it stays, and since a vector depends on its text alone, the next run ends
with the same bytes as if nothing had happened.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core import layout
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.parallel import in_parallel
from pipeline.encoders.encoder import Encoded, TextEncoder, refuse_broken
from pipeline.encoders.tokens import Tokenizer, Tokens
from pipeline.store.store import Keys, Missing, Store, keys_of

GROUP_TEXTS = 256
GROUP_SECONDS = 10.0
"""A group of vectors goes to the store as one segment when it has so many texts or is so old: a
kill loses no more."""

READ_ATTEMPTS = 5
"""How often a window is read that other processes delete, or that is damaged, again and again."""


@dataclass(frozen=True)
class Window:
    """Some rows of a table.

    Attributes:
        start: the first row's number.
        texts: one a row.
        field_ends: where each field of a text ends, in characters; int32, shape [rows, fields].
    """

    start: int
    texts: list[str]
    field_ends: NDArray[np.int32]


Windows = Callable[[], Iterator[Window]]
"""Reads a table from its beginning, some rows at a time."""


class Watcher(Protocol):
    """Is told how far encoding is."""

    def __call__(self, texts: int, tokens: int, computed: int, work: int) -> None:
        """Take in that so many more texts are encoded.

        Args:
            texts: how many.
            tokens: those that the encoder read of them.
            computed: those that it computed, padding included.
            work: what they cost, in characters that the encoder reads.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """What there is to do for one side: how many texts, how many differ, how many are held.

    `to_count` rows have no token count yet. `work` is what the texts to encode cost, in characters
    that the encoder reads.
    """

    texts: int
    distinct: int
    to_encode: int
    to_count: int
    work: int

    @property
    def reused(self) -> int:
        """How many of the distinct texts are in the store already."""
        return self.distinct - self.to_encode


class Encoding:
    """One side of a locale: its texts, and the stores of their vectors and token counts."""

    def __init__(
        self,
        windows: Windows,
        vectors_store: Store,
        counts_store: Store,
        max_characters: int,
        name: str,
    ) -> None:
        """Look at a table's texts; nothing is read yet.

        Args:
            windows: the texts.
            vectors_store: raw vectors, by text.
            counts_store: token counts, by text and where its fields end; int32, shape [1 +
                fields]: all tokens, then those cut off of each field.
            max_characters: about how much of a text the encoder reads, for estimates.
            name: the encoder's name, for messages.
        """
        self._windows = windows
        self._vectors = vectors_store
        self._counts = counts_store
        self._max_characters = max_characters
        self._name = name
        self._window_count = 0

    def plan(self) -> Plan:
        """Read all texts and say what is to be done."""
        keys, work = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
        to_count = self._window_count = 0
        for window in self._windows():
            self._window_count += 1
            to_count += int(np.count_nonzero(~self._counts.holds(_count_keys(window))))
            keys.append(keys_of(window.texts))
            work.append(self._work(window.texts))
        distinct, first = np.unique(np.concatenate(keys), axis=0, return_index=True)
        missing = ~self._vectors.holds(distinct)
        self._vectors.use(distinct[~missing])
        texts = sum(map(len, keys))
        cost = int(np.concatenate(work)[first[missing]].sum())
        return Plan(texts, len(distinct), int(missing.sum()), to_count, cost)

    def fill(
        self,
        encoder: TextEncoder,
        tokenizer: Tokenizer,
        watch: Watcher,
        windows: Windows | None = None,
        limit: int | None = None,
    ) -> None:
        """Encode what the store lacks into it, group by group.

        A process that finds another at the same work begins in the middle of the table: each then
        finds what the other has done, and hardly a text is encoded twice.

        Args:
            encoder: encodes tokens.
            tokenizer: makes them, of this side's texts.
            watch: is told of progress.
            windows: the texts, where not all.
            limit: how many texts at most; those that are missed then are encoded another time.

        Raises:
            PipelineError: a text is not Unicode, a vector holds NaN, the store cannot be written.
        """
        if windows is not None or self._window_count < 2:
            self._fill(encoder, tokenizer, watch, windows or self._windows, limit)
            return
        with self._vectors.filling() as first:
            middle = partial(self._rotated, self._window_count // 2)
            self._fill(encoder, tokenizer, watch, self._windows if first else middle, limit)

    def _rotated(self, first: int) -> Iterator[Window]:
        """Yield all windows, beginning with the one of this number."""
        yield from islice(self._windows(), first, None)
        yield from islice(self._windows(), first)

    def _fill(
        self,
        encoder: TextEncoder,
        tokenizer: Tokenizer,
        watch: Watcher,
        windows: Windows,
        limit: int | None,
    ) -> None:
        waiting: dict[int, tuple[NDArray[np.uint64], str, int]] = {}
        in_flight: set[bytes] = set()

        def texts() -> Iterator[tuple[int, Tokens]]:
            number = 0
            lacking = self._lacking(windows, in_flight)
            for part, tokens in _ahead(lacking, lambda part: tokenizer(part.texts)):
                self._count(part, tokens)
                self._vectors.refresh()  # another process may have been faster
                for row in np.flatnonzero(part.encode & ~self._vectors.holds(part.keys)):
                    if number == limit:
                        return
                    waiting[number] = (part.keys[row], part.texts[row], len(tokens[row].ids))
                    yield number, tokens[row]
                    number += 1

        group: list[Encoded] = []
        begun = time.monotonic()
        for encoded in encoder.encode_tokens(texts()):
            refuse_broken(encoded.raw, [waiting[at][1] for at in encoded.places], self._name)
            group.append(encoded)
            done = [waiting[at] for at in encoded.places]
            watch(
                texts=len(done),
                tokens=sum(tokens for _, _, tokens in done),
                computed=encoded.computed,
                work=int(self._work([text for _, text, _ in done]).sum()),
            )
            size = sum(len(part.places) for part in group)
            if size >= GROUP_TEXTS or time.monotonic() - begun >= GROUP_SECONDS:
                self._store(group, waiting, in_flight)
                group, begun = [], time.monotonic()
        self._store(group, waiting, in_flight)

    def raw(self, window: Window) -> Matrix:
        """Return the raw vectors of a window's texts.

        Raises:
            Missing: some are not in the store, or were damaged there.
        """
        found: Matrix = self._vectors.read(keys_of(window.texts))
        return found

    def counts(self, window: Window) -> NDArray[np.int32]:
        """Return the token counts of a window's texts; raises as `raw` does."""
        found: NDArray[np.int32] = self._counts.read(_count_keys(window))
        return found

    def _lacking(self, windows: Windows, in_flight: set[bytes]) -> Iterator["_Part"]:
        """Yield of each window what has no vector, each text once, or no token count."""
        for window in windows():
            keys, count_keys = keys_of(window.texts), _count_keys(window)
            encode = ~self._vectors.holds(keys)
            for row in np.flatnonzero(encode):
                key = keys[row].tobytes()
                encode[row] = key not in in_flight
                in_flight.add(key)
            rows = np.flatnonzero(encode | ~self._counts.holds(count_keys))
            if len(rows):
                yield _Part(
                    [window.texts[row] for row in rows],
                    keys[rows], count_keys[rows], window.field_ends[rows], encode[rows],
                )  # fmt: skip

    def _count(self, part: "_Part", tokens: Sequence[Tokens]) -> None:
        fields = part.field_ends.shape[1]
        rows = np.zeros((len(tokens), 1 + fields), dtype=np.int32)
        for row, (read, ends) in enumerate(zip(tokens, part.field_ends, strict=True)):
            rows[row, 0] = len(read.ids) + len(read.cut)
            # A token belongs to the field that it begins in; what lies between two fields goes
            # with the later one, and what is cut of the prefix with the first.
            field = np.minimum(np.searchsorted(ends, read.cut, side="right"), fields - 1)
            rows[row, 1:] = np.bincount(field, minlength=fields)
        keys, first = np.unique(part.count_keys, axis=0, return_index=True)
        new = ~self._counts.holds(keys)
        if new.any():
            self._counts.add(keys[new], rows[first[new]])

    def _store(
        self,
        group: list[Encoded],
        waiting: dict[int, tuple[NDArray[np.uint64], str, int]],
        in_flight: set[bytes],
    ) -> None:
        if not group:
            return
        places = np.concatenate([part.places for part in group])
        keys = np.stack([waiting.pop(place)[0] for place in places.tolist()])
        self._vectors.add(keys, np.concatenate([part.raw for part in group]))
        in_flight.difference_update(key.tobytes() for key in keys)

    def _work(self, texts: Sequence[str]) -> NDArray[np.int64]:
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return 16 + np.minimum(lengths, self._max_characters)


def read_or_fill(
    encoding: Encoding, window: Window, fill: Callable[[Windows], None]
) -> tuple[Matrix, NDArray[np.int32]]:
    """Return a window's raw vectors and token counts; what has gone meanwhile is made again.

    Raises:
        PipelineError: what is made again is gone each time.
    """
    for _ in range(READ_ATTEMPTS):
        try:
            return encoding.raw(window), encoding.counts(window)
        except Missing:
            fill(lambda: iter([window]))
    raise PipelineError(
        f"the store of vectors in {layout.store()} lost what was just written to it, "
        f"{READ_ATTEMPTS} times: its disk may be failing, or another process deletes from it; let "
        "$PIPELINE_CACHE name another folder"
    )


@dataclass(frozen=True)
class _Part:
    """Rows of a window that need the tokenizer; `encode` says which need the encoder too."""

    texts: list[str]
    keys: Keys
    count_keys: Keys
    field_ends: NDArray[np.int32]
    encode: NDArray[np.bool_]


def _ahead(
    parts: Iterable[_Part], work: Callable[[_Part], list[Tokens]]
) -> Iterator[tuple[_Part, list[Tokens]]]:
    """Tokenise on a thread of its own, a little ahead of the encoder."""
    return in_parallel(lambda part: (part, work(part)), parts, threads=1)


def _count_keys(window: Window) -> Keys:
    ends = map(bytes, np.ascontiguousarray(window.field_ends))
    return keys_of(f"{end.hex()} {text}" for end, text in zip(ends, window.texts, strict=True))
