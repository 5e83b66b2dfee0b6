"""Token ids to batches whose shape depends only on the length of their texts.

A text's tokens are padded to the next multiple of `STEP`, and all batches of one length have the
same number of rows, the last one filled up. So a text is always computed in one shape, and its
vector is the same to the last bit: alone or with others, today or after a kill. Texts of about one
length share a batch, so little is padded: on ESCI's products 3 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.encoders.tokens import Tokens

CPU_BATCH_TOKENS = 512
"""Tokens of a batch for a CPU: few enough for a core's L2 cache, enough for its vector units."""

STEP = 16
"""Lengths are rounded up to a multiple of this, in tokens; the vector units take 8 or 16 floats."""


@dataclass(frozen=True)
class Batch:
    """Texts of about one length, ready for a model.

    Attributes:
        places: which text each row is; int64, shape [texts]. Rows beyond it only fill the shape.
        ids: token ids, padded on the right; int64, shape [rows, length].
        mask: 1 where a token is, 0 where padding is; int64, shape [rows, length].
        prompt: how many tokens of each row are its prefix's; see `Tokens`.
    """

    places: NDArray[np.int64]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    prompt: int


class Batcher:
    """Collects texts by length and gives a batch away as soon as it is full."""

    def __init__(
        self, batch_tokens: int, max_tokens: int, pad_id: int, *, pads: bool = True
    ) -> None:
        """Start empty.

        Args:
            batch_tokens: how many tokens a batch holds, padding included (more if one text does).
            max_tokens: the length of the longest text.
            pad_id: the id that fills the places without a token.
            pads: whether texts may be padded; if not, all texts of a batch are of one length.
        """
        self._step = STEP if pads else 1
        self._batch_tokens = batch_tokens
        self._max_tokens = max_tokens
        self._pad_id = pad_id
        self._waiting: dict[tuple[int, int], list[tuple[int, NDArray[np.int32]]]] = {}

    def add(self, place: int, text: Tokens) -> Batch | None:
        """Take a text in; return the batch that it completes, if it does."""
        length = min(-(-len(text.ids) // self._step) * self._step, self._max_tokens)
        waiting = self._waiting.setdefault((length, text.prompt), [])
        waiting.append((place, text.ids))
        full = len(waiting) == self._rows(length)
        return self._batch(length, text.prompt) if full else None

    def flush(self) -> Iterator[Batch]:
        """Yield what waits, the longest texts first; each batch is filled up to its shape."""
        for length, prompt in sorted(self._waiting, reverse=True):
            yield self._batch(length, prompt)

    def _rows(self, length: int) -> int:
        return max(1, self._batch_tokens // length)

    def _batch(self, length: int, prompt: int) -> Batch:
        texts = self._waiting.pop((length, prompt))
        rows = self._rows(length)
        ids = np.full((rows, length), self._pad_id, dtype=np.int64)
        mask = np.zeros((rows, length), dtype=np.int64)
        for row in range(rows):
            _, tokens = texts[min(row, len(texts) - 1)]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return Batch(np.array([place for place, _ in texts], dtype=np.int64), ids, mask, prompt)
