import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.core.errors import PipelineError
from pipeline.runs.ranking import (
    NO_PRODUCT,
    find_pairs,
    find_repeat,
    look_up,
    places,
    query_starts,
    rank_matrix,
    rank_pairs,
)

SEEDS = range(20)


def random_matrix(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties and codes with holes, in no order."""
    rng = np.random.default_rng(seed)
    queries, k = rng.integers(1, 30, size=2)
    scores = rng.integers(-3, 4, size=(queries, k)) / 7
    codes = np.array([rng.permutation(k + 5)[:k] for _ in range(queries)])
    codes[rng.random((queries, k)) < 0.2] = NO_PRODUCT
    return scores.astype(np.float32 if seed % 2 else np.float64), codes


def test_a_row_is_ordered_by_rounded_score_then_code_both_descending() -> None:
    for seed in SEEDS:
        scores, codes = random_matrix(seed)

        ranked_scores, ranked_codes = rank_matrix(scores, codes)

        assert ranked_scores.dtype == np.float64
        for row in range(len(codes)):
            expected = sorted(
                (
                    (round(float(score), 6), int(code))
                    for score, code in zip(scores[row], codes[row], strict=True)
                    if code != NO_PRODUCT
                ),
                reverse=True,
            )
            found = len(expected)
            assert ranked_scores[row, :found].tolist() == [score for score, _ in expected]
            assert ranked_codes[row, :found].tolist() == [code for _, code in expected]
            assert (ranked_codes[row, found:] == NO_PRODUCT).all()
            assert (ranked_scores[row, found:] == -np.inf).all()


def test_the_order_of_the_input_changes_nothing() -> None:
    for seed in SEEDS:
        scores, codes = random_matrix(seed)
        rng = np.random.default_rng(seed)
        shuffled = rng.permutation(codes.shape[1])

        for ranked, again in zip(
            rank_matrix(scores, codes),
            rank_matrix(scores[:, shuffled], codes[:, shuffled]),
            strict=True,
        ):
            assert ranked.tobytes() == again.tobytes()


def test_pairs_in_any_order_rank_as_the_matrix_does() -> None:
    for seed in SEEDS:
        scores, codes = random_matrix(seed)
        query_rows, places = np.nonzero(codes != NO_PRODUCT)
        shuffled = np.random.default_rng(seed).permutation(len(query_rows))
        query_rows, places = query_rows[shuffled], places[shuffled]

        ranked = rank_pairs(query_rows, codes[query_rows, places], scores[query_rows, places])

        matrix_scores, matrix_codes = rank_matrix(scores, codes)
        present = matrix_codes != NO_PRODUCT
        for column, expected in zip(
            ranked,
            (np.nonzero(present)[0], matrix_codes[present], matrix_scores[present]),
            strict=True,
        ):
            assert column.tobytes() == expected.tobytes()


@pytest.mark.parametrize("queries", [1, 3, 200_000])
@pytest.mark.parametrize("scores", [2, 1_000_000])
def test_pairs_rank_by_query_then_score_then_code(queries: int, scores: int) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        pairs = int(rng.integers(0, 400))
        rows = 70_000 + rng.integers(queries, size=pairs)
        codes = rng.permutation(pairs)
        values = rng.integers(scores, size=pairs) / 8

        ranked = rank_pairs(rows, codes, values)

        order = np.lexsort((-codes, -values, rows))
        for column, expected in zip(ranked, (rows, codes, values), strict=True):
            assert column.tobytes() == expected[order].tobytes()


def test_a_difference_below_a_millionth_is_a_tie() -> None:
    scores, codes = rank_matrix(np.array([[0.5000004, 0.5, 0.4999996]]), np.array([[0, 1, 2]]))

    assert codes.tolist() == [[2, 1, 0]]
    assert scores.tolist() == [[0.5, 0.5, 0.5]]


def test_a_difference_of_a_millionth_is_none() -> None:
    _, codes = rank_matrix(np.array([[0.500001, 0.5]]), np.array([[0, 1]]))

    assert codes.tolist() == [[0, 1]]


def test_negative_zero_is_zero() -> None:
    scores, codes = rank_matrix(np.array([[0.0, -0.0, -1e-9]]), np.array([[0, 1, 2]]))

    assert codes.tolist() == [[2, 1, 0]]
    assert not np.signbit(scores).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_refused(bad: float) -> None:
    scores = np.array([[0.5, 0.25], [0.5, bad]])
    codes = np.array([[0, 1], [2, 3]])

    with pytest.raises(PipelineError, match=r"score at \[1, 1\] .* must be a finite number"):
        rank_matrix(scores, codes)
    with pytest.raises(PipelineError, match=r"score at \[3\] .* must be a finite number"):
        rank_pairs(np.array([0, 0, 1, 1]), codes.ravel(), scores.ravel())


def test_the_score_of_a_place_without_a_product_is_ignored() -> None:
    fills = [np.nan, np.inf, np.finfo(np.float32).min, 9.0]
    codes = np.array([[NO_PRODUCT, 4, NO_PRODUCT, NO_PRODUCT, NO_PRODUCT]])

    scores, ranked = rank_matrix(np.array([[fills[0], 0.5, *fills[1:]]], dtype=np.float32), codes)

    assert ranked.tolist() == [[4, -1, -1, -1, -1]]
    assert scores.tolist() == [[0.5, -np.inf, -np.inf, -np.inf, -np.inf]]


def test_no_queries_and_no_places_rank_to_nothing() -> None:
    for shape in ((0, 5), (5, 0)):
        scores, codes = rank_matrix(np.zeros(shape), np.zeros(shape, dtype=np.int64))
        assert scores.shape == codes.shape == shape
    nothing = np.array([], dtype=np.int64)
    assert [c.size for c in rank_pairs(nothing, nothing, nothing.astype(float))] == [0, 0, 0]


def test_python_arrow_and_bytes_agree_on_the_order_of_ids() -> None:
    # Above U+FFFF, UTF-16 code units would order otherwise.
    alphabet = [*"Aa0Zz9-_é", "ﾞ", "商", "\ufffd", "😀", "\U0001f9e6"]
    rng = np.random.default_rng(0)
    ids = sorted({"".join(rng.choice(alphabet, rng.integers(1, 5))) for _ in range(2000)})

    assert ids == sorted(ids, key=lambda product_id: product_id.encode())
    shuffled = pa.array(rng.permutation(np.array(ids, dtype=object)))
    assert shuffled.take(pc.sort_indices(shuffled)).to_pylist() == ids


def test_places_count_from_0_within_each_query() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        rows = np.sort(rng.integers(0, 30, rng.integers(0, 90)))
        expected = [np.flatnonzero(rows == row)[0] for row in rows]
        assert places(rows).tolist() == [place - first for place, first in enumerate(expected)]


@pytest.mark.parametrize("products", [1, 30, 1_500_000])
def test_a_pair_is_found_where_it_is_known(products: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        queries = int(rng.integers(0, 40))
        (rows, codes), (known_rows, known_codes) = (
            (np.sort(rng.integers(queries, size=size)), rng.integers(products, size=size))
            for size in rng.integers(0, 200, 2) * min(queries, 1)
        )
        starts, known_starts = (query_starts(of, 0, queries) for of in (rows, known_rows))
        pairs = list(zip(rows.tolist(), codes.tolist(), strict=True))
        known = list(zip(known_rows.tolist(), known_codes.tolist(), strict=True))

        found = look_up(starts, codes, known_starts, known_codes)

        for pair, at in zip(pairs, found.tolist(), strict=True):
            assert at == -1 if pair not in known else known[at] == pair
        by_rows = find_pairs(7 + rows, codes, 7 + known_rows, known_codes)
        assert by_rows.tolist() == found.tolist()
        repeat = find_repeat(starts, codes)
        assert (repeat is None) == (len(set(pairs)) == len(pairs))
        assert repeat is None or pairs.count(pairs[repeat]) > 1
