"""A per-query table is read as it was written, or refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.tables import WRITE_OPTIONS
from pipeline.evaluate import per_query
from pipeline.evaluate.per_query_reader import read_per_query
from tests.helpers.comparisons import EXACT, card, measures, table, top

WHERE, REMEDY = "es.parquet of HEAD", "Take another."


@pytest.fixture
def rows() -> pa.Table:
    return table(measures(np.random.default_rng(3), 40))


def written(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, **WRITE_OPTIONS)
    return bytes(sink.getvalue())


def read(data: bytes, locale: str = "es") -> pa.Table:
    return read_per_query(data, WHERE, locale, REMEDY)[0]


def refusal(data: bytes, locale: str = "es") -> str:
    with pytest.raises(PipelineError) as caught:
        read(data, locale)
    message = str(caught.value)
    assert message.startswith(WHERE)
    assert message.endswith(REMEDY)
    return message


def test_a_table_comes_back_with_what_it_is_of(rows: pa.Table, tmp_path: Path) -> None:
    per_query.write(tmp_path / "t.parquet", rows)
    found, of = read_per_query((tmp_path / "t.parquet").read_bytes(), WHERE, "es", REMEDY)
    assert found.equals(rows, check_metadata=True)
    assert (of.encoder, of.index, of.sample.queries) == ("labse", "flat", 40)
    assert of.top_sha256 == per_query.contents_sha256(top(rows, "title"))
    assert of.exact_sha256 == per_query.contents_sha256(EXACT.select(sorted(EXACT.column_names)))


def test_a_card_of_before_the_hash_of_the_exact_products_is_still_read(rows: pa.Table) -> None:
    older = card(rows).model_copy(update={"exact_sha256": None, "contents_sha256": ""})
    assert "exact_sha256" not in older.model_dump_json()
    found = read_per_query(written(per_query.seal(rows, older)), WHERE, "es", REMEDY)
    assert found[1].exact_sha256 is None


def damage(rng: np.random.Generator, data: bytes) -> bytes:
    """Return a file with a bit flipped, bytes exchanged, cut out, or cut off."""
    changed = bytearray(data)
    start, stop = sorted(rng.integers(0, len(data), 2).tolist())
    match rng.integers(6):
        case 0:
            changed[start:stop] = rng.bytes(stop - start)
        case 1:
            del changed[start:stop]
        case 2:
            del changed[start:]
        case _:
            changed[start] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def same_or_refused(data: bytes, rows: pa.Table) -> bool:
    try:
        found, of = read_per_query(data, WHERE, "es", REMEDY)
    except PipelineError as err:
        return "\n" not in str(err)
    return bool(found.equals(rows)) and of == card(rows)


def test_of_a_damaged_file_the_same_numbers_are_read_or_one_message(rows: pa.Table) -> None:
    data = written(rows)
    for seed in range(300):
        damaged = damage(np.random.default_rng(seed), data)
        assert same_or_refused(damaged, rows), seed


def test_every_bit_of_the_footer_is_bound(rows: pa.Table) -> None:
    """No checksum of parquet covers it."""
    data = written(rows)
    length = int.from_bytes(data[-8:-4], "little")
    for place in range(len(data) - 8 - length, len(data), 11):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        assert same_or_refused(bytes(damaged), rows), place


def test_the_hash_is_of_names_types_order_values_nulls_and_card_and_not_of_chunks() -> None:
    base = pa.table({"a": pa.array([1, 2, None], pa.int64()), "b": ["x", "", None]})
    changed = [
        base.rename_columns(["a", "c"]),
        base.select(["b", "a"]),
        base.slice(1),
        base.set_column(0, "a", pa.array([1, 2, None], pa.int32())),
        base.set_column(0, "a", pa.array([1, 2, 0], pa.int64())),
        base.set_column(0, "a", pa.array([1, None, 2], pa.int64())),
        base.set_column(1, "b", pa.array(["x", "", ""])),
        base.set_column(1, "b", pa.array(["", "x", None])),
        base.set_column(1, "b", pa.array(["x", None, ""])),
    ]
    hashes = [per_query.contents_sha256(each) for each in (base, *changed)]
    assert len(set(hashes)) == len(hashes)
    pieces = pa.concat_tables([base.slice(0, 1), base.slice(1, 1), base.slice(2)])
    assert per_query.contents_sha256(pieces) == hashes[0]
    given = table(measures(np.random.default_rng(1), 5))
    assert per_query.contents_sha256(given, card(given)) != per_query.contents_sha256(given)


def with_column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index(name)
        if place < 0:
            return rows.append_column(name, values)
        return rows.set_column(place, name, values)

    return change


def floats(value: float) -> pa.Array:
    return pa.array([0.5] * 39 + [value], pa.float32())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_column("dense.ndcg@10", floats(7.5)), "dense.ndcg@10 must be from 0 to 1 (found 7."),
        (with_column("dense.judged@10", floats(1.01)), "from 0 to 1 (found 1.01)"),
        (with_column("dense.ndcg@10", floats(-0.1)), "from 0 to 1 (found -0.1)"),
        (with_column("dense.ndcg@10", floats(np.nan)), "from 0 to 1 (found nan)"),
        (with_column("dense.ndcg@10", floats(np.inf)), "from 0 to 1 (found inf)"),
        (with_column("dense.labels", pa.array(["EX"] * 40)), "must be the labels of at most 10"),
        (with_column("dense.labels", pa.array(["E" * 11] * 40)), "the labels of at most 10"),
        (with_column("dense.labels", pa.array([None] * 40, pa.string())), "must be the labels"),
        (with_column("query", pa.array([None] * 40, pa.string())), "a query has no text"),
        (with_column("query_id", pa.array([7] * 40, pa.int64())), "not in order of query_id"),
        (with_column("a|b\nc", floats(0.5)), r"a column may not be called 'a|b\nc'"),
        (with_column("dense.ndcg@10", pa.array(["a"] * 40)), "may not be called 'dense.ndcg@10'"),
        (lambda rows: rows.select(rows.column_names[::-1]), "first columns must be query_id"),
        (lambda rows: rows.append_column("dense.labels", rows["dense.labels"]), "have one name"),
        (lambda rows: rows.slice(1), "39 rows for the 40 queries"),
    ],
)
def test_values_that_no_evaluation_gives_are_refused_though_the_hash_is_right(
    rows: pa.Table, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    changed = change(rows)
    of = card(rows)
    beside = per_query.Beside(top(rows, "title"), EXACT, {}, {})
    signed = per_query.with_card(changed, of.sample, "labse", "flat", beside)
    assert said in refusal(written(signed))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"per_query_schema": 3}, "per_query_schema must be 2 (found 3)"),
        ({"encoder": "x\n## All is well"}, "the card's encoder: must match"),
        ({"top_sha256": "no"}, "the card's top_sha256"),
        ({"more": 1}, "the card's more: Extra inputs"),
        ({"contents_sha256": "0" * 64}, "the card says 000000000000: the file is damaged"),
        ({"index": "hnsw"}, "the file is damaged or was edited"),
    ],
)
def test_a_card_that_is_not_this_tables_is_refused(
    rows: pa.Table, change: Mapping[str, Any], said: str
) -> None:
    edited = json.loads(rows.schema.metadata[per_query.CARD]) | change
    metadata = {per_query.CARD: json.dumps(edited).encode()}
    assert said in refusal(written(rows.replace_schema_metadata(metadata)))


def test_a_table_of_another_locale_or_an_older_form_is_refused(rows: pa.Table) -> None:
    assert "the table is of the locale es" in refusal(written(rows), "jp")
    older = rows.replace_schema_metadata({b"sample": b"{}"})
    assert "has no card: it is of an older form than 2" in refusal(written(older))
    assert "the card's (top level): Invalid JSON" in refusal(
        written(rows.replace_schema_metadata({per_query.CARD: b"[" * 100_000}))
    )


def test_a_type_that_no_table_has_is_refused(rows: pa.Table) -> None:
    wide = rows.append_column("x.y", pa.array([[1.0]] * 40))
    assert "'x.y' is list<element: double>, which no column may be" in refusal(written(wide))
