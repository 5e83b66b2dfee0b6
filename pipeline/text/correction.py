"""Words of a query that a catalogue lacks, replaced by the likeliest of its own.

Most misspelled words are one edit away from the word that was meant: a letter inserted, left out or
replaced, or two neighbours swapped (Damerau 1964, A technique for computer detection and correction
of spelling errors). The first letter is seldom wrong (Pollock and Zamora 1984), so it must be the
same, as in Lucene's DirectSpellChecker. So must the last one, where inflections differ.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex
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


class _Alike(NamedTuple):
    """The words that begin and end with the same letters."""

    folded: list[str]
    words: list[tuple[int, str]]
    """In how many products each is, below 0, and the word with its accents."""


class Corrector:
    """Corrects the spelling of queries by a vocabulary.

    A word is left alone if the vocabulary has it, if it is short, has a digit, or is of a script
    without spaces between words.
    """

    def __init__(self, vocabulary: pa.Table) -> None:
        """Sort the words that may replace others by their first and last letters.

        Args:
            vocabulary: a table of `tables.VOCABULARY`.
        """
        words = vocabulary["word"].to_pylist()
        self._known = frozenset(words)
        self._corrected: dict[str, str] = {}
        self._alike: dict[str, _Alike] = {}
        for word, products in zip(words, vocabulary["products"].to_pylist(), strict=True):
            if products >= LEAST_PRODUCTS and len(word) >= LEAST_LETTERS - 1:
                folded = fold_accents(word)
                alike = self._alike.setdefault(_ends(folded), _Alike([], []))
                alike.folded.append(folded)
                alike.words.append((-products, word))

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
        alike = self._alike.get(_ends(word))
        if alike is None:
            return None
        edits = 2 if len(word) >= TWO_EDITS_LETTERS else 1
        (distances,) = process.cdist([word], alike.folded, scorer=OSA.distance, score_cutoff=edits)
        reached = np.flatnonzero(distances <= edits).tolist()
        best = min(((distances[each], *alike.words[each]) for each in reached), default=None)
        return None if best is None else best[2]


def _ends(word: str) -> str:
    """Return the first and the last letter."""
    return word[0] + word[-1]
