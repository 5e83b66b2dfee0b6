from collections.abc import Iterator

import numpy as np

from pipeline.encoders.batching import STEP, Batch, Batcher
from pipeline.encoders.tokens import Tokens

PAD = 7


def text_of(length: int, rng: np.random.Generator, prompt: int = 0) -> Tokens:
    """Return a text of tokens that are none of them padding."""
    return Tokens(rng.integers(10, 100, length, dtype=np.int32), np.empty(0, np.int32), prompt)


def batches_of(texts: list[Tokens], batch_tokens: int, max_tokens: int) -> list[Batch]:
    batcher = Batcher(batch_tokens, max_tokens, PAD)
    full = [batch for place, text in enumerate(texts) if (batch := batcher.add(place, text))]
    rest = list(batcher.flush())
    assert list(batcher.flush()) == []
    return [*full, *rest]


def draw() -> Iterator[tuple[list[Tokens], int, int]]:
    """Yield texts, tokens per batch and the longest text, of random sizes."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        max_tokens = int(rng.choice([3, 16, 50, 256]))
        lengths = rng.integers(1, max_tokens, int(rng.integers(0, 400)), endpoint=True)
        texts = [text_of(int(length), rng, int(rng.integers(2))) for length in lengths]
        yield texts, int(rng.choice([1, 64, 500, 1024])), max_tokens


def test_every_text_comes_out_exactly_once() -> None:
    for drawn in draw():
        places = [place for batch in batches_of(*drawn) for place in batch.places.tolist()]
        assert sorted(places) == list(range(len(drawn[0])))


def test_a_row_holds_its_texts_tokens_and_then_padding() -> None:
    for drawn in draw():
        texts = drawn[0]
        for batch in batches_of(*drawn):
            for place, ids, mask in zip(batch.places, batch.ids, batch.mask, strict=False):
                tokens = texts[place].ids
                np.testing.assert_array_equal(ids[: len(tokens)], tokens)
                assert (ids[len(tokens) :] == PAD).all()
                assert mask.tolist() == [1] * len(tokens) + [0] * (len(ids) - len(tokens))
                assert texts[place].prompt == batch.prompt


def test_the_shape_of_a_texts_batch_depends_on_its_length_alone() -> None:
    for drawn in draw():
        texts, batch_tokens, max_tokens = drawn
        for batch in batches_of(*drawn):
            assert batch.ids.shape == batch.mask.shape
            for place in batch.places:
                length = min(-(-len(texts[place].ids) // STEP) * STEP, max_tokens)
                (alone,) = batches_of([texts[place]], batch_tokens, max_tokens)
                assert (
                    batch.ids.shape == alone.ids.shape == (max(1, batch_tokens // length), length)
                )


def test_rows_that_only_fill_the_shape_repeat_a_text_so_no_row_is_all_padding() -> None:
    for drawn in draw():
        for batch in batches_of(*drawn):
            filled = len(batch.places)
            assert 0 < filled <= len(batch.ids)
            assert (batch.mask.sum(axis=1) > 0).all()
            assert (batch.ids[filled:] == batch.ids[filled - 1]).all()


def test_a_row_wastes_less_than_a_step_and_only_the_last_batch_of_a_length_has_spare_rows() -> None:
    for drawn in draw():
        spare: list[tuple[int, int]] = []
        for batch in batches_of(*drawn):
            rows, length = batch.ids.shape
            assert (length - batch.mask.sum(axis=1) < STEP).all()
            if len(batch.places) < rows:
                spare.append((length, batch.prompt))
        assert len(spare) == len(set(spare))


def test_a_batch_is_given_away_as_soon_as_it_is_full() -> None:
    rng = np.random.default_rng(0)
    batcher = Batcher(4 * STEP, 100, PAD)
    waiting = [batcher.add(place, text_of(STEP, rng)) for place in range(3)]
    assert waiting == [None] * 3
    assert batcher.add(9, text_of(2 * STEP, rng)) is None
    full = batcher.add(3, text_of(1, rng))
    assert full is not None
    assert full.places.tolist() == [0, 1, 2, 3]
    assert [batch.places.tolist() for batch in batcher.flush()] == [[9]]


def test_what_waits_at_the_end_comes_longest_first() -> None:
    rng = np.random.default_rng(0)
    texts = [text_of(length, rng) for length in (5, 90, 40, 100, 17)]
    lengths = [batch.ids.shape[1] for batch in batches_of(texts, 1024, 100)]
    assert lengths == [100, 96, 48, 32, 16]


def test_without_padding_a_batch_holds_texts_of_one_length() -> None:
    for texts, batch_tokens, max_tokens in draw():
        batcher = Batcher(batch_tokens, max_tokens, PAD, pads=False)
        full = [batch for place, text in enumerate(texts) if (batch := batcher.add(place, text))]
        found = [*full, *batcher.flush()]
        assert all(batch.mask.all() for batch in found)
        places = [place for batch in found for place in batch.places.tolist()]
        assert sorted(places) == list(range(len(texts)))
        for batch in found:
            assert {len(texts[place].ids) for place in batch.places} == {batch.ids.shape[1]}
