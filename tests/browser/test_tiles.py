"""Codes, 8-bit vectors, titles and brands as the page reads them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.browser import tiles
from pipeline.browser.tiles import (
    CODEWORDS,
    Quantiser,
    TileWriter,
    count_subvectors,
    pack_vectors,
    read_packed,
    read_tiles,
    unpack_vectors,
    write_shown,
)
from pipeline.core import tables
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.text.normalise import join_fields
from tests.helpers.artefacts import params


def unit_vectors(rows: int, dimension: int, seed: int = 0) -> Matrix:
    made = np.random.default_rng(seed).standard_normal((rows, dimension), np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def test_a_vector_of_any_dimension_is_cut_into_equal_parts_of_about_eight_components() -> None:
    assert [count_subvectors(each) for each in (384, 768, 512, 32, 100, 7, 1)] == [
        48, 96, 64, 4, 10, 1, 1,
    ]  # fmt: skip
    assert all(each % count_subvectors(each) == 0 for each in range(1, 400))


@pytest.mark.parametrize("rows", [3, 255, 400])
def test_each_part_gets_the_code_of_its_nearest_codeword_every_time(rows: int) -> None:
    vectors = unit_vectors(rows, 32)
    first, second = Quantiser(vectors), Quantiser(vectors)
    codes, words = first.codes(vectors), first.codebook
    assert words.shape == (4, CODEWORDS, 8)
    assert codes.tobytes() == second.codes(vectors).tobytes()
    assert words.tobytes() == second.codebook.tobytes()
    parts = vectors.reshape(rows, 4, 1, 8).astype(np.float64)
    distances = ((parts - words[None]) ** 2).sum(axis=3)
    chosen = np.take_along_axis(distances, codes[:, :, None].astype(int), axis=2)[:, :, 0]
    np.testing.assert_allclose(chosen, distances.min(axis=2), atol=1e-6)


def test_training_rows_are_drawn_once_for_all_and_ascend() -> None:
    few, many = tiles.training_rows(10), tiles.training_rows(tiles.TRAINED + 5)
    assert few.tolist() == list(range(10))
    assert len(many) == tiles.TRAINED
    assert (np.diff(many) > 0).all()
    assert (many == tiles.training_rows(tiles.TRAINED + 5)).all()


def test_similar_products_are_neighbours_and_each_is_there_once() -> None:
    kinds = unit_vectors(5, 16)
    kind = np.random.default_rng(1).integers(0, 5, 600)
    vectors = kinds[kind] + 0.05 * unit_vectors(600, 16, seed=2)
    order = tiles.near_order(lambda: np.array_split(vectors, 7), vectors[::2])
    assert sorted(order.tolist()) == list(range(600))
    assert (order == tiles.near_order(lambda: [vectors], vectors[::2])).all()
    assert np.count_nonzero(np.diff(kind[order])) < 20, "480 in an order by chance"
    for rows in (1, 2, 5):
        assert len(tiles.near_order(lambda: [vectors[:rows]], vectors[:rows])) == rows  # noqa: B023


def test_a_vector_in_8_bits_is_off_by_half_a_step_at_most() -> None:
    vectors = np.vstack([unit_vectors(50, 24), np.zeros((1, 24), np.float32)])
    packed = pack_vectors(vectors)
    assert packed.shape == (51, 24 + 4)
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert (np.abs(unpack_vectors(packed) - vectors) <= steps * 0.5001).all()


def test_tiles_hold_all_rows_in_order_wherever_the_pieces_end(tmp_path: Path) -> None:
    rows = np.arange(46, dtype=np.uint8).reshape(23, 2)
    for name, ends in (("a", [23]), ("b", [1, 9, 10, 23]), ("c", [5, 10, 20, 23])):
        writer = TileWriter(tmp_path, name, rows=5)
        for start, stop in zip([0, *ends[:-1]], ends, strict=True):
            writer.add(rows[start:stop])
        assert (read_tiles(tmp_path, name, 2) == rows).all()
        sizes = [path.stat().st_size for path in sorted(tmp_path.glob(f"{name}-*"))]
        assert sizes == [10, 10, 10, 10, 6]


def write_products(folder: Path, given: list[tuple[str, str]]) -> Path:
    """Write the clean table of products of a title and a brand each; return where."""
    rows: dict[str, list[object]] = {"product_id": [], "text": [], "field_ends": []}
    for number, (title, brand) in enumerate(given):
        text, ends = join_fields([title, brand, "", "", "words"], params().clean.separator)
        for name, value in zip(rows, (f"B{number}", text, ends), strict=True):
            rows[name].append(value)
    path = folder / "products.parquet"
    tables.write_table(path, pa.table(rows, tables.PRODUCTS), tables.PRODUCTS)
    return path


def test_titles_and_brands_are_those_of_each_product(tmp_path: Path) -> None:
    settings = params().clean
    given = [("Mug", "Ä"), ("Kettle <b>", ""), ("", "Zeta"), ("t" * 500, "Ä"), ("Pan", "Beta")]
    path = write_products(tmp_path, given)
    order = np.array([3, 0, 4, 1, 2])
    assert write_shown(tmp_path, path, settings, order, "") == 3
    titles = read_packed(tmp_path / "titles-00000.bin")
    assert titles == [
        ["B3", "t" * 200], ["B0", "Mug"], ["B4", "Pan"], ["B1", "Kettle"], ["B2", "Zeta"],
    ]  # fmt: skip
    names = read_packed(tmp_path / "brands.bin")
    column = np.fromfile(tmp_path / "brands-00000.bin", "<u4")
    assert [["", *names][number] for number in column] == ["Ä", "Ä", "Beta", "", "Zeta"]
    other = tmp_path / "no-brands"
    other.mkdir()
    without = settings.model_copy(update={"fields": ("product_title",) * 5})
    assert write_shown(other, path, without, order, "") == 0
    assert [each.name for each in other.iterdir()] == ["titles-00000.bin"]
    fewer = settings.model_copy(update={"fields": ("product_title", "product_brand")})
    with pytest.raises(PipelineError, match=r"of 5 fields, but clean\.fields has 2"):
        write_shown(other, path, fewer, order, "Run it again.")


def test_brands_that_differ_only_in_case_are_one_as_most_products_write_it(tmp_path: Path) -> None:
    written = ["NIKE", "Nike", "", "straße", "Nike", "STRASSE", "nike", "strasse", "STRASSE"]
    path = write_products(tmp_path, [("Shoe", brand) for brand in written])
    order = np.arange(len(written))
    assert write_shown(tmp_path, path, params().clean, order, "") == 2
    names = read_packed(tmp_path / "brands.bin")
    column = np.fromfile(tmp_path / "brands-00000.bin", "<u4")
    shown = {"nike": "Nike", "strasse": "STRASSE", "": ""}
    assert [["", *names][number] for number in column] == [
        shown[each.casefold()] for each in written
    ]
