"""Every text encoded once: surveys, filling and reading, with a real encoder and a real store."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.embed.fill import GROUP_TEXTS, SideEncoder
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.embed.rates import PROBE_TEXTS
from pipeline.embed.sides import TableSide
from pipeline.encoders.encoder import Encoded, TextEncoder
from pipeline.encoders.tokens import Tokens
from pipeline.store.store import keys_of
from tests.helpers.artefacts import LOCALE, params
from tests.helpers.tiny_models import build_model

pytestmark = pytest.mark.slow  # a model is loaded

MAX_TOKENS = 24
FIELDS = 3
CHARACTERS = 4 * MAX_TOKENS
"""About how much of a text the encoder reads, for estimates."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> LocaleEncoder:
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
    return LocaleEncoder(given, LOCALE)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store, in a cache of the test's own."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/vectors"


@dataclass
class Table:
    """Random texts, many of them equal, as a table of products that is read some rows at a time."""

    folder: Path
    texts: list[str]
    field_ends: NDArray[np.int32]
    rows: int

    @classmethod
    def drawn(cls, folder: Path, rng: np.random.Generator, rows: int) -> "Table":
        """Draw `rows` texts of up to 110 characters from half as many."""
        letters = np.array(list("abc ñ日"))
        words = ["".join(rng.choice(letters, rng.integers(1, 110))) for _ in range(rows // 2 + 1)]
        texts = [words[at] for at in rng.integers(0, len(words), rows)]
        ends = [[*sorted(rng.integers(0, len(text) + 1, FIELDS - 1)), len(text)] for text in texts]
        field_ends = np.array(ends, dtype=np.int32).reshape(rows, FIELDS)
        return cls(folder, texts, field_ends, int(rng.integers(1, 100)))

    def pairs(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return each row's text, and where its fields end."""
        return list(zip(self.texts, map(tuple, self.field_ends.tolist()), strict=True))

    def side(self) -> TableSide:
        """Write the table and return it as a side."""
        path = self.folder / "products.parquet"
        columns = {
            "product_id": [f"P{row:06d}" for row in range(len(self.texts))],
            "text": self.texts,
            "field_ends": self.field_ends.tolist(),
        }
        tables.write_table(path, pa.table(columns, tables.PRODUCTS), tables.PRODUCTS)
        fields = tuple("abc"[:FIELDS])
        return TableSide(
            "products", "passage", path, tables.PRODUCTS, "Make it again.", fields, self.rows
        )

    def opened(self, encoder: LocaleEncoder) -> SideEncoder:
        """Return the side with the store as it is on disk."""
        return SideEncoder(encoder, self.side())


def fill(encoder: LocaleEncoder, table: Table, limit: int | None = None) -> int:
    """Fill the store with the vectors of a table; return how many texts were encoded."""
    side = table.opened(encoder)
    side.fill(side.survey(), limit=limit)
    return side.encoded


def read(side: SideEncoder) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return all raw vectors and token counts."""
    raw, counts = zip(*(side.read(window) for window in side.table.windows()), strict=True)
    return np.concatenate(raw), np.concatenate(counts)


def distinct_in_order(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def work_of(texts: list[str]) -> int:
    return sum(16 + min(len(text), CHARACTERS) for text in texts)


class Watched:
    """A model that calls a function with each batch's texts before it yields their vectors."""

    def __init__(self, model: TextEncoder, watch: Callable[[int], None]) -> None:
        self.tokenizer = model.tokenizer
        self._model, self._watch = model, watch

    def encode_tokens(self, texts: Iterable[tuple[int, Tokens]]) -> Iterator[Encoded]:
        for part in self._model.encode_tokens(texts):
            self._watch(len(part.places))
            yield part


def watched(encoder: LocaleEncoder, watch: Callable[[int], None]) -> LocaleEncoder:
    """Return the encoder with a `Watched` model."""
    copied = copy.copy(encoder)
    copied.__dict__["model"] = Watched(encoder.model, watch)
    return copied


def test_a_survey_counts_what_a_brute_force_count_does(
    tmp_path: Path, encoder: LocaleEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / f"cache{seed}"))
        check_survey(tmp_path, encoder, np.random.default_rng(seed))


def check_survey(folder: Path, encoder: LocaleEncoder, rng: np.random.Generator) -> None:
    table = Table.drawn(folder, rng, int(rng.integers(1, 700)))
    distinct = distinct_in_order(table.texts)
    known = Table.drawn(folder, rng, 20)
    held = set(distinct[::3])
    at = [row for row, text in enumerate(table.texts) if text in held]
    known.texts, known.field_ends = [table.texts[row] for row in at], table.field_ends[at]
    fill(encoder, known)

    survey = table.opened(encoder).survey()
    lacking = [text for text in distinct if text not in held]
    assert survey.texts == len(table.texts)
    assert survey.distinct == len(distinct)
    assert survey.to_encode == len(lacking)
    assert survey.reused == len(held)
    assert survey.work == work_of(lacking)
    assert survey.to_count == sum(text not in held for text in table.texts)

    assert fill(encoder, table) == survey.to_encode
    after = table.opened(encoder).survey()
    assert (after.to_encode, after.to_count, after.work) == (0, 0, 0)
    assert fill(encoder, table) == 0


def test_what_is_read_is_what_the_encoder_gives_however_the_texts_came(
    tmp_path: Path, encoder: LocaleEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / f"cache{seed}"))
        rng = np.random.default_rng(seed)
        table = Table.drawn(tmp_path, rng, int(rng.integers(300, 900)))
        fill(encoder, table)
        raw, counts = read(table.opened(encoder))
        np.testing.assert_array_equal(raw, encoder.model.encode_passages(table.texts))
        tokens = encoder.model.tokenizer("passage")(table.texts)
        for row, (one, ends) in enumerate(zip(tokens, table.field_ends, strict=True)):
            expected = [len(one.ids) + len(one.cut)] + [0] * FIELDS
            for at in one.cut:
                expected[1 + next(field for field, end in enumerate(ends) if at < end)] += 1
            assert counts[row].tolist() == expected


@pytest.mark.parametrize("limit", [1, 31, 64, 10_000])
def test_no_more_texts_than_the_limit_are_encoded_and_all_of_them_are_kept(
    limit: int, tmp_path: Path, encoder: LocaleEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(0), 500)
    before = table.opened(encoder).survey()
    done = min(limit, before.to_encode)
    assert fill(encoder, table, limit) == done
    assert table.opened(encoder).survey().to_encode == before.to_encode - done


def test_nothing_is_kept_of_a_group_that_was_not_finished_and_all_of_those_before(
    tmp_path: Path, encoder: LocaleEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(1), 2_000)
    before = table.opened(encoder).survey().to_encode
    left = 2 * GROUP_TEXTS + 100

    def stop(texts: int) -> None:
        nonlocal left
        left -= texts
        if left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(watched(encoder, stop), table)
    kept = before - table.opened(encoder).survey().to_encode
    assert 2 * GROUP_TEXTS <= kept <= 2 * GROUP_TEXTS + 100
    fill(encoder, table)
    raw, _ = read(table.opened(encoder))
    np.testing.assert_array_equal(raw, encoder.model.encode_passages(table.texts))


def test_the_same_text_cut_into_other_fields_is_counted_anew_and_not_encoded(
    tmp_path: Path, encoder: LocaleEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(2), 100)
    fill(encoder, table)
    before = table.pairs()
    table.field_ends = np.repeat(table.field_ends[:, -1:], FIELDS, axis=1)
    survey = table.opened(encoder).survey()
    assert survey.to_encode == 0
    assert survey.to_count == sum(pair not in before for pair in table.pairs()) > 0
    assert fill(encoder, table) == 0
    _, counts = read(table.opened(encoder))
    assert counts[:, 1].any()
    assert not counts[:, 2:].any()


def test_what_was_never_filled_is_made_when_it_is_read(
    tmp_path: Path, encoder: LocaleEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(3), 50)
    side = table.opened(encoder)
    raw, counts = read(side)
    np.testing.assert_array_equal(raw, encoder.model.encode_passages(table.texts))
    assert counts.shape == (50, 1 + FIELDS)
    assert side.encoded == len(set(table.texts))


def test_a_store_that_loses_everything_at_once_ends_the_run_with_a_message(
    tmp_path: Path, encoder: LocaleEncoder, store: Path
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(4), 50)
    side = table.opened(encoder)
    (window, *_) = side.table.windows()
    # A disk that fails: the values of each segment are other ones as soon as it is written.
    add = side._vectors.add

    def add_and_damage(keys: NDArray[np.uint64], rows: NDArray[np.float32]) -> None:
        add(keys, rows)
        for path in store.glob(f"*/*x{rows.shape[1]}.npy"):
            path.write_bytes(path.read_bytes()[: -4 * rows.size] + bytes(4 * rows.size))

    side._vectors.add = add_and_damage  # type: ignore[method-assign]
    with pytest.raises(PipelineError, match=r"store of vectors in .* lost .*PIPELINE_CACHE"):
        side.read(window)


def test_what_another_process_encodes_meanwhile_is_not_encoded_again(
    tmp_path: Path, encoder: LocaleEncoder
) -> None:
    table = Table.drawn(tmp_path, np.random.default_rng(5), 2_000)
    table.rows = 100
    distinct = len(set(table.texts))
    theirs = 0

    def meet_another(_: int) -> None:
        nonlocal theirs
        if theirs:
            return
        # The other one finds us at work, and begins in the middle.
        other = table.opened(encoder)
        other.fill(other.survey(), limit=len(set(table.texts[1_000:])))
        held = table.opened(encoder)._vectors.holds(keys_of(table.texts[1_000:]))
        assert held.all()
        other.fill(other.survey())
        theirs = other.encoded

    ours = table.opened(watched(encoder, meet_another))
    ours.fill(ours.survey())
    assert theirs == distinct
    # What was in our hands by then: the window under way, and batches not yet full.
    assert ours.encoded < distinct / 2
    raw, _ = read(ours)
    np.testing.assert_array_equal(raw, encoder.model.encode_passages(table.texts))


def test_a_rate_that_cannot_be_kept_fails_no_run(tmp_path: Path, encoder: LocaleEncoder) -> None:
    layout.cache().mkdir()
    layout.rates().write_text("no folder")
    table = Table.drawn(tmp_path, np.random.default_rng(6), 400)
    side = table.opened(encoder)
    side.fill(side.survey())
    assert side.encoded >= PROBE_TEXTS
    assert side.rate()
    assert layout.rates().read_text() == "no folder"


def test_no_texts_are_no_work(tmp_path: Path, encoder: LocaleEncoder, store: Path) -> None:
    table = Table(tmp_path, [], np.empty((0, FIELDS), np.int32), 10)
    survey = table.opened(encoder).survey()
    assert (survey.texts, survey.distinct, survey.to_encode, survey.reused, survey.work) == (0,) * 5
    assert fill(encoder, table) == 0
    assert not store.exists()
