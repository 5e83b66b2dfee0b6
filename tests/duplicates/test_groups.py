"""Groups hold what was planted and nothing else, without chains, in whatever order pairs come."""

import numpy as np
import pytest

from pipeline.core.arrays import Ints
from pipeline.duplicates.calibrate import find_threshold
from pipeline.duplicates.groups import form_groups
from pipeline.duplicates.stars import cut_to_stars
from pipeline.duplicates.texts import Distinct, grams_of, jaccard, unique_pairs

Pairs = set[tuple[int, int]]


def drawn(rng: np.random.Generator, nodes: int, share: float) -> tuple[Ints, Ints]:
    first, second = np.triu_indices(nodes, 1)
    chosen = rng.random(len(first)) < share
    return first[chosen], second[chosen]


def test_the_text_similarity_is_that_of_sets_of_five_characters() -> None:
    def by_hand(one: str, other: str) -> float:
        a, b = ({text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in (one, other))
        return len(a & b) / len(a | b)

    texts = ["", "a", "abcd", "abcde", "abcdef", "rojo rojo rojo", "zapatillas rojas mujer 40",
             "zapatillas azules mujer 40", "赤い靴 レディース", "赤い靴 メンズ 🎁"]  # fmt: skip
    for one in texts:
        for other in texts:
            assert jaccard(grams_of(one), grams_of(other)) == by_hand(one, other)
    assert jaccard(grams_of("CUPSHE Bikini"), grams_of("Cupshe bikini")) == 1


def test_every_member_is_a_near_duplicate_of_the_kept_one_and_in_one_group_alone() -> None:
    rng = np.random.default_rng(1)
    for share in (0.01, 0.05, 0.3, 1.0):
        first, second = drawn(rng, 60, share)
        near: Pairs = set(zip(first.tolist(), second.tolist(), strict=True))
        members, kept = cut_to_stars(first, second, rng.integers(1, 5, 60))
        assert len(np.unique(members)) == len(members)
        for member, of in zip(members.tolist(), kept.tolist(), strict=True):
            assert member == of or (min(member, of), max(member, of)) in near
            assert of in members[kept == of]
        left = set(range(60)) - set(members.tolist())
        assert not [pair for pair in near if set(pair) <= left], "a pair that is in no group"


def test_a_chain_is_cut() -> None:
    members, kept = cut_to_stars(np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4]), np.ones(5, int))
    assert members.tolist() == [0, 1, 2, 3, 4]
    assert kept.tolist() == [1, 1, 1, 3, 3]


def test_of_products_that_are_all_alike_the_most_complete_is_kept_then_the_first() -> None:
    first, second = drawn(np.random.default_rng(2), 5, 1.0)
    for lengths, best in (([3, 9, 2, 9, 1], 1), ([4, 4, 4, 4, 4], 0), ([1, 1, 1, 1, 2], 4)):
        assert set(cut_to_stars(first, second, np.array(lengths))[1].tolist()) == {best}


def test_the_order_of_the_pairs_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    first, second = drawn(rng, 80, 0.06)
    lengths = rng.integers(1, 4, 80)
    members, kept = cut_to_stars(first, second, lengths)
    for _ in range(5):
        order, turned = rng.permutation(len(first)), rng.random(len(first)) < 0.5
        one = np.where(turned, second, first)[order]
        other = np.where(turned, first, second)[order]
        again = cut_to_stars(one, other, lengths)
        np.testing.assert_array_equal(members, again[0])
        np.testing.assert_array_equal(kept, again[1])


def test_products_of_equal_texts_go_where_the_first_of_them_goes() -> None:
    distinct = Distinct(np.array([0, 0, 2, 3, 2, 5]), np.array([5, 5, 9, 4, 9, 7]))
    found = form_groups(distinct, np.array([0]), np.array([2]), np.array([0.8]))
    assert found.product.tolist() == [2, 0, 1, 4]
    assert found.kept.tolist() == [2, 2, 2, 2]
    assert found.text.tolist() == [1, 0.8, 0.8, 1]
    assert found.why() == ["kept", "near text", "near text", "equal text"]
    none = np.empty(0, np.int64)
    alone = form_groups(distinct, none, none, np.empty(0))
    assert (alone.product.tolist(), alone.kept.tolist()) == ([0, 1, 2, 4], [0, 0, 2, 2])


def test_each_pair_comes_once_and_no_product_with_itself() -> None:
    pieces = iter(
        [
            (np.array([3, 1, 2]), np.array([1, 3, 2]), np.array([0.5, 0.5, 1.0])),
            (np.array([0]), np.array([3]), np.array([0.25])),
        ]
    )
    first, second, cosines = unique_pairs(pieces, 4)
    assert list(zip(first, second, cosines, strict=True)) == [(0, 3, 0.25), (1, 3, 0.5)]


def test_the_threshold_is_the_lowest_that_is_precise_enough() -> None:
    rng = np.random.default_rng(4)
    for precision in (0.5, 0.8, 1.0):
        for _ in range(30):
            cosines = rng.integers(80, 100, 40) / 100
            same = rng.random(40) < (cosines - 0.75) * 4
            found = find_threshold(cosines, same, precision)
            fit = [c for c in np.unique(cosines) if same[cosines >= c].mean() >= precision]
            assert found.cosine == (min(fit) if fit else None)
            assert found.pairs == 40
            if fit:
                assert found.precision == pytest.approx(same[cosines >= min(fit)].mean())
                assert found.above == (cosines >= min(fit)).sum()
    assert find_threshold(np.empty(0), np.empty(0, bool), 0.9) == (None, None, 0, 0)
