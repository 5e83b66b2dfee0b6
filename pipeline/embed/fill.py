"""Texts to vectors, each computed once: encode what the store lacks into it, then read all from it.

Locales, branches and experiments share the store, and it is not an output of DVC: a larger sample,
another experiment or one edited product encodes only texts that were never encoded. The vectors
that a killed run had stored stay. A vector depends on its text alone, so the next run ends with
the same bytes as an uninterrupted one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.core import layout
from pipeline.core.arrays import Matrix
from pipeline.core.parallel import in_parallel
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.embed.rates import Meter, Rate, keep_rate, read_rate
from pipeline.embed.sides import TableSide, Window
from pipeline.encoders.encoder import Encoded, in_groups, refuse_broken
from pipeline.encoders.identity import identity
from pipeline.encoders.tokens import (
    CHARACTERS_PER_TEXT,
    CHARACTERS_PER_TOKEN,
    Tokenizer,
    Tokens,
)
from pipeline.store.store import Keys, Store, keys_of, read_or_fill

GROUP_TEXTS = 256
"""Vectors are stored in groups of so many texts, or after `GROUP_SECONDS`."""

Windows = Callable[[], Iterator[Window]]
"""Reads rows of a table, from the first on, in windows."""


@dataclass(frozen=True)
class Survey:
    """What there is to do for the texts of one side.

    Attributes:
        texts: how many texts there are.
        distinct: how many of them differ.
        to_encode: how many of the distinct ones have no vector in the store.
        to_count: how many rows have no token count in the store.
        work: what the texts to encode cost, in characters that the encoder reads.
    """

    texts: int
    distinct: int
    to_encode: int
    to_count: int
    work: int

    @property
    def reused(self) -> int:
        """How many of the distinct texts have a vector in the store."""
        return self.distinct - self.to_encode


class SideEncoder:
    """Encodes one side of a locale through the store.

    The store has raw vectors by text, and token counts by text and field ends: int32, shape [1 +
    fields], all tokens first and then those cut off of each field.

    Attributes:
        encoder: the locale's encoder.
        table: the side.
        encoded: how many texts were encoded so far.
    """

    def __init__(self, encoder: LocaleEncoder, table: TableSide) -> None:
        """Open the stores; no text is read yet."""
        self.encoder = encoder
        self.table = table
        self.encoded = 0
        about = identity(encoder.spec, encoder.weights, encoder.engine, table.role)
        self._vectors = Store(layout.store(), about, "float32")
        counted = {key: about[key] for key in ("max_tokens", "prefix", "weights")}
        counted |= {"counts": "tokens", "fields": len(table.fields)}
        self._counts = Store(layout.store(), counted, "int32")
        where = "-ray" if encoder.distributed else ""  # a cluster's rate is not this machine's
        self._rate_file = layout.rates() / f"{self._vectors.folder.name}{where}.json"
        self._rate: Rate | None = None
        self._window_count = 0

    @property
    def width(self) -> int:
        """How many components the model's own vectors have; 0 while none is stored."""
        return self._vectors.width

    @property
    def dimension(self) -> int:
        """How many components the finished vectors have; 0 while it is not known."""
        own = self.encoder.spec.dimension
        return self.width if own == "model" else own

    def rate(self) -> Rate | None:
        """Return the rate measured last on this machine, None if none was."""
        return self._rate or read_rate(self._rate_file)

    def seconds(self, work: int) -> float | None:
        """Return how long this many characters take by that rate, None if there is none."""
        rate = self.rate()
        return None if rate is None else rate.seconds(work, self.encoder.threads)

    def survey(self, windows: Windows | None = None) -> Survey:
        """Read all texts, or some windows, and compare them with the store."""
        keys, work = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
        to_count = 0
        for window in (windows or self.table.windows)():
            to_count += int(np.count_nonzero(~self._counts.holds(_count_keys(window))))
            keys.append(keys_of(window.texts))
            work.append(self._work(window.texts))
        if windows is None:
            self._window_count = len(keys) - 1
        distinct, first = np.unique(np.concatenate(keys), axis=0, return_index=True)
        missing = ~self._vectors.holds(distinct)
        self._vectors.use(distinct[~missing])
        texts = sum(map(len, keys))
        cost = int(np.concatenate(work)[first[missing]].sum())
        return Survey(texts, len(distinct), int(missing.sum()), to_count, cost)

    def fill(
        self, survey: Survey, windows: Windows | None = None, limit: int | None = None
    ) -> None:
        """Encode what the store lacks into it, group by group, and show how far it is.

        A process that finds another one at the same work begins in the middle of the table. Each
        then finds what the other has done, and hardly any text is encoded twice.

        Args:
            survey: of these windows.
            windows: some of the texts; without them, all.
            limit: how many texts to encode at most.

        Raises:
            PipelineError: a text is not Unicode, a vector has NaN, or the store cannot be written.
        """
        if not survey.to_encode and not survey.to_count:
            return
        reused = f"{survey.reused:,} of {survey.distinct:,}"
        with Meter(survey.to_encode, survey.work, self.table.kind, reused) as meter:
            model = self.encoder.model
            tokenizer = model.tokenizer(self.table.role)
            meter.start()
            with self._in_order(windows) as ordered:
                flight = _Flight()
                texts = self._texts(ordered, tokenizer, flight, limit)
                encoded = self._checked(model.encode_tokens(texts), flight, meter)
                for group in in_groups(encoded, GROUP_TEXTS):
                    keys = flight.land(np.concatenate([part.places for part in group]))
                    self._vectors.add(keys, np.concatenate([part.raw for part in group]))
        self.encoded += meter.texts
        if rate := meter.rate(self.encoder.threads):
            self._rate = rate
            if limit is None or not self.encoder.distributed:
                keep_rate(self._rate_file, rate)

    def read(self, window: Window) -> tuple[Matrix, NDArray[np.int32]]:
        """Return a window's raw vectors and token counts; what the store lost is encoded again.

        Raises:
            PipelineError: as `fill`, or the store loses the vectors again and again.
        """

        def alone() -> Iterator[Window]:
            yield window

        vectors, counts = self._vectors, self._counts
        return read_or_fill(
            lambda: (vectors.read(keys_of(window.texts)), counts.read(_count_keys(window))),
            lambda: self.fill(self.survey(alone), alone),
        )

    @contextmanager
    def _in_order(self, windows: Windows | None) -> Iterator[Windows]:
        """Yield the windows in the order in which this process takes them."""
        if windows is not None or self._window_count < 2:
            yield windows or self.table.windows
            return
        with self._vectors.filling() as first:
            yield self.table.windows if first else self._from_the_middle

    def _from_the_middle(self) -> Iterator[Window]:
        middle = self._window_count // 2
        yield from islice(self.table.windows(), middle, None)
        yield from islice(self.table.windows(), middle)

    def _texts(
        self, windows: Windows, tokenizer: Tokenizer, flight: "_Flight", limit: int | None
    ) -> Iterator[tuple[int, Tokens]]:
        """Yield the texts to encode, tokenised, each under its number in `flight`."""
        parts = self._lacking(windows, flight)
        # On a thread of its own, the tokenizer is a little ahead of the encoder.
        tokenised = in_parallel(lambda part: (part, tokenizer(part.texts)), parts, threads=1)
        for part, tokens in tokenised:
            self._count(part, tokens)
            self._vectors.refresh()  # another process may have encoded them meanwhile
            for row in np.flatnonzero(part.encode & ~self._vectors.holds(part.keys)):
                if flight.begun == limit:
                    return
                yield flight.begin(part.keys[row], part.texts[row], tokens[row]), tokens[row]

    def _lacking(self, windows: Windows, flight: "_Flight") -> Iterator["_Part"]:
        """Yield the rows of each window without a vector, each text once, or a token count."""
        for window in windows():
            keys, count_keys = keys_of(window.texts), _count_keys(window)
            encode = flight.announce(keys, ~self._vectors.holds(keys))
            rows = np.flatnonzero(encode | ~self._counts.holds(count_keys))
            if len(rows):
                yield _Part(
                    [window.texts[row] for row in rows],
                    keys[rows], count_keys[rows], window.field_ends[rows], encode[rows],
                )  # fmt: skip

    def _count(self, part: "_Part", tokens: Sequence[Tokens]) -> None:
        """Store the token counts of a part that have no entry yet."""
        keys, first = np.unique(part.count_keys, axis=0, return_index=True)
        new = ~self._counts.holds(keys)
        if new.any():
            self._counts.add(keys[new], _token_counts(tokens, part.field_ends)[first[new]])

    def _checked(
        self, encoded: Iterable[Encoded], flight: "_Flight", meter: Meter
    ) -> Iterator[Encoded]:
        """Yield vectors as they come, once they are sound and counted."""
        for part in encoded:
            done = flight.under(part.places)
            refuse_broken(part.raw, [one.text for one in done], self.encoder.weights.entry)
            meter.add(
                texts=len(done),
                tokens=sum(one.tokens for one in done),
                computed=part.computed,
                work=int(self._work([one.text for one in done]).sum()),
            )
            yield part

    def _work(self, texts: Sequence[str]) -> NDArray[np.int64]:
        read_at_most = self.encoder.spec.max_tokens * CHARACTERS_PER_TOKEN
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return CHARACTERS_PER_TEXT + np.minimum(lengths, read_at_most)


@dataclass(frozen=True)
class _Part:
    """Rows of a window that need the tokenizer; `encode` says which need the encoder too."""

    texts: list[str]
    keys: Keys
    count_keys: Keys
    field_ends: NDArray[np.int32]
    encode: NDArray[np.bool_]


@dataclass(frozen=True)
class _Text:
    """A text that is being encoded, and how many tokens of it are read."""

    key: NDArray[np.uint64]
    text: str
    tokens: int


class _Flight:
    """The texts between the table and the store: announced, being encoded, then stored.

    Only one thread uses it, the one that iterates over the encoded vectors: it also takes the
    windows, the parts and the batches. The tokenizer's thread and the engine's get texts and
    batches alone.

    Attributes:
        begun: how many texts were given to the encoder.
    """

    def __init__(self) -> None:
        self.begun = 0
        self._announced: set[bytes] = set()
        self._encoding: dict[int, _Text] = {}

    def announce(self, keys: Keys, lacking: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the lacking keys are not in flight yet, each once; now they are."""
        new = lacking.copy()
        for row in np.flatnonzero(lacking):
            key = keys[row].tobytes()
            new[row] = key not in self._announced
            self._announced.add(key)
        return new

    def begin(self, key: NDArray[np.uint64], text: str, tokens: Tokens) -> int:
        """Number a text that is given to the encoder."""
        number = self.begun
        self._encoding[number] = _Text(key, text, len(tokens.ids))
        self.begun += 1
        return number

    def under(self, numbers: NDArray[np.int64]) -> list[_Text]:
        """Return the texts with these numbers."""
        return [self._encoding[number] for number in numbers.tolist()]

    def land(self, numbers: NDArray[np.int64]) -> Keys:
        """Forget the texts with these numbers, which go to the store; return their keys."""
        keys = np.stack([self._encoding.pop(number).key for number in numbers.tolist()])
        self._announced.difference_update(key.tobytes() for key in keys)
        return keys


def _token_counts(tokens: Sequence[Tokens], field_ends: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return each text's number of tokens and those cut off per field; shape [rows, 1 + fields]."""
    fields = field_ends.shape[1]
    rows = np.zeros((len(tokens), 1 + fields), dtype=np.int32)
    for row, (read, ends) in enumerate(zip(tokens, field_ends, strict=True)):
        rows[row, 0] = len(read.ids) + len(read.cut)
        # A token belongs to the field that it begins in; one between two fields to the later one,
        # and what is cut of the prefix to the first.
        field = np.minimum(np.searchsorted(ends, read.cut, side="right"), fields - 1)
        rows[row, 1:] = np.bincount(field, minlength=fields)
    return rows


def _count_keys(window: Window) -> Keys:
    ends = map(bytes, np.ascontiguousarray(window.field_ends))
    return keys_of(f"{end.hex()} {text}" for end, text in zip(ends, window.texts, strict=True))
