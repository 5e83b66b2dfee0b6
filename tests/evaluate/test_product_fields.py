"""Fields come out of a text as they went in."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core import tables
from pipeline.core.errors import PipelineError
from pipeline.core.field_ends import field_bounds
from pipeline.evaluate import product_fields
from pipeline.text.normalise import join_fields, normalise
from tests.helpers.artefacts import params

NAMES = ["product_title", "product_brand", "product_color"]


@pytest.mark.parametrize("separator", ["", " ", " | "])
def test_each_field_of_a_joined_text_is_found_again(separator: str) -> None:
    rng = np.random.default_rng(3)
    drawn = ["", None, "<b>", "Sony", "水筒 500ｍｌ", "😀 x", "a & b"]
    for _ in range(300):
        given = [drawn[i] for i in rng.integers(0, len(drawn), rng.integers(1, 6))]
        text, ends = join_fields(given, separator)
        for place, field in enumerate(given):
            (start,), (stop,) = field_bounds(np.array([ends]), place, separator)
            assert text[start:stop] == normalise(field)
        if text:
            (stop,) = product_fields.first_ends(np.array([ends]))
            assert text[:stop] == next(filter(None, map(normalise, given)))


def test_titles_of_the_shown_and_brands_of_all_products_are_read_in_any_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = [f"title {i} {'long ' * (60 * (i % 3))}".strip() for i in range(50)]
    rows = [(titles[i], f"brand {i % 7}" if i % 4 else "", "") for i in range(50)]
    joined = [join_fields(row, " / ") for row in rows]
    table = pa.table(
        {
            "product_id": [f"B{i:03d}" for i in range(50)],
            "text": [text for text, _ in joined],
            "field_ends": [ends for _, ends in joined],
        },
        tables.PRODUCTS,
    )
    tables.write_table(tmp_path / "products.parquet", table, tables.PRODUCTS)
    settings = params({"clean.fields": NAMES, "clean.separator": " / "}).clean
    shown = np.array([0, 6, 7, 30, 49])
    for rows_a_batch in (1, 7, 50, 100):
        monkeypatch.setattr(product_fields, "BATCH_ROWS", rows_a_batch)
        found, brands = product_fields.read_shown(
            tmp_path / "products.parquet", shown, settings, ""
        )
        assert found == {row: titles[row][:200] for row in shown.tolist()}
        assert brands == {f"brand {i}" for i in range(7)}
    others = ["product_title", "product_color", "product_description"]
    without = params({"clean.fields": others}).clean
    assert product_fields.read_shown(tmp_path / "products.parquet", shown, without, "")[1] is None
    fewer = params({"clean.fields": ["product_title"]}).clean
    with pytest.raises(
        PipelineError, match=r"the texts are of 3 fields, but clean.fields has 1. X"
    ):
        product_fields.read_shown(tmp_path / "products.parquet", shown, fewer, "X")
