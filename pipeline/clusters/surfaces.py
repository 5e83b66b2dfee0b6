"""Words as they are written, each with the term that bm25 makes of it."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import sudachipy
from bm25s import stopwords

from pipeline.bm25 import analysers

Surface = tuple[str, str] | None
"""A word as (surface form, term); None where it names nothing."""

Surfaces = Callable[[str], list[Surface]]
"""Returns the words of a text, in order."""

UNIT_LETTERS = 3
SPACE = "空白"
"""Sudachi's part of speech of a space."""

_FUNCTION_WORDS: dict[str, tuple[str, ...]] = {
    "da": stopwords.STOPWORDS_DANISH,
    "de": stopwords.STOPWORDS_GERMAN,
    "es": stopwords.STOPWORDS_SPANISH,
    "fr": stopwords.STOPWORDS_FRENCH,
    "it": stopwords.STOPWORDS_ITALIAN,
    "ko": stopwords.STOPWORDS_KOREAN,
    "nl": stopwords.STOPWORDS_DUTCH,
    "no": stopwords.STOPWORDS_NORWEGIAN,
    "pt": stopwords.STOPWORDS_PORTUGUESE,
    "ru": stopwords.STOPWORDS_RUSSIAN,
    "sv": stopwords.STOPWORDS_SWEDISH,
    "tr": stopwords.STOPWORDS_TURKISH,
}
"""Those that bm25s has, by ISO 639-1 code."""

_DESCRIBING = ("サ変可能", "形状詞可能", "サ変形状詞可能", "副詞可能")
"""Nouns that also serve as verbs, adjectives or adverbs: 対応, 軽量. Alone they name no thing."""


def surfaces_for(language: str) -> Surfaces:
    """Return what gives the words of a language with bm25's terms for them.

    These name nothing: words without a letter, single Latin letters, units (at
    most three letters after a number), and function words of the language. Titles in all languages
    have English ones too. Of Japanese, only nouns that are mere nouns name anything, and proper
    nouns only with an affix; Sudachi says which these are. Pairs of characters are left out, since
    they are no words.

    Args:
        language: an ISO 639-1 code, or `any`.
    """
    if language == "ja":
        return _japanese()
    function_words = {*stopwords.STOPWORDS_EN_PLUS, *_FUNCTION_WORDS.get(language, ())}
    analyse = analysers.analyser_for(language).terms

    @cache
    def term(word: str) -> str:
        terms = analyse(word)
        return terms[0] if len(terms) == 1 else word

    def names(word: str, before: str) -> bool:
        is_unit = len(word) <= UNIT_LETTERS and before[:1].isnumeric()
        return _may_name(word) and word not in function_words and not is_unit

    def found(text: str) -> list[Surface]:
        words = analysers.words(text)
        return [
            (word, term(word)) if names(word, before) else None
            for before, word in zip(["", *words], words, strict=False)
        ]

    return found


def _may_name(word: str) -> bool:
    """Say whether a word has letters, and more than one where they are Latin."""
    return word[0].isalpha() and not (len(word) == 1 and word < "\u0250")


def _japanese() -> Surfaces:
    tokenizer = sudachipy.Dictionary().tokenizer(mode=sudachipy.SplitMode.A)
    function_words = set(stopwords.STOPWORDS_EN_PLUS)

    def found(text: str) -> list[Surface]:
        words = [
            word
            for piece in analysers.pieces(text)
            for word in _joined_affixes(tokenizer.tokenize(piece))
        ]
        return [
            word if word and _may_name(word[0]) and word[0] not in function_words else None
            for word in words
        ]

    return found


def _joined_affixes(morphemes: sudachipy.MorphemeList) -> Iterator[Surface]:
    """Yield the nouns with their prefixes and suffixes, and None for other words.

    Sudachi's shortest units cut 扇風機, 洗濯機 and 座椅子, and their parts name nothing: a noun of
    one character counts as an affix of its neighbour. What follows a number is a unit, and is left
    out. Behind a space, only a counter or a short word is one: 合 in *5.5 合 炊飯器*.
    """
    word: list[sudachipy.Morpheme] = []
    before = ""
    opens = counted = is_number = False
    for morpheme in morphemes:
        written, kind = morpheme.surface(), morpheme.part_of_speech()
        if not written.strip():
            if word:
                yield _surface(word)
            word, before, opens, counted = [], SPACE, False, is_number
            continue
        naming = kind[0] in ("名詞", "接頭辞")
        single = len(written) == 1 and kind[0] == "名詞" and not written.isascii()
        closes = kind[0] == "接尾辞" or "助数詞可能" in kind or (single and before == "名詞")
        if word and not closes and not (opens and naming):
            yield _surface(word)
            word = []
        is_number = kind[1] == "数詞" or written.isnumeric()
        opens = kind[0] == "接頭辞" or (single and not word)
        counted = counted and (before != SPACE or _may_count(written, kind))
        if not counted and not is_number and (word or naming):
            word.append(morpheme)
        else:
            yield None
        counted, before = is_number or (counted and closes), kind[0]
    if word:
        yield _surface(word)


def _may_count(written: str, kind: Sequence[str]) -> bool:
    """Say whether a word behind a number and a space may be its unit."""
    short = len(written) <= (UNIT_LETTERS if written.isascii() else 1)
    return short or any(part.startswith("助数詞") for part in kind)


def _surface(word: list[sudachipy.Morpheme]) -> Surface:
    """Return a noun with its affixes, None if it names no kind of thing."""
    kinds = [part.part_of_speech() for part in word]
    describes = len(word) == 1 and not set(_DESCRIBING).isdisjoint(kinds[0])
    if describes or all(kind[1] == "固有名詞" for kind in kinds):
        return None
    return (
        "".join(part.surface().casefold() for part in word),
        "".join(part.normalized_form().casefold() for part in word),
    )
