# ruff: noqa: S311 - damage needs no cryptography
"""What report reads, damaged at random: the same page, or one message that says what to do.

A few tries each; `make fuzz` makes as many as one likes.
"""

import contextlib
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError
from pipeline.encoder_scores.form import EncoderScores
from pipeline.report.checks import check_results
from pipeline.report.encoder import read_encoder
from pipeline.report.inputs import LocaleResults, read_locale
from pipeline.report.scale import read_scale
from tests.helpers.artefacts import params
from tests.helpers.damage import cut, flip, overwrite
from tests.helpers.page_artefacts import ONE, write_locale

LOCALE = "es"
SEEDS = 2
"""Tries per artefact and kind of damage."""

STRANGE: tuple[Any, ...] = (
    None, True, -1, 2, 7.5, -0.1, 1e300, 2**63, 10**400, float("nan"), float("inf"), "", "x",
    "\ud800", [], {}, [[]], {"x": 1}, "1", 0, 1,
)  # fmt: skip


Shown = tuple[LocaleResults, EncoderScores, Any]
Read = Callable[[], Shown]
Damages = Callable[[bytes], Iterator[bytes]]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Yield what reads and checks all that the page shows, in a folder where all of it is."""
    given = params(ONE)
    with contextlib.chdir(tmp_path_factory.mktemp("damage")):
        write_locale(given, LOCALE, queries=9)
        point = {"products": 10, "seconds": 1.5, "peak_bytes": 7}
        stages = {"clean": [point, point | {"products": 20}]}
        files.write_json(layout.SCALE_BENCH, {"machine": {"cores": 2}, "stages": stages})

        def read_and_check() -> Shown:
            results = read_locale(given, LOCALE)
            check_results(results, given)
            return results, read_encoder(results), read_scale()

        yield read_and_check


@pytest.fixture(scope="module")
def whole(read: Read) -> Shown:
    """What is read where nothing is damaged."""
    return read()


@contextlib.contextmanager
def restored(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file that the block damages, and put them back after it."""
    data = path.read_bytes()
    try:
        yield data
    finally:
        path.write_bytes(data)


pytestmark = pytest.mark.slow

JSON = (
    layout.metrics(LOCALE), layout.intervals(LOCALE), layout.slices(LOCALE),
    layout.clean(LOCALE).counts, layout.embeddings(LOCALE).manifest, layout.tradeoff(LOCALE),
    layout.SCALE_BENCH, layout.encoder_scores(LOCALE),
)  # fmt: skip
CSV = (layout.recall_curve(LOCALE), layout.training_plot(LOCALE))
PARQUET = (
    layout.per_query(LOCALE), layout.top(LOCALE), layout.clean(LOCALE).queries,
    layout.clean(LOCALE).products, layout.clean(LOCALE).judgements, layout.encoder_values(LOCALE),
    layout.exact(LOCALE), layout.kinds(LOCALE),
)  # fmt: skip


def outcome(read: Read) -> Shown | str:
    """Return what is read, or the message that says why nothing is."""
    try:
        return read()
    except PipelineError as err:
        message = str(err)
        assert "\n" not in message
        assert "Run `" in message, message
        return message


def with_damaged_bytes(data: bytes) -> Iterator[bytes]:
    """Yield the bytes of a file, damaged in one way after the other."""
    for damage, seed in itertools.product((flip, cut, overwrite), range(SEEDS)):
        yield damage(data, random.Random(seed))


def with_a_strange_value(data: bytes) -> Iterator[bytes]:
    """Yield JSON in which one value is gone or another, each time elsewhere."""
    for seed in range(4 * SEEDS):
        content = json.loads(data)
        change_one(content, random.Random(seed))
        yield json.dumps(content).encode()


def outcomes(read: Read, path: Path, damages: Damages) -> list[Shown | str]:
    """Return what is read of a file that is damaged in one way after the other."""
    found = []
    with restored(path) as data:
        for damaged in damages(data):
            path.write_bytes(damaged)
            found.append(outcome(read))
    return found


@pytest.mark.parametrize("path", PARQUET + CSV, ids=str)
def test_a_table_with_damaged_bytes_gives_the_same_numbers_or_one_message(
    read: Read, whole: Shown, path: Path
) -> None:
    for found in outcomes(read, path, with_damaged_bytes):
        if not isinstance(found, str) and path != layout.recall_curve(LOCALE):
            assert found == whole


@pytest.mark.parametrize(
    ("path", "was", "damaged", "message"),
    [
        (layout.metrics(LOCALE), b'"recall@', b'"recamm@', "which random has not"),
        (layout.slices(LOCALE), b'"ndcg@10"', b'"ndcg@1"', "must have the hash"),
        (layout.recall_curve(LOCALE), b"bm25,1,", b"bm25,2,", "the same values of k"),
    ],
    ids=str,
)
def test_a_damaged_name_of_a_number_is_refused(
    read: Read, path: Path, was: bytes, damaged: bytes, message: str
) -> None:
    with restored(path) as data:
        assert was in data
        path.write_bytes(data.replace(was, damaged, 1))
        found = outcome(read)
    assert isinstance(found, str)
    assert message in found


def test_a_wrong_rank_of_an_exact_product_is_refused_also_between_two_cutoffs(read: Read) -> None:
    path = layout.exact(LOCALE)
    table = pq.read_table(path)
    ranks = table["bm25"].to_pylist()
    place = table.column_names.index("bm25")
    changed = next(row for row, rank in enumerate(ranks) if rank and 10 < rank < 50)
    for rank, said in (
        (None, "the ranks of bm25 do not give the recall@"),
        (ranks[changed] + 1, "does not have the hash of its contents: it is of other runs"),
    ):
        ranks[changed] = rank
        column = [pa.array(ranks, pa.int32())]
        wrong = table.set_column(place, table.schema.field("bm25"), column)
        with restored(path):
            pq.write_table(wrong, path, **tables.WRITE_OPTIONS)
            found = outcome(read)
        assert isinstance(found, str)
        assert said in found


@pytest.mark.parametrize("damages", [with_damaged_bytes, with_a_strange_value])
@pytest.mark.parametrize("path", JSON, ids=str)
def test_a_damaged_json_file_gives_one_message_or_numbers_that_can_be(
    read: Read, whole: Shown, path: Path, damages: Damages
) -> None:
    for found in outcomes(read, path, damages):
        # What is in two files is never wrong; times of a machine and counts of tokens are in one.
        if not isinstance(found, str) and path in JSON[:3]:
            assert shown(found[0]) == shown(whole[0])


def shown(results: LocaleResults) -> Any:
    """Return what is in two files or has a hash; of the means those that are kept by query."""
    means = {s: {m: results.means[s][m] for m in of} for s, of in results.intervals.items()}
    return results.scores, means, results.intervals, results.slices


def change_one(content: Any, rng: random.Random) -> None:
    """Delete a value somewhere in what JSON holds, or put a strange one there."""
    holder: Any = None
    key: Any = None
    value = content
    while isinstance(value, dict | list) and value and (holder is None or rng.random() < 0.8):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        holder, key = value, rng.choice(keys)
        value = value[key]
    assert holder is not None
    if rng.random() < 0.15:
        del holder[key]
    else:
        holder[key] = rng.choice(STRANGE)
