"""Names: telling words of the language, as they are written, without brands."""

import math
from collections import Counter as Tally
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.bm25 import analysers
from pipeline.clusters.counts import Counter, Counts, Titles
from pipeline.clusters.names import COVERED, common_terms, name_groups
from pipeline.clusters.surfaces import surfaces_for
from pipeline.core.arrays import Matrix

Product = tuple[int, str, str]


def read(language: str, products: Sequence[Product]) -> tuple[Counts, Titles]:
    """Count the words of products: (group, title, brand) each."""
    counter = Counter(surfaces_for(language))
    for group, title, brand in products:
        counter.add([title], [brand], np.array([group]))
    return counter.finish()


def names(
    language: str, *products: Product, centroids: Matrix | None = None
) -> list[tuple[str, ...]]:
    """Name groups that are leaves, and unlike each other by default."""
    counts, titles = read(language, products)
    leaf = np.array([group for group, _, _ in products])
    groups = np.arange(leaf.max() + 1)
    if centroids is None:
        centroids = np.eye(len(groups), dtype=np.float32)
    found = name_groups(counts, titles, leaf, groups, centroids, counts.is_brand)
    return [name.words for name in found]


def test_words_are_chosen_by_class_based_tf_idf_of_products_without_a_word() -> None:
    rng = np.random.default_rng(1)
    words = [f"{letter}word" for letter in "abcdefghij"]
    # No two words are neighbours often, and each is in all groups alike.
    titles = [rng.permutation(words)[: rng.integers(1, 4)].tolist() for _ in range(90)]
    leaf = rng.integers(0, 3, 90)
    counts, found = read("any", [(int(leaf[i]), " ".join(titles[i]), "") for i in range(90)])
    alike = np.ones((3, 2), dtype=np.float32) / 2**0.5
    named = name_groups(counts, found, leaf, np.arange(3), alike, counts.is_brand)
    frequent = Tally(word for title in titles for word in title)
    mean = sum(frequent.values()) / 3
    for group, name in enumerate(named):
        bare = [titles[i] for i in np.flatnonzero(leaf == group)]
        place = {
            word: round(np.mean([title.index(word) for title in bare if word in title]), 9)
            for title in bare
            for word in title
        }
        size, expected = len(bare), []
        for _ in range(4):
            having = Tally(word for title in bare for word in title)
            fit = [word for word in having if having[word] >= max(3, 0.05 * size)]
            if not fit:
                break
            weight = {
                word: having[word] / size * math.log(1 + mean / frequent[word]) for word in fit
            }
            expected.append(min(fit, key=lambda word: (-round(weight[word], 9), place[word], word)))
            bare = [title for title in bare if expected[-1] not in title]
        assert name.words == tuple(expected)
        assert name.covered == pytest.approx(1 - len(bare) / size)


def test_of_words_of_equal_weight_the_first_in_the_titles_is_chosen() -> None:
    fans = [f"{brand} ventilador {kind}, motor AC" for brand in "xyz" for kind in ("mesa", "torre")]
    assert names("es", *[(0, title, "") for title in fans]) == [("ventilador",)]
    turned = [f"motor AC, {kind} ventilador" for kind in ("mesa", "torre", "techo")]
    assert names("es", *[(0, title, "") for title in turned]) == [("motor ac",)]


def test_a_word_is_shown_as_it_is_written_most_often() -> None:
    named = names(
        "es", (0, "Cámaras", ""), (0, "Cámara", ""), (0, "camara barata", ""), (0, "Cámara", "")
    )
    assert named == [("cámara",)]


def test_brands_are_in_no_name() -> None:
    shoes = ["Acme running shoes", "Acme trail shoes", "lookalike acme shoes"]
    juice = ["orange juice", "juice of an orange"]
    named = names(
        "en",
        *[(0, title, "Acme") for title in shoes],
        (1, "Orange juice for Acme", "Orange"),
        *[(1, title, "") for title in juice * 3],
    )
    assert named == [("shoes",), ("juice",)]
    assert not read("en", [(1, title, "") for title in juice] + [(1, "a", "Orange")])[0].is_brand[0]


def test_a_word_of_other_kinds_of_products_is_in_no_name_unless_these_are_alike() -> None:
    kinds = ["lamp", "chair", "bottle", "carpet", "spoon", "shoe"]
    products = [
        (group, kind if i < 5 else "black", "")
        for group, kind in enumerate(kinds)
        for i in range(9)
    ]
    named = names("any", *products)
    assert named == [(kind,) for kind in kinds]
    same = np.ones((6, 1), dtype=np.float32)
    named = names("any", *products, centroids=same)
    assert named == [(kind, "black") for kind in kinds]


def test_each_word_names_a_part_of_the_group() -> None:
    shoes, watches = ["zapatillas deportivas"] * 6, ["reloj", "reloj", "reloj", "reloj acero"]
    (name,) = names("es", *[(0, title, "") for title in shoes + watches])
    assert name == ("zapatillas deportivas", "reloj")


def test_words_that_mostly_stand_in_a_row_are_one() -> None:
    films = [f"blu ray {title}" for title in ("uno", "dos", "tres", "cuatro")]
    assert names("es", *[(0, title, "") for title in films]) == [("blu ray",)]
    tea = [f"抹茶アイス {title}" for title in ("東京", "大阪", "京都", "奈良")]
    assert names("ja", *[(0, title, "") for title in tea]) == [("抹茶アイス",)]


def test_no_word_is_skipped_between_the_words_of_a_pair() -> None:
    places = "uno", "dos", "tres", "cuatro"
    assert names("es", *[(0, f"bolsa de {each} tela", "") for each in places]) == [("bolsa",)]
    for title, brand in (
        ("bolsa para la tela", ""), ("bolsa 30 tela", ""), ("bolsa acme tela", "Acme"),
        ("tela bolsa bolsa", ""), ("bolsa x tela", ""),
    ):  # fmt: skip
        (name,) = names("es", *[(0, title, brand)] * 4)
        expected = {"tela bolsa"} if title.startswith("tela") else {"bolsa", "tela"}
        assert {*name} <= expected
    for title in ("靴の箱", "靴 3 箱", "靴をはく箱", "靴これ箱"):
        (name,) = names("ja", *[(0, title, "")] * 4)
        assert "靴箱" not in name
    assert names("ja", *[(0, "抹茶 アイス", "")] * 4) == [("抹茶アイス",)]


def test_a_group_whose_words_cover_too_little_has_no_name() -> None:
    alone = [(0, f"thing{letter}", "") for letter in "abcdefghijkl"]
    assert names("en", *alone) == [()]
    assert names("en", (0, "", ""), (1, "12 34 !?", "")) == [(), ()]
    few = math.ceil(12 * COVERED) - 1
    mixed = [(0, "chair" if i < few else f"thing{'abcdefghijkl'[i]}", "") for i in range(12)]
    assert names("en", *mixed) == [()]
    mixed[few] = (0, "chair", "")
    assert names("en", *mixed) == [("chair",)]


@pytest.mark.parametrize("language", ["de", "en", "es", "fr", "ja"])
def test_function_words_are_in_no_name(language: str) -> None:
    text = {"de": "für den und", "en": "for the and", "es": "para tu del", "fr": "pour les des"}
    assert set(surfaces_for(language)(text.get(language, "これは for"))) == {None}


def test_words_of_many_clusters_tell_none_apart() -> None:
    products = [(ord(a) - 97, f"oferta mejor {a}unico", "") for a in "abcdefghij"]
    counts, _ = read("es", products)
    shown = np.array(counts.shown)
    assert set(shown[common_terms(counts, np.ones(10, dtype=np.int64))]) == {"oferta", "mejor"}
    alone, _ = read("es", [(0, "silla plegable", "")])
    assert not common_terms(alone, np.array([1])).any()


def test_counts_of_clusters_are_the_sums_of_their_leaves() -> None:
    leaves, _ = read("en", [(0, "red cup", ""), (1, "red mug", ""), (2, "blue mug", "")])
    clusters = leaves.within(np.array([0, 0, 1]))
    direct, _ = read("en", [(0, "red cup", ""), (0, "red mug", ""), (1, "blue mug", "")])
    assert (clusters.groups == direct.groups).all()
    assert (clusters.products == direct.products).all()


@pytest.mark.parametrize("language", ["en", "es", "any", "ko"])
def test_the_terms_are_those_of_bm25(language: str) -> None:
    text = "Fundas para móviles, 500 ml running shoes 12 cámaras 휴대폰 케이스 x"
    terms = set(analysers.analyser_for(language).terms(text))
    found = [word for word in surfaces_for(language)(text) if word]
    assert {term for _, term in found} <= terms
    assert not {surface for surface, _ in found} & {"ml", "x", "500", "12"}


def shown(text: str) -> list[str]:
    """Return the words of a Japanese title, as they are shown."""
    return [word[0] for word in surfaces_for("ja")(text) if word]


def test_japanese_words_are_whole_nouns_and_no_units() -> None:
    assert shown("扇風機 大容量 静音") == ["扇風機", "大容量", "静音"]
    assert shown("割り箸 100膳入り 300ml 10個セット 座椅子") == ["割り箸", "座椅子"]
    assert shown("これはとても軽い傘です") == ["傘"]
    assert shown("収納ケース 対応 27.0 cm") == ["ケース"]
    assert shown("靴の箱と 折りたたみ傘 type-c") == ["靴", "箱", "折りたたみ傘", "type"]


def test_behind_a_number_and_a_space_only_a_counter_or_a_short_word_is_left_out() -> None:
    assert shown("5.5合 炊飯器 500ml 水筒") == ["炊飯器", "水筒"]
    assert shown("5.5 合 炊飯器 500 ml 水筒 10 個 鉛筆") == ["炊飯器", "水筒", "鉛筆"]
    assert shown("iPhone 13 ケース 10本 傘") == ["ケース", "傘"]
    assert shown("iPhone 13 Pro ケース 2 傘 長靴") == ["ケース", "長靴"]


def test_japanese_proper_nouns_are_in_no_name_without_an_affix() -> None:
    assert set(surfaces_for("ja")("令和 京都 宇治 田中")) == {None}
    assert shown("日本製 京都") == ["日本製"]
    assert names("ja", *[(0, f"京都 {tea} 緑茶", "") for tea in ("深蒸し", "粉", "袋")]) == [
        ("緑茶",)
    ]
