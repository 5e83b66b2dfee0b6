"""The texts of a locale's clean tables: in order, in windows, and checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.embed.sides import TableSide, read_sides
from pipeline.text.normalise import join_fields
from tests.helpers.artefacts import LOCALE, clean_counts, write_clean

FIELDS = 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def products(texts: list[Any], ends: list[list[int]], rows: int = 7) -> TableSide:
    """Write a table of products, whose texts may be bytes that are not UTF-8."""
    path = Path("products.parquet")
    text = pa.array([one.encode() if isinstance(one, str) else one for one in texts], pa.binary())
    ids = pa.array([f"P{row:05d}" for row in range(len(texts))])
    columns = [
        ids,
        text.view(pa.string()),
        pa.array(ends, tables.PRODUCTS.field("field_ends").type),
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=tables.PRODUCTS), path)
    names = tuple("abc"[:FIELDS])
    return TableSide("products", "passage", path, tables.PRODUCTS, "Make it again.", names, rows)


def test_windows_hold_every_row_once_in_order_with_its_id_and_field_ends() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("ab ñ日🎁"))
    for rows in (0, 1, 6, 7, 8, 50):
        joined = [
            join_fields(["".join(rng.choice(letters, rng.integers(0, 9))) for _ in range(3)], " | ")
            for _ in range(rows)
        ]
        side = products([text for text, _ in joined], [ends for _, ends in joined])
        windows = list(side.windows())
        assert [window.start for window in windows] == list(range(0, rows, 7))
        assert all(len(window.texts) <= 7 for window in windows)
        found = [
            (text, ends.tolist())
            for window in windows
            for text, ends in zip(window.texts, window.field_ends, strict=True)
        ]
        assert found == joined
        ids = [one for window in windows for one in window.ids.to_pylist()]
        assert ids == [f"P{row:05d}" for row in range(rows)]


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([1, 2], r"row 9 must be 3 numbers that ascend to 4, .* .found \[1, 2\]."),
        ([1, 2, 3, 4], r".found \[1, 2, 3, 4\]."),
        ([], r".found \[\]."),
        ([0, 2, 3], r".found \[0, 2, 3\]."),
        ([0, 2, 5], r".found \[0, 2, 5\]."),
        ([3, 2, 4], r".found \[3, 2, 4\]."),
        ([-1, 2, 4], r".found \[-1, 2, 4\]."),
    ],
)
def test_field_ends_that_do_not_fit_their_text_are_refused_with_the_row(
    ends: list[int], message: str
) -> None:
    texts, good = ["text"] * 12, [[0, 2, 4]] * 12
    side = products(texts, [*good[:9], ends, *good[10:]])
    with pytest.raises(PipelineError, match=message) as error:
        list(side.windows())
    assert str(error.value).startswith("products.parquet: field_ends of row ")
    assert str(error.value).endswith(" Make it again.")


def test_too_many_ends_in_one_row_do_not_make_up_for_too_few_in_another() -> None:
    side = products(["text"] * 2, [[4, 4], [4, 4, 4, 4]])
    with pytest.raises(PipelineError, match="row 0 must be 3 numbers"):
        list(side.windows())


def test_a_text_that_is_not_utf_8_is_one_message() -> None:
    side = products(["good", b"\xff\xfe"], [[4, 4, 4], [2, 2, 2]])
    with pytest.raises(PipelineError, match=r"^products.parquet.*UTF-?8.* Make it again"):
        list(side.windows())


COUNTS = clean_counts()


def of_fields(fields: object) -> dict[str, Any]:
    """Return counts of products whose texts are said to be made of these fields."""
    return COUNTS | {"products": COUNTS["products"] | {"fields": fields}}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "queries: "),
        (COUNTS | {"products": None}, "products: "),
        (COUNTS | {"products": {"in": 1, "out": 1, "separator": " "}}, "products.fields: "),
        (of_fields([]), "products.fields: "),
        (of_fields("abc"), "products.fields: "),
        (of_fields(["product_title", "product_titel"]), "products.fields.1: "),
        (of_fields(["product_title"] * 2), "products.fields: "),
        (of_fields({"product_title": 1}), "products.fields: "),
        ([], "top level"),
    ],
)
def test_counts_that_do_not_name_the_fields_are_refused(found: object, message: str) -> None:
    write_clean(np.random.default_rng(0), 10, 3)
    path = layout.clean(LOCALE).counts
    path.write_text(json.dumps(found))
    with pytest.raises(PipelineError, match=rf"^{path}: .*{message}.*Run `dvc repro clean@es`"):
        read_sides(LOCALE)
