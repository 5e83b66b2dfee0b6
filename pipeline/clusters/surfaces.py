"""Words as they are written, each with the term that bm25 makes of it."""

from collections.abc import Callable, Iterator
from functools import cache

import sudachipy
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from pipeline.bm25 import analysers

Surfaces = Callable[[str], list[tuple[str, str]]]
"""Returns the words of a text as (surface form, term), in order; a word that names nothing is left
out."""

UNIT_LETTERS = 3

_NAMING = ("名詞", "形状詞", "形容詞", "接頭辞")


def surfaces_for(language: str) -> Surfaces:
    """Return what gives the words of a language with bm25's terms for them.

    These name nothing, and are left out: words without a letter, single Latin letters, units (at
    most three letters after a number), and English function words, which titles in all languages
    have. Of Japanese, only nouns and adjectives name anything; Sudachi says which these are. Pairs
    of characters are left out, since they are no words.

    Args:
        language: an ISO 639-1 code, or `any`.
    """
    if language == "ja":
        return _japanese()
    analyse = analysers.analyser_for(language).terms

    @cache
    def term(word: str) -> str:
        terms = analyse(word)
        return terms[0] if len(terms) == 1 else word

    def found(text: str) -> list[tuple[str, str]]:
        words = analysers.words(text)
        return [
            (word, term(word))
            for before, word in zip(["", *words], words, strict=False)
            if _names(word) and not (len(word) <= UNIT_LETTERS and before[:1].isnumeric())
        ]

    return found


def _names(word: str) -> bool:
    """Say whether a word may be part of a name."""
    single = len(word) == 1 and word < "\u0250"
    return word[0].isalpha() and not single and word not in ENGLISH_STOP_WORDS


def _japanese() -> Surfaces:
    tokenizer = sudachipy.Dictionary().tokenizer(mode=sudachipy.SplitMode.A)

    def found(text: str) -> list[tuple[str, str]]:
        words = [
            word
            for piece in analysers.pieces(text)
            for word in _joined_affixes(tokenizer.tokenize(piece))
        ]
        return [word for word in words if _names(word[0])]

    return found


def _joined_affixes(morphemes: sudachipy.MorphemeList) -> Iterator[tuple[str, str]]:
    """Yield the nouns and adjectives with their prefixes and suffixes, as (surface, term).

    Sudachi's shortest units cut 扇風機, 大容量 and 座椅子, and their parts name nothing: a noun of
    one character counts as an affix of its neighbour. What follows a number is a unit, and is left
    out.
    """
    surface = term = before = ""
    opens = counted = False
    for morpheme in morphemes:
        written, kind = morpheme.surface().casefold(), morpheme.part_of_speech()
        single = len(written) == 1 and kind[0] == "名詞" and not written.isascii()
        closes = kind[0] == "接尾辞" or "助数詞可能" in kind or (single and before == "名詞")
        if surface and not closes and not (opens and kind[0] in _NAMING):
            yield surface, term
            surface = term = ""
        is_number = kind[1] == "数詞" or written.isnumeric()
        opens = kind[0] == "接頭辞" or (single and not surface)
        if not counted and not is_number and (surface or kind[0] in _NAMING):
            surface += written
            term += morpheme.normalized_form().casefold()
        counted, before = is_number or (counted and closes), kind[0]
    if surface:
        yield surface, term
