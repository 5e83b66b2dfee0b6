"""Products searched range by range: the bytes of one search of them all."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.bm25 import postings, ranges, room
from pipeline.bm25 import stage as bm25
from pipeline.bm25 import texts as bm25_texts
from pipeline.bm25.analysers import analyser_name
from pipeline.bm25.cluster import connection, searcher
from pipeline.bm25.counting import Counted, count_terms
from pipeline.bm25.postings import Statistics, memory_bytes
from pipeline.bm25.room import Room
from pipeline.bm25.search import BATCH_QUERIES, search
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.memory import MemoryLimitError
from pipeline.core.params import Bm25
from pipeline.runs.inputs import Inputs
from tests.helpers.artefacts import LOCALE, params, write_clean
from tests.helpers.terms import index_of

PIECE = 7


def random_terms(rng: np.random.Generator, texts: int, longest: int) -> list[list[str]]:
    """Return texts of up to `longest` terms, some empty; few products have the last terms."""
    return [
        [f"t{min(term, 60)}" for term in rng.geometric(0.1, rng.integers(0, longest))]
        for _ in range(texts)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_ranges_have_the_runs_of_all_products_to_the_last_bit(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    settings = Bm25(k1=float(rng.choice([0, 0.9, 1.2])), b=float(rng.choice([0, 0.4, 1])))
    products, depth = random_terms(rng, 400, 30), int(rng.choice([1, 5, 40, 1_000]))
    products[100:140] = [["t1"]] * 40  # ties at the last place, in several ranges
    queries = [*random_terms(rng, 290, 8), ["t1"], ["unheard of"], [], ["t2"] * 40]
    pairs = np.unique(rng.integers(0, [len(queries), 400], (900, 2)), axis=0)
    nothing = pa.chunked_array([[]])
    inputs = Inputs(nothing, nothing, pairs[:, 0].copy(), pairs[:, 1].copy())
    rows = range(len(queries))
    whole = search(index_of(products, settings), queries, rows, depth, inputs)

    vocabulary = ranges.vocabulary_of(queries)
    pieces = (count_terms(products[at : at + PIECE]) for at in range(0, 400, PIECE))
    found = ranges.make_ranges(pieces, vocabulary, lambda *_: bool(rng.random() < 0.2), tmp_path)
    assert len(found) > 3
    assert not list(tmp_path.iterdir())
    rng.shuffle(found)
    known = Statistics.of(one.postings for one in found)
    judged = inputs.pair_queries, inputs.pair_products
    task = ranges.Task(queries, vocabulary, known, settings, depth, judged)
    parts = task.search_all(found, rows, threads=2)
    both = zip(*ranges.merge(parts, task, rows), strict=True)
    for run, expected in zip(both, whole, strict=True):
        for column, wanted in zip(zip(*run, strict=True), expected, strict=True):
            np.testing.assert_array_equal(np.concatenate(column), wanted)


@pytest.mark.slow
def test_a_cluster_finds_the_same_to_the_last_bit_though_a_worker_is_killed_midway(
    cluster: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from bench.ray import kill_a_worker  # here, because it loads encoders

    rng = np.random.default_rng(9)
    settings, depth = Bm25(k1=0.9, b=0.4), 5
    products, queries = random_terms(rng, 400, 30), random_terms(rng, 40, 8)
    vocabulary = ranges.vocabulary_of(queries)
    pieces = (count_terms(products[at : at + PIECE]) for at in range(0, 400, PIECE))
    found = ranges.make_ranges(pieces, vocabulary, lambda *_: bool(rng.random() < 0.2), tmp_path)
    known = Statistics.of(one.postings for one in found)
    judged = np.unique(rng.integers(0, [40, 400], (90, 2)), axis=0).T
    task = ranges.Task(queries, vocabulary, known, settings, depth, (judged[0], judged[1]))
    there = params({"runtime.executor": "ray", "runtime.ray_address": cluster}).runtime
    killed: list[bool] = []

    def and_kill(parts: Iterator[ranges.Part]) -> Iterator[ranges.Part]:
        for part in parts:
            if not killed:  # the first part is here: the workers have the next ranges
                killed.append(kill_a_worker())
            yield part

    with connection(there) as ray, searcher(ray, there, task) as search_there:
        for rows in (range(20), range(20, 40)):
            mine = list(ranges.merge(and_kill(search_there(found, rows)), task, rows))
            expected = list(ranges.merge(task.search_all(found, rows, threads=1), task, rows))
            for one, other in zip(chain(*mine[0]), chain(*expected[0]), strict=True):
                np.testing.assert_array_equal(one, other)
    assert killed == [True]
    assert sum("of the Ray cluster died" in line for line in caplog.messages) == 1


def counted(postings: int) -> Counted:
    """Return one product with so many different terms."""
    return count_terms([[f"t{n}" for n in range(postings)]])


def test_a_range_ends_before_the_piece_that_would_not_fit_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postings, "WEIGHT_BYTES", 20_000)
    limit = 600_000_000
    given = params({"runtime.memory_limit": limit / 1e9, "runtime.threads": 1})
    vocabulary = ranges.vocabulary_of([f"t{n}"] for n in range(20_000))
    space = Room(given, LOCALE, "words", 80, len(vocabulary))

    def taken(found: int) -> int:
        return space.queries * 80 * room.HELD_BYTES + memory_bytes(
            "words", 80, postings=found, terms=len(vocabulary), piece_terms=0, piece_postings=0,
            found=BATCH_QUERIES * min(given.retrieve.depth, 80),
        )  # fmt: skip

    rising = np.sort(np.random.default_rng(0).integers(200, 4_000, 80)).tolist()
    for sizes in (rising, rising[::-1]):
        before = len(list(Path("/proc/self/fd").iterdir()))
        made = ranges.make_ranges(map(counted, sizes), vocabulary, space.is_full, tmp_path)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
        held = [len(one.postings.products) for one in made]
        assert sum(held) == sum(sizes)
        assert len(held) > 10
        assert max(map(taken, held)) <= limit
        firsts = [sizes[one.start] for one in made[1:]]
        assert all(taken(a + b) > limit for a, b in zip(held[:-1], firsts, strict=True))
    for sizes in ([20_000], [*rising, 20_000, 1]):
        with pytest.raises(MemoryLimitError, match="bm25 of the 80 es products would take"):
            ranges.make_ranges(map(counted, sizes), vocabulary, space.is_full, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_range_needs_memory_for_its_own_products_not_for_the_whole_catalogue() -> None:
    given = params({"runtime.memory_limit": 1.5, "runtime.threads": 16})
    space = Room(given, LOCALE, "words", 600_000, terms=10)
    assert not space.is_full(postings.Collection({}), counted(10))


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean tables in a folder of their own, counted in pieces of `PIECE` products."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    monkeypatch.setattr(bm25_texts, "PIECE_PRODUCTS", PIECE)
    rng = np.random.default_rng(6)
    write_clean(rng, 200, 300)
    for side, schema in (("products", tables.PRODUCTS), ("queries", tables.QUERIES)):
        path = layout.clean(LOCALE).side(side)
        table = tables.read_table(path, schema, "")
        texts = [" ".join(terms) for terms in random_terms(rng, len(table), 12)]
        place = table.schema.get_field_index("text")
        tables.write_table(path, table.set_column(place, "text", pa.array(texts)), schema)


def written(changes: dict[str, Any], way: str = "") -> dict[str, bytes]:
    """Run the stage on one thread, check its way for `plan`; return the bytes of its files."""
    done = bm25.bm25(params({"runtime.threads": 1, **changes}), LOCALE)
    assert done.kind == f"{analyser_name(LOCALE)}{way}"
    return {path.name: path.read_bytes() for path in layout.runs("bm25", LOCALE).folder.iterdir()}


def test_where_not_all_postings_fit_the_stage_goes_range_by_range_with_the_same_bytes(
    clean: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    whole = written({"runtime.memory_limit": None})
    monkeypatch.setattr(postings, "WEIGHT_BYTES", 1_000_000)
    # Groups of queries, too: 256, then 44.
    monkeypatch.setattr(room, "MOST_HELD", 1)
    for limit, fewest in ((0.8, 2), (0.5, 6)):
        caplog.clear()
        assert written({"runtime.memory_limit": limit}, "-ranges") == whole
        (line,) = (one for one in caplog.messages if "ranges=" in one)
        assert int(re.findall(r"ranges=(\d+)", line)[0]) >= fewest
        assert "The products are searched range by range." in caplog.text
    with pytest.raises(MemoryLimitError, match=r"bm25 of the \d+ es products would take"):
        written({"runtime.memory_limit": 0.33})
    assert not [path for path in Path(".cache/search").iterdir() if path.is_file()]


@pytest.mark.slow
def test_the_stage_sends_ranges_to_a_cluster_only_where_not_all_postings_fit(
    clean: None, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written({})
    there = {"runtime.executor": "ray", "runtime.ray_address": cluster}
    monkeypatch.setattr(postings, "WEIGHT_BYTES", 1_000_000)
    assert written({**there, "runtime.memory_limit": 0.8}, "-ray") == whole
    # Nobody is asked for while all fit.
    nowhere = {**there, "runtime.ray_address": "127.0.0.1:1"}
    with pytest.raises(PipelineError, match="no Ray cluster that fits this machine"):
        written({**nowhere, "runtime.memory_limit": 0.8})
    assert written({**nowhere, "runtime.memory_limit": 64.0}) == whole
