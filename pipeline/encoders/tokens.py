"""Texts to token ids, cut at an encoder's maximum; the tokens cut off are reported."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import PipelineError, shorten

if TYPE_CHECKING:
    from tokenizers import Encoding

CHARACTERS_PER_TOKEN, CHARACTERS_PER_TEXT = 4, 16
"""About what a token and the start of a text cost, in characters, where work is estimated."""


@dataclass(frozen=True)
class Tokens:
    """One text as the model reads it.

    Attributes:
        ids: the tokens read, prefix and special tokens included; int32, shape [tokens].
        cut: where each token that was cut off begins in the text, in characters, the prefix not
            counted (what is cut of the prefix itself begins below 0); int32, shape [tokens cut].
        prompt: how many of the ids are the prefix's, with the special tokens before it; a few
            models leave those out when they pool.
    """

    ids: NDArray[np.int32]
    cut: NDArray[np.int32]
    prompt: int


class Tokenizer:
    """Tokenises texts after one prefix, on the threads of the tokenizers library."""

    def __init__(self, json: str, prefix: str, max_tokens: int, where: str) -> None:
        """Make a tokenizer.

        Args:
            json: the tokenizer in the form of the tokenizers library.
            prefix: what goes before every text.
            max_tokens: texts are cut there, prefix and special tokens counted.
            where: the encoder's key in params.yaml, for messages.
        """
        from tokenizers import Tokenizer as Library

        self._tokenizer = Library.from_str(json)
        self._tokenizer.no_padding()
        truncation = self._tokenizer.truncation or {}
        self._tokenizer.enable_truncation(
            max_tokens, direction=truncation.get("direction", "right")
        )
        self._prefix = prefix
        self._prompt = self._count_prompt()
        self._where = where

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of texts, in their order.

        Raises:
            PipelineError: a text is not Unicode (it holds a lone surrogate), or has no token.
        """
        try:
            encodings = self._tokenizer.encode_batch([self._prefix + text for text in texts])
        except (TypeError, UnicodeEncodeError):
            refuse_surrogates(texts, self._where)
            raise
        for text, encoding in zip(texts, encodings, strict=True):
            if not encoding.ids:
                raise PipelineError(
                    f"{self._where}: the text {shorten(text)} has no tokens, and so no vector. "
                    "Leave such texts out, or give the entry a prefix."
                )
        return [self._tokens(encoding) for encoding in encodings]

    def _count_prompt(self) -> int:
        if not self._prefix:
            return 0
        prompt = self._tokenizer.encode(self._prefix)
        return len(prompt.ids) - int(prompt.special_tokens_mask[-1])

    def _tokens(self, encoding: "Encoding") -> Tokens:
        begins = [
            begin - len(self._prefix)
            for piece in encoding.overflowing
            for (begin, _), special in zip(piece.offsets, piece.special_tokens_mask, strict=True)
            if not special
        ]
        ids, cut = (np.array(numbers, dtype=np.int32) for numbers in (encoding.ids, begins))
        return Tokens(ids, cut, self._prompt)


def refuse_surrogates(texts: Iterable[str], where: str) -> None:
    """Raise a `PipelineError` if a text is not Unicode; `where` is the model's key."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as err:
            raise PipelineError(
                f"{where}: the text {shorten(text)} is not Unicode ({err.reason}). Clean the texts "
                "first."
            ) from err
