import html
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.text.characters import to_nfkc, without_invisible
from pipeline.text.entities import decode_entities
from pipeline.text.markup import without_bare_breaks, without_tags
from pipeline.text.normalise import MAX_CHARACTERS, join_fields, normalise
from tests.helpers.characters import CHARACTERS, TRIED
from tests.helpers.esci_files import PRODUCTS_FILE

ESCI_DIR = os.environ.get("ESCI_DIR", "")
PIECES = [
    "<br>", "</p>", "<b>", "<", ">", "&", "&amp;", "&amp;nbsp;", "&#39;", "＜br＞", "＜紙＞",
    "\u0301", "\u200b", "e", " ", "\t", "\n", "\u3000", "ｶﾞ", "２", "ñ", "水筒", "\x00",
    "²", "½", "①", "™", "º", "C", "カ", "－", "―", "゛", "ﾟ", "´", "\u200d", "\ufe0f", "❤", "Ⓡ",
    "<sup>", "</sup>", "\u200c", "م", "⁄", "₂", "⒈",
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


@pytest.mark.slow
def test_no_character_survives_as_control_second_form_or_second_space() -> None:
    for char in TRIED:
        text = normalise(f"a {char} b{char}c")
        check_form(text)
        assert text[0] == "a"
        assert text[-1] == "c"


def test_any_text_comes_out_in_nfkc_singly_spaced_without_controls() -> None:
    for seed in range(10):
        for text in random_texts(seed, 500):
            check_form(normalise(text))


def test_clean_text_stays_as_it_is() -> None:
    for text in (text for seed in range(10) for text in random_texts(seed, 500)):
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
@pytest.mark.parametrize("text", ["5\" & 7' cable", "a < b > c", "R&D", "niño © ﷼"])
def test_entities_are_decoded_however_often_they_are_escaped(text: str, depth: int) -> None:
    escaped = text
    for _ in range(depth):
        escaped = html.escape(escaped)

    assert normalise(escaped) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("caf&eacute x &nbsp水 5&deg C", "café x 水 5° C"),
        ("a&#0;b &#x110000; &#55296; &#" + "1" * 5_000 + ";", "a\ufffdb \ufffd \ufffd \ufffd"),
        ("&#" + "0" * 5_000 + "65; &#x" + "f" * 5_000 + ";", "A \ufffd"),
        ("&" + "amp;" * 10_000 + "lt;b", "<b"),
        ("&#38;amp;#x26;lt;", "<"),
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
        "AT&T", "R&D", "oven&microwave", "B&notes", "x&section", "&", "a & b", "&;", "&#;",
        "&unknown;", "serial&parallel", "drive&integer", "cut&copy", "dollar&cent", "north&sect",
        "?a=1&copy=2&reg=3", "&notit;", "&NbSp;", "&#x;", "&" + "a" * 5_000 + ";",
    ],
)  # fmt: skip
def test_an_ampersand_that_begins_no_entity_stays(text: str) -> None:
    assert normalise(text) == text


def ranges(*pairs: tuple[int, int]) -> set[int]:
    return {code for first, last in pairs for code in range(first, last + 1)}


# Default_Ignorable_Code_Point of Unicode 14 to 16 (DerivedCoreProperties.txt).
IGNORABLE = ranges(
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip


def test_no_invisible_character_within_a_word_splits_or_changes_it() -> None:
    for code in IGNORABLE:
        mark = chr(code)
        assert normalise(f"pan{mark}talla 12{mark}3{mark} {mark}カ{mark}ー{mark}") == (
            "pantalla 123 カー"
        ), hex(code)
        assert normalise(f"{mark}{mark}") == ""
    assert normalise("e\u200b\u0301 e\u200c\u0301") == "é é"


def test_controls_that_separate_give_a_space_and_windows_1252_is_read_as_html_does() -> None:
    assert normalise("wa\u00adter\u200bproof\ufeff") == "waterproof"
    assert normalise("one\u0085two\x1fthree\x0bfour\u2800five") == "one two three four five"
    assert normalise("don\x92t 5\x80 A\x99 B\x81 C\x9fD a\x96b \x95 x") == "don’t 5€ A B CD a–b • x"
    for code in range(0x80, 0xA0):
        if not html.unescape(f"&#{code};").isalpha() and code != 0x85:
            assert normalise(f"a{chr(code)}b") == normalise(f"a&#{code};b").replace("\x81", "")


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم", "क्\u200cष", "ക്\u200d", "ක්\u200dර", "👩\u200d💻", "❤\ufe0f\u200d🔥",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "1\ufe0f\u20e3", "👍🏽",
        "☎\ufe0e", "🏳\ufe0f\u200d🌈", "👩🏽\u200d🚀", "👨\u200d👩\u200d👧", "❤\ufe0f", "🇯🇵",
    ],
)  # fmt: skip
def test_marks_that_shape_an_emoji_or_a_word_stay(text: str) -> None:
    assert normalise(f"a {text} b") == f"a {text} b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18½ 1¼in ½2 3⅞", "18 1/2 1 1/4in 1/2 2 3 7/8"),
        ("1½½", "1 1/2 1/2"),
        ("5¹⁄₂ 5¹/₁₆", "5 1/2 5 1/16"),
        ("１８½", "18 1/2"),
        ("1⁄2 1∕2 ½", "1/2 1/2 1/2"),
        ("10² 10²³ 10⁻³ 2.5¹", "10^2 10^23 10^−3 2.5^1"),
        ("m² cm³ H₂O CO₂ 3㎡ ㎥", "m2 cm3 H2O CO2 3m2 m3"),
        ("cm²10 ㎡5 x₂3 5₂", "cm2 10 m2 5 x2 3 5_2"),
        ("①②③ 1① ①5 ⑳枚", "1 2 3 1 1 1 5 20枚"),
        ("⒈5 12㍙ 2㋀ 3㏠", "1. 5 12 1点 2 1月 3 1日"),
        ("１２３ 𝟏𝟐", "123 12"),
        ("5㎏ 5㎝ 1ˢᵗ 2ⁿᵈ 2ª", "5kg 5cm 1st 2nd 2a"),
        ("10<sup>6</sup> m<sup>2</sup> H<sub>2</sub>O", "10^6 m2 H2O"),
        ("18<sup>1</sup>/<sub>2</sub> 5<SUP>1/2</SUP>", "18 1/2 5 1/2"),
        ("19<sup>th</sup> 18&frac12; 10&sup2;", "19th 18 1/2 10^2"),
    ],
)
def test_a_number_never_joins_what_is_raised_circled_or_a_fraction(
    text: str, expected: str
) -> None:
    assert normalise(text) == expected


def test_no_character_but_a_digit_makes_a_number_longer() -> None:
    for char in TRIED:
        form = unicodedata.normalize("NFKC", char)
        if char.isdecimal() or not any(map(str.isdecimal, form)):
            continue
        assert re.search(r"^7\D(.*\D)?7$", normalise(f"7{char}7")), ascii(char)
        assert not re.search(r"\d\.?7$", normalise(f"a{char}7")), ascii(char)


@pytest.mark.parametrize("degree", "°º⁰˚ᵒ∘゜ﾟ")
def test_a_sign_that_looks_like_a_degree_after_a_number_is_one(degree: str) -> None:
    assert normalise(f"12{degree}C １２{degree}Ｃ 180{degree} 30 {degree}C") == (
        "12°C 12°C 180° 30 °C"
    )


def test_an_ordinal_sign_after_a_letter_stays_a_letter() -> None:
    assert normalise("Nº 5, nº5, N<sup>o</sup> 5, 12<sup>o</sup>C") == "No 5, no5, No 5, 12°C"


@pytest.mark.parametrize(
    "mark", ["™", "℠", "ᵀᴹ", "ˢᴹ", "🅪", "🅫", "🅬", "&trade;", "<sup>TM</sup>", "™\ufe0f", "\x99"]
)
def test_a_trade_mark_adds_no_letters_to_a_name(mark: str) -> None:
    text = f"Invisa-Shield{mark} x, World{mark}'s {mark} Fire{mark}HD 501{mark}, (a{mark})"
    assert normalise(text) == "Invisa-Shield x, World's Fire HD 501, (a)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BrandⓇ ⓡ BrandⓡX Brandᴿ, Brand®", "Brand® r Brand r X Brand®, Brand®"),
        ("ⓒDisney ⒶAA ⓗⓔⓛⓛⓞ タイプⒶ", "c Disney A AA hello タイプA"),
        ("Brand<sup>R</sup>", "Brand®"),
    ],
)
def test_a_letter_in_a_circle_does_not_join_a_name(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("カ－ド ブルー", "カード ブルー"),
        ("コ―ヒ― LANカ—ド", "コーヒー LANカード"),
        ("サ─バ─ モニタ━ ボ‐ル ゲ−ム", "サーバー モニター ボール ゲーム"),
        ("ｹﾞ－ﾑ ｻ－ﾋﾞｽ", "ゲーム サービス"),
        ("カ‑ド カ﹘ド カ⁻ド カ₋ド カ︱ド", "カード カード カード カード カード"),
        ("カ\u200b－\u200bド カ</b>－ド", "カード カード"),
        ("バッテリ―残量 ブル— (タオルハンガ－)", "バッテリー残量 ブルー (タオルハンガー)"),
        ("AB－１２ １－２ 漢－字", "AB-12 1-2 漢-字"),
        ("タイプ－Ｌ サイズ－５", "タイプ-L サイズ-5"),
        ("カバー－レッド パン－パン", "カバー-レッド パン-パン"),
        ("サーバ――それ オス-オス ア–ン", "サーバ――それ オス-オス ア–ン"),
    ],
)  # fmt: skip
def test_one_dash_after_katakana_is_the_long_vowel_mark(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("か゛ ハ゜ カ゛ーテ゛ン ｶﾞｰﾃﾞﾝ ﾊﾟ ハﾞ ﾊ゜", "が パ ガーデン ガーデン パ バ パ"),
        ("あ゛ ゛ x゛y 漢゜", "あ\u3099 x y 漢"),
        ("L´Oréal men´s A¨b ¯ ‾x x˘ ΄", "L'Oréal men's A b x x '"),
    ],
)
def test_an_accent_with_a_place_of_its_own_joins_kana_and_splits_no_word(
    text: str, expected: str
) -> None:
    assert normalise(text) == expected


def test_i_with_a_dot_above_is_i() -> None:
    assert normalise("i\u0307stanbul İstanbul I\u0307 ısı i\u0307\u0301") == (
        "istanbul İstanbul İ ısı i\u0307\u0301"
    )


def test_of_marks_stacked_on_a_letter_thirty_stay() -> None:
    stacked = normalise("x" + "\u0323\u0301" * 1_000 + "y")
    assert stacked == "x" + "\u0323" * 15 + "\u0301" * 15 + "y"


def test_a_text_is_cut_at_the_limit() -> None:
    text = "ab " * MAX_CHARACTERS
    assert normalise(text) == normalise(text[:MAX_CHARACTERS])
    assert len(normalise("水" * (MAX_CHARACTERS + 1))) == MAX_CHARACTERS


LONG = MAX_CHARACTERS
"""A pattern that is quadratic takes 10^10 steps for each piece: minutes, hours for all of them."""


REPEATED = [
    *("<br", "<br ", "<br =", "<br/", " ", "=", "</", "<", ">", "<script>", "<SCRIPT ", "<a"),
    *("</script ", "<!--", "<!-- --", "<script></style>", "<sup>", "<sup>2", "<sup> ", "<a x="),
    *("<sub>1/", "＜br ", "＜br＞", "<p-", "&", "&amp;", "amp;", "&#38;", "#38;", "&#", "&#0"),
    *("0", "&a", "&amp", "\u0301", "\u0301\u0323", "\u0344", "e\u0301", "\u200d", "\u200c"),
    *("\ufe0f", "\U000e0067", "❤\ufe0f\u200d", "🏴\U000e0067", "²", "₂", "½", "²⁄", "①", "5²"),
    *("™", "ᵀᴹ", "ᵀ", "Ⓡ", "aⒶ", "º", "5 º", "゛", "か゛", "カ－", "－", "カ", "´", "ﷺ"),
    *("i\u0307", "\x00", "\x92", "\u1100\u1161"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("around", ["カ{}x", "<br {}<", "<sup>{}<", "&{};"])
def test_no_text_takes_more_than_linear_time(around: str) -> None:
    for piece in REPEATED:
        if around[0] == "&" and not re.fullmatch("[&#;a-z0-9]+", piece):
            continue  # no entity goes on there, and the others repeat it
        text = around.format(piece * (LONG // len(piece)))
        text = without_tags(decode_entities(text))
        if around[0] == "カ":  # what stands around matters to tags and entities alone
            without_bare_breaks(to_nfkc(without_invisible(text)))


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
            letters = re.sub(r"[º™℠]", "", letters)  # degrees, and marks that add no letters
            kept = set(filter(str.isalpha, unicodedata.normalize("NFKC", letters)))
            assert kept <= set(cleaned), ascii(text)
