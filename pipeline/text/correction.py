"""Words of a query that a catalogue lacks, replaced by the likeliest of its own.

Most misspelled words are one edit away from the word that was meant: a letter inserted, left out or
replaced, or two neighbours swapped (Damerau 1964, A technique for computer detection and correction
of spelling errors). The first letter is seldom wrong (Pollock and Zamora 1984), so it must be the
same, as in Lucene's DirectSpellChecker. So must the last one, where inflections differ.
"""

from bisect import bisect_left
from functools import lru_cache
from itertools import takewhile
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

TWO_EDITS_LETTERS = 10
"""From so many letters on, two edits are allowed: as large a share as one edit of five letters."""

LEAST_PRODUCTS = 2
"""A word of a single product may be misspelled itself."""

ENDING_LETTERS = 2
"""An inflection adds or drops so many letters at most."""

REMEMBERED = 1 << 16
"""How many words are remembered with their corrections."""

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LETTER = rf"(?:(?![{UNSPACED_LETTERS}])\p{{L}}\p{{M}}*)"
_CORRECTABLE = regex.compile(rf"{_LETTER}{{{LEAST_LETTERS},}}")
_LONG = regex.compile(rf"{_LETTER}{{{TWO_EDITS_LETTERS},}}")


class _Alike(NamedTuple):
    """The words that begin and end with the same letters, those of most products first."""

    folded: list[str]
    words: list[str]


class Corrector:
    """Corrects the spelling of queries by a vocabulary.

    A word is left alone if the vocabulary has it or an inflection of it, if it is short, has a
    digit, or is of a script without spaces between words.
    """

    def __init__(self, vocabulary: pa.Table) -> None:
        """Sort the words that may replace others by their first and last letters.

        Args:
            vocabulary: a table of `tables.VOCABULARY`.
        """
        ranked = vocabulary.sort_by([("products", "descending"), ("word", "ascending")])
        words = ranked["word"].to_pylist()
        self._known: dict[str, str] = {}
        self._alike: dict[str, _Alike] = {}
        for word, products in zip(words, ranked["products"].to_pylist(), strict=True):
            folded = fold_accents(word)
            if products:
                self._known.setdefault(folded, word)
            if products >= LEAST_PRODUCTS and len(word) >= LEAST_LETTERS - 1:
                alike = self._alike.setdefault(_ends(folded), _Alike([], []))
                alike.folded.append(folded)
                alike.words.append(word)
        self._known.update(zip(words, words, strict=True))
        self._sorted = sorted(self._known)
        self._find = lru_cache(REMEMBERED)(self._search)

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
        found = self._find(low) if _CORRECTABLE.fullmatch(low) else low
        return word if found == low else found

    def _search(self, word: str) -> str:
        folded = fold_accents(word)
        known = self._known.get(word) or self._known.get(folded)
        if known is not None:
            return known
        return word if self._is_inflected(folded) else self._nearest(folded) or word

    def _is_inflected(self, word: str) -> bool:
        """Say whether a known word is this one with a few letters more or fewer at its end."""
        if any(word[:-letters] in self._known for letters in range(1, ENDING_LETTERS + 1)):
            return True
        after = range(bisect_left(self._sorted, word), len(self._sorted))
        longer = takewhile(lambda each: each.startswith(word), map(self._sorted.__getitem__, after))
        return any(len(each) <= len(word) + ENDING_LETTERS for each in longer)

    def _nearest(self, word: str) -> str | None:
        alike = self._alike.get(_ends(word))
        if alike is None:
            return None
        edits = 2 if _LONG.match(word) else 1
        (distances,) = process.cdist([word], alike.folded, scorer=OSA.distance, score_cutoff=edits)
        best = np.argmin(distances)  # the first of equals
        return alike.words[best] if distances[best] <= edits else None


def _ends(word: str) -> str:
    """Return the first and the last letter."""
    return word[0] + word[-1]
