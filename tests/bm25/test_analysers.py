"""What becomes a term, by language."""

import numpy as np
import pytest
import regex

from pipeline.bm25 import analysers
from pipeline.bm25.analysers import analyser_for, pieces, words

ENGLISH, SPANISH, JAPANESE = (analyser_for(code).terms for code in ("en", "es", "ja"))
LANGUAGES = ("en", "es", "ja", "de", "ru", "zh", "ko", "hi", "any")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("running shoes", "Running Shoe"),
        ("500ml bottle", "500 ml bottles"),
        ("iphone13 case", "iPhone 13 cases"),
        ("café tables", "cafe table"),
        ("women's", "WOMEN’S"),
    ],
)
def test_english_forms_of_one_word_are_one_term(one: str, other: str) -> None:
    assert ENGLISH(one) == ENGLISH(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cargador portátil", "Cargadores portatiles"),
        ("habitación", "habitacion"),
        ("niña", "nina"),
        ("zapatillas rojas", "zapatilla roja"),
        ("AURICULARES", "auriculares"),
    ],
)
def test_spanish_forms_of_one_word_are_one_term_with_accents_or_without(
    one: str, other: str
) -> None:
    assert SPANISH(one) == SPANISH(other)


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("tr", "IŞIK İSTANBUL", "ışık istanbul"),
        ("az", "İNCİR QIZIL", "incir qızıl"),
        *((language, "İstanbul", "istanbul") for language in LANGUAGES if language != "ja"),
    ],
)
def test_capitals_of_i_meet_their_small_letter(language: str, one: str, other: str) -> None:
    assert analyser_for(language).terms(one) == analyser_for(language).terms(other)


def test_i_and_dotless_i_are_two_letters_in_turkish() -> None:
    assert analyser_for("tr").terms("ışık") != analyser_for("tr").terms("isik")


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("en", "3,000 12,345,678.50", "3000 12345678.50"),
        ("en", "1,00 1,2345 0,123 1.000", "1,00 1,2345 0,123 1.000"),
        ("es", "3.000 12.345.678,50 1.00 0.123 1,000", "3000 12345678,50 1.00 0.123 1,000"),
        ("any", "3,000 3.000", "3,000 3.000"),
    ],
)  # fmt: skip
def test_groups_of_digits_are_one_number_as_the_language_writes_them(
    language: str, text: str, terms: str
) -> None:
    assert analyser_for(language).terms(text) == terms.split()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("空気清浄機", ["空気", "清浄", "機"]),
        ("iPhone13ケース", ["iphone", "13", "ケース"]),
        ("3,000円の空缶", ["3000", "円", "の", "空き缶"]),
        ("ワイヤレスイヤホン Bluetooth", ["ワイヤレス", "イヤホン", "bluetooth"]),
    ],
)
def test_japanese_is_cut_into_words_in_their_normal_form(text: str, terms: list[str]) -> None:
    assert JAPANESE(text)[: len(terms)] == terms
    assert JAPANESE(text)[len(terms) :] == analysers.bigrams(text)


def test_spellings_of_one_japanese_word_meet() -> None:
    for one, other in (("シュミレーション", "シミュレーション"), ("附属", "付属"), ("PC", "pc")):
        assert set(JAPANESE(one)) & set(JAPANESE(other))


def test_a_japanese_word_that_is_cut_differently_in_a_query_is_found_by_pairs() -> None:
    assert analysers.bigrams("鬼滅の刃 A4ノート") == ["鬼滅", "滅の", "の刃", "ノー", "ート"]
    assert analysers.bigrams("茶 tea 湯") == []


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Straße 1.5", ["strasse", "1.5"]),
        ("10x20cm", ["10", "x", "20", "cm"]),
        ("snake_case-word", ["snake", "case", "word"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("蓝牙耳机 茶", ["蓝牙", "牙耳", "耳机", "茶"]),
        ("ノートPC", ["ノー", "ート", "pc"]),
        ("블루투스 이어폰", ["블루투스", "이어폰"]),
        ("❤️ 👩‍👩‍👧 !?", []),
    ],
)
def test_words_of_any_script(text: str, terms: list[str]) -> None:
    assert words(text) == terms


def test_snowball_stems_the_languages_it_knows_and_no_other() -> None:
    assert analyser_for("de").name == "snowball-de"
    assert analyser_for("de").terms("Bücher") == analyser_for("de").terms("buch") != ["bücher"]
    assert analyser_for("zh").name == analyser_for("any").name == "words"
    assert analyser_for("ja").name == "sudachi-bigrams"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_holds_no_letter_and_no_digit_has_no_terms(language: str) -> None:
    for text in ("", " ", "?!…、。「」", "😀❤️👍🏽", "---", "\u200d\ufe0f"):
        assert analyser_for(language).terms(text) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_makes_an_empty_term_or_one_of_punctuation_and_symbols_alone(language: str) -> None:
    terms = analyser_for(language).terms
    rng = np.random.default_rng(3)
    alphabet = [
        chr(code) for code in (*range(0x20, 0x250), *range(0x3000, 0x3100), 0x1F600, 0xFE0F)
    ]
    alphabet += list("漢字検索機日本語한국어ไทยहिन्दी1234567890")
    for _ in range(60):
        text = "".join(rng.choice(alphabet, rng.integers(1, 80)))
        found = terms(text)
        assert all(regex.search(r"[\p{L}\p{N}\p{M}]", term) for term in found), text
        assert found == terms(text)


@pytest.mark.parametrize(
    "language",
    ["en", "ja", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("es", "any"))],
)
@pytest.mark.parametrize(
    "text",
    ["商品名" * 110_000, "word " * 200_000, "a" * 1_000_000, "😀" * 250_000, "12" * 500_000],
    ids=["unspaced", "spaced", "one word", "emoji", "one number"],
)
def test_a_text_of_a_megabyte_has_terms(language: str, text: str) -> None:
    assert bool(analyser_for(language).terms(text)) == (text[0] != "😀")


def test_pieces_are_the_text_cut_behind_spaces_where_there_are_some() -> None:
    rng = np.random.default_rng(5)
    for share in (0, 0.001, 0.2):
        for length in (0, 1, 4_095, 4_096, 4_097, 30_000):
            text = "".join(" " if rng.random() < share else "語" for _ in range(length))
            cut = list(pieces(text))
            assert "".join(cut) == text
            assert max(map(len, cut)) <= analysers.PIECE_CHARACTERS
            if share == 0.2:
                assert all(piece.endswith(" ") for piece in cut[:-1])
