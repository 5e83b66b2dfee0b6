"""Unjudged products: which they are, and that a model learns from them as wrong ones."""

import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS, PAIRS
from pipeline.core.trained import Mined
from pipeline.train import catalogue
from pipeline.train.development import POOL, WITH_MINED, Development
from pipeline.train.examples import Examples, label_counts
from pipeline.train.mining import add_unjudged, draw_mined, unjudged
from pipeline.train.pairs import Pairs, pairs_of
from tests.helpers.training import pair_table
from tests.train.test_examples import all_steps, encoder, texts_of


def vectors(pairs: Pairs, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    some = rng.normal(size=(12, 3)).astype(np.float32)  # so few that products tie
    queries = rng.normal(size=(len(pairs.queries), 3)).astype(np.float32)
    return queries, some[rng.integers(12, size=len(pairs.texts))]


def with_copies(queries: int, seed: int) -> Pairs:
    """Return pairs in which some products have one text, and two queries are one in other case."""
    table = pair_table(queries, seed, per_query=4)
    rows = table.to_pylist()
    for at in range(1, len(rows), 5):
        if rows[at]["locale"] == rows[0]["locale"]:
            rows[at]["text"] = rows[0]["text"]
    for row in rows:
        if row["query_id"] == rows[0]["query_id"]:
            row["query"] = rows[-1]["query"].upper()
    return pairs_of(pa.Table.from_pylist(rows, schema=table.schema))


def by_hand(pairs: Pairs, queries: np.ndarray, texts: np.ndarray, group: int) -> list[int]:
    """Return a query's unjudged products, the nearest first."""
    row = int(np.flatnonzero(pairs.group == group)[0])
    query = queries[pairs.query[row]].astype(np.float64)
    asked = pairs.queries[pairs.query[row]].casefold()
    same = [pairs.queries[at].casefold() == asked for at in pairs.query.tolist()]
    judged = set(pairs.text[same].tolist())
    scored = set()
    for product, text, locale in zip(pairs.product, pairs.text, pairs.locale, strict=True):
        if locale == pairs.locale[row] and int(text) not in judged:
            vector = texts[text].astype(np.float64)
            cosine = query @ vector / np.linalg.norm(query) / np.linalg.norm(vector)
            scored.add((round(float(cosine), 6), int(product)))
    return [product for _, product in sorted(scored, reverse=True)]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_nearest_unjudged_products_are_those_of_every_query_ranked_by_hand(seed: int) -> None:
    pairs = with_copies(17, seed)
    assert len(pairs.texts) < len(set(pairs.product.tolist()))
    queries, texts = vectors(pairs, seed)
    for depth in (1, 7, 1000):
        group, product = unjudged(pairs, queries, texts, depth)
        for each in range(pairs.queries_count()):
            expected = by_hand(pairs, queries, texts, each)[:depth]
            assert product[group == each].tolist() == expected


def test_mining_keeps_no_more_of_a_query_than_is_asked_for_whatever_was_judged_or_is_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A query of 200 judged products, and a text that 220 products share, cost the others nothing.

    All 300 queries with all 1,097 products would be 329,100 rows of 24 bytes.
    """
    rows = pair_table(299, 6, per_query=3).to_pylist()
    rows += pair_table(1, 6, per_query=200, first=300).to_pylist()
    for at, row in enumerate(rows):
        row["locale"] = "us"
        if at % 5 == 0:
            row["text"] = rows[0]["text"]
    rows.sort(key=lambda row: (row["query_id"], row["product_id"]))
    pairs = pairs_of(pa.Table.from_pylist(rows, schema=PAIRS))
    queries, texts = vectors(pairs, 6)
    monkeypatch.setattr(catalogue, "_SCORES_AT_ONCE", 10_000)
    unjudged(pairs, queries, texts, 1)  # torch is imported
    tracemalloc.start()
    try:
        group, product = unjudged(pairs, queries, texts, 7)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.bincount(group).tolist() == [7] * 300
    for each in range(0, 300, 23):
        assert product[group == each].tolist() == by_hand(pairs, queries, texts, each)[:7]
    assert most < 4_000_000


def test_a_querys_mined_products_come_from_the_places_asked_for_and_follow_from_the_seed() -> None:
    pairs = pairs_of(pair_table(17, 3))
    queries, texts = vectors(pairs, 3)
    mined = Mined(count=3, first=5, last=12)
    group, product = draw_mined(pairs, queries, texts, mined, 1, "x")
    for each in range(pairs.queries_count()):
        drawn = product[group == each].tolist()
        assert len(set(drawn)) == 3
        assert set(drawn) <= set(by_hand(pairs, queries, texts, each)[4:12])
    again, other = (draw_mined(pairs, queries, texts, mined, seed, "x") for seed in (1, 2))
    assert again[1].tolist() == product.tolist() != other[1].tolist()


def test_a_query_with_fewer_products_has_fewer_and_none_at_all_is_refused() -> None:
    pairs = pairs_of(pair_table(5, 3))
    queries, texts = vectors(pairs, 3)
    most = len(by_hand(pairs, queries, texts, pairs.queries_count() - 1))
    group, _ = draw_mined(pairs, queries, texts, Mined(count=9, first=most - 1), 1, "x")
    assert np.bincount(group).max() == 2
    with pytest.raises(PipelineError, match=r"^x\.mined\.first: no query .* place 90 \(found at m"):
        draw_mined(pairs, queries, texts, Mined(count=1, first=90), 1, "x")


def with_mined(seed: int = 3, **options: Any) -> tuple[Pairs, Pairs]:
    pairs = pairs_of(pair_table(20, seed))
    mined = Mined(**{"count": 4, "first": 1, **options})
    return pairs, add_unjudged(pairs, *draw_mined(pairs, *vectors(pairs, seed), mined, 1, "x"))


def test_mined_pairs_are_irrelevant_and_change_no_judged_one() -> None:
    pairs, whole = with_mined()
    assert (~whole.judged).sum() == 4 * pairs.queries_count()
    assert {LABELS[at] for at in whole.label[~whole.judged]} == {"I"}
    for name in ("query", "text", "label", "group", "product", "locale"):
        assert getattr(whole, name)[whole.judged].tolist() == getattr(pairs, name).tolist()
    keys = list(zip(whole.group.tolist(), whole.product.tolist(), strict=True))
    assert keys == sorted(set(keys))  # the order of `Pairs`, and no pair twice
    assert label_counts(whole) == label_counts(pairs)


def test_an_encoder_draws_hard_negatives_among_the_querys_own_and_the_mined_ones() -> None:
    _, whole = with_mined()
    known = dict(zip(zip(whole.query.tolist(), whole.text.tolist(), strict=True),
                     whole.judged.tolist(), strict=True))  # fmt: skip
    settings = encoder(loss="triplet", negatives=["C"], epochs=9)
    examples = Examples(whole, settings, "x")
    seen = set()
    for epoch in range(9):
        for step in all_steps(examples, epoch):
            asked, wrong = (texts_of(whole, step, column) for column in (0, 2))
            for query, text in zip(asked, wrong, strict=True):
                seen.add(known[whole.queries.index(query), whole.texts.index(text)])
    assert seen == {True, False}
    alone = Examples(whole, encoder(loss="triplet", negatives=[], mined={"count": 4}), "x")
    assert alone.without_negative == 0


def test_a_rerankers_epoch_is_chosen_with_the_mined_products_which_have_no_gain() -> None:
    pairs, whole = with_mined()
    development = Development(whole, "dev", catalogue=False)
    assert development.chooses == WITH_MINED
    # All wrong answers are above: the judged ones alone are still in the right order.
    label = np.where(whole.judged, whole.label, -1)
    logits = np.where(np.arange(4) == np.maximum(label, 0)[:, None], 9.0, -9.0).astype(np.float32)
    found = development.of_logits(logits)
    assert (
        found[POOL]
        == Development(pairs, "dev", catalogue=False).of_logits(logits[whole.judged])[POOL]
    )
    assert found[WITH_MINED] < found[POOL] == 1.0
    right = np.where(np.arange(4) == whole.label[:, None], 9.0, -9.0).astype(np.float32)
    assert development.of_logits(right) == {WITH_MINED: 1.0, POOL: 1.0}
