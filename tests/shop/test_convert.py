import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import tables
from pipeline.core.errors import PipelineError
from pipeline.sample.columns import EXAMPLES
from pipeline.shop import convert
from pipeline.shop.read import read_texts

CSV = 'sku;name;Marke\n00123;Schuh „Löwe“;Löwe\n7;"Hut; rot";\n'


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_csv_keeps_every_value_as_it_is_written_whatever_separates_it(tmp_path: Path) -> None:
    for separator in ",;\t|":
        rows = [["sku", "name"], ["00123", "1.50"], ["1e5", "true"], ["x", 'a"b\nc']]
        quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
        text = "".join(separator.join(row) + "\r\n" for row in quoted)
        table = read_texts(write(tmp_path / "p.csv", "\ufeff" + text))
        assert [list(row.values()) for row in table.to_pylist()] == rows[1:]


def test_json_lines_give_numbers_as_they_are_written_and_null_for_what_a_line_lacks(
    tmp_path: Path,
) -> None:
    text = '{"id": 1, "price": 1.50}\n\n{"id": "01", "new": true, "none": null, "empty": ""}\n'
    table = read_texts(write(tmp_path / "p.jsonl", text))
    assert table.to_pylist() == [
        {"id": "1", "price": "1.50", "new": None, "none": None, "empty": None},
        {"id": "01", "price": None, "new": "true", "none": None, "empty": None},
    ]


def test_the_three_forms_of_one_table_are_read_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"product_id": f"{rng.integers(1000):05d}", "product_title": f'Titel {i} – ü, "x"; y'}
        for i in range(50)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write(tmp_path / "p.jsonl", lines)
    quoted = ['"' + '","'.join(v.replace('"', '""') for v in row.values()) + '"' for row in rows]
    write(tmp_path / "p.csv", "product_id,product_title\n" + "\n".join(quoted))
    found = [read_texts(tmp_path / f"p.{form}").to_pylist() for form in ("parquet", "jsonl", "csv")]
    assert found == [rows, rows, rows]


def test_products_get_escis_columns_and_empty_texts_for_those_that_are_not_there(
    tmp_path: Path,
) -> None:
    table = read_texts(write(tmp_path / "p.csv", CSV))
    names = {"product_id": "sku", "product_title": "name", "product_brand": "Marke"}
    found = convert.products(convert.rename(table, names, "p.csv"), "de", "p.csv")
    assert found.schema.equals(tables.SAMPLE_PRODUCTS)
    assert found.to_pylist()[0] == {
        "product_id": "00123", "product_title": "Schuh „Löwe“", "product_description": None,
        "product_bullet_point": None, "product_brand": "Löwe", "product_color": None,
        "product_locale": "de",
    }  # fmt: skip
    assert found["product_brand"].to_pylist() == ["Löwe", None]


def labels(**columns: list[str]) -> pa.Table:
    return pa.table(columns)


def test_judgements_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"query": f"q{i % 7}", "product_id": f"P{i}", "esci_label": "EPI"[i % 3]} for i in range(40)
    ]
    expected = None
    for _ in range(5):
        table = pa.Table.from_pylist([rows[i] for i in rng.permutation(40)])
        found = convert.judgements(table, "de", {"P": "S"}, "l.csv")
        assert found.schema.equals(EXAMPLES)
        assert expected is None or found.equals(expected)
        expected = found
    assert expected is not None
    assert set(expected["split"].to_pylist()) == {"test"}
    assert set(expected["esci_label"].to_pylist()) == {"E", "S", "I"}
    pairs = {(row["query"], row["query_id"]) for row in expected.to_pylist()}
    assert len(pairs) == 7


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(["7", "12"], [7, 12]), (["007", "7"], [1, 2]), (["b", "a"], [1, 2]), (["1.0", "2"], [1, 2])],
)
def test_query_ids_that_are_whole_numbers_are_kept_and_others_numbered(
    ids: list[str], expected: list[int]
) -> None:
    table = labels(query=["x", "y"], product_id=["P", "P"], esci_label=["E", "E"], query_id=ids)
    found = convert.judgements(table, "de", {}, "l.csv")
    assert sorted(found["query_id"].to_pylist()) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.xlsx", "", r"the name must end in \.csv"),
        ("p.csv", "", "not readable as csv"),
        ("p.csv", "a,b\n", "has no rows"),
        ("p.csv", "a,a\n1,2\n", "appears more than once"),
        ("p.jsonl", "{}", "has no rows|not readable"),
        ("p.jsonl", "[1]\n", "line 1 must be an object"),
        ("p.jsonl", '{"a": [1]}\n', "line 1, a must be a text or a number"),
        ("p.jsonl", "{\n", "line 1 is not JSON"),
        ("p.parquet", "PAR1", "not readable as parquet"),
    ],
)
def test_a_file_of_another_form_is_one_message(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(PipelineError, match=said):
        read_texts(write(tmp_path / name, text))


def test_a_file_in_another_encoding_is_refused_with_the_command_that_converts_it(
    tmp_path: Path,
) -> None:
    with pytest.raises(PipelineError, match=r"is not UTF-8.*iconv --from-code latin1"):
        read_texts(write(tmp_path / "p.csv", "sku,name\n1,Löwe\n", "latin-1"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"product_id": "skuu"}, "there is no column 'skuu' for product_id.*did you mean"),
        ({"product_id": "sku", "product_title": "sku"}, "gives 'sku' to product_id and to"),
        ({}, "column product_id is missing.*--column product_id=NAME"),
        ({"product_id": "Marke"}, "column product_id is empty in 1 rows, the first of them row 2"),
        ({"product_id": "sku"}, "no column has a product's text"),
    ],
)
def test_columns_that_do_not_fit_are_one_message(
    tmp_path: Path, columns: dict[str, str], said: str
) -> None:
    table = read_texts(write(tmp_path / "p.csv", CSV))
    with pytest.raises(PipelineError, match=said):
        convert.products(convert.rename(table, columns, "p.csv"), "de", "p.csv")


def test_labels_of_another_scale_are_refused_with_the_option_that_maps_them() -> None:
    table = labels(query=["x"], product_id=["P"], esci_label=["Partial"])
    with pytest.raises(PipelineError, match=r"esci_label holds 'Partial'.*--label Partial=E"):
        convert.judgements(table, "de", {}, "l.csv")


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("dev", "split must be train or test \\(found 'dev'\\). Correct it, or leave"),
        (None, "column split is empty in 1 rows, the first of them row 2"),
    ],
)
def test_splits_that_esci_does_not_have_are_one_message(split: str | None, said: str) -> None:
    both = {"query": ["x", "y"], "product_id": ["P", "P"], "esci_label": ["E", "E"]}
    table = pa.table({**both, "split": pa.array(["test", split], pa.string())})
    with pytest.raises(PipelineError, match=said):
        convert.judgements(table, "de", {}, "l.csv")
    found = convert.judgements(table.slice(0, 1), "de", {}, "l.csv")
    assert found["split"].to_pylist() == ["test"]
