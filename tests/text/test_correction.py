"""Spelling: the vocabulary against a count in sets, corrections against all words one by one."""

import re

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.languages import fold_accents
from pipeline.core.tables import VOCABULARY
from pipeline.text.correction import LEAST_LETTERS, TWO_EDITS_LETTERS, Corrector
from pipeline.text.vocabulary import count_words

Row = tuple[str, int]


def corrector(*rows: Row) -> Corrector:
    data = [{"word": word, "products": products} for word, products in rows]
    return Corrector(pa.Table.from_pylist(data, VOCABULARY))


def edits(a: str, b: str) -> int:
    """Return the distance of optimal string alignment, by its recurrence."""
    before: list[int] = []
    last: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, last, row = last, row, [i]
        for j, right in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
    return row[-1]


def test_the_vocabulary_counts_the_products_of_each_word_of_letters_in_any_pieces() -> None:
    rng = np.random.default_rng(5)
    parts = ["Red", "red", "niño", "NIÑO", "5l", "a54", "wi-fi", "men's", "“shoe”", "é", "ケース"]
    texts = [" ".join(rng.choice(parts, rng.integers(1, 9))) for _ in range(200)]
    expected: dict[str, int] = {}
    for text in texts:
        for word in {each for each in re.findall(r"\w+", text.lower()) if each.isalpha()}:
            expected[word] = expected.get(word, 0) + 1
    expected |= {"wifi": 0, "mens": 0}  # only with marks in them
    for size in (1, 7, 200):
        pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
        found = count_words(pa.chunked_array([piece]) for piece in pieces)
        assert found.schema == VOCABULARY
        assert found.to_pylist() == [
            {"word": word, "products": count} for word, count in sorted(expected.items())
        ]
    assert count_words([]).schema == VOCABULARY


def test_a_word_is_replaced_by_the_nearest_then_most_frequent_then_first_of_all_words() -> None:
    rng = np.random.default_rng(6)

    def word() -> str:
        return "".join(rng.choice([*"abé"], rng.integers(4, 12)))

    rows = [(each, int(rng.integers(1, 5))) for each in sorted({word() for _ in range(300)})]
    known = {each for each, _ in rows}
    rng.shuffle(rows)  # their order means nothing
    tested = corrector(*rows)

    def is_known(each: str) -> bool:
        bases = {each, each[:-1], each[:-2]}
        return any(bases & {one, one[:-1], one[:-2]} and (each in one or one in each)
                   for one in map(fold_accents, known))  # fmt: skip

    asked = [each for each in (word() for _ in range(200)) if not is_known(fold_accents(each))]
    replaced = 0
    for each in asked:
        folded = fold_accents(each)
        most = 2 if len(folded) >= TWO_EDITS_LETTERS else 1
        reached = []
        for other, products in rows:
            ends = fold_accents(other)[0] + fold_accents(other)[-1]
            distance = edits(folded, fold_accents(other))
            if products > 1 and distance <= most and ends == folded[0] + folded[-1]:
                reached.append((distance, -products, other))
        long_enough = reached and len(each) >= LEAST_LETTERS
        assert tested.correct_word(each) == (min(reached)[2] if long_enough else each)
        replaced += bool(long_enough)
    assert replaced > 20


@pytest.mark.parametrize(
    "text",
    [
        "sneakers",  # the catalogue has it
        "SNEAKERS",
        "sneaker5",  # a digit
        "snkers a54 500ml",
        "abot",  # short
        "carpot",  # of a single product
        "sneaker",  # an inflection
        "boxers jacketes",
        "bneakers",  # the first letter
        "sneakery",  # the last one
        "スニーカアズ",
        "✓ — 12,5",
        "",
    ],
)
def test_what_is_no_misspelled_word_is_left_alone(text: str) -> None:
    tested = corrector(
        ("sneakers", 9),
        ("about", 9),
        ("carport", 1),
        ("boxer", 1),
        ("boxes", 9),
        ("jacket", 1),
        ("jackets", 9),
        ("スニーカーズ", 9),
    )
    assert tested.correct(text) == text
    assert tested.count(text) == 0


def test_only_the_words_change_and_the_rest_of_a_query_stays() -> None:
    tested = corrector(("sneakers", 9), ("inalámbrico", 3))
    text = "Sneekers/snekaers (INALAMBRICO) 42-sneakrs!"
    assert tested.correct(text) == "sneakers/sneakers (inalámbrico) 42-sneakers!"
    assert tested.count(text) == 4
    assert tested.correct(tested.correct(text)) == tested.correct(text)
    assert corrector().correct(text) == text


def test_two_edits_are_allowed_from_ten_letters_on() -> None:
    tested = corrector(("airborne", 9), ("elástica", 9), ("furniture", 9), ("waterproof", 9))
    assert tested.correct("airforce elíptica funritrue") == "airforce elíptica funritrue"
    assert tested.correct("funriture wtaerporof") == "furniture waterproof"


def test_a_word_is_corrected_alike_whatever_was_corrected_before_it() -> None:
    tested = corrector(("sneakers", 9))
    for text in ("XIAOMI phone", "xiaomi phone", "Xiaomi Phone"):
        assert tested.correct(text) == text


def test_a_word_whose_accents_are_left_out_is_not_taken_for_another() -> None:
    tested = corrector(("sillón", 1), ("sillin", 5), ("cortés", 1), ("cortes", 1))
    assert tested.correct("sillon Sillón sillin cortes cortés") == (
        "sillón Sillón sillin cortes cortés"
    )


def test_a_word_is_known_where_products_have_it_with_marks() -> None:
    texts = ["Levi's Blu-Ray", "lewis", "lewis"]
    vocabulary = count_words([pa.chunked_array([texts])])
    tested = Corrector(vocabulary)
    assert tested.correct("levis bluray") == "levis bluray"
    assert tested.correct("lewwis blueray") == "lewis blueray"


def test_combining_marks_are_not_letters() -> None:
    marked = "a\u0335b\u0335cd"
    assert corrector(("abbcd", 9)).correct(marked) == marked
