"""Each slice gives every query one value, by rules that hold in three languages."""

import re

import numpy as np
import pytest

from pipeline.core.params import Uncertainty
from pipeline.evaluate import slices
from pipeline.text.normalise import normalise

SETTINGS = Uncertainty(samples=200, confidence=0.9, seed=3)


def values(
    texts: list[str],
    language: str,
    brands: set[str] | None = None,
    sources: list[str | None] | None = None,
    exact: list[int] | None = None,
) -> dict[str, list[str]]:
    """The value of each query in each slice."""
    counts = np.zeros((len(texts), 4), dtype=np.int64)
    counts[:, 0] = exact or 0
    found = slices.divide([normalise(text) for text in texts], language, counts, brands, sources)
    return {each.name: [each.values[place] for place in each.of_query] for each in found}


def test_length_is_counted_in_words_and_for_japanese_in_characters() -> None:
    texts = ["a", "a b", "a b c", "a b c d", "a b c d e", "a b c d e f", "a b c d e f g"]
    said = ["1 word", *["2-3 words"] * 2, *["4-5 words"] * 2, *["6+ words"] * 2]
    assert values(texts, "en")["query length"] == said
    lengths = {1: "1-4", 4: "1-4", 5: "5-8", 8: "5-8", 9: "9-14", 14: "9-14", 15: "15+"}
    texts = ["水筒　" * (n // 2) + "傘" * (n % 2) for n in lengths]
    said = [f"{one} characters" for one in lengths.values()]
    assert values(texts, "ja")["query length"] == said


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("zh", "蓝牙耳机", "1-4 characters"),
        ("th", "หูฟังบลูทูธ", "9-14 characters"),
        ("lo", "ຫູຟັງ", "5-8 characters"),
        ("km", "កាស", "1-4 characters"),
        ("my", "နားကြပ်", "5-8 characters"),
        ("ko", "블루투스 이어폰", "2-3 words"),
        ("any", "a b c", "2-3 words"),
    ],
)
def test_length_is_counted_in_characters_where_no_spaces_divide_words(
    language: str, text: str, said: str
) -> None:
    found = values([text], language)
    assert found["query length"] == [said]
    assert "script mix" not in found


def test_the_number_of_e_falls_in_its_range() -> None:
    ranges = {0: "0", 1: "1", 2: "2-5", 5: "2-5", 6: "6-15", 15: "6-15", 16: "16+", 90: "16+"}
    found = values(["x"] * len(ranges), "es", exact=list(ranges))
    assert found["number of E"] == list(ranges.values())


@pytest.mark.parametrize(
    ("language", "query", "expected"),
    [
        ("en", "dress without sleeves", True),
        ("en", "Without sugar", True),
        ("en", "bike rack not for e-bikes", True),
        ("en", "non-stick pan", True),
        ("en", "no show socks", True),
        ("en", "keyboard w/o numbers", True),
        ("en", "notebook", False),
        ("en", "nonstick pan", False),
        ("en", "casino sin city", False),
        ("es", "auriculares sin cable", True),
        ("es", "camiseta que no encoja", True),
        ("es", "sintonizador", False),
        ("es", "without", False),
        ("ja", "水筒 パッキンなし", True),
        ("ja", "キャノン プリンター", False),
        ("ja", "黒以外 傘", True),
        ("ja", "電池不要", True),
        ("ja", "滑らない 靴下", True),
        ("ja", "袖無し", True),
        ("ja", "水筒 子供用", False),
    ],
)
def test_a_negation_is_a_word_that_says_what_is_not_wanted(
    language: str, query: str, expected: bool
) -> None:
    assert values([query], language)["negation"] == ["yes" if expected else "no"]


def test_a_language_without_a_list_of_negations_has_no_such_slice() -> None:
    assert set(values(["sans fil"], "fr")) == {"query length", "number of E", "number in query"}


def test_numbers_count_in_any_width() -> None:
    assert values(["５００ｍｌ 水筒", "水筒", "iphone 13"], "ja")["number in query"] == [
        "yes", "no", "yes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sony headphones", True),
        ("SONY", True),
        ("sonya blade", False),
        ("black & decker drill", True),
        ("Black+Decker drill", True),
        ("black drill decker", False),
        ("drill by l'oréal", True),
        ("3M tape", True),
        ("m tape", False),
        ("ソニーヘッドホン", False),  # one stretch of katakana is one word
        ("ソニー ヘッドホン", True),
        ("アイリスオーヤマ加湿器", True),
        ("ｱｲﾘｽｵｰﾔﾏ 加湿器", True),
        ("資生堂", True),
        ("資生", False),
        ("", False),
        ("+++", False),
    ],
)
def test_a_brand_counts_where_its_words_stand_whole_and_in_order(
    query: str, expected: bool
) -> None:
    brands = {
        normalise(brand)
        for brand in (
            "Sony", "BLACK & DECKER", "L'Oréal", "3m", "ソニー", "アイリスオーヤマ", "資生堂", "++",
        )
    }  # fmt: skip
    assert values([query], "ja", brands=brands)["brand in query"] == ["yes" if expected else "no"]


def test_the_brand_slice_agrees_with_a_search_for_each_brand() -> None:
    rng = np.random.default_rng(4)
    letters = np.array(["ab", "a", "b", "ba", "水", "ア"])
    brands = {" ".join(rng.choice(letters, rng.integers(1, 4))) for _ in range(12)}
    texts = [" ".join(rng.choice(letters, rng.integers(0, 8))) for _ in range(300)]
    expected = [
        "yes" if any(re.search(rf"(^| ){brand}( |$)", text) for brand in brands) else "no"
        for text in texts
    ]
    assert values(texts, "ja", brands=brands)["brand in query"] == expected
    assert {"yes", "no"} == set(expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("水筒", "kanji"),
        ("すいとう", "hiragana"),
        ("ｶﾊﾞｰ", "katakana"),
        ("usb ケーブル", "katakana+latin"),
        ("子どもの水筒 ＵＳＢ", "kanji+hiragana+latin"),
        ("佐々木のコーヒー xl", "kanji+hiragana+katakana+latin"),
        ("500 & 20", "no letters"),
    ],
)
def test_the_script_mix_of_japanese_names_every_script_in_the_query(
    query: str, expected: str
) -> None:
    assert values([query], "ja")["script mix"] == [expected]
    assert "script mix" not in values([query], "en")


def test_a_query_of_no_known_source_is_in_the_slice_none() -> None:
    found = values(["a", "b", "c"], "en", sources=["other", None, "negations"])
    assert found["source"] == ["other", "none", "negations"]


def test_sources_are_normalised_as_texts_are() -> None:
    sources: list[str | None] = [
        "  Ｎｅｇ\x07ations ",
        "Neg\u200bations",
        "\x07",
        None,
        "<b>a</b> &amp; b",
    ]
    found = values(["x"] * 5, "en", sources=sources)["source"]
    assert found == ["Negations", "Negations", "none", "none", "a & b"]


@pytest.mark.parametrize("names", [1, 10, 11, 40])
def test_the_ten_most_frequent_names_are_kept_and_the_rest_is_other(names: int) -> None:
    rng = np.random.default_rng(names)
    sources: list[str | None] = [f"s{one:02}" for one in range(names) for _ in range(1 + one // 2)]
    rng.shuffle(sources)
    found = values(["x"] * len(sources), "es", sources=sources)["source"]
    # Two names each are equally frequent: of the last two of the ten the first in order stays.
    by_frequency = sorted(range(names), key=lambda one: (-(one // 2), one))
    kept = {f"s{one:02}" for one in by_frequency[:10]}
    assert found == [source if source in kept else "other" for source in sources]
    assert len(set(found)) == min(names, 11)


def test_a_source_that_is_called_other_holds_the_rest() -> None:
    sources: list[str | None] = ["other", "other", "other", *(f"s{one}" for one in range(10))]
    found = values(["x"] * 13, "es", sources=sources)["source"]
    assert found == ["other"] * 3 + [f"s{one}" for one in range(9)] + ["other"]


def test_script_mixes_are_no_more_than_ten_and_other() -> None:
    scripts = ("水", "の", "ア", "a")
    mixes = [
        "".join(one for place, one in enumerate(scripts) if code >> place & 1) for code in range(16)
    ]
    texts = [text or "1" for code, text in enumerate(mixes) for _ in range(code + 1)]
    found = values(texts, "ja")["script mix"]
    assert len(set(found)) == 11
    assert found.count("other") == sum(range(1, 7))


def test_the_parts_of_a_slice_make_up_the_whole_on_any_threads_and_small_ones_are_marked() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        queries = int(rng.integers(1, 120))
        alphabet = np.array(["usb", "no", "1", "水", "の", "ア", "sony"])
        texts = [" ".join(rng.choice(alphabet, rng.integers(1, 9))) for _ in range(queries)]
        counts = rng.integers(0, 12, (queries, 4))
        sources = [str(one) if one else None for one in rng.integers(0, 3, queries)]
        divided = slices.divide(texts, str(rng.choice(["en", "ja"])), counts, {"sony"}, sources)
        undefined = rng.random(queries) < 0.2
        measured = {
            system: np.where(undefined, np.nan, rng.random(queries))
            for system in ("dense", "random")
        }

        found = slices.measure(divided, measured, SETTINGS, threads=1)

        assert slices.measure(divided, measured, SETTINGS, threads=3) == found

        for each in divided:
            assert each.of_query.shape == (queries,)
            assert 0 <= each.of_query.min() <= each.of_query.max() < len(each.values)
            parts = [part for part in found if part["slice"] == each.name]
            assert sum(part["queries"] for part in parts) == (~undefined).sum()
            for part in parts:
                inside = (each.of_query == each.values.index(part["value"])) & ~undefined
                assert part["queries"] == inside.sum() > 0
                assert part["small"] == (inside.sum() < slices.SMALL_BELOW)
                for system, one in part["systems"].items():
                    assert one["mean"] == round(measured[system][inside].mean(), 5)
                    assert one["low"] <= one["mean"] <= one["high"]
