import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_lines
from pipeline.sample import esci
from pipeline.sample.columns import EXAMPLES as EXAMPLES_OF_SOURCE
from pipeline.sample.opening import match_columns, open_file
from tests.helpers.esci_files import EXAMPLES, example


def products(count: int) -> pa.Table:
    rows = {
        "product_id": [f"B{one:04d}" for one in range(count)],
        "text": ["水筒"] * count,
        "field_ends": [[2, 2, 2]] * count,
    }
    return pa.table(rows, tables.PRODUCTS)


@pytest.mark.parametrize("rows", [0, 1, 10])
def test_a_table_is_read_as_it_was_written(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "new" / "products.parquet"

    tables.write_table(path, products(rows), tables.PRODUCTS)

    assert tables.read_table(path, tables.PRODUCTS, "").equals(products(rows))


def test_equal_tables_are_equal_bytes_however_they_are_chunked(tmp_path: Path) -> None:
    whole = products(100)
    chunked = pa.concat_tables([whole.slice(0, 13), whole.slice(13)])

    tables.write_table(tmp_path / "whole", whole, tables.PRODUCTS)
    tables.write_table(tmp_path / "chunked", chunked, tables.PRODUCTS)

    assert (tmp_path / "whole").read_bytes() == (tmp_path / "chunked").read_bytes()


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_pieces_are_the_whole_in_order(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "products.parquet"
    pq.write_table(products(10), path, row_group_size=4)

    pieces = list(tables.iter_table(path, tables.PRODUCTS, rows, ""))
    groups = list(tables.iter_row_groups(path, tables.PRODUCTS, ""))

    assert pa.concat_tables(pieces).equals(products(10))
    assert all(0 < len(piece) <= rows for piece in pieces)
    assert pa.concat_tables(groups).equals(products(10))
    assert [len(group) for group in groups] == [4, 4, 2]


def test_a_table_that_does_not_fit_its_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="field names"):
        tables.write_table(tmp_path / "a", products(1), tables.QUERIES)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reader", ["read_table", "iter_table", "iter_row_groups"])
def test_a_file_that_does_not_fit_names_itself_what_was_found_and_the_remedy(
    tmp_path: Path, reader: str
) -> None:
    path = tmp_path / "products.parquet"

    def read() -> object:
        match reader:
            case "read_table":
                return tables.read_table(path, tables.PRODUCTS, "run it again")
            case "iter_table":
                return list(tables.iter_table(path, tables.PRODUCTS, 10, "run it again"))
            case _:
                return list(tables.iter_row_groups(path, tables.PRODUCTS, "run it again"))

    with pytest.raises(PipelineError, match=rf"^{path} is missing. run it again$"):
        read()
    pq.write_table(products(3), path)
    data = path.read_bytes()
    for damaged in (b"", b"text", data[:-5], data[:4] + bytes(60) + data[64:]):
        path.write_bytes(damaged)
        with pytest.raises(PipelineError, match=rf"^{path} is not readable .*. run it again$"):
            read()
    pq.write_table(pa.table({"product_id": [1], "text": ["a"]}), path)
    told = (
        "has the columns product_id int64, text string, but "
        "product_id string not null, text string not null, "
        "field_ends list<element: int32 not null> not null are expected. run it again"
    )
    with pytest.raises(PipelineError, match=told):
        read()


def test_the_row_of_an_id_is_its_place_or_null() -> None:
    rng = np.random.default_rng(0)
    known = pa.chunked_array([pa.array(range(0, 40, 2)), pa.array(range(40, 100, 2))])
    wanted = pa.chunked_array([rng.integers(0, 100, size=50), rng.integers(0, 100, size=5)])

    found = tables.row_of(known, wanted).to_pylist()

    assert found == [None if one % 2 else one // 2 for one in wanted.to_pylist()]


def test_a_text_is_found_in_a_sorted_column_wherever_its_chunks_end() -> None:
    texts = ["", "Aa", "a", "aa", "é", "水筒", "😀"]
    assert texts == sorted(texts)
    column = pa.chunked_array([texts[:2], [], texts[2:]])
    assert [tables.find_sorted(column, text) for text in texts] == list(range(len(texts)))
    assert {tables.find_sorted(column, each) for each in ("A", "ab", "水", "😁")} == {None}
    assert tables.find_sorted(pa.chunked_array([], pa.string()), "a") is None


def test_the_rows_of_ids_that_must_be_known_refuse_an_unknown_one(tmp_path: Path) -> None:
    known = products(5)["product_id"]
    wanted = pa.chunked_array([["B0003", "B0000", "B0003"]])

    rows = tables.rows_of(known, wanted, tmp_path, "run it again")

    assert rows.dtype == np.int64
    assert rows.tolist() == [3, 0, 3]
    with pytest.raises(PipelineError, match=rf"^{tmp_path}: ZZ is not in .*. run it again$"):
        tables.rows_of(known, pa.chunked_array([["B0001", "ZZ"]]), tmp_path, "run it again")


def test_the_hash_of_ids_follows_their_order_and_not_their_chunks() -> None:
    whole = pa.chunked_array([[1, 2, 3]])

    assert tables.ids_sha256(whole) == tables.ids_sha256(pa.chunked_array([[1], [2, 3]]))
    assert tables.ids_sha256(whole) != tables.ids_sha256(pa.chunked_array([[1, 3, 2]]))
    assert tables.ids_sha256(whole) == sha256_lines(["1", "2", "3"])


def test_the_hash_of_columns_is_that_of_their_lines_however_they_are_chunked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers, words = list(range(-3, 40)), [f"é {n} 空" if n % 5 else "" for n in range(43)]
    expected = sha256_lines(f"{n} {word}" for n, word in zip(numbers, words, strict=True))
    for rows in (1, 4, 100):
        monkeypatch.setattr(tables, "_HASHED_ROWS", rows)
        columns = [pa.chunked_array([numbers[:7], numbers[7:]]), pa.chunked_array([words])]
        assert tables.columns_sha256(columns) == expected
        sliced = [pa.chunked_array([[9, *numbers]]).slice(1), columns[1]]
        assert tables.columns_sha256(sliced) == expected
    assert tables.ids_sha256(pa.chunked_array([], pa.string())) == sha256_lines([])


def test_row_groups_can_be_read_without_some_columns(tmp_path: Path) -> None:
    pq.write_table(products(9), tmp_path / "p.parquet", row_group_size=4)
    groups = list(tables.iter_row_groups(tmp_path / "p.parquet", tables.PRODUCTS, "", ["text"]))
    assert [group.num_rows for group in groups] == [4, 4, 1]
    assert all(group.column_names == ["text"] for group in groups)


@dataclass(frozen=True)
class Reader:
    """What reads a file of `rows(rng, count)`, or refuses it with one of the ways out."""

    rows: Callable[[np.random.Generator, int], pa.Table]
    read: Callable[[Path], pa.Table]
    ways_out: tuple[str, ...]


def many_products(rng: np.random.Generator, count: int) -> pa.Table:
    texts = ["".join(rng.choice(list("abc ñ水"), 40)) for _ in range(count)]
    ends = [[int(end), 40] for end in rng.integers(0, 40, count)]
    rows = {"product_id": [f"B{one:04d}" for one in range(count)], "text": texts}
    return pa.table({**rows, "field_ends": ends}, tables.PRODUCTS)


def many_examples(rng: np.random.Generator, count: int) -> pa.Table:
    labels = rng.choice(tables.LABELS, count).tolist()
    rows = [example(one, one // 9, f"B{one:04d}", label) for one, label in enumerate(labels)]
    return pa.Table.from_pylist(rows, EXAMPLES).select(EXAMPLES_OF_SOURCE.names)


def read_examples(path: Path) -> pa.Table:
    file = match_columns(open_file(path), EXAMPLES_OF_SOURCE)
    return pa.concat_tables(esci.read_batches(file, EXAMPLES_OF_SOURCE))


def read_pieces(path: Path) -> pa.Table:
    return pa.concat_tables(tables.iter_table(path, tables.PRODUCTS, 16_384, "run it again"))


def read_one_by_one(path: Path) -> pa.Table:
    columns = [
        tables.read_column(path, tables.PRODUCTS, name, "run it again")
        for name in tables.PRODUCTS.names
    ]
    return pa.table(columns, tables.PRODUCTS)


READERS = {
    "a table": Reader(
        many_products,
        lambda path: tables.read_table(path, tables.PRODUCTS, "run it again"),
        (". run it again",),
    ),
    "a table in pieces": Reader(many_products, read_pieces, (". run it again",)),
    "a table by its columns": Reader(many_products, read_one_by_one, (". run it again",)),
    "the source": Reader(
        many_examples,
        read_examples,
        (
            ". Fetch or write it again.",
            "types must be those of the official files. Write the file again.",
            "). Or write the file again.",
        ),
    ),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_flipped_bit_anywhere_is_refused_with_the_way_out_or_changes_nothing(
    tmp_path: Path, reader: Reader
) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "table.parquet"
    sound = reader.rows(rng, 50)
    tables.write_table(path, sound, sound.schema)
    whole = path.read_bytes()
    refused = 0
    # Everywhere, and as often in the footer, which no checksum covers.
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in (*rng.integers(0, len(whole), 150), *rng.integers(footer, len(whole), 150)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        refused += bool(_refusal_of(path, reader, sound))
    assert refused > 150


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_footer_with_other_rows_than_its_groups_is_refused(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "table.parquet"
    sound = reader.rows(np.random.default_rng(0), 1_111)
    tables.write_table(path, sound, sound.schema)
    whole = path.read_bytes()
    # The varint of 1,111 counts the rows of the file, of the group, and the values of columns.
    told = []
    for at in range(len(whole)):
        if whole.startswith(bytes([0xAE, 0x11]), at):
            path.write_bytes(whole[:at] + bytes([0xAC]) + whole[at + 1 :])  # 1,110
            told.append(_refusal_of(path, reader, sound))
    assert any("must have the 1110 rows of its footer (found 1111)" in one for one in told)
    assert any("must have the 1111 rows of its footer (found 1110)" in one for one in told)


def _refusal_of(path: Path, reader: Reader, sound: pa.Table) -> str:
    """Return why a file is refused, nothing if it is not: then it must be read as what it was."""
    try:
        found = reader.read(path)
    except PipelineError as err:
        told = str(err)
    else:
        assert found.equals(sound)
        return ""
    assert told.startswith(str(path))
    assert told.endswith(reader.ways_out)
    return told


def test_what_is_not_a_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    for name, told in (
        ("pipe", "is not a regular file"), ("folder", "is not a regular file"),
        ("circle", "cannot be read: Too many levels"), ("none", "is missing"),
    ):  # fmt: skip
        path = tmp_path / name
        with pytest.raises(PipelineError, match=rf"^{path} {told}.*\. Do it\.$"):
            tables.read_table(path, tables.PRODUCTS, "Do it.")
