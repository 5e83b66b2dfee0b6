import html
import os
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.text.normalise import join_fields, normalise
from tests.helpers.esci_files import PRODUCTS_FILE

ESCI_DIR = os.environ.get("ESCI_DIR", "")
CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
PIECES = [
    "<br>", "</p>", "<b>", "<", ">", "&", "&amp;", "&amp;nbsp;", "&#39;", "＜br＞", "＜紙＞",
    "\u0301", "\u200b", "e", " ", "\t", "\n", "\u3000", "ｶﾞ", "２", "ñ", "水筒", "\x00",
]  # fmt: skip


def random_texts(seed: int, count: int) -> list[str]:
    """Return texts that are half pieces with a meaning, half any characters."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(len(CHARACTERS), size=(count, 15)).tolist()
    pieces = rng.integers(len(PIECES), size=(count, 15)).tolist()
    return [
        "".join(CHARACTERS[one] + PIECES[other] for one, other in zip(*row, strict=True))
        for row in zip(codes, pieces, strict=True)
    ]


def check_form(text: str) -> None:
    assert text == " ".join(text.split()), ascii(text)
    assert not any(unicodedata.category(char) == "Cc" for char in text), ascii(text)
    assert unicodedata.is_normalized("NFKC", text), ascii(text)


def test_no_character_survives_as_control_second_form_or_second_space() -> None:
    for char in CHARACTERS:
        text = normalise(f"a {char} b{char}c")
        check_form(text)
        assert text[0] == "a"
        assert text[-1] == "c"


@pytest.mark.parametrize("seed", range(10))
def test_any_text_comes_out_in_nfkc_singly_spaced_without_controls(seed: int) -> None:
    for text in random_texts(seed, 500):
        check_form(normalise(text))


@pytest.mark.parametrize("seed", range(10))
def test_clean_text_stays_as_it_is(seed: int) -> None:
    for text in random_texts(seed, 500):
        # What NFKC or the removal of a tag puts together may read as markup; all else is clean.
        cleaned = re.sub("[<&]", "", normalise(text))
        cleaned = " ".join(cleaned.split())
        assert normalise(cleaned) == cleaned, ascii(cleaned)


@pytest.mark.parametrize(
    "text",
    [
        "ステンレス製の水筒、500ml(保冷・保温)",
        "子供用 長靴 男の子",
        "「限定」バッグ【紺】〜大きめ〜",
        "が ぎ ぐ ば ぱ ヴ ヶ 々 〆 ー",
        "髙島屋 﨑 吉野家",  # compatibility variants stay apart, but for those NFKC folds
    ],
)
def test_japanese_stays_as_it_is(text: str) -> None:
    assert normalise(text) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ｶﾞｰﾃﾞﾝ ﾊﾟｰﾂ", "ガーデン パーツ"),
        ("ＡＢＣ　１２３", "ABC 123"),
        ("か\u3099", "が"),
        ("①㎝㍑", "1cmリットル"),
        ("＜紙＞ ＜B5サイズ＞", "<紙> <B5サイズ>"),
        ("＜br＞水筒＜/p＞", "水筒"),
    ],
)
def test_full_and_half_width_forms_become_one(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>One</p><p>Two</p>", "One Two"),
        ("one<br>two<BR />three<br/>four", "one two three four"),
        ("<ul><li>a</li><li>b</li></ul>", "a b"),
        ("wa<b>ter</b>proof <i class='x'>bag</i>", "waterproof bag"),
        ('<div style="color:red">red</div>', "red"),
        ("<H1>Title</H1>text", "Title text"),
        ("before<!-- hidden <b> -->after", "before after"),
        ("a<script type='x'>if (a < b) {}</script>b<style>p {}</style>c", "a b c"),
        ("cut off <br", "cut off"),
        ("cut off <p class=", "cut off"),
    ],
)
def test_markup_goes_and_words_stay_apart(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a < b", "I <3 you", "5 > 3", "x<y and y>z", "size <XL and more", "<NIKE> shoes",
        "<Amazon限定> 水筒", "<<SALE>>", "<", "<>", "< br >", "<brand> new", "->", "a<5>b",
    ],
)  # fmt: skip
def test_what_is_no_tag_stays(text: str) -> None:
    assert normalise(text) == text
    assert normalise(f"<p>{text}</p>") == text


@pytest.mark.parametrize("depth", range(1, 5))
@pytest.mark.parametrize("text", ["5\" & 7' cable", "a < b > c", "R&D", "niño © ™"])
def test_entities_are_decoded_however_often_they_are_escaped(text: str, depth: int) -> None:
    escaped = text
    for _ in range(depth):
        escaped = html.escape(escaped)

    assert normalise(escaped) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("caf&eacute; &ntilde; &#8226; &#x6C34;&#x7B52; &nbsp;&nbsp;x", "café ñ • 水筒 x"),
        ("&lt;br&gt;one&lt;br&gt;two", "one two"),
        ("&#10022 &nbsp x", "✦ x"),
        ("&#65313;", "A"),
    ],
)
def test_entities_become_their_characters(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "AT&T",
        "R&D",
        "oven&microwave",
        "B&notes",
        "x&section",
        "&",
        "a & b",
        "&;",
        "&#;",
        "&unknown;",
    ],
)
def test_an_ampersand_that_begins_no_entity_stays(text: str) -> None:
    assert normalise(text) == text


def test_emoji_of_several_characters_stay_whole() -> None:
    for emoji in ("👨\u200d👩\u200d👧", "❤\ufe0f", "🇯🇵", "👍🏽"):
        assert normalise(f"a {emoji} b") == f"a {emoji} b"


def test_what_stood_around_an_invisible_character_is_one_word() -> None:
    assert normalise("wa\u00adter\u200bproof\ufeff") == "waterproof"
    assert normalise("e\u200b\u0301") == "é"
    assert normalise("one\u0085two\x1fthree\x0bfour") == "one two three four"


@pytest.mark.parametrize(
    "text", [None, "", " ", "\u3000\u00a0", "<br>", "&nbsp;", "\x00", "<p></p>"]
)
def test_nothing_becomes_the_empty_text(text: str | None) -> None:
    assert normalise(text) == ""


def test_fields_are_joined_in_their_order_and_nulls_leave_no_trace() -> None:
    fields = [None, "a", "", "<br>", "b&amp;c", None]

    assert join_fields(fields, " | ") == ("a | b&c", [0, 1, 1, 1, 7, 7])
    assert join_fields(reversed(fields), " ") == ("b&c a", [0, 3, 3, 3, 5, 5])
    assert join_fields([None, None], " ") == ("", [0, 0])
    assert join_fields([], " ") == ("", [])


def test_a_brand_called_none_is_a_word_like_any_other() -> None:
    assert join_fields(["None", None], " ") == ("None", [4, 4])


@pytest.mark.parametrize("separator", [" ", "", " | ", "、", "👨‍👩‍👧"])
@pytest.mark.parametrize("seed", range(3))
def test_the_ends_of_the_fields_give_each_field_back(seed: int, separator: str) -> None:
    rng = np.random.default_rng(seed)
    texts = [
        *random_texts(seed, 60),
        "👩🏽‍🚀 e\u0301 ｶﾞ",
        "水筒",
        *[None, "", " ", "<br>", "\u200b"] * 8,
    ]
    for _ in range(300):
        fields = [texts[one] for one in rng.integers(len(texts), size=rng.integers(1, 7))]

        text, ends = join_fields(fields, separator)

        assert len(ends) == len(fields)
        assert ends[-1] == len(text)
        before = 0
        for field, end in zip(map(normalise, fields), ends, strict=True):
            # The separator stands between two fields that hold anything, and nowhere else.
            skipped = len(separator) if field and before else 0
            assert text[before + skipped : end] == field
            assert text[before : before + skipped] == separator[:skipped]
            assert end >= before
            before = end


@pytest.mark.skipif(not ESCI_DIR, reason="ESCI_DIR is not set: a folder with ESCI's files")
def test_real_texts_lose_their_markup_and_nothing_else() -> None:
    table = pq.read_table(Path(ESCI_DIR) / PRODUCTS_FILE)
    for column in set(table.column_names) - {"product_id", "product_locale"}:
        for text in filter(None, table[column].to_pylist()):
            cleaned = normalise(text)
            check_form(cleaned)
            assert not re.search(r"</?(?:br|p|b|li|ul|strong|div|span)\b[^<>]*>|&[a-z]+;", cleaned)
            letters = re.sub(r"[<＜][^<>＜＞]*(?:[>＞]|$)|&#?\w+;?", "", html.unescape(text))
            kept = set(filter(str.isalpha, unicodedata.normalize("NFKC", letters)))
            assert kept <= set(cleaned), ascii(text)
