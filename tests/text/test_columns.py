"""Whole columns come out as text by text: the compiled way and `normalise` agree."""

import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.text import columns as texts
from pipeline.text.characters import is_pictograph
from pipeline.text.columns import COMPATIBLE, STABLE, join_columns, normalise_column, too_long
from pipeline.text.markup import BREAKS, INLINE
from pipeline.text.normalise import MAX_CHARACTERS, join_fields, normalise
from tests.helpers.characters import CHARACTERS, TRIED
from tests.helpers.esci_files import PRODUCTS_FILE

ESCI_DIR = os.environ.get("ESCI_DIR", "")
EASY = [char for char in TRIED if re.match(f"[{STABLE}{COMPATIBLE}]", char)]
PIECES = [
    *" \n<>&", "  ", "<br>", "<BR />", "</p>", "<p class='x'>", "<b>", "</b>", "<i >", "<h2>",
    "<li", "<br", "<p-x>", "<br\n>", "<é>", "<bé>", "<b_>", "<brr>", "</>", "< br>", "<3", "<ſ>",
    "<ı>", "<K>", "<!-- -->", "<script>", "</SCRIPT>", "<style x>", "&amp;", "&amp;lt;",
    "&lt;b&gt;",
    "&#60;br&#62;", "R&D", "& then", "&;", "＜br＞", "＜", "ｶﾞ", "ﾊﾟ", "ﾞ", "か", "ﾟ", "\u3000",
    "\u00a0", "\u200b", "\t", "\r", "\x00", "\x7f", "\u0301", "e", "é", "½", "…", "①", "℃", "™",
    "👩‍💻", "가", "\u11a8", "\u3099", "a" * 300, "i\u0307",
    *("2", "１", "²", "₂", "¼", "⑳", "㎡", "㍙", "㋀", "⒈", "º", "⁰C", "˚", "™", "ᵀᴹ", "Ⓡ", "Ⓐ"),
    *("カ", "ｶ", "ン", "－", "―", "‐", "゛", "´", "¨", "⁄", "∕", "∘", "\ufe0f", "❤", "✔\ufe0f"),
    *("😀\ufe0f", "\u200d", "\u200c", "<sup>", "<SUP>2</SUP>", "</sup>", "<sub>1</sub>"),
    *("\x92", "\u2800", "serial&parallel", "&eacute"),
]  # fmt: skip
"""What has a meaning in a text, or looks as if it had."""


def random_texts(seed: int, count: int) -> list[str]:
    """Return texts of easy characters and pieces, half of them with any character in one place."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        parts = [
            PIECES[rng.integers(len(PIECES))]
            if rng.random() < 0.3
            else EASY[rng.integers(95 if rng.random() < 0.8 else len(EASY))]
            for _ in range(rng.integers(0, 25))
        ]
        if number % 2:
            parts.insert(
                int(rng.integers(len(parts) + 1)), CHARACTERS[rng.integers(len(CHARACTERS))]
            )
        found.append("".join(parts))
    return found


def check(given: list[str | None]) -> None:
    found = normalise_column(pa.array(given, pa.string()))
    assert found.null_count == 0
    for one, text in zip(found.to_pylist(), given, strict=True):
        assert one == normalise(text), ascii(text)


def test_a_column_comes_out_as_its_texts_do_one_by_one() -> None:
    for seed in range(4):
        given: list[str | None] = [None, "", " ", "\n", *random_texts(seed, 2_000), None]
        check(given)
        hard = pc.match_substring_regex(pa.array(given).fill_null(""), texts._HARD)
        assert 0.1 < pc.mean(hard).as_py() < 0.9, "both ways are tried"


def test_texts_over_the_limit_are_cut_as_one_by_one_and_marked() -> None:
    most = MAX_CHARACTERS
    given = ["水" * n for n in (most // 3, most, most + 1)] + ["x " * most, "&amp;" * most, "ok"]
    check([*given, None])
    assert too_long(pa.array(given)).to_pylist() == [False, False, True, True, True, False]
    assert too_long(pa.array(["ok", None])).to_pylist() == [False, None]


def test_characters_called_emoji_keep_a_variation_selector() -> None:
    for char in filter(re.compile(f"[{texts.EMOJI}]").match, TRIED):
        assert is_pictograph(char), ascii(char)
        assert re.match(f"[{STABLE}]", char)


@pytest.mark.slow
def test_every_character_comes_out_as_alone_at_the_ends_and_between_others() -> None:
    given = [f"{char}a{char}b か{char}{char}1{char}2カ{char}×❤{char}" for char in TRIED]
    found = normalise_column(pa.array(given)).to_pylist()
    wrong = [one for one, text in zip(found, given, strict=True) if one != normalise(text)]
    assert not wrong, ascii(wrong[:5])


def test_every_tag_of_a_list_is_taken_out_as_alone() -> None:
    names = [
        *BREAKS.replace("h[1-6]", "h1|h6").split("|"),
        *INLINE.split("|"),
        "x",
        "bb",
        "article1",
    ]
    ends = [">", "/>", " >", " class=x>", "\n>", "-a>", "_>", "é>", ".>", "", " x=1", "/", " ", "<"]
    check([f"one{slash}{name}{end}two" for name in names for slash in ("<", "</", "< ")
           for end in ends])  # fmt: skip
    check([f"one<{name.upper()}{end}" for name in names for end in ends])


def test_what_is_called_easy_never_composes_with_what_stands_before_it() -> None:
    parts = [unicodedata.decomposition(char).split() for char in TRIED]
    seconds = {chr(int(each[1], 16)) for each in parts if len(each) == 2 and each[0][0] != "<"}
    for char in EASY:
        form = unicodedata.normalize("NFKC", char)
        if re.match(f"[{STABLE}]", char):
            assert form == char
        if char not in "ﾞﾟ":  # hard where they do not follow what they go with
            assert not unicodedata.combining(form[0]), ascii(char)
            assert form[0] not in seconds, ascii(char)
        assert "<" not in form or char == "<", ascii(char)


def test_a_part_of_a_column_comes_out_as_it_does_alone() -> None:
    given = random_texts(9, 500)
    part = pa.array(given).slice(123, 200)
    assert normalise_column(part).to_pylist() == [normalise(text) for text in given[123:323]]
    assert normalise_column(part.slice(0, 0)).to_pylist() == []


@pytest.mark.parametrize("separator", ["", " ", " | ", "、"])
@pytest.mark.parametrize("seed", [0, 1])
def test_fields_join_as_one_product_after_the_other(separator: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, fields = int(rng.integers(1, 300)), int(rng.integers(1, 6))
    given = [
        [None if rng.random() < 0.4 else text for text in random_texts(seed * 9 + field, count)]
        for field in range(fields)
    ]
    columns = [normalise_column(pa.array(each, pa.string())) for each in given]
    joined, ends = join_columns(columns, separator)
    expected = [join_fields(each, separator) for each in zip(*given, strict=True)]
    assert joined.to_pylist() == [text for text, _ in expected]
    assert ends.tolist() == [each for _, each in expected]


@pytest.mark.skipif(not ESCI_DIR, reason="ESCI_DIR is not set: a folder with ESCI's files")
def test_real_texts_come_out_as_one_by_one_and_few_of_them_are_hard() -> None:
    table = pq.read_table(Path(ESCI_DIR) / PRODUCTS_FILE)
    for name in ("product_title", "product_description", "product_bullet_point"):
        given = table[name].slice(0, 20_000).to_pylist()
        check(given)
        hard = pc.match_substring_regex(pa.array(given).fill_null(""), texts._HARD)
        assert pc.mean(hard).as_py() < 0.05
