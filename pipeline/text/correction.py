"""Words of a query that a catalogue lacks, replaced by the likeliest of its own.

Most misspelled words are one edit away from the word that was meant: a letter inserted, left out or
replaced, or two neighbours swapped (Damerau 1964, A technique for computer detection and correction
of spelling errors). The first letter is seldom wrong (Pollock and Zamora 1984), so it must be the
same, as in Lucene's DirectSpellChecker. So must the last one, where inflections differ.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import OSA

from pipeline.core.languages import UNSPACED_LETTERS, fold_accents

LEAST_LETTERS = 5
"""A shorter word has so many neighbours that most corrections of it are wrong."""

TWO_EDITS_LETTERS = 8
"""From so many letters on, two edits are allowed."""

LEAST_PRODUCTS = 2
"""A word of a single product may be misspelled itself."""

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LETTERS = regex.compile(rf"(?:(?![{UNSPACED_LETTERS}])\p{{L}}\p{{M}}*)+")


class Corrector:
    """Corrects the spelling of queries by a vocabulary.

    A word is left alone if the vocabulary has it, if it is short, has a digit, or is of a script
    without spaces between words.
    """

    def __init__(self, vocabulary: pa.Table) -> None:
        """Sort the words that may replace others by length.

        Args:
            vocabulary: a table of `tables.VOCABULARY`.
        """
        words = vocabulary["word"].to_pylist()
        self._known = frozenset(words)
        self._corrected: dict[str, str] = {}
        rows = zip(words, vocabulary["products"].to_pylist(), strict=True)
        wanted = [
            (fold_accents(word), products, word)
            for word, products in rows
            if products >= LEAST_PRODUCTS and len(word) >= LEAST_LETTERS - 1
        ]
        wanted.sort(key=lambda each: len(each[0]))
        self._folded = [folded for folded, _, _ in wanted]
        self._products = [products for _, products, _ in wanted]
        self._words = [word for _, _, word in wanted]
        self._lengths = np.array([len(folded) for folded in self._folded], np.int64)
        self._letters = letters_of(self._folded)

    def correct(self, text: str) -> str:
        """Return a clean query with its words corrected; what is between them stays."""
        corrected: str = _WORD.sub(lambda found: self.correct_word(found[0]), text)
        return corrected

    def count(self, text: str) -> int:
        """Return how many words of a clean query are corrected."""
        return sum(self.correct_word(word) != word for word in _WORD.findall(text))

    def correct_word(self, word: str) -> str:
        """Return the word to search for: the word itself, or one of the vocabulary.

        Accents do not count as edits. Of the words within reach the nearest is chosen; of those the
        one of most products; of those the first in the order of code points.
        """
        # As the vocabulary is lowered: Python knows more rules, such as a final sigma.
        low = pc.utf8_lower(pa.scalar(word)).as_py()
        if len(low) < LEAST_LETTERS or low in self._known or not _LETTERS.fullmatch(low):
            return word
        if low not in self._corrected:
            self._corrected[low] = self._nearest(fold_accents(low)) or word
        return self._corrected[low]

    def _nearest(self, word: str) -> str | None:
        edits = 2 if len(word) >= TWO_EDITS_LETTERS else 1
        first, last = np.searchsorted(self._lengths, [len(word) - edits, len(word) + edits + 1])
        # An edit takes a letter out of the set, puts one in, or both.
        differing = np.bitwise_count(self._letters[first:last] ^ letters_of([word]))
        rows = [
            row
            for row in (np.flatnonzero(differing <= 2 * edits) + first).tolist()
            if self._folded[row][0] == word[0] and self._folded[row][-1] == word[-1]
        ]
        if not rows:
            return None
        folded = [self._folded[row] for row in rows]
        (distances,) = process.cdist([word], folded, scorer=OSA.distance, score_cutoff=edits)
        reached = [
            (distance, -self._products[row], self._words[row])
            for distance, row in zip(distances.tolist(), rows, strict=True)
            if distance <= edits
        ]
        return min(reached)[2] if reached else None


def letters_of(words: list[str]) -> NDArray[np.uint64]:
    """Return the set of letters of each word as bits; letters may share one. No word is empty."""
    codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32).astype(np.uint64)
    if not words:
        return codes
    starts = np.cumsum([0, *map(len, words[:-1])])
    return np.bitwise_or.reduceat(np.uint64(1) << (codes & np.uint64(63)), starts)
