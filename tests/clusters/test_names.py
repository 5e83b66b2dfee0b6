"""Names: telling words of the language, as they are written, without brands."""

import math
from collections import Counter as Tally

import numpy as np
import pytest

from pipeline.bm25 import analysers
from pipeline.clusters.names import Counter, Counts, common_terms, name_groups
from pipeline.clusters.surfaces import surfaces_for


def count(language: str, *products: tuple[int, str, str]) -> Counts:
    """Count the words of products: (group, title, brand) each."""
    counter = Counter(surfaces_for(language))
    for group, title, brand in products:
        counter.add([title], [brand], np.array([group]))
    return counter.finish()


def names(counts: Counts, sizes: list[int]) -> list[list[str]]:
    return name_groups(counts, np.array(sizes), counts.is_brand)


def test_a_weight_is_that_of_class_based_tf_idf() -> None:
    rng = np.random.default_rng(1)
    words = [f"{letter}word" for letter in "abcdefghij"]
    titles = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(60)]
    groups = rng.integers(0, 4, 60)
    sizes = np.bincount(groups)
    having = [
        Tally(word for title, of in zip(titles, groups, strict=True) if of == group
              for word in set(title.split()))
        for group in range(4)
    ]  # fmt: skip
    mean = sum(sum(tally.values()) for tally in having) / 4
    total = sum(having, Tally())
    expected = [
        sorted(
            tally,
            key=lambda word: (
                -round(tally[word] / size * math.log(1 + mean / total[word]), 9), word
            ),
        )[:4]
        for tally, size in zip(having, sizes.tolist(), strict=True)
    ]  # fmt: skip
    counter = Counter(surfaces_for("any"))
    for start in range(0, 60, 7):
        part = slice(start, start + 7)
        counter.add(titles[part], [""] * len(titles[part]), groups[part])
    assert names(counter.finish(), sizes.tolist()) == expected


def test_a_word_is_shown_as_it_is_written_most_often() -> None:
    counts = count(
        "es",
        (0, "Cámaras digitales", ""),
        (0, "Cámara digital", ""),
        (0, "camara barata digital", ""),
        (0, "Cámara digital", ""),
    )
    assert names(counts, [4]) == [["cámara", "digital"]]


def test_brands_are_in_no_name() -> None:
    counts = count(
        "en",
        (0, "Acme running shoes", "Acme"),
        (0, "Acme trail shoes", "acme"),
        (0, "acme lookalike shoes", ""),
        (1, "Orange juice for Acme", "Orange"),
        (1, "orange jam", ""),
        (1, "orange juice", ""),
        (1, "fresh orange juice", ""),
    )
    found = names(counts, [3, 4])
    assert found == [["shoes"], ["juice", "orange"]], "a word is a brand where it mostly is"


def test_words_of_many_clusters_tell_none_apart() -> None:
    counts = count("es", *[(ord(a) - 97, f"algo para {a}unico", "") for a in "abcdefghij"])
    shown = np.array(counts.shown)
    assert set(shown[common_terms(counts, np.ones(10, dtype=np.int64))]) == {"algo", "para"}
    alone = count("es", (0, "todo en uno", ""))
    assert not common_terms(alone, np.array([1])).any()


def test_a_group_without_telling_words_has_no_name() -> None:
    assert names(count("en", (0, "", ""), (1, "12 34 !?", "")), [1, 1]) == [[], []]
    rare = count("en", *[(0, f"thing{letter}", "") for letter in "abcdefghijkl"])
    assert names(rare, [12]) == [[]]


def test_counts_of_clusters_are_the_sums_of_their_leaves() -> None:
    leaves = count("en", (0, "red cup", ""), (1, "red mug", ""), (2, "blue mug", ""))
    clusters = leaves.within(np.array([0, 0, 1]))
    direct = count("en", (0, "red cup", ""), (0, "red mug", ""), (1, "blue mug", ""))
    assert (clusters.groups == direct.groups).all()
    assert (clusters.products == direct.products).all()


@pytest.mark.parametrize("language", ["en", "es", "any", "ko"])
def test_the_terms_are_those_of_bm25(language: str) -> None:
    text = "Fundas para móviles, 500 ml running shoes 12 cámaras 휴대폰 케이스 x"
    terms = set(analysers.analyser_for(language).terms(text))
    found = surfaces_for(language)(text)
    assert {term for _, term in found} <= terms
    assert not {surface for surface, _ in found} & {"ml", "x", "500", "12"}


def test_japanese_words_are_whole_nouns_and_no_units() -> None:
    def shown(text: str) -> list[str]:
        return [surface for surface, _ in surfaces_for("ja")(text)]

    assert shown("扇風機 大容量 静音") == ["扇風機", "大容量", "静音"]
    assert shown("割り箸 100膳入り 300ml 10個セット 座椅子") == ["割り箸", "座椅子"]
    assert shown("これはとても軽い傘です") == ["軽い", "傘"]
    assert shown("靴の箱と 折りたたみ傘 type-c") == ["靴", "箱", "折りたたみ傘", "type"]
