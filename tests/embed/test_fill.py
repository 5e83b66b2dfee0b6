"""Every text encoded once: plans, filling and reading, with a real encoder and a real store."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import PipelineError
from pipeline.embed.fill import GROUP_TEXTS, Encoding, Window, Windows, read_or_fill
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import resolve_weights
from pipeline.store.store import Missing, Store, keys_of
from tests.helpers.artefacts import params
from tests.helpers.tiny_models import build_model

MAX_TOKENS = 32
FIELDS = 3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """A tiny random model on torch."""
    folder = build_model(tmp_path_factory.mktemp("model"), seed=4)
    entry = "encoders.e5-small-q4"
    given = params(
        {
            f"{entry}.weights": {"kind": "folder", "path": str(folder)},
            f"{entry}.max_tokens": MAX_TOKENS,
            f"{entry}.normalize": False,
            "runtime.engine": "torch",
            "runtime.threads": 2,
        }
    )
    spec = given.encoders["e5-small-q4"]
    return load_encoder(spec, resolve_weights(spec, "e5-small-q4"), given.runtime)


@dataclass
class Watched:
    """Adds up what an encoding tells of."""

    texts: int = 0
    tokens: int = 0
    computed: int = 0
    work: int = 0

    def __call__(self, texts: int, tokens: int, computed: int, work: int) -> None:
        self.texts += texts
        self.tokens += tokens
        self.computed += computed
        self.work += work


@dataclass
class Table:
    """Random texts, many of them equal, read some at a time; and stores of a folder."""

    folder: Path
    texts: list[str]
    field_ends: NDArray[np.int32]
    rows: int

    @classmethod
    def drawn(cls, folder: Path, rng: np.random.Generator, rows: int) -> "Table":
        """Draw `rows` texts of up to 60 characters from half as many."""
        letters = np.array(list("abc ñ日"))
        words = ["".join(rng.choice(letters, rng.integers(1, 60))) for _ in range(rows // 2 + 1)]
        texts = [words[at] for at in rng.integers(0, len(words), rows)]
        ends = [[*sorted(rng.integers(0, len(text) + 1, FIELDS - 1)), len(text)] for text in texts]
        field_ends = np.array(ends, dtype=np.int32).reshape(rows, FIELDS)
        return cls(folder, texts, field_ends, int(rng.integers(1, 100)))

    def windows(self) -> Iterator[Window]:
        """Yield the texts."""
        for start in range(0, len(self.texts), self.rows):
            rows = slice(start, start + self.rows)
            yield Window(start, self.texts[rows], self.field_ends[rows])

    def pairs(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return each row's text, and where its fields end."""
        return list(zip(self.texts, map(tuple, self.field_ends.tolist()), strict=True))

    def encoding(self) -> Encoding:
        """Return a look at the texts, with the stores as they are on disk."""
        vectors = Store(self.folder, {"of": "vectors"}, "float32")
        counts = Store(self.folder, {"of": "counts"}, "int32")
        return Encoding(self.windows, vectors, counts, 40, "tiny")


def fill(
    encoding: Encoding,
    encoder: TextEncoder,
    windows: Windows | None = None,
    limit: int | None = None,
) -> Watched:
    """Fill the stores with passages; return what was told."""
    watched = Watched()
    encoding.fill(encoder, encoder.tokenizer("passage"), watched, windows, limit)
    return watched


def distinct_in_order(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def work_of(texts: list[str]) -> int:
    return sum(16 + min(len(text), 40) for text in texts)


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_counts_what_a_brute_force_count_does(
    seed: int, tmp_path: Path, encoder: TextEncoder
) -> None:
    rng = np.random.default_rng(seed)
    table = Table.drawn(tmp_path, rng, int(rng.integers(1, 700)))
    distinct = distinct_in_order(table.texts)
    known = Table.drawn(tmp_path, rng, 20)
    held = set(distinct[::3])
    at = [row for row, text in enumerate(table.texts) if text in held]
    known.texts, known.field_ends = [table.texts[row] for row in at], table.field_ends[at]
    fill(known.encoding(), encoder)

    plan = table.encoding().plan()
    lacking = [text for text in distinct if text not in held]
    assert plan.texts == len(table.texts)
    assert plan.distinct == len(distinct)
    assert plan.to_encode == len(lacking)
    assert plan.reused == len(held)
    assert plan.work == work_of(lacking)
    assert plan.to_count == sum(text not in held for text in table.texts)

    watched = fill(table.encoding(), encoder)
    assert (watched.texts, watched.work) == (plan.to_encode, plan.work)
    after = table.encoding().plan()
    assert (after.to_encode, after.to_count, after.work) == (0, 0, 0)
    assert fill(table.encoding(), encoder) == Watched()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_is_what_the_encoder_gives_however_the_texts_came(
    seed: int, tmp_path: Path, encoder: TextEncoder
) -> None:
    rng = np.random.default_rng(seed)
    table = Table.drawn(tmp_path, rng, int(rng.integers(300, 900)))
    watched = fill(table.encoding(), encoder)
    encoding = table.encoding()
    raw = np.concatenate([encoding.raw(window) for window in table.windows()])
    np.testing.assert_array_equal(raw, encoder.encode_passages(table.texts))
    tokens = dict(zip(table.texts, encoder.tokenizer("passage")(table.texts), strict=True))
    assert watched.tokens == sum(len(tokens[text].ids) for text in distinct_in_order(table.texts))
    assert watched.computed >= watched.tokens
    counts = np.concatenate([encoding.counts(window) for window in table.windows()])
    for row, (text, ends) in enumerate(zip(table.texts, table.field_ends, strict=True)):
        expected = [len(tokens[text].ids) + len(tokens[text].cut)] + [0] * FIELDS
        for at in tokens[text].cut:
            expected[1 + next(field for field, end in enumerate(ends) if at < end)] += 1
        assert counts[row].tolist() == expected


@pytest.mark.parametrize("limit", [1, 31, 64, 10_000])
def test_no_more_texts_than_the_limit_are_encoded_and_all_of_them_are_kept(
    limit: int, tmp_path: Path, encoder: TextEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(0), 500)
    before = table.encoding().plan()
    done = min(limit, before.to_encode)
    assert fill(table.encoding(), encoder, limit=limit).texts == done
    assert table.encoding().plan().to_encode == before.to_encode - done


def test_nothing_is_kept_of_a_group_that_was_not_finished_and_all_of_those_before(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(1), 2_000)
    before = table.encoding().plan().to_encode
    left = 2 * GROUP_TEXTS + 100

    def stop(texts: int, tokens: int, computed: int, work: int) -> None:
        nonlocal left
        left -= texts
        if left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.encoding().fill(encoder, encoder.tokenizer("passage"), stop)
    kept = before - table.encoding().plan().to_encode
    assert 2 * GROUP_TEXTS <= kept <= 2 * GROUP_TEXTS + 100
    fill(table.encoding(), encoder)
    encoding = table.encoding()
    raw = np.concatenate([encoding.raw(window) for window in table.windows()])
    np.testing.assert_array_equal(raw, encoder.encode_passages(table.texts))


def test_the_same_text_cut_into_other_fields_is_counted_anew_and_not_encoded(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(2), 100)
    fill(table.encoding(), encoder)
    before = table.pairs()
    table.field_ends = np.repeat(table.field_ends[:, -1:], FIELDS, axis=1)
    plan = table.encoding().plan()
    assert plan.to_encode == 0
    assert plan.to_count == sum(pair not in before for pair in table.pairs()) > 0
    assert fill(table.encoding(), encoder) == Watched()
    cut = np.concatenate([table.encoding().counts(window) for window in table.windows()])[:, 1:]
    assert cut[:, 0].any()
    assert not cut[:, 1:].any()


def test_what_was_never_filled_is_missing_and_read_or_fill_makes_it(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(3), 50)
    table.rows = 50
    (window,) = table.windows()
    encoding = table.encoding()
    with pytest.raises(Missing):
        encoding.raw(window)

    def make(lost: Windows) -> None:
        fill(encoding, encoder, lost)

    raw, counts = read_or_fill(encoding, window, make)
    np.testing.assert_array_equal(raw, encoder.encode_passages(table.texts))
    assert counts.shape == (50, 1 + FIELDS)


def test_a_store_that_loses_everything_at_once_ends_the_run_with_a_message(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(4), 50)
    (window, *_) = table.windows()
    with pytest.raises(PipelineError, match=r"store of vectors in .* lost .*PIPELINE_CACHE"):
        read_or_fill(table.encoding(), window, lambda lost: None)


def test_what_another_process_encodes_meanwhile_is_not_encoded_again(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(5), 2_000)
    table.rows = 100
    distinct = len(set(table.texts))
    ours, theirs = Watched(), Watched()

    def watch(texts: int, tokens: int, computed: int, work: int) -> None:
        if not theirs.texts:
            # The other one finds us at work, and begins in the middle.
            other = table.encoding()
            other.plan()
            half = len(set(table.texts[1_000:]))
            other.fill(encoder, encoder.tokenizer("passage"), theirs, limit=half)
            left = Store(tmp_path, {"of": "vectors"}, "float32")
            assert left.holds(keys_of(table.texts[1_000:])).all()
            other.fill(encoder, encoder.tokenizer("passage"), theirs)
        ours(texts, tokens, computed, work)

    encoding = table.encoding()
    encoding.plan()
    encoding.fill(encoder, encoder.tokenizer("passage"), watch)
    assert theirs.texts == distinct
    # What was in our hands by then: the window under way, and batches not yet full.
    assert ours.texts < distinct / 2
    for window in table.windows():
        assert len(encoding.raw(window)) == len(window.texts)


def test_no_texts_are_no_work(tmp_path: Path, encoder: TextEncoder) -> None:
    table = Table(tmp_path, [], np.empty((0, FIELDS), np.int32), 10)
    plan = table.encoding().plan()
    assert (plan.texts, plan.distinct, plan.to_encode, plan.reused, plan.work) == (0, 0, 0, 0, 0)
    assert fill(table.encoding(), encoder) == Watched()
    assert not list(tmp_path.iterdir())
