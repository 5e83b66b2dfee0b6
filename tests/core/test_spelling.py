"""Query texts that differ in case alone are one query, in any language."""

import sys
import unicodedata

import pytest

from pipeline.core.spelling import text_key
from pipeline.text.normalise import normalise


def test_every_character_has_the_key_of_its_other_cases() -> None:
    characters = map(chr, range(sys.maxunicode + 1))
    for cased in [char for char in characters if char.upper() != char or char.lower() != char]:
        text = unicodedata.normalize("NFKC", cased)
        others = {text.upper(), text.lower(), text.title(), text.swapcase()}
        keys = {text_key(unicodedata.normalize("NFKC", other)) for other in others}
        assert keys == {text_key(text)}, text


@pytest.mark.parametrize(
    ("capital", "small"),
    [
        ("İstanbul çanta", "istanbul çanta"),
        ("ISPANAK", "ıspanak"),
        ("ΚΑΪ\u0301ΚΙ", "κα\u0390κι"),
        ("STRASSE", "straße"),
        ("USB Kabel", "usb kabel"),
    ],
)
def test_a_clean_text_in_capitals_has_the_key_of_its_small_letters(
    capital: str, small: str
) -> None:
    assert text_key(normalise(capital)) == text_key(normalise(small))


@pytest.mark.parametrize(
    ("one", "other"), [("papá", "papa"), ("がく", "かく"), ("한국", "하국"), ("5 l", "5 ml")]
)
def test_texts_that_differ_in_more_than_case_have_two_keys(one: str, other: str) -> None:
    assert text_key(one) != text_key(other)
